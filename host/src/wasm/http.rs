//! Calls of HTTP agents: components that export `wasi:http/incoming-handler`.
//!
//! ```text
//! request -> guest runs until it sets the response's head -> commit -> head to the client
//!                 '-- goes on inside the response body, which polls it, until its last byte
//! ```
//! The guest is polled by whoever polls the response, so that a small answer needs no task and no wake-up,
//! and a client that leaves takes the guest with it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error as WasiHttpError, RequestOptions, WasiBody, WasiHttpHooks};

use super::Fault;
use super::guest::{Effects, Work};
use super::pool::Lease;

/// Why an HTTP agent brought no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpFailure {
    /// The call itself failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The guest ended without setting a response.
    #[error("the handler ended without a response")]
    NoResponse,
    /// The guest answered with an error of `wasi:http`.
    #[error("the handler answered with the error {0}")]
    Error(String),
    /// The effects could not be committed.
    #[error("{0}")]
    NotCommitted(String),
}

/// What a call is made of.
pub(crate) struct HttpCall<B> {
    /// The request.
    pub(crate) request: http::Request<B>,
    /// What it is about.
    pub(crate) work: Work,
    /// How long it may take, the last byte included.
    pub(crate) time: Duration,
    /// Breaks it off.
    pub(crate) interrupt: CancellationToken,
}

/// What the guest has set as its response, with the effects up to then.
type Head = (Result<http::Response<HyperOutgoingBody>, ErrorCode>, Effects);
/// Hears how a guest ended.
pub(crate) type Ended = Box<dyn FnOnce(Result<(), Fault>) + Send>;
/// The guest at work; ends when it does.
type Running = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

impl<B> HttpCall<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<WasiHttpError>,
{
    /// Runs the guest until it has set the head of its response, commits its effects through `commit` unless
    /// it answered with a status of 500 or more, and returns the response. `ended` hears how the guest ended,
    /// which may be long after.
    pub(crate) async fn run<C, F>(
        self,
        lease: Lease,
        commit: C,
        ended: Ended,
    ) -> Result<http::Response<ResponseBody>, HttpFailure>
    where
        C: FnOnce(Effects) -> F,
        F: Future<Output = Result<(), String>>,
    {
        let (sender, mut receiver) = oneshot::channel::<Head>();
        let mut running: Running = Box::pin(async move {
            tokio::select! {
                biased;
                result = lease.serve(self.request, self.work, self.time, sender) => result,
                () = self.interrupt.cancelled() => Err(Fault::Interrupted),
            }
        });
        let mut result = None;
        // The guest first: when it answers at once, nobody has to be woken.
        let head = std::future::poll_fn(|cx| {
            if result.is_none() {
                if let Poll::Ready(end) = running.as_mut().poll(cx) {
                    result = Some(end);
                }
            }
            match Pin::new(&mut receiver).poll(cx) {
                Poll::Ready(head) => Poll::Ready(head.ok()),
                Poll::Pending if result.is_some() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        let (response, effects) = match head {
            Some((Ok(response), effects)) => (response, effects),
            Some((Err(code), _)) => {
                ended(result.unwrap_or(Ok(())));
                return Err(HttpFailure::Error(format!("{code:?}")));
            }
            None => {
                let result = result.unwrap_or(Ok(()));
                ended(result.clone());
                return Err(result.err().map_or(HttpFailure::NoResponse, HttpFailure::Fault));
            }
        };
        if response.status().is_server_error() {
            drop(effects);
        } else if let Err(why) = commit(effects).await {
            ended(Err(Fault::Host(why.clone())));
            return Err(HttpFailure::NotCommitted(why));
        }
        let mut ended = Some(ended);
        let running = match result {
            Some(result) => {
                if let Some(ended) = ended.take() {
                    ended(result);
                }
                None
            }
            None => Some(running),
        };
        Ok(response.map(|body| ResponseBody { running, body, ended }))
    }
}

/// The body of a guest's response, which carries the guest until it is done.
pub(crate) struct ResponseBody {
    running: Option<Running>,
    body: HyperOutgoingBody,
    ended: Option<Ended>,
}

impl ResponseBody {
    fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(running) = &mut self.running else { return };
        if let Poll::Ready(result) = running.as_mut().poll(cx) {
            self.running = None;
            if let Some(ended) = self.ended.take() {
                ended(result);
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        self.drive(cx);
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // What the guest does after the last byte is still its message: wait for its end.
        if matches!(frame, Poll::Ready(None)) && self.running.is_some() {
            return Poll::Pending;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.running.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // Whoever reads the response is content with what it has, or gone. The guest finishes what it does:
        // its next write fails, and its time is bounded.
        if let (Some(running), Some(ended)) = (self.running.take(), self.ended.take()) {
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { ended(running.await) });
            } else {
                ended(Err(Fault::Interrupted));
            }
        }
    }
}

/// Requests that guests make of others. Nothing is granted yet, so everything is denied.
#[derive(Debug, Default)]
pub(super) struct Outbound;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
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
        Box::new(std::future::ready(Err(WasiHttpError::HttpRequestDenied)))
    }
}

impl Lease {
    /// Runs one request to the end of the guest; the head goes to `sender` when the guest sets it.
    async fn serve<B>(
        mut self,
        request: http::Request<B>,
        work: Work,
        time: Duration,
        sender: oneshot::Sender<Head>,
    ) -> Result<(), Fault>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<WasiHttpError>,
    {
        let result = self.instance().serve_http(request, work, time, sender).await;
        self.finish(result.is_ok());
        result
    }
}

/// The scheme of every request: TLS ends before the host.
pub(super) const SCHEME: Scheme = Scheme::Http;
