//! The context of requests: the parts shared by all connections of the listener, and the connection itself.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use caxton_control::desired::HttpSpec;
use caxton_control::memory::MemoryPriority;
use http::StatusCode;

use super::body_memory::MEMORY_PATIENCE;
use super::rates::RouteRates;
use crate::access::Access;
use crate::agent::{Agent, HttpMetrics};
use crate::directory::HostDirectory;
use crate::memory_budget::{MemoryBudget, MemoryKind, MemoryShortage, Reservation};
use crate::net::ConnectionActivity;

/// The parts shared by all connections of the listener.
pub(super) struct ListenerContext {
    pub(super) directory: Arc<HostDirectory>,
    /// The tokens and keys of callers.
    pub(super) access: Arc<Access>,
    /// The rates of callers by route.
    pub(super) rates: RouteRates,
    /// The settings `[http]`, replaced as a whole by a reload.
    pub(super) settings: Arc<ArcSwap<HttpSpec>>,
    /// The address of the listener, for requests without a `host` header.
    pub(super) address: String,
    /// Set if the listener speaks TLS.
    pub(super) is_tls: bool,
    /// Metrics of requests that no agent answers.
    pub(super) unrouted: HttpMetrics,
}

/// The context of one connection for its requests.
pub(super) struct ConnectionContext {
    pub(super) listener: Arc<ListenerContext>,
    pub(super) activity: Arc<ConnectionActivity>,
    /// The memory of the connection, once there was room for it.
    held: OnceLock<Reservation>,
}

/// The bytes that a connection takes: its task, the buffers for reading and writing, small bodies.
const CONNECTION_BYTES: u64 = 32 << 10;

impl ConnectionContext {
    /// Creates the context of a connection that was just accepted.
    pub(super) fn new(listener: Arc<ListenerContext>, activity: Arc<ConnectionActivity>) -> Self {
        let context = Self { listener, activity, held: OnceLock::new() };
        let memory = context.memory();
        // Without room it is served all the same, as nothing else would tell its client why: its requests wait for it.
        if memory.has_room(MemoryPriority::Connections)
            && let Some(held) =
                memory.try_reserve(MemoryKind::Connections, CONNECTION_BYTES, MemoryPriority::Connections)
        {
            // Nothing else has set it yet.
            let _ = context.held.set(held);
        }
        context
    }

    /// Returns the host's budget of memory.
    pub(super) fn memory(&self) -> &MemoryBudget {
        &self.listener.directory.context.memory
    }

    /// Waits a little until the host has memory for another call of an agent. Two loads while it has.
    ///
    /// # Errors
    /// It had none in that time.
    pub(super) async fn admit_call(&self) -> Result<(), MemoryShortage> {
        if self.held.get().is_some() && self.memory().has_room(MemoryPriority::Calls) {
            return Ok(());
        }
        // Boxed: the wait is rare, and would make the future of every call larger.
        Box::pin(self.wait_for_memory(Instant::now() + MEMORY_PATIENCE)).await
    }

    async fn wait_for_memory(&self, deadline: Instant) -> Result<(), MemoryShortage> {
        if self.held.get().is_none() {
            let (kind, priority) = (MemoryKind::Connections, MemoryPriority::Connections);
            let held = self.memory().reserve(kind, CONNECTION_BYTES, priority, deadline).await?;
            // Two requests of one connection may both have waited for it: one gives it back.
            let _ = self.held.set(held);
        }
        self.memory().admit(MemoryPriority::Calls, deadline).await
    }
}

impl ListenerContext {
    /// Counts an answered request under its agent, or under `none`.
    pub(super) fn count_response(&self, agent: Option<&Agent>, status: StatusCode, took: Duration) {
        let metrics = agent.map_or(&self.unrouted, |agent| agent.stats().http(agent.name().as_str()));
        metrics.count(status.as_u16(), took);
    }
}
