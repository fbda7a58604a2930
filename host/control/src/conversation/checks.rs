//! The check of a message against its conversation, and its record.

use super::record::{Conversation, MAX_UNANSWERED, Unanswered};
use super::speech_act::SpeechAct;
use crate::protocol::{IllegalAct, IllegalReason, Protocol, ProtocolRun};

/// The most protocol runs that one conversation may have in progress at once.
pub const MAX_RUNS: usize = 16;

/// The changes that a message made to its conversation, as needed to take them back.
#[derive(Debug, Default)]
pub struct ConversationChange {
    /// Set if anything changed but the message count and the time, so that the record has to be stored now.
    pub is_more: bool,
    /// Set if the sender joined the conversation.
    new_sender: bool,
    /// Set if the receiver joined it.
    new_receiver: bool,
    /// The protocol and its runs before the message.
    steps: Option<(Option<String>, Vec<ProtocolRun>)>,
    /// The question that it answered, with its former index.
    answered: Option<(usize, Unanswered)>,
    /// Set if the message was added as a question.
    adds_question: bool,
    /// The question that was dropped to make room.
    forgotten: Option<Unanswered>,
}

/// The reason why a message is refused by its conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversationError {
    /// The protocol does not allow it.
    #[error(transparent)]
    Illegal(#[from] IllegalAct),
    /// The bound of participants: the message would add one beyond it.
    #[error("the conversation would have more than {bound} participants")]
    TooManyParticipants {
        /// The largest number of participants.
        bound: usize,
    },
}

impl Conversation {
    /// Records a message. An answer, even an `agree`, settles the message that it answers. Returns `true` if anything
    /// changed but the message count and the time.
    ///
    /// The bound does not apply to present participants. A message between participants that asks nothing and names no
    /// protocol allocates nothing.
    ///
    /// # Errors
    /// The message is refused and not recorded.
    pub fn record(&mut self, speech: &SpeechAct<'_>, participants_bound: usize) -> Result<bool, ConversationError> {
        self.record_reversibly(speech, participants_bound).map(|change| change.is_more)
    }

    /// Does the same as [`record`](Self::record), and returns what [`take_back`](Self::take_back) needs if the message
    /// is not sent after all.
    ///
    /// # Errors
    /// As for [`record`](Self::record).
    pub fn record_reversibly(
        &mut self,
        speech: &SpeechAct<'_>,
        participants_bound: usize,
    ) -> Result<ConversationChange, ConversationError> {
        let new_sender = !self.participants.contains(speech.from);
        let new_receiver = speech.to != speech.from && !self.participants.contains(speech.to);
        let joining = usize::from(new_sender) + usize::from(new_receiver);
        // Present participants may go on even if the bound was lowered meanwhile.
        if joining > 0 && self.participants.len() + joining > participants_bound {
            return Err(ConversationError::TooManyParticipants { bound: participants_bound });
        }
        // Only a message that names a protocol can change these; copying them for every message would cost.
        let steps = speech.protocol.map(|_| (self.protocol.clone(), self.runs.clone()));
        // Before the message is recorded: it must not count as an open exchange itself.
        self.extend_binding(speech.to, speech.at);
        // The last check that may refuse: everything after it changes the record.
        let followed = self.follow(speech)?;
        let mut change = ConversationChange {
            is_more: followed || joining > 0,
            new_sender,
            new_receiver,
            steps,
            ..ConversationChange::default()
        };
        if new_sender {
            self.participants.insert(speech.from);
        }
        if new_receiver {
            self.participants.insert(speech.to);
        }
        change.answered = self.count(speech);
        change.is_more |= change.answered.is_some();
        if speech.is_question() {
            (change.is_more, change.adds_question) = (true, true);
            if self.unanswered.len() >= MAX_UNANSWERED {
                // A closed question is dropped first, since no `failure` is due for it.
                let at = self.unanswered.iter().position(|left| left.closed).unwrap_or(0);
                change.forgotten = self.unanswered.remove(at);
            }
            let key = speech.reply_with.unwrap_or(speech.id).to_owned();
            let (from, to) = (speech.from.to_owned(), speech.to.to_owned());
            self.unanswered.push_back(Unanswered { key, from, to, is_call: speech.is_call, closed: false });
        }
        Ok(change)
    }

    /// Takes back a message that was recorded and is not sent after all. Several are taken back last one first, as each
    /// undo refers to the record as the message left it. The time of the last message stays.
    pub fn take_back(&mut self, speech: &SpeechAct<'_>, change: ConversationChange) -> ConversationChange {
        let ConversationChange { is_more: _, new_sender, new_receiver, steps, answered, adds_question, forgotten } =
            change;
        self.messages = self.messages.saturating_sub(1);
        // Undone in reverse order, as each position was taken before the later changes.
        if adds_question {
            let key = speech.reply_with.unwrap_or(speech.id);
            let own = |left: &Unanswered| left.key == key && left.from == speech.from && left.to == speech.to;
            // From the back: an equal question may have been asked before.
            if let Some(at) = self.unanswered.iter().rposition(own) {
                self.unanswered.remove(at);
            }
        }
        if let Some(forgotten) = forgotten {
            self.unanswered.push_front(forgotten);
        }
        if let Some((at, answered)) = answered {
            // The list may have become shorter since.
            self.unanswered.insert(at.min(self.unanswered.len()), answered);
        }
        if new_sender {
            self.participants.remove(speech.from);
        }
        if new_receiver {
            self.participants.remove(speech.to);
        }
        if let Some((protocol, runs)) = steps {
            (self.protocol, self.runs) = (protocol, runs);
        }
        ConversationChange { is_more: true, ..ConversationChange::default() }
    }

    /// Records a `failure` that the host sends in an agent's name because the agent's message finally failed (SPEC §7).
    /// It is not checked: whatever the protocol expects of that agent, its part is over.
    pub fn record_failure(&mut self, speech: &SpeechAct<'_>) -> ConversationChange {
        self.extend_binding(speech.to, speech.at);
        let steps = Some((self.protocol.clone(), self.runs.clone()));
        // In every run: the failed message may have belonged to any of them.
        for run in &mut self.runs {
            run.give_up(speech.from, speech.to);
        }
        ConversationChange { is_more: true, steps, answered: self.count(speech), ..ConversationChange::default() }
    }

    /// Records the `not-understood` that the host returns for a refused message. It answers nothing, since the refused
    /// message is not part of the record.
    pub fn record_refusal(&mut self, speech: &SpeechAct<'_>) -> ConversationChange {
        ConversationChange {
            answered: self.count(&SpeechAct { in_reply_to: None, ..*speech }),
            ..ConversationChange::default()
        }
    }

    /// Checks the message against the protocol that it names. Changes nothing if it refuses. Returns `true` if the
    /// record changed.
    fn follow(&mut self, speech: &SpeechAct<'_>) -> Result<bool, IllegalAct> {
        let Some(named) = speech.protocol else { return Ok(false) };
        let renamed = self.protocol.as_deref() != Some(named);
        if let Some(protocol) = Protocol::named(named) {
            self.step(protocol, speech)?;
        }
        // After the step, which may refuse the message and has to leave the record unchanged then.
        if renamed {
            self.protocol = Some(named.to_owned());
        }
        Ok(renamed || Protocol::named(named).is_some())
    }

    /// Takes a step in the innermost run in which it is legal, or begins a run.
    fn step(&mut self, protocol: Protocol, speech: &SpeechAct<'_>) -> Result<(), IllegalAct> {
        let mut illegal = None;
        // The latest first: of nested runs the innermost is answered first.
        for run in self.runs.iter_mut().rev().filter(|run| run.protocol() == protocol && !run.is_over()) {
            match run.step(speech.from, speech.to, speech.act) {
                Ok(()) => return Ok(()),
                // The initiator of a run continues it: its illegal step must not begin a second run beside it.
                Err(error) if run.initiator() == Some(speech.from) => return Err(error),
                Err(error) => illegal = illegal.or(Some(error)),
            }
        }
        let mut run = ProtocolRun::new(protocol);
        match run.step(speech.from, speech.to, speech.act) {
            Ok(()) => {}
            // The error of an existing run explains more than that of a run which the message could not begin.
            Err(error) => return Err(illegal.unwrap_or(error)),
        }
        if self.runs.iter().filter(|run| !run.is_over()).count() >= MAX_RUNS {
            let (act, from, to) = (speech.act, speech.from.to_owned(), speech.to.to_owned());
            return Err(IllegalAct { protocol, act, from, to, why: IllegalReason::TooManyRuns { bound: MAX_RUNS } });
        }
        // An ended run is never continued, and would only make the record larger.
        self.runs.retain(|run| !run.is_over());
        self.runs.push(run);
        Ok(())
    }

    /// Counts a message and settles the question that it answers. Returns that question with its former index.
    fn count(&mut self, speech: &SpeechAct<'_>) -> Option<(usize, Unanswered)> {
        self.messages = self.messages.saturating_add(1);
        // A clock that was set back must not shorten the conversation's life.
        self.last = self.last.max(speech.at);
        let Some(key) = speech.in_reply_to else {
            // A client outside cannot set `in-reply-to`: its next message answers the oldest question to outside.
            let to_outside = |waiting: &Unanswered| waiting.from == speech.to && waiting.to.contains(':');
            let at = self.unanswered.iter().position(to_outside).filter(|_| speech.from.contains(':'))?;
            return Some((at, self.unanswered.remove(at)?));
        };
        // Several receivers may have been asked with one key: an answer settles the question to its sender. An answer
        // from another sender counts too, since an agent may delegate its answer.
        let asked = |waiting: &Unanswered| waiting.key == key && waiting.from == speech.to;
        let answered = self.unanswered.iter().position(|waiting| asked(waiting) && waiting.to == speech.from);
        let at = answered.or_else(|| self.unanswered.iter().position(asked))?;
        Some((at, self.unanswered.remove(at)?))
    }
}
