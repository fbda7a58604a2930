//! Repeated runs: answers and reserved keys from runs of a handler that ended in a conflict.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::effects::Effects;
use super::wit;

/// The bound of the recorded requests and answers of one handling, in bytes. Requests beyond it are sent again by a
/// later run.
const MAX_BYTES: usize = 4 << 20;

/// A request of a handler with its answer.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The request.
    pub(super) draft: wit::Draft,
    /// The answer or the error.
    pub(super) answer: Result<wit::Message, wit::RequestError>,
}

impl Asked {
    /// Returns `true` if another request is the same. Deadlines are not compared, because they differ between runs.
    fn is_same(&self, draft: &wit::Draft) -> bool {
        let own = &self.draft;
        own.receiver == draft.receiver
            && own.performative == draft.performative
            && own.content == draft.content
            && own.content_type == draft.content_type
            && own.ontology == draft.ontology
            && own.protocol == draft.protocol
    }

    fn bytes(&self) -> usize {
        self.draft.content.len() + self.answer.as_ref().map_or(0, |answer| answer.content.len())
    }
}

/// The recorded requests of a handling.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    /// Those of earlier runs that this run has not made yet.
    left: Vec<Asked>,
    /// Those of this run, in order.
    asked: Vec<Asked>,
    bytes: usize,
}

impl Answers {
    /// Returns the answer of an earlier run to the same request, each answer once. Its `in-reply-to` and conversation
    /// are those of the new request.
    pub(super) fn take(&mut self, draft: &wit::Draft) -> Option<Result<wit::Message, wit::RequestError>> {
        // The first in order, so that equal requests get their answers in the order in which they were sent.
        let at = self.left.iter().position(|asked| asked.is_same(draft))?;
        let mut asked = self.left.remove(at);
        if let Ok(answer) = &mut asked.answer {
            // The guest may have drawn a new key and will compare it.
            if draft.reply_with.is_some() {
                answer.in_reply_to.clone_from(&draft.reply_with);
            }
            if let Some(conversation) = &draft.conversation_id {
                answer.conversation_id.clone_from(conversation);
            }
        }
        let answer = asked.answer.clone();
        self.asked.push(asked);
        Some(answer)
    }

    /// Records a request with its answer. Requests that reached no agent are not recorded, so that they are sent again.
    pub(super) fn keep(&mut self, draft: wit::Draft, answer: &Result<wit::Message, wit::RequestError>) {
        if matches!(answer, Err(wit::RequestError::NotSent(_) | wit::RequestError::Deadlock(_))) {
            return;
        }
        let asked = Asked { draft, answer: answer.clone() };
        let bytes = self.bytes.saturating_add(asked.bytes());
        // Beyond the bound the answer is only not reused, which is correct and slower.
        if bytes <= MAX_BYTES {
            self.bytes = bytes;
            self.asked.push(asked);
        }
    }

    /// Returns all recorded requests, for the next run.
    pub(crate) fn for_next_run(self) -> Self {
        let Self { left, mut asked, bytes } = self;
        asked.extend(left);
        Self { left: asked, asked: Vec::new(), bytes }
    }
}

/// The record of a run that ended in a conflict.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// The key that another handler has changed, or has reserved.
    pub(crate) key: String,
    /// The keys that the run read or wrote.
    pub(crate) keys: BTreeSet<String>,
    /// The recorded requests of the run.
    pub(crate) answers: Answers,
    /// Set if a part of the run is committed, so that it cannot be repeated.
    pub(crate) partly: bool,
}

impl Conflict {
    /// Creates the record of a run that was broken off for `key`.
    pub(crate) fn broken_off(key: String, effects: Effects) -> Self {
        let mut keys = effects.touched();
        keys.insert(key.clone());
        Self { key, keys, answers: effects.answers, partly: effects.partly }
    }
}

/// The record of a handling whose runs have ended in conflicts.
#[derive(Debug)]
pub(crate) struct Again {
    /// The number of those runs.
    pub(crate) runs: u32,
    /// The keys that they touched, which are reserved for the next run.
    pub(crate) keys: BTreeSet<String>,
    /// The recorded requests.
    pub(crate) answers: Answers,
    /// The ticket under which the keys are reserved.
    pub(crate) ticket: Ticket,
}

/// The reserved keys of an agent, as the runs of its handlers see them.
pub(crate) trait Reserving: Send + Sync {
    /// Returns `true` if a run should not depend on the key: it is reserved under a ticket that is not in `within`.
    fn is_reserved(&self, key: &str, within: &[u64]) -> bool;
    /// Releases the keys of a ticket.
    fn give_up(&self, ticket: u64);
}

/// The reservations and earlier answers of a run.
#[derive(Clone, Default)]
pub(crate) struct Run {
    /// The reserved keys of the agent; `None` for a run that conflicts with no other, such as a copy.
    pub(crate) reserving: Option<Arc<dyn Reserving>>,
    /// Set if the run is broken off before it depends on a key that another handler has reserved.
    pub(crate) yields: bool,
    /// Set if the run is repeated from its beginning after it was broken off.
    pub(crate) runs_again: bool,
    /// The ticket of its own reserved keys.
    pub(crate) ticket: Option<u64>,
    /// Its own ticket and those of the handlers that wait for it, whose reservations do not concern it.
    pub(crate) within: Vec<u64>,
    /// The recorded requests of earlier runs.
    pub(crate) answers: Answers,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("ticket", &self.ticket).field("within", &self.within).finish_non_exhaustive()
    }
}

/// Called when a ticket is released.
type Left = Box<dyn FnOnce(u64) + Send + Sync>;

/// The ticket under which a handling reserves keys. Dropping it releases them.
pub(crate) struct Ticket {
    /// Unique in this process.
    pub(crate) number: u64,
    left: Option<Left>,
}

impl Ticket {
    /// Creates a ticket; `left` is called when it is released.
    pub(crate) fn new(left: impl FnOnce(u64) + Send + Sync + 'static) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};

        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), left: Some(Box::new(left)) }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({})", self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(left) = self.left.take() {
            left(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    fn draft(receiver: &str, content: &str) -> wit::Draft {
        wit::Draft {
            receiver: receiver.to_owned(),
            performative: wit::Performative::Request,
            content: content.into(),
            content_type: "text/plain".to_owned(),
            ontology: None,
            protocol: None,
            conversation_id: None,
            reply_with: None,
            in_reply_to: None,
            reply_by: None,
            priority: wit::Priority::Normal,
            delivery: wit::Delivery::Now,
            headers: Vec::new(),
        }
    }

    #[test]
    fn answers_are_reused_once_for_the_same_request() {
        let mut first = Answers::default();
        let answer = |text: &str| Ok(message(text.as_bytes()));
        first.keep(draft("till", "charge"), &answer("one"));
        first.keep(draft("till", "charge"), &answer("two"));
        first.keep(draft("till", "refund"), &Err(wit::RequestError::TimedOut));
        first.keep(draft("till", "never came"), &Err(wit::RequestError::NotSent(wit::SendError::MailboxFull(1))));
        let mut second = first.for_next_run();
        let heard = |answer: Option<Result<wit::Message, wit::RequestError>>| {
            answer.map(|answer| answer.map(|answer| String::from_utf8(answer.content).unwrap()).map_err(|_| ()))
        };
        assert_eq!(heard(second.take(&draft("till", "charge"))), Some(Ok("one".to_owned())));
        assert_eq!(heard(second.take(&draft("till", "other"))), None);
        assert_eq!(heard(second.take(&draft("bank", "charge"))), None);
        second.keep(draft("bank", "charge"), &answer("three"));
        // Includes what the second run did not ask for.
        let mut third = second.for_next_run();
        let named = wit::Draft { reply_with: Some("r-9".to_owned()), ..draft("till", "charge") };
        assert_eq!(third.take(&named).unwrap().unwrap().in_reply_to.as_deref(), Some("r-9"));
        assert_eq!(heard(third.take(&draft("till", "charge"))), Some(Ok("two".to_owned())));
        assert_eq!(heard(third.take(&draft("till", "charge"))), None);
        assert_eq!(heard(third.take(&draft("till", "refund"))), Some(Err(())));
        assert_eq!(heard(third.take(&draft("till", "never came"))), None);
        assert_eq!(heard(third.take(&draft("bank", "charge"))), Some(Ok("three".to_owned())));
    }

    #[test]
    fn recorded_bytes_are_bounded() {
        let mut answers = Answers::default();
        let large = "x".repeat(MAX_BYTES / 2);
        for _ in 0..3 {
            answers.keep(draft("till", &large), &Ok(message(b"")));
        }
        assert_eq!(answers.asked.len(), 2);
    }
}
