//! Bodies of requests and responses: request bodies are bounded in size and time, response bodies report progress to
//! their connection.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::body_memory::{CollectedBody, CountedBytes, SMALL_BODY, append, hold};
use crate::memory_budget::{MemoryBudget, MemoryKind, Reservation};
use crate::net::{BodyClock, ClientBody, LateBody, RequestGuard};
use crate::wasm::{AheadBody, BodyError, ResponseError};

/// The largest chunk handed to hyper at once when the connection is multiplexed. A chunk that was handed over cannot be
/// taken back, so smaller ones let the stall check see progress, and bound what a client that reads nothing makes the host
/// hold. As much as a frame of HTTP/2 has.
const MAX_CHUNK: usize = 16 << 10;

/// The bounds of a request's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    /// The largest size in bytes.
    pub(super) limit: u64,
    /// The longest pause between two frames of the client.
    pub(super) stall: Duration,
    /// The time from the head until the body is whole.
    pub(super) whole: Duration,
}

/// The body of a request, which fails as soon as it exceeds its bounds.
pub(super) struct RequestBody {
    /// The part that was read before, to be read once more.
    ahead: HeldBody,
    /// `None` after its end, or after it was refused.
    inner: Option<ClientBody>,
    limit: u64,
    bytes_left: u64,
    clock: BodyClock,
    broken: Arc<OnceLock<Broken>>,
}

/// A part of a body in memory.
#[derive(Default)]
struct HeldBody {
    /// The first frame, as it came: most bodies are one.
    first: Bytes,
    /// The rest of the data. Copied, because a frame of a few bytes may keep a whole buffer of its connection.
    more: BytesMut,
    trailers: Option<HeaderMap>,
    /// The memory that it takes, unless it is small.
    memory: Option<Reservation>,
}

impl HeldBody {
    fn length(&self) -> u64 {
        (self.first.len() + self.more.len()) as u64
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) if self.length() == 0 => self.first = data,
            Ok(data) => self.more.extend_from_slice(&data),
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        let data = if self.first.is_empty() { self.more.split().freeze() } else { std::mem::take(&mut self.first) };
        if self.length() == 0 {
            self.memory = None;
        }
        if data.is_empty() { self.trailers.take().map(Frame::trailers) } else { Some(Frame::data(data)) }
    }

    fn is_empty(&self) -> bool {
        self.length() == 0 && self.trailers.is_none()
    }
}

/// The reason why a body was refused or lost, kept for the response to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The body is larger than [`BodyLimits::limit`].
    TooLarge,
    /// The body did not come in time.
    Late(LateBody),
    /// The connection broke while the body was read.
    Lost,
}

impl RequestBody {
    /// Wraps a body whose time begins now.
    ///
    /// # Errors
    /// `TooLarge` if the announced length exceeds the limit; the rest is then drained as for any refused body.
    pub(super) fn new(inner: ClientBody, bounds: BodyLimits) -> Result<Self, BodyError> {
        let announced = inner.size_hint().lower();
        let inner = (!inner.is_end_stream()).then_some(inner);
        let body = Self {
            ahead: HeldBody::default(),
            inner,
            limit: bounds.limit,
            bytes_left: bounds.limit,
            clock: BodyClock::start(bounds.stall, bounds.whole),
            broken: Arc::default(),
        };
        // Built before the check, so that dropping it drains what the client still sends.
        if announced > bounds.limit { Err(BodyError::TooLarge { limit: bounds.limit }) } else { Ok(body) }
    }

    /// Makes a body of bytes that were read before.
    pub(super) fn whole(body: CollectedBody, bounds: BodyLimits) -> Self {
        let bytes = Bytes::from(body.bytes);
        let whole = match body.held {
            Some(held) => Bytes::from_owner(CountedBytes { bytes, _held: held }),
            None => bytes,
        };
        Self {
            ahead: HeldBody { first: whole, ..HeldBody::default() },
            inner: None,
            limit: bounds.limit,
            bytes_left: bounds.limit,
            clock: BodyClock::start(bounds.stall, bounds.whole),
            broken: Arc::default(),
        }
    }

    /// Reads until the body has ended or this many bytes are held, so that a client that sends slowly is waited for here
    /// and not by an instance.
    pub(super) async fn read_ahead(&mut self, most: u64, memory: &MemoryBudget) -> Result<(), BodyError> {
        while self.inner.is_some() && self.ahead.length() < most {
            match std::future::poll_fn(|cx| self.poll_client(cx)).await {
                Some(frame) => self.ahead.push(frame?),
                None => break,
            }
            let length = self.ahead.length();
            hold(memory, &mut self.ahead.memory, length as usize).await?;
        }
        Ok(())
    }

    /// Reads the whole body, up to a limit that is not above its own.
    pub(super) async fn collect_within(
        mut self,
        limit: u64,
        memory: &MemoryBudget,
    ) -> Result<CollectedBody, BodyError> {
        if limit < self.limit {
            (self.limit, self.bytes_left) = (limit, limit);
        }
        if self.size_hint().lower() > self.limit {
            return Err(BodyError::TooLarge { limit: self.limit });
        }
        self.collect(memory).await
    }

    /// Returns the cell that is set when the body is refused or lost.
    pub(super) fn broken(&self) -> Arc<OnceLock<Broken>> {
        Arc::clone(&self.broken)
    }

    /// Reads the whole body. It takes memory as it comes, whatever length is announced. A body of a single frame is not
    /// copied twice.
    pub(super) async fn collect(mut self, memory: &MemoryBudget) -> Result<CollectedBody, BodyError> {
        let announced = usize::try_from(self.size_hint().lower()).unwrap_or(usize::MAX);
        let mut held = None;
        let Some(first) = self.data().await else { return Ok(CollectedBody { bytes: Vec::new(), held }) };
        let first = first?;
        let Some(second) = self.data().await else {
            hold(memory, &mut held, first.len()).await?;
            return Ok(CollectedBody { bytes: first.into(), held });
        };
        let mut bytes = Vec::new();
        append(memory, &mut held, &mut bytes, &first, announced).await?;
        // A piece of a buffer that may be larger, which the connection can use again once nothing refers to it.
        drop(first);
        let mut next = Some(second);
        while let Some(data) = next {
            append(memory, &mut held, &mut bytes, &data?, announced).await?;
            next = self.data().await;
        }
        Ok(CollectedBody { bytes, held })
    }

    async fn data(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            match self.frame().await? {
                // A message has no place for trailers.
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let how = match &error {
            BodyError::TooLarge { .. } => Broken::TooLarge,
            BodyError::Late(late) => Broken::Late(*late),
            // The second does not occur while frames are read.
            BodyError::Broken(_) | BodyError::NotHeld(_) => Broken::Lost,
        };
        // Only the first failure is the cause; later ones follow from it.
        let _ = self.broken.set(how);
        // The rest of a body that is too large is drained; there is none to wait for of one that is late.
        let rest = self.inner.take();
        if let (Broken::Late(_), Some(rest)) = (how, rest) {
            rest.abandon();
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl RequestBody {
    /// Reads the next frame of the client.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // Any frame ends the pause, and none extends the whole time.
                self.clock.note_part();
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                // Counted, because a chunked body announces no length.
                match self.bytes_left.checked_sub(length) {
                    Some(left) => self.bytes_left = left,
                    None => {
                        let limit = self.limit;
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
            Poll::Pending => match self.clock.poll_late(cx) {
                Poll::Ready(late) => self.fail(late.into()),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.ahead.pop() {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.poll_client(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.length();
        let rest = self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(rest.lower().saturating_add(ahead));
        hint
    }
}

/// The body of a response.
pub(super) enum ReplyBody {
    Empty,
    /// An absent body, although the head has a `content-length`, as for a 304.
    Unseen,
    /// A body that is in memory as a whole.
    Whole(Bytes),
    /// A body that an HTTP agent produces.
    Agent(Box<AheadBody>),
}

impl ReplyBody {
    /// Counts the memory of a large body until its last byte is sent; `ahead` is what may be held of a response that
    /// is still written.
    pub(super) fn counted(self, memory: &MemoryBudget, ahead: u64) -> Self {
        match self {
            Self::Whole(bytes) if bytes.len() > SMALL_BODY => {
                // Beyond the bound if it has to be: what the agent did is committed, and its answer is there.
                let held = memory.hold(MemoryKind::Bodies, bytes.len() as u64);
                // With the bytes and not with this body, which is gone while the connection still sends them.
                Self::Whole(Bytes::from_owner(CountedBytes { bytes, _held: held }))
            }
            Self::Agent(mut body) => {
                // As much as may be held of a response whose guest still runs.
                let bytes = body.length().unwrap_or(ahead);
                if bytes > SMALL_BODY as u64 {
                    body.count(memory.hold(MemoryKind::Bodies, bytes));
                }
                Self::Agent(body)
            }
            other => other,
        }
    }

    /// Returns the length in bytes, if it is known before the body is sent.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Unseen => None,
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Agent(body) => body.length(),
        }
    }
}

/// A response body that holds the guard of its request, and reports to the connection when hyper asks for data and when
/// it got some.
pub(super) struct GuardedBody {
    body: ReplyBody,
    /// The rest of a chunk that is handed over in pieces.
    left: Bytes,
    guard: RequestGuard,
}

impl GuardedBody {
    /// Wraps a body that has to be complete at `deadline`. Only a body that is sent in several chunks is watched: one
    /// that is handed over at once cannot stall here.
    pub(super) fn new(body: ReplyBody, mut guard: RequestGuard, deadline: Option<std::time::Instant>) -> Self {
        let is_chunked = match &body {
            ReplyBody::Empty | ReplyBody::Unseen => false,
            ReplyBody::Whole(_) => guard.is_multiplexed(),
            ReplyBody::Agent(body) => guard.is_multiplexed() || body.is_open(),
        };
        if is_chunked {
            guard.watch_body(deadline);
        }
        Self { body, left: Bytes::new(), guard }
    }
}

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Self { body, left, guard } = &mut *self;
        guard.body_polled();
        if !left.is_empty() {
            guard.chunk_sent();
            return Poll::Ready(Some(Ok(Frame::data(left.split_to(left.len().min(MAX_CHUNK))))));
        }
        let mut frame = match body {
            ReplyBody::Empty | ReplyBody::Unseen => Poll::Ready(None),
            ReplyBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            // In HTTP/1.1 the socket shows the progress, so that the whole body is handed over at once.
            ReplyBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            ReplyBody::Agent(body) => Pin::new(&mut **body).poll_frame(cx),
        };
        if guard.is_multiplexed()
            && let Poll::Ready(Some(Ok(frame))) = &mut frame
            && let Some(data) = frame.data_mut()
            && data.len() > MAX_CHUNK
        {
            *left = data.split_off(MAX_CHUNK);
        }
        if frame.is_ready() {
            guard.chunk_sent();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        if !self.left.is_empty() {
            return false;
        }
        match &self.body {
            ReplyBody::Empty => true,
            // Makes hyper keep the `content-length` of the head.
            ReplyBody::Unseen => false,
            ReplyBody::Whole(bytes) => bytes.is_empty(),
            ReplyBody::Agent(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.left.len() as u64;
        self.body.length().map_or_else(SizeHint::default, |length| SizeHint::with_exact(length + left))
    }
}
