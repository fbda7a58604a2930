//! The functions of `wasi:http` for outgoing requests that differ from the engine's own.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, IoError, TlsAlertReceivedPayload};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{Error as WasiHttpError, RequestOptions, WasiHttpView};

use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::denials::WASI;

/// Replaces `handle` in the linker by one that knows the message that is being handled.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    type HandleParams = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
    type HandleReturn = (Result<Resource<HostFutureIncomingResponse>, ErrorCode>,);
    // `handle` is defined by wasmtime-wasi-http, and defining it again is an error otherwise.
    linker.allow_shadowing(true);
    linker.instance(&format!("wasi:http/outgoing-handler@{WASI}"))?.func_wrap(
        "handle",
        |mut store: StoreContextMut<'_, Ctx>, (request, options): HandleParams| -> wasmtime::Result<HandleReturn> {
            let data = store.data_mut();
            // A call cannot be undone, so that a run which has to be repeated ends before it.
            data.check_not_blocked()?;
            let work = data.work.take();
            data.outbound.lend(work);
            let given = options.as_ref().map(|options| Resource::<RequestOptions>::new_own(options.rep()));
            let handled = data.http().handle(request, options);
            data.work = data.outbound.take_back();
            if let Some(options) = given {
                // Left in the table by the engine: those of a thousand calls would be as many resources as a guest may hold,
                // and those of a few keep an instance from being used again.
                data.table.delete(options)?;
            }
            Ok((match handled {
                Ok(future) => Ok(future),
                Err(error) => Err(error.downcast()?),
            },))
        },
    )?;
    // The original knows the codes of the guest's own errors only, and not those of bodies.
    linker.instance(&format!("wasi:http/types@{WASI}"))?.func_wrap(
        "http-error-code",
        |mut store: StoreContextMut<'_, Ctx>,
         (error,): (Resource<IoError>,)|
         -> wasmtime::Result<(Option<ErrorCode>,)> {
            let error = store.data_mut().table.get(&error)?;
            let own = error.downcast_ref::<ErrorCode>().cloned();
            Ok((own.or_else(|| error.downcast_ref().and_then(of_body)),))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Returns the code of an error in a body.
fn of_body(error: &WasiHttpError) -> Option<ErrorCode> {
    Some(match error {
        WasiHttpError::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        WasiHttpError::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        WasiHttpError::HttpRequestBodySize(most) => ErrorCode::HttpRequestBodySize(*most),
        WasiHttpError::HttpResponseBodySize(most) => ErrorCode::HttpResponseBodySize(*most),
        WasiHttpError::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        WasiHttpError::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        WasiHttpError::HttpProtocolError | WasiHttpError::Hyper(_) => ErrorCode::HttpProtocolError,
        WasiHttpError::DestinationUnavailable => ErrorCode::DestinationUnavailable,
        WasiHttpError::TlsAlertReceived { alert_id, alert_message } => {
            ErrorCode::TlsAlertReceived(TlsAlertReceivedPayload {
                alert_id: *alert_id,
                alert_message: alert_message.clone(),
            })
        }
        WasiHttpError::TlsProtocolError => ErrorCode::TlsProtocolError,
        WasiHttpError::InternalError(why) => ErrorCode::InternalError(why.clone()),
        // No body ends so: these come before it.
        _ => return None,
    })
}
