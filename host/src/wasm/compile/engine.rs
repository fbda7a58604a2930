//! The engines, sized to the machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, ModuleVersionStrategy, PoolingAllocationConfig};

use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::linker;
use crate::wasm::compile::engine_kind::EngineKind;
use crate::wasm::inspect;
use crate::wasm::service;

/// The engine and its version.
pub(crate) const ENGINE: (&str, &str) = ("wasmtime", env!("WASMTIME_VERSION"));

/// The interval of epoch ticks, at which a running guest's budget is checked.
const TICK: Duration = Duration::from_millis(1);
/// The most memory mappings of one instance: four for each memory (before and after the image of its initial content,
/// the image, and the unmapped rest), with a quarter more memories than instances, and two for a stack with its guard
/// page; and as many again for a stack of the engine that counts fuel.
const MAPPINGS_PER_INSTANCE: u64 = 9;
/// The bound of live instances on any machine; each costs about 25 kB while idle.
const MAX_INSTANCES: u64 = 16_384;
/// The least number of instances: a host with fewer is of no use.
pub(in crate::wasm) const MIN_INSTANCES: u32 = 64;
/// The default of `vm.max_map_count` on Linux, used where the machine's cannot be read.
const USUAL_MAPPINGS: u64 = 65_530;
/// The bound of core instances of one component. Components made from Python have about twenty.
const CORE_INSTANCES: u32 = 64;
const MEMORIES: u32 = 4;
const TABLES: u32 = 16;
/// The entries of each table. Components made from JavaScript and Python have some ten thousand.
const TABLE_ELEMENTS: usize = 65_536;
/// The bound of an initial memory that is mapped. Above wasmtime's default, so that large guests are mapped as well.
const IMAGE_BYTES: u64 = 64 << 20;

/// The memory of an ended instance that stays resident for the next one: returning pages to the system and faulting
/// them in again costs more than a small call, and interrupts all other cores. Only pages that were written are
/// cleared.
const KEPT_MEMORY: usize = 512 << 10;
/// The same where the kernel cannot tell which pages were written, so that all of them are cleared.
const KEPT_WITHOUT_SCAN: usize = 64 << 10;
const KEPT_TABLE: usize = 16 << 10;
/// The ended instances whose memory is kept, at least and at most, and the share of the host's budget of memory for them.
const MIN_WARM_SLOTS: u32 = 4;
const MAX_WARM_SLOTS: u32 = 256;
const WARM_SHARE: u64 = 16;

/// The part of the instances that an engine with concurrency has room for, and the stacks of each: a task that waits keeps
/// its stack. With both engines of this kind these are a sixth of the mappings of a machine, of the quarter that is left
/// to the rest of the process: agents of the first engine have as many instances as before.
const ASYNC_SHARE: u32 = 4;
const ASYNC_STACKS: u32 = 2;

/// An engine with its linker.
pub(in crate::wasm) struct Compiled {
    pub(in crate::wasm) engine: Engine,
    pub(in crate::wasm) linker: wasmtime::component::Linker<Ctx>,
    /// The permits for instances, of an engine that has room for fewer than the host has slots.
    pub(in crate::wasm) permits: Option<Arc<Semaphore>>,
}

/// The error of setting up a runtime.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// The address space for instances could not be reserved.
    #[error("reserving address space for {instances} instances; a limit such as `ulimit -v` may be in the way")]
    Engine {
        /// The number of the last try.
        instances: u32,
        /// The error of wasmtime.
        #[source]
        source: wasmtime::Error,
    },
    /// The host's functions could not be defined in the linker.
    #[error("defining the host's functions")]
    Link(#[source] wasmtime::Error),
    /// The folder of artefacts cannot be used.
    #[error("preparing the folder of compiled components {}", path.display())]
    Cache {
        /// The path of the folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

/// Returns the number of instances that this bound of mappings allows, with a quarter left for the rest of the process.
pub(crate) fn machine_instances(mappings: u64) -> u32 {
    let instances = (mappings - mappings / 4) / MAPPINGS_PER_INSTANCE;
    u32::try_from(instances.clamp(MIN_INSTANCES.into(), MAX_INSTANCES)).expect("the bound fits")
}

pub(in crate::wasm) fn max_map_count() -> u64 {
    std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL_MAPPINGS)
}

/// Returns the number of ended instances whose memory stays resident, for a host with this budget.
pub(in crate::wasm) fn warm_slots(budget: u64) -> u32 {
    // A sixteenth of it at most, as this memory is not counted.
    let slots = budget / WARM_SHARE / KEPT_MEMORY as u64;
    u32::try_from(slots).unwrap_or(MAX_WARM_SLOTS).clamp(MIN_WARM_SLOTS, MAX_WARM_SLOTS)
}

/// Returns the number of instances that an engine with concurrency has room for.
pub(in crate::wasm) fn async_instances(instances: u32) -> u32 {
    (instances / ASYNC_SHARE).max(instances.min(MIN_INSTANCES))
}

pub(in crate::wasm) fn compiled(kind: EngineKind, instances: u32, warm: u32) -> Result<Compiled, RuntimeError> {
    let instances = if kind.is_asynchronous() { async_instances(instances) } else { instances };
    let engine = Engine::new(&config(kind, Some((instances, warm))))
        .map_err(|source| RuntimeError::Engine { instances, source })?;
    let mut linker = linker::linker(&engine).map_err(RuntimeError::Link)?;
    if kind.is_asynchronous() {
        service::linker::add_to_linker(&mut linker).map_err(RuntimeError::Link)?;
    }
    start_ticker(&engine);
    let permits = kind.is_asynchronous().then(|| Arc::new(Semaphore::new(instances as usize)));
    Ok(Compiled { engine, linker, permits })
}

/// Returns the settings that compiling and running share. `pool` has the size of the pool, and the number of ended
/// instances whose memory it keeps; `None` is for inspection only.
pub(in crate::wasm) fn config(kind: EngineKind, pool: Option<(u32, u32)>) -> Config {
    let mut config = Config::new();
    config
        // The component model's async support would make a warm call several times slower, and the contract does not
        // use it. So only components of WASI 0.3 have it.
        .concurrency_support(kind.is_asynchronous())
        .wasm_component_model_async(kind.is_asynchronous())
        // Fuel is counted by code in the guest, so that engines with and without it need artefacts of their own.
        .consume_fuel(kind.counts_fuel())
        // Needed by all engines: fuel counts instructions, and the epoch bounds time.
        .epoch_interruption(true)
        .memory_guaranteed_dense_image_size(IMAGE_BYTES)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(32));
    config.wasm_features(inspect::FEATURES_OFF, false);
    // By default wasmtime compares only its major version, and would accept an artefact of another patch release.
    config
        .module_version(ModuleVersionStrategy::Custom(format!("caxton-{}-{}", env!("CARGO_PKG_VERSION"), ENGINE.1)))
        .expect("the version is short");
    if let Some((instances, warm)) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(kind, instances, warm)));
    }
    config
}

fn pooling(kind: EngineKind, instances: u32, warm: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        // A number only: a core instance takes no memory before it is used.
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        // Most components have one memory; the few with more use the extra quarter.
        .total_memories(instances.saturating_add(instances / 4).saturating_add(MEMORIES))
        .total_tables(instances.saturating_mul(4).saturating_add(TABLES))
        .total_stacks(instances.saturating_mul(if kind.is_asynchronous() { ASYNC_STACKS } else { 1 }))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .max_core_instance_size(1 << 20)
        .max_component_instance_size(1 << 20)
        .table_elements(TABLE_ELEMENTS)
        // Address space only: `limits.memory` bounds the use.
        .max_memory_size(4 << 30)
        .table_keep_resident(KEPT_TABLE)
        .max_unused_warm_slots(warm);
    // The kernel's page scan takes a page that was swapped out for one that was not written.
    if PoolingAllocationConfig::is_pagemap_scan_available() && !has_swap() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEPT_MEMORY);
    } else {
        // Everything that is kept has to be cleared.
        pool.linear_memory_keep_resident(KEPT_WITHOUT_SCAN);
    }
    pool
}

/// Returns `true` if this machine may swap pages to a disk.
fn has_swap() -> bool {
    // The first line is a heading.
    // Unknown counts as swap, which only costs speed; the other error would leak a guest's pages to the next.
    std::fs::read_to_string("/proc/swaps").map_or(true, |text| text.lines().count() > 1)
}

/// Advances the engine's epoch until the engine is dropped.
fn start_ticker(engine: &Engine) {
    // Weak, so that the ticker ends with the engine.
    let engine = engine.weak();
    // A thread and not a task: it has to tick while guests occupy all workers of the runtime.
    std::thread::Builder::new()
        .name("caxton-ticker".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                // Dropped at the end of each turn, so that the ticker does not keep the engine alive while it sleeps.
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
    fn the_memory_that_is_kept_follows_the_budget() {
        for (budget, slots) in [(0, 4), (64 << 20, 8), (200 << 20, 25), (8 << 30, 256), (u64::MAX, 256)] {
            assert_eq!(warm_slots(budget), slots, "{budget}");
        }
    }

    #[test]
    fn an_engine_with_concurrency_has_room_for_a_part() {
        for (instances, room) in [(5_460, 1_365), (256, 64), (100, 64), (16, 16)] {
            assert_eq!(async_instances(instances), room, "{instances}");
        }
    }

    #[test]
    fn the_pool_is_sized_to_the_machine() {
        for (mappings, instances) in [(65_530, 5_460), (0, 64), (u64::MAX / 2, 16_384)] {
            assert_eq!(machine_instances(mappings), instances, "{mappings}");
        }
    }
}
