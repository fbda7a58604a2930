//! Responses without a body: those to HEAD, and those with status 204 or 304.
//!
//! They may have a `content-length` that tells the length of a GET's body (RFC 9110, section 8.6). wasi:http requires
//! that a body has that length, which none of these can meet.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, HostOutgoingBody as _};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::HostOutgoingResponse;
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use crate::wasm::call::ctx::Ctx;

/// The interface and the function in the names of `wasmtime-wasi-http`.
const TYPES: &str = "wasi:http/types@0.2.12";
const FINISH: &str = "[static]outgoing-body.finish";

/// Returns `true` if a response to this method with this status has no body. A 1xx response is not final.
pub(in crate::wasm) fn is_bodyless(method: &http::Method, status: http::StatusCode) -> bool {
    *method == http::Method::HEAD || is_bodyless_status(status)
}

fn is_bodyless_status(status: http::StatusCode) -> bool {
    matches!(status, http::StatusCode::NO_CONTENT | http::StatusCode::NOT_MODIFIED)
}

impl Ctx {
    /// Returns `true` if the response of the current call has no body.
    pub(in crate::wasm) fn answers_without_body(&mut self) -> bool {
        if self.answer.head {
            return true;
        }
        let sent = self.answer.status.load(std::sync::atomic::Ordering::Relaxed);
        if let Ok(status) = http::StatusCode::from_u16(sent) {
            return is_bodyless_status(status);
        }
        // Not sent yet: the response is among the guest's resources.
        self.table
            .iter_mut()
            .filter_map(|entry| entry.downcast_ref::<HostOutgoingResponse>())
            .any(|response| is_bodyless_status(response.status))
    }
}

/// Replaces `finish` in the linker by one that ignores the length of a response without a body.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    type Params = (Resource<HostOutgoingBody>, Option<Resource<FieldMap>>);
    // `finish` is defined by wasmtime-wasi-http, and defining it again is an error otherwise.
    linker.allow_shadowing(true);
    linker.instance(TYPES)?.func_wrap(
        FINISH,
        |mut store: StoreContextMut<'_, Ctx>, (body, trailers): Params| -> wasmtime::Result<(Result<(), ErrorCode>,)> {
            // The original checks the length and drops the body, so that its error can be replaced afterwards.
            let finished = match store.data_mut().http().finish(body, trailers) {
                Ok(()) => Ok(()),
                Err(error) => Err(error.downcast()?),
            };
            let data = store.data_mut();
            let finished = match finished {
                Err(ErrorCode::HttpResponseBodySize(_)) if data.answers_without_body() => Ok(()),
                finished => finished,
            };
            if finished.is_ok() {
                data.answered.note_body_finished();
            }
            Ok((finished,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
