//! What can be wrong with a configuration.

use super::node::Place;
use crate::cron::CronError;
use crate::names::NameError;
use crate::route::RouteError;
use crate::template::TemplateError;
use crate::units::UnitError;

/// The setting that is wrong: its key from the root, and where its value was written.
#[derive(Debug, Clone, PartialEq)]
pub struct At {
    /// The path of keys, such as `agents.triage.limits.memory`; empty for the file as a whole.
    pub key: String,
    /// Where it was written.
    pub place: Place,
}

/// Two routes that clash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The later route's pattern.
    pub route: String,
    /// The earlier route's pattern.
    pub other_route: String,
    /// Whose the earlier route is.
    pub other_agent: String,
    /// Where the earlier route is.
    pub other: Place,
    /// What they have in common.
    pub overlap: Overlap,
}

/// What two routes that clash have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlap {
    /// The same paths, and this method, or all if none is named.
    Methods(Option<String>),
    /// A place where one has a parameter and the other a rest.
    ParamAndRest,
}

/// One thing that is wrong with a configuration.
///
/// `Display` says what is wrong, without key and place; [`Self::help`] says what would be right.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("there is no such file")]
    MissingFile {
        /// No key, no place.
        at: At,
    },
    /// The file cannot be read.
    #[error("cannot be read: {reason}")]
    UnreadableFile {
        /// No key, no place.
        at: At,
        /// What the system said.
        reason: String,
    },
    /// The file is not TOML.
    #[error("not valid TOML: {reason}")]
    Syntax {
        /// The place where reading stopped making sense.
        at: At,
        /// What the parser said.
        reason: String,
    },
    /// A key stands twice in a table, or a table twice in the file.
    #[error("set twice")]
    DuplicateKey {
        /// The second one.
        at: At,
        /// The first one, where it can be told.
        first: Option<Place>,
    },
    /// A variable that looks like a setting and is none.
    #[error("sets nothing")]
    UnknownVariable {
        /// The variable; it has no key.
        at: At,
        /// The variable that was probably meant.
        suggestion: Option<String>,
    },
    /// No setting has this key.
    #[error("unknown key")]
    UnknownKey {
        /// The key.
        at: At,
        /// The key that was probably meant, or a better place for this one.
        suggestion: Option<String>,
        /// The keys that the table has.
        known: Vec<&'static str>,
    },
    /// A setting, or a word in one, that this version does not act on.
    #[error("`{what}` is not implemented yet")]
    NotImplemented {
        /// The key or value.
        at: At,
        /// The key or the word.
        what: String,
        /// The words that work instead; none for a key.
        instead: &'static [&'static str],
    },
    /// A key that must be set is not.
    #[error("must be set")]
    Missing {
        /// The key, at the place of the table that lacks it.
        at: At,
        /// How it could look.
        example: String,
        /// The agent that was probably meant, if the table is an agent's.
        agent: Option<String>,
    },
    /// A value of another kind than the setting takes.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// The value.
        at: At,
        /// What the setting takes.
        expected: String,
        /// What is there.
        found: &'static str,
        /// How it could look.
        example: String,
    },
    /// A text that is required has no characters.
    #[error("must not be empty")]
    Empty {
        /// The value.
        at: At,
        /// How it could look.
        example: String,
    },
    /// A size that cannot be read.
    #[error("`{given}` is not a size: {reason}")]
    BadSize {
        /// The value.
        at: At,
        /// The text.
        given: String,
        /// Why not.
        reason: UnitError,
    },
    /// A duration that cannot be read.
    #[error("`{given}` is not a duration: {reason}")]
    BadDuration {
        /// The value.
        at: At,
        /// The text.
        given: String,
        /// Why not.
        reason: UnitError,
    },
    /// A value below the least or above the most allowed.
    #[error("{given} is out of bounds")]
    OutOfBounds {
        /// The value.
        at: At,
        /// As it was read.
        given: String,
        /// The smallest value allowed.
        least: String,
        /// The largest value allowed.
        most: String,
    },
    /// A format of the file that this version does not read.
    #[error("the file has format {given}, this version of Caxton reads format 1")]
    UnknownFormat {
        /// The value of `caxton`.
        at: At,
        /// The format.
        given: i64,
    },
    /// A word that the setting does not have.
    #[error("there is no `{given}` here")]
    UnknownWord {
        /// The value.
        at: At,
        /// The text.
        given: String,
        /// The words that work.
        known: &'static [&'static str],
        /// The word that was probably meant.
        suggestion: Option<String>,
    },
    /// A listen address that is not an IP address with a port.
    #[error("`{given}` is not an address to listen on")]
    BadAddress {
        /// The value.
        at: At,
        /// The text.
        given: String,
    },
    /// A listen address that others than this machine reach, where that is not safe.
    #[error("`{given}` is reached from other machines, which needs TLS, and TLS is not implemented yet")]
    NotLoopback {
        /// The value.
        at: At,
        /// The address.
        given: String,
    },
    /// A name that breaks the rule for names.
    #[error("`{given}` cannot be the name of {whose}")]
    BadName {
        /// The name.
        at: At,
        /// The text.
        given: String,
        /// `an agent` or `a capability`.
        whose: &'static str,
        /// The rule.
        reason: NameError,
    },
    /// A text that no environment variable has as its name.
    #[error("`{given}` cannot be the name of an environment variable")]
    BadVariableName {
        /// The value.
        at: At,
        /// The text.
        given: String,
    },
    /// A path that cannot be a route.
    #[error("`{given}` is not a route: {reason}")]
    BadRoute {
        /// The value.
        at: At,
        /// The text.
        given: String,
        /// Why not.
        reason: RouteError,
    },
    /// A text that cannot name the conversations of a route.
    #[error("`{given}` cannot name conversations: {reason}")]
    BadConversation {
        /// The value.
        at: At,
        /// The text.
        given: String,
        /// Why not.
        reason: TemplateError,
    },
    /// A pattern of times that cannot be read, or has no time.
    #[error("`{given}` is not a cron: {reason}")]
    BadCron {
        /// The value.
        at: At,
        /// The text.
        given: String,
        /// Why not.
        reason: CronError,
    },
    /// A time zone that there is not.
    #[error("there is no time zone `{given}`")]
    UnknownTimezone {
        /// The value.
        at: At,
        /// The text.
        given: String,
        /// The time zone that was probably meant.
        suggestion: Option<String>,
    },
    /// A text that cannot be the type of a content.
    #[error("`{}` is not a content type", given.escape_debug())]
    BadContentType {
        /// The value.
        at: At,
        /// The text.
        given: String,
    },
    /// A method that HTTP does not have.
    #[error("HTTP has no method `{given}`")]
    UnknownMethod {
        /// The value.
        at: At,
        /// The text.
        given: String,
        /// The method that was probably meant.
        suggestion: Option<String>,
    },
    /// A text that no page has as its origin.
    #[error("`{given}` is not an origin")]
    BadOrigin {
        /// The value.
        at: At,
        /// The text.
        given: String,
    },
    /// A text that no header has as its name.
    #[error("`{given}` cannot be the name of a header")]
    BadHeaderName {
        /// The value.
        at: At,
        /// The text.
        given: String,
    },
    /// Credentials for pages of all origins, which no browser sends.
    #[error("credentials are for origins that are named, and `origins` has `*`")]
    CredentialsForAll {
        /// The setting.
        at: At,
    },
    /// An element that a list has twice.
    #[error("`{given}` is listed twice")]
    Repeated {
        /// The second one.
        at: At,
        /// The element.
        given: String,
        /// The first one.
        first: Place,
    },
    /// A lower end above the upper, such as more instances required than allowed.
    #[error("{low} is more than {high}")]
    MinAboveMax {
        /// The one of the two that the table sets.
        at: At,
        /// The lower end, such as `min = 5`.
        low: String,
        /// The upper end, such as `max = 4`.
        high: String,
        /// Where the other one comes from.
        other: Place,
    },
    /// A key of another strategy than the one that is chosen, which would be read by nothing.
    #[error("belongs to `strategy = \"{belongs}\"`, and the strategy is {chosen}")]
    OtherStrategy {
        /// The key.
        at: At,
        /// The strategy that it belongs to.
        belongs: &'static str,
        /// The strategy that is in force.
        chosen: &'static str,
    },
    /// Two routes that match the same requests.
    #[error("`{}` clashes with `{}` of agent `{}`", clash.route, clash.other_route, clash.other_agent)]
    RouteClash {
        /// The later route.
        at: At,
        /// Both routes.
        clash: Box<Clash>,
    },
    /// A grant for an agent that is not declared.
    #[error("there is no agent `{name}`")]
    UnknownAgent {
        /// The grant.
        at: At,
        /// The agent.
        name: String,
        /// The agent that was probably meant.
        suggestion: Option<String>,
    },
    /// A grant for a capability that no agent declares.
    #[error("no agent has the capability `{name}`")]
    UnknownCapability {
        /// The grant.
        at: At,
        /// The capability.
        name: String,
        /// The capability that was probably meant.
        suggestion: Option<String>,
    },
}

/// Matches every variant on its `at` and its code.
macro_rules! by_variant {
    ($($variant:ident $code:literal,)*) => {
        impl ConfigError {
            /// All codes; each has a file in `host/control/tests/config/bad`.
            pub const CODES: &[&'static str] = &[$($code,)*];

            /// The name of the error for programs; it never changes.
            pub fn code(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $code,)* }
            }

            /// The setting that is wrong.
            pub fn at(&self) -> &At {
                match self { $(Self::$variant { at, .. } => at,)* }
            }
        }
    };
}

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
    BadConversation "bad-conversation",
    BadCron "bad-cron",
    UnknownTimezone "unknown-timezone",
    BadContentType "bad-content-type",
    UnknownMethod "unknown-method",
    BadOrigin "bad-origin",
    BadHeaderName "bad-header-name",
    CredentialsForAll "credentials-for-all",
    Repeated "repeated",
    MinAboveMax "min-above-max",
    OtherStrategy "other-strategy",
    RouteClash "route-clash",
    UnknownAgent "unknown-agent",
    UnknownCapability "unknown-capability",
}

impl ConfigError {
    /// A second place that belongs to the error, and what is there.
    pub fn related(&self) -> Option<(&Place, &'static str)> {
        match self {
            Self::DuplicateKey { first: Some(first), .. } => Some((first, "first set here")),
            Self::Repeated { first, .. } => Some((first, "first listed here")),
            Self::MinAboveMax { other, .. } => Some((other, "against this")),
            Self::RouteClash { clash, .. } => Some((&clash.other, "the other route")),
            _ => None,
        }
    }
}
