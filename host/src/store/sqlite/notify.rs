//! Notifications of the results of commits, in their order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::broadcast;

use crate::store::commit::CommitError;
use crate::store::sqlite::sync::Progress;
use crate::store::types::Event;
use crate::store::writer::batch::{Batch, DecidedCommit};
use crate::telemetry::histogram::Histogram;

/// The commits that are reported where they were made; more are reported by a task, so that the disk does not wait.
const REPORTED_HERE: usize = 16;

/// Reports the results of transactions to their callers.
pub(in crate::store) struct Notifier {
    follow: broadcast::Sender<Arc<Event>>,
    telling: Telling,
    seconds: metrics::Histogram,
    /// The durations of commits.
    commits: Arc<Histogram>,
}

impl Notifier {
    /// Creates a notifier. Events go to `follow`; `commits` records how long each transaction took. A panic in a
    /// callback ends the store.
    pub(in crate::store) fn new(
        follow: broadcast::Sender<Arc<Event>>,
        commits: Arc<Histogram>,
        progress: &Arc<Progress>,
    ) -> Self {
        let seconds = metrics::histogram!("caxton_commit_seconds");
        Self { follow, telling: Telling::start(Arc::clone(progress)), seconds, commits }
    }

    /// Tells of a transaction that is safe, or of which nothing is kept.
    pub(in crate::store) fn tell(&self, batch: Batch, kept: rusqlite::Result<()>, took: Duration) {
        self.seconds.record(took);
        self.commits.record(took);
        let failed = kept.err().map(|error| {
            tracing::error!(%error, "a commit failed; nothing of it is kept");
            CommitError::Store(error.to_string())
        });
        let Batch { commits, askers, events, .. } = batch;
        // An event whose transaction failed has given its id back.
        if failed.is_none() {
            for event in events {
                // An error only means that there are no followers.
                let _ = self.follow.send(Arc::new(event));
            }
        }
        for (asker, result) in askers {
            // The caller may have left.
            let _ = asker.send(failed.clone().map_or(result, Err));
        }
        self.telling.tell(DecidedBatch { commits, failed });
    }
}

/// The commits of one transaction, whose callbacks are to be called.
struct DecidedBatch {
    commits: Vec<DecidedCommit>,
    /// The error if nothing of the transaction is kept.
    failed: Option<CommitError>,
}

impl DecidedBatch {
    fn tell(self) {
        for (request, result) in self.commits {
            request.finish(self.failed.clone().map_or(result, Err));
        }
    }
}

/// Tells of commits in their order: a few at once, many by a task, so that the disk does not wait.
struct Telling {
    runtime: Option<tokio::runtime::Handle>,
    task: tokio::sync::mpsc::UnboundedSender<DecidedBatch>,
    /// Batches that the task has not told of yet.
    behind: Arc<AtomicUsize>,
}

impl Telling {
    fn start(progress: Arc<Progress>) -> Self {
        // Outside of a runtime, as in some tests, all callbacks run on the thread that commits.
        let runtime = tokio::runtime::Handle::try_current().ok();
        let (task, mut batches) = tokio::sync::mpsc::unbounded_channel::<DecidedBatch>();
        let behind = Arc::new(AtomicUsize::new(0));
        if let Some(runtime) = &runtime {
            let behind = Arc::clone(&behind);
            runtime.spawn(async move {
                while let Some(batch) = batches.recv().await {
                    progress.run("teller", || {
                        crate::test_hooks::point("store-teller");
                        batch.tell();
                    });
                    behind.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
        Self { runtime, task, behind }
    }

    fn tell(&self, batch: DecidedBatch) {
        if batch.commits.is_empty() {
            return;
        }
        // Batches that the task still has come first, so that results arrive in the order of commits.
        let in_order = self.behind.load(Ordering::SeqCst) == 0;
        let Some(runtime) = &self.runtime else { return batch.tell() };
        if in_order && batch.commits.len() <= REPORTED_HERE {
            // Callbacks start tasks, and the threads of the store are outside of the runtime.
            let _guard = runtime.enter();
            return batch.tell();
        }
        // Before the send: the task may be done with it, and count down, at once.
        self.behind.fetch_add(1, Ordering::SeqCst);
        if let Err(unsent) = self.task.send(batch) {
            // The runtime has ended; callers that still wait are answered here.
            let _guard = runtime.enter();
            unsent.0.tell();
        }
    }
}
