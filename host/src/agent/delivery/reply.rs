//! The receivers of replies.

use caxton_control::Performative;
use std::sync::Arc;

use caxton_control::RevisionId;

use crate::agent::delivery::budget::charge;
use crate::agent::delivery::hops::{ChainEnd, ChainEndInbox};
use crate::agent::{AdmitError, Agent, Revision, draft};
use crate::clock;
use crate::conversation::speech_act;
use crate::message::{Deliver, Envelope, Message, Outcome, Outgoing, Reply, new_id};

impl Agent {
    /// Makes a message of a reply, for the caller that waits or the sender's mailbox.
    pub(in crate::agent) fn route_reply(
        &self,
        revision: &Revision,
        envelope: &Envelope,
        reply: Option<Reply>,
    ) -> Result<(Outcome, Option<Outgoing>), AdmitError> {
        let Some(reply) = reply else { return Ok((Outcome::Done, None)) };
        let limit = revision.spec.limits.message_bytes;
        if reply.content.len() as u64 > limit {
            return Err(AdmitError::TooLarge { limit });
        }
        // Checked like a draft of a send: a reply is a message to its receiver.
        draft::check_words(&reply.content_type, reply.ontology.as_deref(), None)?;
        draft::check_ids([reply.reply_with.as_deref()])?;
        draft::check_headers(&reply.headers)?;
        let message = self.answer(&envelope.message, reply);
        if envelope.waiter.is_some() {
            return Ok((Outcome::Reply(Box::new(message)), None));
        }
        // Asked before the commit, so that the notice is part of it.
        let in_vain = self.has_no_receiver(&message).then(|| self.notice_in_vain(&message, envelope));
        if let Some(notice) = in_vain {
            return Ok((Outcome::Done, notice));
        }
        // A sender outside that did not wait has no mailbox, and gets nothing.
        let sent = self.to_mailbox(envelope, message, ChainEnd::of(revision), |receiver| {
            receiver.check_open(Some(&envelope.message.conversation_id))?;
            // In place of the question, which had one: two agents whose mailboxes are full can answer each other.
            receiver.reserve_beyond();
            Ok(())
        })?;
        let sent = match sent {
            // To a mailbox it is a message like any other.
            Some(sent) => Some(sent.charged(charge(envelope.tree(), &self.name, None)?)),
            None => None,
        };
        Ok((Outcome::Done, sent))
    }

    /// Returns the `failure` for an agent that asked, does not wait, and will get no answer.
    pub(in crate::agent) fn failure_for(&self, envelope: &Envelope, why: &str) -> Option<Outgoing> {
        // A redelivered dead letter causes no second `failure`: that may become a dead letter itself, and there would
        // be one more for each time.
        if envelope.is_call() || envelope.revived || !speech_act(envelope).is_question() {
            return None;
        }
        let (receiver, running) = (&envelope.message.sender, self.current());
        let asker = self.directory.receiver(receiver, &envelope.message.conversation_id);
        let limit = asker.map(|asker| asker.message_limit());
        let ending = match &running {
            Some(running) => ChainEnd::of(running),
            None => {
                // An agent without a revision still gives messages up; numbers begin at 1.
                let nobody = RevisionId { agent: self.name.clone(), number: 0 };
                ChainEnd::new(&Arc::new(nobody), self.spec().limits.hops)
            }
        };
        let reply = Reply {
            performative: Performative::Failure,
            // As much of it as the asker takes: it has to hear that there will be no answer.
            content: cut(why, limit.unwrap_or(u64::MAX)).as_bytes().to_vec(),
            content_type: "text/plain; charset=utf-8".to_owned(),
            ontology: None,
            reply_with: None,
            reply_by: None,
            headers: Vec::new(),
        };
        // The asker waits for this answer, so that it has a place even in a full mailbox.
        self.to_mailbox(envelope, self.answer(&envelope.message, reply), ending, |receiver| {
            receiver.reserve_beyond();
            Ok(())
        })
        .ok()
        .flatten()
        .map(Outgoing::mark_sent_by_host)
    }

    fn answer(&self, question: &Message, reply: Reply) -> Message {
        Message {
            id: new_id(),
            performative: reply.performative,
            sender: self.name.as_str().to_owned(),
            receiver: question.sender.clone(),
            content: reply.content,
            content_type: reply.content_type,
            ontology: reply.ontology,
            protocol: question.protocol.clone(),
            conversation_id: question.conversation_id.clone(),
            reply_with: reply.reply_with,
            // FIPA: `reply-with` names what the answer refers to, and the id stands in for it.
            in_reply_to: Some(question.reply_with.clone().unwrap_or_else(|| question.id.clone())),
            reply_by: reply.reply_by,
            priority: question.priority,
            sent_at: clock::now_ms(),
            attempt: 1,
            headers: reply.headers,
        }
    }

    /// Returns `true` for an answer to an agent that accepts none: it was removed, or speaks HTTP and can only wait for
    /// answers.
    fn has_no_receiver(&self, answer: &Message) -> bool {
        let receiver = self.directory.receiver(&answer.receiver, &answer.conversation_id);
        !answer.receiver.contains(':') && receiver.is_none_or(|receiver| receiver.is_http())
    }

    /// Addresses a reply to the mailbox of its receiver. It needs no grant: its receiver asked.
    fn to_mailbox(
        &self,
        question: &Envelope,
        message: Message,
        ending: ChainEnd,
        reserve: impl FnOnce(&Self) -> Result<(), AdmitError>,
    ) -> Result<Option<Outgoing>, AdmitError> {
        // Names of agents have no colon; all other senders are outside.
        if message.receiver.contains(':') {
            return Ok(None);
        }
        let found = self.directory.receiver(&message.receiver, &message.conversation_id);
        let Some(receiver) = found.filter(|receiver| !receiver.is_http()) else {
            // Its agent was removed, or speaks HTTP and can only wait for answers, which it did not.
            tracing::debug!(agent = %self.name, receiver = message.receiver, "a reply has nobody to go to");
            return Ok(None);
        };
        let limit = receiver.message_limit();
        if message.content.len() as u64 > limit {
            return Err(AdmitError::TooLarge { limit });
        }
        // Saturating: a notice past all bounds has the largest number already.
        let hops = question.hops.saturating_add(1);
        let (trace, tree) = (question.trace.clone(), question.tree.clone());
        let envelope = Box::new(Envelope { hops, trace, tree, ..Envelope::new(message) });
        let limit = ending.limit();
        if hops > limit {
            return Ok(Some(Outgoing::ending(ChainEndInbox::inbox(&receiver, ending), envelope, limit)));
        }
        reserve(&receiver)?;
        Ok(Some(Outgoing::new(receiver as Arc<dyn Deliver>, envelope)))
    }
}

/// Returns the beginning of a text, of at most `bytes` bytes.
pub(in crate::agent) fn cut(text: &str, bytes: u64) -> &str {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    // A cut within a character would panic.
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, bytes, expected) in [
            ("short", 9, "short"),
            ("short", 5, "short"),
            ("short", 2, "sh"),
            ("aü", 2, "a"),
            ("ü", 1, ""),
            ("", 0, ""),
        ] {
            assert_eq!(cut(text, bytes), expected, "{text} in {bytes}");
        }
    }
}
