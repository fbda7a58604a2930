//! The memory of the host that instances take: before they start, and before a call.

use std::time::Instant;

use crate::memory_budget::{GuestMemory, MemoryShortage};
use crate::message::Fault;
use crate::wasm::call::ctx::Environment;
use crate::wasm::call::instance::Instance;
use crate::wasm::inspect::Summary;
use crate::wasm::limits::{HTTP_BYTES, INSTANCE_BYTES, SERVICE_BYTES};

impl Environment {
    /// Reserves the memory that an instance takes before its guest has any, and what that is expected to take. The wait
    /// for it ends at half of the time, so that the caller learns of it.
    pub(in crate::wasm) async fn memory(&self, component: &Summary, deadline: Instant) -> Result<GuestMemory, Fault> {
        let http = if component.kind.answers_http() { HTTP_BYTES } else { 0 };
        let bytes = INSTANCE_BYTES + http + if component.service { SERVICE_BYTES } else { 0 };
        let (budget, priority) = &self.memory;
        let now = Instant::now();
        let by = now + deadline.saturating_duration_since(now) / 2;
        // Boxed, as the future would be part of that of every call.
        let held = Box::pin(budget.reserve_guest(bytes, self.expected.bytes(), *priority, by)).await;
        held.map_err(|MemoryShortage| Fault::HostMemory)
    }
}

impl Instance {
    /// Returns `true` if the memory of a stateful agent is that of its last commit: another instance restores it as it is.
    pub(in crate::wasm) fn is_committed(&self) -> bool {
        // One that was not used may have been given a memory that the store does not have yet.
        (self.memory.is_restored || self.uses() > 0) && self.memory.in_step
    }

    /// Returns `true` if the last call has made calls over HTTP.
    pub(crate) fn has_called_out(&self) -> bool {
        self.store.data().outbound.has_called()
    }

    /// Gives back the memory that is kept for a call: the instance becomes idle.
    pub(in crate::wasm) fn rest(&mut self) {
        self.store.data_mut().memory.rest();
    }

    /// Keeps the memory that the next call is expected to take. Returns `false` if the host has no room for it.
    pub(in crate::wasm) fn try_expect_memory(&mut self) -> bool {
        self.store.data_mut().memory.try_expect()
    }
}
