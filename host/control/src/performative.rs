//! The communicative acts of FIPA ACL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Defines the acts once, with their names in the contract and on the wire.
// One list, so that no act can be missing from the enum, its names or `ALL`.
macro_rules! performatives {
    ($($variant:ident $name:literal,)*) => {
        /// The purpose of a message: one of the 22 communicative acts of FIPA00037, by the names they have there.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[allow(missing_docs, reason = "the acts are defined in FIPA00037 and described in wit/agent.wit")]
        pub enum Performative { $($variant,)* }

        impl Performative {
            /// The list of all acts, sorted by name.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the act's name on the wire, such as `accept-proposal`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

performatives! {
    AcceptProposal "accept-proposal",
    Agree "agree",
    Cancel "cancel",
    Cfp "cfp",
    Confirm "confirm",
    Disconfirm "disconfirm",
    Failure "failure",
    Inform "inform",
    InformIf "inform-if",
    InformRef "inform-ref",
    NotUnderstood "not-understood",
    Propagate "propagate",
    Propose "propose",
    Proxy "proxy",
    QueryIf "query-if",
    QueryRef "query-ref",
    Refuse "refuse",
    RejectProposal "reject-proposal",
    Request "request",
    RequestWhen "request-when",
    RequestWhenever "request-whenever",
    Subscribe "subscribe",
}

impl fmt::Display for Performative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The error for a text that names none of the 22 acts; holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no performative of FIPA00037 is called `{0}`")]
pub struct UnknownPerformative(pub String);

impl FromStr for Performative {
    type Err = UnknownPerformative;

    fn from_str(name: &str) -> Result<Self, UnknownPerformative> {
        Self::ALL
            .iter()
            .copied()
            // Other FIPA platforms write the acts in upper case.
            .find(|p| p.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownPerformative(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_22_and_each_is_found_by_its_name() {
        assert_eq!(Performative::ALL.len(), 22);
        for act in Performative::ALL {
            assert_eq!(act.as_str().parse(), Ok(*act));
            assert_eq!(serde_json::to_value(act).unwrap(), act.as_str());
        }
        assert!("accept".parse::<Performative>().is_err());
    }
}
