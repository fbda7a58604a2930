//! Messages that agents send, as their conversations take them in, refuse them or take them back.

use caxton_control::conversation::Change;

use super::super::commit::Commit;
use super::{Conversations, said};
use crate::wasm::{Envelope, Sent};

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
    /// Returns the question that a message was, if its handler gave no answer and sent only this; none if it was none, or
    /// an answer may still come.
    pub(crate) fn of(envelope: &Envelope, sends: &[Sent]) -> Option<Self> {
        let asked = said(envelope);
        // Who asked from outside is told nothing in any case.
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

    /// Takes what is sent into its conversation; gives what to [take back](Self::take_back) if it is not kept. What an
    /// agent sent and is not legal there becomes its answer, `not-understood`. What ends a chain of causes is not said.
    ///
    /// # Errors
    /// It came from outside, where nobody waits for a message.
    pub(crate) fn judge_sent(&self, sent: &mut Sent) -> Result<Option<Change>, String> {
        if sent.ends().is_some() {
            return Ok(None);
        }
        let envelope = sent.envelope();
        let (name, said) = (&envelope.message.conversation_id, said(envelope));
        if sent.is_hosts() {
            return Ok(Some(self.told(name, &said)));
        }
        let refused = match self.take(name, &said, true) {
            Ok(change) => return Ok(Some(change)),
            Err(refused) => refused,
        };
        let why = refused.to_string();
        if !sent.refuse(&why) {
            return Err(why);
        }
        Ok(Some(self.told_refusal(sent.envelope())))
    }

    /// Takes back what a commit sends that is not kept.
    pub(in crate::store) fn forget(&self, commit: &mut Commit) {
        let changes = std::mem::take(&mut commit.changes);
        for (sent, change) in commit.sends.iter().zip(changes).rev() {
            if let Some(change) = change {
                self.take_back(sent.envelope(), change);
            }
        }
    }

    /// Takes back what was sent, which is not kept: the last one first.
    fn take_back(&self, envelope: &Envelope, change: Change) {
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
    fn told_refusal(&self, answer: &Envelope) -> Change {
        let name = &answer.message.conversation_id;
        self.tell(name, |record| record.told_refusal(&said(answer)))
    }
}
