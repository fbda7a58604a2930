//! The clocks and random numbers of WASI 0.3, by `allow.clock` and `allow.random` as those of WASI 0.2.

use std::time::Duration;

use caxton_control::desired::Supply;
use rand::RngCore;
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p3::bindings::clocks::{monotonic_clock, system_clock};
use wasmtime_wasi::p3::bindings::random::{insecure, insecure_seed, random};

use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::of_message::{NANOS_PER_MS, OfMessage};
use crate::wasm::call::random::MAX_RANDOM;
use crate::wasm::call::supply::{SupplyDenied, no_clock, no_random};
use crate::wasm::service::offered::VERSION;

impl Ctx {
    /// Returns the time of the monotonic clock in nanoseconds.
    fn monotonic_now(&mut self) -> wasmtime::Result<u64> {
        match self.clock_supply() {
            Supply::Real => monotonic_clock::Host::now(&mut self.clocks()),
            Supply::Message => Ok(self.values().at_ms.saturating_mul(NANOS_PER_MS)),
            Supply::None => Err(no_clock().into()),
        }
    }

    fn check_timer(&self) -> Result<(), SupplyDenied> {
        if self.clock_supply() == Supply::None { Err(no_clock()) } else { Ok(()) }
    }
}

/// Replaces the functions of clocks and random numbers. Called after the originals are defined.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    linker.instance(&format!("wasi:clocks/system-clock@{VERSION}"))?.func_wrap(
        "now",
        |mut store: StoreContextMut<'_, Ctx>, (): ()| {
            let ctx = store.data_mut();
            match ctx.clock_supply() {
                Supply::Real => Ok((system_clock::Host::now(&mut ctx.clocks())?,)),
                Supply::Message => {
                    let now = ctx.values().datetime();
                    let seconds = i64::try_from(now.seconds).unwrap_or(i64::MAX);
                    Ok((system_clock::Instant { seconds, nanoseconds: now.nanoseconds },))
                }
                Supply::None => Err(no_clock().into()),
            }
        },
    )?;
    let mut interface = linker.instance(&format!("wasi:clocks/monotonic-clock@{VERSION}"))?;
    interface
        .func_wrap("now", |mut store: StoreContextMut<'_, Ctx>, (): ()| Ok((store.data_mut().monotonic_now()?,)))?;
    interface.func_wrap_concurrent("wait-until", |tasks, (when,): (u64,)| {
        Box::pin(async move {
            // From the clock that the guest sees, which may stand.
            let now = tasks.with(|mut store| store.data_mut().monotonic_now())?;
            tokio::time::sleep(Duration::from_nanos(when.saturating_sub(now))).await;
            Ok(())
        })
    })?;
    interface.func_wrap_concurrent("wait-for", |tasks, (time,): (u64,)| {
        Box::pin(async move {
            tasks.with(|mut store| store.data_mut().check_timer())?;
            tokio::time::sleep(Duration::from_nanos(time)).await;
            Ok(())
        })
    })?;
    add_random(linker)
}

fn add_random(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&format!("wasi:random/random@{VERSION}"))?;
    interface.func_wrap("get-random-bytes", |mut store: StoreContextMut<'_, Ctx>, (most,): (u64,)| {
        let ctx = store.data_mut();
        // Fewer are an answer, as a guest of 0.3 names the most.
        let length = most.min(MAX_RANDOM);
        match ctx.random_supply() {
            Supply::Real => Ok((random::Host::get_random_bytes(ctx.wasi.random(), length)?,)),
            Supply::Message => Ok((OfMessage::bytes(&mut ctx.values().random, length),)),
            Supply::None => Err(no_random().into()),
        }
    })?;
    interface.func_wrap("get-random-u64", |mut store: StoreContextMut<'_, Ctx>, (): ()| {
        let ctx = store.data_mut();
        match ctx.random_supply() {
            Supply::Real => Ok((random::Host::get_random_u64(ctx.wasi.random())?,)),
            Supply::Message => Ok((ctx.values().random.next_u64(),)),
            Supply::None => Err(no_random().into()),
        }
    })?;
    let mut interface = linker.instance(&format!("wasi:random/insecure@{VERSION}"))?;
    interface.func_wrap("get-insecure-random-bytes", |mut store: StoreContextMut<'_, Ctx>, (most,): (u64,)| {
        let ctx = store.data_mut();
        let length = most.min(MAX_RANDOM);
        match ctx.random_supply() {
            Supply::Real => Ok((insecure::Host::get_insecure_random_bytes(ctx.wasi.random(), length)?,)),
            Supply::Message => Ok((OfMessage::bytes(&mut ctx.values().insecure, length),)),
            Supply::None => Err(no_random().into()),
        }
    })?;
    interface.func_wrap("get-insecure-random-u64", |mut store: StoreContextMut<'_, Ctx>, (): ()| {
        let ctx = store.data_mut();
        match ctx.random_supply() {
            Supply::Real => Ok((insecure::Host::get_insecure_random_u64(ctx.wasi.random())?,)),
            Supply::Message => Ok((ctx.values().insecure.next_u64(),)),
            Supply::None => Err(no_random().into()),
        }
    })?;
    linker.instance(&format!("wasi:random/insecure-seed@{VERSION}"))?.func_wrap(
        "get-insecure-seed",
        |mut store: StoreContextMut<'_, Ctx>, (): ()| {
            let ctx = store.data_mut();
            match ctx.random_supply() {
                Supply::Real => Ok((insecure_seed::Host::get_insecure_seed(ctx.wasi.random())?,)),
                Supply::Message => Ok((ctx.values().seed,)),
                Supply::None => Err(no_random().into()),
            }
        },
    )
}
