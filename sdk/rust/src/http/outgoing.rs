//! Calls to places on the network, over `wasi:http/outgoing-handler`.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CallError, Events};
use crate::{Failure, JSON, TEXT};

/// Begins a call with the method GET.
pub fn get(url: impl Into<String>) -> OutgoingRequest {
    request("GET", url)
}

/// Begins a call with the method HEAD.
pub fn head(url: impl Into<String>) -> OutgoingRequest {
    request("HEAD", url)
}

/// Begins a call with the method POST.
pub fn post(url: impl Into<String>) -> OutgoingRequest {
    request("POST", url)
}

/// Begins a call with the method PUT.
pub fn put(url: impl Into<String>) -> OutgoingRequest {
    request("PUT", url)
}

/// Begins a call with the method PATCH.
pub fn patch(url: impl Into<String>) -> OutgoingRequest {
    request("PATCH", url)
}

/// Begins a call with the method DELETE.
pub fn delete(url: impl Into<String>) -> OutgoingRequest {
    request("DELETE", url)
}

/// Begins a call with any method. `url` begins with `https://` or `http://`.
pub fn request(method: impl Into<String>, url: impl Into<String>) -> OutgoingRequest {
    OutgoingRequest {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        connect_timeout: None,
        first_byte_timeout: None,
        between_bytes_timeout: None,
    }
}

/// A request that has not been sent. The places that may be called are in `allow.http` of the agent's declaration, which
/// may also have the host add headers, such as a key.
///
/// ```no_run
/// use caxton_sdk::http;
/// use caxton_sdk::prelude::*;
/// use std::time::Duration;
///
/// # fn prices() -> Result<(), Failure> {
/// // Two calls at once, each with shorter times than those of `[outgoing]`.
/// let begin = |shop: &str| {
///     http::get(format!("https://{shop}.example.com/price"))
///         .connect_timeout(Duration::from_secs(1))
///         .first_byte_timeout(Duration::from_secs(2))
///         .start()
/// };
/// let (one, other) = (begin("one")?, begin("other")?);
/// for pending in [one, other] {
///     match pending.wait() {
///         Ok(response) => log::info!("{}", response.ok()?.into_text()?),
///         // The error names the setting that decides over it.
///         Err(error) if error.is_timeout() => log::warn!("{error}"),
///         Err(error) => return Err(error.into()),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a request is sent by `send`, `start` or `stream`"]
pub struct OutgoingRequest {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    connect_timeout: Option<Duration>,
    first_byte_timeout: Option<Duration>,
    between_bytes_timeout: Option<Duration>,
}

impl OutgoingRequest {
    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body and its media type.
    pub fn bytes(mut self, body: impl Into<Vec<u8>>, content_type: impl Into<String>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// Sets the body to a text.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.bytes(text.into(), TEXT)
    }

    /// Sets the body to a value as JSON.
    ///
    /// # Errors
    /// A failure with the cause `fault`, if the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, Failure> {
        Ok(self.bytes(serde_json::to_vec(value)?, JSON))
    }

    /// Sets the longest time for a connection. The host may have a shorter one.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = Some(time);
        self
    }

    /// Sets the longest time until the response begins. The host may have a shorter one.
    pub fn first_byte_timeout(mut self, time: Duration) -> Self {
        self.first_byte_timeout = Some(time);
        self
    }

    /// Sets the longest pause in the response. The host may have a shorter one.
    pub fn between_bytes_timeout(mut self, time: Duration) -> Self {
        self.between_bytes_timeout = Some(time);
        self
    }

    /// Sends the request and waits for the head of the response. A status of 400 or more is a response like any other.
    ///
    /// # Errors
    /// The call is refused by the host, or fails.
    pub fn send(self) -> Result<IncomingResponse, CallError> {
        self.start()?.wait()
    }

    /// Sends the request and does not wait for the response, so that several calls can be under way.
    ///
    /// # Errors
    /// The request is not valid, or its body could not be sent.
    pub fn start(self) -> Result<PendingResponse, CallError> {
        let upload = if self.body.is_empty() { Upload::Nothing } else { Upload::Whole };
        let (pending, rest) = wire::begin(&self, upload)?;
        if let Some(mut body) = rest {
            let (written, ended) = (body.write_all(&self.body), body.end(&[]));
            // A server may answer before it has read all, and the host may refuse the call: the response tells more then.
            if written.is_ok() {
                ended?;
            }
        }
        Ok(pending)
    }

    /// Sends the head of the request, for a body that is written in parts. What [`bytes`](Self::bytes) and its kin have set
    /// is not sent.
    ///
    /// # Errors
    /// The request is not valid.
    pub fn stream(self) -> Result<RequestStream, CallError> {
        let (pending, body) = wire::begin(&self, Upload::Parts)?;
        Ok(RequestStream { pending, body: body.expect("it was asked for") })
    }
}

/// A request whose body is written in parts.
///
/// ```no_run
/// use caxton_sdk::http;
/// use caxton_sdk::prelude::*;
/// use std::io::Write;
///
/// # fn upload(parts: &[&[u8]]) -> Result<(), Failure> {
/// let mut request = http::put("https://files.example.com/all").header("trailer", "x-parts").stream()?;
/// for part in parts {
///     request.write_all(part).or_unavailable()?;
/// }
/// let response = request.finish_with(&[("x-parts", &parts.len().to_string())])?.wait()?.ok()?;
/// // What comes after the body of the response.
/// for (name, value) in response.into_trailers()? {
///     log::info!("{name}: {value}");
/// }
/// # Ok(()) }
/// ```
#[must_use = "a request that is dropped is broken off"]
pub struct RequestStream {
    pending: PendingResponse,
    body: wire::BodyWriter,
}

impl RequestStream {
    /// Ends the body.
    ///
    /// # Errors
    /// The body has another length than its header said.
    pub fn finish(self) -> Result<PendingResponse, CallError> {
        self.finish_with(&[])
    }

    /// Ends the body with trailers. Over HTTP/1.1 only those are sent that a header `trailer` of the request names.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish), or a trailer is not valid.
    pub fn finish_with(self, trailers: &[(&str, &str)]) -> Result<PendingResponse, CallError> {
        self.body.end(trailers)?;
        Ok(self.pending)
    }
}

/// Waits while the server takes no more.
impl Write for RequestStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.body.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.body.flush()
    }
}

/// The body that a request is begun with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upload {
    Nothing,
    /// That of the request.
    Whole,
    /// One that is written afterwards.
    Parts,
}

/// A call that is under way.
#[must_use = "a call that is dropped is given up"]
pub struct PendingResponse(wire::Pending);

impl PendingResponse {
    /// Waits for the head of the response.
    ///
    /// # Errors
    /// The call is refused by the host, or fails.
    pub fn wait(self) -> Result<IncomingResponse, CallError> {
        self.0.wait()
    }
}

/// A response, whose body is read as it comes: with [`Read`], or as a whole.
pub struct IncomingResponse {
    /// The status.
    pub status: u16,
    /// The headers, with names in lower case; a name may occur more than once.
    pub headers: Vec<(String, String)>,
    body: wire::BodyReader,
}

impl IncomingResponse {
    /// Returns the first header of this name, ignoring case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the response if its status is below 400.
    ///
    /// # Errors
    /// A failure with the cause `unavailable` for a status of 500 or more, 408 or 429, and `fault` for any other. It has the
    /// beginning of the body.
    pub fn ok(mut self) -> Result<Self, Failure> {
        if self.status < 400 {
            return Ok(self);
        }
        // Enough for a person to read; a page of HTML has no more to say.
        let mut beginning = [0; 500];
        let mut length = 0;
        while let Ok(more @ 1..) = self.read(&mut beginning[length..]) {
            length += more;
        }
        let reason = format!("the server answered {}: {}", self.status, String::from_utf8_lossy(&beginning[..length]));
        let is_passing = self.status >= 500 || self.status == 408 || self.status == 429;
        Err(if is_passing { Failure::unavailable(reason) } else { Failure::fault(reason) })
    }

    /// Reads the rest of the body.
    ///
    /// # Errors
    /// The response ends in the middle, pauses for too long, or is larger than the host allows.
    pub fn into_bytes(mut self) -> Result<Vec<u8>, CallError> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(CallError::of_io)?;
        Ok(bytes)
    }

    /// Reads the rest of the body as UTF-8 text. Other bytes are replaced.
    ///
    /// # Errors
    /// As for [`into_bytes`](Self::into_bytes).
    pub fn into_text(self) -> Result<String, CallError> {
        Ok(String::from_utf8_lossy(&self.into_bytes()?).into_owned())
    }

    /// Reads the rest of the body as JSON, whatever its media type.
    ///
    /// # Errors
    /// As for [`into_bytes`](Self::into_bytes); a failure with the cause `fault` if it is no such JSON.
    pub fn into_json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let bytes = self.into_bytes()?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::fault(format!("the response is not as expected: {error}")))
    }

    /// Reads the rest of the body as server-sent events, each as soon as it has come.
    ///
    /// ```no_run
    /// use caxton_sdk::http;
    /// use caxton_sdk::prelude::*;
    ///
    /// # fn follow() -> Result<(), Failure> {
    /// let response = http::get("https://api.example.com/v1/prices").header("accept", http::EVENT_STREAM).send()?.ok()?;
    /// for event in response.events() {
    ///     let event = event?;
    ///     log::info!("{}: {}", event.name.as_deref().unwrap_or("message"), event.data);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn events(self) -> Events<Self> {
        Events::of(self)
    }

    /// Reads the rest of the body and returns the trailers after it.
    ///
    /// # Errors
    /// As for [`into_bytes`](Self::into_bytes).
    pub fn into_trailers(self) -> Result<Vec<(String, String)>, CallError> {
        self.body.trailers()
    }
}

/// Waits for the next part of the body.
impl Read for IncomingResponse {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.body.read(into)
    }
}

/// Splits a URL into its scheme, its authority, and its path with the query.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "only a component calls"))]
fn parts(url: &str) -> Option<(&str, &str, String)> {
    let (scheme, rest) = url.split_once("://")?;
    // What follows `#` is for the caller alone.
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // A query may follow the authority at once.
    Some((scheme, authority, if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }))
}

#[cfg(target_family = "wasm")]
#[path = "wire.rs"]
pub(super) mod wire;

#[cfg(not(target_family = "wasm"))]
pub(super) mod wire {
    //! The stand-in on targets other than wasm, where an agent compiles and calls nothing.

    use std::io;

    use super::{CallError, IncomingResponse, OutgoingRequest, PendingResponse, Upload};

    const ONLY_IN_COMPONENTS: &str = "calls over HTTP are made in a component";

    pub(in crate::http) struct BodyWriter;
    pub(in crate::http) struct BodyReader;
    pub(super) struct Pending;

    pub(super) fn begin(_: &OutgoingRequest, _: Upload) -> Result<(PendingResponse, Option<BodyWriter>), CallError> {
        unreachable!("{ONLY_IN_COMPONENTS}")
    }

    impl BodyWriter {
        pub(in crate::http) fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            unreachable!("{ONLY_IN_COMPONENTS}")
        }

        pub(in crate::http) fn write_all(&mut self, _: &[u8]) -> io::Result<()> {
            unreachable!("{ONLY_IN_COMPONENTS}")
        }

        pub(in crate::http) fn flush(&mut self) -> io::Result<()> {
            unreachable!("{ONLY_IN_COMPONENTS}")
        }

        pub(in crate::http) fn end(self, _: &[(&str, &str)]) -> Result<(), CallError> {
            unreachable!("{ONLY_IN_COMPONENTS}")
        }
    }

    impl BodyReader {
        pub(in crate::http) fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            unreachable!("{ONLY_IN_COMPONENTS}")
        }

        pub(in crate::http) fn trailers(self) -> Result<Vec<(String, String)>, CallError> {
            unreachable!("{ONLY_IN_COMPONENTS}")
        }
    }

    impl Pending {
        pub(super) fn wait(self) -> Result<IncomingResponse, CallError> {
            unreachable!("{ONLY_IN_COMPONENTS}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        for (url, expected) in [
            ("https://a.example", Some(("https", "a.example", "/"))),
            ("https://a.example:8080/b/c?d=/e", Some(("https", "a.example:8080", "/b/c?d=/e"))),
            ("http://a.example?d", Some(("http", "a.example", "/?d"))),
            ("http://a.example/b#c?d", Some(("http", "a.example", "/b"))),
            ("a.example/b", None),
        ] {
            let found = parts(url);
            let found = found.as_ref().map(|(scheme, authority, path)| (*scheme, *authority, path.as_str()));
            assert_eq!(found, expected, "{url}");
        }
    }
}
