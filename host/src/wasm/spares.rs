//! Who has an idle instance that can make way for another agent's.
//!
//! A pool enters the list when an instance of it becomes idle, and leaves it when it is asked for one. So one that
//! makes way is found in the same time however many agents there are, and a pool whose instance is used again and again
//! enters once.
//!
//! Which one makes way is left to chance, but for those that were used lately. When more agents take turns than there
//! are places, the one that was used longest ago is just the one that is next: each would find its instance gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::instance::Instance;
use super::places::Place;
use super::pool::Pool;

/// Pools whose instance was used since they were looked at last are passed over, but not more of them for one place:
/// finding one may not take longer the more are at work.
const PASSED_OVER: usize = 8;

/// An instance that waits for a call. It ends before its place is handed on.
pub(super) struct Idle {
    pub(super) instance: Box<Instance>,
    pub(super) place: Place,
    pub(super) since: Instant,
}

impl Idle {
    /// Ends the instance, whose place is left.
    pub(super) fn end(self) -> Place {
        drop(self.instance);
        self.place
    }
}

/// Whether a pool is in the list.
#[derive(Default)]
pub(super) struct Listed {
    here: AtomicBool,
    /// Whether an idle instance was used since the pool was looked at.
    used: AtomicBool,
}

impl Listed {
    /// An idle instance is used.
    pub(super) fn use_one(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether one was used since this was asked last.
    fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Whether the pool is to enter the list, where it is not yet.
    pub(super) fn enters(&self) -> bool {
        !self.here.load(Ordering::SeqCst) && !self.here.swap(true, Ordering::SeqCst)
    }

    /// The pool leaves it.
    fn leave(&self) {
        self.here.store(false, Ordering::SeqCst);
    }
}

/// Pools that have, or had a moment ago, an idle instance.
#[derive(Default)]
pub(super) struct Spares {
    pools: Mutex<Vec<Weak<Pool>>>,
}

impl Spares {
    /// A pool that was not in the list enters it.
    pub(super) fn enter(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock();
        // Those that are gone leave at a cost that new ones have paid for.
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        pools.push(Arc::downgrade(pool));
    }

    /// An idle instance that makes way.
    pub(super) fn take(&self) -> Option<Idle> {
        let mut pools = self.pools.lock();
        let mut passed_over = 0;
        while !pools.is_empty() {
            let at = rand::random_range(0..pools.len());
            let Some(pool) = pools[at].upgrade() else {
                pools.swap_remove(at);
                continue;
            };
            if passed_over < PASSED_OVER && pool.listed.was_used() {
                passed_over += 1;
                continue;
            }
            // Before it is asked: what becomes idle after that enters it again.
            pool.listed.leave();
            let idle = pool.spare();
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
