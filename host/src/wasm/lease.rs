//! An instance for the time of one call.

use std::sync::Arc;

use caxton_control::supervise::Failure;
use tokio::sync::OwnedSemaphorePermit;

use super::Fault;
use super::instance::Instance;
use super::places::Place;
use super::pool::Pool;

/// An instance for the time of one call. Dropping it without [`finish`](Lease::finish) ends the instance,
/// which is right after a trap and for a call that was broken off.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    held: Option<(Box<Instance>, Place)>,
    _turn: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn new(pool: &Arc<Pool>, held: (Box<Instance>, Place), turn: OwnedSemaphorePermit) -> Self {
        Self { pool: Arc::clone(pool), held: Some(held), _turn: turn }
    }

    /// The instance.
    pub(crate) fn instance(&mut self) -> &mut Instance {
        &mut self.held.as_mut().expect("a lease holds its instance until it is finished").0
    }

    /// Ends the instance, which failed at its work.
    pub(crate) fn fail(self, fault: &Fault) {
        self.pool.failed(Failure::Trap, fault);
    }

    /// Gives the instance back. `well` says that the call ended well; otherwise the instance ends here.
    pub(crate) fn finish(mut self, well: bool) {
        if let Some((instance, place)) = self.held.take() {
            self.pool.take_back(instance, place, well);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.held.take().is_some() {
            self.pool.ended();
        }
    }
}
