//! The registration of requests with their connection, for services that do not do so themselves.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};

use super::activity::{ConnectionActivity, RequestGuard};

/// Makes a service of `answer` that registers each request with its connection until the last byte of the response.
pub(crate) fn track_requests<A, F, B>(
    activity: Arc<ConnectionActivity>,
    answer: A,
) -> impl Service<
    Request<Incoming>,
    Response = Response<TrackedBody<B>>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<TrackedBody<B>>, Infallible>> + Send + 'static,
> + Send
+ 'static
where
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    service_fn(move |request: Request<Incoming>| {
        let mut guard = activity.begin_request(request.version() == Version::HTTP_2);
        let answering = answer(request);
        async move {
            let response = answering.await?;
            // A full window stops one stream while the socket accepts bytes; in HTTP/1.1 the stall of the socket shows
            // it.
            if guard.is_multiplexed() {
                guard.watch_body(None);
            }
            Ok(response.map(|body| TrackedBody { body, guard }))
        }
    })
}

/// A response body that holds the registration of its request.
pub(crate) struct TrackedBody<B> {
    body: B,
    guard: RequestGuard,
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrackedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.guard.body_polled();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.guard.chunk_sent();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
