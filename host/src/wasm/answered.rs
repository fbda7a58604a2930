//! How far a guest is with its response over HTTP: only one that set it and finished its body is used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http_body::Body;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, HostOutgoingBody as _};
use wasmtime_wasi_http::p2::body::{HostOutgoingBody, HyperOutgoingBody};
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use super::denied::WASI;
use super::guest::Ctx;

/// How far a guest is with its response. Shared, because it is set while the guest still holds the store.
#[derive(Debug, Clone, Default)]
pub(super) struct Answered(Arc<AtomicU8>);

/// The guest set a response that can be sent.
const SENT: u8 = 1;
/// It finished a body, or has none.
const FINISHED: u8 = 2;

impl Answered {
    /// The guest sets its response, or an error in place of one.
    pub(super) fn sends(&self, response: &Result<http::Response<HyperOutgoingBody>, ErrorCode>) {
        let Ok(response) = response else { return };
        if response.status().is_informational() {
            return;
        }
        // One without a body is never asked to finish it.
        let finished = if response.body().is_end_stream() { FINISHED } else { 0 };
        self.0.fetch_or(SENT | finished, Ordering::Relaxed);
    }

    /// The guest finished a body.
    fn finishes(&self) {
        self.0.fetch_or(FINISHED, Ordering::Relaxed);
    }

    /// Whether the guest set a response and finished its body.
    pub(super) fn is_whole(&self) -> bool {
        self.0.load(Ordering::Relaxed) == SENT | FINISHED
    }
}

/// Puts a `finish` in place of the linker's that notes that a body was finished.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    type Params = (Resource<HostOutgoingBody>, Option<Resource<FieldMap>>);
    linker.allow_shadowing(true);
    linker.instance(&format!("wasi:http/types@{WASI}"))?.func_wrap(
        "[static]outgoing-body.finish",
        |mut store: StoreContextMut<'_, Ctx>, (body, trailers): Params| -> wasmtime::Result<(Result<(), ErrorCode>,)> {
            let finished = match store.data_mut().http().finish(body, trailers) {
                Ok(()) => Ok(()),
                Err(error) => Err(error.downcast()?),
            };
            if finished.is_ok() {
                store.data().answered.finishes();
            }
            Ok((finished,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
