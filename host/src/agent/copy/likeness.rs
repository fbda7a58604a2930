//! The comparison of a candidate's answers in a rehearsal with those of the running revision.
//!
//! ```text
//! candidate's answer == running revision's, each on a copy of the state as it is      --> alike
//!   differs: the running revision handles them once more; it differs from itself      --> by nature, left out
//!   differs: == the answer that was given then, and again in a second round           --> alike, whatever the state is
//!   differs otherwise                                                                 --> otherwise
//!   the running revision fails at it, or there is no time                             --> not compared
//! ```
//! That an answer is the one that was given then says little by itself. A revision that finds nothing in the state, since
//! it cannot read it, builds it up anew from the very messages that built it up then, and answers each of them as it was
//! answered then: it has forgotten everything. In a second round such a revision answers otherwise, since by then the
//! messages are in its state, while one whose answers do not depend on the state answers the same.
//!
//! Only answers are compared, not what is written and sent. A revision that keeps its state in another shape, which is
//! what a rehearsal is most needed for, writes otherwise by intention.

use std::time::Duration;

use caxton_control::rollout::compare::{Answer, Difference, Ignore, compare};
use tokio::time::Instant;

use super::answer::size;
use super::given::is_like;
use super::shadow::{cut, path_differs};
use super::side::{Side, Took};
use crate::api_types::DifferingMessage;
use crate::clock;
use crate::store::RecentMessage;

/// The most bytes of answers that wait to be judged: they are in memory. Further answers are not compared.
const MAX_BYTES: usize = 64 << 20;
/// The most further runs of the running revision, by which differences by nature are learned.
const CONTROLS: u32 = 2;
/// The time between the first comparison and the last of these runs: a time in whole seconds differs by then.
const APART: Duration = Duration::from_millis(1_100);
/// The most paths that are learned: answers with random names would add one with every message.
const LEARNED: usize = 1_000;
/// The most messages with differences that are listed, and the most differences of each.
const MAX_DIFFERING: usize = 100;
const MAX_PLACES: usize = 20;

/// The result of the comparison of a rehearsal's answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Likeness {
    /// Messages that were answered alike.
    pub(crate) alike: u32,
    /// Messages that were answered otherwise.
    pub(crate) otherwise: u32,
    /// Messages whose answers were not compared.
    pub(crate) not_compared: u32,
    /// The first messages that were answered otherwise.
    pub(crate) differing: Vec<DifferingMessage>,
    /// The paths at which the running revision differs from itself.
    pub(crate) by_nature: Vec<String>,
}

/// A comparison in progress.
pub(super) struct Comparison {
    pub(super) likeness: Likeness,
    ignore: Ignore,
    /// The answers that differ at first, in the order of their messages.
    open: Vec<Open>,
    bytes: usize,
    /// The time of the first comparison.
    began: Option<Instant>,
}

/// An answer that is not like the running revision's, until the reason is known.
struct Open {
    /// The index of its message.
    at: usize,
    candidate: Answer,
    /// The running revision's answer; none if it gives none.
    stable: Option<Answer>,
    /// Set once the running revision has answered it again, on another copy.
    controlled: bool,
    /// Set if the candidate's answer is the one that was given, regardless of the state.
    as_given: bool,
}

impl Open {
    /// Returns the differences that are not by nature; none without an answer of the running revision.
    fn differences(&self, ignore: &Ignore) -> Option<Vec<Difference>> {
        self.stable.as_ref().map(|stable| compare(stable, &self.candidate, ignore))
    }

    fn is_settled(&self, ignore: &Ignore) -> bool {
        self.as_given || self.differences(ignore).is_some_and(|found| found.is_empty())
    }
}

impl Comparison {
    /// Begins a comparison that ignores these paths.
    pub(super) fn new(ignore: Ignore) -> Self {
        Self { likeness: Likeness::default(), ignore, open: Vec::new(), bytes: 0, began: None }
    }

    /// Adds two answers to one message; the running revision's is none if it gives none.
    pub(super) fn take(&mut self, at: usize, candidate: Answer, stable: Option<Answer>) {
        self.began.get_or_insert_with(Instant::now);
        let open = Open { at, candidate, stable, controlled: false, as_given: false };
        if open.is_settled(&self.ignore) {
            self.likeness.alike += 1;
            return;
        }
        let bytes = size(&open.candidate) + open.stable.as_ref().map_or(0, size);
        if self.bytes + bytes > MAX_BYTES {
            self.likeness.not_compared += 1;
            return;
        }
        self.bytes += bytes;
        self.open.push(open);
    }

    /// Learns which paths differ by nature, with further runs of the running revision: `control` starts one on a fresh copy.
    pub(super) async fn learn(
        &mut self,
        messages: &[RecentMessage],
        control: impl Fn() -> Option<Side>,
        until: Instant,
    ) {
        for round in 1..=CONTROLS {
            if !self.open.iter().any(|open| open.stable.is_some() && !open.is_settled(&self.ignore)) {
                return;
            }
            if let (CONTROLS, Some(began)) = (round, self.began) {
                tokio::time::sleep_until((began + APART).min(until)).await;
            }
            let Some(mut control) = control() else { return };
            for open in &mut self.open {
                let Some(stable) = open.stable.as_ref().filter(|_| !open.is_settled(&self.ignore)) else { continue };
                match control.reach(&messages[..=open.at], Some(until)).await {
                    Some(Took::Well(again)) => {
                        open.controlled = true;
                        if self.likeness.by_nature.len() < LEARNED {
                            let before = self.ignore.paths().len();
                            self.ignore.learn(&compare(stable, &again, &self.ignore));
                            let news = self.ignore.paths().split_off(before);
                            self.likeness.by_nature.extend(news.iter().map(|path| cut(path)));
                        }
                    }
                    // It failed by chance, now or in its first run: its answer is no reference.
                    Some(Took::Failed(_) | Took::Unknown) => open.stable = None,
                    Some(Took::Full) | None => return,
                }
            }
        }
    }

    /// Runs the candidate a second time over the messages, as far as some of its answers are those that were given.
    pub(super) async fn repeat(&mut self, messages: &[RecentMessage], candidate: &mut Side, until: Instant) {
        candidate.begin_again();
        for open in &mut self.open {
            let given = messages[open.at].answer.as_deref();
            let like = given.and_then(|given| is_like(given, &open.candidate, &self.ignore)) == Some(true);
            if !like || open.is_settled(&self.ignore) {
                continue;
            }
            match candidate.reach(&messages[..=open.at], Some(until)).await {
                Some(Took::Well(again)) => {
                    open.as_given = compare(&open.candidate, &again, &self.ignore).is_empty();
                }
                Some(Took::Failed(_) | Took::Unknown) => {}
                Some(Took::Full) | None => return,
            }
        }
    }

    /// Counts the answers that differ, and returns the result.
    pub(super) fn conclude(self, messages: &[RecentMessage]) -> Likeness {
        let Self { mut likeness, ignore, open, .. } = self;
        for open in open {
            match open.differences(&ignore) {
                _ if open.as_given => likeness.alike += 1,
                Some(found) if found.is_empty() => likeness.alike += 1,
                Some(found) if open.controlled => {
                    likeness.otherwise += 1;
                    if likeness.differing.len() < MAX_DIFFERING {
                        likeness.differing.push(differing(&messages[open.at], found));
                    }
                }
                Some(_) | None => likeness.not_compared += 1,
            }
        }
        likeness
    }
}

fn differing(message: &RecentMessage, found: Vec<Difference>) -> DifferingMessage {
    let message = &message.envelope.message;
    DifferingMessage {
        message: message.id.clone(),
        sender: message.sender.clone(),
        conversation: message.conversation_id.clone(),
        at: clock::now_ms(),
        differences: found.into_iter().take(MAX_PLACES).map(path_differs).collect(),
    }
}
