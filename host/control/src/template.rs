//! Templates for the name of a request's conversation: `order-{id}`, `{header:x-tenant}/{id}`.

use std::fmt;

use serde::Serialize;

use crate::route::RoutePattern;

/// The longest template, in bytes: as long as the longest id of a conversation.
const MAX_TEMPLATE: usize = 256;

/// A template that names the conversation of each request of a route.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    /// The value of a route parameter.
    Param(String),
    /// The value of a header; the name is in lower case.
    Header(String),
}

/// The error for a text that is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A template longer than 256 bytes.
    #[error("it has at most {MAX_TEMPLATE} bytes")]
    TooLong,
    /// A character that a header value cannot hold.
    #[error("`{0}` is no printable character of ASCII")]
    NotPrintable(char),
    /// An unbalanced brace.
    #[error("a brace is not closed, or not opened")]
    Brace,
    /// A parameter that the route does not have.
    #[error("the route has no parameter `{0}`")]
    NoParam(String),
    /// A text that is not a header name.
    #[error("`{0}` cannot be the name of a header")]
    BadHeader(String),
}

impl Template {
    /// Parses a template for the requests of a route.
    ///
    /// # Errors
    /// The text is not a template, or names a parameter that the route does not have.
    pub fn parse(text: &str, route: &RoutePattern) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEMPLATE {
            return Err(TemplateError::TooLong);
        }
        if let Some(found) = text.chars().find(|found| !(' '..='~').contains(found)) {
            return Err(TemplateError::NotPrintable(found));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (before, after) = rest.split_once('{').unwrap_or((rest, ""));
            let opened = before.len() < rest.len();
            if before.contains('}') {
                return Err(TemplateError::Brace);
            }
            if !before.is_empty() {
                parts.push(TemplatePart::Text(before.to_owned()));
            }
            if !opened {
                break;
            }
            let (name, left) = after.split_once('}').ok_or(TemplateError::Brace)?;
            parts.push(part(name, route)?);
            rest = left;
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// Returns the name of a request's conversation. `param` and `header` look up the values of parameters and headers.
    ///
    /// # Errors
    /// The name of a header that is missing or empty: requests without it must not share one conversation.
    pub fn fill<'a, 'v>(
        &'a self,
        param: impl Fn(&str) -> Option<&'v str>,
        header: impl Fn(&str) -> Option<&'v str>,
    ) -> Result<String, &'a str> {
        // Values are about as long as their placeholders.
        let mut name = String::with_capacity(self.text.len());
        for part in &self.parts {
            match part {
                TemplatePart::Text(text) => name.push_str(text),
                // The route matched, so the only missing parameter can be an empty rest.
                TemplatePart::Param(key) => name.push_str(param(key).unwrap_or_default()),
                TemplatePart::Header(key) => {
                    name.push_str(header(key).filter(|value| !value.is_empty()).ok_or(key.as_str())?);
                }
            }
        }
        Ok(name)
    }
}

fn part(name: &str, route: &RoutePattern) -> Result<TemplatePart, TemplateError> {
    // First: a parameter cannot have a colon in its name, so nothing is hidden.
    if let Some(header) = name.strip_prefix("header:") {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if header.is_empty() || !header.bytes().all(is_token) {
            return Err(TemplateError::BadHeader(header.to_owned()));
        }
        // Requests have their header names in lower case.
        return Ok(TemplatePart::Header(header.to_ascii_lowercase()));
    }
    match route.params().iter().find(|param| *param == name) {
        Some(param) => Ok(TemplatePart::Param(param.clone())),
        None if name.contains('{') => Err(TemplateError::Brace),
        None => Err(TemplateError::NoParam(name.to_owned())),
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> RoutePattern {
        "/shops/{shop}/orders/{id}".parse().unwrap()
    }

    #[test]
    fn templates_are_filled_from_parameters_and_headers() {
        for (text, expected) in [
            ("order-{id}", Ok("order-17")),
            ("{shop}/{id}", Ok("north/17")),
            ("{header:X-Tenant}:{id}", Ok("acme:17")),
            ("all", Ok("all")),
            ("{id}{id}", Ok("1717")),
            ("{header:x-other}", Err("x-other")),
            ("{header:x-empty}", Err("x-empty")),
        ] {
            let template = Template::parse(text, &route()).unwrap();
            let param = |name: &str| [("shop", "north"), ("id", "17")].into_iter().find(|(key, _)| *key == name);
            let header = |name: &str| [("x-tenant", "acme"), ("x-empty", "")].into_iter().find(|(key, _)| *key == name);
            let filled =
                template.fill(|name| param(name).map(|found| found.1), |name| header(name).map(|found| found.1));
            assert_eq!(filled.as_deref().map_err(|missing| *missing), expected, "{text}");
        }
    }

    #[test]
    fn invalid_templates_are_refused() {
        let long = "x".repeat(MAX_TEMPLATE + 1);
        for (text, expected) in [
            ("order-{nr}", TemplateError::NoParam("nr".to_owned())),
            ("order-{}", TemplateError::NoParam(String::new())),
            ("order-{id", TemplateError::Brace),
            ("order-id}", TemplateError::Brace),
            ("{id}}", TemplateError::Brace),
            ("{{id}", TemplateError::Brace),
            ("{header:}", TemplateError::BadHeader(String::new())),
            ("{header:a b}", TemplateError::BadHeader("a b".to_owned())),
            ("tür-{id}", TemplateError::NotPrintable('ü')),
            (long.as_str(), TemplateError::TooLong),
        ] {
            assert_eq!(Template::parse(text, &route()), Err(expected), "{text}");
        }
    }
}
