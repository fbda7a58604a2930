//! The pool of a revision: its instances, idle or in a call, within their bounds.

pub(super) mod evictable;
pub(super) mod lease;
mod permits;
mod prewarm;
pub(super) mod slots;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use caxton_control::memory::MemoryPriority;
use caxton_control::supervision::{InstanceFailure, RestartDecision, Supervision};
use parking_lot::Mutex;

use crate::clock;
use crate::folders::OpenFolder;
use crate::memory_budget::{ExpectedMemory, MemoryBudget};
use crate::message::{Fault, GuestHost, Identity};
use crate::secrets::AgentSecrets;
use crate::wasm::call::ctx::Environment;
use crate::wasm::call::instance::Instance;
use crate::wasm::compile::program::Program;
use crate::wasm::compile::runtime::Runtime;
use crate::wasm::files::folders::{GuestFolders, guest_folders};
use crate::wasm::inspect::Kind;
use crate::wasm::pool::evictable::{EvictablePool, Listing};
use crate::wasm::pool::permits::CallPermits;
use crate::wasm::pool::slots::{Evict, EvictedInstance, InstanceSlot};

/// An idle instance with its slot.
pub(in crate::wasm) struct IdleInstance {
    pub(in crate::wasm) instance: Box<Instance>,
    pub(in crate::wasm) slot: InstanceSlot,
    pub(in crate::wasm) since: Instant,
}

/// The instances of one revision.
pub(crate) struct Pool {
    pub(in crate::wasm) runtime: Arc<Runtime>,
    /// The component that is instantiated.
    pub(crate) program: Arc<Program>,
    /// The identity of the instances.
    pub(crate) who: Arc<Identity>,
    pub(in crate::wasm) environment: Environment,
    /// The idle instances. The one used last is taken first, so that the others age and can be trimmed.
    pub(in crate::wasm) idle: Mutex<Vec<IdleInstance>>,
    /// The state of the pool in the list of evictable pools.
    pub(in crate::wasm) listing: Listing,
    /// The permits for calls.
    permits: Arc<CallPermits>,
    /// The number of calls for which an instance is used. A reload may change it in place.
    reuse: AtomicU32,
    /// The number of instances to keep warm, as far as there are slots.
    pub(in crate::wasm) min: AtomicU32,
    /// Set while a task replaces ended instances.
    pub(in crate::wasm) refilling: AtomicBool,
    /// The number of live instances: idle or in a call.
    pub(in crate::wasm) live: AtomicU32,
    started: AtomicU32,
    failures: AtomicU32,
    supervision: Mutex<Supervision>,
    /// Set after a failure until an instance has done well, so that successful calls need no lock.
    pub(in crate::wasm) is_troubled: AtomicBool,
    /// Set once instances have to end with their calls.
    pub(in crate::wasm) closed: AtomicBool,
    /// The reason why no more instances are started.
    given_up: OnceLock<String>,
}

/// The state that a new instance of a stateful agent restores.
pub(in crate::wasm) enum Memory<'a> {
    /// The latest snapshot.
    Saved,
    /// The given snapshot.
    Given(&'a [u8]),
    /// An empty state.
    None,
}

impl Pool {
    /// Creates a pool without instances, whose guests see no folders.
    #[cfg(test)]
    pub(crate) fn new(
        runtime: &Arc<Runtime>,
        program: Arc<Program>,
        who: Arc<Identity>,
        host: Arc<dyn GuestHost>,
        max: u32,
    ) -> Arc<Self> {
        Self::sized(runtime, program, who, host, (max, guest_folders(Vec::new())))
    }

    /// Creates a pool without instances, whose guests see these folders.
    pub(crate) fn with_folders(
        runtime: &Arc<Runtime>,
        program: Arc<Program>,
        who: Arc<Identity>,
        host: Arc<dyn GuestHost>,
        folders: Vec<OpenFolder>,
    ) -> Arc<Self> {
        let max = who.spec.instances.max;
        Self::sized(runtime, program, who, host, (max, guest_folders(folders)))
    }

    fn sized(
        runtime: &Arc<Runtime>,
        program: Arc<Program>,
        who: Arc<Identity>,
        host: Arc<dyn GuestHost>,
        (max, folders): (u32, GuestFolders),
    ) -> Arc<Self> {
        // State in memory is in one instance.
        let max = if program.summary.kind == Kind::Stateful { 1 } else { max };
        let reuse = program.summary.reuse(who.spec.instances.reuse.value());
        let memory = (runtime.memory.clone(), MemoryPriority::Instances);
        Self::of(runtime, program, who, host, (max, reuse, memory, folders))
    }

    fn of(
        runtime: &Arc<Runtime>,
        program: Arc<Program>,
        who: Arc<Identity>,
        host: Arc<dyn GuestHost>,
        (max, reuse, memory, folders): (u32, u32, (MemoryBudget, MemoryPriority), GuestFolders),
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime: Arc::clone(runtime),
            program,
            environment: Environment {
                who: Arc::clone(&who),
                host,
                denials: Arc::default(),
                slots: Arc::clone(runtime.slots()),
                secrets: AgentSecrets::new(&runtime.secrets, &who.spec.config, who.spec.allow.secrets()),
                memory,
                expected: ExpectedMemory::default(),
                folders,
            },
            who,
            idle: Mutex::default(),
            listing: Listing::default(),
            permits: CallPermits::new(max),
            reuse: AtomicU32::new(reuse),
            // Until its revision has traffic, the rollout decides how many are warm.
            min: AtomicU32::new(0),
            refilling: AtomicBool::new(false),
            live: AtomicU32::new(0),
            started: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            supervision: Mutex::default(),
            is_troubled: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            given_up: OnceLock::new(),
        })
    }

    /// Creates a pool of one instance of the same revision for calls that are copies. Copies leave nothing in the
    /// memory of other instances, and do not delay other calls.
    pub(crate) fn for_copies(&self, host: Arc<dyn GuestHost>) -> Arc<Self> {
        // The reuse may have been changed by a reload since the revision began.
        let reuse = self.reuse.load(Ordering::Relaxed);
        let memory = (self.runtime.memory.clone(), MemoryPriority::Copies);
        let folders = Arc::clone(&self.environment.folders);
        Self::of(&self.runtime, Arc::clone(&self.program), Arc::clone(&self.who), host, (1, reuse, memory, folders))
    }

    /// Creates a pool of one instance of another program in the same environment.
    pub(crate) fn of_other(&self, program: Arc<Program>, who: Arc<Identity>) -> Arc<Self> {
        let folders = Arc::clone(&self.environment.folders);
        Self::sized(&self.runtime, program, who, Arc::clone(&self.environment.host), (1, folders))
    }

    /// Returns `true` if any instance is in use or being leased.
    pub(crate) fn is_in_hand(&self) -> bool {
        self.permits.any_taken()
    }

    /// Returns the number of concurrent calls.
    pub(crate) fn max(&self) -> u32 {
        self.permits.total()
    }

    /// Changes the number of concurrent calls. Calls above it run to their end.
    pub(crate) fn set_max(&self, max: u32) {
        let max = if self.program.summary.kind == Kind::Stateful { 1 } else { max };
        self.permits.set_total(max);
    }

    /// Changes the number of calls for which an instance is used. Instances that have reached it end: idle ones now,
    /// others after their call.
    pub(crate) fn set_reuse(&self, declared: Option<u32>) {
        let reuse = self.program.summary.reuse(declared);
        // A larger bound wears no instance out.
        if self.reuse.swap(reuse, Ordering::SeqCst) <= reuse {
            return;
        }
        // Collected, so that the instances end after the lock is released.
        let worn: Vec<IdleInstance> = self.idle.lock().extract_if(.., |idle| idle.instance.uses() >= reuse).collect();
        self.live.fetch_sub(u32::try_from(worn.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Returns `true` if the configuration refers to one of these secrets.
    pub(crate) fn refers_to(&self, secrets: &[String]) -> bool {
        self.environment.secrets.as_ref().is_some_and(|own| own.refers_to(secrets))
    }

    /// Ends the idle instances that were given a secret that has changed. Those in a call end with it, and one with
    /// state in its memory when that is saved.
    pub(crate) fn end_outdated(self: &Arc<Self>) {
        if !self.is_evictable() {
            return;
        }
        // Collected, so that the instances end after the lock is released.
        let outdated: Vec<IdleInstance> =
            self.idle.lock().extract_if(.., |idle| idle.instance.store.data().config.is_outdated()).collect();
        self.live.fetch_sub(u32::try_from(outdated.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        drop(outdated);
        self.refill();
    }

    /// Returns the number of calls for which an instance is used; `None` if it is used as long as it lives.
    pub(crate) fn reuse(&self) -> Option<u32> {
        self.is_evictable().then(|| self.reuse.load(Ordering::Relaxed))
    }

    /// Returns the number of live instances: idle or in a call.
    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Returns the number of idle instances.
    pub(crate) fn idle(&self) -> u32 {
        u32::try_from(self.idle.lock().len()).unwrap_or(u32::MAX)
    }

    /// Returns the number of instances started so far.
    pub(crate) fn started(&self) -> u32 {
        self.started.load(Ordering::Relaxed)
    }

    /// Returns the number of instances that failed to start or failed at a call.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Returns the largest memory of an instance so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.who.peak_memory.load(Ordering::Relaxed)
    }

    /// Returns the end of the pause after failures, by the steady clock, if no instance is idle.
    pub(crate) fn pausing(&self) -> Option<u64> {
        // An idle instance needs no start, so that the pause does not matter to a call.
        let is_troubled = self.is_troubled.load(Ordering::Relaxed) && self.idle.lock().is_empty();
        if is_troubled { self.supervision.lock().may_start(clock::steady_ms()) } else { None }
    }

    /// Takes the idle instance that was used last, if it may be used again.
    fn take_idle(&self) -> Option<IdleInstance> {
        loop {
            let idle = self.idle.lock().pop()?;
            // The bound may have been lowered while the instance was on its way back.
            if self.has_uses_left(&idle.instance) {
                return Some(idle);
            }
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns `true` if an instance has not reached its number of calls, was given no secret that has changed, and has a
    /// memory that was committed.
    pub(in crate::wasm) fn has_uses_left(&self, instance: &Instance) -> bool {
        if self.is_evictable() {
            instance.uses() < self.reuse.load(Ordering::SeqCst) && !instance.store.data().config.is_outdated()
        } else {
            !instance.is_broken()
        }
    }

    /// Records the failure of an instance, after which the next one is started later or never.
    pub(in crate::wasm) fn failed(&self, kind: InstanceFailure, fault: &Fault) {
        if let Fault::HostMemory = fault {
            // The next one may start as soon as the host has memory.
            return;
        }
        self.is_troubled.store(true, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        // A random part spreads the restarts of many agents that failed for one cause.
        let verdict = self.supervision.lock().failed(clock::steady_ms(), rand::random(), kind);
        match verdict {
            RestartDecision::Replace { .. } => {}
            RestartDecision::GiveUp => {
                // The first reason stays: later failures follow from it.
                drop(self.given_up.set(format!("its instances fail to start again and again: {fault}")));
                self.environment.host.given_up(&self.who.revision);
            }
        }
    }

    /// Returns the reason why no more instances are started, if that is so.
    pub(crate) fn given_up(&self) -> Option<&str> {
        self.given_up.get().map(String::as_str)
    }

    /// Starts an instance, for which the host has to have memory by `deadline`. That of a stateful agent restores
    /// `memory`.
    pub(in crate::wasm) async fn start(&self, memory: Memory<'_>, deadline: Instant) -> Result<Box<Instance>, Fault> {
        if let Some(secrets) = &self.environment.secrets {
            // Before the guest runs: it would take an empty text for its secret.
            secrets.texts().map_err(|name| Fault::Start(format!("its secret `{name}` has no value")))?;
        }
        let instance = Instance::start(&self.program, &self.environment, deadline).await?;
        let mut instance = Box::new(instance);
        if self.program.summary.kind == Kind::Stateful {
            instance.memory().is_restored = matches!(memory, Memory::Saved);
            let restored = match memory {
                Memory::Saved => match self.environment.host.saved(&self.who.revision).await {
                    Ok(Some(saved)) => instance.restore(&saved).await,
                    Ok(None) => Ok(()),
                    Err(why) => Err(Fault::Host(format!("what it saved cannot be read: {why}"))),
                },
                Memory::Given(saved) => instance.restore(saved).await,
                Memory::None => Ok(()),
            };
            // An instance without its state must not serve: it would answer as if it remembered nothing.
            restored.inspect_err(|fault| {
                // Without memory of the host it was not tried.
                if !matches!(fault, Fault::HostMemory) {
                    self.environment.host.not_restored(&self.who.revision, fault);
                }
            })?;
        }
        // Counted only now: an instance that failed to restore never lived.
        self.live.fetch_add(1, Ordering::Relaxed);
        self.started.fetch_add(1, Ordering::Relaxed);
        Ok(instance)
    }

    /// Returns `true` if the state of instances need not be kept, so that they can be evicted.
    pub(in crate::wasm) fn is_evictable(&self) -> bool {
        self.program.summary.kind != Kind::Stateful
    }

    /// Ends idle instances now, and all others with their calls.
    pub(crate) fn close(&self) {
        // Before the idle ones are ended, so that none that comes back afterwards is kept.
        self.closed.store(true, Ordering::SeqCst);
        self.trim(0, Duration::ZERO);
    }

    /// Returns `true` if a caller waits for a permit or a slot, or anyone for memory.
    pub(in crate::wasm) fn is_wanted(&self) -> bool {
        self.permits.have_waiters() || self.runtime.has_waiters()
    }

    /// Returns `true` if a worker may keep an instance between two calls.
    pub(in crate::wasm) fn may_keep(&self, instance: &mut Instance) -> bool {
        let ends = self.closed.load(Ordering::SeqCst) || self.is_troubled.load(Ordering::Relaxed);
        !self.is_wanted() && !ends && !self.is_worn(instance, instance.ended())
    }

    /// Returns `true` if an instance should be replaced. One with state in its memory only if that was not committed.
    fn is_worn(&self, instance: &mut Instance, now: Instant) -> bool {
        if !self.is_evictable() {
            return instance.is_broken();
        }
        instance.is_worn(self.reuse.load(Ordering::SeqCst), now) || instance.store.data().config.is_outdated()
    }

    /// Takes an instance back after a call, or ends it.
    pub(in crate::wasm) fn give_back(self: &Arc<Self>, mut instance: Box<Instance>, slot: InstanceSlot, well: bool) {
        // The flag in front of the lock keeps the usual success free of it.
        if well && self.is_troubled.swap(false, Ordering::Relaxed) {
            self.supervision.lock().succeeded();
        }
        let since = instance.ended();
        if well && !self.closed.load(Ordering::SeqCst) && !self.is_worn(&mut instance, since) {
            self.put_idle(instance, slot, since);
        } else {
            self.ended();
            // The instance first: the allocator has no room for the next one before that.
            drop(instance);
            drop(slot);
            self.refill();
        }
    }

    /// Counts an instance as ended.
    pub(in crate::wasm) fn ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts an instance among the idle ones.
    pub(in crate::wasm) fn put_idle(self: &Arc<Self>, mut instance: Box<Instance>, slot: InstanceSlot, since: Instant) {
        instance.rest();
        self.idle.lock().push(IdleInstance { instance, slot, since });
        if self.listing.try_list() {
            let me: Weak<Self> = Arc::downgrade(self);
            let list = if self.is_evictable() { &self.runtime.evictable } else { &self.runtime.restorable };
            list.add(me);
        }
        // After the instance can be found: a waiter that queued in between has found it, or is woken now.
        self.runtime.instance_idle(self);
    }
}

impl Evict for Pool {
    fn evict(&self) -> Option<EvictedInstance> {
        // A memory that is committed is restored from there. That takes longer than a start, and is done for want of
        // memory only.
        let restores = self.runtime.memory.has_waiters();
        let may_end = |idle: &IdleInstance| self.is_evictable() || (restores && idle.instance.is_committed());
        let idle = self.idle.lock().pop_if(|idle| may_end(idle))?;
        self.live.fetch_sub(1, Ordering::Relaxed);
        Some(EvictedInstance::new(idle.instance, idle.slot))
    }
}

impl EvictablePool for Pool {
    fn listing(&self) -> &Listing {
        &self.listing
    }

    fn idle_count(&self) -> u32 {
        self.idle()
    }
}
