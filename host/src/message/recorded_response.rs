//! The record of a response over HTTP, from which a later run or a copy is answered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::http_call::{CallBody, HttpCallError};

/// A response, as far as it came.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RecordedResponse {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    /// The body in the parts in which it came. They share their memory with those that the guest got.
    parts: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    bytes: usize,
    /// Set once the body has ended.
    is_whole: bool,
}

/// A text that must not be stored, with its name.
pub(crate) type MaskedText = (String, String);

/// The form in which a response is stored. The order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct StoredResponse<'a> {
    status: u16,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a [u8])>,
    #[serde(borrow)]
    body: Vec<&'a [u8]>,
    #[serde(borrow)]
    trailers: Option<Vec<(&'a str, &'a [u8])>>,
    is_whole: bool,
}

impl RecordedResponse {
    /// Begins the record of a response.
    pub(crate) fn new(head: &http::response::Parts) -> Self {
        let headers = head.headers.clone();
        let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        Self { status: head.status, headers, bytes, ..Self::default() }
    }

    /// Adds a frame of the body.
    pub(crate) fn push(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len();
            self.parts.push(data.clone());
        } else if let Some(trailers) = frame.trailers_ref() {
            self.bytes += trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
            self.trailers = Some(trailers.clone());
        }
    }

    /// Notes the end of the body.
    pub(crate) fn end(&mut self) {
        self.is_whole = true;
    }

    /// Returns the bytes that it has in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the response as a guest gets it. One that was not read to its end breaks off where the first reader left
    /// it.
    pub(crate) fn to_response(&self) -> http::Response<CallBody> {
        let frames = self.parts.iter().cloned().map(Frame::data).chain(self.trailers.clone().map(Frame::trailers));
        let end = (!self.is_whole).then_some(Err(HttpCallError::Incomplete));
        let frames: Vec<Result<Frame<Bytes>, HttpCallError>> = frames.map(Ok).chain(end).collect();
        let mut response = http::Response::new(StreamBody::new(futures::stream::iter(frames)).boxed_unsync());
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response
    }

    /// Returns it with these texts replaced by their names, as in logs: a server may repeat the headers that it got, and
    /// with them what the host has added.
    pub(crate) fn masked(&self, masks: &[MaskedText]) -> Self {
        // A text may begin in one part and end in the next.
        let body = self.parts.concat();
        let replaced = masked(&body, masks);
        let mut record = self.clone();
        if let Some(replaced) = replaced {
            record.headers.remove(http::header::CONTENT_LENGTH);
            record.parts = vec![replaced.into()];
        }
        for value in record.headers.values_mut().chain(record.trailers.iter_mut().flat_map(HeaderMap::values_mut)) {
            if let Some(replaced) = masked(value.as_bytes(), masks) {
                *value = HeaderValue::from_bytes(&replaced).unwrap_or(HeaderValue::from_static("[secret]"));
            }
        }
        record
    }

    /// Encodes it to be stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let stored = StoredResponse {
            status: self.status.as_u16(),
            headers: pairs(&self.headers),
            body: self.parts.iter().map(|part| &**part).collect(),
            trailers: self.trailers.as_ref().map(pairs),
            is_whole: self.is_whole,
        };
        postcard::to_allocvec(&stored).expect("a vector takes whatever is written")
    }

    /// Reads a stored one; `None` if this version cannot read it.
    pub(crate) fn decode(stored: &[u8]) -> Option<Self> {
        let stored: StoredResponse<'_> = postcard::from_bytes(stored).ok()?;
        let parts: Vec<Bytes> = stored.body.into_iter().map(Bytes::copy_from_slice).collect();
        let (headers, trailers) = (map(&stored.headers)?, stored.trailers.as_deref().map(map));
        let bytes = parts.iter().map(Bytes::len).sum();
        let trailers = match trailers {
            Some(trailers) => Some(trailers?),
            None => None,
        };
        let status = StatusCode::from_u16(stored.status).ok()?;
        Some(Self { status, headers, parts, trailers, bytes, is_whole: stored.is_whole })
    }
}

/// Returns bytes with texts replaced by their names; `None` if none of them is there.
fn masked(bytes: &[u8], masks: &[MaskedText]) -> Option<Vec<u8>> {
    let mut replaced: Option<Vec<u8>> = None;
    for (name, text) in masks.iter().filter(|(_, text)| !text.is_empty()) {
        let from = replaced.as_deref().unwrap_or(bytes);
        let (mut out, mut rest) = (Vec::new(), from);
        while let Some(at) = rest.windows(text.len()).position(|part| part == text.as_bytes()) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(format!("[secret {name}]").as_bytes());
            rest = &rest[at + text.len()..];
        }
        if rest.len() < from.len() {
            out.extend_from_slice(rest);
            replaced = Some(out);
        }
    }
    replaced
}

fn pairs(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

fn map(pairs: &[(&str, &[u8])]) -> Option<HeaderMap> {
    let pair = |(name, value): &(&str, &[u8])| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for one in pairs {
        let (name, value) = pair(one)?;
        headers.append(name, value);
    }
    Some(headers)
}

/// A record that is still being made, shared by the body of the response and by its reader.
pub(crate) type SharedResponse = Arc<Mutex<RecordedResponse>>;

/// Asks for room for more bytes of a record. After `false` nothing more is recorded.
type Admit = Box<dyn FnMut(usize) -> bool + Send>;

/// The body of a response that is recorded while the guest reads it.
pub(crate) struct ResponseTap {
    body: CallBody,
    record: Option<SharedResponse>,
    admit: Admit,
}

impl ResponseTap {
    /// Wraps a body.
    pub(crate) fn new(body: CallBody, record: SharedResponse, admit: Admit) -> Self {
        if body.is_end_stream() {
            record.lock().end();
        }
        Self { body, record: Some(record), admit }
    }
}

impl Body for ResponseTap {
    type Data = Bytes;
    type Error = HttpCallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpCallError>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let this = &mut *self;
        let Some(record) = &this.record else { return Poll::Ready(polled) };
        match &polled {
            Some(Ok(frame)) => {
                if (this.admit)(frame.data_ref().map_or(0, Bytes::len)) {
                    let mut record = record.lock();
                    record.push(frame);
                    if this.body.is_end_stream() {
                        record.end();
                    }
                } else {
                    this.record = None;
                }
            }
            Some(Err(_)) => this.record = None,
            None => record.lock().end(),
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
    use super::*;

    fn recorded(parts: &[&str], is_whole: bool) -> RecordedResponse {
        let mut response = http::Response::builder().status(201);
        for (name, value) in [("x-a", "1"), ("x-a", "2"), ("content-type", "text/plain")] {
            response = response.header(name, value);
        }
        let mut record = RecordedResponse::new(&response.body(()).unwrap().into_parts().0);
        for part in parts {
            record.push(&Frame::data(Bytes::copy_from_slice(part.as_bytes())));
        }
        if is_whole {
            record.push(&Frame::trailers(HeaderMap::from_iter([(
                HeaderName::from_static("x-sum"),
                HeaderValue::from_static("7"),
            )])));
            record.end();
        }
        record
    }

    #[tokio::test]
    async fn a_stored_response_is_the_one_that_came() {
        let record = recorded(&["paid", " 5"], true);
        let again = RecordedResponse::decode(&record.encode()).unwrap();
        assert_eq!(again.to_response().headers(), record.to_response().headers());
        let response = again.to_response();
        assert_eq!((response.status(), response.headers().get_all("x-a").iter().count()), (StatusCode::CREATED, 2));
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "7");
        assert_eq!(body.to_bytes(), "paid 5");
        assert_eq!(RecordedResponse::decode(&[1, 2]), None);
    }

    #[tokio::test]
    async fn secrets_are_not_stored() {
        let masks = [("key".to_owned(), "hunter2".to_owned()), ("none".to_owned(), String::new())];
        let record = recorded(&["you sent hun", "ter2, hunter2"], true);
        let stored = record.masked(&masks).encode();
        assert!(!stored.windows(7).any(|part| part == b"hunter2"));
        let body = RecordedResponse::decode(&stored).unwrap().to_response().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "you sent [secret key], [secret key]");
        let other = recorded(&["nothing of it"], true);
        assert_eq!(other.masked(&masks), other);
    }

    #[tokio::test]
    async fn a_response_breaks_off_where_its_first_reader_left_it() {
        let mut body = recorded(&["paid"], false).to_response().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "paid");
        assert_eq!(body.frame().await.unwrap().unwrap_err(), HttpCallError::Incomplete);
    }

    #[tokio::test]
    async fn a_response_is_recorded_as_far_as_it_is_read_and_has_room() {
        for (most, expected) in [(100, Some("paid 5")), (3, None)] {
            let source = recorded(&["paid", " 5"], true);
            let (head, body) = source.to_response().into_parts();
            let record: SharedResponse = Arc::new(Mutex::new(RecordedResponse::new(&head)));
            let mut sum = 0;
            let admit = move |bytes| {
                sum += bytes;
                sum <= most
            };
            let read = ResponseTap::new(body, Arc::clone(&record), Box::new(admit)).boxed_unsync().collect().await;
            assert_eq!(read.unwrap().to_bytes(), "paid 5", "the guest gets it in any case");
            let found = record.lock().clone();
            assert_eq!(found.is_whole, expected.is_some());
            if expected.is_some() {
                assert_eq!(found, source);
            }
        }
    }
}
