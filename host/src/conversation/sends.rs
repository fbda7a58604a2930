//! Messages that agents send, as their conversations take them in, refuse them or take them back.

use caxton_control::conversation::ConversationChange;

use super::{Conversations, speech_act};
use crate::clock;
use crate::message::{Dispatch, Envelope, Outgoing};
use crate::store::{ClosedQuestion, CommitGate, CommitRequest, Record};

/// Returns the question that a message was, if its handler gave no answer and sent only this; none if it was none, or
/// an answer may still come.
pub(crate) fn closed_question(envelope: &Envelope, sends: &[Outgoing]) -> Option<ClosedQuestion> {
    let asked = speech_act(envelope);
    // A caller from outside is told nothing in any case.
    let is_agents = !asked.from.contains(':');
    if !is_agents
        || !asked.is_question()
        || asked.may_be_answered_later(sends.iter().map(|sent| speech_act(sent.envelope())))
    {
        return None;
    }
    Some(ClosedQuestion {
        conversation: envelope.message.conversation_id.clone(),
        from: asked.from.to_owned(),
        to: asked.to.to_owned(),
        key: asked.reply_with.unwrap_or(asked.id).to_owned(),
    })
}

impl Conversations {
    /// Takes a message that is sent into its conversation, outside any commit. If it is not legal there, it becomes the
    /// answer to its sender, `not-understood`.
    ///
    /// # Errors
    /// It is not legal, and its sender has no mailbox.
    pub(crate) fn admit_sent(&self, sent: &mut Outgoing) -> Result<(), String> {
        let (dispatch, place) = sent.parts_mut();
        if let Err(why) = self.admit_send(dispatch) {
            if !place.refuse(dispatch, &why) {
                return Err(why);
            }
            self.record_refusal(&dispatch.envelope);
        }
        Ok(())
    }

    /// Takes the messages of a commit into their conversations. One that is not legal there becomes the answer to its
    /// sender, `not-understood`.
    ///
    /// # Errors
    /// One is not legal, and its sender has no mailbox: nothing of the commit is taken in.
    fn admit_sends(&self, request: &mut CommitRequest) -> Result<(), String> {
        for index in 0..request.commit.sends.len() {
            let change = match self.admit_send(&request.commit.sends[index]) {
                Ok(change) => change,
                Err(why) if request.refuse_send(index, &why) => {
                    Some(self.record_refusal(&request.commit.sends[index].envelope))
                }
                Err(why) => {
                    // A commit is kept as a whole or not at all, so what was taken in before this one is taken back.
                    self.undo(request);
                    return Err(why);
                }
            };
            // In the order of the sends, by which `undo` pairs them.
            request.taken.push(change);
        }
        Ok(())
    }

    /// Takes a message in; `None` for one that ends a chain of messages, which is not said.
    fn admit_send(&self, dispatch: &Dispatch) -> Result<Option<ConversationChange>, String> {
        // It is never delivered, so its conversation must not count it.
        if dispatch.exceeded_limit.is_some() {
            return Ok(None);
        }
        let envelope = &dispatch.envelope;
        let (name, act) = (&envelope.message.conversation_id, speech_act(envelope));
        // Never refused: the agent that asked would wait for ever.
        if dispatch.is_sent_by_host {
            return Ok(Some(self.record_failure(name, &act)));
        }
        self.admit_as(name, &act, true).map(Some).map_err(|refused| refused.to_string())
    }

    /// Takes back what was sent, which is not kept: the last one first.
    fn take_back(&self, envelope: &Envelope, change: ConversationChange) {
        let name = &envelope.message.conversation_id;
        let (mut shard, hash) = self.shard(name);
        // It refuses nothing.
        let _ = self.change(&mut shard, (name, hash), |record| Ok(record.take_back(&speech_act(envelope), change)));
        // One that began with it never was.
        if shard.get(name, hash).is_some_and(|open| open.record.messages == 0)
            && shard.remove(name, hash).is_some_and(|open| open.dirty)
        {
            shard.find_dirty();
        }
    }

    /// Counts the answer to a message that was refused.
    fn record_refusal(&self, answer: &Envelope) -> ConversationChange {
        let name = &answer.message.conversation_id;
        self.update(name, |record| record.record_refusal(&speech_act(answer)))
    }
}

impl CommitGate for Conversations {
    fn check(&self, request: &mut CommitRequest) -> Result<(), String> {
        self.admit_sends(request)?;
        let commit = &request.commit;
        if let Some(closed) = &commit.closes {
            self.close_question(closed);
        }
        // After what is sent: a revision goes on with what is open then.
        if let Some(binding) = &commit.binding {
            self.bind(&commit.agent, binding, clock::steady_ms());
        }
        Ok(())
    }

    fn undo(&self, request: &mut CommitRequest) {
        let taken = std::mem::take(&mut request.taken);
        // The last first: each change was made on top of those before.
        for (sent, change) in request.commit.sends.iter().zip(taken).rev() {
            if let Some(change) = change {
                self.take_back(&sent.envelope, change);
            }
        }
    }

    fn close_question(&self, closed: &ClosedQuestion) {
        let ClosedQuestion { conversation, from, to, key } = closed;
        let (mut shard, hash) = self.shard(conversation);
        if shard.get_mut(conversation, hash).is_some_and(|open| open.record.close(key, from, to)) {
            self.write_soon(&mut shard, (conversation, hash));
        }
    }

    fn push_changed(&self, record: &mut Record<'_>) {
        self.push_dirty(record);
    }

    fn written(&self, seq: u64) {
        self.note_written(seq);
    }

    fn not_written(&self) {
        self.mark_unwritten();
    }

    fn first_seq(&self, conversation: &str) -> u64 {
        let (shard, hash) = self.shard(conversation);
        shard.get(conversation, hash).map_or(0, |open| open.first_seq)
    }
}
