//! Accesses of guests that are denied, each logged once with the setting that would allow it; and outgoing HTTP
//! requests, which are all denied in this version.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use wasmtime_wasi_http::{Error as WasiHttpError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::bounds;
use crate::message::{GuestHost, Identity, LogLevel};

/// A kind of access that can be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeniedAccess {
    Http,
    Files,
    Name,
    Tcp,
    Udp,
    Environment,
}

/// The kinds that were logged already, as bits. One line for each kind and revision, regardless of the number of
/// instances and accesses.
#[derive(Debug, Default)]
pub(in crate::wasm) struct Denials(AtomicU8);

impl Denials {
    /// Returns `true` for the first denial of a kind.
    pub(super) fn is_first(&self, kind: DeniedAccess) -> bool {
        // The load in front keeps repeated denials from contending for the cache line.
        let bit = 1 << kind as u8;
        self.0.load(Ordering::Relaxed) & bit == 0 && self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// Logs the first denial of a kind to the agent's log.
pub(super) fn log_once(
    denials: &Denials,
    who: &Identity,
    host: &dyn GuestHost,
    kind: DeniedAccess,
    text: impl FnOnce() -> String,
) {
    if denials.is_first(kind) {
        // In the agent's log and not the host's: the line is for the author of the guest.
        host.log(who, LogLevel::Warn, "caxton", &text());
    }
}

/// The hooks for outgoing HTTP requests of guests, which are all denied in this version.
pub(in crate::wasm) struct Outbound {
    pub(in crate::wasm) who: Arc<Identity>,
    pub(in crate::wasm) host: Arc<dyn GuestHost>,
    pub(in crate::wasm) denials: Arc<Denials>,
    /// The largest piece of the next body that the guest writes at once.
    pub(in crate::wasm) chunk: usize,
}

impl WasiHttpHooks for Outbound {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        self.chunk
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), WasiHttpError>> + Send>,
    ) -> Box<
        dyn Future<
                Output = Result<
                    (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), WasiHttpError>> + Send>),
                    WasiHttpError,
                >,
            > + Send,
    > {
        log_once(&self.denials, &self.who, &*self.host, DeniedAccess::Http, || {
            format!(
                "it called `{} {}`, which was denied: no call over HTTP can be granted by this version (`allow.http` is \
                 known and not implemented)",
                bounds::quoted(request.method().as_str()),
                // The path and the query may contain secrets.
                bounds::quoted(&origin(request.uri()))
            )
        });
        Box::new(std::future::ready(Err(WasiHttpError::HttpRequestDenied)))
    }
}

/// Returns scheme, host and port of an address.
fn origin(uri: &http::Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    format!("{scheme}://{}", uri.authority().map_or("", |authority| authority.as_str()))
}
