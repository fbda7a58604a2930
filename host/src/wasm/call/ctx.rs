//! The data of a store, for the host functions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use caxton_control::memory::MemoryPriority;
use parking_lot::Mutex;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi_http::WasiHttpCtx;

use crate::memory_budget::{ExpectedMemory, MemoryBudget, Reservation};
use crate::message::{CallContext, Effects, GuestHost, Identity};
use crate::secrets::AgentSecrets;
use crate::wasm::bindings::types;
use crate::wasm::call::guest_config::GuestConfig;
use crate::wasm::call::of_message::OfMessage;
use crate::wasm::call::outbound::{Denials, Outbound};
use crate::wasm::call::stdio::LineLog;
use crate::wasm::compat::pending_reply::PendingReply;
use crate::wasm::files::folders::{GuestFolders, OpenFiles};
use crate::wasm::http::head_commit::HeadCommit;
use crate::wasm::http::response_progress::ResponseProgress;
use crate::wasm::limits::{MemoryBound, Meter};
use crate::wasm::pool::slots::InstanceSlots;
use crate::wasm::sockets::known_names::KnownNames;

/// The parts that all instances of a pool share.
#[derive(Clone)]
pub(in crate::wasm) struct Environment {
    /// The identity of the instances.
    pub(in crate::wasm) who: Arc<Identity>,
    pub(in crate::wasm) host: Arc<dyn GuestHost>,
    /// The denials that were logged already: each is logged once, regardless of the number of instances.
    pub(in crate::wasm) denials: Arc<Denials>,
    /// The slots, of which each instance has one.
    pub(in crate::wasm) slots: Arc<InstanceSlots>,
    /// The secrets, if the configuration refers to some.
    pub(in crate::wasm) secrets: Option<Arc<AgentSecrets>>,
    /// The host's budget of memory, with the share of it that these instances may fill when they start.
    pub(in crate::wasm) memory: (MemoryBudget, MemoryPriority),
    /// The memory that these instances are expected to take.
    pub(in crate::wasm) expected: ExpectedMemory,
    /// The folders that the instances see.
    pub(in crate::wasm) folders: GuestFolders,
}

/// The parts of the world outside that a guest reaches.
pub(in crate::wasm) struct GuestReach {
    /// The folders that it sees.
    pub(in crate::wasm) folders: GuestFolders,
    /// The files that it has open.
    pub(in crate::wasm) open_files: OpenFiles,
    /// The names that it has looked up.
    pub(in crate::wasm) names: KnownNames,
}

impl Environment {
    /// Returns the reach of an instance that begins.
    pub(in crate::wasm) fn reach(&self) -> GuestReach {
        let folders = Arc::clone(&self.folders);
        GuestReach { folders, open_files: OpenFiles::default(), names: KnownNames::default() }
    }
}

/// The data of a store.
pub(crate) struct Ctx {
    pub(in crate::wasm) who: Arc<Identity>,
    pub(in crate::wasm) host: Arc<dyn GuestHost>,
    /// The slots, of which this instance has one.
    pub(in crate::wasm) slots: Arc<InstanceSlots>,
    pub(in crate::wasm) work: Option<CallContext>,
    /// The effects of the current call. Shared, because the head of an HTTP response is sent while the guest still
    /// holds the store.
    pub(in crate::wasm) effects: Arc<Mutex<Effects>>,
    pub(in crate::wasm) memory: MemoryBound,
    pub(in crate::wasm) meter: Arc<Meter>,
    /// The requests of the guest. Dropped before the resources, which are their bodies.
    pub(in crate::wasm) outbound: Outbound,
    pub(in crate::wasm) table: ResourceTable,
    /// The memory that the resources of the current call may take.
    pub(in crate::wasm) resources: Reservation,
    /// The host's budget of memory.
    pub(in crate::wasm) budget: MemoryBudget,
    pub(in crate::wasm) wasi: WasiCtx,
    pub(in crate::wasm) reach: GuestReach,
    pub(in crate::wasm) http: WasiHttpCtx,
    /// The denials that were logged already.
    pub(in crate::wasm) denials: Arc<Denials>,
    pub(in crate::wasm) answer: HttpAnswering,
    /// The progress of the response of the current HTTP call.
    pub(in crate::wasm) answered: ResponseProgress,
    /// The reply that a component of wasmCloud may publish in the current call.
    pub(in crate::wasm) pending_reply: Option<PendingReply>,
    pub(in crate::wasm) config: GuestConfig,
    /// The clocks and random numbers that follow from the message; `None` before the first one.
    pub(in crate::wasm) of_message: Option<Box<OfMessage>>,
    /// The guest's last lines on stderr, shown with its error.
    pub(in crate::wasm) stderr: LineLog,
}

/// The response of the current HTTP call.
#[derive(Default)]
pub(in crate::wasm) struct HttpAnswering {
    /// Set if the request is HEAD.
    pub(in crate::wasm) head: bool,
    /// The status once the response was sent; 0 before. Shared, because it is set while the guest still holds the
    /// store.
    pub(in crate::wasm) status: Arc<AtomicU16>,
    /// The commit of what came before the head.
    pub(in crate::wasm) head_commit: HeadCommit,
}

impl HttpAnswering {
    /// Returns `true` once the response was sent.
    pub(in crate::wasm) fn is_begun(&self) -> bool {
        self.status.load(Ordering::Relaxed) != 0
    }

    /// Returns the commit that others wait for, once the response was sent.
    pub(super) fn commit_of_head(&self) -> Option<HeadCommit> {
        self.is_begun().then(|| self.head_commit.clone())
    }
}

impl Ctx {
    /// Prepares the store for another call.
    pub(in crate::wasm) fn begin(&mut self, mut work: Option<CallContext>) {
        {
            let mut effects = self.effects.lock();
            // An instance is reused, and effects left by the previous call must not be committed with this one.
            effects.reset();
            if let Some(work) = &mut work {
                // Answers of earlier runs of the same message, so that a repeated run does not ask again.
                effects.requests = std::mem::take(&mut work.run.requests);
            }
        }
        self.release_resources();
        self.work = work;
        self.outbound.begin();
        self.config.begin();
        self.pending_reply = None;
        self.stderr.begin();
        // Replaced and not reset: the old one may still be shared with the previous response.
        self.answered = ResponseProgress::default();
    }

    /// Returns the host interface of the current call.
    pub(in crate::wasm) fn host(&self) -> &dyn GuestHost {
        // A recorded call brings a recorder, and a copy a replay, in place of the pool's host.
        self.work.as_ref().and_then(|work| work.host.as_deref()).unwrap_or(&*self.host)
    }

    pub(in crate::wasm) fn limits(&self) -> &caxton_control::desired::Limits {
        &self.who.spec.limits
    }
}

impl types::Host for Ctx {}
