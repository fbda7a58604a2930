//! The parts that all instances share: the engines, the cache of artefacts, and the slots.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use crate::memory_budget::MemoryBudget;
use crate::secrets::Secrets;
use crate::wasm::compile::artefact::Artefacts;
use crate::wasm::compile::engine::{
    Compiled, MIN_INSTANCES, RuntimeError, compiled, machine_instances, max_map_count, warm_slots,
};
use crate::wasm::compile::engine_kind::EngineKind;
use crate::wasm::compile::program::{KnownFeatures, Programs};
use crate::wasm::pool::evictable::EvictableList;
use crate::wasm::pool::slots::{Evict, EvictedInstance, InstanceSlot, InstanceSlots, Wakeup};

/// The options of a runtime.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeOptions {
    /// The folder of compiled artefacts.
    pub(crate) cache: PathBuf,
    /// Set if other hosts may use the folder too.
    pub(crate) shared_cache: bool,
    /// The command line of the compiler: a program that passes the arguments after `compile-component` to
    /// [`compile_child`](crate::wasm::compile_child), with further arguments in front if it needs them.
    pub(crate) compiler: Vec<OsString>,
    /// The number of instances that may live at once, as far as the machine allows; `None` uses all it allows.
    pub(crate) instances: Option<u32>,
    /// The secrets that agents may be given.
    pub(crate) secrets: Arc<Secrets>,
    /// The host's budget of memory.
    pub(crate) memory: MemoryBudget,
}

/// The engines, the artefact cache and the instance slots.
pub(crate) struct Runtime {
    /// The engines, in the order of their kinds. The first is created at the start, each other when an agent first needs it:
    /// counting fuel costs every guest 14 to 22 %, and concurrency makes a warm call several times slower.
    engines: [OnceLock<Compiled>; EngineKind::ALL.len()],
    pub(in crate::wasm) artefacts: Artefacts,
    pub(in crate::wasm) programs: Programs,
    pub(in crate::wasm) known_features: KnownFeatures,
    /// Bounds concurrent compilations.
    pub(in crate::wasm) compiling: Semaphore,
    slots: Arc<InstanceSlots>,
    pub(in crate::wasm) secrets: Arc<Secrets>,
    pub(in crate::wasm) memory: MemoryBudget,
    /// The instances whose memory stays resident after their end, for the next ones.
    warm: u32,
    /// The pools with idle instances that can be evicted.
    pub(in crate::wasm) evictable: EvictableList,
    /// The pools with idle instances whose memory can be restored. They end for others that wait for memory.
    pub(in crate::wasm) restorable: EvictableList,
}

impl Runtime {
    /// Creates the default engine, and starts the ticker that bounds guests' CPU time.
    pub(crate) fn new(options: RuntimeOptions) -> Result<Arc<Self>, RuntimeError> {
        let artefacts = Artefacts::open(options.cache.clone(), options.compiler, options.shared_cache)
            .map_err(|source| RuntimeError::Cache { path: options.cache, source })?;
        let most = machine_instances(max_map_count());
        if let Some(asked) = options.instances.filter(|asked| *asked > most) {
            tracing::warn!(
                "host.instances = {asked}, but vm.max_map_count of this machine allows {most}; raise it for more"
            );
        }
        let mut instances = options.instances.unwrap_or(most).min(most);
        let warm = warm_slots(options.memory.limit());
        let plain = loop {
            match compiled(EngineKind::Plain, instances, warm) {
                Ok(plain) => break plain,
                // The address space for many instances may be refused; half of it may be granted.
                Err(RuntimeError::Engine { .. }) if instances / 2 >= MIN_INSTANCES => instances /= 2,
                Err(error) => return Err(error),
            }
        };
        let runtime = Arc::new(Self {
            // In the order of their kinds.
            engines: [plain.into(), OnceLock::new(), OnceLock::new(), OnceLock::new()],
            artefacts,
            programs: Programs::default(),
            known_features: KnownFeatures::default(),
            compiling: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
            slots: InstanceSlots::new(instances, &options.memory),
            secrets: options.secrets,
            memory: options.memory,
            warm,
            evictable: EvictableList::default(),
            restorable: EvictableList::default(),
        });
        // Weak: the budget lives as long as the last that it counts, which may be longer than the engine.
        let weak = Arc::downgrade(&runtime);
        runtime.memory.on_shortage(move || weak.upgrade().is_some_and(|runtime| runtime.evict_for_memory()));
        Ok(runtime)
    }

    /// Returns the number of instances that may live at once.
    pub(crate) fn instances(&self) -> u32 {
        self.slots.total()
    }

    /// Returns the number of live instances.
    pub(crate) fn live(&self) -> u32 {
        self.slots.total() - self.slots.free()
    }

    pub(in crate::wasm) fn compiled(&self, kind: EngineKind) -> Result<&Compiled, RuntimeError> {
        let engine = &self.engines[kind as usize];
        if let Some(compiled) = engine.get() {
            return Ok(compiled);
        }
        // Two callers may both create one; the second is dropped, and the error of neither is kept for later callers.
        let made = compiled(kind, self.instances(), self.warm)?;
        Ok(engine.get_or_init(|| {
            metrics::counter!("caxton_engines_created_total", "engine" => kind.name()).increment(1);
            made
        }))
    }

    /// Returns the kinds of the engines that were created so far.
    pub(crate) fn engines(&self) -> Vec<EngineKind> {
        EngineKind::ALL.into_iter().filter(|kind| self.engines[*kind as usize].get().is_some()).collect()
    }

    /// Takes a slot for one more instance. If all are taken, an idle instance of another agent is evicted. If none is
    /// idle, waits for the first that becomes so.
    pub(in crate::wasm) async fn slot(&self) -> InstanceSlot {
        let mut is_starved = false;
        loop {
            let waits = match self.slots.take_or_queue(is_starved) {
                Ok(slot) => return slot,
                Err(waits) => waits,
            };
            // Searched while queued: an instance that becomes idle is either found here or wakes this waiter. Behind
            // other waiters the search is pointless, because they would have been woken for any idle instance.
            if (waits.waiters_ahead == 0 || is_starved)
                && let Some(slot) = self.evict_idle()
            {
                // Before the next waiter is woken, so that this one is not the next.
                drop(waits);
                // Several instances may be idle, and waiters that came meanwhile have not been woken for them.
                self.slots.wake_next(None);
                return slot;
            }
            match waits.wakeup.await.expect("slots are there as long as the runtime") {
                Wakeup::Granted(slot) => return slot,
                Wakeup::Retry(token) => {
                    if let Some(slot) = token.evict().or_else(|| self.slots.take()) {
                        token.done();
                        return slot;
                    }
                    // Dropping `token` on this return wakes the next waiter.
                    if let Some(slot) = self.evict_idle() {
                        return slot;
                    }
                    token.done();
                }
            }
            // From now on in the priority queue: it was woken once in vain.
            is_starved = true;
        }
    }

    pub(in crate::wasm) fn slots(&self) -> &Arc<InstanceSlots> {
        &self.slots
    }

    /// Returns `true` if a caller waits for a slot, or anyone for memory.
    pub(in crate::wasm) fn has_waiters(&self) -> bool {
        self.slots.waiting() > 0 || self.memory.has_waiters()
    }

    /// Wakes a waiter after an instance of this pool became idle. For a starved waiter, and while anyone waits for memory,
    /// the instance is evicted at once.
    pub(in crate::wasm) fn instance_idle(&self, pool: &Arc<impl Evict + 'static>) {
        if self.memory.has_waiters()
            && let Some(evicted) = pool.evict()
        {
            // Its slot wakes a waiter as well.
            drop(evicted.end());
            return;
        }
        if self.slots.waiting() > 0 && !self.slots.wake_next(Some(&(Arc::clone(pool) as Arc<dyn Evict>))) {
            // The freed slot goes to the starved waiter.
            drop(pool.evict().map(EvictedInstance::end));
        }
    }

    /// Evicts an idle instance and returns its slot.
    fn evict_idle(&self) -> Option<InstanceSlot> {
        self.evictable.take().map(EvictedInstance::end)
    }

    /// Evicts an idle instance for its memory; one whose memory has to be restored only while something waits.
    fn evict_for_memory(&self) -> bool {
        let restorable = || if self.memory.has_waiters() { self.restorable.take() } else { None };
        // Ended here, after the lists are unlocked.
        self.evictable.take().or_else(restorable).map(EvictedInstance::end).is_some()
    }

    /// Takes a free slot without evicting an instance.
    pub(in crate::wasm) fn take_free_slot(&self) -> Option<InstanceSlot> {
        self.slots.take()
    }

    /// Returns the number of callers that wait for a slot.
    #[cfg(test)]
    pub(in crate::wasm) fn awaited(&self) -> usize {
        self.slots.waiting()
    }
}
