//! The conversion of an agent's state before a revision of another version gets its first message.
//!
//! ```text
//! instance of its own -> migrate(from) -> effects.commit -> commit (a step) -> ... -> ok -> commit (the last step)
//!                              '-- failure, trap, limit, end of its time: nothing since the last step is kept
//! ```
//! The caller pauses the mailbox, waits until nothing is in flight, and decides what becomes of steps that were
//! committed before a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::agent::{Agent, Revision, describe};
use crate::message::{
    CallContext, CommitFailure, CommitMode, Committer, Effects, GuestHost, Outcome, RunContext, new_id,
};
use crate::wasm::Pool;

/// The extent of a migration that was committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Migrated {
    /// Keys that were written or removed, in all steps; one that several steps wrote counts for each.
    pub(crate) keys: u64,
    /// Commits that wrote something, the last included.
    pub(crate) steps: u32,
}

/// Counts what a migration has committed.
#[derive(Default)]
struct MigrationProgress {
    keys: AtomicU64,
    steps: AtomicU32,
}

impl MigrationProgress {
    fn count(&self, keys: usize) {
        // A step without writes changes nothing, and would only confuse the report.
        if keys > 0 {
            self.keys.fetch_add(keys as u64, Ordering::Relaxed);
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn migrated(&self) -> Migrated {
        Migrated { keys: self.keys.load(Ordering::Relaxed), steps: self.steps.load(Ordering::Relaxed) }
    }
}

impl Agent {
    /// Lets a revision convert the agent's state from the form that version `from` wrote, on an instance of its own.
    /// `time` bounds all of it, the limits of a handling each of its steps. When the future is dropped no further step
    /// is committed, and one that is being committed is kept whole.
    ///
    /// # Errors
    /// The reason for a person. The steps before it are kept; nothing of the step in which it failed is.
    pub(crate) async fn migrate(
        &self,
        revision: &Arc<Revision>,
        from: u32,
        time: Duration,
    ) -> Result<Migrated, String> {
        let progress = Arc::<MigrationProgress>::default();
        let committer = self.step_committer(revision, &progress);
        let interrupted = revision.interrupted();
        let migrated = tokio::select! {
            // The stop first, so that no further step begins.
            biased;
            () = interrupted.cancelled() => Err("its revision stops".to_owned()),
            ended = tokio::time::timeout(time, migrate(&revision.pool, from, committer, None)) => {
                ended.unwrap_or_else(|_| Err(format!("it took longer than {} ms in all", time.as_millis())))
            }
        };
        let done = progress.migrated();
        match migrated {
            Ok(()) => Ok(done),
            Err(why) if done.steps == 0 => Err(why),
            Err(why) => {
                let Migrated { keys, steps } = done;
                Err(format!("{why} (after {steps} steps with {keys} keys, which were committed)"))
            }
        }
    }

    /// Returns the function that commits a step.
    fn step_committer(&self, revision: &Arc<Revision>, progress: &Arc<MigrationProgress>) -> Committer {
        let (agent, revision, progress) = (self.arc(), Arc::clone(revision), Arc::clone(progress));
        Arc::new(move |effects: Effects, _| {
            let (agent, revision, progress) = (Arc::clone(&agent), Arc::clone(&revision), Arc::clone(&progress));
            Box::pin(async move {
                let keys = effects.writes.len() + effects.adds.len();
                let committed = agent.commit_call(&revision, (None, false), effects).await;
                // It does not run again after a conflict: only an operator can have written meanwhile, and should know.
                committed.map_err(|refused| CommitFailure::Other(refused.error.to_string()))?;
                progress.count(keys);
                Ok(())
            })
        })
    }
}

/// Runs the guest's function and commits its last step; `outside` replaces the outside of the pool.
pub(in crate::agent) async fn migrate(
    pool: &Pool,
    from: u32,
    committer: Committer,
    outside: Option<Arc<dyn GuestHost>>,
) -> Result<(), String> {
    let work = CallContext {
        conversation: new_id(),
        hops: 0,
        // Of requests, which it may not make.
        deadline: Instant::now(),
        trace: None,
        tree: None,
        host: outside,
        commit_mode: CommitMode::InSteps(Arc::clone(&committer)),
        // Its mailbox is paused, so that no other handler has keys reserved.
        run: RunContext::default(),
        calls: None,
    };
    let effects = match pool.migrate(from, work).await {
        Ok(Ok(effects)) => effects,
        Ok(Err(failure)) => return Err(explain(&Outcome::Failed(failure))),
        Err(fault) => return Err(explain(&Outcome::Fault(fault))),
    };
    // The effects since the last `effects.commit` are the last step.
    committer(effects, true).await.map_err(|not| match not {
        CommitFailure::Conflict(conflict) => format!("the key `{}` has changed meanwhile", conflict.key),
        CommitFailure::Other(why) => why,
    })
}

/// Describes a failure to a person, with the place of a trap.
fn explain(outcome: &Outcome) -> String {
    let mut why = describe(outcome);
    if let Outcome::Fault(fault) = outcome
        && let Some(first) = fault.diagnostics().and_then(|diagnostics| diagnostics.backtrace().lines().next())
    {
        why.push_str(&format!(" at {first}"));
    }
    why
}

#[cfg(test)]
mod tests;
