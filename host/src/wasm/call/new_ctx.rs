//! The data of a new store.

use std::sync::Arc;

use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi_http::WasiHttpCtx;

use crate::memory_budget::{GuestMemory, MemoryKind};
use crate::message::LogLevel;
use crate::wasm::call::ctx::{Ctx, Environment, HttpAnswering};
use crate::wasm::call::guest_config::GuestConfig;
use crate::wasm::call::outbound::Outbound;
use crate::wasm::call::random::MAX_RANDOM;
use crate::wasm::call::resources::resource_table;
use crate::wasm::call::stdio::LineLog;
use crate::wasm::http::response_progress::ResponseProgress;
use crate::wasm::limits::{MemoryBound, Meter};

/// Returns the data of the store of an instance that does not run yet, with the memory that is held for it.
pub(super) fn context(environment: &Environment, meter: &Arc<Meter>, held: GuestMemory) -> Ctx {
    let Environment { who, host, denials, slots, secrets, memory: (budget, _), expected, .. } = environment;
    let stderr = LineLog::new(who, host, secrets, LogLevel::Warn, "stderr");
    let stdout = LineLog::new(who, host, secrets, LogLevel::Info, "stdout");
    let mut wasi = WasiCtxBuilder::new();
    wasi.max_random_size(MAX_RANDOM).allow_tcp(false).allow_udp(false).stdout(stdout).stderr(stderr.clone());
    for name in &who.spec.allow.env {
        // A variable that the host does not have is left out, and `denied` reports it.
        if let Ok(value) = std::env::var(name) {
            wasi.env(name, value);
        }
    }
    Ctx {
        who: Arc::clone(who),
        host: Arc::clone(host),
        slots: Arc::clone(slots),
        work: None,
        effects: Arc::default(),
        memory: MemoryBound::new(who.spec.limits.memory_bytes, held, Arc::clone(&who.peak_memory), expected.clone()),
        meter: Arc::clone(meter),
        table: resource_table(),
        resources: budget.empty(MemoryKind::Resources),
        budget: budget.clone(),
        wasi: wasi.build(),
        reach: environment.reach(),
        http: WasiHttpCtx::new(),
        outbound: Outbound::new(who, host, denials),
        denials: Arc::clone(denials),
        answer: HttpAnswering::default(),
        answered: ResponseProgress::default(),
        pending_reply: None,
        config: GuestConfig::new(secrets.as_ref()),
        of_message: None,
        stderr,
    }
}
