//! The requests for memory: met at once, after idle instances have ended, or in turn.

use std::time::{Duration, Instant};

use caxton_control::memory::MemoryPriority;
use caxton_control::memory_queue::MemoryRequest;
use tokio::sync::oneshot::error::TryRecvError;

use super::budget::{MemoryBudget, Reservation};
use super::kind::{MemoryKind, MemoryShortage};

/// The interval at which a growth that waits looks whether it is the oldest. One that was so twice in a row has others
/// end for it: guests that all wait for each other's memory would wait until their time is over.
const LOOK: Duration = Duration::from_millis(100);

impl MemoryBudget {
    /// Returns `true` if there is room for a priority, after ending idle instances if that is needed. One load while
    /// there is.
    pub(crate) fn has_room(&self, priority: MemoryPriority) -> bool {
        while !self.is_below(priority) {
            if !self.reclaim() {
                return false;
            }
        }
        true
    }

    /// Waits until there is room for a priority.
    ///
    /// # Errors
    /// There was none by `deadline`.
    pub(crate) async fn admit(&self, priority: MemoryPriority, deadline: Instant) -> Result<(), MemoryShortage> {
        // A request of one byte, which is free again at once, waits in turn with all others.
        if self.has_room(priority) {
            return Ok(());
        }
        self.reserve(MemoryKind::Bodies, 1, priority, deadline).await.map(drop)
    }

    /// Reserves bytes. Ends idle instances if that is needed, and does not wait.
    pub(crate) fn try_reserve(&self, kind: MemoryKind, bytes: u64, priority: MemoryPriority) -> Option<Reservation> {
        if self.make_room(bytes, priority) {
            self.count(kind, bytes);
            return Some(Reservation::new(self, kind, bytes));
        }
        self.note_refusal(priority);
        None
    }

    /// Reserves bytes. Ends idle instances if that is needed, and then waits in turn.
    ///
    /// # Errors
    /// There was no room by `deadline`, or there can be none.
    pub(crate) async fn reserve(
        &self,
        kind: MemoryKind,
        bytes: u64,
        priority: MemoryPriority,
        deadline: Instant,
    ) -> Result<Reservation, MemoryShortage> {
        // Others that wait come first, unless this is for work whose end frees memory.
        let is_next = priority == MemoryPriority::Work || !self.blocks(priority, bytes);
        if is_next && self.make_room(bytes, priority) {
            self.count(kind, bytes);
            return Ok(Reservation::new(self, kind, bytes));
        }
        // No wait helps one that can never fit.
        let waits = bytes <= self.ceiling(priority);
        let request = MemoryRequest { priority, seniority: self.new_seniority(), bytes, least: bytes, held: 0 };
        let waited = if waits { self.wait(kind, request, deadline).await } else { None };
        waited.ok_or_else(|| {
            self.note_refusal(priority);
            MemoryShortage
        })
    }

    /// Waits in turn until bytes are free; `None` if they were not by `deadline`, or are given up for an older guest.
    pub(super) async fn wait(
        &self,
        kind: MemoryKind,
        request: MemoryRequest,
        deadline: Instant,
    ) -> Option<Reservation> {
        self.note_shortage();
        let deadline = tokio::time::Instant::from_std(deadline);
        // Before the receiver, and so dropped after it, however the wait ends.
        let _departure = Departure(self);
        let mut granted = self.waiters().queue(kind, request);
        // Memory that was freed before this request was in the queue has woken nobody.
        self.serve_waiters();
        let mut was_oldest = false;
        loop {
            match granted.try_recv() {
                Ok(granted) => return Some(granted),
                Err(TryRecvError::Closed) => return None,
                // Instances with a memory that has to be restored end only now that something waits.
                Err(TryRecvError::Empty) if self.reclaim() => continue,
                Err(TryRecvError::Empty) => {}
            }
            let look = (tokio::time::Instant::now() + LOOK).min(deadline);
            if let Ok(granted) = tokio::time::timeout_at(look, &mut granted).await {
                return granted.ok();
            }
            if look >= deadline {
                // Granted since, or gone with the receiver.
                return granted.try_recv().ok();
            }
            let is_oldest =
                request.priority == MemoryPriority::Work && self.waiters().is_oldest_growth(Some(request.seniority));
            if is_oldest && was_oldest {
                let room = self.planned_ceiling().saturating_sub(self.used());
                let others = self.waiters().give_up_youngest(|oldest| oldest.bytes.saturating_sub(room));
                // No other guest makes room for more than it needs at least.
                if !others && self.try_add(request.least, self.ceiling(MemoryPriority::Work)) {
                    self.count(kind, request.least);
                    let least = Reservation::new(self, kind, request.least);
                    granted.close();
                    return Some(granted.try_recv().unwrap_or(least));
                }
            }
            was_oldest = is_oldest;
        }
    }

    /// Returns the seniority of a request that waits for the first time.
    pub(super) fn new_seniority(&self) -> u64 {
        self.waiters().new_seniority()
    }

    /// Returns `true` if a new request has to wait behind others.
    pub(super) fn blocks(&self, priority: MemoryPriority, bytes: u64) -> bool {
        self.waiters().blocks(priority, bytes)
    }

    /// Adds the growth of a guest to the sum, if no older guest waits and there is room, after ending idle instances if
    /// that is needed. Counts it.
    pub(super) fn take_growth(&self, bytes: u64, seniority: Option<u64>) -> bool {
        let is_taken = self.waiters().is_oldest_growth(seniority) && self.make_room(bytes, MemoryPriority::Work);
        if is_taken {
            self.count(MemoryKind::Instances, bytes);
        }
        is_taken
    }

    /// Adds the memory of a guest to the sum that starts, of which a part is expected only; if there is room, after
    /// ending idle instances if that is needed. The caller counts it.
    pub(super) fn try_start(&self, bytes: u64, expected: u64, priority: MemoryPriority) -> bool {
        let ceiling = self.start_ceiling(expected, priority);
        self.make_room_below(bytes, ceiling)
            || (self.used_by_guests() == 0 && self.try_add(bytes, self.ceiling(priority)))
    }

    /// Adds bytes to the sum, after ending as many idle instances as that takes.
    fn make_room(&self, bytes: u64, priority: MemoryPriority) -> bool {
        self.make_room_below(bytes, self.ceiling(priority))
    }

    fn make_room_below(&self, bytes: u64, ceiling: u64) -> bool {
        loop {
            if self.try_add(bytes, ceiling) {
                return true;
            }
            // Ending instances for what can never fit would be in vain.
            if bytes > ceiling || !self.reclaim() {
                return false;
            }
        }
    }
}

impl Reservation {
    /// Adds bytes if there is room, after ending idle instances if that is needed.
    ///
    /// # Errors
    /// There is no room.
    pub(crate) fn try_grow(&mut self, by: u64, priority: MemoryPriority) -> Result<(), MemoryShortage> {
        let more = self.budget.try_reserve(self.kind, by, priority).ok_or(MemoryShortage)?;
        self.merge(more);
        Ok(())
    }

    /// Adds bytes. Ends idle instances if that is needed, and then waits in turn.
    ///
    /// # Errors
    /// There was no room by `deadline`, or there can be none.
    pub(crate) async fn grow(
        &mut self,
        by: u64,
        priority: MemoryPriority,
        deadline: Instant,
    ) -> Result<(), MemoryShortage> {
        let more = self.budget.reserve(self.kind, by, priority, deadline).await?;
        self.merge(more);
        Ok(())
    }
}

/// Takes a request that leaves out of the queue, so that it is not counted among those that wait.
struct Departure<'a>(&'a MemoryBudget);

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        self.0.serve_waiters();
    }
}
