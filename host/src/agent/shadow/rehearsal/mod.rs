//! Rehearsals: a candidate handles the latest messages on a copy of the state, before it gets any.
//!
//! ```text
//! migration (if the state's format changes) -> runner: candidate, one message after the other
//!   fails    --> runner: does the running revision fail as well? then the message is set aside
//!   answers  --> runner: running revision, on a copy of its own --> comparison of the answers
//! ```

mod comparison;
mod migration;
mod overlay;
mod runner;
mod stored_answer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::rollout::comparison::{Answer, AnswerDifference, IgnoredPaths};
use caxton_control::rollout::{FirstMismatch, RehearsalSummary, ReloadStrategy};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Revision, code, describe};
use crate::api_types::PathDifference;
use crate::bounds;
use crate::message::Outcome;
use crate::store::RecentMessage;
use crate::wasm::{Kind, Pool};
use comparison::Comparison;
use runner::{RunOutcome, Runner};

pub(crate) use comparison::AnswerComparison;
pub(in crate::agent) use stored_answer::encode_answer;

/// The most failures that one rehearsal lists.
const MAX_FAILED: usize = 100;
/// The time for which the running revision handles messages for the comparison. Well below the five minutes that a
/// rollout gives the host for its work by default.
const COMPARE_TIME: Duration = Duration::from_secs(60);
/// The times in an undo, which is urgent: for the candidate's messages, for those of the running revision, which may
/// hang, and for all.
const UNDO_CANDIDATE_TIME: Duration = Duration::from_secs(10);
const UNDO_STABLE_TIME: Duration = Duration::from_secs(5);
const UNDO_TIME: Duration = Duration::from_secs(15);
/// The most messages of the history that an undo searches if the agent keeps none for rehearsals: the history has no
/// index by agent, and may have millions.
const UNDO_SEARCH: u32 = 100_000;
/// The time for a running revision that is undone to save its memory for the comparison.
const UNDO_SAVE_TIME: Duration = Duration::from_secs(2);

/// The result of a rehearsal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RehearsalReport {
    /// The number of messages available.
    pub(crate) messages: u32,
    /// The number of messages that the candidate handled.
    pub(crate) passed: u32,
    /// The number of messages that say nothing about the candidate: the running revision fails at them as well, or the
    /// time was over.
    pub(crate) set_aside: u32,
    /// The ids of the first messages that failed, with the reason.
    pub(crate) failed: Vec<(String, String)>,
    /// The reason why the candidate did not migrate the state, restore the memory of the running revision, or start.
    pub(crate) start_error: Option<String>,
    /// The comparison of its answers.
    pub(crate) comparison: AnswerComparison,
}

impl RehearsalReport {
    /// Returns the reason to refuse the candidate regardless of its answers.
    pub(crate) fn failure(&self) -> Option<String> {
        let failed = self.failed.first().map(|(id, why)| format!("message {id}: {why}"));
        self.start_error.clone().or(failed)
    }

    /// Returns the figures of the comparison, for the decision of the rollout.
    pub(crate) fn answers(&self) -> RehearsalSummary {
        let AnswerComparison { alike, otherwise, not_compared, differing, .. } = &self.comparison;
        let first = differing.first().and_then(|differing| {
            let PathDifference { path, stable, candidate } = differing.differences.first()?.clone();
            Some(FirstMismatch {
                message: differing.message.clone(),
                difference: AnswerDifference { path, stable, candidate },
            })
        });
        RehearsalSummary { alike: *alike, otherwise: *otherwise, not_compared: *not_compared, first }
    }
}

/// The order for a rehearsal.
pub(crate) struct RehearsalJob {
    /// The candidate's pool. The rehearsal uses instances of its own.
    pub(crate) candidate: Arc<Pool>,
    /// The running revision.
    pub(crate) stable: Option<Arc<Revision>>,
    /// The most messages to use, the latest ones.
    pub(crate) messages: u32,
    /// The memory with which a stateful candidate starts.
    pub(crate) memory: InitialMemory,
    /// The version of the state that the candidate migrates first, on the copy; `None` if the version is its own.
    pub(crate) migrate_from: Option<u32>,
    /// Set to end with the first message that fails.
    pub(crate) stops_at_first: bool,
    /// Interrupts the rehearsal at once.
    pub(crate) stop: CancellationToken,
}

/// The memory with which a stateful candidate starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InitialMemory {
    Empty,
    /// The memory of the running revision.
    Live,
    /// The memory that the revision of this number handed over when it was replaced. Used by an undo.
    HandedOver(u64),
}

/// The deadlines of a rehearsal's parts.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    /// The end of the candidate's part; `None` if it handles all messages.
    candidate: Option<Instant>,
    /// The time at which the running revision is interrupted; `None` if it is not.
    stable: Option<Instant>,
    /// The time after which the running revision handles no more messages for the comparison.
    comparison: Instant,
    /// The end of the further runs that find the reasons of differences.
    repetition: Instant,
}

impl Deadlines {
    fn of(memory: InitialMemory) -> Self {
        let now = Instant::now();
        match memory {
            InitialMemory::HandedOver(_) => Self {
                candidate: Some(now + UNDO_CANDIDATE_TIME),
                stable: Some(now + UNDO_STABLE_TIME),
                comparison: now + UNDO_STABLE_TIME,
                repetition: now + UNDO_TIME,
            },
            InitialMemory::Empty | InitialMemory::Live => Self {
                candidate: None,
                stable: None,
                comparison: now + COMPARE_TIME,
                repetition: now + 2 * COMPARE_TIME,
            },
        }
    }
}

impl Agent {
    /// Lets a candidate handle the latest messages on a copy of the state.
    ///
    /// # Errors
    /// The reason why the rehearsal could not take place or was interrupted. A failure of the candidate is in the
    /// report.
    pub(crate) async fn rehearse(&self, rehearsal: RehearsalJob) -> Result<RehearsalReport, String> {
        let stop = rehearsal.stop.clone();
        tokio::select! {
            // Biased, so that a rehearsal that is stopped before its start does nothing.
            biased;
            () = stop.cancelled() => Err("it was broken off".to_owned()),
            report = self.rehearse_all(rehearsal) => report,
        }
    }

    async fn rehearse_all(&self, rehearsal: RehearsalJob) -> Result<RehearsalReport, String> {
        let mut report = RehearsalReport::default();
        if rehearsal.candidate.program.summary.kind == Kind::Http {
            // An undo may go back to an HTTP agent, whose calls are not stored.
            return Ok(report);
        }
        // The store writes in the background: the latest messages have to be there.
        self.context.store.flush().await.map_err(|error| error.to_string())?;
        let (limit, is_undo) = (rehearsal.messages, matches!(rehearsal.memory, InitialMemory::HandedOver(_)));
        let search = is_undo.then_some(UNDO_SEARCH);
        let messages =
            tokio::task::block_in_place(|| self.context.store.recent().list(self.name.as_str(), limit, search))?;
        report.messages = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        // A deploy still has to prove that the candidate starts; an undo has no time for it.
        if messages.is_empty() && is_undo {
            return Ok(report);
        }
        let deadlines = Deadlines::of(rehearsal.memory);
        let (own, live) = self.memories(&rehearsal).await?;
        let mut candidate = Runner::new(self, &rehearsal.candidate, own);
        if let Some(from) = rehearsal.migrate_from.filter(|_| rehearsal.candidate.program.summary.migrates)
            && let Err(why) = candidate.migrate(from).await
        {
            report.start_error = Some(format!("its migration failed: {why}"));
            return Ok(report);
        }
        let warmed = match deadlines.candidate {
            None => candidate.pool.warm(1).await,
            // A candidate that does not start in time exhausts its time with the first message.
            Some(until) => timeout_at(until, candidate.pool.warm(1)).await.unwrap_or(Ok(())),
        };
        if let Err(fault) = warmed {
            report.start_error = Some(fault.to_string());
            return Ok(report);
        }
        let stable = rehearsal.stable.filter(|stable| stable.kind() != Kind::Http);
        let control = || stable.as_ref().map(|stable| Runner::new(self, &stable.pool, live.clone()));
        let comparison = Comparison::new(self.ignored_paths());
        let mut run = RehearsalRun { messages: &messages, candidate, stable: control(), deadlines, report, comparison };
        run.run_candidate(rehearsal.stops_at_first).await;
        // A candidate that is refused anyway needs no further runs.
        if run.report.failed.is_empty() || !rehearsal.stops_at_first {
            run.comparison.learn(&messages, control, deadlines.repetition).await;
            run.comparison.repeat(&messages, &mut run.candidate, deadlines.repetition).await;
        }
        let RehearsalRun { mut report, comparison, .. } = run;
        report.comparison = comparison.conclude(&messages);
        Ok(report)
    }

    /// Returns the paths that the declaration ignores.
    fn ignored_paths(&self) -> IgnoredPaths {
        match &self.spec().rollout.reload.strategy {
            // The paths were checked with the declaration.
            ReloadStrategy::Parallel { ignore, .. } => {
                IgnoredPaths::new(ignore.iter().map(String::as_str)).unwrap_or_default()
            }
            ReloadStrategy::Graceful | ReloadStrategy::Immediate | ReloadStrategy::TrafficSplitting { .. } => {
                IgnoredPaths::default()
            }
        }
    }

    /// Returns the memories with which the copies of the candidate and of the running revision start.
    async fn memories(&self, rehearsal: &RehearsalJob) -> Result<(Option<Bytes>, Option<Bytes>), String> {
        let RehearsalJob { candidate, stable, memory, .. } = rehearsal;
        let stateful = candidate.program.summary.kind == Kind::Stateful;
        match (memory, stable) {
            (InitialMemory::HandedOver(number), _) => {
                let own = if stateful { self.handoff_memory(*number)? } else { None };
                // A revision that cannot save must not keep an undo from leaving it.
                let live = match stable {
                    Some(stable) => timeout(UNDO_SAVE_TIME, self.live_memory(stable)).await.ok().and_then(Result::ok),
                    None => None,
                };
                Ok((own, live.flatten()))
            }
            (InitialMemory::Live, Some(stable)) if stateful => {
                let live = self.live_memory(stable).await?;
                Ok((live.clone(), live))
            }
            (InitialMemory::Live | InitialMemory::Empty, _) => Ok((None, None)),
        }
    }

    /// Returns the memory of a stateful revision: what is committed of it, or what it has if that is more.
    async fn live_memory(&self, stable: &Arc<Revision>) -> Result<Option<Bytes>, String> {
        if stable.kind() != Kind::Stateful {
            return Ok(None);
        }
        if self.unsaved_messages() == 0 {
            // All that it has is committed, and it need not be held up.
            self.until_memory_settles().await;
            let stored = self.context.store.snapshots().get(self.name.as_str(), stable.id.number)?;
            return Ok(stored.map(|snapshot| snapshot.data));
        }
        // A lease waits for the end of the message in progress, so that the memory is that between two messages.
        let Some(lease) = stable.pool.lease_at_rest().await else {
            let stored = self.context.store.snapshots().get(self.name.as_str(), stable.id.number)?;
            return Ok(stored.map(|snapshot| snapshot.data));
        };
        let (lease, saved) = self.save(stable, lease).await?;
        // The live instance goes on: a save changes nothing in its memory.
        lease.finish(true);
        Ok(saved.map(|snapshot| snapshot.data.clone()))
    }
}

/// Describes a failure to a person, with the innermost frame of a trap.
fn explain(outcome: &Outcome) -> String {
    let mut why = describe(outcome);
    if let Outcome::Fault(fault) = outcome
        && let Some(first) = fault.diagnostics().and_then(|diagnostics| diagnostics.backtrace().lines().next())
    {
        why.push_str(&format!(" at {first}"));
    }
    bounds::cut(why, bounds::REASON)
}

/// A rehearsal in progress.
struct RehearsalRun<'a> {
    messages: &'a [RecentMessage],
    candidate: Runner,
    stable: Option<Runner>,
    deadlines: Deadlines,
    report: RehearsalReport,
    comparison: Comparison,
}

impl RehearsalRun<'_> {
    /// Lets the candidate handle the messages in order, and compares its answers.
    async fn run_candidate(&mut self, until_first: bool) {
        for (at, message) in self.messages.iter().enumerate() {
            match self.candidate.run_to_end(&self.messages[..=at], self.deadlines.candidate).await {
                Some(RunOutcome::Answered(answer)) => {
                    self.report.passed += 1;
                    // Without the original answer a difference could not be explained.
                    if message.answer.is_some() {
                        let stable = self.stable_answer(at).await;
                        self.comparison.add(at, answer, stable);
                    } else {
                        self.comparison.result.not_compared += 1;
                    }
                }
                Some(RunOutcome::Exhausted) | None => {
                    self.report.set_aside += self.report.messages - u32::try_from(at).unwrap_or(u32::MAX);
                    break;
                }
                Some(RunOutcome::HostFailed) => self.report.set_aside += 1,
                Some(RunOutcome::Failed(outcome)) => {
                    if self.stable_fails_like(at, &outcome).await {
                        self.report.set_aside += 1;
                        continue;
                    }
                    // The rest is neither passed nor set aside, so that the report still tells that it failed.
                    if self.report.failed.len() < MAX_FAILED {
                        self.report.failed.push((message.envelope.message.id.clone(), explain(&outcome)));
                    }
                    if until_first {
                        break;
                    }
                }
            }
            // Short messages could otherwise keep a worker thread from live ones.
            tokio::task::yield_now().await;
        }
    }

    /// Returns the running revision's answer to a message after those before it; `None` if it has none.
    async fn stable_answer(&mut self, at: usize) -> Option<Answer> {
        if Instant::now() >= self.deadlines.comparison {
            return None;
        }
        match self.stable.as_mut()?.run_to_end(&self.messages[..=at], self.deadlines.stable).await {
            Some(RunOutcome::Answered(answer)) => Some(answer),
            Some(RunOutcome::Failed(_) | RunOutcome::HostFailed | RunOutcome::Exhausted) | None => None,
        }
    }

    /// Returns `true` if the running revision, after the messages before, fails in the same way, or has no time left in
    /// an undo: the failure then does not count against the candidate.
    async fn stable_fails_like(&mut self, at: usize, outcome: &Outcome) -> bool {
        let Some(stable) = &mut self.stable else { return false };
        match stable.run_to_end(&self.messages[..=at], self.deadlines.stable).await {
            Some(RunOutcome::Failed(own)) => code(&own) == code(outcome),
            Some(RunOutcome::Exhausted) => self.deadlines.stable.is_some(),
            Some(RunOutcome::Answered(_) | RunOutcome::HostFailed) | None => false,
        }
    }
}
