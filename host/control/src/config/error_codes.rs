//! The stable codes of the errors, and their places.

use super::error::{ConfigError, Location, PlaceProblem};
use super::node::Source;
use super::policy_error::PolicyError;

// A macro, so that an added variant without a code does not compile.
/// Implements the methods that need the code and the `at` of every variant.
macro_rules! by_variant {
    ($($variant:ident $code:literal,)*) => {
        impl ConfigError {
            /// The codes of all errors; each has a file in `host/control/tests/config/bad`.
            pub const CODES: &[&'static str] =
                &[$($code,)* PolicyError::CODES[0], PolicyError::CODES[1], PolicyError::CODES[2],
                  PolicyError::CODES[3], PolicyError::CODES[4]];

            /// Returns the error's stable name for programs.
            pub fn code(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $code,)* Self::Policy { reason, .. } => reason.code() }
            }

            /// Returns the setting that the error is about.
            pub fn at(&self) -> &Location {
                match self { $(Self::$variant { at, .. } => at,)* Self::Policy { at, .. } => at }
            }
        }
    };
}

// The codes are served and documented: a variant may be renamed, its code may not.
by_variant! {
    MissingFile "missing-file",
    UnreadableFile "unreadable-file",
    Syntax "syntax",
    DuplicateKey "duplicate-key",
    UnknownVariable "unknown-variable",
    UnknownKey "unknown-key",
    NotImplemented "not-implemented",
    Missing "missing-key",
    WrongType "wrong-type",
    Empty "empty",
    BadSize "bad-size",
    BadDuration "bad-duration",
    OutOfBounds "out-of-bounds",
    UnknownFormat "unknown-format",
    UnknownWord "unknown-word",
    BadAddress "bad-address",
    NotLoopback "not-loopback",
    BadName "bad-name",
    BadVariableName "bad-variable-name",
    BadRoute "bad-route",
    BadRate "bad-rate",
    BadCallerToken "bad-caller-token",
    BadKeySource "bad-key-source",
    BadPlace "bad-place",
    BadConversation "bad-conversation",
    BadSaveMode "bad-save-mode",
    BadCron "bad-cron",
    UnknownTimezone "unknown-timezone",
    BadContentType "bad-content-type",
    UnknownMethod "unknown-method",
    BadOrigin "bad-origin",
    BadHeaderName "bad-header-name",
    BadHostName "bad-host-name",
    UnusableFile "unusable-file",
    CredentialsForAll "credentials-for-all",
    BadSecretName "bad-secret-name",
    SecretSource "secret-source",
    BadSecretText "bad-secret-text",
    UnknownSecret "unknown-secret",
    UnusableSecret "unusable-secret",
    Repeated "repeated",
    MinAboveMax "min-above-max",
    OtherStrategy "other-strategy",
    RouteClash "route-clash",
    UnknownAgent "unknown-agent",
    UnknownCapability "unknown-capability",
}

impl ConfigError {
    /// Returns a second place that belongs to the error, with a label for it.
    pub fn related(&self) -> Option<(&Source, &'static str)> {
        match self {
            Self::DuplicateKey { first: Some(first), .. } => Some((first, "first set here")),
            Self::Repeated { first, .. } => Some((first, "first listed here")),
            Self::BadPlace { problem, .. } => match &**problem {
                PlaceProblem::Clash { first, .. } => Some((first, "the other place")),
                PlaceProblem::SameName { first, .. } => Some((first, "the other folder")),
                PlaceProblem::Unusable { .. }
                | PlaceProblem::Proxy(_)
                | PlaceProblem::ProxyPassword
                | PlaceProblem::Folder { .. }
                | PlaceProblem::Tcp { .. } => None,
            },
            Self::MinAboveMax { other, .. } => Some((other, "against this")),
            Self::Policy { reason, .. } => reason.other().map(|other| (other, "the bound")),
            Self::RouteClash { clash, .. } => Some((&clash.other, "the other route")),
            _ => None,
        }
    }
}
