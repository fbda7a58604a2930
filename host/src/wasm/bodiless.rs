//! Responses without a body: to HEAD, and those with the status 204 or 304.
//!
//! They may say in `content-length` how long the body of a GET would be (RFC 9110, section 8.6). What wasi:http
//! demands, that a body be as long as that, holds for none of them.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, HostOutgoingBody as _};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::HostOutgoingResponse;
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use super::guest::Ctx;

/// The interface and its function, as `wasmtime-wasi-http` defines them.
const TYPES: &str = "wasi:http/types@0.2.12";
const FINISH: &str = "[static]outgoing-body.finish";

/// Whether a response to this method with this status has no body. Those of 1xx are no final responses.
pub(super) fn is_bodiless(method: &http::Method, status: http::StatusCode) -> bool {
    *method == http::Method::HEAD || is_bodiless_status(status)
}

fn is_bodiless_status(status: http::StatusCode) -> bool {
    matches!(status, http::StatusCode::NO_CONTENT | http::StatusCode::NOT_MODIFIED)
}

impl Ctx {
    /// Whether the response of the call at hand has no body.
    pub(super) fn answers_without_body(&mut self) -> bool {
        if self.answer.head {
            return true;
        }
        let sent = self.answer.status.load(std::sync::atomic::Ordering::Relaxed);
        if let Ok(status) = http::StatusCode::from_u16(sent) {
            return is_bodiless_status(status);
        }
        // Not sent yet: then it is among what the guest holds.
        self.table
            .iter_mut()
            .filter_map(|entry| entry.downcast_ref::<HostOutgoingResponse>())
            .any(|response| is_bodiless_status(response.status))
    }
}

/// Puts a `finish` in place of the linker's that asks for no length where there is no body.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    type Params = (Resource<HostOutgoingBody>, Option<Resource<FieldMap>>);
    linker.allow_shadowing(true);
    linker.instance(TYPES)?.func_wrap(
        FINISH,
        |mut store: StoreContextMut<'_, Ctx>, (body, trailers): Params| -> wasmtime::Result<(Result<(), ErrorCode>,)> {
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
                data.answered.finishes();
            }
            Ok((finished,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
