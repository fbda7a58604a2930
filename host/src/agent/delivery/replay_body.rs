//! A request whose body is kept while it is read, so that a handler that runs again reads it from its beginning.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use caxton_control::memory::MemoryPriority;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::memory_budget::{MemoryBudget, MemoryKind, Reservation};
use crate::wasm::BodyError;

/// A request with the part of its body that was read.
pub(in crate::agent) struct ReplayableRequest<B> {
    head: http::request::Parts,
    body: Arc<Mutex<SharedBody<B>>>,
}

/// The body of a request, shared by the readers of its runs, of which one is alive.
struct SharedBody<B> {
    source: B,
    /// The part that was read; `None` if it exceeded `most`.
    read: Option<Vec<Piece>>,
    bytes: u64,
    limit: u64,
    /// The memory of the part that was read.
    held: Reservation,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl From<Piece> for Frame<Bytes> {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Data(data) => Self::data(data),
            Piece::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

impl<B> ReplayableRequest<B> {
    /// Creates a request whose body is kept up to `limit` bytes, as long as the host has memory for it.
    pub(in crate::agent) fn new(request: http::Request<B>, limit: u64, memory: &MemoryBudget) -> Self {
        let (head, source) = request.into_parts();
        let held = memory.empty(MemoryKind::Bodies);
        let body = Arc::new(Mutex::new(SharedBody { source, read: Some(Vec::new()), bytes: 0, limit, held }));
        Self { head, body }
    }

    /// Returns `true` if all that was read is kept.
    pub(in crate::agent) fn is_whole(&self) -> bool {
        self.body.lock().read.is_some()
    }

    /// Returns the request from its beginning, if it is whole.
    pub(in crate::agent) fn request(&self) -> http::Request<ReplayBody<B>> {
        let body = ReplayBody { body: Arc::clone(&self.body), position: 0 };
        http::Request::from_parts(self.head.clone(), body)
    }
}

/// The body of one run: first what was read already, then what is still to come.
pub(in crate::agent) struct ReplayBody<B> {
    body: Arc<Mutex<SharedBody<B>>>,
    position: usize,
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = Arc::clone(&self.body);
        let mut body = body.lock();
        if let Some(piece) = body.read.as_ref().and_then(|read| read.get(self.position)).cloned() {
            self.position += 1;
            return Poll::Ready(Some(Ok(piece.into())));
        }
        // Polled under the lock, which is uncontended: a run has ended before the next one reads.
        let polled = Pin::new(&mut body.source).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let (bytes, piece) = match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => (data.len() as u64, Some(Piece::Data(data.clone()))),
                (None, Some(trailers)) => (0, Some(Piece::Trailers(trailers.clone()))),
                (None, None) => (0, None),
            };
            body.bytes = body.bytes.saturating_add(bytes);
            let keeps = body.read.is_some() && body.bytes <= body.limit;
            if !(keeps && body.held.try_grow(bytes, MemoryPriority::Calls).is_ok()) {
                // Freed at once: the request cannot be repeated any more, and memory is what the bound is for.
                body.read = None;
                body.held.hold(0);
            }
            if let (Some(read), Some(piece)) = (&mut body.read, piece) {
                // Errors are not kept: a body that broke cannot be read again, and its run ends.
                read.push(piece);
                self.position += 1;
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let body = self.body.lock();
        body.read.as_ref().is_none_or(|read| self.position >= read.len()) && body.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.lock();
        // The part already read counts as still to come for this run.
        let left = body.read.iter().flat_map(|read| read.iter().skip(self.position));
        let left: u64 = left.map(|piece| if let Piece::Data(data) = piece { data.len() as u64 } else { 0 }).sum();
        let source = body.source.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = source.upper() {
            hint.set_upper(upper.saturating_add(left));
        }
        hint.set_lower(source.lower().saturating_add(left));
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;

    use super::*;

    /// A body that comes in these pieces.
    struct Pieces(VecDeque<&'static str>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    async fn rest(mut request: http::Request<ReplayBody<Pieces>>, frames: usize) -> String {
        let mut text = String::new();
        for _ in 0..frames {
            let Some(frame) = request.body_mut().frame().await else { break };
            text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
        assert_eq!(request.body().is_end_stream(), text == "abbc", "{text}");
        text
    }

    #[tokio::test]
    async fn each_run_reads_a_held_request_from_its_beginning() {
        let request = || http::Request::new(Pieces(["a", "bb", "c"].into()));
        let memory = MemoryBudget::new(100);
        let held = ReplayableRequest::new(request(), 4, &memory);
        for (frames, expected) in [(1, "a"), (2, "abb"), (0, ""), (9, "abbc"), (9, "abbc")] {
            assert_eq!(rest(held.request(), frames).await, expected);
        }
        let held = ReplayableRequest::new(request(), 3, &memory);
        assert_eq!(rest(held.request(), 2).await, "abb");
        assert_eq!(rest(held.request(), 9).await, "abbc", "and then it is more than is held");
        assert!(!held.is_whole());
        assert_eq!(memory.used(), 4, "of the first request, which is held");
        let held = ReplayableRequest::new(request(), 4, &MemoryBudget::new(1));
        assert_eq!(rest(held.request(), 9).await, "abbc", "without memory it is read once");
        assert!(!held.is_whole());
    }
}
