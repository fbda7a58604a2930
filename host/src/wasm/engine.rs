//! The engines, sized to the machine, and what belongs to all instances together.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, ModuleVersionStrategy, PoolingAllocationConfig};

use super::artefact::Artefacts;
use super::guest::Ctx;
use super::inspect;
use super::link;
use super::places::{Place, Places, Turn};
use super::pool::Pool;
use super::program::Programs;
use super::spares::{Idle, Spares};

/// How often a running guest is asked whether its budget is used up.
const TICK: Duration = Duration::from_millis(1);
/// An instance costs at most this many memory mappings: four for each memory (what comes before and after the image of
/// its initial content, the image, and what is not there yet), of which there are a quarter more than instances, and two
/// for a stack and its guard; as many again for a stack on the engine that counts fuel.
const MAPPINGS_PER_INSTANCE: u64 = 9;
/// More live instances than this are not kept on any machine; each costs about 25 kB when idle.
const MAX_INSTANCES: u64 = 16_384;
/// With fewer the host is of no use.
const MIN_INSTANCES: u64 = 64;
/// The usual bound of mappings on Linux, where the machine's own cannot be read.
const USUAL_MAPPINGS: u64 = 65_530;
/// Core instances, memories and tables that one instance of a component may have. Python's components have
/// about twenty core instances.
const CORE_INSTANCES: u32 = 64;
const MEMORIES: u32 = 4;
const TABLES: u32 = 16;
/// Every table may have this many entries; JavaScript's and Python's have some ten thousand.
const TABLE_ELEMENTS: usize = 65_536;
/// Beyond what wasmtime takes for a mapping of the initial memory by default, so that large guests keep it.
const IMAGE_BYTES: u64 = 64 << 20;

/// What stays in memory of an instance that has ended, for the next one: giving pages back to the system and
/// taking them again costs more than a small call, and interrupts every other core. Only pages that were written
/// are cleared.
const KEPT_MEMORY: usize = 512 << 10;
/// The same where the system cannot say which were written.
const KEPT_WITHOUT_SCAN: usize = 64 << 10;
const KEPT_TABLE: usize = 16 << 10;

/// How a runtime is set up.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeOptions {
    /// The folder of compiled artefacts.
    pub(crate) cache: PathBuf,
    /// Whether other hosts may use that folder too.
    pub(crate) shared_cache: bool,
    /// The command line for compiling apart: a program that hands what follows `compile-component` among its
    /// arguments to [`compile_child`](super::compile_child), with arguments that go before, if it needs some.
    pub(crate) compiler: Vec<OsString>,
    /// How many instances may live at once, as far as the machine allows; none leaves it to the machine.
    pub(crate) instances: Option<u32>,
}

/// The engines, the cache of artefacts and the places for instances.
pub(crate) struct Runtime {
    plain: Compiled,
    /// Made when an agent first sets `fuel`: counting costs 14 to 22 % of every guest.
    fuelled: OnceLock<Compiled>,
    pub(super) artefacts: Artefacts,
    pub(super) programs: Programs,
    /// Turns to compile.
    pub(super) compiling: Semaphore,
    places: Arc<Places>,
    /// Whose idle instances can make way when all places are taken.
    pub(super) spares: Spares,
}

/// An engine with what guests are linked against.
pub(super) struct Compiled {
    pub(super) engine: Engine,
    pub(super) linker: wasmtime::component::Linker<Ctx>,
}

/// Why the runtime could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// wasmtime could not reserve what instances need.
    #[error("reserving address space for {instances} instances; a limit such as `ulimit -v` may be in the way")]
    Engine {
        /// How many were tried last.
        instances: u32,
        /// What wasmtime says.
        #[source]
        source: wasmtime::Error,
    },
    /// The functions of the host could not be defined.
    #[error("defining the host's functions")]
    Link(#[source] wasmtime::Error),
    /// The folder of artefacts cannot be used.
    #[error("preparing the folder of compiled components {}", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

impl Runtime {
    /// Sets up the default engine, and starts the ticker that bounds guests' time on a core.
    pub(crate) fn new(options: RuntimeOptions) -> Result<Arc<Self>, RuntimeError> {
        let artefacts = Artefacts::open(options.cache.clone(), options.compiler, options.shared_cache)
            .map_err(|source| RuntimeError::Cache { path: options.cache, source })?;
        let most = machine_instances(max_map_count());
        if let Some(asked) = options.instances.filter(|asked| *asked > most) {
            tracing::warn!(
                "host.instances = {asked}, but this machine's vm.max_map_count lets {most} live; more need a higher one"
            );
        }
        let mut instances = options.instances.unwrap_or(most).min(most);
        let plain = loop {
            match compiled(false, instances) {
                Ok(plain) => break plain,
                // What could not be reserved for many may do for half as many.
                Err(RuntimeError::Engine { .. }) if u64::from(instances) / 2 >= MIN_INSTANCES => instances /= 2,
                Err(error) => return Err(error),
            }
        };
        Ok(Arc::new(Self {
            plain,
            fuelled: OnceLock::new(),
            artefacts,
            programs: Programs::default(),
            compiling: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
            places: Places::new(instances),
            spares: Spares::default(),
        }))
    }

    /// How many instances may live at once.
    pub(crate) fn instances(&self) -> u32 {
        self.places.total()
    }

    /// How many live now.
    pub(crate) fn live(&self) -> u32 {
        self.places.total() - self.places.free()
    }

    pub(super) fn compiled(&self, fuel: bool) -> Result<&Compiled, RuntimeError> {
        if !fuel {
            return Ok(&self.plain);
        }
        if let Some(fuelled) = self.fuelled.get() {
            return Ok(fuelled);
        }
        let made = compiled(true, self.instances())?;
        Ok(self.fuelled.get_or_init(|| made))
    }

    /// A place for one more instance. When all are taken, an idle instance of another agent makes way; when
    /// none is idle, this waits for the first that becomes so.
    pub(super) async fn place(&self) -> Place {
        let mut insists = false;
        loop {
            let waits = match self.places.take_or_wait(insists) {
                Ok(place) => return place,
                Err(waits) => waits,
            };
            // Looked at from the queue: an instance that becomes idle is found here, or calls. While others wait none
            // is idle of which they do not hear.
            if (waits.before == 0 || insists)
                && let Some(place) = self.evict_idle()
            {
                drop(waits);
                // There may be more that are idle, for those who came meanwhile.
                self.places.call(None);
                return place;
            }
            match waits.turn.await.expect("places are there as long as the runtime") {
                Turn::Take(place) => return place,
                Turn::Look(look) => {
                    if let Some(place) = look.spare().or_else(|| self.places.take()) {
                        look.done();
                        return place;
                    }
                    // It calls the next as it is dropped.
                    if let Some(place) = self.evict_idle() {
                        return place;
                    }
                    look.done();
                }
            }
            insists = true;
        }
    }

    /// The places for instances.
    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Whether somebody waits for a place.
    pub(super) fn is_awaited(&self) -> bool {
        self.places.waiting() > 0
    }

    /// Hears that an instance of this pool became idle: who waits for a place is told.
    pub(super) fn became_idle(&self, pool: &Arc<Pool>) {
        if self.is_awaited() && !self.places.call(Some(pool)) {
            drop(pool.spare().map(Idle::end));
        }
    }

    /// Ends an idle instance for its place.
    fn evict_idle(&self) -> Option<Place> {
        self.spares.take().map(Idle::end)
    }

    /// A place that is free, for which no instance has to make way.
    pub(super) fn free_place(&self) -> Option<Place> {
        self.places.take()
    }

    /// How many wait for a place.
    #[cfg(test)]
    pub(super) fn awaited(&self) -> usize {
        self.places.waiting()
    }
}

/// How many instances a machine with this bound of mappings can have, with a quarter left for all else.
pub(crate) fn machine_instances(mappings: u64) -> u32 {
    let instances = (mappings - mappings / 4) / MAPPINGS_PER_INSTANCE;
    u32::try_from(instances.clamp(MIN_INSTANCES, MAX_INSTANCES)).expect("the bound fits")
}

fn max_map_count() -> u64 {
    std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL_MAPPINGS)
}

fn compiled(fuel: bool, instances: u32) -> Result<Compiled, RuntimeError> {
    let engine =
        Engine::new(&config(fuel, Some(instances))).map_err(|source| RuntimeError::Engine { instances, source })?;
    let linker = link::linker(&engine).map_err(RuntimeError::Link)?;
    start_ticker(&engine);
    Ok(Compiled { engine, linker })
}

/// The settings that compiling and running share. `instances` sizes the pool; none is for compiling only.
pub(super) fn config(fuel: bool, instances: Option<u32>) -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .consume_fuel(fuel)
        .epoch_interruption(true)
        .memory_guaranteed_dense_image_size(IMAGE_BYTES)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(32));
    config.wasm_features(inspect::FEATURES_OFF, false);
    // wasmtime alone compares only its major version: an artefact of another patch release is not for us.
    config
        .module_version(ModuleVersionStrategy::Custom(format!(
            "caxton-{}-{}",
            env!("CARGO_PKG_VERSION"),
            super::ENGINE.1
        )))
        .expect("the version is short");
    if let Some(instances) = instances {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(instances)));
    }
    config
}

fn pooling(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        // Most components have one memory; the few with more share what the others leave.
        .total_memories(instances.saturating_add(instances / 4).saturating_add(MEMORIES))
        .total_tables(instances.saturating_mul(4).saturating_add(TABLES))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .max_core_instance_size(1 << 20)
        .max_component_instance_size(1 << 20)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(4 << 30)
        .table_keep_resident(KEPT_TABLE)
        .max_unused_warm_slots(256);
    // A page that was swapped out would be taken for clean.
    if PoolingAllocationConfig::is_pagemap_scan_available() && !has_swap() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEPT_MEMORY);
    } else {
        // All that is kept is written anew.
        pool.linear_memory_keep_resident(KEPT_WITHOUT_SCAN);
    }
    pool
}

/// Whether this machine may move pages to a disk.
fn has_swap() -> bool {
    // The first line is a heading.
    std::fs::read_to_string("/proc/swaps").map_or(true, |text| text.lines().count() > 1)
}

/// Advances the engine's epoch until the engine is gone.
fn start_ticker(engine: &Engine) {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("caxton-ticker".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })
        .expect("the system can start a thread");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_sized_to_the_machine() {
        for (mappings, instances) in [(65_530, 5_460), (0, 64), (u64::MAX / 2, 16_384)] {
            assert_eq!(machine_instances(mappings), instances, "{mappings}");
        }
    }
}
