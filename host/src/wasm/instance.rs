//! One instance: a store, the guest in it and the functions that it exports.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep_until};
use wasmtime::component::ResourceTable;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpView};

use super::bindings::{handler, health, incoming_handler, snapshot};
use super::caller::BodyError;
use super::effects::Effects;
use super::fault::CpuExhausted;
use super::guest::{Ctx, HttpAnswering, Identity, LogLevel, Outside, Work};
use super::http::{Outbound, SCHEME};
use super::limits::{MemoryBound, Meter, Metered};
use super::places::Places;
use super::program::Program;
use super::stdio::LineLog;
use super::{Fault, wit};

/// What the host allocates for one call's lists and strings, beyond twice the largest message.
const HOSTCALL_BYTES: usize = 4 << 20;
/// Handles of resources that a guest may hold.
const MAX_HANDLES: usize = 4_096;
/// Entries of the table of resources behind those handles.
const MAX_RESOURCES: usize = 1_024;
/// Resources that may be left when a call has ended. Guests in Rust, JavaScript and Python leave none, and keep
/// their standard streams once they have used them; more than that is a leak, which ends with the instance.
const MAX_LEFT: usize = 16;
/// Random bytes that a guest may ask for at once.
const MAX_RANDOM: u64 = 64 << 10;
/// An instance is not used for longer, whatever it does: leaks of a guest end with it.
const MAX_AGE: Duration = Duration::from_secs(600);

/// A live guest.
pub(crate) struct Instance {
    store: Store<Ctx>,
    meter: Arc<Meter>,
    exports: Exports,
    calls: u32,
    born: Instant,
    /// Bytes of memory that it had before its first call.
    first_memory: usize,
}

/// What a live guest exports.
struct Exports {
    handler: Option<handler::Guest>,
    http: Option<incoming_handler::Guest>,
    snapshot: Option<snapshot::Guest>,
    health: Option<health::Guest>,
}

impl Instance {
    /// Instantiates a program, within the limits that a message has.
    pub(super) async fn start(
        program: &Program,
        who: &Arc<Identity>,
        outside: &Arc<dyn Outside>,
        places: &Arc<Places>,
    ) -> Result<Self, Fault> {
        let limits = &who.spec.limits;
        let meter = Meter::new();
        let mut store = Store::new(program.pre.engine(), context(who, outside, places, &meter));
        store.limiter(|ctx| &mut ctx.memory);
        store.set_hostcall_fuel(
            usize::try_from(limits.message_bytes)
                .unwrap_or(usize::MAX)
                .saturating_mul(2)
                .saturating_add(HOSTCALL_BYTES),
        );
        store.set_max_component_handles(MAX_HANDLES);
        store.epoch_deadline_callback(|cx| {
            if cx.data().meter.is_over() { Err(CpuExhausted.into()) } else { Ok(UpdateDeadline::Yield(1)) }
        });
        meter.begin(limits.cpu);
        arm(&mut store, limits.fuel);
        let instantiated = Box::pin(program.pre.instantiate_async(&mut store));
        let instance = match bounded(&meter, limits.time, instantiated).await {
            Ok(Ok(instance)) => instance,
            Ok(Err(error)) => {
                let reason = if store.data().memory.refused {
                    format!("limits.memory ({} bytes) is too small for its start", limits.memory_bytes)
                } else {
                    Fault::of(&error, limits.cpu, limits.fuel).to_string()
                };
                return Err(Fault::Start(reason));
            }
            Err(_) => return Err(Fault::Start(Fault::Time { limit: limits.time }.to_string())),
        };
        let exports = program
            .exports(&mut store, &instance)
            .map_err(|error| Fault::Start(format!("its exports have other types than the contract: {error:#}")))?;
        let first_memory = store.data().memory.used();
        Ok(Self { store, meter, exports, calls: 0, born: Instant::now(), first_memory })
    }

    /// Whether it should not be used again, now that a call of it ended well.
    pub(crate) fn is_worn(&mut self, reuse: u32, now: Instant) -> bool {
        let left = self.store.data_mut().table.iter_mut().take(MAX_LEFT + 1).count();
        self.calls >= reuse || now.saturating_duration_since(self.born) > MAX_AGE || self.has_grown() || left > MAX_LEFT
    }

    /// Whether it holds more than half of what it may, and much more than it began with: a guest that leaks
    /// begins anew before it is refused memory.
    fn has_grown(&self) -> bool {
        let ctx = self.store.data();
        let used = ctx.memory.used();
        used as u64 > ctx.who.spec.limits.memory_bytes / 2 && used > self.first_memory.saturating_mul(2)
    }

    /// The effects of the last call.
    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut *self.store.data().effects.lock())
    }

    /// How long one call of it may take.
    pub(crate) fn time(&self) -> Duration {
        self.store.data().who.spec.limits.time
    }

    /// How much memory it may have, if it was refused more.
    pub(super) fn starved(&self) -> Option<u64> {
        let ctx = self.store.data();
        ctx.memory.refused.then_some(ctx.who.spec.limits.memory_bytes)
    }

    /// Time on a core of the last call.
    pub(crate) fn cpu(&self) -> Duration {
        self.meter.used()
    }

    /// When the last call ended.
    pub(crate) fn ended(&self) -> Instant {
        self.meter.poll_ended()
    }

    /// Hands a message to the guest and returns what it said. `time` bounds the call by the clock.
    ///
    /// After an error the instance must be dropped.
    pub(crate) async fn handle(
        &mut self,
        message: &wit::Message,
        work: Work,
        time: Duration,
    ) -> Result<Result<Option<wit::Reply>, wit::Failure>, Fault> {
        self.begin(Some(work));
        let Some(handler) = &self.exports.handler else {
            return Err(Fault::Host("the component exports no handler".to_owned()));
        };
        let result = bounded(&self.meter, time, pin!(handler.call_handle(&mut self.store, message))).await;
        self.explain(result, time)
    }

    /// Asks the guest whether it can work; a guest that does not export `health` can.
    pub(crate) async fn check(&mut self, time: Duration) -> Result<Result<(), String>, Fault> {
        self.begin(None);
        let Some(health) = &self.exports.health else { return Ok(Ok(())) };
        let result = bounded(&self.meter, time, pin!(health.call_check(&mut self.store))).await;
        self.explain(result, time)
    }

    /// The guest's memory as bytes of its own choosing; none when it keeps no state there.
    pub(crate) async fn save(&mut self, time: Duration) -> Result<Option<Result<Vec<u8>, String>>, Fault> {
        self.begin(None);
        let Some(snapshot) = &self.exports.snapshot else { return Ok(None) };
        let result = bounded(&self.meter, time, pin!(snapshot.call_save(&mut self.store))).await;
        self.explain(result, time).map(Some)
    }

    /// Gives the guest what it saved before.
    pub(crate) async fn restore(&mut self, saved: &[u8], time: Duration) -> Result<(), Fault> {
        self.begin(None);
        let Some(snapshot) = &self.exports.snapshot else { return Ok(()) };
        // The contract takes the bytes by value.
        let saved = saved.to_vec();
        let result = bounded(&self.meter, time, pin!(snapshot.call_restore(&mut self.store, &saved))).await;
        self.explain(result, time)?.map_err(Fault::Restore)
    }

    /// Runs one HTTP request to the end of the guest. `sender` gets the head of the response when the guest
    /// sets it, with the effects up to then; later effects are refused.
    pub(super) async fn serve_http<B>(
        &mut self,
        request: http::Request<B>,
        work: Work,
        time: Duration,
        sender: oneshot::Sender<(Result<http::Response<HyperOutgoingBody>, ErrorCode>, Effects)>,
    ) -> Result<(), Fault>
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        self.begin(Some(work));
        let Some(http) = &self.exports.http else {
            return Err(Fault::Host("the component exports no wasi:http/incoming-handler".to_owned()));
        };
        let host = |error: wasmtime::Error| Fault::Host(format!("{error:#}"));
        let head = *request.method() == http::Method::HEAD;
        let status = Arc::<AtomicU16>::default();
        self.store.data_mut().answer = HttpAnswering { head, status: Arc::clone(&status) };
        let request = self.store.data_mut().http().new_incoming_request(SCHEME, request).map_err(host)?;
        let effects = Arc::clone(&self.store.data().effects);
        let outparam = self
            .store
            .data_mut()
            .http()
            .new_response_outparam_from_callback(move |response| {
                if let Ok(response) = &response {
                    status.store(response.status().as_u16(), Ordering::Relaxed);
                }
                let mut effects = effects.lock();
                let taken = std::mem::take(&mut *effects);
                effects.closed = true;
                // A client that left meanwhile is no error of the guest.
                let _ = sender.send((response, taken));
            })
            .map_err(host)?;
        let result = bounded(&self.meter, time, pin!(http.call_handle(&mut self.store, request, outparam))).await;
        self.explain(result, time)
    }

    fn begin(&mut self, work: Option<Work>) {
        let limits = &self.store.data().who.spec.limits;
        let fuel = limits.fuel;
        self.meter.begin(limits.cpu);
        arm(&mut self.store, fuel);
        self.store.data_mut().begin(work);
        self.calls += 1;
    }

    fn explain<T>(&self, result: Result<wasmtime::Result<T>, Late>, time: Duration) -> Result<T, Fault> {
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let ctx = self.store.data();
                let limits = &ctx.who.spec.limits;
                let mut fault = Fault::of(&error, limits.cpu, limits.fuel);
                if let (Fault::Trap { message, .. }, true) = (&mut fault, ctx.memory.refused) {
                    message.push_str(&format!(
                        " (it was refused memory above limits.memory, {} bytes)",
                        limits.memory_bytes
                    ));
                }
                Err(fault)
            }
            Err(_) => Err(Fault::Time { limit: time }),
        }
    }
}

/// A call took longer than it may.
struct Late;

/// Runs a call with its time on a core counted and its time by the clock bounded.
async fn bounded<F: Future + Unpin>(meter: &Meter, time: Duration, call: F) -> Result<F::Output, Late> {
    let mut call = Metered { meter, future: call };
    // Only made when the call has to wait: most end before, and what timers belong to is shared by all threads.
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

/// Lets the guest run until the next tick, with its fuel for one call.
fn arm(store: &mut Store<Ctx>, fuel: Option<u64>) {
    store.set_epoch_deadline(1);
    if let Some(fuel) = fuel {
        store.set_fuel(fuel).expect("an agent that sets fuel runs on the engine that counts it");
    }
}

fn context(who: &Arc<Identity>, outside: &Arc<dyn Outside>, places: &Arc<Places>, meter: &Arc<Meter>) -> Ctx {
    let mut wasi = WasiCtxBuilder::new();
    wasi.max_random_size(MAX_RANDOM)
        .allow_tcp(false)
        .allow_udp(false)
        .stdout(LineLog::new(who, outside, LogLevel::Info, "stdout"))
        .stderr(LineLog::new(who, outside, LogLevel::Warn, "stderr"));
    for name in &who.spec.allow.env {
        if let Ok(value) = std::env::var(name) {
            wasi.env(name, value);
        }
    }
    let mut table = ResourceTable::new();
    table.set_max_capacity(MAX_RESOURCES);
    Ctx {
        who: Arc::clone(who),
        outside: Arc::clone(outside),
        places: Arc::clone(places),
        work: None,
        effects: Arc::default(),
        memory: MemoryBound::new(who.spec.limits.memory_bytes, Arc::clone(&who.peak_memory)),
        meter: Arc::clone(meter),
        table,
        wasi: wasi.build(),
        http: WasiHttpCtx::new(),
        outbound: Outbound,
        answer: HttpAnswering::default(),
    }
}

impl Program {
    /// Finds the functions of a live guest.
    fn exports(&self, store: &mut Store<Ctx>, instance: &wasmtime::component::Instance) -> wasmtime::Result<Exports> {
        Ok(Exports {
            handler: self.handler.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            http: self.http.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            snapshot: self.snapshot.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
            health: self.health.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        })
    }
}
