//! Calls of HTTP agents: components that export `wasi:http/incoming-handler`.
//!
//! ```text
//! request -> guest runs until it sets the response's head -> commit -> head to the client
//!                 '-- goes on inside the response body, which polls it, until its last byte
//! ```
//! The guest is polled by whoever polls the response, so that a small answer needs no task and no wake-up,
//! and a client that leaves takes the guest with it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::Error as WasiHttpError;

use super::Fault;
use super::effects::Effects;
use super::guest::Work;
use super::lease::Lease;
use super::tap::Tap;
use super::trail::Trail;

/// Why an HTTP agent brought no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpFailure {
    /// The call itself failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The effects could not be committed.
    #[error("its effects were not committed: {0}")]
    NotCommitted(String),
}

impl HttpFailure {
    /// The stable code of this kind of failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.code(),
            Self::NotCommitted(_) => "not-committed",
        }
    }
}

/// Why the body of a request ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is larger than it may be.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The client sent nothing for too long.
    #[error("nothing more of the body came for {} ms (http.stall-timeout)", limit.as_millis())]
    Stalled {
        /// The bound.
        limit: Duration,
    },
    /// The connection or what came over it is broken.
    #[error("the body could not be read")]
    Broken(#[source] hyper::Error),
}

impl From<BodyError> for WasiHttpError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { limit } => Self::HttpRequestBodySize(Some(limit)),
            BodyError::Stalled { .. } => Self::ConnectionReadTimeout,
            BodyError::Broken(error) => Self::Hyper(error),
        }
    }
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
pub(crate) type Ended = Box<dyn FnOnce(HttpEnd) + Send>;
/// The guest at work; ends when it does.
type Running = Pin<Box<dyn Future<Output = HttpEnd> + Send>>;

/// How a guest ended.
pub(crate) struct HttpEnd {
    /// Well, or how not.
    pub(crate) result: Result<(), Fault>,
    /// Its time on a core.
    pub(crate) cpu: Duration,
    /// What it left behind, if it ended well and left no whole response.
    pub(super) trail: Trail,
}

impl From<Fault> for HttpEnd {
    fn from(fault: Fault) -> Self {
        Self { result: Err(fault), cpu: Duration::ZERO, trail: Trail::default() }
    }
}

/// Whoever has to hear how a guest ended hears it exactly once.
struct Hearing(Option<Ended>);

impl Hearing {
    fn tell(&mut self, end: HttpEnd) {
        if let Some(ended) = self.0.take() {
            ended(end);
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.tell(Fault::Abandoned.into());
    }
}

impl<B> HttpCall<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
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
        let (sender, receiver) = oneshot::channel::<Head>();
        let mut hearing = Hearing(Some(ended));
        let running: Running = Box::pin(async move {
            tokio::select! {
                biased;
                end = lease.serve(self.request, self.work, self.time, sender) => end,
                () = self.interrupt.cancelled() => Fault::Interrupted.into(),
            }
        });
        let Begun { progress, head } = begin(running, receiver).await;
        let (mut response, effects) = match judge(&progress, head) {
            Ok(response) => response,
            Err(fault) => {
                hearing.tell(HttpEnd { cpu: progress.cpu(), ..fault.clone().into() });
                return Err(fault.into());
            }
        };
        if response.status().is_server_error() {
            drop(effects);
        } else if let Err(why) = commit(effects).await {
            hearing.tell(Fault::Host(why.clone()).into());
            return Err(HttpFailure::NotCommitted(why));
        }
        match (progress, response.body_mut()) {
            (Progress::Ended(end), _) => hearing.tell(end),
            (Progress::Running(running), ResponseBody::Open(open)) => {
                open.running = Some(running);
                open.hearing = hearing;
            }
            // Only of a guest that has ended is the whole body known.
            (Progress::Running(_), ResponseBody::Whole(_)) => {}
        }
        Ok(response)
    }
}

/// A guest that has set its head, or ended without.
struct Begun {
    progress: Progress,
    head: Option<Head>,
}

/// How far a guest is.
enum Progress {
    Running(Running),
    Ended(HttpEnd),
}

impl Progress {
    /// Its time on a core, as far as it is known.
    fn cpu(&self) -> Duration {
        match self {
            Self::Running(_) => Duration::ZERO,
            Self::Ended(end) => end.cpu,
        }
    }
}

/// Runs a guest until it has set its head or ends.
async fn begin(mut running: Running, mut receiver: oneshot::Receiver<Head>) -> Begun {
    let mut end = None;
    // The guest first: when it answers at once, nobody has to be woken.
    let head = std::future::poll_fn(|cx| {
        if end.is_none()
            && let Poll::Ready(ready) = running.as_mut().poll(cx)
        {
            end = Some(ready);
        }
        match Pin::new(&mut receiver).poll(cx) {
            Poll::Ready(head) => Poll::Ready(head.ok()),
            Poll::Pending if end.is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    Begun { progress: end.map_or(Progress::Running(running), Progress::Ended), head }
}

/// Whether what a guest has set is a response.
fn judge(progress: &Progress, head: Option<Head>) -> Result<(http::Response<ResponseBody>, Effects), Fault> {
    let (ended, trail) = match progress {
        // What it has set before it failed is not sent, and nothing of it is committed.
        Progress::Ended(HttpEnd { result: Err(fault), .. }) => return Err(fault.clone()),
        Progress::Ended(HttpEnd { trail, .. }) => (true, trail.clone()),
        Progress::Running(_) => (false, Trail::default()),
    };
    let none = |why: String| Err(Fault::NoResponse { why, trail: trail.clone() });
    match head {
        None => none("the handler ended without one".to_owned()),
        Some((Err(code), _)) => none(format!("the handler gave the error {code:?}")),
        Some((Ok(response), _)) if response.status().is_informational() => {
            none(format!("the handler gave the status {}", response.status().as_u16()))
        }
        Some((Ok(response), effects)) => {
            let (head, body) = response.into_parts();
            let body = if ended {
                ResponseBody::of_ended(body)
                    .map_err(|error| Fault::NoResponse { why: error.to_string(), trail: trail.clone() })?
            } else {
                ResponseBody::open(body, VecDeque::new())
            };
            Ok((http::Response::from_parts(head, body), effects))
        }
    }
}

/// The body of a guest's response, which carries the guest until it is done.
pub(crate) enum ResponseBody {
    /// All of it; taken out when it is sent.
    Whole(Option<Bytes>),
    /// The rest comes while it is read.
    Open(Box<Open>),
}

/// A body that is not known to its end.
pub(crate) struct Open {
    /// None when the guest has ended.
    running: Option<Running>,
    /// How it failed, until whoever reads the body knows.
    failed: Option<Fault>,
    /// What was read of the body already.
    ahead: VecDeque<Frame<Bytes>>,
    body: HyperOutgoingBody,
    hearing: Hearing,
    /// Hears what the body is.
    pub(super) tap: Option<Tap>,
}

/// Why a guest's response ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseError {
    /// The guest failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The guest returned and left the body as it was, so that nobody knows whether that is all.
    #[error("the handler ended without finishing the body")]
    Unfinished,
    /// The guest's bytes are not what its head promised.
    #[error("the body is broken: {0}")]
    Broken(WasiHttpError),
}

impl ResponseBody {
    /// A body that is not known to its end, of a guest that has ended or is to be added.
    fn open(body: HyperOutgoingBody, ahead: VecDeque<Frame<Bytes>>) -> Self {
        Self::Open(Box::new(Open { running: None, failed: None, ahead, body, hearing: Hearing(None), tap: None }))
    }

    /// The body of a guest that has ended well: mostly it is one piece by now.
    fn of_ended(mut body: HyperOutgoingBody) -> Result<Self, ResponseError> {
        let (mut ahead, mut cx) = (VecDeque::new(), Context::from_waker(Waker::noop()));
        while ahead.len() < 2 {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => ahead.push_back(frame),
                Poll::Ready(Some(Err(error))) => return Err(ResponseError::Broken(error)),
                Poll::Pending => return Err(ResponseError::Unfinished),
                Poll::Ready(None) => match ahead.pop_front().map(Frame::into_data) {
                    None => return Ok(Self::Whole(None)),
                    Some(Ok(data)) => return Ok(Self::Whole(Some(data))),
                    Some(Err(trailers)) => {
                        ahead.push_back(trailers);
                        break;
                    }
                },
            }
        }
        Ok(Self::open(body, ahead))
    }

    /// Whether the guest still runs.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open(open) if open.running.is_some())
    }
}

impl Open {
    fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(running) = &mut self.running else { return };
        if let Poll::Ready(end) = running.as_mut().poll(cx) {
            self.running = None;
            self.failed = end.result.as_ref().err().cloned();
            self.hearing.tell(end);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let polled = self.poll_body(cx);
        if let (Some(tap), Poll::Ready(part)) = (&mut self.tap, &polled) {
            tap.hear(part.as_ref());
        }
        polled
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        if let Some(frame) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.drive(cx);
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let runs = self.running.is_some();
        match frame {
            Poll::Ready(Some(frame)) => Poll::Ready(Some(frame.map_err(ResponseError::Broken))),
            // What the guest does after the last byte is still its message: wait for its end.
            Poll::Ready(None) | Poll::Pending if runs => Poll::Pending,
            // A client must not take for the end what is none.
            Poll::Ready(None) => Poll::Ready(self.failed.take().map(|fault| Err(fault.into()))),
            // Nobody is left who could write the rest.
            Poll::Pending => Poll::Ready(Some(Err(self.failed.take().map_or(ResponseError::Unfinished, Into::into)))),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        match &mut *self {
            Self::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Open(open) => open.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(data) => data.is_none(),
            Self::Open(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Open(_) => SizeHint::default(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        // Whoever reads the response is content with what it has, or gone. The guest finishes what it does:
        // its next write fails, and its time is bounded.
        let mut hearing = Hearing(self.hearing.0.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { hearing.tell(running.await) });
        }
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
    ) -> HttpEnd
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        let result = self.instance().serve_http(request, work, time, sender).await;
        let cpu = self.instance().cpu();
        // A guest that left without a whole response is in a state that nobody foresaw: it is not used again.
        let answered = self.instance().has_answered();
        let trail = if answered { Trail::default() } else { self.instance().trail() };
        match &result {
            Err(fault) if fault.is_guests() => self.fail(fault),
            Ok(()) | Err(_) => self.finish(result.is_ok() && answered),
        }
        HttpEnd { result, cpu, trail }
    }
}

/// The scheme of every request: TLS ends before the host.
pub(super) const SCHEME: Scheme = Scheme::Http;
