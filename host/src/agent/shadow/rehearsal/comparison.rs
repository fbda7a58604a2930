//! The comparison of a candidate's answers in a rehearsal with those of the running revision.
//!
//! ```text
//! the answers of both are equal, each on its copy of the present state                --> alike
//!   different, but the running revision differs from itself in the same paths         --> ignored by nature
//!   different, but equal to the answer given originally, and again in a second round  --> alike
//!   different                                                                         --> otherwise
//!   the running revision fails, or there is no time                                   --> not compared
//! ```
//! An answer that equals the original one proves little by itself. A revision that cannot read the present state starts
//! with an empty one, and the rehearsed messages, which once built the state, build it again: every answer equals the
//! original, although the revision has lost all data. In a second round such a revision answers differently, because
//! its state then has these messages, while a revision whose answers do not depend on the state answers the same.
//!
//! Only answers are compared, not writes and sends: a revision that stores its state in a new format, which is when a
//! rehearsal matters most, writes differently on purpose.

use std::time::Duration;

use caxton_control::rollout::comparison::{Answer, AnswerDifference, IgnoredPaths, compare};
use tokio::time::Instant;

use super::super::difference::{MAX_LEARNED, learn, shortened, shown};
use super::super::handler_answer::answer_size;
use super::runner::{RunOutcome, Runner};
use super::stored_answer::equals_stored;
use crate::api_types::DifferingMessage;
use crate::clock;
use crate::store::RecentMessage;

/// The most bytes of answers whose comparison is not finished: they are in memory. Further answers are not compared.
const MAX_BYTES: usize = 64 << 20;
/// The most further runs of the running revision to find differences by nature. Two, so that the second can be late
/// enough for [`CLOCK_TICK`].
const CONTROLS: u32 = 2;
/// The least time between the first comparison and the last of these runs: a time in whole seconds differs by then.
const CLOCK_TICK: Duration = Duration::from_millis(1_100);
/// The most messages with differences that are listed, and the most differences of each.
const MAX_DIFFERING: usize = 100;
const MAX_PATHS: usize = 20;

/// The result of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AnswerComparison {
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
    pub(super) result: AnswerComparison,
    ignore: IgnoredPaths,
    /// The answers that differ at first, in the order of their messages.
    mismatches: Vec<Mismatch>,
    bytes: usize,
    /// The time of the first comparison.
    first_at: Option<Instant>,
}

/// An answer that differs from the running revision's, until the reason is known.
struct Mismatch {
    /// The index of its message.
    index: usize,
    candidate: Answer,
    /// The running revision's answer; `None` if there is none to compare with.
    stable: Option<Answer>,
    /// Set once the running revision has answered the message again, on another copy.
    is_controlled: bool,
    /// Set if the candidate's answer is the original one, regardless of the state.
    is_as_given: bool,
}

impl Mismatch {
    /// Returns the differences that are not by nature; `None` without an answer of the running revision.
    fn differences(&self, ignore: &IgnoredPaths) -> Option<Vec<AnswerDifference>> {
        self.stable.as_ref().map(|stable| compare(stable, &self.candidate, ignore))
    }

    fn is_settled(&self, ignore: &IgnoredPaths) -> bool {
        self.is_as_given || self.differences(ignore).is_some_and(|found| found.is_empty())
    }
}

impl Comparison {
    /// Creates a comparison that ignores these paths.
    pub(super) fn new(ignore: IgnoredPaths) -> Self {
        Self { result: AnswerComparison::default(), ignore, mismatches: Vec::new(), bytes: 0, first_at: None }
    }

    /// Adds the answers to one message; `None` if the running revision has none.
    pub(super) fn add(&mut self, index: usize, candidate: Answer, stable: Option<Answer>) {
        // The first comparison sets the start, because the clock's tick counts from the oldest answer.
        self.first_at.get_or_insert_with(Instant::now);
        let mismatch = Mismatch { index, candidate, stable, is_controlled: false, is_as_given: false };
        if mismatch.is_settled(&self.ignore) {
            // Most answers end here and take no memory.
            self.result.alike += 1;
            return;
        }
        let bytes = answer_size(&mismatch.candidate) + mismatch.stable.as_ref().map_or(0, answer_size);
        if self.bytes + bytes > MAX_BYTES {
            self.result.not_compared += 1;
            return;
        }
        self.bytes += bytes;
        self.mismatches.push(mismatch);
    }

    /// Finds the paths that differ by nature with further runs of the running revision. `control` creates one on a
    /// fresh copy.
    pub(super) async fn learn(
        &mut self,
        messages: &[RecentMessage],
        control: impl Fn() -> Option<Runner>,
        until: Instant,
    ) {
        for round in 1..=CONTROLS {
            if !self.mismatches.iter().any(|mismatch| mismatch.stable.is_some() && !mismatch.is_settled(&self.ignore)) {
                return;
            }
            // Only the last round waits: one tick of the clock suffices.
            if let (CONTROLS, Some(first_at)) = (round, self.first_at) {
                tokio::time::sleep_until((first_at + CLOCK_TICK).min(until)).await;
            }
            // A fresh copy: the earlier runs have changed theirs.
            let Some(mut control) = control() else { return };
            for mismatch in &mut self.mismatches {
                let Some(stable) = mismatch.stable.as_ref().filter(|_| !mismatch.is_settled(&self.ignore)) else {
                    continue;
                };
                match control.run_to_end(&messages[..=mismatch.index], Some(until)).await {
                    Some(RunOutcome::Answered(again)) => {
                        mismatch.is_controlled = true;
                        // Bounded: answers with random keys would add paths for ever.
                        if self.result.by_nature.len() < MAX_LEARNED {
                            let differences = compare(stable, &again, &self.ignore);
                            let new = learn(&mut self.ignore, &differences);
                            self.result.by_nature.extend(new.iter().map(|path| shortened(path)));
                        }
                    }
                    // The running revision failed by chance, now or in its first run: its answer is no reference.
                    Some(RunOutcome::Failed(_) | RunOutcome::HostFailed) => mismatch.stable = None,
                    Some(RunOutcome::Exhausted) | None => return,
                }
            }
        }
    }

    /// Runs the candidate through the messages a second time, up to the last one whose answer equals the original.
    pub(super) async fn repeat(&mut self, messages: &[RecentMessage], candidate: &mut Runner, until: Instant) {
        // On the same copy: its state has all messages by now, as the real one has.
        candidate.restart();
        for mismatch in &mut self.mismatches {
            let given = messages[mismatch.index].answer.as_deref();
            let is_as_given =
                given.and_then(|given| equals_stored(given, &mismatch.candidate, &self.ignore)) == Some(true);
            if !is_as_given || mismatch.is_settled(&self.ignore) {
                continue;
            }
            match candidate.run_to_end(&messages[..=mismatch.index], Some(until)).await {
                Some(RunOutcome::Answered(again)) => {
                    mismatch.is_as_given = compare(&mismatch.candidate, &again, &self.ignore).is_empty();
                }
                Some(RunOutcome::Failed(_) | RunOutcome::HostFailed) => {}
                // Later messages need the state that this run cannot reach.
                Some(RunOutcome::Exhausted) | None => return,
            }
        }
    }

    /// Counts the mismatches, and returns the result.
    pub(super) fn conclude(self, messages: &[RecentMessage]) -> AnswerComparison {
        let Self { mut result, ignore, mismatches, .. } = self;
        for mismatch in mismatches {
            match mismatch.differences(&ignore) {
                // First: such an answer counts as alike although it differs from the running revision's.
                _ if mismatch.is_as_given => result.alike += 1,
                Some(found) if found.is_empty() => result.alike += 1,
                // Without a control run, a difference may be by nature.
                Some(found) if mismatch.is_controlled => {
                    result.otherwise += 1;
                    if result.differing.len() < MAX_DIFFERING {
                        result.differing.push(differing(&messages[mismatch.index], found));
                    }
                }
                Some(_) | None => result.not_compared += 1,
            }
        }
        result
    }
}

fn differing(message: &RecentMessage, found: Vec<AnswerDifference>) -> DifferingMessage {
    let message = &message.envelope.message;
    DifferingMessage {
        message: message.id.clone(),
        sender: message.sender.clone(),
        conversation: message.conversation_id.clone(),
        at: clock::now_ms(),
        differences: found.into_iter().take(MAX_PATHS).map(shown).collect(),
    }
}
