//! The errors of a configuration.

pub use super::clash::{Clash, Overlap};
use super::error_parts::{BadUnit, UnknownReceiver};
pub use super::node::Location;
use super::node::Source;
pub use super::place_problem::PlaceProblem;
use super::policy_error::PolicyError;
use crate::access::{CallerTokenError, RateError};
use crate::cron::CronError;
use crate::names::NameError;
use crate::route::RouteError;
use crate::secret::SecretTextError;
use crate::snapshot::SaveModeError;
use crate::template::TemplateError;

/// An error of a configuration.
///
/// `Display` describes the error without key and place; [`Self::help`] describes the remedy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist.
    #[error("there is no such file")]
    MissingFile {
        /// A location without key and source.
        at: Location,
    },
    /// The file cannot be read.
    #[error("cannot be read: {reason}")]
    UnreadableFile {
        /// A location without key and source.
        at: Location,
        /// The error of the system.
        reason: String,
    },
    /// The file is not TOML.
    #[error("not valid TOML: {reason}")]
    Syntax {
        /// The place of the syntax error.
        at: Location,
        /// The error of the parser.
        reason: String,
    },
    /// A key that occurs twice in a table, or a table twice in the file.
    #[error("set twice")]
    DuplicateKey {
        /// The second occurrence.
        at: Location,
        /// The first occurrence, if it can be located.
        first: Option<Source>,
    },
    /// An environment variable in the form of a setting that does not exist.
    #[error("sets nothing")]
    UnknownVariable {
        /// The variable; there is no key.
        at: Location,
        /// The variable that was probably meant.
        suggestion: Option<String>,
    },
    /// A key that no setting has.
    #[error("unknown key")]
    UnknownKey {
        /// The key.
        at: Location,
        /// The key that was probably meant, or the right place for this one.
        suggestion: Option<String>,
        /// The keys of the table.
        known: Vec<&'static str>,
    },
    /// A key or a word that this version does not implement.
    #[error("`{what}` is not implemented yet")]
    NotImplemented {
        /// The key or value.
        at: Location,
        /// The key or the word.
        what: String,
        /// The words that work; empty for a key.
        instead: &'static [&'static str],
    },
    /// A required key that is missing.
    #[error("must be set")]
    Missing {
        /// The key, at the place of the table that lacks it.
        at: Location,
        /// A typical setting.
        example: String,
        /// The agent that was probably meant, if the table declares an agent.
        agent: Option<String>,
    },
    /// A value of a type that the setting does not take.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// The value.
        at: Location,
        /// The type that the setting takes.
        expected: String,
        /// The type of the value.
        found: &'static str,
        /// A typical setting.
        example: String,
    },
    /// A required text that is empty.
    #[error("must not be empty")]
    Empty {
        /// The value.
        at: Location,
        /// A typical setting.
        example: String,
    },
    /// A text that is not a size.
    #[error("`{}` is not a size: {}", text.given, text.reason)]
    BadSize {
        /// The value.
        at: Location,
        /// The text.
        text: BadUnit,
    },
    /// A text that is not a duration.
    #[error("`{}` is not a duration: {}", text.given, text.reason)]
    BadDuration {
        /// The value.
        at: Location,
        /// The text.
        text: BadUnit,
    },
    /// A value outside its bounds.
    #[error("{given} is out of bounds")]
    OutOfBounds {
        /// The value.
        at: Location,
        /// The value as it was read.
        given: String,
        /// The lower bound.
        least: String,
        /// The upper bound.
        most: String,
    },
    /// A file format that this version does not read.
    #[error("the file has format {given}, this version of Caxton reads format 1")]
    UnknownFormat {
        /// The value of `caxton`.
        at: Location,
        /// The format.
        given: i64,
    },
    /// A word that the setting does not take.
    #[error("there is no `{given}` here")]
    UnknownWord {
        /// The value.
        at: Location,
        /// The text.
        given: String,
        /// The words that work.
        known: &'static [&'static str],
        /// The word that was probably meant.
        suggestion: Option<String>,
    },
    /// A text that is not an IP address with a port.
    #[error("`{given}` is not an address to listen on")]
    BadAddress {
        /// The value.
        at: Location,
        /// The text.
        given: String,
    },
    /// An address that other machines can reach, for a listener where that needs TLS.
    #[error("`{given}` is reached from other machines, and without TLS everybody on the way could read the token")]
    NotLoopback {
        /// The value.
        at: Location,
        /// The address.
        given: String,
    },
    /// A name that breaks the rule for names.
    #[error("`{given}` cannot be the name of {whose}")]
    BadName {
        /// The name.
        at: Location,
        /// The text.
        given: String,
        /// The kind of name: `an agent` or `a capability`.
        whose: &'static str,
        /// The rule.
        reason: NameError,
    },
    /// A text that cannot be the name of an environment variable.
    #[error("`{given}` cannot be the name of an environment variable")]
    BadVariableName {
        /// The value.
        at: Location,
        /// The text.
        given: String,
    },
    /// A text that is not a path pattern.
    #[error("`{given}` is not a route: {reason}")]
    BadRoute {
        /// The value.
        at: Location,
        /// The text.
        given: String,
        /// The reason.
        reason: RouteError,
    },
    /// A text that is not a rate.
    #[error("`{given}` is not a rate: {reason}")]
    BadRate {
        /// The value.
        at: Location,
        /// The text.
        given: String,
        /// The reason.
        reason: RateError,
    },
    /// A text that is not a token of a route.
    #[error("`{given}` is not a token of a route: {reason}")]
    BadCallerToken {
        /// The value.
        at: Location,
        /// The text.
        given: String,
        /// The reason.
        reason: CallerTokenError,
    },
    /// A place that cannot be called, or a proxy that leads to none.
    #[error("{problem}")]
    BadPlace {
        /// The value.
        at: Location,
        /// The problem.
        problem: Box<PlaceProblem>,
    },
    /// A text that does not name the place of a key.
    #[error("`{given}` does not say where the key is")]
    BadKeySource {
        /// The value.
        at: Location,
        /// The text.
        given: String,
    },
    /// A text that is not a template for conversations.
    #[error("`{given}` cannot name conversations: {reason}")]
    BadConversation {
        /// The value.
        at: Location,
        /// The text.
        given: String,
        /// The reason.
        reason: TemplateError,
    },
    /// A text that is not a time at which memories are saved.
    #[error("`{given}` is not a time to save: {reason}")]
    BadSaveMode {
        /// The value.
        at: Location,
        /// The text.
        given: String,
        /// The reason.
        reason: SaveModeError,
    },
    /// A cron pattern that cannot be parsed, or never matches.
    #[error("`{given}` is not a cron: {reason}")]
    BadCron {
        /// The value.
        at: Location,
        /// The text.
        given: String,
        /// The reason.
        reason: CronError,
    },
    /// An unknown time zone.
    #[error("there is no time zone `{given}`")]
    UnknownTimezone {
        /// The value.
        at: Location,
        /// The text.
        given: String,
        /// The time zone that was probably meant.
        suggestion: Option<String>,
    },
    /// A text that is not a content type.
    #[error("`{}` is not a content type", given.escape_debug())]
    BadContentType {
        /// The value.
        at: Location,
        /// The text.
        given: String,
    },
    /// An unknown HTTP method.
    #[error("HTTP has no method `{given}`")]
    UnknownMethod {
        /// The value.
        at: Location,
        /// The text.
        given: String,
        /// The method that was probably meant.
        suggestion: Option<String>,
    },
    /// A text that is not an origin.
    #[error("`{given}` is not an origin")]
    BadOrigin {
        /// The value.
        at: Location,
        /// The text.
        given: String,
    },
    /// A text that is not a header name.
    #[error("`{given}` cannot be the name of a header")]
    BadHeaderName {
        /// The value.
        at: Location,
        /// The text.
        given: String,
    },
    /// A text that is not a host name.
    #[error("`{given}` is not a host name")]
    BadHostName {
        /// The value.
        at: Location,
        /// The text.
        given: String,
    },
    /// A file that a setting names and that cannot be used, such as a certificate.
    #[error("`{file}` {reason}")]
    UnusableFile {
        /// The setting.
        at: Location,
        /// The path as written.
        file: String,
        /// The reason, which follows the path in a sentence.
        reason: String,
        /// The remedy.
        help: String,
    },
    /// Credentials for all origins, which browsers never send.
    #[error("credentials are for origins that are named, and `origins` has `*`")]
    CredentialsForAll {
        /// The setting.
        at: Location,
    },
    /// A text that cannot be the name of a secret.
    #[error("`{given}` cannot be the name of a secret")]
    BadSecretName {
        /// The name.
        at: Location,
        /// The text.
        given: String,
    },
    /// A secret without a source, or with several.
    #[error("{}", match given[..] { [] => "has no source".to_owned(), _ => format!("has {} sources: `{}`", given.len(), given.join("`, `")) })]
    SecretSource {
        /// The secret.
        at: Location,
        /// The sources that it has.
        given: Vec<&'static str>,
    },
    /// A text that refers to secrets in a wrong way.
    #[error("{reason}")]
    BadSecretText {
        /// The value.
        at: Location,
        /// The reason.
        reason: SecretTextError,
    },
    /// A reference to a secret that is not declared.
    #[error("there is no secret `{name}`")]
    UnknownSecret {
        /// The reference.
        at: Location,
        /// The name.
        name: String,
        /// The secret that was probably meant.
        suggestion: Option<String>,
    },
    /// A secret without a value.
    #[error("the secret `{name}` has no value: {reason}")]
    UnusableSecret {
        /// The setting.
        at: Location,
        /// The name.
        name: String,
        /// The reason.
        reason: String,
        /// The remedy.
        help: String,
    },
    /// A repeated element of a list.
    #[error("`{given}` is listed twice")]
    Repeated {
        /// The second occurrence.
        at: Location,
        /// The element.
        given: String,
        /// The first occurrence.
        first: Source,
    },
    /// A lower end above the upper one, such as `instances.min` above `instances.max`.
    #[error("{low} is more than {high}")]
    MinAboveMax {
        /// The end that this table sets.
        at: Location,
        /// The lower end, such as `min = 5`.
        low: String,
        /// The upper end, such as `max = 4`.
        high: String,
        /// The place of the other end.
        other: Source,
    },
    /// A key of another strategy than the one in force, which would have no effect.
    #[error("belongs to `strategy = \"{belongs}\"`, and the strategy is {chosen}")]
    OtherStrategy {
        /// The key.
        at: Location,
        /// The strategy that it belongs to.
        belongs: &'static str,
        /// The strategy in force.
        chosen: &'static str,
    },
    /// A pair of routes that match the same requests.
    #[error("`{}` clashes with `{}` of agent `{}`", clash.route, clash.other_route, clash.other_agent)]
    RouteClash {
        /// The later route.
        at: Location,
        /// The two routes. Boxed: they are far larger than the other variants.
        clash: Box<Clash>,
    },
    /// A grant for an agent that is not declared.
    #[error("there is no agent `{}`", receiver.name)]
    UnknownAgent {
        /// The grant.
        at: Location,
        /// The receiver.
        receiver: UnknownReceiver,
    },
    /// A grant for a capability that no agent declares.
    #[error("no agent has the capability `{}`", receiver.name)]
    UnknownCapability {
        /// The grant.
        at: Location,
        /// The receiver.
        receiver: UnknownReceiver,
    },
    /// A value that a ceiling, a budget or the policy does not allow.
    #[error("{reason}")]
    Policy {
        /// The value.
        at: Location,
        /// The reason. Boxed: it is larger than the other variants, and every result would grow with it.
        reason: Box<PolicyError>,
    },
}
