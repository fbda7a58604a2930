//! Bodies of requests and responses: request bodies are bounded in size and time, response bodies report progress to
//! their connection.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use caxton_control::memory::MemoryPriority;
use http::header::EXPECT;
use http::{Version, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::memory_budget::{MemoryBudget, MemoryKind, Reservation};
use crate::net::RequestGuard;
use crate::wasm::{BodyError, ResponseBody, ResponseError};

/// The bounds up to which the rest of a refused body is read and dropped before the connection is closed.
/// Closing a socket with unread bytes makes the kernel send a reset, and the client would lose the response. The same
/// bound as for bodies of the management API.
const LINGER_BYTES: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(10);
/// The largest chunk handed to hyper at once when the connection is multiplexed. A chunk that was handed over cannot be
/// taken back, so smaller ones let the stall check see progress.
const MAX_CHUNK: usize = 64 << 10;

/// The largest body that is not counted by itself.
const SMALL_BODY: usize = 4 << 10;
/// The time for which a request waits for memory of the host before it is refused. Short beside the time that a call may
/// take, so that the client learns why.
pub(super) const MEMORY_PATIENCE: Duration = Duration::from_secs(2);

/// The bounds of a request's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    /// The largest size in bytes.
    pub(super) limit: u64,
    /// The longest pause between two frames of the client.
    pub(super) stall: Duration,
}

/// The body of a request, which fails as soon as it exceeds its bounds.
pub(super) struct RequestBody {
    /// A body that was read before, to be read once more.
    whole: Option<Bytes>,
    /// `None` after its end, or after it was refused.
    inner: Option<Incoming>,
    bounds: BodyLimits,
    bytes_left: u64,
    /// The timer of the current pause. Created when the client first pauses: most bodies arrive in one piece and need
    /// none.
    pause: Option<Pin<Box<Sleep>>>,
    pausing: bool,
    /// Set for HTTP/1, where refusing a body ends the connection. HTTP/2 resets the one stream and goes on with the
    /// others.
    drains_when_refused: bool,
    /// Set while the client waits for `100 Continue` before it sends the body.
    awaits_continue: bool,
    broken: Arc<OnceLock<Broken>>,
}

/// The reason why a body was refused or lost, kept for the response to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The body is larger than [`BodyLimits::limit`].
    TooLarge,
    /// The client paused for longer than [`BodyLimits::stall`].
    Stalled,
    /// The connection broke while the body was read.
    Lost,
}

impl RequestBody {
    /// Wraps the body of the request with this head.
    ///
    /// # Errors
    /// `TooLarge` if the announced length exceeds the limit; the rest is then drained as for any refused body.
    pub(super) fn new(inner: Incoming, head: &request::Parts, bounds: BodyLimits) -> Result<Self, BodyError> {
        let announced = inner.size_hint().lower();
        let inner = (!inner.is_end_stream()).then_some(inner);
        let body = Self {
            whole: None,
            inner,
            bounds,
            bytes_left: bounds.limit,
            pause: None,
            pausing: false,
            drains_when_refused: head.version < Version::HTTP_2,
            awaits_continue: head.headers.contains_key(EXPECT),
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
            whole: Some(whole).filter(|bytes: &Bytes| !bytes.is_empty()),
            inner: None,
            bounds,
            bytes_left: bounds.limit,
            pause: None,
            pausing: false,
            drains_when_refused: false,
            awaits_continue: false,
            broken: Arc::default(),
        }
    }

    /// Reads the whole body, up to a limit that is not above its own.
    pub(super) async fn collect_within(
        mut self,
        limit: u64,
        memory: &MemoryBudget,
    ) -> Result<CollectedBody, BodyError> {
        if limit < self.bounds.limit {
            (self.bounds.limit, self.bytes_left) = (limit, limit);
        }
        if self.size_hint().lower() > self.bounds.limit {
            return Err(BodyError::TooLarge { limit: self.bounds.limit });
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

    fn stalled(&mut self, cx: &mut Context<'_>) -> bool {
        // One timer is reset for each pause: to create one a pause would allocate in the hot path.
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
            // The second does not occur while frames are read.
            BodyError::Broken(_) | BodyError::NotHeld(_) => Broken::Lost,
        };
        // Only the first failure is the cause; later ones follow from it.
        let _ = self.broken.set(how);
        if how == Broken::TooLarge {
            self.linger();
        }
        self.inner = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Drains the rest in the background, so that the client can read the response before the connection closes.
    fn linger(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        // A client that waits for `100 Continue` has sent nothing that could be drained.
        if !self.drains_when_refused || self.awaits_continue || inner.is_end_stream() {
            return;
        }
        // Dropped after the runtime has ended: no response is left to protect.
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
        // The first poll makes hyper send `100 Continue`.
        self.awaits_continue = false;
        if let Some(whole) = self.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // Any frame ends the pause: silence is bounded here, not the whole time of an upload.
                self.pausing = false;
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                // Counted, because a chunked body announces no length.
                match self.bytes_left.checked_sub(length) {
                    Some(left) => self.bytes_left = left,
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
        self.whole.is_none() && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(whole) = &self.whole {
            return SizeHint::with_exact(whole.len() as u64);
        }
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // An agent may answer without reading the body to its end.
        self.linger();
    }
}

/// A body that was read as a whole.
pub(super) struct CollectedBody {
    pub(super) bytes: Vec<u8>,
    /// The memory that it takes, unless it is small.
    pub(super) held: Option<Reservation>,
}

/// Counts so many bytes of a body. Waits a little if there is no room.
async fn hold(memory: &MemoryBudget, held: &mut Option<Reservation>, bytes: usize) -> Result<(), BodyError> {
    // Small ones are part of what each connection is counted with.
    if bytes <= SMALL_BODY {
        return Ok(());
    }
    let held = held.get_or_insert_with(|| memory.empty(MemoryKind::Bodies));
    let more = (bytes as u64).saturating_sub(held.bytes());
    let deadline = std::time::Instant::now() + MEMORY_PATIENCE;
    // Boxed, as the future would be part of that of every call, and most bodies are small.
    Box::pin(held.grow(more, MemoryPriority::Calls, deadline)).await.map_err(BodyError::NotHeld)
}

/// Appends a piece to a body of an announced length.
async fn append(
    memory: &MemoryBudget,
    held: &mut Option<Reservation>,
    bytes: &mut Vec<u8>,
    piece: &[u8],
    announced: usize,
) -> Result<(), BodyError> {
    let length = bytes.len() + piece.len();
    if length > bytes.capacity() {
        // Doubled, so that a body is copied twice at most, and not beyond what was announced.
        let capacity = (2 * length).min(announced.max(length));
        hold(memory, held, capacity).await?;
        bytes.reserve_exact(capacity - bytes.len());
    }
    bytes.extend_from_slice(piece);
    Ok(())
}

/// The bytes of a response with the memory that they take.
struct CountedBytes {
    bytes: Bytes,
    _held: Reservation,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
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
    Agent(ResponseBody),
}

impl ReplyBody {
    /// Counts the memory of a large body until its last byte is sent.
    pub(super) fn counted(self, memory: &MemoryBudget) -> Self {
        match self {
            Self::Whole(bytes) if bytes.len() > SMALL_BODY => {
                // Beyond the bound if it has to be: what the agent did is committed, and its answer is there.
                let held = memory.hold(MemoryKind::Bodies, bytes.len() as u64);
                // With the bytes and not with this body, which is gone while the connection still sends them.
                Self::Whole(Bytes::from_owner(CountedBytes { bytes, _held: held }))
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
            Self::Agent(body) => body.size_hint().exact(),
        }
    }
}

/// A response body that holds the guard of its request, and reports to the connection when hyper asks for data and when
/// it got some.
pub(super) struct GuardedBody {
    body: ReplyBody,
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
        Self { body, guard }
    }
}

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Self { body, guard } = &mut *self;
        guard.body_polled();
        let frame = match body {
            ReplyBody::Empty | ReplyBody::Unseen => Poll::Ready(None),
            ReplyBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            ReplyBody::Whole(bytes) => {
                // In HTTP/1.1 the socket shows the progress, so that the whole body is handed over at once.
                let length = if guard.is_multiplexed() { bytes.len().min(MAX_CHUNK) } else { bytes.len() };
                Poll::Ready(Some(Ok(Frame::data(bytes.split_to(length)))))
            }
            ReplyBody::Agent(body) => Pin::new(body).poll_frame(cx),
        };
        if frame.is_ready() {
            guard.chunk_sent();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            ReplyBody::Empty => true,
            // Makes hyper keep the `content-length` of the head.
            ReplyBody::Unseen => false,
            ReplyBody::Whole(bytes) => bytes.is_empty(),
            ReplyBody::Agent(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
