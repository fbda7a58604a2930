//! The answers and keys that a run of a handler takes over from runs before it that ended in a conflict.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::effects::Effects;
use super::wit;

/// Bytes of questions and answers that are kept of one handling. What is beyond is asked anew if the handler runs again.
const MAX_BYTES: usize = 4 << 20;

/// A question that a handler asked, with what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The question.
    pub(super) draft: wit::Draft,
    /// The answer, or the error.
    pub(super) answer: Result<wit::Message, wit::RequestError>,
}

impl Asked {
    /// Returns true if another question says the same. When its answer is of no use any more is no part of that: it is another
    /// time in each run.
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

/// Questions and answers of a handling.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    /// Of runs before, and not asked for in this one.
    left: Vec<Asked>,
    /// Of this run, in order.
    asked: Vec<Asked>,
    bytes: usize,
}

impl Answers {
    /// Returns the answer that a run before had to the same question, once for each time that it was asked. It reads as if
    /// this question had been asked.
    pub(super) fn take(&mut self, draft: &wit::Draft) -> Option<Result<wit::Message, wit::RequestError>> {
        let at = self.left.iter().position(|asked| asked.is_same(draft))?;
        let mut asked = self.left.remove(at);
        if let Ok(answer) = &mut asked.answer {
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

    /// Keeps what came of a question, for a run after this one. What reached nobody is asked again.
    pub(super) fn keep(&mut self, draft: wit::Draft, answer: &Result<wit::Message, wit::RequestError>) {
        if matches!(answer, Err(wit::RequestError::NotSent(_) | wit::RequestError::Deadlock(_))) {
            return;
        }
        let asked = Asked { draft, answer: answer.clone() };
        let bytes = self.bytes.saturating_add(asked.bytes());
        if bytes <= MAX_BYTES {
            self.bytes = bytes;
            self.asked.push(asked);
        }
    }

    /// For the next run: all of them.
    pub(crate) fn for_next_run(self) -> Self {
        let Self { left, mut asked, bytes } = self;
        asked.extend(left);
        Self { left: asked, asked: Vec::new(), bytes }
    }
}

/// The remains of a run that ended in a conflict.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// The key that another has changed, or is to change first.
    pub(crate) key: String,
    /// The keys that the run touched.
    pub(crate) keys: BTreeSet<String>,
    /// The questions that it asked, with their answers.
    pub(crate) answers: Answers,
    /// Set if a part of it is committed, so that it cannot run again.
    pub(crate) partly: bool,
}

impl Conflict {
    /// Of a run that was broken off.
    pub(crate) fn broken_off(key: String, effects: Effects) -> Self {
        let mut keys = effects.touched();
        keys.insert(key.clone());
        Self { key, keys, answers: effects.answers, partly: effects.partly }
    }
}

/// The record of a handling whose runs ended in conflicts.
#[derive(Debug)]
pub(crate) struct Again {
    /// The number of runs that did.
    pub(crate) runs: u32,
    /// The keys that they touched, which are reserved for the next.
    pub(crate) keys: BTreeSet<String>,
    /// The questions that they asked, with their answers.
    pub(crate) answers: Answers,
    /// Under which the keys are reserved.
    pub(crate) ticket: Ticket,
}

/// The keys of an agent that are reserved, as a run of one of its handlers meets them.
pub(crate) trait Reserving: Send + Sync {
    /// Returns true if a run within these had better not depend on the key.
    fn is_reserved(&self, key: &str, within: &[u64]) -> bool;
    /// Gives up what is reserved under a ticket.
    fn give_up(&self, ticket: u64);
}

/// The reservations and answers that a run of a handling goes by.
#[derive(Clone, Default)]
pub(crate) struct Run {
    /// The reserved keys of its agent; none for a run that is in conflict with no other, such as that of a copy.
    pub(crate) reserving: Option<Arc<dyn Reserving>>,
    /// Set if it is broken off before something follows from a key that another has reserved.
    pub(crate) yields: bool,
    /// Set if it runs again from its beginning when it is broken off.
    pub(crate) runs_again: bool,
    /// Under which it has keys reserved.
    pub(crate) ticket: Option<u64>,
    /// The tickets of those that wait for it and its own: what they have reserved is free for it.
    pub(crate) within: Vec<u64>,
    /// The questions of the runs before it, with their answers.
    pub(crate) answers: Answers,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("ticket", &self.ticket).field("within", &self.within).finish_non_exhaustive()
    }
}

/// Hears that a ticket is given up.
type Left = Box<dyn FnOnce(u64) + Send + Sync>;

/// Under which a handling reserves keys. Dropping it gives them up.
pub(crate) struct Ticket {
    /// Different from all others of this host.
    pub(crate) number: u64,
    left: Option<Left>,
}

impl Ticket {
    /// A new one; `left` hears when it is given up.
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
    fn each_answer_is_given_once_to_the_same_question() {
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
        // Also what the second did not ask for.
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
    fn so_many_bytes_are_kept_and_no_more() {
        let mut answers = Answers::default();
        let large = "x".repeat(MAX_BYTES / 2);
        for _ in 0..3 {
            answers.keep(draft("till", &large), &Ok(message(b"")));
        }
        assert_eq!(answers.asked.len(), 2);
    }
}
