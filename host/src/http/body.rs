//! Bodies on their way: bounded and timed coming in, watched going out.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{Version, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::listener::Visit;
use crate::wasm::{BodyError, ResponseBody, ResponseError};

/// The rest of a refused body is read and dropped up to these bounds before the connection is closed. Closing it while
/// bytes arrive makes the kernel reset it, and the client would lose the response. As much as the management API reads.
const LINGER_BYTES: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(10);
/// With other streams beside it, a body is handed over in pieces: what is handed over cannot be taken back.
const PIECE: usize = 64 << 10;

/// What a request's body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// In bytes.
    pub(super) limit: u64,
    /// How long the client may pause.
    pub(super) stall: Duration,
}

/// The body of a request.
pub(super) struct RequestBody {
    /// Taken out when it is at its end or given up.
    inner: Option<Incoming>,
    bounds: Bounds,
    left: u64,
    /// Made when the client first pauses.
    pause: Option<Pin<Box<Sleep>>>,
    pausing: bool,
    /// Whether refusing it would end the connection: HTTP/2 can refuse one body and go on with the others.
    lingers: bool,
    /// Whether the client waits for leave to send it (`expect: 100-continue`).
    waits: bool,
    broken: Arc<OnceLock<Broken>>,
}

/// How a body was broken off, for whoever answers the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is larger than it may be.
    TooLarge,
    /// The client paused for too long.
    Stalled,
    /// The connection is broken.
    Lost,
}

impl RequestBody {
    /// The body of a request with this head. An error when it says itself that it is too large.
    pub(super) fn new(inner: Incoming, head: &request::Parts, bounds: Bounds) -> Result<Self, BodyError> {
        let announced = inner.size_hint().lower();
        let inner = (!inner.is_end_stream()).then_some(inner);
        let body = Self {
            inner,
            bounds,
            left: bounds.limit,
            pause: None,
            pausing: false,
            lingers: head.version < Version::HTTP_2,
            waits: head.headers.contains_key(EXPECT),
            broken: Arc::default(),
        };
        if announced > bounds.limit { Err(BodyError::TooLarge { limit: bounds.limit }) } else { Ok(body) }
    }

    /// Where to look whether it was broken off.
    pub(super) fn broken(&self) -> Arc<OnceLock<Broken>> {
        Arc::clone(&self.broken)
    }

    /// All of it.
    pub(super) async fn collect(mut self) -> Result<Vec<u8>, BodyError> {
        let announced = self.size_hint().lower();
        let Some(first) = self.data().await else { return Ok(Vec::new()) };
        let first = first?;
        let Some(second) = self.data().await else { return Ok(first.into()) };
        let mut all = Vec::with_capacity(usize::try_from(announced).unwrap_or(0).max(first.len()));
        all.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(data) = next {
            all.extend_from_slice(&data?);
            next = self.data().await;
        }
        Ok(all)
    }

    async fn data(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            match self.frame().await? {
                // Trailers are of no use in a message.
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let until = Instant::now() + self.bounds.stall;
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !self.pausing {
            self.pausing = true;
            pause.as_mut().reset(until);
        }
        pause.as_mut().poll(cx).is_ready()
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let how = match &error {
            BodyError::TooLarge { .. } => Broken::TooLarge,
            BodyError::Stalled { .. } => Broken::Stalled,
            BodyError::Broken(_) => Broken::Lost,
        };
        // The first is the cause.
        let _ = self.broken.set(how);
        if how == Broken::TooLarge {
            self.linger();
        }
        self.inner = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Reads on for a while, for nothing but that the client reads the response.
    fn linger(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        if !self.lingers || self.waits || inner.is_end_stream() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(LINGER, async move {
            let mut left = LINGER_BYTES;
            while let Some(Ok(frame)) = inner.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    return;
                }
            }
        }));
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Asking gives leave.
        self.waits = false;
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pausing = false;
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match self.left.checked_sub(length) {
                    Some(left) => self.left = left,
                    None => {
                        let limit = self.bounds.limit;
                        return self.fail(BodyError::TooLarge { limit });
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.fail(BodyError::Broken(error)),
            Poll::Ready(None) => {
                self.inner = None;
                Poll::Ready(None)
            }
            Poll::Pending if self.stalled(cx) => {
                let limit = self.bounds.stall;
                self.fail(BodyError::Stalled { limit })
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.linger();
    }
}

/// What a response consists of.
pub(super) enum ReplyBody {
    /// Nothing.
    Empty,
    /// Nothing, though its head says how long it would be.
    Unseen,
    /// These bytes.
    Whole(Bytes),
    /// What an HTTP agent writes.
    Agent(ResponseBody),
}

impl ReplyBody {
    /// Its length, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Unseen => None,
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Agent(body) => body.size_hint().exact(),
        }
    }
}

/// A response's body on its way to the client.
pub(super) struct Answering {
    body: ReplyBody,
    visit: Visit,
}

impl Answering {
    /// A body that has to be complete at `deadline`.
    pub(super) fn new(body: ReplyBody, mut visit: Visit, deadline: Option<std::time::Instant>) -> Self {
        let comes_in_pieces = match &body {
            ReplyBody::Empty | ReplyBody::Unseen => false,
            ReplyBody::Whole(_) => visit.is_multiplexed(),
            ReplyBody::Agent(body) => visit.is_multiplexed() || body.is_open(),
        };
        if comes_in_pieces {
            visit.watch(deadline);
        }
        Self { body, visit }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Self { body, visit } = &mut *self;
        visit.asked();
        let frame = match body {
            ReplyBody::Empty | ReplyBody::Unseen => Poll::Ready(None),
            ReplyBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            ReplyBody::Whole(bytes) => {
                let piece = if visit.is_multiplexed() { bytes.len().min(PIECE) } else { bytes.len() };
                Poll::Ready(Some(Ok(Frame::data(bytes.split_to(piece)))))
            }
            ReplyBody::Agent(body) => Pin::new(body).poll_frame(cx),
        };
        if frame.is_ready() {
            visit.handed_over();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            ReplyBody::Empty => true,
            ReplyBody::Unseen => false,
            ReplyBody::Whole(bytes) => bytes.is_empty(),
            ReplyBody::Agent(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
