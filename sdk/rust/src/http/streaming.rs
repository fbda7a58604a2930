//! Agents that answer HTTP with a stream: a body in parts, or server-sent events.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::rc::Rc;

use super::outgoing::wire::{BodyReader, BodyWriter};
use super::{CallError, EVENT_STREAM, Event, Request, Response, check_status};
use crate::bindings::probe::exports::caxton::agent::health;
use crate::{Failure, query};

/// The place for the response, which the host gives with each request.
#[cfg(target_family = "wasm")]
type Out = wasip2::http::types::ResponseOutparam;
#[cfg(not(target_family = "wasm"))]
type Out = std::convert::Infallible;

/// An agent that answers HTTP requests in parts, as it goes on: with server-sent events, or a body that need not fit into
/// its memory. It reads requests in parts, too. One whose responses are whole is an [`HttpAgent`](crate::HttpAgent).
///
/// ```
/// use caxton_sdk::http::{Event, IncomingRequest, Responder};
/// use caxton_sdk::prelude::*;
///
/// struct Countdown;
///
/// impl HttpStreamAgent for Countdown {
///     fn handle(request: IncomingRequest, responder: Responder) -> Result<(), Failure> {
///         let Some(from) = request.query_value("from").and_then(|from| from.parse::<u32>().ok()) else {
///             return responder.send(&Response::text("say from where: /countdown?from=3").status(400));
///         };
///         let mut stream = responder.events()?;
///         for number in (0..=from).rev() {
///             stream.event(&Event::json(&number)?.named("count"))?;
///         }
///         stream.finish()
///     }
/// }
///
/// caxton_sdk::http_stream_agent!(Countdown);
/// # fn main() {}
/// ```
pub trait HttpStreamAgent {
    /// Answers one request, with the [`Responder`]. Its writes and sends commit with the head of the response, that is when
    /// the responder is used, if the status is below 500; those that come after it commit when this returns. Requests to
    /// other agents and calls to other servers are made at any time.
    ///
    /// # Errors
    /// Before the head of the response: as for [`HttpAgent::handle`](crate::HttpAgent::handle). After it the response is
    /// broken off, so that the client does not take it for whole.
    fn handle(request: IncomingRequest, responder: Responder) -> Result<(), Failure>;

    /// Checks if the agent can work. The host calls it before a new revision takes requests.
    ///
    /// # Errors
    /// The reason why it cannot, for people to read.
    fn check() -> Result<(), String> {
        Ok(())
    }
}

/// A request, whose body is read as it comes: with [`Read`], or as a whole.
///
/// The host calls the agent once the body is whole, or `http.buffer` of it has come; with `stream = true` at its route,
/// once its head has come.
pub struct IncomingRequest {
    /// The method, such as `POST`.
    pub method: String,
    /// The path as the client sent it.
    pub path: String,
    /// The text after `?` as the client sent it; `None` without `?`.
    pub query: Option<String>,
    /// The headers, with names in lower case; a name may occur more than once.
    pub headers: Vec<(String, String)>,
    body: BodyReader,
}

impl IncomingRequest {
    /// Returns the first header of this name, ignoring case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the first value of a name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<String> {
        query::value(self.query.as_deref().unwrap_or_default(), name)
    }

    /// Reads the rest of the body.
    ///
    /// # Errors
    /// A failure with the cause `rejected`, if the body does not come to its end.
    pub fn into_whole(mut self) -> Result<Request, Failure> {
        let mut body = Vec::new();
        self.read_to_end(&mut body)
            .map_err(|error| Failure::rejected(format!("the body could not be read to its end: {error}")))?;
        let Self { method, path, query, headers, .. } = self;
        Ok(Request { method, path, query, headers, body })
    }
}

/// Waits for the next part of the body.
impl Read for IncomingRequest {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.body.read(into)
    }
}

/// The right to answer a request, once.
#[must_use = "a request without a response is a fault of the agent"]
pub struct Responder {
    // Shared with the exported function, which answers in its place if the agent fails before.
    out: Rc<Cell<Option<Out>>>,
}

impl Responder {
    /// Sends a whole response.
    ///
    /// # Errors
    /// A failure with the cause `fault`, if the status is none.
    pub fn send(self, response: &Response) -> Result<(), Failure> {
        let mut stream = self.begin(response)?;
        // A client that closed the connection is no error of this agent.
        let _ = stream.body.write_all(&response.body);
        // Of a length that the agent said wrongly, or that HEAD asks for: the host knows the difference.
        let _ = stream.body.end(&[]);
        Ok(())
    }

    /// Sends the status and the headers of a response, for a body that is written in parts. With them commits what the agent
    /// wrote and sent.
    ///
    /// # Errors
    /// A failure with the cause `fault`, if the status is none. What is in `response.body` is not sent.
    pub fn begin(self, response: &Response) -> Result<ResponseStream, Failure> {
        // Before the place is taken: the failure has to be answered.
        check_status(response)?;
        let out = self.out.take().ok_or_else(|| Failure::fault("the request is answered already"))?;
        let body = open(out, response)?;
        Ok(ResponseStream { body })
    }

    /// Begins a response of server-sent events, which no cache keeps and no proxy collects.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    pub fn events(self) -> Result<ResponseStream, Failure> {
        // A cache would answer the next client with the events of this one.
        let head = Response::empty(200).header("content-type", EVENT_STREAM).header("cache-control", "no-store");
        // A wish that some proxies know: they would else hold the events back until there are many.
        self.begin(&head.header("x-accel-buffering", "no"))
    }
}

/// A response whose body is written in parts. Each is sent at once. Dropped without [`finish`](Self::finish), the response is
/// broken off.
#[must_use = "a response that is dropped is broken off"]
pub struct ResponseStream {
    body: BodyWriter,
}

impl ResponseStream {
    /// Sends an event. Waits while the client takes no more.
    ///
    /// # Errors
    /// A failure with the cause `unavailable`, once the client has left: an agent that passes it on with `?` ends, and its
    /// calls to other servers end with it.
    pub fn event(&mut self, event: &Event) -> Result<(), Failure> {
        self.body.write_all(event.to_string().as_bytes()).map_err(|_| gone())
    }

    /// Sends a comment, which clients ignore. It shows proxies that the connection is alive, and this agent that its client
    /// is.
    ///
    /// # Errors
    /// As for [`event`](Self::event).
    pub fn comment(&mut self, text: &str) -> Result<(), Failure> {
        // With an empty line, at which proxies that wait for the end of an event pass it on.
        let line = format!(": {}\n\n", text.replace(['\n', '\r'], " "));
        self.body.write_all(line.as_bytes()).map_err(|_| gone())
    }

    /// Ends the response.
    ///
    /// # Errors
    /// The body has another length than its header said.
    pub fn finish(self) -> Result<(), Failure> {
        self.finish_with(&[])
    }

    /// Ends the response with trailers. Over HTTP/1.1 only those are sent that a header `trailer` of the response names.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish), or a trailer is not valid.
    pub fn finish_with(self, trailers: &[(&str, &str)]) -> Result<(), Failure> {
        self.body
            .end(trailers)
            .map_err(|error: CallError| Failure::fault(format!("the response is not whole: {error}")))
    }
}

/// Waits while the client takes no more. Fails with `BrokenPipe` once it has left.
impl Write for ResponseStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.body.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.body.flush()
    }
}

fn gone() -> Failure {
    Failure::unavailable("the client takes no more of the response")
}

/// Exports a type that implements [`HttpStreamAgent`] from the component. Use it once in a crate, at the top level.
#[macro_export]
macro_rules! http_stream_agent {
    ($agent:ty) => {
        const _: () = {
            type Exported = $crate::WebStream<$agent>;
            $crate::is_http_agent::<Exported>();
            #[cfg(target_family = "wasm")]
            $crate::wasip2::http::proxy::export! { Exported with_types_in $crate::wasip2 }
            #[cfg(target_family = "wasm")]
            $crate::bindings::probe::export_probe! { Exported with_types_in $crate::bindings::probe }
        };
    };
}

/// The exports of an [`HttpStreamAgent`].
pub struct WebStream<A>(PhantomData<A>);

impl<A: HttpStreamAgent> health::Guest for WebStream<A> {
    fn check() -> Result<(), String> {
        A::check()
    }
}

#[cfg(not(target_family = "wasm"))]
fn open(out: Out, _: &Response) -> Result<BodyWriter, Failure> {
    match out {}
}

#[cfg(target_family = "wasm")]
pub(super) use served::{open, read};

#[cfg(target_family = "wasm")]
mod served {
    //! The conversion from and to the requests and responses of `wasi:http`.

    use std::cell::Cell;
    use std::rc::Rc;

    use wasip2::exports::http::incoming_handler::Guest;
    use wasip2::http::types::{IncomingRequest as WasiRequest, Method, OutgoingResponse, ResponseOutparam};

    use super::super::outgoing::wire::{BodyReader, BodyWriter};
    use super::super::served::{fields, give_up, write};
    use super::{HttpStreamAgent, IncomingRequest, Responder, WebStream};
    use crate::{Cause, Failure, Response, log};

    impl<A: HttpStreamAgent> Guest for WebStream<A> {
        fn handle(request: WasiRequest, out: ResponseOutparam) {
            let out = Rc::new(Cell::new(Some(out)));
            let responder = Responder { out: Rc::clone(&out) };
            let handled = read(&request).and_then(|request| A::handle(request, responder));
            let failure = match (handled, out.take()) {
                (Ok(()), None) => return,
                (Ok(()), Some(out)) => (Failure::fault("the handler returned without a response"), out),
                (Err(failure), Some(out)) => (failure, out),
                // Its response is broken off by now, and its effects are committed.
                (Err(failure), None) => {
                    if failure.cause == Cause::Fault {
                        log::error!("{}", failure.reason);
                    }
                    return;
                }
            };
            write(&give_up(&failure.0), failure.1);
        }
    }

    /// Reads the head of a request.
    pub(in crate::http) fn read(request: &WasiRequest) -> Result<IncomingRequest, Failure> {
        let method = match request.method() {
            Method::Get => "GET".into(),
            Method::Head => "HEAD".into(),
            Method::Post => "POST".into(),
            Method::Put => "PUT".into(),
            Method::Delete => "DELETE".into(),
            Method::Connect => "CONNECT".into(),
            Method::Options => "OPTIONS".into(),
            Method::Trace => "TRACE".into(),
            Method::Patch => "PATCH".into(),
            Method::Other(name) => name,
        };
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (target, None),
        };
        // Lossy, since a header may have any bytes and few agents care.
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let headers = request.headers().entries().into_iter().map(|(name, value)| (name, text(value))).collect();
        let body = BodyReader::of(request.consume().expect("the body is taken once"))?;
        Ok(IncomingRequest { method, path, query, headers, body })
    }

    /// Sends the head of a response, whose status was checked.
    pub(in crate::http) fn open(out: ResponseOutparam, response: &Response) -> Result<BodyWriter, Failure> {
        let head = OutgoingResponse::new(fields(response));
        head.set_status_code(response.status).expect("the status was checked");
        let body = head.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(head));
        Ok(BodyWriter::of(body)?)
    }
}
