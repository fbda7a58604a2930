//! The memory of a guest: what it has, and what it is expected to take in its call.
//!
//! ```text
//! start: base + expected --> growth within what is expected waits for nothing
//!                              '-- beyond it: free? --> taken
//!                                    '-- no --> wait by seniority --> MemoryShortage: the guest ends, others go on
//! end of the call: what was expected and not taken is given back
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use caxton_control::memory::MemoryPriority;
use caxton_control::memory_queue::{
    MemoryRequest, expected_after, expected_after_end, growth_to_wait_for, planned_ceiling,
};

use super::budget::{MemoryBudget, Reservation};
use super::kind::{MemoryKind, MemoryShortage};

/// The memory of one guest.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    budget: MemoryBudget,
    held: Reservation,
    /// The bytes that are kept for it and that it has not taken.
    expected: Reservation,
    /// The place among guests that wait, from the first wait in a call on.
    seniority: Option<u64>,
}

/// The memory that the guests of a pool are expected to take, in bytes beside that with which they start.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExpectedMemory(Arc<AtomicU64>);

impl ExpectedMemory {
    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> u64 {
        // Relaxed, here and below: an expectation that is a little old costs a wait or some room.
        self.0.load(Ordering::Relaxed)
    }

    /// Notes that a guest has at least so many bytes.
    pub(crate) fn note_growth(&self, bytes: u64) {
        if bytes > self.bytes() {
            self.0.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// Notes that a call ended in which a guest had so many bytes.
    pub(crate) fn note_call(&self, bytes: u64) {
        let expected = self.bytes();
        let next = expected_after(expected, bytes);
        // Written when it changes only: all threads read it.
        if next != expected {
            self.0.store(next, Ordering::Relaxed);
        }
    }

    /// Notes that a guest had to end which wanted so many bytes, of the ones that it may have.
    pub(crate) fn note_end(&self, wanted: u64, limit: u64) {
        self.note_growth(expected_after_end(wanted, limit));
    }
}

impl GuestMemory {
    /// Returns the bytes that it holds, with those that are kept for it.
    fn bytes(&self) -> u64 {
        self.held.bytes() + self.expected.bytes()
    }

    /// Begins a call, in which it has not waited yet.
    pub(crate) fn begin_call(&mut self) {
        self.seniority = None;
    }

    /// Ends a call: gives back what it was expected to take and has not.
    pub(crate) fn end_call(&mut self) {
        self.expected.hold(0);
    }

    /// Keeps so many bytes for its next call. Does not wait; returns `false` if there is no room.
    pub(crate) fn try_expect(&mut self, bytes: u64) -> bool {
        let is_there = bytes == 0 || self.budget.try_start(bytes, bytes, MemoryPriority::Instances);
        if is_there && bytes > 0 {
            self.budget.count(MemoryKind::Expected, bytes);
            self.expected.add_counted(bytes);
        }
        is_there
    }

    /// Takes bytes: of those that are kept for it, then of those that are free. Waits by seniority if there are not
    /// enough. `left` is what the guest may have beside what it has, and `likely` what it will probably take of that.
    ///
    /// # Errors
    /// There were none by `deadline`, or it has to end so that an older guest goes on.
    pub(crate) async fn grow(
        &mut self,
        by: u64,
        (left, likely): (u64, u64),
        deadline: Instant,
    ) -> Result<(), MemoryShortage> {
        let planned = by.min(self.expected.bytes());
        let more = by - planned;
        if more > 0 {
            self.take_more(more, (left - planned.min(left), likely), deadline).await?;
        }
        self.expected.move_to(&mut self.held, planned);
        Ok(())
    }

    async fn take_more(
        &mut self,
        more: u64,
        (left, likely): (u64, u64),
        deadline: Instant,
    ) -> Result<(), MemoryShortage> {
        if self.budget.take_growth(more, self.seniority) {
            self.held.add_counted(more);
            return Ok(());
        }
        let seniority = *self.seniority.get_or_insert_with(|| self.budget.new_seniority());
        let (limit, held) = (self.budget.limit(), self.bytes());
        let bytes =
            growth_to_wait_for(more, held.max(likely), left, self.budget.planned_ceiling().saturating_sub(held));
        let request = MemoryRequest { priority: MemoryPriority::Work, seniority, bytes, least: more, held };
        // No wait helps one that can never fit.
        let waits = bytes <= limit;
        let granted = if waits { self.budget.wait(MemoryKind::Instances, request, deadline).await } else { None };
        let Some(mut granted) = granted else {
            self.budget.note_refusal(MemoryPriority::Work);
            return Err(MemoryShortage);
        };
        granted.move_to(&mut self.held, more);
        let rest = granted.bytes();
        // More than it needs now, so that it does not wait for its next growth.
        granted.move_to(&mut self.expected, rest);
        Ok(())
    }
}

impl MemoryBudget {
    /// Reserves the memory with which a guest starts, and what it is expected to take in its call. Waits in turn, and
    /// holds nothing meanwhile.
    ///
    /// # Errors
    /// There was no room by `deadline`, or there can be none.
    pub(crate) async fn reserve_guest(
        &self,
        base: u64,
        expected: u64,
        priority: MemoryPriority,
        deadline: Instant,
    ) -> Result<GuestMemory, MemoryShortage> {
        if !self.blocks(priority, base) && self.try_start(base + expected, expected, priority) {
            self.count(MemoryKind::Instances, base);
            self.count(MemoryKind::Expected, expected);
            return Ok(self.guest(base, expected));
        }
        // What is held for others may leave less than is expected even if it were the only guest.
        let others = self.used().saturating_sub(self.used_by_guests());
        let most = priority.ceiling(self.limit()).saturating_sub(others).saturating_sub(base);
        let (expected, bytes) = (expected.min(most), base + expected.min(most));
        let request = MemoryRequest { priority, seniority: self.new_seniority(), bytes, least: bytes, held: 0 };
        let waits = bytes <= priority.ceiling(self.limit());
        let granted = if waits { self.wait(MemoryKind::Instances, request, deadline).await } else { None };
        let Some(mut granted) = granted else {
            self.note_refusal(priority);
            return Err(MemoryShortage);
        };
        let mut guest = self.guest(0, 0);
        granted.move_to(&mut guest.held, base);
        granted.move_to(&mut guest.expected, expected);
        Ok(guest)
    }

    /// Returns the memory of a guest whose bytes are counted already.
    fn guest(&self, base: u64, expected: u64) -> GuestMemory {
        let (mut held, mut kept) = (self.empty(MemoryKind::Instances), self.empty(MemoryKind::Expected));
        held.add_counted(base);
        kept.add_counted(expected);
        GuestMemory { budget: self.clone(), held, expected: kept, seniority: None }
    }

    /// Returns the bound of a start of which a part is expected only.
    pub(super) fn start_ceiling(&self, expected: u64, priority: MemoryPriority) -> u64 {
        if expected == 0 { priority.ceiling(self.limit()) } else { planned_ceiling(self.limit(), priority) }
    }
}
