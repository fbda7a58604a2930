//! A service whose requests count as under way on their connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};

use super::pulse::{Pulse, Visit};

/// Makes a service of `answer` that registers each request with its connection until the last byte of the response.
pub(crate) fn visited<A, F, B>(
    pulse: Arc<Pulse>,
    answer: A,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Visited<B>>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Visited<B>>, Infallible>> + Send + 'static,
> + Send
+ 'static
where
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    service_fn(move |request: Request<Incoming>| {
        let mut visit = pulse.visit(request.version() == Version::HTTP_2);
        let answering = answer(request);
        async move {
            let response = answering.await?;
            if visit.is_multiplexed() {
                visit.watch(None);
            }
            Ok(response.map(|body| Visited { body, visit }))
        }
    })
}

/// A response body that holds the registration of its request.
pub(crate) struct Visited<B> {
    body: B,
    visit: Visit,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Visited<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.visit.asked();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.visit.handed_over();
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
