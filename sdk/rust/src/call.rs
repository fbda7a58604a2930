//! The HTTP request behind a message.

use crate::{Message, query};

/// The HTTP request that a message was made from; see [`Message::http`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HttpCall<'m> {
    message: &'m Message,
    /// The method, such as `POST`.
    pub method: &'m str,
    /// The matched route as declared, such as `/tickets/{id}`.
    pub route: &'m str,
    /// The path as the client sent it.
    pub path: &'m str,
    /// The text after `?` as the client sent it; `None` without `?`.
    pub query: Option<&'m str>,
}

impl Message {
    /// Returns the HTTP request that this message was made from; `None` if it came another way. The source is the
    /// message's sender, which only the host can set, so it can be trusted.
    ///
    /// ```
    /// use caxton_sdk::prelude::*;
    ///
    /// fn handle(message: Message) -> Handled {
    ///     let Some(call) = message.http() else { return Ok(None) };
    ///     let (Some(id), "GET") = (call.parameter("id"), call.method) else {
    ///         return Ok(Some(Reply::text("no such ticket").status(404)));
    ///     };
    ///     Ok(Some(Reply::text(format!("ticket {id}"))))
    /// }
    /// ```
    pub fn http(&self) -> Option<HttpCall<'_>> {
        // Such as `http:GET /tickets/{id}`. A method has no space; a route may have one.
        let (method, route) = self.sender.strip_prefix("http:")?.split_once(' ')?;
        let path = self.header("http-path").unwrap_or_default();
        Some(HttpCall { message: self, method, route, path, query: self.header("http-query") })
    }
}

impl<'m> HttpCall<'m> {
    /// Returns the decoded value of a route parameter: `{id}`, or `{*rest}`, which may be empty. Ignores the case of
    /// the name.
    pub fn parameter(&self, name: &str) -> Option<&'m str> {
        // The host sends the names as headers, in lower case, while a route may declare `{ID}`.
        self.parameters().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the parameters of the route in order, with names in lower case.
    pub fn parameters(&self) -> impl Iterator<Item = (&'m str, &'m str)> + use<'m> {
        let named = |(name, value): &'m (String, String)| Some((name.strip_prefix("http-param-")?, value.as_str()));
        self.message.headers.iter().filter_map(named)
    }

    /// Returns the first value of a name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<String> {
        query::value(self.query.unwrap_or_default(), name)
    }

    /// Returns the names and values of the query in order, decoded.
    pub fn query_pairs(&self) -> impl Iterator<Item = (String, String)> + use<'m> {
        query::pairs(self.query.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Draft, Message};

    fn message(sender: &str, headers: &[(&str, &str)]) -> Message {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Message { sender: sender.into(), headers, ..crate::message::tests::message(b"") }
    }

    const HEADERS: &[(&str, &str)] = &[
        ("http-method", "GET"),
        ("http-path", "/files/a%20b/c/d"),
        ("http-query", "full=yes&q=x+y"),
        ("http-param-id", "a b"),
        ("http-param-rest", "c/d"),
        ("accept", "text/plain"),
    ];

    #[test]
    fn a_message_has_the_request_it_was_made_from() {
        let message = message("http:GET /files/{ID}/{*rest}", HEADERS);
        let call = message.http().unwrap();
        assert_eq!((call.method, call.route), ("GET", "/files/{ID}/{*rest}"));
        assert_eq!((call.path, call.query), ("/files/a%20b/c/d", Some("full=yes&q=x+y")));
        assert_eq!(
            (call.parameter("ID"), call.parameter("rest"), call.parameter("x")),
            (Some("a b"), Some("c/d"), None)
        );
        assert_eq!(call.parameters().collect::<Vec<_>>(), [("id", "a b"), ("rest", "c/d")]);
        assert_eq!((call.query_value("q").as_deref(), call.query_value("p")), (Some("x y"), None));
        assert_eq!(call.query_pairs().count(), 2);
    }

    #[test]
    fn other_senders_are_not_taken_for_requests() {
        for sender in ["ann", "api:token", "cli:http", "host:schedule", "http:"] {
            assert_eq!(message(sender, HEADERS).http(), None, "{sender}");
        }
        // A draft can have headers of any name, but only the host sets its sender.
        assert_eq!(Draft::to("desk").header("http-method", "GET").headers.len(), 1);
    }
}
