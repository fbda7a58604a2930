//! The memory of the host that a guest takes through its resources: fields, bodies, pollables.
//!
//! The more resources a guest has, the less each new one may hold, so that all of them together hold a few megabytes. A
//! guest that answers a request has about ten.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable, ResourceTableError};
use wasmtime_wasi_http::p2::bindings::http::types::HostFields as _;
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::outbound::CHUNK;

/// Entries of the resource table of a guest.
pub(super) const MAX_RESOURCES: usize = 1_024;
/// The resources up to which each may hold as much as it may alone.
const FEW: usize = 64;
/// The resources that are part of what an instance is counted with.
const UNCOUNTED: usize = 16;
/// The most bytes of one set of fields: room for the largest head that clients and servers commonly accept.
const FIELDS: usize = 128 << 10;
/// The smallest piece of a body that a guest may write at once.
const MIN_CHUNK: usize = 1 << 10;

/// The interface and the function in the names of `wasmtime-wasi-http`.
const TYPES: &str = "wasi:http/types@0.2.12";
const CLONE: &str = "[method]fields.clone";

/// Creates the table of a guest's resources.
pub(super) fn resource_table() -> ResourceTable {
    let mut table = ResourceTable::new();
    // wasmtime's default is a million entries.
    table.set_max_capacity(MAX_RESOURCES);
    table
}

/// Returns the part of a bound that one more resource may take beside so many others.
fn share(bound: usize, others: usize) -> usize {
    // With the square of the number, so that the sum over all of them stays below twice that of the first few.
    if others <= FEW { bound } else { bound * FEW * FEW / (others * others) }
}

/// Returns the most that so many resources may hold.
fn most(resources: usize) -> u64 {
    let full = if resources <= UNCOUNTED { 0 } else { resources.min(FEW) * FIELDS };
    // What `share` leaves for all beyond the first few.
    let more = if resources > FEW { FEW * FIELDS } else { 0 };
    (full + more) as u64
}

impl Ctx {
    /// Bounds what the next resource may hold by the number of those that are there, and counts it as memory of the
    /// host. Takes time in proportion to their number.
    pub(in crate::wasm) fn bound_resources(&mut self) {
        let count = self.table.iter_mut().count();
        self.http.set_field_size_limit(share(FIELDS, count));
        self.outbound.chunk = share(CHUNK, count).max(MIN_CHUNK);
        let held = most(count);
        // Within a call it only grows: what was dropped may live on in a response.
        if held > self.resources.bytes() {
            self.resources.hold(held);
        }
    }

    /// Checks that a copy of fields may be made.
    pub(in crate::wasm) fn check_copy(&mut self, fields: &Resource<FieldMap>) -> Result<(), ResourceTableError> {
        let (count, copied) = (self.table.iter_mut().count(), self.table.get(fields)?);
        let bytes: usize = copied.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        // The first few may be copies of any head that was accepted.
        if count > FEW && bytes > share(FIELDS, count) { Err(ResourceTableError::Full) } else { Ok(()) }
    }

    /// Forgets the resources of a call that has ended.
    pub(in crate::wasm) fn release_resources(&mut self) {
        if self.resources.bytes() > 0 {
            self.resources.hold(0);
        }
    }
}

/// Replaces the copying of fields in the linker: a copy has no bound otherwise, as what is copied may be the head of a
/// request, which the host has bounded by other rules.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    type Params = (Resource<FieldMap>,);
    linker.allow_shadowing(true);
    linker.instance(TYPES)?.func_wrap(
        CLONE,
        |mut store: StoreContextMut<'_, Ctx>, (fields,): Params| -> wasmtime::Result<(Resource<FieldMap>,)> {
            let ctx = store.data_mut();
            ctx.check_copy(&fields)?;
            Ok((ctx.http().clone(fields)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_resources_together_hold_a_few_megabytes() {
        for (others, expected) in [(0, FIELDS), (64, FIELDS), (128, FIELDS / 4), (256, FIELDS / 16), (1_023, 512)] {
            assert!(share(FIELDS, others).abs_diff(expected) < 16, "{others}: {}", share(FIELDS, others));
        }
        let all: usize = (0..MAX_RESOURCES).map(|others| share(FIELDS, others)).sum();
        assert!(all < 16 << 20 && all as u64 <= most(MAX_RESOURCES), "{all}");
        // What is counted is never less than what may be held.
        for count in UNCOUNTED + 1..=MAX_RESOURCES {
            let held: usize = (0..count).map(|others| share(FIELDS, others)).sum();
            assert!(held as u64 <= most(count), "{count}: {held}");
        }
    }
}
