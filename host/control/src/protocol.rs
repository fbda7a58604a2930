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
//! Each participant is somewhere on its own way through this. A message is judged when it is sent: an answer
//! that crosses a `cancel` is judged as the answer to it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Performative::{self, *};

/// The most participants of one run, as many as a conversation may have at most (SPEC §7).
pub const MAX_PARTICIPANTS: usize = 100;

/// A protocol whose order the host knows and holds its messages to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// One agent asks another to do something (FIPA00026).
    #[serde(rename = "fipa-request")]
    Request,
    /// One agent asks another whether something is true, or what it is (FIPA00027).
    #[serde(rename = "fipa-query")]
    Query,
    /// One agent calls others for proposals and accepts some (FIPA00029).
    #[serde(rename = "fipa-contract-net")]
    ContractNet,
}

impl Protocol {
    /// All protocols that are checked.
    pub const ALL: [Self; 3] = [Self::Request, Self::Query, Self::ContractNet];

    /// The protocol of this name; none for a name whose messages are not checked.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }

    /// The protocol's name, such as `fipa-request`.
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

/// Where one participant is.
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

/// An act that is legal, and where it leads.
type Move = (Performative, Stage);

/// What begins a run between an initiator and a participant.
fn beginnings(protocol: Protocol) -> &'static [Move] {
    match protocol {
        Protocol::Request => &[(Request, Stage::Asked), (RequestWhen, Stage::Asked), (RequestWhenever, Stage::Asked)],
        Protocol::Query => &[(QueryIf, Stage::Asked), (QueryRef, Stage::Asked)],
        Protocol::ContractNet => &[(Cfp, Stage::Asked)],
    }
}

/// What the initiator may say to a participant at this stage.
fn initiator_may(protocol: Protocol, stage: Stage) -> &'static [Move] {
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
        Stage::Ended => beginnings(protocol),
    }
}

/// What a participant at this stage may say to the initiator.
fn participant_may(protocol: Protocol, stage: Stage) -> &'static [Move] {
    const RESULT: &[Move] = &[(Inform, Stage::Ended), (Failure, Stage::Ended), (NotUnderstood, Stage::Ended)];
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

/// Where one conversation is in its protocol.
///
/// The first message tells who the initiator is and who takes part. When all parts have ended, whoever begins
/// again begins a new run, with roles of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    protocol: Protocol,
    initiator: Option<String>,
    participants: BTreeMap<String, Stage>,
}

/// What one agent may say to another: as the initiator, and as the participant. Who speaks to itself is both.
struct Moves {
    as_initiator: &'static [Move],
    as_participant: &'static [Move],
}

impl Run {
    /// A run that nobody has begun.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, initiator: None, participants: BTreeMap::new() }
    }

    /// The protocol that it is a run of.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Who began it; none before anybody did.
    pub fn initiator(&self) -> Option<&str> {
        self.initiator.as_deref()
    }

    /// Whether it was begun and every part of it has ended.
    pub fn is_over(&self) -> bool {
        !self.participants.is_empty() && self.participants.values().all(|stage| *stage == Stage::Ended)
    }

    /// Takes a message.
    ///
    /// # Errors
    /// The protocol does not allow it; the run stays as it was.
    pub fn step(&mut self, from: &str, to: &str, act: Performative) -> Result<(), Illegal> {
        let (is_participants, stage) = self.judge(from, to, act).map_err(|why| Illegal {
            protocol: self.protocol,
            act,
            from: from.to_owned(),
            to: to.to_owned(),
            why,
        })?;
        if !self.is_under_way() {
            self.initiator = Some(from.to_owned());
            self.participants.clear();
        }
        let participant = if is_participants { from } else { to };
        match self.participants.get_mut(participant) {
            Some(at) => *at = stage,
            None => {
                self.participants.insert(participant.to_owned(), stage);
            }
        }
        Ok(())
    }

    /// Ends a participant's part, because the host told the initiator `failure` in its name (SPEC §7). Nothing
    /// happens if it has no part with this initiator.
    pub fn give_up(&mut self, participant: &str, initiator: &str) {
        if self.initiator.as_deref() == Some(initiator)
            && let Some(stage) = self.participants.get_mut(participant)
        {
            *stage = Stage::Ended;
        }
    }

    /// Whether an agent has something to say in it, or to hear. What was asked from outside, by no call that is still in
    /// hand, is answered to nobody: such a run waits for nothing more.
    pub fn involves(&self, agent: &str) -> bool {
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

    /// The acts that are legal now from one agent to another, those of the initiator first.
    pub fn legal(&self, from: &str, to: &str) -> Vec<Performative> {
        self.moves(from, to).map_or_else(|_| Vec::new(), |moves| moves.acts())
    }

    fn is_under_way(&self) -> bool {
        self.participants.values().any(|stage| *stage != Stage::Ended)
    }

    /// Whether the participant said it, and where that leads its part.
    fn judge(&self, from: &str, to: &str, act: Performative) -> Result<(bool, Stage), Why> {
        let moves = self.moves(from, to)?;
        let find = |moves: &[Move]| moves.iter().find(|(legal, _)| *legal == act).map(|(_, stage)| *stage);
        let found = find(moves.as_initiator)
            .map(|stage| (false, stage))
            .or_else(|| find(moves.as_participant).map(|stage| (true, stage)));
        let Some((is_participants, stage)) = found else {
            return Err(Why::Act { legal: moves.acts() });
        };
        let is_new = !is_participants && !self.participants.contains_key(to);
        if is_new && self.is_under_way() && self.participants.len() >= MAX_PARTICIPANTS {
            return Err(Why::Crowded { bound: MAX_PARTICIPANTS });
        }
        Ok((is_participants, stage))
    }

    fn moves(&self, from: &str, to: &str) -> Result<Moves, Why> {
        if !self.is_under_way() {
            return Ok(Moves { as_initiator: beginnings(self.protocol), as_participant: &[] });
        }
        let initiator = self.initiator.as_deref();
        let from_initiator = initiator == Some(from);
        let as_initiator = match self.participants.get(to) {
            Some(stage) if from_initiator => initiator_may(self.protocol, *stage),
            None if from_initiator && self.protocol == Protocol::ContractNet => beginnings(self.protocol),
            Some(_) | None => &[],
        };
        let as_participant = match self.participants.get(from) {
            Some(stage) if initiator == Some(to) => participant_may(self.protocol, *stage),
            Some(_) | None => &[],
        };
        if as_initiator.is_empty() && as_participant.is_empty() {
            let outside = |name: &&str| initiator != Some(name) && !self.participants.contains_key(*name);
            if let Some(name) = [from, to].iter().find(|name| outside(name)) {
                return Err(Why::Stranger { name: (*name).to_owned() });
            }
        }
        Ok(Moves { as_initiator, as_participant })
    }
}

impl Moves {
    fn acts(&self) -> Vec<Performative> {
        let mut acts: Vec<Performative> = self.as_initiator.iter().map(|(act, _)| *act).collect();
        for (act, _) in self.as_participant {
            if !acts.contains(act) {
                acts.push(*act);
            }
        }
        acts
    }
}

/// A message that its protocol does not allow: what was said, by whom, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Illegal {
    /// The protocol that is under way.
    pub protocol: Protocol,
    /// What was said.
    pub act: Performative,
    /// Who said it.
    pub from: String,
    /// To whom.
    pub to: String,
    /// Why that is not legal.
    pub why: Why,
}

/// Why a message is not legal in its protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Its sender may say other things now.
    Act {
        /// These; none if it has nothing to say before it is spoken to.
        legal: Vec<Performative>,
    },
    /// One of the two has no part in the run.
    Stranger {
        /// Who.
        name: String,
    },
    /// The run has as many participants as it may.
    Crowded {
        /// So many.
        bound: usize,
    },
    /// The conversation has as many runs of protocols under way as it may.
    TooManyRuns {
        /// The bound.
        bound: usize,
    },
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, act, from, to, why } = self;
        write!(f, "`{act}` from `{from}` is not legal here in {protocol}: ")?;
        match why {
            Why::Act { legal } => match legal.split_last() {
                None => write!(f, "`{from}` may say nothing to `{to}` now"),
                Some((last, [])) => write!(f, "`{from}` may say {last}"),
                Some((last, others)) => {
                    let others: Vec<&str> = others.iter().map(|act| act.as_str()).collect();
                    write!(f, "`{from}` may say {} or {last}", others.join(", "))
                }
            },
            Why::Stranger { name } => write!(f, "`{name}` has no part in it"),
            Why::Crowded { bound } => write!(f, "it has {bound} participants, as many as it may"),
            Why::TooManyRuns { bound } => write!(f, "the conversation has {bound} runs under way, as many as it may"),
        }
    }
}
