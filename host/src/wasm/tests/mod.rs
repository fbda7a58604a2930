//! Tests of the engine with small guests for one purpose each: all limits and failures, the pool, the artefact cache,
//! and the inspection of components.

mod artefacts;
mod calls;
mod findings;
pub(crate) mod guests;
mod host_memory;
mod malformed;
mod migrations;
mod pool;
mod sends;
mod services;
mod snapshots;
mod symbols;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use caxton_control::backoff::Backoff;
use caxton_control::desired::{
    BreakerSpec, Grants, InstancesSpec, Limits, MailboxOrder, MailboxSpec, ReloadOptions, Reuse, SnapshotSpec,
};
use caxton_control::mailbox::Priority;
use caxton_control::snapshot::SaveMode;
use caxton_control::{AgentSpec, Performative, RevisionId};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::{HeldLease, Pool, Program, Runtime, RuntimeOptions, digest};
use crate::memory_budget::MemoryBudget;
use crate::message::{
    CallContext, CommitMode, Deliver, Draft, Envelope, Fault, GuestHost, Identity, LogLevel, Message, Outgoing, Read,
    RequestError, RunContext, Seen, SendError, TimerName,
};
use crate::wasm::ProgramError;

/// The limit for a call that ends by itself: enough even on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// An engine with a cache of its own, and the world of its guests.
struct Bench {
    folder: TempDir,
    runtime: Arc<Runtime>,
    world: Arc<World>,
}

impl Bench {
    fn new() -> Self {
        Self::with(tempfile::tempdir().unwrap(), 16, this_program())
    }

    fn with_instances(instances: u32) -> Self {
        Self::with(tempfile::tempdir().unwrap(), instances, this_program())
    }

    fn with(folder: TempDir, instances: u32, compiler: Vec<OsString>) -> Self {
        Self::with_memory(folder, instances, compiler, u64::MAX)
    }

    fn with_memory(folder: TempDir, instances: u32, compiler: Vec<OsString>, memory: u64) -> Self {
        let options = RuntimeOptions {
            cache: folder.path().join("cache"),
            shared_cache: false,
            compiler,
            instances: Some(instances),
            secrets: Arc::default(),
            memory: MemoryBudget::new(memory),
        };
        let runtime = Runtime::new(options).unwrap();
        Self { folder, runtime, world: Arc::default() }
    }

    /// Returns a new engine on the same cache, as after a restart.
    fn again(self) -> Self {
        Self::with(self.folder, 16, this_program())
    }

    /// Loads the program of a component, and tells if it was compiled for that.
    async fn load(&self, bytes: &[u8], fuel: bool) -> Result<(Arc<Program>, bool), ProgramError> {
        let path = self.folder.path().join("guest.wasm");
        std::fs::write(&path, bytes).unwrap();
        let mut compiled = false;
        let program = self.runtime.program(&path, digest(bytes), fuel, |_| compiled = true).await?;
        Ok((program, compiled))
    }

    /// Creates a pool of a component, with changed settings.
    async fn pool(&self, bytes: &[u8], set: impl FnOnce(&mut AgentSpec)) -> Arc<Pool> {
        let mut spec = spec();
        set(&mut spec);
        let (program, _) = self.load(bytes, spec.limits.fuel.is_some()).await.unwrap();
        self.pool_of(program, spec)
    }

    fn pool_of(&self, program: Arc<Program>, spec: AgentSpec) -> Arc<Pool> {
        let max = spec.instances.max;
        let who = Identity {
            revision: Arc::new(RevisionId { agent: spec.name.clone(), number: 1 }),
            spec: Arc::new(spec),
            state_bytes: Arc::new(AtomicU64::new(0)),
            peak_memory: Arc::default(),
        };
        Pool::new(&self.runtime, program, Arc::new(who), Arc::clone(&self.world) as Arc<dyn GuestHost>, max)
    }
}

/// Returns a declaration with limits that well-behaved guests do not reach.
fn spec() -> AgentSpec {
    AgentSpec {
        settings_text: Default::default(),
        name: "guest".parse().unwrap(),
        component: "guest.wasm".to_owned(),
        build: None,
        budget: None,
        capabilities: std::collections::BTreeSet::new(),
        instances: InstancesSpec { min: 0, max: 4, reuse: Reuse::Own(1_000_000), idle: LONG },
        snapshot: SnapshotSpec { save: SaveMode::Commit, commit_max_bytes: 64 << 10, max_bytes: 16 << 20, own: false },
        state: Default::default(),
        config: BTreeMap::new(),
        allow: Grants::default(),
        limits: Limits {
            memory_bytes: 16 << 20,
            cpu: LONG,
            fuel: None,
            time: LONG,
            message_bytes: 256 << 10,
            sends: 10,
            writes: 10,
            effects_bytes: 8 << 20,
            state_bytes: 1 << 20,
            timers: 1_000,
            hops: 8,
            log_lines: 1_000,
        },
        mailbox: MailboxSpec {
            order: MailboxOrder::None,
            depth: 100,
            attempts: 5,
            backoff: Backoff { first: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(300), jitter: 0.2 },
            timeout: None,
            on_dead: caxton_control::desired::OnDead::Keep,
        },
        breaker: BreakerSpec { faults: 10, reset: Duration::from_secs(60) },
        schedules: Vec::new(),
        http: Vec::new(),
        reload: ReloadOptions { watch: true, drain: LONG },
        rollout: caxton_control::rollout::RolloutSpec::default(),
    }
}

/// Returns the command line that runs this test program as the compiler, with [`the_compiler`] as its only test.
pub(crate) fn this_program() -> Vec<OsString> {
    let program = std::env::current_exe().unwrap();
    vec![program.into(), "--exact".into(), "wasm::tests::the_compiler".into()]
}

/// The child process that compiles for the others, and not a test. The harness takes the arguments after its name for
/// names of tests that do not exist.
#[test]
fn the_compiler() {
    let mut args = std::env::args().skip_while(|arg| arg != "compile-component").skip(1);
    let (Some(input), Some(output), Some(kind)) = (args.next(), args.next(), args.next()) else { return };
    if let Err(why) = super::compile_child(input.as_ref(), output.as_ref(), &kind, args.next().as_deref()) {
        // Written directly, because the harness captures `eprintln`.
        std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes()).unwrap();
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// The world of guests: empty but for their saved state.
#[derive(Default)]
struct World {
    saved: Mutex<Option<Bytes>>,
    logs: Mutex<Vec<String>>,
    /// The agents with every capability. The mailbox of `full` is full.
    agents: Mutex<Vec<String>>,
    places: Arc<AtomicU32>,
}

impl GuestHost for World {
    fn admit(&self, _: &Identity, work: &CallContext, draft: Draft) -> Result<Outgoing, SendError> {
        if draft.receiver == "full" {
            return Err(SendError::MailboxFull(1));
        }
        self.places.fetch_add(1, Ordering::SeqCst);
        let envelope = Envelope { hops: work.hops + 1, ..Envelope::new(message(b"")) };
        Ok(Outgoing::new(Arc::new(Nowhere(Arc::clone(&self.places))), Box::new(envelope)))
    }

    /// A request that is never answered.
    fn request<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a CallContext,
        _: Draft,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Message, RequestError>> + Send + 'a>> {
        Box::pin(std::future::pending())
    }

    fn find(&self, _: &str) -> Vec<String> {
        self.agents.lock().clone()
    }

    fn read(&self, _: &str, _: &str) -> Result<Seen<Option<Read>>, String> {
        Ok(Seen { value: None, durable: true })
    }

    fn keys(&self, _: &str, _: &str, _: Option<&str>, _: u32) -> Result<Seen<Vec<String>>, String> {
        Ok(Seen { value: Vec::new(), durable: true })
    }

    fn timer(&self, _: &str, _: &TimerName) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn saved<'a>(&'a self, _: &'a RevisionId) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        Box::pin(std::future::ready(Ok(self.saved.lock().clone())))
    }

    fn log(&self, _: &Identity, level: LogLevel, context: &str, text: &str) {
        self.logs.lock().push(format!("{level:?} {context}: {text}"));
    }
}

/// A mailbox that only counts reserved places.
struct Nowhere(Arc<AtomicU32>);

impl Deliver for Nowhere {
    fn put(&self, _: Box<Envelope>) -> bool {
        false
    }
    fn work(self: Arc<Self>) {}
    fn reserve_beyond(&self) {}
    fn other(&self, _: &str) -> Option<Arc<dyn Deliver>> {
        None
    }

    fn release(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) fn message(content: &[u8]) -> Message {
    Message {
        id: "m-1".to_owned(),
        performative: Performative::Request,
        sender: "http:POST /".to_owned(),
        receiver: "guest".to_owned(),
        content: content.to_vec(),
        content_type: "text/plain".to_owned(),
        ontology: None,
        protocol: None,
        conversation_id: "c-1".to_owned(),
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        priority: Priority::Normal,
        sent_at: 0,
        attempt: 1,
        headers: Vec::new(),
    }
}

fn work() -> CallContext {
    CallContext {
        conversation: "c-1".to_owned(),
        hops: 0,
        deadline: Instant::now() + LONG,
        trace: None,
        tree: None,
        host: None,
        commit_mode: CommitMode::WithResult,
        run: RunContext::default(),
        calls: None,
    }
}

/// Passes one message to an instance of the pool, like the host, and returns the content of the reply.
async fn call(pool: &Arc<Pool>) -> Result<Vec<u8>, Fault> {
    call_kept(pool, &mut HeldLease::default()).await
}

/// Passes one message to a kept instance or one of the pool.
async fn call_kept(pool: &Arc<Pool>, kept: &mut HeldLease) -> Result<Vec<u8>, Fault> {
    let mut lease = match kept.take(pool) {
        Some(lease) => lease,
        None => pool.lease(Instant::now() + LONG).await?,
    };
    let time = lease.instance().time();
    static MESSAGE: LazyLock<Message> = LazyLock::new(|| message(b"hello"));
    let result = lease.instance().handle(&MESSAGE, work(), time).await?;
    lease.keep(kept);
    Ok(result.expect("the guest is content").map(|reply| reply.content).unwrap_or_default())
}
