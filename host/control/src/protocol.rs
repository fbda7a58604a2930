//! The interaction protocols that the host checks: fipa-request (FIPA00026), fipa-query (FIPA00027) and
//! fipa-contract-net (FIPA00029).
//!
//! ```text
//! request, query   asked --> agreed --> ended
//!                     '------------------^
//! contract net     asked --> proposed --> accepted --> ended
//!                     '----------'---------------------^
//! all              any --cancel--> cancelling --> ended
//! ```
//! Each participant is at its own stage. A message is checked at the time it is sent: an answer that crosses a `cancel`
//! counts as the answer to it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Performative::{self, *};

/// The most participants of one run, equal to the upper bound for a conversation (SPEC §7).
pub const MAX_PARTICIPANTS: usize = 100;

/// An interaction protocol whose messages the host checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// The protocol by which one agent asks another to do something (FIPA00026).
    #[serde(rename = "fipa-request")]
    Request,
    /// The protocol by which one agent asks another if a proposition is true, or for a value (FIPA00027).
    #[serde(rename = "fipa-query")]
    Query,
    /// The protocol by which one agent calls others for proposals and accepts some (FIPA00029).
    #[serde(rename = "fipa-contract-net")]
    ContractNet,
}

impl Protocol {
    /// The protocols that are checked.
    pub const ALL: [Self; 3] = [Self::Request, Self::Query, Self::ContractNet];

    /// Returns the protocol of this name; `None` if messages that name it are not checked.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }

    /// Returns the protocol's name in messages, such as `fipa-request`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "fipa-request",
            Self::Query => "fipa-query",
            Self::ContractNet => "fipa-contract-net",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The stage of one participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    Asked,
    Agreed,
    Proposed,
    Accepted,
    Cancelling,
    Ended,
}

/// A legal act and the stage that follows.
type Transition = (Performative, Stage);

/// Returns the acts that begin a run between an initiator and a participant.
fn opening_acts(protocol: Protocol) -> &'static [Transition] {
    match protocol {
        Protocol::Request => &[(Request, Stage::Asked), (RequestWhen, Stage::Asked), (RequestWhenever, Stage::Asked)],
        Protocol::Query => &[(QueryIf, Stage::Asked), (QueryRef, Stage::Asked)],
        Protocol::ContractNet => &[(Cfp, Stage::Asked)],
    }
}

/// Returns the acts that the initiator may send to a participant at this stage.
fn initiator_may(protocol: Protocol, stage: Stage) -> &'static [Transition] {
    match stage {
        Stage::Asked | Stage::Agreed | Stage::Accepted | Stage::Cancelling => {
            &[(Cancel, Stage::Cancelling), (NotUnderstood, Stage::Ended)]
        }
        Stage::Proposed => &[
            (AcceptProposal, Stage::Accepted),
            (RejectProposal, Stage::Ended),
            (Cancel, Stage::Cancelling),
            (NotUnderstood, Stage::Ended),
        ],
        // A participant whose part has ended can be asked again within the run.
        Stage::Ended => opening_acts(protocol),
    }
}

/// Returns the acts that a participant at this stage may send to the initiator.
fn participant_may(protocol: Protocol, stage: Stage) -> &'static [Transition] {
    const RESULT: &[Transition] = &[(Inform, Stage::Ended), (Failure, Stage::Ended), (NotUnderstood, Stage::Ended)];
    match (stage, protocol) {
        (Stage::Asked, Protocol::Request) => &[
            (Agree, Stage::Agreed),
            (Refuse, Stage::Ended),
            (Inform, Stage::Ended),
            (Failure, Stage::Ended),
            (NotUnderstood, Stage::Ended),
        ],
        (Stage::Asked, Protocol::Query) => &[
            (Agree, Stage::Agreed),
            (Refuse, Stage::Ended),
            (Inform, Stage::Ended),
            (InformIf, Stage::Ended),
            (InformRef, Stage::Ended),
            (Failure, Stage::Ended),
            (NotUnderstood, Stage::Ended),
        ],
        (Stage::Asked, Protocol::ContractNet) => {
            &[(Propose, Stage::Proposed), (Refuse, Stage::Ended), (NotUnderstood, Stage::Ended)]
        }
        (Stage::Agreed, Protocol::Query) => &[
            (Inform, Stage::Ended),
            (InformIf, Stage::Ended),
            (InformRef, Stage::Ended),
            (Failure, Stage::Ended),
            (NotUnderstood, Stage::Ended),
        ],
        (Stage::Proposed, Protocol::Request | Protocol::Query | Protocol::ContractNet) => {
            &[(NotUnderstood, Stage::Ended)]
        }
        (Stage::Agreed, Protocol::Request | Protocol::ContractNet)
        | (Stage::Accepted | Stage::Cancelling, Protocol::Request | Protocol::Query | Protocol::ContractNet) => RESULT,
        (Stage::Ended, Protocol::Request | Protocol::Query | Protocol::ContractNet) => &[],
    }
}

/// The state of one run of a protocol.
///
/// The first message determines the initiator and a participant. When all parts have ended, any agent may begin the run
/// anew, with other roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRun {
    protocol: Protocol,
    initiator: Option<String>,
    participants: BTreeMap<String, Stage>,
}

/// The acts that one agent may send to another, by role. An agent that sends to itself has both roles.
struct Moves {
    as_initiator: &'static [Transition],
    as_participant: &'static [Transition],
}

impl ProtocolRun {
    /// Creates a run that has not begun.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, initiator: None, participants: BTreeMap::new() }
    }

    /// Returns the run's protocol.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Returns the sender of the first message; `None` before the run has begun.
    pub fn initiator(&self) -> Option<&str> {
        self.initiator.as_deref()
    }

    /// Returns `true` if the run has begun and all its parts have ended.
    pub fn is_over(&self) -> bool {
        // Without participants the run has not begun, although none of its parts is open.
        !self.participants.is_empty() && self.participants.values().all(|stage| *stage == Stage::Ended)
    }

    /// Checks a message and moves its participant to the next stage.
    ///
    /// # Errors
    /// The protocol does not allow the message; the run is unchanged.
    pub fn step(&mut self, from: &str, to: &str, act: Performative) -> Result<(), IllegalAct> {
        let (is_participants, stage) = self.check(from, to, act).map_err(|why| IllegalAct {
            protocol: self.protocol,
            act,
            from: from.to_owned(),
            to: to.to_owned(),
            why,
        })?;
        // All parts have ended or none has begun: this message begins anew and assigns the roles.
        if !self.is_under_way() {
            self.initiator = Some(from.to_owned());
            self.participants.clear();
        }
        let participant = if is_participants { from } else { to };
        // Not by `entry`, which would copy the name at each step.
        match self.participants.get_mut(participant) {
            Some(at) => *at = stage,
            None => {
                self.participants.insert(participant.to_owned(), stage);
            }
        }
        Ok(())
    }

    /// Ends a participant's part, since the host sent the initiator a `failure` in its name (SPEC §7). Does nothing if
    /// it has no part with this initiator.
    pub fn give_up(&mut self, participant: &str, initiator: &str) {
        // The run may have begun anew since, with another initiator.
        if self.initiator.as_deref() == Some(initiator)
            && let Some(stage) = self.participants.get_mut(participant)
        {
            *stage = Stage::Ended;
        }
    }

    /// Returns `true` if the agent has an act to send or to receive in this run. A request from outside whose caller is
    /// gone has no one to answer to: such a run waits for nothing.
    pub fn involves(&self, agent: &str) -> bool {
        // No agent has an empty name, so a run that has not begun involves none.
        let initiator = self.initiator.as_deref().unwrap_or_default();
        let from_outside = initiator.contains(':');
        self.participants.iter().any(|(name, stage)| match stage {
            Stage::Ended => false,
            Stage::Agreed | Stage::Proposed => name == agent || initiator == agent,
            Stage::Asked | Stage::Accepted | Stage::Cancelling => {
                !from_outside && (name == agent || initiator == agent)
            }
        })
    }

    /// Returns the acts that are legal now from one agent to another, those of the initiator first.
    pub fn legal(&self, from: &str, to: &str) -> Vec<Performative> {
        self.moves(from, to).map_or_else(|_| Vec::new(), |moves| moves.acts())
    }

    fn is_under_way(&self) -> bool {
        // A participant that has ended stays in the map, as it may be asked again within the run.
        self.participants.values().any(|stage| *stage != Stage::Ended)
    }

    /// Returns whether the sender acts as participant, and the participant's next stage.
    fn check(&self, from: &str, to: &str, act: Performative) -> Result<(bool, Stage), IllegalReason> {
        let moves = self.moves(from, to)?;
        let find = |moves: &[Transition]| moves.iter().find(|(legal, _)| *legal == act).map(|(_, stage)| *stage);
        // An agent that sends to itself has both roles; its acts as initiator come first.
        let found = find(moves.as_initiator)
            .map(|stage| (false, stage))
            .or_else(|| find(moves.as_participant).map(|stage| (true, stage)));
        let Some((is_participants, stage)) = found else {
            return Err(IllegalReason::Act { legal: moves.acts() });
        };
        let is_new = !is_participants && !self.participants.contains_key(to);
        // A run that begins anew forgets its participants, so only one under way can be full.
        if is_new && self.is_under_way() && self.participants.len() >= MAX_PARTICIPANTS {
            return Err(IllegalReason::TooManyParticipants { bound: MAX_PARTICIPANTS });
        }
        Ok((is_participants, stage))
    }

    fn moves(&self, from: &str, to: &str) -> Result<Moves, IllegalReason> {
        if !self.is_under_way() {
            return Ok(Moves { as_initiator: opening_acts(self.protocol), as_participant: &[] });
        }
        let initiator = self.initiator.as_deref();
        let from_initiator = initiator == Some(from);
        let as_initiator = match self.participants.get(to) {
            Some(stage) if from_initiator => initiator_may(self.protocol, *stage),
            // Only a contract net can take in further participants once it has begun.
            None if from_initiator && self.protocol == Protocol::ContractNet => opening_acts(self.protocol),
            Some(_) | None => &[],
        };
        let as_participant = match self.participants.get(from) {
            Some(stage) if initiator == Some(to) => participant_may(self.protocol, *stage),
            Some(_) | None => &[],
        };
        if as_initiator.is_empty() && as_participant.is_empty() {
            // With no legal act at all, an outsider is the more helpful explanation than an empty list.
            let outside = |name: &&str| initiator != Some(name) && !self.participants.contains_key(*name);
            if let Some(name) = [from, to].iter().find(|name| outside(name)) {
                return Err(IllegalReason::Outsider { name: (*name).to_owned() });
            }
        }
        Ok(Moves { as_initiator, as_participant })
    }
}

impl Moves {
    fn acts(&self) -> Vec<Performative> {
        let mut acts: Vec<Performative> = self.as_initiator.iter().map(|(act, _)| *act).collect();
        for (act, _) in self.as_participant {
            // `not-understood` is legal in both roles of an agent that sends to itself.
            if !acts.contains(act) {
                acts.push(*act);
            }
        }
        acts
    }
}

/// The error for a message that its protocol does not allow, with the acts that would be legal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct IllegalAct {
    /// The protocol in progress.
    pub protocol: Protocol,
    /// The refused act.
    pub act: Performative,
    /// The sender.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// The reason.
    pub why: IllegalReason,
}

/// The reason why a message is not legal in its protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IllegalReason {
    /// The sender may send other acts now.
    Act {
        /// The legal acts; none if the sender has to wait for a message.
        legal: Vec<Performative>,
    },
    /// The sender or the receiver has no part in the run.
    Outsider {
        /// The name of the outsider.
        name: String,
    },
    /// The run has the largest number of participants.
    TooManyParticipants {
        /// The largest number.
        bound: usize,
    },
    /// The conversation has the largest number of runs in progress.
    TooManyRuns {
        /// The largest number.
        bound: usize,
    },
}

impl fmt::Display for IllegalAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, act, from, to, why } = self;
        write!(f, "`{act}` from `{from}` is not legal here in {protocol}: ")?;
        match why {
            IllegalReason::Act { legal } => match legal.split_last() {
                None => write!(f, "`{from}` may say nothing to `{to}` now"),
                Some((last, [])) => write!(f, "`{from}` may say {last}"),
                Some((last, others)) => {
                    let others: Vec<&str> = others.iter().map(|act| act.as_str()).collect();
                    write!(f, "`{from}` may say {} or {last}", others.join(", "))
                }
            },
            IllegalReason::Outsider { name } => write!(f, "`{name}` has no part in it"),
            IllegalReason::TooManyParticipants { bound } => write!(f, "it has {bound} participants, as many as it may"),
            IllegalReason::TooManyRuns { bound } => {
                write!(f, "the conversation has {bound} runs under way, as many as it may")
            }
        }
    }
}
