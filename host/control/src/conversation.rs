//! The record of a conversation: who takes part, where its protocol is, and what is still to be answered (SPEC §7).

mod participants;
mod stays;

use std::collections::VecDeque;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::Performative;
use crate::protocol::{Illegal, Protocol, Run, Why};

pub use participants::Participants;
pub use stays::Stay;

/// The most unanswered messages that a conversation remembers. More open questions than this and the oldest is
/// not told `failure` when the conversation expires.
pub const MAX_UNANSWERED: usize = 64;

/// The most runs of protocols that one conversation may have under way at once.
pub const MAX_RUNS: usize = 16;

/// What the host knows of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// The conversation's id.
    pub name: String,
    /// Who sent its first message.
    pub initiator: CompactString,
    /// Everyone who sent a message or was sent one. The names of senders from outside have a `:`.
    pub participants: Participants,
    /// The protocol that its messages named last, checked or not.
    pub protocol: Option<String>,
    /// Where its protocols are, those that are checked. An agent that is asked something may ask others in the same
    /// conversation, so that one run is within another.
    pub runs: Vec<Run>,
    /// When the first message was said, in milliseconds since 1970.
    pub first: u64,
    /// The latest time at which a message was said, in milliseconds since 1970.
    pub last: u64,
    /// How many messages were said.
    pub messages: u64,
    /// What waits for an answer, the oldest first; at most [`MAX_UNANSWERED`].
    pub unanswered: VecDeque<Unanswered>,
    /// The revisions of agents that go on with it, as far as they are not free to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stays: Vec<Stay>,
}

/// A message that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// What the answer's `in-reply-to` will be: the message's `reply-with`, or else its id.
    pub key: String,
    /// Who asked, and is told `failure` when the conversation expires.
    pub from: String,
    /// Who was asked.
    pub to: String,
    /// Whether it was a call, whose sender waits no longer than the host runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_call: bool,
    /// Set if its receiver handled it and gave no answer, so that nobody waits for one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

/// What a message changed in its conversation beside the count.
#[derive(Debug, Default)]
pub struct Change {
    /// Whether anything changed but the count and the time.
    pub is_more: bool,
    new_sender: bool,
    new_receiver: bool,
    /// The protocol and its runs as they were.
    steps: Option<(Option<String>, Vec<Run>)>,
    /// What it answered, and where that was.
    answered: Option<(usize, Unanswered)>,
    /// Whether it waits for an answer.
    asked: bool,
    /// The question that had to go for it.
    forgotten: Option<Unanswered>,
}

/// What matters of a message to the conversation that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    /// Its sender.
    pub from: &'a str,
    /// Its receiver, as it will name itself when it answers.
    pub to: &'a str,
    /// What it means to do.
    pub act: Performative,
    /// The protocol that it names. A message that names none is not checked.
    pub protocol: Option<&'a str>,
    /// Its id.
    pub id: &'a str,
    /// What its answer is to name instead of the id.
    pub reply_with: Option<&'a str>,
    /// The key of the message that it answers.
    pub in_reply_to: Option<&'a str>,
    /// When it was said, in milliseconds since 1970.
    pub at: u64,
    /// Whether it is a call, whose sender waits no longer than the host runs.
    pub is_call: bool,
}

impl Said<'_> {
    /// Returns true if its sender is owed an answer. What an agent sends to itself is no question.
    pub fn is_question(&self) -> bool {
        awaits_answer(self.act) && self.from != self.to
    }

    /// Returns true if an answer may still come after its receiver handled it without one, and said `sends` in doing so: the
    /// protocol that it names wants one, or the receiver asked another agent, or sent something to itself for later.
    pub fn may_be_answered_later<'a>(&self, sends: impl IntoIterator<Item = Said<'a>>) -> bool {
        let goes_on = |sent: Said<'_>| sent.from == self.to && (sent.to == self.to || sent.is_question());
        self.protocol.is_some_and(|name| Protocol::named(name).is_some()) || sends.into_iter().any(goes_on)
    }
}

/// Why a message is not taken into its conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its protocol does not allow it.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// It brings in a participant beyond the bound.
    #[error("the conversation would have more than {bound} participants")]
    TooMany {
        /// The bound.
        bound: usize,
    },
}

impl Conversation {
    /// A conversation in which nothing was said; `initiator` sends the first message.
    pub fn new(name: &str, initiator: &str, at: u64) -> Self {
        Self {
            name: name.to_owned(),
            initiator: CompactString::new(initiator),
            participants: Participants::default(),
            protocol: None,
            runs: Vec::new(),
            first: at,
            last: at,
            messages: 0,
            unanswered: VecDeque::new(),
            stays: Vec::new(),
        }
    }

    /// Takes a message in. An answer, be it `agree`, settles what it answers. Says whether anything changed but the
    /// count and the time.
    ///
    /// The bound does not apply to those who take part already. A message between participants that asks nothing and
    /// names no protocol allocates nothing.
    ///
    /// # Errors
    /// The message is refused; the conversation stays as it was.
    pub fn judge(&mut self, said: &Said<'_>, participants_bound: usize) -> Result<bool, Refused> {
        self.judge_noting(said, participants_bound).map(|change| change.is_more)
    }

    /// The same, and says what to [take back](Self::take_back) if the message is not sent after all.
    ///
    /// # Errors
    /// The message is refused; the conversation stays as it was.
    pub fn judge_noting(&mut self, said: &Said<'_>, participants_bound: usize) -> Result<Change, Refused> {
        let new_sender = !self.participants.contains(said.from);
        let new_receiver = said.to != said.from && !self.participants.contains(said.to);
        let joining = usize::from(new_sender) + usize::from(new_receiver);
        if joining > 0 && self.participants.len() + joining > participants_bound {
            return Err(Refused::TooMany { bound: participants_bound });
        }
        let steps = said.protocol.map(|_| (self.protocol.clone(), self.runs.clone()));
        self.hold(said.to, said.at);
        // The last that may refuse: from here on the message is in.
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
                // One that nobody waits for goes first.
                let at = self.unanswered.iter().position(|left| left.closed).unwrap_or(0);
                change.forgotten = self.unanswered.remove(at);
            }
            let key = said.reply_with.unwrap_or(said.id).to_owned();
            let (from, to) = (said.from.to_owned(), said.to.to_owned());
            self.unanswered.push_back(Unanswered { key, from, to, is_call: said.is_call, closed: false });
        }
        Ok(change)
    }

    /// Takes back a message that was taken in and is not sent after all, the last one first. Its time stays.
    pub fn take_back(&mut self, said: &Said<'_>, change: Change) -> Change {
        let Change { is_more: _, new_sender, new_receiver, steps, answered, asked, forgotten } = change;
        self.messages = self.messages.saturating_sub(1);
        if asked {
            let key = said.reply_with.unwrap_or(said.id);
            let own = |left: &Unanswered| left.key == key && left.from == said.from && left.to == said.to;
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

    /// Takes in a `failure` that the host tells in an agent's name because the agent's message finally failed
    /// (SPEC §7). It is not judged: whatever the protocol expects of that agent, its part is over.
    pub fn told_failure(&mut self, said: &Said<'_>) -> Change {
        self.hold(said.to, said.at);
        let steps = Some((self.protocol.clone(), self.runs.clone()));
        for run in &mut self.runs {
            run.give_up(said.from, said.to);
        }
        Change { is_more: true, steps, answered: self.count(said), ..Change::default() }
    }

    /// Takes in the `not-understood` that a message brings back which was refused. It answers nothing that was said.
    pub fn told_refusal(&mut self, said: &Said<'_>) -> Change {
        Change { answered: self.count(&Said { in_reply_to: None, ..*said }), ..Change::default() }
    }

    /// Closes a question that its receiver handled without an answer: its sender is told no `failure` when the
    /// conversation ends. An answer that comes all the same still answers it. Returns false if it was not open.
    pub fn close(&mut self, key: &str, from: &str, to: &str) -> bool {
        let own = |left: &&mut Unanswered| left.key == key && left.from == from && left.to == to && !left.closed;
        self.unanswered.iter_mut().find(own).is_some_and(|left| {
            left.closed = true;
            true
        })
    }

    /// The host has ended meanwhile: nobody waits for the answers to calls any more, and their parts of protocols are
    /// over. Who asks again begins anew.
    pub fn lose_calls(&mut self) {
        let (lost, left) = std::mem::take(&mut self.unanswered).into_iter().partition(|left| left.is_call);
        self.unanswered = left;
        let lost: VecDeque<Unanswered> = lost;
        for Unanswered { from, to, .. } in &lost {
            self.runs.iter_mut().for_each(|run| run.give_up(to, from));
        }
    }

    /// When it expires if nothing more is said, in milliseconds since 1970.
    pub fn expires_at(&self, timeout_ms: u64) -> u64 {
        self.last.saturating_add(timeout_ms)
    }

    /// Ends the conversation. Who is to be told `failure` (SPEC §7), the longest unanswered first.
    pub fn expire(self) -> Vec<Unanswered> {
        self.unanswered.into_iter().filter(|left| !left.closed).collect()
    }

    /// Holds the message to the protocol that it names; changes nothing if it refuses. Says whether it did anything.
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

    /// Takes a step in the innermost run where it is legal, or begins one.
    fn step(&mut self, protocol: Protocol, said: &Said<'_>) -> Result<(), Illegal> {
        let mut illegal = None;
        for run in self.runs.iter_mut().rev().filter(|run| run.protocol() == protocol && !run.is_over()) {
            match run.step(said.from, said.to, said.act) {
                Ok(()) => return Ok(()),
                // Who began a run goes on with it, and does not begin another beside it.
                Err(error) if run.initiator() == Some(said.from) => return Err(error),
                Err(error) => illegal = illegal.or(Some(error)),
            }
        }
        let mut run = Run::new(protocol);
        match run.step(said.from, said.to, said.act) {
            Ok(()) => {}
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

    /// Counts a message, and lets it answer. Gives what it answered, and where that was.
    fn count(&mut self, said: &Said<'_>) -> Option<(usize, Unanswered)> {
        self.messages = self.messages.saturating_add(1);
        // A clock that was set back does not make the conversation shorter than nothing.
        self.last = self.last.max(said.at);
        let Some(key) = said.in_reply_to else {
            // Who asks from outside cannot name what it answers.
            let to_outside = |waiting: &Unanswered| waiting.from == said.to && waiting.to.contains(':');
            let at = self.unanswered.iter().position(to_outside).filter(|_| said.from.contains(':'))?;
            return Some((at, self.unanswered.remove(at)?));
        };
        // Several may have been asked with one key: it is the answer of the one that gives it. Another's counts
        // if it answers in that one's place.
        let asked = |waiting: &Unanswered| waiting.key == key && waiting.from == said.to;
        let answered = self.unanswered.iter().position(|waiting| asked(waiting) && waiting.to == said.from);
        let at = answered.or_else(|| self.unanswered.iter().position(asked))?;
        Some((at, self.unanswered.remove(at)?))
    }
}

/// Whether its sender is owed an answer, or the `failure` that stands for one.
pub fn awaits_answer(act: Performative) -> bool {
    use Performative::*;
    match act {
        Request | RequestWhen | RequestWhenever | QueryIf | QueryRef | Cfp | AcceptProposal | Subscribe | Propose => {
            true
        }
        Agree | Cancel | Confirm | Disconfirm | Failure | Inform | InformIf | InformRef | NotUnderstood | Propagate
        | Proxy | Refuse | RejectProposal => false,
    }
}
