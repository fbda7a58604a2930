//! The hash of a call over HTTP as its guest asks for it, by which a later run asks for the same.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use caxton_control::journal::RequestHash;
use http_body::{Body, Frame, SizeHint};
use sha2::{Digest as _, Sha256};

use super::http_call::{CallBody, HttpCallError};

/// The headers of a trace: they differ in each run, and change nothing of what is asked.
const TRACE: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// The hash of a request in progress: of its head, and what came of its body.
#[derive(Debug, Clone)]
pub(crate) struct RequestHasher(Sha256);

impl RequestHasher {
    /// Begins with the head, as the guest gave it.
    pub(crate) fn new(head: &http::request::Parts) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.add(head.method.as_str().as_bytes());
        hasher.add(head.uri.to_string().as_bytes());
        let mut headers: Vec<(&str, &[u8])> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        headers.retain(|(name, _)| !TRACE.contains(name));
        // Stable: values of one name keep their order, which means something.
        headers.sort_by_key(|(name, _)| *name);
        for (name, value) in headers {
            hasher.add(name.as_bytes());
            hasher.add(value);
        }
        // An empty text, which no header is named by: what follows is the body.
        hasher.add(&[]);
        hasher
    }

    /// Adds a text after its length, so that no two lists of texts give the same bytes.
    fn add(&mut self, text: &[u8]) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    /// Adds a part of the body. The parts in which it comes make no difference.
    pub(crate) fn data(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// Adds a frame of the body.
    pub(crate) fn frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.data(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            for (name, value) in trailers {
                self.add(name.as_str().as_bytes());
                self.add(value.as_bytes());
            }
        }
    }

    /// Returns the hash of what was added.
    pub(crate) fn finish(self) -> RequestHash {
        RequestHash(self.0.finalize().into())
    }
}

/// Returns the length of the body that a head says.
pub(crate) fn declared_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A callback that gets the hash of a request once its body has ended.
type OnHash = Box<dyn FnOnce(RequestHash) + Send>;

/// The body of a request that is hashed on its way.
pub(crate) struct HashedBody {
    body: CallBody,
    progress: Option<(RequestHasher, OnHash)>,
    /// The bytes that are left of the length in the head. A client need not look for the end after them.
    left: Option<u64>,
}

impl HashedBody {
    /// Wraps a body whose head is hashed already and says this length. A body that breaks off has no hash.
    pub(crate) fn new(body: CallBody, length: Option<u64>, hasher: RequestHasher, on_hash: OnHash) -> Self {
        let left = length.or_else(|| body.size_hint().exact());
        let mut hashed = Self { body, progress: Some((hasher, on_hash)), left };
        // Not polled then.
        if hashed.body.is_end_stream() || left == Some(0) {
            hashed.end();
        }
        hashed
    }

    fn end(&mut self) {
        if let Some((hasher, on_hash)) = self.progress.take() {
            on_hash(hasher.finish());
        }
    }
}

impl Body for HashedBody {
    type Data = Bytes;
    type Error = HttpCallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpCallError>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some((hasher, _)) = &mut self.progress {
                    hasher.frame(frame);
                }
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(bytes));
                if self.body.is_end_stream() || self.left == Some(0) {
                    self.end();
                }
            }
            Some(Err(_)) => self.progress = None,
            None => self.end(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> http::request::Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn hash(method: &str, uri: &str, headers: &[(&str, &str)], parts: &[&str]) -> RequestHash {
        let mut hasher = RequestHasher::new(&head(method, uri, headers));
        parts.iter().for_each(|part| hasher.data(part.as_bytes()));
        hasher.finish()
    }

    #[test]
    fn requests_are_told_apart_by_what_they_ask() {
        let uri = "http://a.example/pay?x=1";
        let first = hash("POST", uri, &[("a", "1"), ("b", "2")], &["5 euros"]);
        for (same, other) in [
            (true, hash("POST", uri, &[("b", "2"), ("a", "1")], &["5 eu", "ros"])),
            (true, hash("POST", uri, &[("a", "1"), ("b", "2"), ("traceparent", "00-1-2-01")], &["5 euros"])),
            (false, hash("PUT", uri, &[("a", "1"), ("b", "2")], &["5 euros"])),
            (false, hash("POST", "http://a.example/pay?x=2", &[("a", "1"), ("b", "2")], &["5 euros"])),
            (false, hash("POST", uri, &[("a", "1"), ("b", "3")], &["5 euros"])),
            (false, hash("POST", uri, &[("a", "1b"), ("", "")][..1], &["5 euros"])),
            (false, hash("POST", uri, &[("a", "1"), ("b", "2")], &["6 euros"])),
            (false, hash("POST", uri, &[("a", "2"), ("a", "1")], &["5 euros"])),
        ] {
            assert_eq!(first == other, same);
        }
    }

    #[tokio::test]
    async fn a_body_is_hashed_on_its_way() {
        for text in ["", "5 euros"] {
            let (sender, hashed) = std::sync::mpsc::channel();
            let full = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {});
            let hasher = RequestHasher::new(&head("POST", "http://a.example/", &[]));
            let body =
                HashedBody::new(full.boxed_unsync(), None, hasher, Box::new(move |hash| sender.send(hash).unwrap()));
            assert_eq!(body.collect().await.unwrap().to_bytes(), text);
            assert_eq!(hashed.recv().unwrap(), hash("POST", "http://a.example/", &[], &[text]));
        }
        // A client that has sent as much as the head says does not look for the end.
        let (sender, hashed) = std::sync::mpsc::channel();
        let frames =
            futures::stream::iter(["5 eu", "ros"].map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes())))));
        let body = http_body_util::StreamBody::new(frames).boxed_unsync();
        let hasher = RequestHasher::new(&head("POST", "http://a.example/", &[]));
        let mut body = HashedBody::new(body, Some(7), hasher, Box::new(move |hash| sender.send(hash).unwrap()));
        assert!(body.frame().await.is_some() && hashed.try_recv().is_err());
        assert!(body.frame().await.is_some());
        assert_eq!(hashed.try_recv().unwrap(), hash("POST", "http://a.example/", &[], &["5 euros"]));
    }
}
