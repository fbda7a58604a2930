//! The rates of callers by route.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use caxton_control::access::rate::RateTable;
use caxton_control::access::{CallerIdentity, RouteRate};
use parking_lot::Mutex;

use crate::directory::routes::RouteGuard;

/// Callers of a route whose rate is remembered at the least.
const MAX_CALLERS: usize = 10_000;
/// A caller for the rate: its identity, or where it comes from.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum RateKey {
    Identity(CallerIdentity),
    Peer(Option<IpAddr>),
}

/// The rate of a route as declared, and how much of it each caller has used up.
type CallerRates = (RouteRate, RateTable<RateKey>);

/// The rates of all routes that have one. Kept apart from the snapshot of the routes, which is replaced whenever an agent
/// changes.
#[derive(Default)]
pub(super) struct RouteRates {
    // Locked for two look-ups, and only by calls of routes with a rate.
    routes: Mutex<AHashMap<Arc<str>, CallerRates>>,
}

impl RouteRates {
    /// Takes a request of a caller out of the rate of a route, or returns the time until there is one.
    pub(super) fn take(&self, guard: &RouteGuard, caller: RateKey, now: Duration) -> Result<(), Duration> {
        let Some(rate) = guard.rate else { return Ok(()) };
        let mut routes = self.routes.lock();
        let known = routes.entry(Arc::clone(&guard.route));
        let (of, table) = known.or_insert_with(|| (rate, RateTable::new(rate.rate(), MAX_CALLERS)));
        if *of != rate {
            // The file was changed; what was used up under the old rate says nothing about the new one.
            (*of, *table) = (rate, RateTable::new(rate.rate(), MAX_CALLERS));
        }
        table.take(caller, now)
    }
}
