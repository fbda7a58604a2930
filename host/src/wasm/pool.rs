//! The pool of a revision: its instances, idle or in a call, within their bounds.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use caxton_control::supervision::{InstanceFailure, RestartDecision, Supervision};
use parking_lot::Mutex;

use super::Fault;
use super::engine::Runtime;
use super::guest::{Identity, Outside};
use super::inspect::Kind;
use super::instance::Instance;
use super::lease::Lease;
use super::places::Place;
use super::program::Program;
use super::spares::{Idle, Listed};
use super::turns::{Turn, Turns};
use crate::clock;

/// The instances of one revision.
pub(crate) struct Pool {
    pub(super) runtime: Arc<Runtime>,
    /// The component that is instantiated.
    pub(crate) program: Arc<Program>,
    /// The identity of the instances.
    pub(crate) who: Arc<Identity>,
    pub(super) outside: Arc<dyn Outside>,
    /// Idle instances. The one used last is taken first, so that the others age and can be trimmed.
    pub(super) idle: Mutex<Vec<Idle>>,
    /// The state of the pool in the list of evictable pools.
    pub(super) listed: Listed,
    /// The permits for calls.
    turns: Arc<Turns>,
    /// The number of calls for which an instance is used. A reload may change it in place.
    reuse: AtomicU32,
    /// The number of instances to keep warm, as far as there are slots.
    pub(super) min: AtomicU32,
    /// Set while a task replaces ended instances.
    pub(super) refilling: AtomicBool,
    /// Live instances: idle or in a call.
    pub(super) live: AtomicU32,
    started: AtomicU32,
    failures: AtomicU32,
    supervision: Mutex<Supervision>,
    /// Set after a failure until an instance has done well, so that successful calls need no lock.
    pub(super) troubled: AtomicBool,
    /// Set once instances have to end with their calls.
    pub(super) closed: AtomicBool,
    /// The reason why no more instances are started.
    given_up: OnceLock<String>,
}

/// The state that a new instance of a stateful agent restores.
pub(super) enum Memory<'a> {
    /// The latest snapshot.
    Saved,
    /// This snapshot.
    Given(&'a [u8]),
    /// None.
    None,
}

/// The reason why there is no instance for a call.
#[derive(Debug)]
pub(crate) enum NoInstance {
    /// Earlier instances failed, and none is started before this time, in milliseconds of the steady clock.
    Pausing(u64),
    /// Another fault.
    Fault(Fault),
}

impl Pool {
    /// Creates a pool without instances.
    pub(crate) fn new(
        runtime: &Arc<Runtime>,
        program: Arc<Program>,
        who: Arc<Identity>,
        outside: Arc<dyn Outside>,
        max: u32,
    ) -> Arc<Self> {
        // State in memory is in one instance.
        let max = if program.summary.kind == Kind::Stateful { 1 } else { max };
        let reuse = program.summary.reuse(who.spec.instances.reuse.value());
        Arc::new(Self {
            runtime: Arc::clone(runtime),
            program,
            who,
            outside,
            idle: Mutex::default(),
            listed: Listed::default(),
            turns: Turns::new(max),
            reuse: AtomicU32::new(reuse),
            // Until its revision has traffic, the rollout decides how many are warm.
            min: AtomicU32::new(0),
            refilling: AtomicBool::new(false),
            live: AtomicU32::new(0),
            started: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            supervision: Mutex::default(),
            troubled: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            given_up: OnceLock::new(),
        })
    }

    /// Creates a pool of one instance of the same revision for calls that are copies. Copies leave nothing in the
    /// memory of other instances, and do not delay other calls.
    pub(crate) fn for_copies(&self, outside: Arc<dyn Outside>) -> Arc<Self> {
        let copies = Self::new(&self.runtime, Arc::clone(&self.program), Arc::new(self.who.for_copies()), outside, 1);
        copies.reuse.store(self.reuse.load(Ordering::Relaxed), Ordering::Relaxed);
        copies
    }

    /// Creates a pool of one instance of another program in the same environment.
    pub(crate) fn of_other(&self, program: Arc<Program>, who: Arc<Identity>) -> Arc<Self> {
        Self::new(&self.runtime, program, who, Arc::clone(&self.outside), 1)
    }

    /// Returns `true` if any instance is in use or being leased.
    pub(crate) fn is_in_hand(&self) -> bool {
        self.turns.are_taken()
    }

    /// Returns the number of concurrent calls.
    pub(crate) fn max(&self) -> u32 {
        self.turns.total()
    }

    /// Changes the number of concurrent calls. Calls above it run to their end.
    pub(crate) fn set_max(&self, max: u32) {
        let max = if self.program.summary.kind == Kind::Stateful { 1 } else { max };
        self.turns.set_total(max);
    }

    /// Changes the number of calls for which an instance is used. Instances that have reached it end: idle ones now,
    /// others after their call.
    pub(crate) fn set_reuse(&self, said: Option<u32>) {
        let reuse = self.program.summary.reuse(said);
        if self.reuse.swap(reuse, Ordering::SeqCst) <= reuse {
            return;
        }
        let worn: Vec<Idle> = self.idle.lock().extract_if(.., |idle| idle.instance.uses() >= reuse).collect();
        self.live.fetch_sub(u32::try_from(worn.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Returns the number of calls for which an instance is used; `None` if it is used as long as it lives.
    pub(crate) fn reuse(&self) -> Option<u32> {
        self.makes_way().then(|| self.reuse.load(Ordering::Relaxed))
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

    /// Leases an idle instance or a new one. Waits for a permit until `deadline`, and through the pause after failures.
    pub(crate) async fn lease(self: &Arc<Self>, deadline: Instant) -> Result<Lease, Fault> {
        self.obtain(deadline, true).await.map_err(|none| match none {
            NoInstance::Pausing(_) => Fault::Overloaded,
            NoInstance::Fault(fault) => fault,
        })
    }

    /// Leases an instance like [`lease`](Self::lease), and returns an error during a pause after failures: the caller
    /// has an alternative.
    pub(crate) async fn lease_at_once(self: &Arc<Self>, deadline: Instant) -> Result<Lease, NoInstance> {
        self.obtain(deadline, false).await
    }

    /// Returns the end of the pause after failures, by the steady clock, if no instance is idle.
    pub(crate) fn pausing(&self) -> Option<u64> {
        let troubled = self.troubled.load(Ordering::Relaxed) && self.idle.lock().is_empty();
        if troubled { self.supervision.lock().may_start(clock::steady_ms()) } else { None }
    }

    async fn obtain(self: &Arc<Self>, deadline: Instant, waits: bool) -> Result<Lease, NoInstance> {
        let overloaded = |_| NoInstance::Fault(Fault::Overloaded);
        let turn = self.turns.take_by(deadline).await.map_err(overloaded)?;
        let warm = self.take_idle();
        let held = match warm {
            Some(idle) => {
                self.listed.use_one();
                (idle.instance, idle.place)
            }
            None => {
                // Waited for before a slot is taken, so that no slot is held through a pause.
                self.await_start(deadline, waits).await?;
                let place = tokio::time::timeout_at(deadline.into(), self.runtime.place()).await.map_err(overloaded)?;
                let started = self.start(Memory::Saved).await;
                (
                    started
                        .inspect_err(|fault| self.failed(InstanceFailure::Start, fault))
                        .map_err(NoInstance::Fault)?,
                    place,
                )
            }
        };
        Ok(Lease::new(self, held, turn))
    }

    /// Takes the idle instance that was used last, if it may be used again.
    fn take_idle(&self) -> Option<Idle> {
        loop {
            let idle = self.idle.lock().pop()?;
            // The bound may have been lowered while the instance was on its way back.
            if self.may_use(&idle.instance) {
                return Some(idle);
            }
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns `true` if an instance has not reached its number of calls.
    pub(super) fn may_use(&self, instance: &Instance) -> bool {
        !self.makes_way() || instance.uses() < self.reuse.load(Ordering::SeqCst)
    }

    /// Waits for the end of the pause after failures (SPEC §7, supervision).
    async fn await_start(&self, deadline: Instant, waits: bool) -> Result<(), NoInstance> {
        if let Some(why) = self.given_up.get() {
            return Err(NoInstance::Fault(Fault::Start(why.clone())));
        }
        if !self.troubled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = clock::steady_ms();
        let Some(at) = self.supervision.lock().may_start(now) else { return Ok(()) };
        let pause = Duration::from_millis(at.saturating_sub(now));
        if !waits || Instant::now() + pause >= deadline {
            return Err(NoInstance::Pausing(at));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Records the failure of an instance, after which the next one is started later or never.
    pub(super) fn failed(&self, kind: InstanceFailure, fault: &Fault) {
        self.troubled.store(true, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        let verdict = self.supervision.lock().failed(clock::steady_ms(), rand::random(), kind);
        match verdict {
            RestartDecision::Replace { .. } => {}
            RestartDecision::GiveUp => {
                drop(self.given_up.set(format!("its instances fail to start again and again: {fault}")))
            }
        }
    }

    /// Returns the reason why no more instances are started, if that is so.
    pub(crate) fn given_up(&self) -> Option<&str> {
        self.given_up.get().map(String::as_str)
    }

    /// Starts an instance without a snapshot, runs its health check, and ends it.
    pub(crate) async fn try_out(&self) -> Result<(), Fault> {
        let _place = self.runtime.place().await;
        let mut instance = Instance::start(&self.program, &self.who, &self.outside, self.runtime.places()).await?;
        super::warm::check(&mut instance).await
    }

    /// Runs the health check of an instance within `time`: of an idle one, or of one started for this. Returns `None`
    /// if all were busy for that long, which says nothing about their health.
    pub(crate) async fn probe(self: &Arc<Self>, time: Duration) -> Option<Result<(), String>> {
        // The snapshot of a stateful agent is not restored for a probe only.
        let lease = if self.program.summary.kind == Kind::Stateful && self.live() == 0 {
            None
        } else {
            match self.lease(Instant::now() + time).await {
                Ok(lease) => Some(lease),
                Err(Fault::Overloaded) => return None,
                Err(fault) => return Some(Err(fault.to_string())),
            }
        };
        let asked = async {
            let Some(mut lease) = lease else {
                return self.try_out().await.map_err(|fault| fault.to_string());
            };
            let answer = lease.instance().check(time).await.map_err(|fault| fault.to_string())?;
            lease.finish(true);
            answer
        };
        Some(match tokio::time::timeout(time, asked).await {
            Ok(answer) => answer,
            Err(_) => Err("it did not answer in time".to_owned()),
        })
    }

    /// Starts an instance. That of a stateful agent restores `memory`.
    pub(super) async fn start(&self, memory: Memory<'_>) -> Result<Box<Instance>, Fault> {
        let instance = Instance::start(&self.program, &self.who, &self.outside, self.runtime.places()).await?;
        let mut instance = Box::new(instance);
        if self.program.summary.kind == Kind::Stateful {
            let restored = match memory {
                Memory::Saved => match self.outside.saved(&self.who.revision) {
                    Ok(Some(saved)) => instance.restore(&saved).await,
                    Ok(None) => Ok(()),
                    Err(why) => Err(Fault::Host(format!("what it saved cannot be read: {why}"))),
                },
                Memory::Given(saved) => instance.restore(saved).await,
                Memory::None => Ok(()),
            };
            restored.inspect_err(|fault| self.outside.not_restored(&self.who.revision, fault))?;
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        self.started.fetch_add(1, Ordering::Relaxed);
        Ok(instance)
    }

    /// Leases the only instance of a stateful agent to save it, if it is idle for at least `age`. No call starts while
    /// the lease lives.
    pub(crate) fn lease_idle(self: &Arc<Self>, age: Duration) -> Option<Lease> {
        let turn = self.turns.take()?;
        self.lease_last(turn, age)
    }

    /// Leases the only instance of a stateful agent when its current call has ended.
    pub(crate) async fn lease_at_rest(self: &Arc<Self>) -> Option<Lease> {
        let turn = self.turns.wait().await;
        self.lease_last(turn, Duration::ZERO)
    }

    fn lease_last(self: &Arc<Self>, turn: Turn, age: Duration) -> Option<Lease> {
        let mut idle = self.idle.lock();
        idle.last().filter(|last| last.since.elapsed() >= age)?;
        let last = idle.pop()?;
        Some(Lease::new(self, (last.instance, last.place), turn))
    }

    /// Returns `true` if the state of instances need not be kept, so that they can be evicted.
    pub(super) fn makes_way(&self) -> bool {
        self.program.summary.kind != Kind::Stateful
    }

    /// Takes an idle instance for eviction.
    pub(super) fn spare(&self) -> Option<Idle> {
        if !self.makes_way() {
            return None;
        }
        let spare = self.idle.lock().pop();
        self.live.fetch_sub(u32::from(spare.is_some()), Ordering::Relaxed);
        spare
    }

    /// Ends idle instances now, and all others with their calls.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.trim(0, Duration::ZERO);
    }

    /// Returns `true` if a caller waits for a permit or a slot.
    pub(super) fn is_wanted(&self) -> bool {
        self.turns.are_awaited() || self.runtime.is_awaited()
    }

    /// Returns `true` if a worker may keep an instance between two calls.
    pub(super) fn may_keep(&self, instance: &mut Instance) -> bool {
        let ends = self.closed.load(Ordering::SeqCst) || self.troubled.load(Ordering::Relaxed);
        !self.is_wanted() && !ends && !self.is_worn(instance, instance.ended())
    }

    /// Returns `true` if an instance should be replaced. Never for one with state in its memory.
    fn is_worn(&self, instance: &mut Instance, now: Instant) -> bool {
        self.makes_way() && instance.is_worn(self.reuse.load(Ordering::SeqCst), now)
    }

    /// Takes an instance back after a call, or ends it.
    pub(super) fn take_back(self: &Arc<Self>, mut instance: Box<Instance>, place: Place, well: bool) {
        if well && self.troubled.swap(false, Ordering::Relaxed) {
            self.supervision.lock().succeeded();
        }
        let since = instance.ended();
        if well && !self.closed.load(Ordering::SeqCst) && !self.is_worn(&mut instance, since) {
            self.rest(instance, place, since);
        } else {
            self.ended();
            // The instance first: the allocator has no room for the next one before that.
            drop(instance);
            drop(place);
            self.refill();
        }
    }

    /// Counts an instance as ended.
    pub(super) fn ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts an instance among the idle ones.
    pub(super) fn rest(self: &Arc<Self>, instance: Box<Instance>, place: Place, since: Instant) {
        self.idle.lock().push(Idle { instance, place, since });
        if self.makes_way() && self.listed.enters() {
            self.runtime.spares.enter(self);
        }
        // After the instance can be found: a waiter that queued in between has found it, or is woken now.
        self.runtime.became_idle(self);
    }
}
