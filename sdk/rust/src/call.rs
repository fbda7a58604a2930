//! A message that came over HTTP: the request that it was made of.

use crate::{Message, query};

/// The request that a message was made of; see [`Message::http`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HttpCall<'m> {
    message: &'m Message,
    /// The method, such as `POST`.
    pub method: &'m str,
    /// The route that led to this agent, as its declaration has it: `/tickets/{id}`.
    pub route: &'m str,
    /// The path, as the client sent it.
    pub path: &'m str,
    /// The text after `?`, as the client sent it; none if there is none.
    pub query: Option<&'m str>,
}

impl Message {
    /// The request over HTTP that this message was made of; none when it came another way. It is the host that says so,
    /// in the message's sender, which nobody else can set.
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
        let (method, route) = self.sender.strip_prefix("http:")?.split_once(' ')?;
        let path = self.header("http-path").unwrap_or_default();
        Some(HttpCall { message: self, method, route, path, query: self.header("http-query") })
    }
}

impl<'m> HttpCall<'m> {
    /// The value of a parameter of the route, decoded: of `{id}` or `{*rest}`, the latter maybe empty. Upper and lower
    /// case of the name are the same.
    pub fn parameter(&self, name: &str) -> Option<&'m str> {
        self.parameters().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The parameters of the route in their order, with their names in lower case.
    pub fn parameters(&self) -> impl Iterator<Item = (&'m str, &'m str)> + use<'m> {
        let named = |(name, value): &'m (String, String)| Some((name.strip_prefix("http-param-")?, value.as_str()));
        self.message.headers.iter().filter_map(named)
    }

    /// The first value of a name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<String> {
        query::value(self.query.unwrap_or_default(), name)
    }

    /// The names and values of the query in their order, decoded.
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
    fn a_message_tells_the_request_that_it_was_made_of() {
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
    fn no_other_sender_can_pass_for_a_request() {
        for sender in ["ann", "api:token", "cli:http", "host:schedule", "http:"] {
            assert_eq!(message(sender, HEADERS).http(), None, "{sender}");
        }
        // A draft carries headers of any name; its sender is set by the host.
        assert_eq!(Draft::to("desk").header("http-method", "GET").headers.len(), 1);
    }
}
