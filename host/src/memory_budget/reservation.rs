//! A reservation: bytes of the budget that are held until it is dropped.

use std::time::Instant;

use caxton_control::memory::MemoryPriority;

use super::{MemoryBudget, MemoryKind, MemoryShortage};

/// Bytes of the budget. Dropping it gives them back.
pub(crate) struct Reservation {
    budget: MemoryBudget,
    kind: MemoryKind,
    bytes: u64,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of {}", self.bytes, self.kind.as_str())
    }
}

impl Reservation {
    pub(super) fn new(budget: &MemoryBudget, kind: MemoryKind, bytes: u64) -> Self {
        Self { budget: budget.clone(), kind, bytes }
    }

    /// Returns the bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

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

    /// Sets the number of bytes, whatever the bound: they are there already.
    pub(crate) fn hold(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.budget.add(self.kind, bytes - self.bytes);
        } else {
            self.budget.subtract(self.kind, self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Adds the bytes of another reservation of the same kind.
    fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Counts the bytes under another kind from now on.
    #[must_use]
    pub(crate) fn into_kind(mut self, kind: MemoryKind) -> Self {
        let bytes = std::mem::take(&mut self.bytes);
        self.budget.0.kinds.here()[self.kind as usize].fetch_sub(bytes, std::sync::atomic::Ordering::Relaxed);
        self.budget.count(kind, bytes);
        Self::new(&self.budget, kind, bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.subtract(self.kind, self.bytes);
    }
}
