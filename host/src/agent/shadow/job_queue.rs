//! The queue of handlings that the candidate repeats, with the counts of the comparison.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use caxton_control::rollout::ComparisonCounts;
use caxton_control::rollout::comparison::{Answer, IgnoredPaths};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::http_job::RecordedCall;
use super::recent_writes::RecentWrites;
use super::recording::{MAX_BYTES, Recording};
use crate::message::Message;

/// The most jobs that wait, and the most bytes of all of them. A job beyond that is counted as set aside: live messages
/// never wait for a copy.
const MAX_WAITING: usize = 256;
const MAX_WAITING_BYTES: usize = 32 << 20;
/// The most handlings that are recorded at once: each recording may grow to 2 MiB before it is queued.
const MAX_RECORDERS: usize = 32;

/// The settings of a comparison on live messages.
#[derive(Debug)]
pub(crate) struct ShadowSettings {
    /// The number of the rollout.
    pub(crate) rollout: u64,
    /// The number of copies after which the rollout may go on.
    pub(crate) min_messages: u64,
    /// The paths in which answers may differ.
    pub(crate) ignore: IgnoredPaths,
}

/// A comparison in progress: a candidate handles copies of the stable revision's messages.
pub(crate) struct Shadow {
    agent: Arc<str>,
    rollout: u64,
    /// The number of the revision whose messages are copied.
    stable: u64,
    jobs: mpsc::Sender<ShadowJob>,
    waiting_bytes: AtomicUsize,
    recorders: Arc<Semaphore>,
    // Counts for people and for a rollout's decision, which is repeated: relaxed ordering suffices.
    compared: AtomicU64,
    alike: AtomicU64,
    set_aside: AtomicU64,
    writes: Mutex<RecentWrites>,
    stop: CancellationToken,
}

/// The message or call of a job.
pub(super) enum Subject {
    /// A message, with the length of the chain of messages that caused it.
    Message(Box<Message>, u32),
    Call(Box<RecordedCall>),
}

/// A handling that the candidate repeats.
pub(super) struct ShadowJob {
    pub(super) subject: Subject,
    pub(super) recording: Arc<Recording>,
    /// The mark in [`RecentWrites`] at which the live handling began.
    pub(super) mark: u64,
    /// The answer of the stable revision.
    pub(super) answer: Answer,
    /// The size of the job in memory, about.
    pub(super) bytes: usize,
}

impl Shadow {
    /// Creates the shadow of the revision with the number `stable`, and the end of its queue that is worked off.
    pub(super) fn new(agent: Arc<str>, rollout: u64, stable: u64) -> (Arc<Self>, mpsc::Receiver<ShadowJob>) {
        let (jobs, receiver) = mpsc::channel(MAX_WAITING);
        let shadow = Arc::new(Self {
            agent,
            rollout,
            stable,
            jobs,
            waiting_bytes: AtomicUsize::new(0),
            recorders: Arc::new(Semaphore::new(MAX_RECORDERS)),
            compared: AtomicU64::new(0),
            alike: AtomicU64::new(0),
            set_aside: AtomicU64::new(0),
            writes: Mutex::default(),
            stop: CancellationToken::new(),
        });
        (shadow, receiver)
    }

    /// Returns the counts up to now.
    pub(crate) fn compared(&self) -> ComparisonCounts {
        ComparisonCounts {
            copies: self.compared.load(Ordering::Relaxed),
            alike: self.alike.load(Ordering::Relaxed),
            set_aside: self.set_aside.load(Ordering::Relaxed),
        }
    }

    /// Returns the number of the rollout that asked for the comparison.
    pub(crate) fn rollout(&self) -> u64 {
        self.rollout
    }

    /// Returns `true` until the comparison is stopped.
    pub(crate) fn is_active(&self) -> bool {
        !self.stop.is_cancelled()
    }

    pub(super) fn agent(&self) -> &Arc<str> {
        &self.agent
    }

    /// Returns `true` if the messages of this revision are copied.
    pub(super) fn copies(&self, revision: u64) -> bool {
        self.stable == revision
    }

    /// Ends the comparison.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns the token that is cancelled when the comparison ends.
    pub(super) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Returns a permit to record a handling; `None` if there is no room for its copy.
    pub(super) fn recorder_permit(&self) -> Option<OwnedSemaphorePermit> {
        // Checked before the handling, so that nothing is recorded in vain. Others may fill the queue meanwhile.
        let is_full = self.jobs.capacity() == 0 || self.waiting_bytes.load(Ordering::Relaxed) >= MAX_WAITING_BYTES;
        if is_full { None } else { Arc::clone(&self.recorders).try_acquire_owned().ok() }
    }

    /// Returns the mark of the present moment, for [`Shadow::is_key_changed`].
    pub(super) fn mark(&self) -> u64 {
        self.writes.lock().mark()
    }

    /// Notes the keys of a commit.
    pub(super) fn note_writes<'a>(&self, keys: impl Iterator<Item = &'a String>) {
        self.writes.lock().add(keys);
    }

    /// Returns `true` if a key may have been written after a mark.
    pub(super) fn is_key_changed(&self, key: &str, mark: u64) -> bool {
        self.writes.lock().has_key(key, mark)
    }

    /// Returns `true` if any key with a prefix may have been written after a mark.
    pub(super) fn is_prefix_changed(&self, prefix: &str, mark: u64) -> bool {
        self.writes.lock().has_prefix(prefix, mark)
    }

    /// Returns the bytes of the jobs that wait, of recordings at their bound, and of the keys that are remembered.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let recording = MAX_RECORDERS.saturating_sub(self.recorders.available_permits()) * MAX_BYTES;
        (self.waiting_bytes.load(Ordering::Relaxed) + recording) as u64 + self.writes.lock().bytes()
    }

    /// Counts a handling that is not compared.
    pub(super) fn set_aside(&self) {
        self.set_aside.fetch_add(1, Ordering::Relaxed);
        self.count("set-aside");
    }

    /// Counts a comparison. Returns the number of comparisons, and the number of those that were not alike.
    pub(super) fn count_comparison(&self, is_alike: bool) -> (u64, u64) {
        // Before the sum, so that no reader sees a difference that there is not.
        self.alike.fetch_add(u64::from(is_alike), Ordering::Relaxed);
        let compared = self.compared.fetch_add(1, Ordering::Relaxed) + 1;
        self.count(if is_alike { "alike" } else { "unlike" });
        (compared, compared.saturating_sub(self.alike.load(Ordering::Relaxed)))
    }

    fn count(&self, outcome: &'static str) {
        let labels = [("agent", self.agent.to_string()), ("outcome", outcome.to_owned())];
        metrics::counter!("caxton_copies_total", &labels).increment(1);
    }

    /// Adds a job, or counts it as set aside if there is no room.
    pub(super) fn enqueue(&self, job: ShadowJob) {
        let bytes = job.bytes;
        // Reserved before the job is sent: the comparer may release it at once.
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Never waits: this runs in the live handling.
        if before + bytes > MAX_WAITING_BYTES || self.jobs.try_send(job).is_err() {
            self.release(bytes);
            self.set_aside();
        }
    }

    /// Returns the bytes of a job that no longer waits.
    pub(super) fn release(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
