//! Secrets: their names and sources, and the texts of agents that contain them.
//!
//! A declaration has only names. The values are read by the host, and are no part of what makes a revision.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// The start of a reference to a secret.
const SECRET: &str = "secret:";
/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// The table `[secrets]`: the sources of texts that are kept out of the declaration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SecretsSpec {
    /// A folder whose files are secrets by their names; relative to the folder of the declaration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The secrets with a source of their own. They go before files of the folder.
    #[serde(flatten)]
    pub named: BTreeMap<String, SecretSource>,
}

/// The source of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// An environment variable of the host.
    Env(String),
    /// A file, relative to the folder of the declaration.
    File(String),
    /// A command line that prints it.
    Command(String),
}

impl SecretsSpec {
    /// Returns `true` if there may be a secret of this name. The files of a folder are known to the host only.
    pub fn may_have(&self, name: &str) -> bool {
        self.folder.is_some() || self.named.contains_key(name)
    }
}

/// The error for a text that refers to secrets in a wrong way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretTextError {
    /// A reference that is not closed.
    #[error("`${{` is not closed")]
    Open,
    /// A reference to something other than a secret.
    #[error("`${{{0}}}` means nothing here")]
    Unknown(String),
    /// A reference to a name that no secret can have.
    #[error("`{0}` cannot be the name of a secret")]
    BadName(String),
}

/// A text of an agent's configuration, with references such as `${secret:openai}` to secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretText(Vec<TextPart>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum TextPart {
    Literal(String),
    Secret(String),
}

impl SecretText {
    /// Parses a text: `${secret:NAME}` is the value of a secret, `$${` a literal `${`, and all else itself.
    ///
    /// # Errors
    /// A `${` of another form.
    pub fn parse(text: &str) -> Result<Self, SecretTextError> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find("${") {
            let (before, reference) = rest.split_at(at);
            let reference = &reference[2..];
            if let Some(before) = before.strip_suffix('$') {
                literal.push_str(before);
                literal.push_str("${");
                rest = reference;
                continue;
            }
            literal.push_str(before);
            let (name, after) = reference.split_once('}').ok_or(SecretTextError::Open)?;
            let Some(secret) = name.strip_prefix(SECRET) else { return Err(SecretTextError::Unknown(name.to_owned())) };
            if !is_secret_name(secret) {
                return Err(SecretTextError::BadName(secret.to_owned()));
            }
            if !literal.is_empty() {
                parts.push(TextPart::Literal(std::mem::take(&mut literal)));
            }
            parts.push(TextPart::Secret(secret.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(TextPart::Literal(literal));
        }
        Ok(Self(parts))
    }

    /// Returns the names of the secrets that it refers to.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            TextPart::Secret(name) => Some(name.as_str()),
            TextPart::Literal(_) => None,
        })
    }

    /// Replaces the references by values.
    ///
    /// # Errors
    /// The name of the first secret that has no value.
    pub fn resolve<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                TextPart::Literal(literal) => text.push_str(literal),
                TextPart::Secret(name) => text.push_str(value(name).ok_or_else(|| name.clone())?),
            }
        }
        Ok(text)
    }
}

/// Returns the names of all secrets that these texts refer to. A text that is malformed refers to none: only those of
/// revisions from before there were secrets can be.
pub fn names_in<'t>(texts: impl IntoIterator<Item = &'t String>) -> BTreeSet<String> {
    let parsed = texts.into_iter().filter(|text| text.contains("${")).filter_map(|text| SecretText::parse(text).ok());
    parsed.flat_map(|text| text.names().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Returns `true` if a secret can have this name. It can be the name of a file, and leads to no other folder.
pub fn is_secret_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced() {
        let values = |name: &str| match name {
            "a" => Some("1"),
            "b.key" => Some("${secret:a}"),
            _ => None,
        };
        for (text, expected) in [
            ("", Ok("")),
            ("plain $ text {}", Ok("plain $ text {}")),
            ("${secret:a}", Ok("1")),
            ("Bearer ${secret:a}, ${secret:b.key}!", Ok("Bearer 1, ${secret:a}!")),
            ("$${secret:a}", Ok("${secret:a}")),
            ("$$${secret:a}", Ok("$${secret:a}")),
            ("$${$${", Ok("${${")),
            ("${secret:c}", Err("c")),
        ] {
            let resolved = SecretText::parse(text).unwrap().resolve(values);
            assert_eq!(resolved.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn other_references_are_errors() {
        for (text, expected) in [
            ("${secret:a", "`${` is not closed"),
            ("${HOME}", "`${HOME}` means nothing here"),
            ("${}", "`${}` means nothing here"),
            ("${secret:}", "`` cannot be the name of a secret"),
            ("${secret:../a}", "`../a` cannot be the name of a secret"),
        ] {
            assert_eq!(SecretText::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn names_lead_to_no_other_folder() {
        for (name, good) in [("openai", true), ("DB_pass-1.pem", true), ("_x", true), (".hidden", false), ("-x", false)]
        {
            assert_eq!(is_secret_name(name), good, "{name}");
        }
        assert!(!is_secret_name("a/b") && !is_secret_name("") && !is_secret_name(&"a".repeat(65)));
    }

    #[test]
    fn names_of_texts_are_collected() {
        let texts = ["${secret:a} ${secret:b}", "none", "${secret:a}", "${broken"].map(str::to_owned);
        assert_eq!(names_in(&texts).into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
