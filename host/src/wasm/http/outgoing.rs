//! Calls over HTTP that a guest makes: from the engine's types to those of the host, and back.
//!
//! The engine runs a call as a task of its own, which ends with the store that has its handle. While it waits, the guest
//! is not polled: no thread is held, and no time on a core is counted.

use std::future::Future;

use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error as WasiHttpError, RequestOptions, WasiBody};

use crate::message::{CallBody, CallTimeouts, HttpCallError};

/// The outcome of a call for the engine: the response, and a task that it has no use for.
pub(in crate::wasm) type Sent =
    Result<(http::Response<WasiBody>, Box<dyn Future<Output = WireEnd> + Send>), WasiHttpError>;
/// The outcome of a connection, which the client's pool has.
pub(in crate::wasm) type WireEnd = Result<(), WasiHttpError>;

/// Returns the timeouts that a guest asks for.
pub(in crate::wasm) fn timeouts(options: Option<RequestOptions>) -> CallTimeouts {
    options.map_or_else(CallTimeouts::default, |options| CallTimeouts {
        connect: options.connect_timeout,
        first_byte: options.first_byte_timeout,
        between_bytes: options.between_bytes_timeout,
    })
}

/// Converts the outcome of a call.
pub(in crate::wasm) fn sent(result: Result<http::Response<CallBody>, HttpCallError>) -> Sent {
    let response = result.map_err(to_wasi)?;
    let response = response.map(|body| body.map_err(to_wasi).boxed_unsync());
    Ok((response, Box::new(std::future::ready(Ok(())))))
}

/// Converts the error of a body that the guest writes.
pub(in crate::wasm) fn from_wasi(error: &WasiHttpError) -> HttpCallError {
    // The guest drops it unfinished, or with another length than its head says.
    HttpCallError::Protocol(format!("the agent did not finish the body of its request: {error}"))
}

/// Converts the error of a call to the standard's.
pub(in crate::wasm) fn to_wasi(error: HttpCallError) -> WasiHttpError {
    match error {
        HttpCallError::Denied => WasiHttpError::HttpRequestDenied,
        HttpCallError::AddressProhibited => WasiHttpError::DestinationIpProhibited,
        HttpCallError::DnsTimeout => WasiHttpError::DnsTimeout,
        HttpCallError::Dns(_) => WasiHttpError::DnsError { rcode: None, info_code: None },
        HttpCallError::ConnectionRefused => WasiHttpError::ConnectionRefused,
        HttpCallError::ConnectionTimeout => WasiHttpError::ConnectionTimeout,
        HttpCallError::Unreachable(_) => WasiHttpError::DestinationUnavailable,
        HttpCallError::ConnectionTerminated => WasiHttpError::ConnectionTerminated,
        HttpCallError::ReadTimeout => WasiHttpError::ConnectionReadTimeout,
        HttpCallError::WriteTimeout => WasiHttpError::ConnectionWriteTimeout,
        HttpCallError::TooManyCalls => WasiHttpError::ConnectionLimitReached,
        HttpCallError::Certificate(_) => WasiHttpError::TlsCertificateError,
        HttpCallError::TlsAlert(id, name) => {
            WasiHttpError::TlsAlertReceived { alert_id: Some(id), alert_message: Some(name) }
        }
        HttpCallError::Tls(_) => WasiHttpError::TlsProtocolError,
        HttpCallError::MethodInvalid => WasiHttpError::HttpRequestMethodInvalid,
        HttpCallError::UriInvalid => WasiHttpError::HttpRequestUriInvalid,
        HttpCallError::RequestTooLarge(most) => WasiHttpError::HttpRequestBodySize(Some(most)),
        HttpCallError::ResponseTooLarge(most) => WasiHttpError::HttpResponseBodySize(Some(most)),
        HttpCallError::HeadTooLarge => WasiHttpError::HttpResponseHeaderSectionSize(None),
        HttpCallError::Incomplete => WasiHttpError::HttpResponseIncomplete,
        HttpCallError::TimeOver => WasiHttpError::HttpResponseTimeout,
        HttpCallError::Protocol(_) => WasiHttpError::HttpProtocolError,
        // The one code with a text for such things: it names the budget, the limit and the use.
        HttpCallError::OverBudget(why) => WasiHttpError::InternalError(Some(why)),
        HttpCallError::Configuration(_) => WasiHttpError::ConfigurationError,
    }
}
