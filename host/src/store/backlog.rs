//! The commits of an agent that wait for the disk, in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The bytes of commits that wait, from which on an agent begins no further handling: they are in memory until they are
/// written. As much as the default of `limits.effects`.
const MAX_WAITING: u64 = 8 << 20;

/// The commits of one agent that wait for the disk.
#[derive(Debug, Default)]
pub(crate) struct CommitBacklog {
    bytes: AtomicU64,
    freed: Notify,
}

impl CommitBacklog {
    /// Waits until less than [`MAX_WAITING`] waits.
    pub(crate) async fn until_low(&self) {
        loop {
            if self.is_low() {
                return;
            }
            let freed = self.freed.notified();
            // After the waiter is made: what is written between the look and the wait is not missed.
            if self.is_low() {
                return;
            }
            freed.await;
        }
    }

    fn is_low(&self) -> bool {
        // Relaxed: no other memory is published by this count.
        self.bytes.load(Ordering::Relaxed) < MAX_WAITING
    }

    /// Counts a commit until the guard is dropped.
    pub(super) fn count(self: Arc<Self>, bytes: u64) -> WaitingCommit {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        WaitingCommit { backlog: self, bytes }
    }
}

/// A commit that is counted while it waits.
#[derive(Debug)]
pub(super) struct WaitingCommit {
    backlog: Arc<CommitBacklog>,
    bytes: u64,
}

impl Drop for WaitingCommit {
    fn drop(&mut self) {
        let before = self.backlog.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if before >= MAX_WAITING {
            self.backlog.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_full_backlog_is_waited_for() {
        let backlog = Arc::<CommitBacklog>::default();
        let small = Arc::clone(&backlog).count(1);
        backlog.until_low().await;
        let large = Arc::clone(&backlog).count(MAX_WAITING);
        let mut waits = std::pin::pin!(backlog.until_low());
        let polled = futures::poll!(&mut waits);
        assert_eq!(polled, Poll::Pending);
        drop(small);
        assert_eq!(futures::poll!(&mut waits), Poll::Pending, "as much as may be waits still");
        drop(large);
        waits.await;
    }
}
