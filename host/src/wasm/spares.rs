//! Eviction of idle instances when another pool needs a slot.
//!
//! A pool is listed when an instance of it becomes idle, and delisted when it is asked for one. So finding a victim
//! takes the same time for any number of agents, and a pool whose instance is used again and again is listed once.
//!
//! Victims are chosen at random among those that were not used recently. With more active agents than slots, strict LRU
//! would evict just the instance that is needed next, so that every message would start one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::instance::Instance;
use super::places::Place;
use super::pool::Pool;

/// The number of recently used pools that are skipped for one slot. Bounded, so that finding a victim does not take
/// longer with more active pools.
const MAX_SKIPPED: usize = 8;

/// An idle instance with its slot. It has to end before the slot is passed on.
pub(super) struct Idle {
    pub(super) instance: Box<Instance>,
    pub(super) place: Place,
    pub(super) since: Instant,
}

impl Idle {
    /// Ends the instance and returns its slot.
    pub(super) fn end(self) -> Place {
        drop(self.instance);
        self.place
    }
}

/// The state of a pool in the list.
#[derive(Default)]
pub(super) struct Listed {
    here: AtomicBool,
    /// Set if an idle instance was used since the pool was last considered.
    used: AtomicBool,
}

impl Listed {
    /// Marks the pool as used.
    pub(super) fn use_one(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if the pool was used since the last call.
    fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Returns `true` if the pool has to be added to the list, and marks it as listed.
    pub(super) fn enters(&self) -> bool {
        !self.here.load(Ordering::SeqCst) && !self.here.swap(true, Ordering::SeqCst)
    }

    /// Marks the pool as not listed.
    fn leave(&self) {
        self.here.store(false, Ordering::SeqCst);
    }
}

/// The list of pools that have an idle instance, or had one a moment ago.
#[derive(Default)]
pub(super) struct Spares {
    pools: Mutex<Vec<Weak<Pool>>>,
}

impl Spares {
    /// Adds a pool to the list.
    pub(super) fn enter(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock();
        // Pools that were dropped are removed only when the list would have to grow, which keeps the cost per pool
        // constant.
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        // Weak: the list must not keep the pool of a removed agent alive.
        pools.push(Arc::downgrade(pool));
    }

    /// Takes an idle instance for eviction.
    pub(super) fn take(&self) -> Option<Idle> {
        let mut pools = self.pools.lock();
        let mut skipped = 0;
        while !pools.is_empty() {
            let at = rand::random_range(0..pools.len());
            let Some(pool) = pools[at].upgrade() else {
                pools.swap_remove(at);
                continue;
            };
            if skipped < MAX_SKIPPED && pool.listed.was_used() {
                skipped += 1;
                continue;
            }
            // Delisted before it is asked: an instance that becomes idle afterwards lists the pool again.
            pool.listed.leave();
            let idle = pool.spare();
            // Stays listed only if it has a further idle instance and was not listed again meanwhile.
            if idle.is_none() || pool.idle() == 0 || !pool.listed.enters() {
                pools.swap_remove(at);
            }
            if idle.is_some() {
                return idle;
            }
        }
        None
    }
}
