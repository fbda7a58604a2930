//! Requests of a handler with their answers, for later runs of it.

use super::contract::{Draft, Message, RequestError};

/// The bound of the recorded requests and answers of one handling, in bytes: as much as sixteen messages of the usual
/// limit. Requests beyond it are sent again by a later run.
const MAX_BYTES: usize = 4 << 20;

/// A request of a handler with its answer.
#[derive(Debug, Clone)]
struct LoggedRequest {
    draft: Draft,
    answer: Result<Message, RequestError>,
}

impl LoggedRequest {
    /// Returns `true` if another request is the same. Deadlines are not compared, because they differ between runs.
    fn is_same(&self, draft: &Draft) -> bool {
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

/// The recorded requests of a handling. One word without any, as in most handlings: it is moved with the effects
/// through every layer of a call.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestLog(Option<Box<Entries>>);

#[derive(Debug, Clone, Default)]
struct Entries {
    /// Requests of earlier runs that this run has not made yet.
    earlier: Vec<LoggedRequest>,
    /// Requests of this run, in order.
    own: Vec<LoggedRequest>,
    bytes: usize,
}

impl RequestLog {
    /// Returns the answer of an earlier run to the same request, each answer once. Its `in-reply-to` and conversation
    /// are those of the new request.
    pub(crate) fn replay(&mut self, draft: &Draft) -> Option<Result<Message, RequestError>> {
        let entries = self.0.as_mut()?;
        // The first in order, so that equal requests get their answers in the order in which they were sent.
        let at = entries.earlier.iter().position(|logged| logged.is_same(draft))?;
        let mut logged = entries.earlier.remove(at);
        if let Ok(answer) = &mut logged.answer {
            // The guest may have drawn a new key and will compare it.
            if draft.reply_with.is_some() {
                answer.in_reply_to.clone_from(&draft.reply_with);
            }
            if let Some(conversation) = &draft.conversation_id {
                answer.conversation_id.clone_from(conversation);
            }
        }
        let answer = logged.answer.clone();
        entries.own.push(logged);
        Some(answer)
    }

    /// Records a request with its answer. Requests that reached no agent are not recorded, so that they are sent again.
    pub(crate) fn record(&mut self, draft: Draft, answer: &Result<Message, RequestError>) {
        if matches!(answer, Err(RequestError::NotSent(_) | RequestError::Deadlock(_))) {
            return;
        }
        let logged = LoggedRequest { draft, answer: answer.clone() };
        let entries = self.0.get_or_insert_default();
        let bytes = entries.bytes.saturating_add(logged.bytes());
        // Beyond the bound the answer is only not reused, which is correct and slower.
        if bytes <= MAX_BYTES {
            entries.bytes = bytes;
            entries.own.push(logged);
        }
    }

    /// Returns all recorded requests, for the next run.
    pub(crate) fn for_next_run(mut self) -> Self {
        if let Some(entries) = &mut self.0 {
            let earlier = std::mem::take(&mut entries.earlier);
            entries.own.extend(earlier);
            entries.earlier = std::mem::take(&mut entries.own);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use caxton_control::Performative;
    use caxton_control::mailbox::Priority;

    use super::super::contract::{Delivery, SendError};
    use super::*;

    fn draft(receiver: &str, content: &str) -> Draft {
        Draft {
            receiver: receiver.to_owned(),
            performative: Performative::Request,
            content: content.into(),
            content_type: "text/plain".to_owned(),
            ontology: None,
            protocol: None,
            conversation_id: None,
            reply_with: None,
            in_reply_to: None,
            reply_by: None,
            priority: Priority::Normal,
            delivery: Delivery::Now,
            headers: Vec::new(),
        }
    }

    fn message(content: &[u8]) -> Message {
        Message {
            id: "m-1".to_owned(),
            performative: Performative::Inform,
            sender: "till".to_owned(),
            receiver: "guest".to_owned(),
            content: content.to_vec(),
            content_type: "text/plain".to_owned(),
            ontology: None,
            protocol: None,
            conversation_id: "c-1".to_owned(),
            reply_with: None,
            in_reply_to: None,
            reply_by: None,
            priority: Priority::Normal,
            sent_at: 0,
            attempt: 1,
            headers: Vec::new(),
        }
    }

    #[test]
    fn answers_are_reused_once_for_the_same_request() {
        let mut first = RequestLog::default();
        let answer = |text: &str| Ok(message(text.as_bytes()));
        first.record(draft("till", "charge"), &answer("one"));
        first.record(draft("till", "charge"), &answer("two"));
        first.record(draft("till", "refund"), &Err(RequestError::TimedOut));
        first.record(draft("till", "never came"), &Err(RequestError::NotSent(SendError::MailboxFull(1))));
        let mut second = first.for_next_run();
        let heard = |answer: Option<Result<Message, RequestError>>| {
            answer.map(|answer| answer.map(|answer| String::from_utf8(answer.content).unwrap()).map_err(|_| ()))
        };
        assert_eq!(heard(second.replay(&draft("till", "charge"))), Some(Ok("one".to_owned())));
        assert_eq!(heard(second.replay(&draft("till", "other"))), None);
        assert_eq!(heard(second.replay(&draft("bank", "charge"))), None);
        second.record(draft("bank", "charge"), &answer("three"));
        // Includes what the second run did not ask for.
        let mut third = second.for_next_run();
        let named = Draft { reply_with: Some("r-9".to_owned()), ..draft("till", "charge") };
        assert_eq!(third.replay(&named).unwrap().unwrap().in_reply_to.as_deref(), Some("r-9"));
        assert_eq!(heard(third.replay(&draft("till", "charge"))), Some(Ok("two".to_owned())));
        assert_eq!(heard(third.replay(&draft("till", "charge"))), None);
        assert_eq!(heard(third.replay(&draft("till", "refund"))), Some(Err(())));
        assert_eq!(heard(third.replay(&draft("till", "never came"))), None);
        assert_eq!(heard(third.replay(&draft("bank", "charge"))), Some(Ok("three".to_owned())));
    }

    #[test]
    fn recorded_bytes_are_bounded() {
        let mut answers = RequestLog::default();
        let large = "x".repeat(MAX_BYTES / 2);
        for _ in 0..3 {
            answers.record(draft("till", &large), &Ok(message(b"")));
        }
        assert_eq!(answers.0.unwrap().own.len(), 2);
    }
}
