//! Leases: an instance for the time of one call.

use std::sync::Arc;

use caxton_control::breaker::FaultHistory;
use caxton_control::supervision::InstanceFailure;

use super::Fault;
use super::instance::Instance;
use super::places::Place;
use super::pool::Pool;
use super::turns::Turn;

/// An instance for the time of one call. Dropping it without [`finish`](Lease::finish) ends the instance, as needed
/// after a trap and for a call that was broken off.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    held: Option<(Box<Instance>, Place)>,
    _turn: Turn,
}

impl Lease {
    pub(super) fn new(pool: &Arc<Pool>, held: (Box<Instance>, Place), turn: Turn) -> Self {
        Self { pool: Arc::clone(pool), held: Some(held), _turn: turn }
    }

    /// Returns the leased instance.
    pub(crate) fn instance(&mut self) -> &mut Instance {
        &mut self.held.as_mut().expect("a lease holds its instance until it is finished").0
    }

    /// Keeps the instance in `kept` after a call that ended well, or returns it if it must not be reused or other
    /// callers wait for it or its slot.
    pub(crate) fn keep(mut self, kept: &mut Kept) {
        let keeps = self.held.as_mut().is_some_and(|(instance, _)| self.pool.may_keep(instance));
        if keeps {
            kept.0 = Some(self);
        } else {
            self.finish(true);
        }
    }

    /// Ends the instance after a fault, and reports that to the supervision.
    pub(crate) fn fail(self, fault: &Fault, failing: FaultHistory) {
        let failure = match failing {
            FaultHistory::First => InstanceFailure::Trap,
            FaultHistory::Repeated => InstanceFailure::TrapAgain,
        };
        self.pool.failed(failure, fault);
    }

    /// Returns the instance to its pool, where it ends unless `well` is set.
    pub(crate) fn finish(mut self, well: bool) {
        if let Some((instance, place)) = self.held.take() {
            self.pool.take_back(instance, place, well);
        }
    }
}

/// An instance that a worker keeps between two calls, instead of returning it and asking for one again. Dropping this
/// returns it.
#[derive(Default)]
pub(crate) struct Kept(Option<Lease>);

impl Kept {
    /// Takes the kept instance if it belongs to this pool and may still be used. Otherwise it is returned.
    pub(crate) fn take(&mut self, pool: &Arc<Pool>) -> Option<Lease> {
        let mut lease = self.0.take()?;
        // A reload may have lowered the number of uses.
        if Arc::ptr_eq(&lease.pool, pool) && pool.may_use(lease.instance()) {
            return Some(lease);
        }
        lease.finish(true);
        None
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            lease.finish(true);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.held.take().is_some() {
            self.pool.ended();
            self.pool.refill();
        }
    }
}
