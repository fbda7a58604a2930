//! The body of a request as its client sends it, of which the rest is read and dropped if nobody reads it.
//!
//! A request may be answered before its body has come. In HTTP/1.1 the connection is then closed, and the kernel sends a
//! reset if bytes of the client are unread; in HTTP/2 the stream is reset, which some clients (curl 7.88) take for the
//! failure of a response that was complete. Either way the client would lose the response.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{Version, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// The bounds up to which the rest of a body is read and dropped. In HTTP/2 less, since a reset ends the one stream and
/// not the connection, and most clients expect it.
const DRAINED: usize = 64 << 20;
const DRAINED_OF_STREAM: usize = 1 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The body of a request. Dropping it drains what the client still sends, so that the client can read the response.
pub(crate) struct ClientBody {
    /// `None` after its end.
    inner: Option<Incoming>,
    /// The bytes to drain at most.
    drained: usize,
    /// Set while the client waits for `100 Continue` before it sends the body.
    awaits_continue: bool,
}

impl ClientBody {
    /// Wraps the body of the request with this head.
    pub(crate) fn new(inner: Incoming, head: &request::Parts) -> Self {
        Self {
            inner: (!inner.is_end_stream()).then_some(inner),
            drained: if head.version < Version::HTTP_2 { DRAINED } else { DRAINED_OF_STREAM },
            awaits_continue: head.headers.contains_key(EXPECT),
        }
    }

    /// Gives up the rest of the body: nothing is read of a client that is late or gone.
    pub(crate) fn abandon(mut self) {
        self.inner = None;
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // The first poll makes hyper send `100 Continue`.
        self.awaits_continue = false;
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = Pin::new(inner).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.inner = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        // A client that waits for `100 Continue` has sent nothing that could be drained.
        if self.awaits_continue || inner.is_end_stream() {
            return;
        }
        // Dropped after the runtime has ended: no response is left to protect.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut left = self.drained;
        runtime.spawn(tokio::time::timeout(DRAIN_TIME, async move {
            while let Some(Ok(frame)) = inner.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    return;
                }
            }
        }));
    }
}
