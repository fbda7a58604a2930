//! The names that follow a rule: agents, capabilities, receivers, digests and revisions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name of an agent or a capability, in bytes (SPEC §7).
pub const MAX_NAME: usize = 63;

/// The error for a text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to 63 characters: lower-case letters, digits and `-`; it begins with a letter and does not end with `-`"
)]
pub struct NameError;

/// Returns `true` if `name` matches `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`.
fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    // The length first, as the indexes below panic on an empty name.
    (1..=MAX_NAME).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Defines a name with the rule of SPEC §7. Names are shared text, so a clone allocates nothing.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the name as shared text, for a holder that outlives this value.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                if is_name(name) { Ok(Self(name.into())) } else { Err(NameError) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // `pad` honours the width with which tables print names.
                f.pad(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // Through the parser: a stored or received text must not pass as a name unchecked.
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name of an agent: unique in a host, the same through all its revisions.
    AgentName
}

name! {
    /// The name of a capability that agents declare and by which others find them.
    Capability
}

name! {
    /// The name of a token, by which the host's records tell who acted.
    TokenName
}

name! {
    /// The name of a budget.
    BudgetName
}

name! {
    /// The name of a unit that places count.
    UnitName
}

/// The prefix that tells a capability from an agent where a receiver is written.
pub const CAPABILITY_PREFIX: &str = "cap:";

/// The receiver of a message, or an entry of the list of receivers that an agent may send to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Receiver {
    /// The agent of this name.
    Agent(AgentName),
    /// A running agent that declares the capability: `cap:NAME`.
    Capability(Capability),
}

impl FromStr for Receiver {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix(CAPABILITY_PREFIX) {
            Some(capability) => capability.parse().map(Self::Capability),
            None => text.parse().map(Self::Agent),
        }
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(name) => f.pad(name.as_str()),
            Self::Capability(name) => write!(f, "{CAPABILITY_PREFIX}{name}"),
        }
    }
}

impl<'de> Deserialize<'de> for Receiver {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Receiver {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The SHA-256 of a component's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Returns the first twelve hexadecimal digits, enough for people to tell components apart.
    pub fn short(&self) -> String {
        // Digits are ASCII, so the index is on a boundary.
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let mut digest = [0; 32];
        // `from_str_radix` would accept signs, and slicing below needs ASCII.
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(DigestError);
        }
        for (at, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| DigestError)?;
        }
        Ok(Self(digest))
    }
}

/// The error for a text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 hexadecimal digits")]
pub struct DigestError;

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An agent's revision, written `triage@7`: one component digest with one set of resolved settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevisionId {
    /// The agent.
    pub agent: AgentName,
    /// The revision's number, counted per agent from 1; never used twice.
    pub number: u64,
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.agent, self.number)
    }
}

impl<'de> Deserialize<'de> for RevisionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for RevisionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The error for a text that is not a revision's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a revision is written as AGENT@NUMBER, such as `triage@7`")]
pub struct RevisionError;

impl FromStr for RevisionId {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Self, RevisionError> {
        let (agent, number) = text.split_once('@').ok_or(RevisionError)?;
        let agent = agent.parse().map_err(|_| RevisionError)?;
        // `u64::from_str` accepts a leading `+`.
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|number| digits && *number > 0);
        Ok(Self { agent, number: number.ok_or(RevisionError)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let long = "a".repeat(63);
        let too_long = "a".repeat(64);
        for (text, good) in [
            ("triage", true),
            ("a1", true),
            ("a-b", true),
            (long.as_str(), true),
            ("a", true),
            ("-", false),
            ("", false),
            ("1a", false),
            ("a-", false),
            ("-a", false),
            ("Triage", false),
            ("a_b", false),
            ("a/b", false),
            ("ä-b", false),
            (too_long.as_str(), false),
        ] {
            assert_eq!(text.parse::<AgentName>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn receivers_are_agents_or_capabilities() {
        for (text, shown) in
            [("triage", Some("triage")), ("cap:desk", Some("cap:desk")), ("cap:", None), ("cap:A", None)]
        {
            assert_eq!(text.parse::<Receiver>().ok().map(|r| r.to_string()).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn revisions_are_an_agent_and_a_number() {
        for (text, good) in [
            ("triage@7", true),
            ("triage@0", false),
            ("triage@+7", false),
            ("triage", false),
            ("@7", false),
            ("a b@7", false),
        ] {
            assert_eq!(text.parse::<RevisionId>().ok().map(|id| id.to_string()), good.then(|| text.to_owned()));
        }
    }
}
