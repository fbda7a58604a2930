//! Messages that agents send, as their conversations take them in, refuse them or take them back.

use caxton_control::conversation::Change;

use super::super::commit::Commit;
use super::{Conversations, said};
use crate::wasm::{Envelope, Sent};

impl Conversations {
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
