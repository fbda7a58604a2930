//! Leases: an instance for the time of one call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use caxton_control::supervision::InstanceFailure;

use crate::clock;
use crate::message::Fault;
use crate::wasm::call::instance::Instance;
use crate::wasm::inspect::Kind;
use crate::wasm::pool::permits::CallPermit;
use crate::wasm::pool::slots::InstanceSlot;
use crate::wasm::pool::{IdleInstance, Memory, Pool};

/// The reason why there is no instance for a call.
#[derive(Debug)]
pub(crate) enum NoInstance {
    /// The pause after failures: none is started before this time, in milliseconds of the steady clock.
    Pausing(u64),
    /// A fault of another kind.
    Fault(Fault),
}

impl Pool {
    /// Leases an idle instance or a new one. Waits for a permit until `deadline`, and through the pause after failures.
    pub(crate) async fn lease(self: &Arc<Self>, deadline: Instant) -> Result<Lease, Fault> {
        self.obtain(deadline, true).await.map_err(|none| match none {
            NoInstance::Pausing(until) => restarting(until),
            NoInstance::Fault(fault) => fault,
        })
    }

    /// Leases an instance like [`lease`](Self::lease), and returns an error during a pause after failures: the caller
    /// has an alternative.
    pub(crate) async fn lease_at_once(self: &Arc<Self>, deadline: Instant) -> Result<Lease, NoInstance> {
        self.obtain(deadline, false).await
    }

    async fn obtain(self: &Arc<Self>, deadline: Instant, waits: bool) -> Result<Lease, NoInstance> {
        let overloaded = |_| NoInstance::Fault(Fault::Overloaded);
        // The permit first: without one, an instance would be taken from the idle ones and only wait.
        let permit = self.permits.take_by(deadline).await.map_err(overloaded)?;
        let warm = self.take_idle().and_then(|idle| self.expect_memory(idle));
        let leased = match warm {
            Some(idle) => {
                self.listing.mark_used();
                (idle.instance, idle.slot)
            }
            None => {
                // Waited for before a slot is taken, so that no slot is held through a pause.
                self.await_start(deadline, waits).await?;
                let slot = tokio::time::timeout_at(deadline.into(), self.runtime.slot()).await.map_err(overloaded)?;
                let started = self.start(Memory::Saved, deadline).await;
                (
                    started
                        .inspect_err(|fault| self.failed(InstanceFailure::Start, fault))
                        .map_err(NoInstance::Fault)?,
                    slot,
                )
            }
        };
        Ok(Lease::new(self, leased, permit))
    }

    /// Keeps the memory that an idle instance is expected to take in its next call. If there is no room, it ends, and a
    /// new one starts in its turn: waiting in the middle of a call it would keep others from what it has.
    fn expect_memory(&self, mut idle: IdleInstance) -> Option<IdleInstance> {
        // State in memory that may be nowhere else is not given up for that.
        if idle.instance.try_expect_memory() || !self.is_evictable() {
            return Some(idle);
        }
        self.ended();
        None
    }

    /// Waits for the end of the pause after failures (SPEC §7, supervision).
    async fn await_start(&self, deadline: Instant, waits: bool) -> Result<(), NoInstance> {
        if let Some(why) = self.given_up.get() {
            return Err(NoInstance::Fault(Fault::Start(why.clone())));
        }
        if !self.is_troubled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = clock::steady_ms();
        let Some(at) = self.supervision.lock().may_start(now) else { return Ok(()) };
        let pause = Duration::from_millis(at.saturating_sub(now));
        // A pause beyond the deadline is reported now, so that the caller need not wait in vain.
        if !waits || Instant::now() + pause >= deadline {
            return Err(NoInstance::Pausing(at));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Leases the only instance of a stateful agent to save it, if it is idle for at least `age`. No call starts while
    /// the lease lives.
    pub(crate) fn lease_idle(self: &Arc<Self>, age: Duration) -> Option<Lease> {
        let permit = self.permits.take()?;
        self.lease_last(permit, age)
    }

    /// Leases the only instance of a stateful agent when its current call has ended.
    pub(crate) async fn lease_at_rest(self: &Arc<Self>) -> Option<Lease> {
        let permit = self.permits.wait().await;
        self.lease_last(permit, Duration::ZERO)
    }

    fn lease_last(self: &Arc<Self>, permit: CallPermit, age: Duration) -> Option<Lease> {
        // With the permit in hand no call can start, so that the age cannot change meanwhile.
        let mut idle = self.idle.lock();
        idle.last().filter(|last| last.since.elapsed() >= age)?;
        let last = idle.pop()?;
        drop(idle);
        if !self.has_uses_left(&last.instance) {
            self.ended();
            return None;
        }
        Some(Lease::new(self, (last.instance, last.slot), permit))
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
                Err(Fault::Overloaded | Fault::Restarting { .. } | Fault::HostMemory) => return None,
                Err(fault) => return Some(Err(fault.to_string())),
            }
        };
        let asked = async {
            let Some(mut lease) = lease else {
                return match self.check_start().await {
                    // The want of memory says nothing about their health either.
                    Err(Fault::HostMemory) => None,
                    started => Some(started.map_err(|fault| fault.to_string())),
                };
            };
            Some(match lease.instance().check(time).await {
                Ok(answer) => {
                    lease.finish(true);
                    answer
                }
                Err(Fault::HostMemory) => return None,
                Err(fault) => Err(fault.to_string()),
            })
        };
        // A check that waits for memory does not end in time, and is not told as the guest's fault.
        let is_short = || self.runtime.memory.has_waiters();
        match tokio::time::timeout(time, asked).await {
            Ok(answer) => answer,
            Err(_) if is_short() => None,
            Err(_) => Some(Err("it did not answer in time".to_owned())),
        }
    }
}

/// Returns the fault of a call that would have to wait for the end of a pause, at this time of the steady clock.
pub(crate) fn restarting(until: u64) -> Fault {
    Fault::Restarting { after: Duration::from_millis(until.saturating_sub(clock::steady_ms())) }
}

/// An instance for the time of one call. Dropping it without [`finish`](Lease::finish) ends the instance, as needed
/// after a trap and for a call that was broken off.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    leased: Option<(Box<Instance>, InstanceSlot)>,
    _permit: CallPermit,
}

impl Lease {
    pub(in crate::wasm) fn new(pool: &Arc<Pool>, leased: (Box<Instance>, InstanceSlot), permit: CallPermit) -> Self {
        Self { pool: Arc::clone(pool), leased: Some(leased), _permit: permit }
    }

    /// Returns the leased instance.
    pub(crate) fn instance(&mut self) -> &mut Instance {
        &mut self.leased.as_mut().expect("a lease holds its instance until it is finished").0
    }

    /// Keeps the instance in `kept` after a call that ended well, or returns it if it must not be reused or other
    /// callers wait for it or its slot.
    pub(crate) fn keep(mut self, kept: &mut HeldLease) {
        let keeps = self.leased.as_mut().is_some_and(|(instance, _)| self.pool.may_keep(instance));
        if keeps {
            kept.0 = Some(self);
        } else {
            self.finish(true);
        }
    }

    /// Ends the instance after a fault, and reports that to the supervision.
    pub(crate) fn fail(self, fault: &Fault, failure: InstanceFailure) {
        // The lease is dropped at the end of this function, which ends the instance.
        self.pool.failed(failure, fault);
    }

    /// Returns the instance to its pool, where it ends unless `well` is set.
    pub(crate) fn finish(mut self, well: bool) {
        if let Some((instance, slot)) = self.leased.take() {
            self.pool.give_back(instance, slot, well);
        }
    }
}

/// An instance that a worker keeps between two calls, instead of returning it and asking for one again. Dropping this
/// returns it.
#[derive(Default)]
pub(crate) struct HeldLease(Option<Lease>);

impl HeldLease {
    /// Takes the kept instance if it belongs to this pool and may still be used. Otherwise it is returned.
    pub(crate) fn take(&mut self, pool: &Arc<Pool>) -> Option<Lease> {
        let mut lease = self.0.take()?;
        // A reload may have lowered the number of uses.
        if Arc::ptr_eq(&lease.pool, pool) && pool.has_uses_left(lease.instance()) {
            return Some(lease);
        }
        lease.finish(true);
        None
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            lease.finish(true);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.leased.take().is_some() {
            // The condition has dropped the instance and its slot, so that `refill` finds the slot free.
            self.pool.ended();
            self.pool.refill();
        }
    }
}
