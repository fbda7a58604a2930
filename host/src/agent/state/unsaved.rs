//! The memories that are being committed or written, and the messages that no saved one has.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use caxton_control::desired::SnapshotSpec;
use caxton_control::snapshot::UnsavedMessages;
use caxton_control::units::print_bytes;
use tokio::sync::Notify;

use crate::message::MemoryLine;

/// The commits and writes of memories that are under way.
#[derive(Default)]
pub(in crate::agent) struct MemoryWrites {
    /// Commits of memories, and commits on which one depends.
    commits: AtomicU32,
    settled: Notify,
    /// Held while a memory is written apart from commits, so that an older one never replaces a newer.
    pub(super) apart: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryWrites {
    /// Counts a commit that is given to the store.
    pub(super) fn begin(&self) {
        self.commits.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a commit as decided.
    pub(super) fn end(&self) {
        if self.commits.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.settled.notify_waiters();
        }
    }

    /// Returns `true` if a commit is not decided yet.
    pub(super) fn any(&self) -> bool {
        self.commits.load(Ordering::SeqCst) > 0
    }

    /// Waits until all commits are decided.
    pub(in crate::agent) async fn commits_settle(&self) {
        loop {
            // Before the check, so that a commit that ends between the two is not missed.
            let settled = self.settled.notified();
            if !self.any() {
                return;
            }
            settled.await;
        }
    }
}

/// The reason why a memory is not part of commits, although it is declared so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deferral {
    /// It is above `snapshot.commit-max`, in bytes.
    TooLarge(u64),
    /// This revision took longer to save than a save in a commit may.
    TooLong { revision: u64, why: String },
}

impl Deferral {
    pub(super) fn describe(&self, spec: &SnapshotSpec) -> String {
        match self {
            Self::TooLarge(bytes) => {
                format!(
                    "it saved {bytes} bytes, more than snapshot.commit-max ({})",
                    print_bytes(spec.commit_max_bytes)
                )
            }
            Self::TooLong { why, .. } => format!("its save in a commit failed: {why}"),
        }
    }
}

/// The messages that are in the memory of the live instance and in no saved one.
#[derive(Debug, Default)]
pub(in crate::agent) struct Unsaved {
    /// The line of the instance.
    line: Weak<MemoryLine>,
    count: u64,
    /// The time of the first of them.
    since: Option<Instant>,
    /// Set if a write failed: the store does not have what the instance saved last.
    unwritten: bool,
    /// The size in bytes of what was saved last.
    pub(super) bytes: u64,
    /// Set while the memory is not part of commits, although it is declared so.
    pub(super) deferral: Option<Deferral>,
}

impl Unsaved {
    /// Begins anew with the first message of another instance.
    pub(super) fn follow(&mut self, line: &Arc<MemoryLine>) {
        if !std::ptr::eq(self.line.as_ptr(), Arc::as_ptr(line)) {
            let deferral = self.deferral.take();
            *self = Self { line: Arc::downgrade(line), deferral, ..Self::default() };
        }
    }

    /// Notes that all is saved, as the instance ends.
    pub(super) fn note_all_saved(&mut self) {
        (self.count, self.since) = (0, None);
    }

    /// Counts a message that is in no saved memory yet.
    pub(super) fn add(&mut self) {
        self.count += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Notes the size of what the instance has saved, for a commit or to be written. Returns `true` if the store has
    /// what it saved before.
    pub(super) fn note_saved(&mut self, bytes: u64) -> bool {
        self.bytes = bytes;
        !self.unwritten
    }

    /// Notes that a memory of the instance with this line was written: it was saved at a time, and has messages that
    /// were in no saved one.
    pub(super) fn note_written(&mut self, line: &Arc<MemoryLine>, covers: u64, at: Instant) {
        // Another instance may have taken its place while it was written.
        if std::ptr::eq(self.line.as_ptr(), Arc::as_ptr(line)) {
            self.count = self.count.saturating_sub(covers);
            self.since = (self.count > 0).then_some(at);
            self.unwritten = false;
        }
    }

    /// Notes that a memory could not be written.
    pub(super) fn note_unwritten(&mut self) {
        self.unwritten = true;
    }

    /// Returns the messages in the memory of the live instance that are in no saved one.
    pub(super) fn messages(&self) -> UnsavedMessages {
        // What an instance had that has ended is gone, and no crash takes it any more.
        let count = if self.line.strong_count() > 0 { self.count } else { 0 };
        UnsavedMessages { count, age: self.since.map(|since| since.elapsed()).unwrap_or_default() }
    }
}
