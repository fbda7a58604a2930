//! Whether a message may be sent, and to whom: everything that is checked before a place is kept for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::desired::Limits;
use caxton_control::{AgentSpec, Performative, Receiver};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Agent;
use super::deliver::Helping;
use crate::clock;
use crate::commons::Commons;
use crate::routes::Routes;
use crate::trace::Trace;
use crate::wasm::{Answer, Envelope, Fault, Identity, Inbox, Outcome, Sent, Waiter, Work, wit};

/// The longest content type, ontology, protocol and so on, in characters (SPEC §7).
const MAX_WORD: usize = 100;
/// The longest conversation id and `reply-with`, in characters.
const MAX_ID: usize = 256;
/// The most headers of a message, and the most bytes of all of them.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Why a message was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdmitError {
    /// Nobody has this name or runs with this capability.
    #[error("no running agent is `{0}`")]
    UnknownReceiver(String),
    /// The sender's grants do not name the receiver.
    #[error("`{sender}` may not send to `{receiver}`: its allow.send does not name it")]
    NotAllowed {
        /// Who wanted to send.
        sender: String,
        /// To whom.
        receiver: String,
    },
    /// The content is too large, for the sender or for the receiver.
    #[error("the message is larger than {limit} bytes (limits.message)")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The mailbox is full.
    #[error("the mailbox holds {depth} messages, as many as it may (mailbox.depth)")]
    Full {
        /// The bound.
        depth: u32,
    },
    /// The chain of causes is too long.
    #[error("the message has more than {limit} causes (limits.hops)")]
    TooManyHops {
        /// The bound.
        limit: u32,
    },
    /// A part of the message is not as it has to be.
    #[error("{0}")]
    Invalid(String),
    /// The host cannot do this.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The receiver takes nothing at the moment.
    #[error("the agent takes no messages: {0}")]
    Unavailable(&'static str),
}

impl AdmitError {
    /// The stable code of this kind of error.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::UnknownReceiver(_) => "unknown-receiver",
            Self::NotAllowed { .. } => "not-allowed",
            Self::TooLarge { .. } => "too-large",
            Self::Full { .. } => "mailbox-full",
            Self::TooManyHops { .. } => "too-many-hops",
            Self::Invalid(_) => "invalid",
            Self::Unsupported(_) => "unsupported",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl From<AdmitError> for wit::SendError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::UnknownReceiver(name) => Self::UnknownReceiver(name),
            AdmitError::NotAllowed { receiver, .. } => Self::NotAllowed(receiver),
            AdmitError::TooLarge { limit } => Self::TooLarge(limit),
            AdmitError::Full { depth } => Self::MailboxFull(u64::from(depth)),
            AdmitError::TooManyHops { limit } => Self::TooManyHops(limit),
            AdmitError::Invalid(what) => Self::Invalid(what),
            AdmitError::Unsupported(what) => Self::Unsupported(what.to_owned()),
            AdmitError::Unavailable(why) => Self::Unavailable(why.to_owned()),
        }
    }
}

/// A message from outside: over HTTP, from the management API.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Where it comes from, such as `http:POST /tickets`.
    pub(crate) sender: String,
    /// What it means to do.
    pub(crate) performative: Performative,
    /// The content.
    pub(crate) content: Vec<u8>,
    /// Its media type.
    pub(crate) content_type: String,
    /// The vocabulary of the content.
    pub(crate) ontology: Option<String>,
    /// The protocol it is part of.
    pub(crate) protocol: Option<String>,
    /// The conversation it belongs to; none begins one.
    pub(crate) conversation: Option<String>,
    /// How long the sender waits.
    pub(crate) patience: Option<Duration>,
    /// Further pairs of name and value.
    pub(crate) headers: Vec<(String, String)>,
    /// Its trace.
    pub(crate) trace: Option<Trace>,
}

/// A message that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its id.
    pub(crate) id: String,
    /// Its conversation.
    pub(crate) conversation: String,
}

/// A new id: in order of time, unique everywhere (RFC 9562, version 7).
pub(crate) fn new_id() -> String {
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    Uuid::now_v7().hyphenated().encode_lower(&mut buffer).to_owned()
}

impl Agent {
    /// Takes a message from outside and waits for nothing. What becomes of it is kept in
    /// [`Commons::receipts`].
    pub(crate) fn enqueue(self: &Arc<Self>, arrival: Arrival) -> Result<Accepted, AdmitError> {
        let receipts = &self.commons.receipts;
        let note = |accepted: &Accepted| receipts.open(accepted, self.name.shared(), clock::now_ms());
        let (accepted, envelope) = self.accept(arrival, note)?;
        if self.put(envelope) {
            Arc::clone(self).work();
        }
        Ok(accepted)
    }

    /// Takes a message from outside and waits for its answer.
    pub(crate) async fn ask(self: &Arc<Self>, arrival: Arrival) -> Result<(Accepted, Answer), AdmitError> {
        let patience = arrival.patience;
        let (waiter, answer) = oneshot::channel();
        let (accepted, envelope) = self.accept(arrival, |_| Waiter::Call(waiter))?;
        let helping = self.put(envelope).then(|| Helping::new(self));
        let answer = async {
            match helping {
                Some(helping) => helping.until(answer).await,
                None => answer.await,
            }
        };
        // A timer is only set when there is something to wait for.
        let outcome = match patience {
            None => Ok(answer.await),
            Some(patience) => tokio::time::timeout(patience, answer).await.map_err(|_| Fault::Time { limit: patience }),
        };
        let answer = match outcome {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer { revision: None, outcome: Outcome::Gone("the host is stopping") },
            Err(fault) => Answer { revision: None, outcome: Outcome::Fault(fault) },
        };
        Ok((accepted, answer))
    }

    /// Makes an envelope of a message from outside, for which a place is kept.
    fn accept(
        self: &Arc<Self>,
        arrival: Arrival,
        waiter: impl FnOnce(&Accepted) -> Waiter,
    ) -> Result<(Accepted, Envelope), AdmitError> {
        let spec = self.spec.load();
        let limit = self.message_limit(&spec);
        if arrival.content.len() as u64 > limit {
            return Err(AdmitError::TooLarge { limit });
        }
        check_words(&arrival.content_type, arrival.ontology.as_deref(), arrival.protocol.as_deref())?;
        check_ids([arrival.conversation.as_deref()])?;
        check_headers(&arrival.headers)?;
        self.reserve_place()?;
        let id = new_id();
        let conversation = arrival.conversation.unwrap_or_else(|| id.clone());
        let patience = arrival.patience;
        let now = clock::now_ms();
        let accepted = Accepted { id: id.clone(), conversation: conversation.clone() };
        let message = wit::Message {
            id,
            performative: performative(arrival.performative),
            sender: arrival.sender,
            receiver: self.name.as_str().to_owned(),
            content: arrival.content,
            content_type: arrival.content_type,
            ontology: arrival.ontology,
            protocol: arrival.protocol,
            conversation_id: conversation,
            reply_with: None,
            in_reply_to: None,
            reply_by: patience
                .map(|patience| now.saturating_add(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX))),
            priority: wit::Priority::Normal,
            sent_at: now,
            attempt: 1,
            headers: arrival.headers,
        };
        let arrived = Instant::now();
        let envelope = Envelope {
            message,
            hops: 0,
            deadline: patience.map(|patience| arrived + patience),
            waiter: Some(waiter(&accepted)),
            waiting: None,
            trace: arrival.trace,
            accepted: arrived,
        };
        Ok((accepted, envelope))
    }

    /// The largest message that the agent takes: that of its running revision.
    pub(super) fn message_limit(&self, spec: &AgentSpec) -> u64 {
        self.current.load().as_ref().map_or(spec.limits.message_bytes, |current| current.spec.limits.message_bytes)
    }
}

impl Commons {
    /// Checks a draft of an agent and keeps a place for it.
    pub(crate) fn admit(&self, who: &Identity, work: &Work, draft: wit::Draft) -> Result<Sent, AdmitError> {
        let (agent, envelope) = self.address(who, work, draft)?;
        agent.reserve_place()?;
        Ok(Sent::new(agent, envelope))
    }

    /// Checks a draft and finds its receiver; keeps no place yet.
    pub(crate) fn address(
        &self,
        who: &Identity,
        work: &Work,
        draft: wit::Draft,
    ) -> Result<(Arc<Agent>, Envelope), AdmitError> {
        let limits = &who.spec.limits;
        check_draft(&draft, limits)?;
        if work.hops >= limits.hops {
            return Err(AdmitError::TooManyHops { limit: limits.hops });
        }
        let conversation = draft.conversation_id.unwrap_or_else(|| work.conversation.clone());
        let routes = self.routes.load();
        let agent = find_receiver(&routes, who, &draft.receiver, &conversation)?;
        let theirs = agent.message_limit(&agent.spec.load());
        if draft.content.len() as u64 > theirs {
            return Err(AdmitError::TooLarge { limit: theirs });
        }
        let id = new_id();
        let message = wit::Message {
            performative: draft.performative,
            sender: who.name().to_owned(),
            receiver: agent.name.as_str().to_owned(),
            content: draft.content,
            content_type: draft.content_type,
            ontology: draft.ontology,
            protocol: draft.protocol,
            conversation_id: conversation,
            reply_with: draft.reply_with,
            in_reply_to: draft.in_reply_to,
            reply_by: draft.reply_by,
            priority: draft.priority,
            sent_at: clock::now_ms(),
            attempt: 1,
            headers: draft.headers,
            id,
        };
        let envelope = Envelope {
            message,
            hops: work.hops + 1,
            deadline: None,
            waiter: None,
            waiting: None,
            trace: work.trace.clone(),
            accepted: Instant::now(),
        };
        Ok((agent, envelope))
    }
}

fn check_draft(draft: &wit::Draft, limits: &Limits) -> Result<(), AdmitError> {
    if draft.content.len() as u64 > limits.message_bytes {
        return Err(AdmitError::TooLarge { limit: limits.message_bytes });
    }
    check_words(&draft.content_type, draft.ontology.as_deref(), draft.protocol.as_deref())?;
    check_ids([draft.conversation_id.as_deref(), draft.reply_with.as_deref(), draft.in_reply_to.as_deref()])?;
    check_headers(&draft.headers)?;
    match draft.delivery {
        wit::Delivery::Now => {}
        wit::Delivery::AfterMs(_) | wit::Delivery::AtMs(_) => {
            return Err(AdmitError::Unsupported("this host cannot deliver later: `delivery` has to be `now`"));
        }
    }
    if draft.priority != wit::Priority::Normal {
        return Err(AdmitError::Unsupported("this host has no priorities: `priority` has to be `normal`"));
    }
    Ok(())
}

pub(super) fn check_words(
    content_type: &str,
    ontology: Option<&str>,
    protocol: Option<&str>,
) -> Result<(), AdmitError> {
    for (name, value) in [("content-type", Some(content_type)), ("ontology", ontology), ("protocol", protocol)] {
        let Some(value) = value else { continue };
        if value.is_empty() || value.len() > MAX_WORD || value.chars().any(char::is_control) {
            let what = format!("`{name}` has to have 1 to {MAX_WORD} printable characters; it has {}", value.len());
            return Err(AdmitError::Invalid(what));
        }
    }
    Ok(())
}

fn check_ids<const N: usize>(ids: [Option<&str>; N]) -> Result<(), AdmitError> {
    for id in ids.into_iter().flatten() {
        if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
            let what = format!("an id has to have 1 to {MAX_ID} printable characters; one has {}", id.len());
            return Err(AdmitError::Invalid(what));
        }
    }
    Ok(())
}

pub(super) fn check_headers(headers: &[(String, String)]) -> Result<(), AdmitError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        let what = format!(
            "`headers` may have {MAX_HEADERS} entries of {MAX_HEADER_BYTES} bytes in all; it has {} of {bytes}",
            headers.len()
        );
        return Err(AdmitError::Invalid(what));
    }
    let bad = |name: &str| {
        name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase() && b != b':')
    };
    if let Some((name, _)) = headers.iter().find(|(name, value)| bad(name) || value.chars().any(char::is_control)) {
        let what = format!("the header `{}` is not a lower-case name with a printable value", name.escape_debug());
        return Err(AdmitError::Invalid(what));
    }
    Ok(())
}

/// Whom a receiver's text means, if the sender may send there.
fn find_receiver(
    routes: &Routes,
    who: &Identity,
    receiver: &str,
    conversation: &str,
) -> Result<Arc<Agent>, AdmitError> {
    let allow = &who.spec.allow.send;
    let not_allowed = || AdmitError::NotAllowed { sender: who.name().to_owned(), receiver: receiver.to_owned() };
    if let Some(capability) = receiver.strip_prefix("cap:") {
        let granted =
            allow.iter().any(|grant| matches!(grant, Receiver::Capability(name) if name.as_str() == capability));
        if !granted {
            return Err(not_allowed());
        }
        return routes.pick(capability, conversation).ok_or_else(|| AdmitError::UnknownReceiver(receiver.to_owned()));
    }
    let agent = routes.agent(receiver);
    // A grant of a capability covers those who have it, also when they are called by name.
    let granted = allow.iter().any(|grant| match grant {
        Receiver::Agent(name) => name.as_str() == receiver,
        Receiver::Capability(name) => agent.is_some_and(|agent| agent.spec.load().capabilities.contains(name)),
    });
    if !granted {
        return Err(not_allowed());
    }
    agent.cloned().ok_or_else(|| AdmitError::UnknownReceiver(receiver.to_owned()))
}

/// The act as the contract has it: the same 22 in the same order.
pub(crate) fn performative(act: Performative) -> wit::Performative {
    WIT_ACTS[act as usize]
}

/// The act as the host has it.
pub(crate) fn act(performative: wit::Performative) -> Performative {
    Performative::ALL[performative as usize]
}

const WIT_ACTS: [wit::Performative; 22] = {
    use wit::Performative as P;
    [
        P::AcceptProposal,
        P::Agree,
        P::Cancel,
        P::Cfp,
        P::Confirm,
        P::Disconfirm,
        P::Failure,
        P::Inform,
        P::InformIf,
        P::InformRef,
        P::NotUnderstood,
        P::Propagate,
        P::Propose,
        P::Proxy,
        P::QueryIf,
        P::QueryRef,
        P::Refuse,
        P::RejectProposal,
        P::Request,
        P::RequestWhen,
        P::RequestWhenever,
        P::Subscribe,
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acts_of_the_contract_and_of_the_host_are_the_same() {
        for act_of_host in Performative::ALL {
            let in_contract = performative(*act_of_host);
            assert_eq!(act(in_contract), *act_of_host);
            let names = [format!("{in_contract:?}"), act_of_host.to_string()];
            let [contract, host] = names.map(|name| name.to_lowercase().replace(['-', ':'], ""));
            assert!(contract.contains(&host), "{contract} is {host}");
        }
    }
}
