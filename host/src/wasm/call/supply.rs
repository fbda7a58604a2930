//! The clocks and random numbers of guests that have others than those of the machine: none, or such as follow from the
//! message, the same in each attempt (`allow.clock`, `allow.random`).
//!
//! Within a message both clocks stand at the time at which it was accepted. A timer waits for the time that it is asked
//! for, and the clocks stand still meanwhile. Outside of messages, as at its start, a guest is in the year 1970, and has
//! random numbers that follow from nothing: every instance begins alike.

use caxton_control::desired::Supply;
use rand::RngCore;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::denials::WASI;
use crate::wasm::call::of_message::{NANOS_PER_MS, OfMessage};
use crate::wasm::call::random::check;

/// The error of a guest that asks for what it was not granted.
#[derive(Debug, thiserror::Error)]
#[error("it asked for {what}, which `{key} = \"none\"` denies")]
pub(in crate::wasm) struct SupplyDenied {
    what: &'static str,
    key: &'static str,
}

/// Creates the error of a guest that asks for the time or a timer.
pub(in crate::wasm) fn no_clock() -> SupplyDenied {
    SupplyDenied { what: "the time", key: "allow.clock" }
}

/// Creates the error of a guest that asks for random numbers.
pub(in crate::wasm) fn no_random() -> SupplyDenied {
    SupplyDenied { what: "random numbers", key: "allow.random" }
}

impl Ctx {
    /// Begins a message: what is supplied follows from its id and its time from now on, also in a save after it.
    pub(in crate::wasm) fn supply_by(&mut self, message: impl FnOnce() -> (String, u64)) {
        // Not made for most agents, which have the machine's.
        if self.who.spec.allow.follows_message() {
            let (id, at_ms) = message();
            self.of_message = Some(Box::new(OfMessage::new(&id, at_ms)));
        }
    }

    pub(in crate::wasm) fn values(&mut self) -> &mut OfMessage {
        self.of_message.get_or_insert_with(Box::default)
    }

    pub(in crate::wasm) fn clock_supply(&self) -> Supply {
        self.who.spec.allow.clock
    }

    pub(in crate::wasm) fn random_supply(&self) -> Supply {
        self.who.spec.allow.random
    }
}

/// Replaces the functions of clocks and random numbers. Called after the originals are defined.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    // The originals are defined already, and defining them again is an error otherwise.
    linker.allow_shadowing(true);
    add_clocks(linker)?;
    add_random(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn add_clocks(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    linker.instance(&format!("wasi:clocks/wall-clock@{WASI}"))?.func_wrap(
        "now",
        |mut store: StoreContextMut<'_, Ctx>, (): ()| {
            let ctx = store.data_mut();
            match ctx.clock_supply() {
                Supply::Real => Ok((wall_clock::Host::now(&mut ctx.clocks())?,)),
                Supply::Message => Ok((ctx.values().datetime(),)),
                Supply::None => Err(no_clock().into()),
            }
        },
    )?;
    let mut interface = linker.instance(&format!("wasi:clocks/monotonic-clock@{WASI}"))?;
    interface.func_wrap("now", |mut store: StoreContextMut<'_, Ctx>, (): ()| {
        let ctx = store.data_mut();
        match ctx.clock_supply() {
            Supply::Real => Ok((monotonic_clock::Host::now(&mut ctx.clocks())?,)),
            Supply::Message => Ok((ctx.values().at_ms.saturating_mul(NANOS_PER_MS),)),
            Supply::None => Err(no_clock().into()),
        }
    })?;
    interface.func_wrap("subscribe-duration", |mut store: StoreContextMut<'_, Ctx>, (time,): (u64,)| {
        let ctx = store.data_mut();
        if ctx.clock_supply() == Supply::None {
            return Err(no_clock().into());
        }
        let pollable: Resource<DynPollable> = monotonic_clock::Host::subscribe_duration(&mut ctx.clocks(), time)?;
        Ok((pollable,))
    })?;
    interface.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, Ctx>, (when,): (u64,)| {
        let ctx = store.data_mut();
        let pollable: Resource<DynPollable> = match ctx.clock_supply() {
            Supply::Real => monotonic_clock::Host::subscribe_instant(&mut ctx.clocks(), when)?,
            Supply::Message => {
                // From the clock that the guest sees, which stands.
                let time = when.saturating_sub(ctx.values().at_ms.saturating_mul(NANOS_PER_MS));
                monotonic_clock::Host::subscribe_duration(&mut ctx.clocks(), time)?
            }
            Supply::None => return Err(no_clock().into()),
        };
        Ok((pollable,))
    })
}

fn add_random(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&format!("wasi:random/random@{WASI}"))?;
    interface.func_wrap("get-random-bytes", |mut store: StoreContextMut<'_, Ctx>, (length,): (u64,)| {
        check(length)?;
        let ctx = store.data_mut();
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
    let mut interface = linker.instance(&format!("wasi:random/insecure@{WASI}"))?;
    interface.func_wrap("get-insecure-random-bytes", |mut store: StoreContextMut<'_, Ctx>, (length,): (u64,)| {
        check(length)?;
        let ctx = store.data_mut();
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
    linker.instance(&format!("wasi:random/insecure-seed@{WASI}"))?.func_wrap(
        "insecure-seed",
        |mut store: StoreContextMut<'_, Ctx>, (): ()| {
            let ctx = store.data_mut();
            match ctx.random_supply() {
                Supply::Real => Ok((insecure_seed::Host::insecure_seed(ctx.wasi.random())?,)),
                Supply::Message => Ok((ctx.values().seed,)),
                Supply::None => Err(no_random().into()),
            }
        },
    )
}
