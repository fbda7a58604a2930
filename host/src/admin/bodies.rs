//! The memory of the host that bodies of the management API take: of requests as they come, of responses until they are
//! sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use caxton_control::memory::MemoryPriority;
use futures::StreamExt;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use super::api::Api;
use crate::memory_budget::{MemoryKind, MemoryShortage, Reservation};

/// The largest body that is not counted by itself: most of the API's are a few kilobytes.
const SMALL: u64 = 16 << 10;

/// Counts the bodies of a request and its response. A request's body for which the host has no room is refused.
pub(super) async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let memory = api.context.memory.clone();
    let (mut held, mut request) = (None, request);
    if !request.body().is_end_stream() {
        // Shared, as what was read lives on in the handler once the body is at its end.
        let counted = Arc::new(Mutex::new((0_u64, memory.empty(MemoryKind::Bodies))));
        held = Some(Arc::clone(&counted));
        request = request.map(|body| {
            Body::from_stream(body.into_data_stream().map(move |data| {
                let data = data?;
                let mut counted = counted.lock();
                let (length, held) = &mut *counted;
                *length += data.len() as u64;
                let more = length.saturating_sub(held.bytes());
                if *length > SMALL && held.try_grow(more, MemoryPriority::Calls).is_err() {
                    return Err(axum::Error::new(MemoryShortage));
                }
                Ok::<_, axum::Error>(data)
            }))
        });
    }
    let response = next.run(request).await;
    drop(held);
    response.map(|body| match body.size_hint().exact() {
        // It is there already, whatever the bound: others wait for it. One that is streamed has its own bounds.
        Some(bytes) if bytes > SMALL => Body::new(CountedBody { body, _held: memory.hold(MemoryKind::Bodies, bytes) }),
        _ => body,
    })
}

/// The body of a response with the memory that it takes.
struct CountedBody {
    body: Body,
    _held: Reservation,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
