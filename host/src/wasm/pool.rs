//! The instances of one revision: warm ones wait here, at most so many live at once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use caxton_control::supervise::{Failure, Supervision, Verdict};
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
    /// What is instantiated.
    pub(crate) program: Arc<Program>,
    /// As whom.
    pub(crate) who: Arc<Identity>,
    pub(super) outside: Arc<dyn Outside>,
    /// Warm instances; the one used last comes first, so that the others get old.
    pub(super) idle: Mutex<Vec<Idle>>,
    /// Whether it is among those that are asked for an idle instance.
    pub(super) listed: Listed,
    /// One for each call that may be in an instance at once.
    turns: Arc<Turns>,
    /// How often an instance is used before another takes its place. It follows the declaration in place.
    reuse: AtomicU32,
    /// Instances that are kept warm, as far as there are places.
    pub(super) min: AtomicU32,
    /// Whether a task replaces instances that ended.
    pub(super) refilling: AtomicBool,
    /// Instances that live: idle ones and those in a call.
    pub(super) live: AtomicU32,
    started: AtomicU32,
    failures: AtomicU32,
    supervision: Mutex<Supervision>,
    /// Whether something failed since an instance did well, so that well ones take no lock.
    pub(super) troubled: AtomicBool,
    /// Whether instances end as soon as their calls have.
    pub(super) closed: AtomicBool,
    /// Why no more instances are started.
    given_up: OnceLock<String>,
}

/// What a new instance of a stateful agent remembers.
pub(super) enum Memory<'a> {
    /// What was saved last.
    Saved,
    /// This.
    Given(&'a [u8]),
    /// Nothing.
    None,
}

/// Why there is no instance for a call.
#[derive(Debug)]
pub(crate) enum NoInstance {
    /// Others failed, and none is started again before this time, in milliseconds since 1970.
    Pausing(u64),
    /// What else went wrong.
    Fault(Fault),
}

impl Pool {
    /// A pool without instances yet.
    pub(crate) fn new(
        runtime: &Arc<Runtime>,
        program: Arc<Program>,
        who: Arc<Identity>,
        outside: Arc<dyn Outside>,
        max: u32,
    ) -> Arc<Self> {
        // State in memory is in one instance.
        let max = if program.summary.kind == Kind::Stateful { 1 } else { max };
        let reuse = program.summary.reuse(who.spec.instances.reuse.said());
        Arc::new(Self {
            runtime: Arc::clone(runtime),
            program,
            who,
            outside,
            idle: Mutex::default(),
            listed: Listed::default(),
            turns: Turns::new(max),
            reuse: AtomicU32::new(reuse),
            // Until its revision has traffic it is warmed as far as its rollout says.
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

    /// A pool of one instance of the same revision for calls that are copies: what they leave in its memory is never
    /// met by others, and who else calls it does not wait for them.
    pub(crate) fn for_copies(&self, outside: Arc<dyn Outside>) -> Arc<Self> {
        let copies = Self::new(&self.runtime, Arc::clone(&self.program), Arc::new(self.who.for_copies()), outside, 1);
        copies.reuse.store(self.reuse.load(Ordering::Relaxed), Ordering::Relaxed);
        copies
    }

    /// A pool of one instance of another program, with the same around it.
    pub(crate) fn of_other(&self, program: Arc<Program>, who: Arc<Identity>) -> Arc<Self> {
        Self::new(&self.runtime, program, who, Arc::clone(&self.outside), 1)
    }

    /// Whether somebody has an instance in hand, or is about to.
    pub(crate) fn is_in_hand(&self) -> bool {
        self.turns.are_taken()
    }

    /// How many calls can be in instances at once.
    pub(crate) fn max(&self) -> u32 {
        self.turns.total()
    }

    /// Changes how many calls can be in instances at once; more than that finish what they have.
    pub(crate) fn set_max(&self, max: u32) {
        let max = if self.program.summary.kind == Kind::Stateful { 1 } else { max };
        self.turns.set_total(max);
    }

    /// Changes how often an instance is used. Those that were used as often end: idle ones now, others after their
    /// call.
    pub(crate) fn set_reuse(&self, said: Option<u32>) {
        let reuse = self.program.summary.reuse(said);
        if self.reuse.swap(reuse, Ordering::SeqCst) <= reuse {
            return;
        }
        let worn: Vec<Idle> = self.idle.lock().extract_if(.., |idle| idle.instance.uses() >= reuse).collect();
        self.live.fetch_sub(u32::try_from(worn.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// How often an instance is used before another takes its place; none for as long as it lives.
    pub(crate) fn reuse(&self) -> Option<u32> {
        self.makes_way().then(|| self.reuse.load(Ordering::Relaxed))
    }

    /// Instances that live: idle ones and those in a call.
    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Instances that wait for a call.
    pub(crate) fn idle(&self) -> u32 {
        u32::try_from(self.idle.lock().len()).unwrap_or(u32::MAX)
    }

    /// Instances ever started.
    pub(crate) fn started(&self) -> u32 {
        self.started.load(Ordering::Relaxed)
    }

    /// Instances that did not come to stand, or failed at their work.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The most memory that one of its instances ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.who.peak_memory.load(Ordering::Relaxed)
    }

    /// A warm instance, or a new one. Waits for a turn until `deadline`, and as long as none is started after others
    /// failed.
    pub(crate) async fn lease(self: &Arc<Self>, deadline: Instant) -> Result<Lease, Fault> {
        self.obtain(deadline, true).await.map_err(|none| match none {
            NoInstance::Pausing(_) => Fault::Overloaded,
            NoInstance::Fault(fault) => fault,
        })
    }

    /// The same for who has somewhere else to go: does not wait until one may be started again.
    pub(crate) async fn lease_at_once(self: &Arc<Self>, deadline: Instant) -> Result<Lease, NoInstance> {
        self.obtain(deadline, false).await
    }

    /// Until when no instance is started after others failed, by the steady clock, if none is idle either.
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
                // A place is not held through a pause.
                self.await_start(deadline, waits).await?;
                let place = tokio::time::timeout_at(deadline.into(), self.runtime.place()).await.map_err(overloaded)?;
                let started = self.start(Memory::Saved).await;
                (started.inspect_err(|fault| self.failed(Failure::Start, fault)).map_err(NoInstance::Fault)?, place)
            }
        };
        Ok(Lease::new(self, held, turn))
    }

    /// The idle instance that was used last, if it may be used again.
    fn take_idle(&self) -> Option<Idle> {
        loop {
            let idle = self.idle.lock().pop()?;
            // The bound may have been lowered while it was on its way back.
            if self.may_use(&idle.instance) {
                return Some(idle);
            }
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether an instance was not used as often as one may be.
    pub(super) fn may_use(&self, instance: &Instance) -> bool {
        !self.makes_way() || instance.uses() < self.reuse.load(Ordering::SeqCst)
    }

    /// Waits until an instance may be started again after others failed (SPEC §7, supervision).
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

    /// An instance failed; the next is started later, or never.
    pub(super) fn failed(&self, kind: Failure, fault: &Fault) {
        self.troubled.store(true, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        let verdict = self.supervision.lock().failed(clock::steady_ms(), rand::random(), kind);
        match verdict {
            Verdict::Replace { .. } => {}
            Verdict::GiveUp => drop(self.given_up.set(format!("its instances fail to start again and again: {fault}"))),
        }
    }

    /// Why it starts no more instances; none if it does.
    pub(crate) fn given_up(&self) -> Option<&str> {
        self.given_up.get().map(String::as_str)
    }

    /// Starts an instance with nothing restored, asks it whether it can work, and drops it again.
    pub(crate) async fn try_out(&self) -> Result<(), Fault> {
        let _place = self.runtime.place().await;
        let mut instance = Instance::start(&self.program, &self.who, &self.outside, self.runtime.places()).await?;
        super::warm::check(&mut instance).await
    }

    /// Asks an instance whether it can work, which it has to say within `time`: one that waits for a call, or one that
    /// is started for this. None if all had messages in hand for so long, which says nothing about their health.
    pub(crate) async fn probe(self: &Arc<Self>, time: Duration) -> Option<Result<(), String>> {
        // The memory of a stateful agent is not taken up for a question.
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

    /// A new instance; that of a stateful agent remembers what it is given.
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

    /// The only instance of a stateful agent, if it is idle for `age` at least, to be saved. While the lease
    /// lives no call begins.
    pub(crate) fn lease_idle(self: &Arc<Self>, age: Duration) -> Option<Lease> {
        let turn = self.turns.take()?;
        self.lease_last(turn, age)
    }

    /// The same without regard to how long it is idle, when whoever has it now is done.
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

    /// Whether its instances' state can be made again, so that another agent's can have their places.
    pub(super) fn makes_way(&self) -> bool {
        self.program.summary.kind != Kind::Stateful
    }

    /// An idle instance that makes way for another agent's.
    pub(super) fn spare(&self) -> Option<Idle> {
        if !self.makes_way() {
            return None;
        }
        let spare = self.idle.lock().pop();
        self.live.fetch_sub(u32::from(spare.is_some()), Ordering::Relaxed);
        spare
    }

    /// Ends the idle instances, and all others when their calls have ended.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.trim(0, Duration::ZERO);
    }

    /// Whether somebody waits for what a call takes up.
    pub(super) fn is_wanted(&self) -> bool {
        self.turns.are_awaited() || self.runtime.is_awaited()
    }

    /// Whether an instance whose call ended well may be kept by whoever has it, for the next call.
    pub(super) fn may_keep(&self, instance: &mut Instance) -> bool {
        let ends = self.closed.load(Ordering::SeqCst) || self.troubled.load(Ordering::Relaxed);
        !self.is_wanted() && !ends && !self.is_worn(instance, instance.ended())
    }

    /// Whether an instance, whose state can be made again, is not to be used again.
    fn is_worn(&self, instance: &mut Instance, now: Instant) -> bool {
        self.makes_way() && instance.is_worn(self.reuse.load(Ordering::SeqCst), now)
    }

    /// Takes an instance back after a call that ended well, or ends it.
    pub(super) fn take_back(self: &Arc<Self>, mut instance: Box<Instance>, place: Place, well: bool) {
        if well && self.troubled.swap(false, Ordering::Relaxed) {
            self.supervision.lock().well();
        }
        let since = instance.ended();
        if well && !self.closed.load(Ordering::SeqCst) && !self.is_worn(&mut instance, since) {
            self.rest(instance, place, since);
        } else {
            self.ended();
            // Before its place is left: who comes next has room only then.
            drop(instance);
            drop(place);
            self.refill();
        }
    }

    /// One instance lives no more.
    pub(super) fn ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// An instance waits for a call.
    pub(super) fn rest(self: &Arc<Self>, instance: Box<Instance>, place: Place, since: Instant) {
        self.idle.lock().push(Idle { instance, place, since });
        if self.makes_way() && self.listed.enters() {
            self.runtime.spares.enter(self);
        }
        // Told after it can be found: who came for a place meanwhile has found it, or hears of it.
        self.runtime.became_idle(self);
    }
}
