//! The bound of random bytes that a guest gets at once, with an error of its own.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::random::{insecure, random};

use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::denials::WASI;
use crate::wasm::call::fault::TooManyRandomBytes;

/// The number of random bytes that a guest may request at once.
pub(in crate::wasm) const MAX_RANDOM: u64 = 64 << 10;

/// Replaces the functions that return random bytes by ones whose error names the bound. Called after the originals are
/// defined.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    // The originals are defined already, and defining them again is an error otherwise.
    linker.allow_shadowing(true);
    linker.instance(&format!("wasi:random/random@{WASI}"))?.func_wrap(
        "get-random-bytes",
        |mut store: StoreContextMut<'_, Ctx>, (length,): (u64,)| {
            check(length)?;
            Ok((random::Host::get_random_bytes(store.data_mut().wasi.random(), length)?,))
        },
    )?;
    linker.instance(&format!("wasi:random/insecure@{WASI}"))?.func_wrap(
        "get-insecure-random-bytes",
        |mut store: StoreContextMut<'_, Ctx>, (length,): (u64,)| {
            check(length)?;
            Ok((insecure::Host::get_insecure_random_bytes(store.data_mut().wasi.random(), length)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn check(length: u64) -> Result<(), TooManyRandomBytes> {
    if length > MAX_RANDOM { Err(TooManyRandomBytes(MAX_RANDOM)) } else { Ok(()) }
}
