//! An instance: a store, the guest in it, and its exports.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Sleep, sleep_until};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use crate::bounds;
use crate::memory_budget::MemoryShortage;
use crate::message::{
    CallContext, CallOrigin, Cause, Diagnostics, Effects, Failure, Fault, InstanceMemory, Message, RefusedMemory, Reply,
};
use crate::wasm::call::ctx::{Ctx, Environment, HttpAnswering};
use crate::wasm::call::exports::Exports;
use crate::wasm::call::fault::{self, Bounds, CpuExhausted};
use crate::wasm::call::new_ctx::context;
use crate::wasm::call::symbols::Symbols;
use crate::wasm::compile::program::Program;
use crate::wasm::convert;
use crate::wasm::http::caller::BodyError;
use crate::wasm::http::head_commit::{Head, HeadCommit, LateEffects};
use crate::wasm::http::over_tls::OverTls;
use crate::wasm::limits::{Meter, Metered};

/// Bytes that the host may allocate for lists and strings of one call beyond the size of the guest's memory: a value of
/// 16 bytes there may take 48 bytes here.
const HOSTCALL_BYTES: usize = 4 << 20;
/// The number of resource handles that a guest may hold.
const MAX_HANDLES: usize = 4_096;
/// The same for a component of WASI 0.3, where each may stand for a task, with a stack or a timer behind it.
const MAX_SERVICE_HANDLES: usize = 1_024;
/// Resources that may remain after a call. Guests in Rust, JavaScript and Python leave none but their standard streams.
/// More is a leak, which ends with the instance.
const MAX_LEFT: usize = 16;
/// The age from which an instance is not reused, which bounds leaks of a guest.
const MAX_AGE: Duration = Duration::from_secs(600);

pub(crate) struct Instance {
    pub(in crate::wasm) store: Store<Ctx>,
    pub(in crate::wasm) meter: Arc<Meter>,
    pub(in crate::wasm) exports: Exports,
    program: Arc<Program>,
    /// The permit of an engine with few instances. After the store, which takes its place in the engine.
    _permit: Option<OwnedSemaphorePermit>,
    /// Messages and requests that it has handled. Health checks do not count.
    uses: u32,
    born: Instant,
    /// The memory in bytes before its first call.
    first_memory: usize,
    /// The memory of a stateful agent, compared with what is committed of it.
    pub(in crate::wasm) memory: InstanceMemory,
}

impl Instance {
    /// Instantiates a program, within the limits of one message. Waits for memory of the host until `deadline`.
    pub(in crate::wasm) async fn start(
        program: &Arc<Program>,
        environment: &Environment,
        deadline: Instant,
    ) -> Result<Self, Fault> {
        let limits = &environment.who.spec.limits;
        let held = environment.memory(&program.summary, deadline).await?;
        let permit = program.permit(deadline).await?;
        let meter = Meter::new();
        let mut store = Store::new(program.pre.engine(), context(environment, &meter, held));
        store.data_mut().memory.begin(limits.time.min(deadline.saturating_duration_since(Instant::now())));
        store.limiter_async(|ctx| &mut ctx.memory);
        // Host functions that take a list have bounds of their own with proper errors: for messages, values and
        // snapshots. This limit only stops a guest that passes the same bytes many times over, which no honest guest
        // does.
        let copied = limits.memory_bytes.max(limits.message_bytes.saturating_mul(2));
        store.set_hostcall_fuel(usize::try_from(copied).unwrap_or(usize::MAX).saturating_add(HOSTCALL_BYTES));
        // wasmtime's default of 100,000 would let a guest take much memory of the host.
        store.set_max_component_handles(if program.summary.service { MAX_SERVICE_HANDLES } else { MAX_HANDLES });
        store.epoch_deadline_callback(|cx| {
            // A run that depends on a key which another handler has reserved would end in a conflict anyway.
            cx.data().check_not_blocked()?;
            if cx.data().meter.is_over() { Err(CpuExhausted.into()) } else { Ok(cx.data().meter.give_way()) }
        });
        meter.begin(limits.cpu);
        arm(&mut store, limits.fuel);
        // Boxed, because the future is large and would be part of that of every call.
        let instantiated = Box::pin(program.pre.instantiate_async(&mut store));
        let instance = match bounded(&meter, limits.time, instantiated).await {
            Ok(Ok(instance)) => instance,
            Ok(Err(error)) if error.is::<MemoryShortage>() => return Err(Fault::HostMemory),
            Ok(Err(error)) if error.is::<PoolConcurrencyLimitError>() => return Err(Fault::Overloaded),
            Ok(Err(error)) => {
                return Err(Fault::Start(start_failed(store.data(), &error, &program.symbols)));
            }
            Err(_) if store.data().memory.waits() => return Err(Fault::HostMemory),
            Err(_) => {
                let late = Fault::Time { limit: limits.time, diagnostics: store.data().diagnostics() };
                return Err(Fault::Start(late.to_string()));
            }
        };
        let exports = program
            .exports(&mut store, &instance)
            .map_err(|error| Fault::Start(format!("its exports have other types than the contract: {error:#}")))?;
        let first_memory = store.data().memory.used();
        let program = Arc::clone(program);
        let memory = InstanceMemory::default();
        Ok(Self {
            store,
            meter,
            exports,
            program,
            _permit: permit,
            uses: 0,
            born: Instant::now(),
            first_memory,
            memory,
        })
    }

    /// Returns `true` if the instance should not be reused after a call that ended well.
    pub(crate) fn is_worn(&mut self, reuse: u32, now: Instant) -> bool {
        let ctx = self.store.data_mut();
        let left = ctx.table.iter_mut().take(MAX_LEFT + 1).count();
        // An idle instance holds nothing of its last call.
        ctx.release_resources();
        self.uses >= reuse || now.saturating_duration_since(self.born) > MAX_AGE || self.has_grown() || left > MAX_LEFT
    }

    /// Returns the memory of a stateful agent, compared with what is committed of it.
    pub(crate) fn memory(&mut self) -> &mut InstanceMemory {
        &mut self.memory
    }

    /// Returns `true` once a commit was refused on which its memory builds.
    pub(in crate::wasm) fn is_broken(&self) -> bool {
        self.memory.line.is_broken()
    }

    /// Returns the number of messages and requests that it has handled.
    pub(in crate::wasm) fn uses(&self) -> u32 {
        self.uses
    }

    /// Returns `true` if it uses more than half of its limit and more than twice its initial memory: a leaking guest is
    /// replaced before it is refused memory.
    fn has_grown(&self) -> bool {
        let ctx = self.store.data();
        let used = ctx.memory.used();
        used as u64 > ctx.who.spec.limits.memory_bytes / 2 && used > self.first_memory.saturating_mul(2)
    }

    /// Takes the effects of the last call.
    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut *self.store.data().effects.lock())
    }

    /// Returns the time limit of a call.
    pub(crate) fn time(&self) -> Duration {
        self.store.data().who.spec.limits.time
    }

    /// Returns `true` if it answers by the handler of WASI 0.3.
    pub(in crate::wasm) fn is_service(&self) -> bool {
        self.exports.service.is_some()
    }

    /// Returns `true` if the last HTTP call set a response and finished its body.
    pub(in crate::wasm) fn has_answered(&self) -> bool {
        self.store.data().answered.is_complete()
    }

    /// Returns `true` if the last HTTP call set a response with a body that it did not finish.
    pub(in crate::wasm) fn left_its_body(&mut self) -> bool {
        self.store.data().answered.is_body_open() && !self.store.data_mut().answers_without_body()
    }

    /// Returns the details of a call that failed without a trap.
    pub(in crate::wasm) fn diagnostics(&self) -> Diagnostics {
        self.store.data().diagnostics()
    }

    /// Returns the memory limit, if the guest was refused memory beyond it.
    pub(in crate::wasm) fn starved(&self) -> Option<u64> {
        let ctx = self.store.data();
        ctx.memory.refused.then_some(ctx.who.spec.limits.memory_bytes)
    }

    /// Returns the CPU time of the last call.
    pub(crate) fn cpu(&self) -> Duration {
        self.meter.used()
    }

    /// Returns the end of the last call.
    pub(crate) fn ended(&self) -> Instant {
        self.meter.poll_ended()
    }

    /// Passes a message to the guest and returns its reply. `time` is the limit by the clock.
    ///
    /// After an error the instance must be dropped.
    pub(crate) async fn handle(
        &mut self,
        message: &Message,
        work: CallContext,
        time: Duration,
    ) -> Result<Result<Option<Reply>, Failure>, Fault> {
        self.begin(Some(work), time);
        self.store.data_mut().supply_by(|| (message.id.clone(), message.sent_at));
        let Some(handler) = &self.exports.handler else {
            let Some(broker) = &self.exports.broker else {
                return Err(Fault::Host("the component exports no handler".to_owned()));
            };
            let call = Box::pin(broker.handle(&mut self.store, message));
            let result = bounded(&self.meter, time, call).await;
            return Ok(self.explain(result, time)?.map_err(|failure| self.complete(failure)));
        };
        let headers = convert::borrow_headers(message);
        let call = handler.call_handle(&mut self.store, convert::borrow(message, &headers));
        let result = bounded(&self.meter, time, pin!(call)).await;
        let handled = self.explain(result, time)?;
        Ok(handled.map(|reply| reply.map(convert::reply)).map_err(|failure| self.complete(convert::failure(failure))))
    }

    /// Adds to a failure that the guest was refused memory, which may be the cause.
    pub(in crate::wasm) fn complete(&self, mut failure: Failure) -> Failure {
        if failure.cause == Cause::Fault
            && let Some(limit) = self.store.data().bounds().refused
        {
            failure.reason.push_str(&RefusedMemory(limit).to_string());
        }
        failure.reason = self.store.data().config.shortened(&failure.reason);
        failure
    }

    /// Runs the guest's health check. A guest that does not export `health` is healthy.
    pub(crate) async fn check(&mut self, time: Duration) -> Result<Result<(), String>, Fault> {
        self.begin(None, time);
        let Some(health) = &self.exports.health else { return Ok(Ok(())) };
        let result = bounded(&self.meter, time, pin!(health.call_check(&mut self.store))).await;
        Ok(self.explain(result, time)?.map_err(|why| self.store.data().config.shortened(&why)))
    }

    /// Takes the effects that came after the head of the last response, if there are any.
    pub(in crate::wasm) fn take_late_effects(&mut self) -> Option<Effects> {
        let ctx = self.store.data();
        let mut effects = ctx.effects.lock();
        (ctx.answer.is_begun() && effects.has_any()).then(|| std::mem::take(&mut *effects))
    }

    /// Returns the effects of the call under way, for the reader of its response.
    pub(in crate::wasm) fn late_effects(&self) -> LateEffects {
        LateEffects::of(&self.store.data().effects)
    }

    /// Runs an HTTP request until the guest ends. `sender` gets the head of the response when the guest sets it, with
    /// the effects until then. Later effects stay with the instance.
    pub(in crate::wasm) async fn serve_http<B>(
        &mut self,
        request: http::Request<B>,
        work: CallContext,
        time: Duration,
        (sender, head_commit): (oneshot::Sender<Head>, HeadCommit),
    ) -> Result<(), Fault>
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        self.begin(Some(work), time);
        let Some(http) = &self.exports.http else {
            return Err(Fault::Host("the component exports no wasi:http/incoming-handler".to_owned()));
        };
        let host = |error: wasmtime::Error| Fault::Host(format!("{error:#}"));
        let head = *request.method() == http::Method::HEAD;
        let origin = request.extensions().get::<CallOrigin>().cloned();
        self.store.data_mut().supply_by(|| {
            let CallOrigin { id, at_ms } = origin.unwrap_or_else(CallOrigin::now);
            (id, at_ms)
        });
        let status = Arc::<AtomicU16>::default();
        self.store.data_mut().answer = HttpAnswering { head, status: Arc::clone(&status), head_commit };
        let scheme = if request.extensions().get::<OverTls>().is_some() { Scheme::Https } else { Scheme::Http };
        let request = self.store.data_mut().http().new_incoming_request(scheme, request).map_err(host)?;
        let effects = Arc::clone(&self.store.data().effects);
        let answered = self.store.data().answered.clone();
        let outparam = self
            .store
            .data_mut()
            .http()
            .new_response_outparam_from_callback(move |response| {
                answered.note_response_set(response.as_ref().ok());
                if let Ok(response) = &response {
                    status.store(response.status().as_u16(), Ordering::Relaxed);
                }
                let is_kept = response.as_ref().is_ok_and(|response| !response.status().is_server_error());
                let taken = effects.lock().take_with_head(is_kept);
                // The client may have left, which is not an error of the guest.
                let _ = sender.send((response.map_err(|code| format!("{code:?}")), taken));
            })
            .map_err(host)?;
        let result = bounded(&self.meter, time, pin!(http.call_handle(&mut self.store, request, outparam))).await;
        self.explain(result, time)
    }

    /// Prepares a call that has so much time.
    pub(in crate::wasm) fn begin(&mut self, work: Option<CallContext>, time: Duration) {
        let limits = &self.store.data().who.spec.limits;
        let fuel = limits.fuel;
        self.meter.begin(work.as_ref().map_or(limits.cpu, |work| work.cpu(limits.cpu)));
        arm(&mut self.store, fuel);
        self.uses += u32::from(work.is_some());
        let ctx = self.store.data_mut();
        ctx.memory.begin(time);
        ctx.begin(work);
    }

    pub(in crate::wasm) fn explain<T>(
        &mut self,
        result: Result<wasmtime::Result<T>, Late>,
        time: Duration,
    ) -> Result<T, Fault> {
        let limits = &self.store.data().who.spec.limits;
        let within = (limits.cpu, limits.fuel);
        self.explain_within(result, time, within)
    }

    /// Converts the result of a call with these limits by the clock, on a core and of fuel.
    pub(in crate::wasm) fn explain_within<T>(
        &mut self,
        result: Result<wasmtime::Result<T>, Late>,
        time: Duration,
        (cpu, fuel): (Duration, Option<u64>),
    ) -> Result<T, Fault> {
        // Every call of a guest comes through here at its end.
        let ctx = self.store.data_mut();
        ctx.outbound.end_calls();
        if ctx.work.is_some() {
            // Not after a restore, which the call comes after.
            ctx.memory.end();
        }
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let ctx = self.store.data();
                if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
                    ctx.slots.note_used_up_stack();
                }
                let bounds = Bounds { cpu, fuel, ..ctx.bounds() };
                Err(fault::of_error(&error, bounds, &self.program.symbols, ctx.stderr.last()))
            }
            // The guest would have had the time, but for the host.
            Err(_) if self.store.data().memory.waits() => Err(Fault::HostMemory),
            Err(_) => Err(Fault::Time { limit: time, diagnostics: self.diagnostics() }),
        }
    }
}

impl Ctx {
    fn bounds(&self) -> Bounds {
        let limits = &self.who.spec.limits;
        let refused = self.memory.refused.then_some(limits.memory_bytes);
        Bounds { cpu: limits.cpu, fuel: limits.fuel, refused }
    }

    /// Returns the details of a guest that failed without a trap.
    fn diagnostics(&self) -> Diagnostics {
        Diagnostics::new(String::new(), self.stderr.last(), self.bounds().refused)
    }
}

/// Renders the reason of a failed start in one line.
fn start_failed(ctx: &Ctx, error: &wasmtime::Error, symbols: &Symbols) -> String {
    let words = ctx.stderr.last();
    let said = if words.is_empty() { String::new() } else { format!("; it said: {}", words.replace('\n', " | ")) };
    if ctx.memory.refused {
        return format!("limits.memory ({} bytes) is too small for its start{said}", ctx.who.spec.limits.memory_bytes);
    }
    bounds::cut(format!("{}{said}", fault::of_error(error, ctx.bounds(), symbols, words)), bounds::ERROR)
}

/// The error of a call that exceeded its time limit.
pub(in crate::wasm) struct Late;

/// Runs a call, measures its CPU time and bounds its time by the clock.
pub(in crate::wasm) async fn bounded<F: Future + Unpin>(
    meter: &Meter,
    time: Duration,
    call: F,
) -> Result<F::Output, Late> {
    let mut call = Metered { meter, future: call };
    // Created when the call has to wait for the first time: most calls end before, and tokio's timer wheel is shared by
    // all threads.
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut call).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until((meter.poll_began() + time).into())));
        timer.as_mut().poll(cx).map(|()| Err(Late))
    })
    .await
}

/// Sets the deadline to the next tick, and the fuel of one call.
pub(in crate::wasm) fn arm(store: &mut Store<Ctx>, fuel: Option<u64>) {
    // A fresh store has the deadline 0 and would be interrupted at once.
    store.set_epoch_deadline(1);
    if let Some(fuel) = fuel {
        store.set_fuel(fuel).expect("an agent that sets fuel runs on the engine that counts it");
    }
}
