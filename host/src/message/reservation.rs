//! Keys that are reserved for the next run of a handler.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::requests::RequestLog;

/// The reserved keys of an agent, as the runs of its handlers see them. A trait, because the reservations belong to the
/// agent, which the code that runs guests does not know.
pub(crate) trait KeyReservations: Send + Sync {
    /// Returns `true` if a run should not depend on the key: it is reserved under a ticket that is not in `own`.
    fn is_reserved(&self, key: &str, own: &[u64]) -> bool;
    /// Releases the keys of a ticket.
    fn release(&self, ticket: u64);
}

/// The reservations and earlier answers of a run.
#[derive(Clone, Default)]
pub(crate) struct RunContext {
    /// The reserved keys of the agent; `None` for a run that conflicts with no other, such as a copy.
    pub(crate) reservations: Option<Arc<dyn KeyReservations>>,
    /// Set if the run is broken off before it depends on a key that another handler has reserved.
    pub(crate) yields: bool,
    /// Set if the run is repeated from its beginning after it was broken off.
    pub(crate) is_repeatable: bool,
    /// The ticket of its own reserved keys.
    pub(crate) ticket: Option<u64>,
    /// The tickets of the run and of the handlers that wait for it, whose reservations do not concern it.
    pub(crate) own_tickets: Vec<u64>,
    /// The recorded requests of earlier runs.
    pub(crate) requests: RequestLog,
}

impl fmt::Debug for RunContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RunContext");
        shown.field("ticket", &self.ticket).field("own_tickets", &self.own_tickets).finish_non_exhaustive()
    }
}

/// A callback that gets the ticket of a reservation that ends.
type OnRelease = Box<dyn FnOnce(u64) + Send + Sync>;

/// Keys that are reserved under a ticket. Dropping it releases them.
pub(crate) struct Reservation {
    /// The ticket: unique in this process.
    pub(crate) ticket: u64,
    on_release: Option<OnRelease>,
}

impl Reservation {
    /// Creates a reservation; `on_release` is called with its ticket when it ends.
    pub(crate) fn new(on_release: impl FnOnce(u64) + Send + Sync + 'static) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only uniqueness matters.
        Self { ticket: NEXT.fetch_add(1, Ordering::Relaxed), on_release: Some(Box::new(on_release)) }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({})", self.ticket)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(on_release) = self.on_release.take() {
            on_release(self.ticket);
        }
    }
}
