//! The agents of the host by name, path and capability; what guests reach of each other; the times at which agents act.
//!
//! ```text
//! reconcile --publish--> Routes <--read-- http, admin
//!                          ^
//! guest --guest_host--> resolve, request, deadlock --> Agent --Directory--> other agents
//! clock --> wakeups, schedules, idle, expiry --> Agent
//! ```
//! Nothing here decides what runs: the reconciler publishes it.

mod budget_notices;
mod deadlock;
mod expiry;
mod forgotten;
mod guest_host;
mod http_calls;
pub(crate) mod idle;
pub(crate) mod memory_watch;
mod orphans;
mod redeliver;
mod request;
mod resolve;
pub(crate) mod routes;
pub(crate) mod schedules;
mod tcp_calls;
pub(crate) mod wakeups;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use self::routes::Routes;
use crate::agent::{AdmitError, Agent, AgentShared, Directory};
use crate::context::HostContext;
use crate::message::{CallContext, Draft, Envelope, Identity};

pub(crate) use expiry::expire_conversations;
pub(crate) use orphans::{bury_orphan_timers, bury_orphans, waiting_for_others};
pub(crate) use redeliver::{NotRedelivered, RedeliverError, Redelivered};

/// The agents of a host.
pub(crate) struct HostDirectory {
    pub(crate) context: Arc<HostContext>,
    pub(crate) shared: Arc<AgentShared>,
    /// A snapshot that the reconciler replaces as a whole, so that calls read it without a lock.
    pub(crate) routes: ArcSwap<Routes>,
    /// A notification that the wall clock was set, for schedules, which go by it.
    clock_set: Notify,
}

impl HostDirectory {
    /// Creates a directory without agents.
    ///
    /// # Errors
    /// The messages that wait in the store cannot be read.
    pub(crate) fn new(context: Arc<HostContext>) -> Result<Arc<Self>, String> {
        let shared = Arc::new(AgentShared::new(Arc::clone(&context))?);
        let directory = Arc::new(Self { context, shared, routes: ArcSwap::default(), clock_set: Notify::new() });
        directory.report_budgets();
        Ok(directory)
    }
}

impl Directory for HostDirectory {
    fn shared(&self) -> &Arc<AgentShared> {
        &self.shared
    }

    fn agent(&self, name: &str) -> Option<Arc<Agent>> {
        self.routes.load().including_retiring(name).cloned()
    }

    fn receiver(&self, name: &str, conversation: &str) -> Option<Arc<Agent>> {
        // Cloned, so that no guard of the snapshot is held while a message is delivered.
        self.routes.load().receiver(name, conversation).cloned()
    }

    fn address(
        &self,
        who: &Identity,
        work: &CallContext,
        draft: Draft,
    ) -> Result<(Arc<Agent>, Box<Envelope>), AdmitError> {
        // Of a copy, which begins no tree.
        self.address_draft(who, work, draft)
    }
}
