//! The eviction of idle instances when another pool needs a slot.
//!
//! A pool is listed when an instance of it becomes idle, and delisted when it is asked for one. So finding a victim
//! takes the same time for any number of agents, and a pool whose instance is used again and again is listed once.
//!
//! Victims are chosen at random among those that were not used recently. With more active agents than slots, strict LRU
//! would evict just the instance that is needed next, so that every message would start one.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::wasm::pool::slots::{Evict, EvictedInstance};

/// The number of recently used pools that are skipped for one slot. Bounded, so that finding a victim does not take
/// longer with more active pools.
const MAX_SKIPPED: usize = 8;

/// A pool in the list.
pub(in crate::wasm) trait EvictablePool: Evict {
    /// Returns the state of the pool in the list.
    fn listing(&self) -> &Listing;
    /// Returns the number of idle instances.
    fn idle_count(&self) -> u32;
}

/// The state of a pool in the list.
#[derive(Default)]
pub(in crate::wasm) struct Listing {
    is_listed: AtomicBool,
    /// Set if an idle instance was used since the pool was last considered.
    used: AtomicBool,
}

impl Listing {
    /// Marks the pool as used.
    pub(in crate::wasm) fn mark_used(&self) {
        // Relaxed: a mark that is seen late costs one eviction that was not the best.
        self.used.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if the pool was used since the last call.
    fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Returns `true` if the pool has to be added to the list, and marks it as listed.
    pub(in crate::wasm) fn try_list(&self) -> bool {
        // The load in front keeps a pool that is used again and again from contending for the cache line.
        !self.is_listed.load(Ordering::SeqCst) && !self.is_listed.swap(true, Ordering::SeqCst)
    }

    /// Marks the pool as not listed.
    fn unlist(&self) {
        self.is_listed.store(false, Ordering::SeqCst);
    }
}

/// The list of pools that have an idle instance, or had one a moment ago.
#[derive(Default)]
pub(in crate::wasm) struct EvictableList {
    pools: Mutex<Vec<Weak<dyn EvictablePool>>>,
}

impl EvictableList {
    /// Adds a pool to the list.
    pub(in crate::wasm) fn add(&self, pool: Weak<dyn EvictablePool>) {
        let mut pools = self.pools.lock();
        // Pools that were dropped are removed only when the list would have to grow, which keeps the cost per pool
        // constant.
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        // Weak: the list must not keep the pool of a removed agent alive.
        pools.push(pool);
    }

    /// Takes an idle instance for eviction.
    pub(in crate::wasm) fn take(&self) -> Option<EvictedInstance> {
        let mut pools = self.pools.lock();
        let mut skipped = 0;
        while !pools.is_empty() {
            let at = rand::random_range(0..pools.len());
            let Some(pool) = pools[at].upgrade() else {
                pools.swap_remove(at);
                continue;
            };
            if skipped < MAX_SKIPPED && pool.listing().was_used() {
                // The mark was cleared by the question, so that a pool is skipped once for each use.
                skipped += 1;
                continue;
            }
            // Delisted before it is asked: an instance that becomes idle afterwards lists the pool again.
            pool.listing().unlist();
            let idle = pool.evict();
            // Stays listed only if it has a further idle instance and was not listed again meanwhile.
            if idle.is_none() || pool.idle_count() == 0 || !pool.listing().try_list() {
                pools.swap_remove(at);
            }
            if idle.is_some() {
                return idle;
            }
        }
        None
    }
}
