//! Accesses of guests that are denied, each logged once with the setting that would allow it; and the hooks for outgoing
//! HTTP requests, which the host decides on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use futures::future::BoxFuture;
use http_body_util::BodyExt;
use wasmtime_wasi_http::{RequestOptions, WasiBody, WasiHttpHooks};

use crate::bounds;
use crate::message::{
    CallBody, CallContext, CallScope, CommitMode, GuestHost, GuestHttpCall, HttpCallError, Identity, LogLevel,
};
use crate::wasm::http::outgoing::{self, Sent, WireEnd};

/// A kind of access that can be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wasm) enum DeniedAccess {
    Http,
    Files,
    Name,
    Tcp,
    Udp,
    Environment,
    /// A connection outside of a message.
    Connecting,
    /// A change of a file that may not be changed.
    Changes,
    /// A file that is neither regular nor a folder.
    FileKind,
    /// A file beyond the bound.
    OpenFiles,
}

/// The kinds that were logged already, as bits. One line for each kind and revision, regardless of the number of
/// instances and accesses.
#[derive(Debug, Default)]
pub(in crate::wasm) struct Denials(AtomicU16);

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

/// The largest piece of a body that a guest writes at once. Twice as much may be queued.
pub(super) const CHUNK: usize = 64 << 10;

/// The hooks for outgoing HTTP requests of guests.
pub(in crate::wasm) struct Outbound {
    pub(in crate::wasm) who: Arc<Identity>,
    pub(in crate::wasm) host: Arc<dyn GuestHost>,
    pub(in crate::wasm) denials: Arc<Denials>,
    /// The largest piece of the next body that the guest writes at once.
    pub(in crate::wasm) chunk: usize,
    /// The context of the current call, while the guest begins a request. The engine lends the hooks nothing else.
    work: Option<CallContext>,
    /// The requests of the current call; `None` before the first.
    scope: Option<Arc<CallScope>>,
}

impl Outbound {
    /// Creates the hooks of an instance.
    pub(in crate::wasm) fn new(who: &Arc<Identity>, host: &Arc<dyn GuestHost>, denials: &Arc<Denials>) -> Self {
        let (who, host, denials) = (Arc::clone(who), Arc::clone(host), Arc::clone(denials));
        Self { who, host, denials, chunk: CHUNK, work: None, scope: None }
    }

    /// Ends the requests of the current call, also those that the guest has left open.
    pub(in crate::wasm) fn end_calls(&self) {
        if let Some(scope) = &self.scope {
            scope.end();
        }
    }

    /// Returns `true` if the current call has begun any.
    pub(in crate::wasm) fn has_called(&self) -> bool {
        self.scope.is_some()
    }

    /// Takes the context of the current call, while the guest begins a request.
    pub(in crate::wasm) fn lend(&mut self, work: Option<CallContext>) {
        self.work = work;
    }

    /// Gives it back.
    pub(in crate::wasm) fn take_back(&mut self) -> Option<CallContext> {
        self.work.take()
    }

    /// Returns the requests and connections of the current call.
    pub(in crate::wasm) fn scope(&mut self) -> Arc<CallScope> {
        Arc::clone(self.scope.get_or_insert_with(Arc::default))
    }

    /// Prepares for another call.
    pub(in crate::wasm) fn begin(&mut self) {
        // Dropped and not reset: a task of the call before may still have it.
        self.scope = None;
    }

    fn deny(&self, text: impl FnOnce() -> String) -> HttpCallError {
        log_once(&self.denials, &self.who, &*self.host, DeniedAccess::Http, text);
        HttpCallError::Denied
    }

    /// Begins a call, if the guest may make any now.
    fn begin_call(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<BoxFuture<'static, Result<http::Response<CallBody>, HttpCallError>>, HttpCallError> {
        if self.who.spec.allow.http.is_empty() {
            return Err(self.deny(|| {
                format!(
                    "it called `{} {}`, which was denied: `allow.http` lists the places that it may call, and has none",
                    bounds::quoted(request.method().as_str()),
                    // The path and the query may contain secrets.
                    bounds::quoted(&origin(request.uri()))
                )
            }));
        }
        // A migration may be repeated, and is rehearsed.
        let handles = |work: &&CallContext| !matches!(work.commit_mode, CommitMode::InSteps(_));
        let Some(work) = self.work.as_ref().filter(handles) else {
            return Err(self.deny(|| {
                format!(
                    "it called `{} {}`, which was denied: an agent makes calls while it handles a message or a request, \
                     and not while it starts, checks itself, saves or converts its state",
                    bounds::quoted(request.method().as_str()),
                    bounds::quoted(&origin(request.uri()))
                )
            }));
        };
        let scope = self.scope.get_or_insert_with(Arc::default).clone();
        let request = request.map(|body| body.map_err(|error| outgoing::from_wasi(&error)).boxed_unsync());
        let call = GuestHttpCall { request, timeouts: outgoing::timeouts(options), scope };
        let host = work.host.as_deref().unwrap_or(&*self.host);
        Ok(host.call_http(&self.who, work, call))
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        // Before the guest's resources are: a body that is dropped would else end as if it were complete.
        self.end_calls();
    }
}

impl WasiHttpHooks for Outbound {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        self.chunk
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        self.chunk
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = WireEnd> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        match self.begin_call(request, options) {
            Ok(response) => Box::new(async move { outgoing::sent(response.await) }),
            Err(error) => Box::new(std::future::ready(outgoing::sent(Err(error)))),
        }
    }
}

/// Returns scheme, host and port of an address, without a user in front of them.
fn origin(uri: &http::Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{}", authority.rsplit('@').next().unwrap_or_default())
}
