//! The grants of an agent: the receivers that it may send to, and the environment variables that it sees.
//!
//! An agent may send to what its `allow.send` lists, and nowhere else. A name grants one agent. `cap:NAME` grants a
//! capability, and with it every agent that declares it, also one that is addressed by name: a reply to an agent that
//! was found by its capability needs no second grant. The reverse does not hold: the grant of a single agent does not
//! cover the other agents that have, or will have, the same capability.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::{AgentName, CAPABILITY_PREFIX, Capability, Receiver};

/// The table `allow`: the grants of the agent. Empty lists grant nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// The receivers that it may send to.
    pub send: BTreeSet<Receiver>,
    /// The environment variables of the host that it sees.
    pub env: BTreeSet<String>,
    /// The clocks that it reads.
    #[serde(default)]
    pub clock: Supply,
    /// The random numbers that it gets.
    #[serde(default)]
    pub random: Supply,
}

/// The source of an agent's clocks, or of its random numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supply {
    /// The machine.
    #[default]
    Real,
    /// None: a call that asks for it ends.
    None,
    /// The message: the same values in each attempt.
    Message,
}

/// The receiver of a message as its sender wrote it, which need not follow the rule for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address<'a> {
    /// An agent, by name.
    Agent(&'a str),
    /// An agent with this capability, whichever it is.
    Capability(&'a str),
}

impl<'a> Address<'a> {
    /// Parses the receiver of a message; no text means the sender itself.
    pub fn of(receiver: &'a str, sender: &'a str) -> Self {
        match receiver.strip_prefix(CAPABILITY_PREFIX) {
            Some(capability) => Self::Capability(capability),
            None if receiver.is_empty() => Self::Agent(sender),
            None => Self::Agent(receiver),
        }
    }
}

impl Grants {
    /// Returns `true` if clocks or random numbers follow from the message.
    pub fn follows_message(&self) -> bool {
        self.clock == Supply::Message || self.random == Supply::Message
    }

    /// Returns `true` if the agent may send to a capability: to one agent that has it, or to all.
    pub fn covers_capability(&self, capability: &str) -> bool {
        // The grant of a single agent does not cover all agents that may have the capability later.
        let names = |grant: &Receiver| matches!(grant, Receiver::Capability(name) if name.as_str() == capability);
        self.send.iter().any(names)
    }

    /// Returns `true` if the agent may send to the agent `name`. `capabilities` are those that the receiver declares;
    /// `None` for a receiver that does not exist.
    pub fn covers_agent(&self, name: &str, capabilities: Option<&BTreeSet<Capability>>) -> bool {
        self.send.iter().any(|grant| match grant {
            Receiver::Agent(granted) => granted.as_str() == name,
            Receiver::Capability(granted) => capabilities.is_some_and(|declared| declared.contains(granted)),
        })
    }
}

/// The agents and capabilities of a configuration, which are what a grant can refer to.
#[derive(Debug, Default)]
pub(crate) struct Grantable {
    pub(crate) agents: BTreeSet<AgentName>,
    pub(crate) capabilities: BTreeSet<Capability>,
}

impl Grantable {
    /// Returns `true` if a grant refers to a declared agent, or to a capability that some agent declares.
    pub(crate) fn contains(&self, grant: &Receiver) -> bool {
        match grant {
            Receiver::Agent(name) => self.agents.contains(name),
            Receiver::Capability(name) => self.capabilities.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_parsed_as_written() {
        for (receiver, expected) in [
            ("", Address::Agent("desk")),
            ("billing", Address::Agent("billing")),
            ("cap:archive", Address::Capability("archive")),
            ("cap:", Address::Capability("")),
            ("CAP:archive", Address::Agent("CAP:archive")),
            ("no name at all", Address::Agent("no name at all")),
        ] {
            assert_eq!(Address::of(receiver, "desk"), expected, "{receiver:?}");
        }
    }

    #[test]
    fn a_capability_covers_its_agents_and_not_the_reverse() {
        let allow = |grants: &[&str]| Grants {
            send: grants.iter().map(|grant| grant.parse().unwrap()).collect(),
            ..Grants::default()
        };
        // grants, receiver, the receiver's capabilities, allowed
        for (grants, receiver, capabilities, expected) in [
            (&[][..], "billing", &[][..], false),
            (&[], "cap:archive", &[], false),
            (&["billing"], "billing", &["archive"], true),
            (&["billing"], "cap:archive", &["archive"], false),
            (&["billing"], "cap:billing", &[], false),
            (&["cap:archive"], "cap:archive", &[], true),
            (&["cap:archive"], "billing", &["archive"], true),
            (&["cap:archive"], "billing", &["audit"], false),
            (&["cap:archive"], "archive", &[], false),
            (&["desk", "cap:archive"], "desk", &[], true),
        ] {
            let capabilities = capabilities.iter().map(|name| name.parse().unwrap()).collect();
            let found = match Address::of(receiver, "sender") {
                Address::Agent(name) => allow(grants).covers_agent(name, Some(&capabilities)),
                Address::Capability(name) => allow(grants).covers_capability(name),
            };
            assert_eq!(found, expected, "{grants:?} {receiver} {capabilities:?}");
        }
    }
}
