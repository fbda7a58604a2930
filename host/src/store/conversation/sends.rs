//! Messages that agents send, as their conversations take them in, refuse them or take them back.

use caxton_control::conversation::ConversationChange;

use super::{Conversations, said};
use crate::clock;
use crate::message::Dispatch;
use crate::message::{Envelope, Outgoing};
use crate::store::CommitRequest;

/// A question that was handled and got no answer.
#[derive(Debug)]
pub(crate) struct Closed {
    /// The conversation.
    pub(in crate::store) conversation: String,
    /// The agent that asked.
    pub(in crate::store) from: String,
    /// The agent that was asked.
    pub(in crate::store) to: String,
    /// The reference that an answer would have carried.
    pub(in crate::store) key: String,
}

impl Closed {
    /// Returns the question that a message was, if its handler gave no answer and sent only this; none if it was none,
    /// or an answer may still come.
    pub(crate) fn of(envelope: &Envelope, sends: &[Outgoing]) -> Option<Self> {
        let asked = said(envelope);
        // A caller from outside is told nothing in any case.
        let is_agents = !asked.from.contains(':');
        if !is_agents
            || !asked.is_question()
            || asked.may_be_answered_later(sends.iter().map(|sent| said(sent.envelope())))
        {
            return None;
        }
        Some(Self {
            conversation: envelope.message.conversation_id.clone(),
            from: asked.from.to_owned(),
            to: asked.to.to_owned(),
            key: asked.reply_with.unwrap_or(asked.id).to_owned(),
        })
    }
}

impl Conversations {
    /// Closes a question that was handled without an answer, if it is open.
    pub(crate) fn close_question(&self, closed: &Closed) {
        let Closed { conversation, from, to, key } = closed;
        let (mut shard, hash) = self.shard(conversation);
        if shard.get_mut(conversation, hash).is_some_and(|open| open.record.close(key, from, to)) {
            self.write_soon(&mut shard, (conversation, hash));
        }
    }

    /// Takes a message that is sent into its conversation, outside any commit. If it is not legal there, it becomes the
    /// answer to its sender, `not-understood`.
    ///
    /// # Errors
    /// It is not legal, and its sender has no mailbox.
    pub(crate) fn judge_sent(&self, sent: &mut Outgoing) -> Result<(), String> {
        let (dispatch, place) = sent.parts_mut();
        if let Err(why) = self.take_send(dispatch) {
            if !place.refuse(dispatch, &why) {
                return Err(why);
            }
            self.told_refusal(&dispatch.envelope);
        }
        Ok(())
    }

    /// Takes a commit into its conversations: what it sends, the question that it closes, the revision that goes on.
    ///
    /// # Errors
    /// A message is not legal, and its sender has no mailbox: nothing of the commit is taken in.
    pub(in crate::store) fn check(&self, submission: &mut CommitRequest) -> Result<(), String> {
        self.take_sends(submission)?;
        let commit = &submission.commit;
        if let Some(closed) = &commit.closes {
            self.close_question(closed);
        }
        // After what is sent: a revision goes on with what is open then.
        if let Some(goes) = &commit.goes {
            self.stay(&commit.agent, goes, clock::steady_ms());
        }
        Ok(())
    }

    /// Takes the messages of a commit into their conversations. One that is not legal there becomes the answer to its
    /// sender, `not-understood`.
    ///
    /// # Errors
    /// One is not legal, and its sender has no mailbox: nothing of the commit is taken in.
    fn take_sends(&self, submission: &mut CommitRequest) -> Result<(), String> {
        for index in 0..submission.commit.sends.len() {
            let change = match self.take_send(&submission.commit.sends[index]) {
                Ok(change) => change,
                Err(why) if submission.refuse_send(index, &why) => {
                    Some(self.told_refusal(&submission.commit.sends[index].envelope))
                }
                Err(why) => {
                    // A commit is kept as a whole or not at all, so what was taken in before this one is taken back.
                    self.forget(submission);
                    return Err(why);
                }
            };
            // In the order of the sends, by which `forget` pairs them.
            submission.taken.push(change);
        }
        Ok(())
    }

    /// Takes a message in; `None` for one that ends a chain of causes, which is not said.
    fn take_send(&self, dispatch: &Dispatch) -> Result<Option<ConversationChange>, String> {
        // It is never delivered, so its conversation must not count it.
        if dispatch.ends.is_some() {
            return Ok(None);
        }
        let envelope = &dispatch.envelope;
        let (name, said) = (&envelope.message.conversation_id, said(envelope));
        // Never refused: the agent that asked would wait for ever.
        if dispatch.from_host {
            return Ok(Some(self.told(name, &said)));
        }
        self.take(name, &said, true).map(Some).map_err(|refused| refused.to_string())
    }

    /// Takes back what a commit sends that is not kept.
    pub(in crate::store) fn forget(&self, submission: &mut CommitRequest) {
        let taken = std::mem::take(&mut submission.taken);
        // The last first: each change was made on top of those before.
        for (sent, change) in submission.commit.sends.iter().zip(taken).rev() {
            if let Some(change) = change {
                self.take_back(&sent.envelope, change);
            }
        }
    }

    /// Takes back what was sent, which is not kept: the last one first.
    fn take_back(&self, envelope: &Envelope, change: ConversationChange) {
        let name = &envelope.message.conversation_id;
        let (mut shard, hash) = self.shard(name);
        // It refuses nothing.
        let _ = self.change(&mut shard, (name, hash), |record| Ok(record.take_back(&said(envelope), change)));
        // One that began with it never was.
        if shard.get(name, hash).is_some_and(|open| open.record.messages == 0)
            && shard.remove(name, hash).is_some_and(|open| open.dirty)
        {
            shard.find_dirty();
        }
    }

    /// Counts the answer to a message that was refused.
    fn told_refusal(&self, answer: &Envelope) -> ConversationChange {
        let name = &answer.message.conversation_id;
        self.tell(name, |record| record.record_refusal(&said(answer)))
    }
}
