//! HTTP: calls to other servers, and agents that answer HTTP themselves.
//!
//! A call is made at once and cannot be undone, whatever becomes of the message: another attempt makes it again. The
//! declaration of the agent lists the places that it may call, and the host adds the keys that they need.
//!
//! ```no_run
//! use caxton_sdk::prelude::*;
//! use caxton_sdk::http;
//!
//! # fn ask(question: &str) -> Result<String, Failure> {
//! let answer: serde_json::Value = http::post("https://api.example.com/v1/answers")
//!     .json(&serde_json::json!({ "question": question }))?
//!     .send()?
//!     .ok()?
//!     .into_json()?;
//! # Ok(answer.to_string())
//! # }
//! ```
//!
//! An agent that answers has the same state, messages, configuration and log as one that takes messages.
//!
//! ```
//! use caxton_sdk::prelude::*;
//!
//! struct Visits;
//!
//! impl HttpAgent for Visits {
//!     fn handle(request: Request) -> Result<Response, Failure> {
//!         if request.path != "/visits" {
//!             return Ok(Response::text("there is nothing here").status(404));
//!         }
//!         Ok(Response::text(format!("visit {}", state::increment("visits", 1)?)))
//!     }
//! }
//!
//! caxton_sdk::http_agent!(Visits);
//! # fn main() {}
//! ```
//!
//! One whose responses come in parts, such as [server-sent events](Event), is an [`HttpStreamAgent`].

mod call_error;
mod events;
mod outgoing;
mod streaming;

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::bindings::probe::exports::caxton::agent::health;
use crate::{Cause, Failure, JSON, TEXT, query};

pub use call_error::CallError;
pub use events::{EVENT_STREAM, Event, Events};
pub use outgoing::{
    IncomingResponse, OutgoingRequest, PendingResponse, RequestStream, delete, get, head, patch, post, put, request,
};
pub use streaming::{HttpStreamAgent, IncomingRequest, Responder, ResponseStream, WebStream};

/// An agent that answers HTTP requests and keeps nothing in its memory between them.
///
/// The host routes requests to it as to any HTTP agent, with a new instance for each request
/// ([`reusable!`](crate::reusable) allows reuse). Requests and responses are held in memory as a whole, within
/// `limits.memory`; an agent that streams is an [`HttpStreamAgent`].
pub trait HttpAgent {
    /// Answers one request. Its writes and sends commit if the status of the response is below 500; see
    /// [`effects`](crate::effects) for an earlier decision.
    ///
    /// # Errors
    /// A [`Failure`] discards everything that was written and sent since the last [`commit`](crate::effects::commit).
    /// The client gets the reason as problem details (RFC 9457), with the same status as for a message agent: 422 for a
    /// wrong request (`rejected`), 503 if something is missing (`unavailable`), 500 for a fault of this agent
    /// (`fault`).
    fn handle(request: Request) -> Result<Response, Failure>;

    /// Checks if the agent can work. The host calls it before a new revision takes requests.
    ///
    /// # Errors
    /// The reason why it cannot, for people to read.
    fn check() -> Result<(), String> {
        Ok(())
    }
}

/// A request, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The method, such as `POST`.
    pub method: String,
    /// The path as the client sent it.
    pub path: String,
    /// The text after `?` as the client sent it; `None` without `?`.
    pub query: Option<String>,
    /// The headers, with names in lower case; a name may occur more than once.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// Returns the first header of this name, ignoring case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the first value of a name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<String> {
        query::value(self.query.as_deref().unwrap_or_default(), name)
    }

    /// Returns the names and values of the query in order, decoded.
    pub fn query_pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        query::pairs(self.query.as_deref().unwrap_or_default())
    }

    /// Parses the body as JSON, regardless of its media type.
    ///
    /// # Errors
    /// A failure with the cause `rejected`, since the same bytes will never be readable.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::rejected(format!("the body is not as expected: {error}")))
    }

    /// Returns the body as UTF-8 text, regardless of its media type.
    ///
    /// # Errors
    /// A failure with the cause `rejected`, since the same bytes will never be readable.
    pub fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.body)
            .map_err(|error| Failure::rejected(format!("the body is not UTF-8 text: {error}")))
    }
}

/// A response to an HTTP request.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The status, from 200 to 599.
    pub status: u16,
    /// The headers; a name may occur more than once.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// Creates a response with this status and no body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// Creates a response with the status 200 and these bytes.
    pub fn bytes(body: impl Into<Vec<u8>>, content_type: impl Into<String>) -> Self {
        Self { body: body.into(), ..Self::empty(200) }.header("content-type", content_type)
    }

    /// Creates a response with the status 200 and this text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::bytes(text.into(), TEXT)
    }

    /// Creates a response with the status 200 and this value as JSON.
    ///
    /// # Errors
    /// A failure with the cause `fault`, if the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        Ok(Self::bytes(serde_json::to_vec(value)?, JSON))
    }

    /// Sets the status, from 200 to 599.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Returns the response for a failure.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "only a component answers"))]
fn failed(failure: &Failure) -> Response {
    // The same as the host answers for message agents, so that clients need not know the kind.
    let (status, code, title) = match failure.cause {
        Cause::Rejected => (422, "rejected", "Unprocessable Entity"),
        Cause::Unavailable => (503, "agent-unavailable", "Service Unavailable"),
        Cause::Fault => (500, "agent-fault", "Internal Server Error"),
    };
    let problem = json!({ "title": title, "status": status, "code": code, "detail": failure.reason });
    let response = Response::bytes(problem.to_string(), "application/problem+json").status(status);
    // Whole seconds, rounded up: 0 would ask clients to retry at once.
    let seconds = failure.retry_after_ms.map_or(1, |ms| ms.div_ceil(1_000).max(1));
    if status == 503 { response.header("retry-after", seconds.to_string()) } else { response }
}

/// Exports a type that implements [`HttpAgent`] from the component. Use it once in a crate, at the top level.
#[macro_export]
macro_rules! http_agent {
    ($agent:ty) => {
        const _: () = {
            type Exported = $crate::Web<$agent>;
            $crate::is_http_agent::<Exported>();
            #[cfg(target_family = "wasm")]
            $crate::wasip2::http::proxy::export! { Exported with_types_in $crate::wasip2 }
            #[cfg(target_family = "wasm")]
            $crate::bindings::probe::export_probe! { Exported with_types_in $crate::bindings::probe }
        };
    };
}

/// Checks the trait at compile time, also on targets without exports.
pub const fn is_http_agent<Exported: health::Guest>() {}

/// The exports of an [`HttpAgent`].
pub struct Web<A>(PhantomData<A>);

impl<A: HttpAgent> health::Guest for Web<A> {
    fn check() -> Result<(), String> {
        A::check()
    }
}

/// Refuses a response that cannot be sent.
fn check_status(response: &Response) -> Result<(), Failure> {
    if (200..600).contains(&response.status) {
        return Ok(());
    }
    Err(Failure::fault(format!("{} is no status of a response: it takes one from 200 to 599", response.status)))
}

#[cfg(target_family = "wasm")]
mod served {
    //! The conversion to the responses of `wasi:http`.

    use wasip2::exports::http::incoming_handler::Guest;
    use wasip2::http::types::{Fields, IncomingRequest, ResponseOutparam};

    use super::{HttpAgent, Response, Web, check_status, failed, streaming};
    use crate::{Cause, Failure, effects, log};

    impl<A: HttpAgent> Guest for Web<A> {
        fn handle(request: IncomingRequest, out: ResponseOutparam) {
            // Read to its end before the agent runs, which keeps the trait synchronous and simple.
            let whole = streaming::read(&request).and_then(streaming::IncomingRequest::into_whole);
            // Checked before it is written: once the head is out, the host commits.
            let response = whole.and_then(A::handle).and_then(|response| check_status(&response).map(|()| response));
            write(&response.unwrap_or_else(|failure| give_up(&failure)), out);
        }
    }

    /// Discards the effects, and returns the response for a failure.
    pub(super) fn give_up(failure: &Failure) -> Response {
        // Discarded explicitly: the status of the failure may be one below 500, with which effects commit.
        if let Err(why) = effects::discard() {
            log::error!("{}", why.reason);
        }
        // The other causes are no defects, and their reasons reach the client anyway.
        if failure.cause == Cause::Fault {
            log::error!("{}", failure.reason);
        }
        failed(failure)
    }

    /// Returns the headers of a response.
    pub(super) fn fields(response: &Response) -> Fields {
        let headers = Fields::new();
        for (name, value) in &response.headers {
            // Left out and not fatal: an agent that passes headers on cannot know each that HTTP forbids.
            if let Err(why) = headers.append(name, value.as_bytes()) {
                log::warn!("the header {name:?} is left out of a response: {why:?}");
            }
        }
        headers
    }

    /// Sends a whole response.
    pub(super) fn write(response: &Response, out: ResponseOutparam) {
        if let Ok(mut body) = streaming::open(out, response) {
            // A client that closed the connection is no error of this agent.
            let _ = body.write_all(&response.body);
            // Finished also after an error: a body that is dropped aborts the response.
            let _ = body.end(&[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &[u8]) -> Request {
        Request {
            method: "POST".into(),
            path: "/a".into(),
            query: Some("q=x+y&n=1".into()),
            headers: vec![("accept".into(), "text/plain".into())],
            body: body.to_vec(),
        }
    }

    #[test]
    fn request_parts_are_parsed() {
        let request = request(b"7");
        assert_eq!((request.header("Accept"), request.header("cookie")), (Some("text/plain"), None));
        assert_eq!((request.query_value("q").as_deref(), request.query_pairs().count()), (Some("x y"), 2));
        assert_eq!((request.json::<u32>(), request.text()), (Ok(7), Ok("7")));
    }

    #[test]
    fn an_unreadable_body_is_rejected() {
        assert_eq!(request(b"{").json::<u32>().unwrap_err().cause, Cause::Rejected);
        assert_eq!(request(b"\xff").text().unwrap_err().cause, Cause::Rejected);
    }

    #[test]
    fn failures_have_the_statuses_of_message_agents() {
        let later = Failure::unavailable("later").retry_after(std::time::Duration::from_millis(2_500));
        for (failure, status, code, retry) in [
            (Failure::rejected("no"), 422, "rejected", None),
            (Failure::unavailable("later"), 503, "agent-unavailable", Some("1")),
            (later, 503, "agent-unavailable", Some("3")),
            (Failure::fault("broken"), 500, "agent-fault", None),
        ] {
            let response = failed(&failure);
            let told: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            let header =
                |name: &str| response.headers.iter().find(|(given, _)| given == name).map(|(_, value)| &**value);
            assert_eq!((response.status, &told["status"]), (status, &json!(status)));
            assert_eq!((&told["code"], &told["detail"]), (&json!(code), &json!(failure.reason)));
            assert_eq!((header("content-type"), header("retry-after")), (Some("application/problem+json"), retry));
        }
    }
}
