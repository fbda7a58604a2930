//! The errors of places, of the proxy on the way to them, and of folders.

use super::node::Source;
use crate::folder::FolderError;
use crate::place::PlaceError;
use crate::tcp_place::TcpPlaceError;

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
    /// A password of a proxy that stands in the file.
    #[error("a password cannot stand in this file")]
    ProxyPassword,
    /// A folder that cannot be granted.
    #[error("`{given}` is no folder for an agent: {reason}")]
    Folder {
        /// The path.
        given: String,
        /// The reason.
        reason: FolderError,
    },
    /// A folder with the name of another.
    #[error("the agent sees two folders as `{given}`")]
    SameName {
        /// The name.
        given: String,
        /// The earlier folder.
        first: Source,
    },
    /// A text that is no place for connections.
    #[error("`{given}` is no place to connect to: {reason}")]
    Tcp {
        /// The text.
        given: String,
        /// The reason.
        reason: TcpPlaceError,
    },
}

impl PlaceProblem {
    /// Returns the remedy.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Clash { .. } => "keep one of the two, or give each its own `methods`",
            Self::Proxy(_) => {
                "`http://`, a host and a port, such as \"http://proxy.example:3128\" or \
                 \"http://user:${secret:proxy}@proxy.example:3128\", without a path"
            }
            Self::ProxyPassword => "such as \"http://user:${secret:proxy}@proxy.example:3128\", with `[secrets]`",
            Self::Folder { .. } => "such as \"data\" or `{ folder = \"data\", name = \"/data\", write = true }`",
            Self::SameName { .. } => "give one of the two another `name`",
            Self::Tcp { .. } => {
                "such as \"db.example.com:5432\", \"*.db.example.com:5432\", \"10.0.0.7:5432\", \"[fd00::7]:5432\" or \
                 \"10.0.0.0/8:5432\""
            }
            Self::Unusable { reason, .. } => match reason {
                PlaceError::PlainText => "call it over `https`, or add `private = true` if its addresses are private",
                PlaceError::UnknownWithoutJournal => "add `journal = true`, or leave `unknown` out",
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
