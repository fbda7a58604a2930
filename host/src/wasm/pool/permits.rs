//! Permits for calls: one for each call that may be in an instance of a pool at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;

/// The permits of a pool.
pub(in crate::wasm) struct CallPermits {
    free: Arc<Semaphore>,
    total: AtomicU32,
    /// The number of callers that wait.
    awaited: AtomicU32,
}

/// A permit, or several at once. Dropping it passes it to the next waiter.
pub(in crate::wasm) type CallPermit = OwnedSemaphorePermit;

impl CallPermits {
    pub(in crate::wasm) fn new(total: u32) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(total as usize));
        Arc::new(Self { free, total: AtomicU32::new(total), awaited: AtomicU32::new(0) })
    }

    pub(in crate::wasm) fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Changes the number of permits. Surplus ones are removed as they become free.
    pub(in crate::wasm) fn set_total(self: &Arc<Self>, total: u32) {
        let before = self.total.swap(total, Ordering::Relaxed);
        if total > before {
            self.free.add_permits((total - before) as usize);
        } else if total < before {
            let permits = Arc::clone(self);
            // In a task, because permits in use can be removed only when their calls end.
            tokio::spawn(async move { permits.wait_for(before - total).await.forget() });
        }
    }

    /// Takes a permit, if one is free.
    pub(in crate::wasm) fn take(&self) -> Option<CallPermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Waits for a permit until `deadline`.
    pub(in crate::wasm) async fn take_by(&self, deadline: Instant) -> Result<CallPermit, Elapsed> {
        match self.take() {
            // The usual case sets no timer.
            Some(permit) => Ok(permit),
            None => tokio::time::timeout_at(deadline.into(), self.wait()).await,
        }
    }

    /// Waits for a permit.
    pub(in crate::wasm) async fn wait(&self) -> CallPermit {
        self.wait_for(1).await
    }

    async fn wait_for(&self, count: u32) -> CallPermit {
        // A guard, because the caller may drop this future at its deadline.
        let _awaited = Awaited::new(&self.awaited);
        Arc::clone(&self.free).acquire_many_owned(count).await.expect("the semaphore is never closed")
    }

    /// Returns `true` if any permit is taken.
    pub(in crate::wasm) fn any_taken(&self) -> bool {
        self.free.available_permits() < self.total() as usize
    }

    /// Returns `true` if a caller waits for a permit.
    pub(in crate::wasm) fn have_waiters(&self) -> bool {
        // The semaphore does not tell its number of waiters.
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
