//! The check of a message against its conversation, and its record.

use super::record::{Conversation, MAX_UNANSWERED, Unanswered};
use super::speech_act::Said;
use crate::protocol::{Illegal, Protocol, Run, Why};

/// The most protocol runs that one conversation may have in progress at once.
pub const MAX_RUNS: usize = 16;

/// The changes that a message made to its conversation, as needed to take them back.
#[derive(Debug, Default)]
pub struct Change {
    /// Set if anything changed but the message count and the time, so that the record has to be stored now.
    pub is_more: bool,
    /// Set if the sender joined the conversation.
    new_sender: bool,
    /// Set if the receiver joined it.
    new_receiver: bool,
    /// The protocol and its runs before the message.
    steps: Option<(Option<String>, Vec<Run>)>,
    /// The question that it answered, with its former index.
    answered: Option<(usize, Unanswered)>,
    /// Set if the message was added as a question.
    asked: bool,
    /// The question that was dropped to make room.
    forgotten: Option<Unanswered>,
}

/// The reason why a message is refused by its conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The protocol does not allow it.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// The bound of participants: the message would add one beyond it.
    #[error("the conversation would have more than {bound} participants")]
    TooMany {
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
    pub fn judge(&mut self, said: &Said<'_>, participants_bound: usize) -> Result<bool, Refused> {
        self.judge_noting(said, participants_bound).map(|change| change.is_more)
    }

    /// Does the same as [`judge`](Self::judge), and returns what [`take_back`](Self::take_back) needs if the message is
    /// not sent after all.
    ///
    /// # Errors
    /// As for [`judge`](Self::judge).
    pub fn judge_noting(&mut self, said: &Said<'_>, participants_bound: usize) -> Result<Change, Refused> {
        let new_sender = !self.participants.contains(said.from);
        let new_receiver = said.to != said.from && !self.participants.contains(said.to);
        let joining = usize::from(new_sender) + usize::from(new_receiver);
        if joining > 0 && self.participants.len() + joining > participants_bound {
            return Err(Refused::TooMany { bound: participants_bound });
        }
        // Only a message that names a protocol can change these; copying them for every message would cost.
        let steps = said.protocol.map(|_| (self.protocol.clone(), self.runs.clone()));
        self.hold(said.to, said.at);
        // The last check that may refuse: everything after it changes the record.
        let followed = self.follow(said)?;
        let mut change =
            Change { is_more: followed || joining > 0, new_sender, new_receiver, steps, ..Change::default() };
        if new_sender {
            self.participants.insert(said.from);
        }
        if new_receiver {
            self.participants.insert(said.to);
        }
        change.answered = self.count(said);
        change.is_more |= change.answered.is_some();
        if said.is_question() {
            (change.is_more, change.asked) = (true, true);
            if self.unanswered.len() >= MAX_UNANSWERED {
                // A closed question is dropped first, since no `failure` is due for it.
                let at = self.unanswered.iter().position(|left| left.closed).unwrap_or(0);
                change.forgotten = self.unanswered.remove(at);
            }
            let key = said.reply_with.unwrap_or(said.id).to_owned();
            let (from, to) = (said.from.to_owned(), said.to.to_owned());
            self.unanswered.push_back(Unanswered { key, from, to, is_call: said.is_call, closed: false });
        }
        Ok(change)
    }

    /// Takes back a message that was recorded and is not sent after all. Several are taken back last one first, as each
    /// undo refers to the record as the message left it. The time of the last message stays.
    pub fn take_back(&mut self, said: &Said<'_>, change: Change) -> Change {
        let Change { is_more: _, new_sender, new_receiver, steps, answered, asked, forgotten } = change;
        self.messages = self.messages.saturating_sub(1);
        if asked {
            let key = said.reply_with.unwrap_or(said.id);
            let own = |left: &Unanswered| left.key == key && left.from == said.from && left.to == said.to;
            // From the back: an equal question may have been asked before.
            if let Some(at) = self.unanswered.iter().rposition(own) {
                self.unanswered.remove(at);
            }
        }
        if let Some(forgotten) = forgotten {
            self.unanswered.push_front(forgotten);
        }
        if let Some((at, answered)) = answered {
            self.unanswered.insert(at.min(self.unanswered.len()), answered);
        }
        if new_sender {
            self.participants.remove(said.from);
        }
        if new_receiver {
            self.participants.remove(said.to);
        }
        if let Some((protocol, runs)) = steps {
            (self.protocol, self.runs) = (protocol, runs);
        }
        Change { is_more: true, ..Change::default() }
    }

    /// Records a `failure` that the host sends in an agent's name because the agent's message finally failed (SPEC §7).
    /// It is not checked: whatever the protocol expects of that agent, its part is over.
    pub fn told_failure(&mut self, said: &Said<'_>) -> Change {
        self.hold(said.to, said.at);
        let steps = Some((self.protocol.clone(), self.runs.clone()));
        // In every run: the failed message may have belonged to any of them.
        for run in &mut self.runs {
            run.give_up(said.from, said.to);
        }
        Change { is_more: true, steps, answered: self.count(said), ..Change::default() }
    }

    /// Records the `not-understood` that the host returns for a refused message. It answers nothing, since the refused
    /// message is not part of the record.
    pub fn told_refusal(&mut self, said: &Said<'_>) -> Change {
        Change { answered: self.count(&Said { in_reply_to: None, ..*said }), ..Change::default() }
    }

    /// Checks the message against the protocol that it names. Changes nothing if it refuses. Returns `true` if the
    /// record changed.
    fn follow(&mut self, said: &Said<'_>) -> Result<bool, Illegal> {
        let Some(named) = said.protocol else { return Ok(false) };
        let renamed = self.protocol.as_deref() != Some(named);
        if let Some(protocol) = Protocol::named(named) {
            self.step(protocol, said)?;
        }
        if renamed {
            self.protocol = Some(named.to_owned());
        }
        Ok(renamed || Protocol::named(named).is_some())
    }

    /// Takes a step in the innermost run in which it is legal, or begins a run.
    fn step(&mut self, protocol: Protocol, said: &Said<'_>) -> Result<(), Illegal> {
        let mut illegal = None;
        for run in self.runs.iter_mut().rev().filter(|run| run.protocol() == protocol && !run.is_over()) {
            match run.step(said.from, said.to, said.act) {
                Ok(()) => return Ok(()),
                // The initiator of a run continues it: its illegal step must not begin a second run beside it.
                Err(error) if run.initiator() == Some(said.from) => return Err(error),
                Err(error) => illegal = illegal.or(Some(error)),
            }
        }
        let mut run = Run::new(protocol);
        match run.step(said.from, said.to, said.act) {
            Ok(()) => {}
            // The error of an existing run explains more than that of a run which the message could not begin.
            Err(error) => return Err(illegal.unwrap_or(error)),
        }
        if self.runs.iter().filter(|run| !run.is_over()).count() >= MAX_RUNS {
            let (act, from, to) = (said.act, said.from.to_owned(), said.to.to_owned());
            return Err(Illegal { protocol, act, from, to, why: Why::TooManyRuns { bound: MAX_RUNS } });
        }
        self.runs.retain(|run| !run.is_over());
        self.runs.push(run);
        Ok(())
    }

    /// Counts a message and settles the question that it answers. Returns that question with its former index.
    fn count(&mut self, said: &Said<'_>) -> Option<(usize, Unanswered)> {
        self.messages = self.messages.saturating_add(1);
        // A clock that was set back must not shorten the conversation's life.
        self.last = self.last.max(said.at);
        let Some(key) = said.in_reply_to else {
            // A client outside cannot set `in-reply-to`: its next message answers the oldest question to outside.
            let to_outside = |waiting: &Unanswered| waiting.from == said.to && waiting.to.contains(':');
            let at = self.unanswered.iter().position(to_outside).filter(|_| said.from.contains(':'))?;
            return Some((at, self.unanswered.remove(at)?));
        };
        // Several receivers may have been asked with one key: an answer settles the question to its sender. An answer
        // from another sender counts too, since an agent may delegate its answer.
        let asked = |waiting: &Unanswered| waiting.key == key && waiting.from == said.to;
        let answered = self.unanswered.iter().position(|waiting| asked(waiting) && waiting.to == said.from);
        let at = answered.or_else(|| self.unanswered.iter().position(asked))?;
        Some((at, self.unanswered.remove(at)?))
    }
}
