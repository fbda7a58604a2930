//! Permits for calls: one for each call that may be in an instance of a pool at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;

/// The permits of a pool.
pub(super) struct Turns {
    free: Arc<Semaphore>,
    total: AtomicU32,
    /// The number of callers that wait.
    awaited: AtomicU32,
}

/// One permit or several. Dropping it passes it to the next waiter.
pub(super) type Turn = OwnedSemaphorePermit;

impl Turns {
    pub(super) fn new(total: u32) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(total as usize));
        Arc::new(Self { free, total: AtomicU32::new(total), awaited: AtomicU32::new(0) })
    }

    pub(super) fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Changes the number of permits. Surplus ones are removed as they become free.
    pub(super) fn set_total(self: &Arc<Self>, total: u32) {
        let before = self.total.swap(total, Ordering::Relaxed);
        if total > before {
            self.free.add_permits((total - before) as usize);
        } else if total < before {
            let turns = Arc::clone(self);
            // In a task, because permits in use can be removed only when their calls end.
            tokio::spawn(async move { turns.wait_for(before - total).await.forget() });
        }
    }

    /// Takes a permit, if one is free.
    pub(super) fn take(&self) -> Option<Turn> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Waits for a permit until `deadline`.
    pub(super) async fn take_by(&self, deadline: Instant) -> Result<Turn, Elapsed> {
        match self.take() {
            Some(turn) => Ok(turn),
            None => tokio::time::timeout_at(deadline.into(), self.wait()).await,
        }
    }

    /// Waits for a permit.
    pub(super) async fn wait(&self) -> Turn {
        self.wait_for(1).await
    }

    async fn wait_for(&self, count: u32) -> Turn {
        let _awaited = Awaited::new(&self.awaited);
        Arc::clone(&self.free).acquire_many_owned(count).await.expect("the semaphore is never closed")
    }

    /// Returns `true` if any permit is taken.
    pub(super) fn are_taken(&self) -> bool {
        self.free.available_permits() < self.total() as usize
    }

    /// Returns `true` if a caller waits for a permit.
    pub(super) fn are_awaited(&self) -> bool {
        self.awaited.load(Ordering::SeqCst) > 0
    }
}

/// Counts a waiter until it is dropped.
struct Awaited<'a>(&'a AtomicU32);

impl<'a> Awaited<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
