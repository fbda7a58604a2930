//! The errors of places, and of the proxy on the way to them.

use super::node::Source;
use crate::place::PlaceError;

/// A problem with a place, or with the proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceProblem {
    /// A place that cannot be granted.
    #[error("`{given}` is no place to call: {reason}")]
    Unusable {
        /// The text.
        given: String,
        /// The reason.
        reason: PlaceError,
    },
    /// A place that covers the same calls as another.
    #[error("`{given}` covers the same calls as another place of this agent")]
    Clash {
        /// The text.
        given: String,
        /// The earlier place.
        first: Source,
    },
    /// A text that is not the URL of a proxy.
    #[error("`{0}` is not the URL of a proxy")]
    Proxy(String),
}

impl PlaceProblem {
    /// Returns the remedy.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Clash { .. } => "keep one of the two, or give each its own `methods`",
            Self::Proxy(_) => {
                "`http://`, a host and a port, such as \"http://proxy.example:3128\", without a user or a path"
            }
            Self::Unusable { reason, .. } => match reason {
                PlaceError::PlainText => "call it over `https`, or add `private = true` if its addresses are private",
                PlaceError::Method(_) => "leave it out of `methods`",
                PlaceError::OwnHeader(_) => "leave it out of `headers`",
                PlaceError::HeaderName(_) | PlaceError::HeaderValue(_) => {
                    "such as `headers = { authorization = \"Bearer ${secret:openai}\" }`"
                }
                PlaceError::Meter(_) => {
                    "such as `meter = { tokens = \"/usage/total_tokens\" }` and `at-most = { tokens = 4000 }`"
                }
                PlaceError::Target(_) | PlaceError::Query | PlaceError::Wildcard => {
                    "such as \"https://api.example.com/v1/*\", \"https://*.example.com\" or \"http://10.0.0.7:8080/status\""
                }
            },
        }
    }
}
