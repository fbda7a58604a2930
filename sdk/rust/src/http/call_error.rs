//! The error of a call to another server, with the setting that it is about.

use std::{fmt, io};

use crate::Failure;

/// The reason why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// The code of the standard (`wasi:http/types.error-code`), such as `HTTP-request-denied`.
    pub code: &'static str,
    /// The detail that the standard adds, such as a bound.
    pub detail: Option<String>,
}

/// The settings behind the codes: what to look at, and where.
// Here and not in the host: the standard's errors have a code and no text.
const HELP: &[(&str, &str)] = &[
    ("HTTP-request-denied", "`allow.http` of this agent does not cover it; its log names the place that would"),
    ("destination-IP-prohibited", "the place in `allow.http` reaches public addresses only, without `private = true`"),
    ("connection-limit-reached", "`outgoing.calls` or `outgoing.calls-per-message`"),
    ("DNS-timeout", "`outgoing.connect-timeout`"),
    ("connection-timeout", "`outgoing.connect-timeout`"),
    ("connection-read-timeout", "`outgoing.first-byte-timeout` or `outgoing.stall-timeout`"),
    ("connection-write-timeout", "`outgoing.stall-timeout`"),
    ("HTTP-request-body-size", "`outgoing.max-request-body`, or the length in the head of the request"),
    ("HTTP-response-body-size", "`outgoing.max-response-body`"),
    ("HTTP-response-timeout", "the time of the message is over (`limits.time`)"),
    ("TLS-certificate-error", "`outgoing.ca` names further issuers to trust"),
    ("configuration-error", "the log of this agent names the setting"),
];

impl CallError {
    #[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "only a component calls"))]
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, detail: None }
    }

    pub(super) fn of_io(error: io::Error) -> Self {
        // Wrapped by the traits of `std::io`, through which bodies are read and written.
        let text = error.to_string();
        match error.into_inner().map(|inner| inner.downcast::<Self>()) {
            Some(Ok(own)) => *own,
            _ => Self { code: "internal-error", detail: Some(text) },
        }
    }

    /// Returns `true` if the same call may succeed later: the server was not reached, or broke off.
    pub fn is_passing(&self) -> bool {
        ["DNS-", "connection-", "destination-unavailable", "HTTP-response-timeout", "HTTP-response-incomplete"]
            .iter()
            .any(|passing| self.code.starts_with(passing))
    }

    /// Returns `true` if a time ran out: for the connection, the response, or the message.
    pub fn is_timeout(&self) -> bool {
        // As the standard names all of them, those to come included.
        self.code.ends_with("-timeout")
    }

    /// Returns the setting that decides over it, as a text with its name; `None` if no setting does. The text is part of
    /// what the error displays.
    ///
    /// ```
    /// use caxton_sdk::http::CallError;
    ///
    /// let error = CallError { code: "HTTP-request-denied", detail: None };
    /// assert!(error.help().is_some_and(|help| help.contains("allow.http")));
    /// ```
    pub fn help(&self) -> Option<&'static str> {
        HELP.iter().find(|(code, _)| *code == self.code).map(|(_, help)| *help)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call failed: {}", self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        self.help().map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

impl std::error::Error for CallError {}

/// A call that may succeed later is `unavailable`; any other is a fault of this agent.
impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        if error.is_passing() { Self::unavailable(error.to_string()) } else { Self::fault(error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;

    #[test]
    fn passing_errors_are_unavailable() {
        for (code, cause) in [
            ("connection-timeout", Cause::Unavailable),
            ("DNS-error", Cause::Unavailable),
            ("HTTP-request-denied", Cause::Fault),
            ("TLS-certificate-error", Cause::Fault),
            ("HTTP-response-body-size", Cause::Fault),
        ] {
            assert_eq!(Failure::from(CallError::new(code)).cause, cause, "{code}");
        }
    }

    #[test]
    fn errors_name_their_settings() {
        for (code, setting) in [
            ("HTTP-request-denied", "allow.http"),
            ("destination-IP-prohibited", "private = true"),
            ("connection-read-timeout", "outgoing.first-byte-timeout"),
            ("HTTP-response-body-size", "outgoing.max-response-body"),
            ("HTTP-response-timeout", "limits.time"),
        ] {
            let text = CallError { code, detail: Some("7".to_owned()) }.to_string();
            assert!(text.starts_with(&format!("the call failed: {code} (7); ")) && text.contains(setting), "{text}");
        }
        assert_eq!(CallError::new("HTTP-protocol-error").to_string(), "the call failed: HTTP-protocol-error");
        assert!(CallError::new("connection-read-timeout").is_timeout() && !CallError::new("DNS-error").is_timeout());
    }
}
