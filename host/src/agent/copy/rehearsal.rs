//! A candidate handles the last messages on a copy, before it gets any.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::rollout::compare::{Answer, Difference, Ignore};
use caxton_control::rollout::{Answers, First, Reload};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::{Agent, Revision, code, describe};
use super::likeness::{Comparison, Likeness};
use super::side::{Side, Took};
use crate::api_types::PathDifference;
use crate::store::RecentMessage;
use crate::wasm::{Kind, Outcome, Pool};

/// Failures that are listed of one rehearsal.
const MAX_FAILED: usize = 100;
/// The longest text of why a message failed, in characters.
const MAX_WHY: usize = 1_000;
/// The time for which the running revision handles messages to compare answers: the host's work in a rollout has five
/// minutes by default.
const COMPARES: Duration = Duration::from_secs(60);
/// The time of an undo for the messages, for the running revision's part, which may hang, and for all of it: whoever goes
/// back is in a hurry.
const UNDO_HANDLES: Duration = Duration::from_secs(10);
const UNDO_COMPARES: Duration = Duration::from_secs(5);
const UNDO_ENDS: Duration = Duration::from_secs(15);
/// Messages of the history through which an undo looks where none are kept: there is no index by agent, and a history may
/// have millions.
const UNDO_LOOKS: u32 = 100_000;
/// The time in which a running revision that is undone has to save its memory for the comparison.
const UNDO_SAVES: Duration = Duration::from_secs(2);

/// What came of a rehearsal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rehearsed {
    /// Messages that were there to rehearse with.
    pub(crate) messages: u32,
    /// How many were handled.
    pub(crate) passed: u32,
    /// Messages that say nothing of the candidate: the running revision fails at them now as well, or the time was over.
    pub(crate) set_aside: u32,
    /// The first that were not handled, with why.
    pub(crate) failed: Vec<(String, String)>,
    /// Why it did not convert the state, take up the memory of the running revision, or start.
    pub(crate) unready: Option<String>,
    /// The comparison of the answers to those that were handled.
    pub(crate) likeness: Likeness,
}

impl Rehearsed {
    /// Returns the reason that refuses the candidate regardless of its answers; none if there is none.
    pub(crate) fn failure(&self) -> Option<String> {
        let failed = self.failed.first().map(|(id, why)| format!("message {id}: {why}"));
        self.unready.clone().or(failed)
    }

    /// Returns the comparison of the answers as a rollout judges it.
    pub(crate) fn answers(&self) -> Answers {
        let Likeness { alike, otherwise, not_compared, differing, .. } = &self.likeness;
        let first = differing.first().and_then(|differing| {
            let PathDifference { path, stable, candidate } = differing.differences.first()?.clone();
            Some(First { message: differing.message.clone(), difference: Difference { path, stable, candidate } })
        });
        Answers { alike: *alike, otherwise: *otherwise, not_compared: *not_compared, first }
    }
}

/// What is rehearsed.
pub(crate) struct Rehearsal {
    /// The instances of the candidate; its copies get others.
    pub(crate) candidate: Arc<Pool>,
    /// What runs.
    pub(crate) stable: Option<Arc<Revision>>,
    /// How many of the last messages.
    pub(crate) messages: u32,
    /// The memory that a stateful candidate begins with.
    pub(crate) begins: Begins,
    /// The version whose state a candidate that migrates converts first, on the copy; none if it is its own.
    pub(crate) migrate_from: Option<u32>,
    /// Whether it ends with the first message that fails.
    pub(crate) until_first: bool,
    /// Ends it at once.
    pub(crate) stop: CancellationToken,
}

/// The memory that a stateful candidate begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    /// No memory.
    Anew,
    /// The memory of the running revision.
    WithLive,
    /// The memory that this revision handed over itself, in an undo, which has to be quick.
    Again(u64),
}

/// The ends of a rehearsal's parts.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// The end of the candidate's part; none if it handles all messages.
    candidate: Option<Instant>,
    /// The time at which the running revision is interrupted; none if it is not.
    stable: Option<Instant>,
    /// The time after which the running revision gives no more answers to compare with.
    compares: Instant,
    /// The end of the runs that look into differences.
    ends: Instant,
}

impl Times {
    fn of(begins: Begins) -> Self {
        let now = Instant::now();
        match begins {
            Begins::Again(_) => Self {
                candidate: Some(now + UNDO_HANDLES),
                stable: Some(now + UNDO_COMPARES),
                compares: now + UNDO_COMPARES,
                ends: now + UNDO_ENDS,
            },
            Begins::Anew | Begins::WithLive => {
                Self { candidate: None, stable: None, compares: now + COMPARES, ends: now + 2 * COMPARES }
            }
        }
    }
}

impl Agent {
    /// Lets a candidate handle the last messages on a copy.
    ///
    /// # Errors
    /// It could not be done.
    pub(crate) async fn rehearse(&self, rehearsal: Rehearsal) -> Result<Rehearsed, String> {
        let stop = rehearsal.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err("it was broken off".to_owned()),
            rehearsed = self.rehearse_all(rehearsal) => rehearsed,
        }
    }

    async fn rehearse_all(&self, rehearsal: Rehearsal) -> Result<Rehearsed, String> {
        let mut done = Rehearsed::default();
        if rehearsal.candidate.program.summary.kind == Kind::Http {
            // An undo may go back to one: calls are not kept.
            return Ok(done);
        }
        // What was handled before this is asked for is there.
        self.context.store.flush().await.map_err(|error| error.to_string())?;
        let (limit, is_undo) = (rehearsal.messages, matches!(rehearsal.begins, Begins::Again(_)));
        let looks = is_undo.then_some(UNDO_LOOKS);
        let messages = tokio::task::block_in_place(|| self.context.store.recent(self.name.as_str(), limit, looks))?;
        done.messages = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        if messages.is_empty() && is_undo {
            return Ok(done);
        }
        let times = Times::of(rehearsal.begins);
        let (own, theirs) = self.memories(&rehearsal).await?;
        let mut candidate = Side::new(self, &rehearsal.candidate, own);
        if let Some(from) = rehearsal.migrate_from.filter(|_| rehearsal.candidate.program.summary.migrates)
            && let Err(why) = candidate.migrate(from).await
        {
            done.unready = Some(format!("its migration failed: {why}"));
            return Ok(done);
        }
        let warmed = match times.candidate {
            None => candidate.pool.warm(1).await,
            // One that does not start in time is found out when it is to take messages.
            Some(until) => timeout_at(until, candidate.pool.warm(1)).await.unwrap_or(Ok(())),
        };
        if let Err(fault) = warmed {
            done.unready = Some(fault.to_string());
            return Ok(done);
        }
        let stable = rehearsal.stable.filter(|stable| stable.kind() != Kind::Http);
        let control = || stable.as_ref().map(|stable| Side::new(self, &stable.pool, theirs.clone()));
        let comparison = Comparison::new(self.may_differ());
        let mut run = Run { messages: &messages, candidate, stable: control(), times, done, comparison };
        run.forward(rehearsal.until_first).await;
        // A candidate that is refused anyway needs no further runs.
        if run.done.failed.is_empty() || !rehearsal.until_first {
            run.comparison.learn(&messages, control, times.ends).await;
            run.comparison.repeat(&messages, &mut run.candidate, times.ends).await;
        }
        let Run { mut done, comparison, .. } = run;
        done.likeness = comparison.conclude(&messages);
        Ok(done)
    }

    /// Returns the paths that the declaration ignores.
    fn may_differ(&self) -> Ignore {
        match &self.spec().rollout.reload.strategy {
            // They were read as paths when the file was.
            Reload::Parallel { ignore, .. } => Ignore::new(ignore.iter().map(String::as_str)).unwrap_or_default(),
            Reload::Graceful | Reload::Immediate | Reload::TrafficSplitting { .. } => Ignore::default(),
        }
    }

    /// Returns the memories with which the candidate and the running revision begin.
    async fn memories(&self, rehearsal: &Rehearsal) -> Result<(Option<Bytes>, Option<Bytes>), String> {
        let Rehearsal { candidate, stable, begins, .. } = rehearsal;
        let stateful = candidate.program.summary.kind == Kind::Stateful;
        match (begins, stable) {
            (Begins::Again(number), _) => {
                let own = if stateful { self.handed_over(*number)? } else { None };
                // One that cannot save any more is a reason to leave it, and none to stay.
                let live = match stable {
                    Some(stable) => timeout(UNDO_SAVES, self.live_memory(stable)).await.ok().and_then(Result::ok),
                    None => None,
                };
                Ok((own, live.flatten()))
            }
            (Begins::WithLive, Some(stable)) if stateful => {
                let live = self.live_memory(stable).await?;
                Ok((live.clone(), live))
            }
            (Begins::WithLive | Begins::Anew, _) => Ok((None, None)),
        }
    }

    /// The memory of a stateful agent as it is now. It goes on with it afterwards.
    async fn live_memory(&self, stable: &Arc<Revision>) -> Result<Option<Bytes>, String> {
        if stable.kind() != Kind::Stateful {
            return Ok(None);
        }
        // Between two messages, as a message would come.
        let Some(lease) = stable.pool.lease_at_rest().await else {
            let kept = self.context.store.snapshot(self.name.as_str(), stable.id.number)?;
            return Ok(kept.map(|snapshot| snapshot.data));
        };
        let (lease, saved) = self.save(stable, lease).await?;
        lease.finish(true);
        Ok(saved.map(|snapshot| snapshot.data.clone()))
    }
}

/// For a person: why a message failed, with the trace of a trap.
fn told(outcome: &Outcome) -> String {
    let mut why = describe(outcome);
    if let Outcome::Fault(fault) = outcome
        && let Some(first) = fault.trail().and_then(|trail| trail.backtrace().lines().next())
    {
        why.push_str(&format!(" at {first}"));
    }
    why.chars().take(MAX_WHY).collect()
}

/// A rehearsal in progress.
struct Run<'a> {
    messages: &'a [RecentMessage],
    candidate: Side,
    stable: Option<Side>,
    times: Times,
    done: Rehearsed,
    comparison: Comparison,
}

impl Run<'_> {
    /// Lets the candidate handle the messages in order.
    async fn forward(&mut self, until_first: bool) {
        for (at, message) in self.messages.iter().enumerate() {
            match self.candidate.reach(&self.messages[..=at], self.times.candidate).await {
                Some(Took::Well(answer)) => {
                    self.done.passed += 1;
                    let stable = match &message.answer {
                        Some(_) => self.stable_answer(at).await,
                        None => None,
                    };
                    match message.answer {
                        Some(_) => self.comparison.take(at, answer, stable),
                        None => self.comparison.likeness.not_compared += 1,
                    }
                }
                Some(Took::Full) | None => {
                    self.done.set_aside += self.done.messages - u32::try_from(at).unwrap_or(u32::MAX);
                    break;
                }
                Some(Took::Unknown) => self.done.set_aside += 1,
                Some(Took::Failed(outcome)) => {
                    if self.stable_fails_like(at, &outcome).await {
                        self.done.set_aside += 1;
                        continue;
                    }
                    if self.done.failed.len() < MAX_FAILED {
                        self.done.failed.push((message.envelope.message.id.clone(), told(&outcome)));
                    }
                    if until_first {
                        break;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Returns the running revision's answer to a message, after it has handled those before; none if it gives none.
    async fn stable_answer(&mut self, at: usize) -> Option<Answer> {
        if Instant::now() >= self.times.compares {
            return None;
        }
        match self.stable.as_mut()?.reach(&self.messages[..=at], self.times.stable).await {
            Some(Took::Well(answer)) => Some(answer),
            Some(Took::Failed(_) | Took::Unknown | Took::Full) | None => None,
        }
    }

    /// Returns true if a message fails in the same way with the running revision, after it has handled those before, or if
    /// its time in an undo is over, so that the failure cannot be held against the candidate.
    async fn stable_fails_like(&mut self, at: usize, outcome: &Outcome) -> bool {
        let Some(stable) = &mut self.stable else { return false };
        match stable.reach(&self.messages[..=at], self.times.stable).await {
            Some(Took::Failed(own)) => code(&own) == code(outcome),
            Some(Took::Full) => self.times.stable.is_some(),
            Some(Took::Well(_) | Took::Unknown) | None => false,
        }
    }
}
