//! The identity of a caller, and the reasons for turning one away.

use std::time::Duration;

use caxton_control::access::{Role, TokenName};

/// A caller whose token is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: TokenName,
    pub(crate) role: Role,
}

/// The reason why a caller is turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccessRefusal {
    /// No credential was given.
    Missing,
    /// The credential is not one.
    Wrong,
    /// The token has expired.
    Expired(TokenName),
    /// Too many wrong credentials came from the peer. It may come again after this time.
    TooMany(Duration),
}
