//! Calls over HTTP what its message says, and answers with what came of it.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use caxton_sdk::http::{self, CallError, IncomingResponse, OutgoingRequest};
use caxton_sdk::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

struct Caller;

/// A call.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Call {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    body: Option<String>,
    connect_ms: Option<u64>,
    first_byte_ms: Option<u64>,
    between_bytes_ms: Option<u64>,
}

fn get() -> String {
    String::from("GET")
}

/// The action that a message asks for.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
enum Action {
    /// Calls, and answers with the whole response.
    Call { call: Call },
    /// Calls one after the other, and answers with their statuses or errors.
    Calls { calls: Vec<Call> },
    /// Sends a body in parts of so many bytes, with trailers.
    Upload {
        call: Call,
        parts: u32,
        bytes: usize,
        #[serde(default)]
        trailers: Vec<(String, String)>,
    },
    /// Reads the body in parts, and answers with the number of bytes.
    Download { call: Call },
    /// Answers with the lines of the body, as they came.
    Lines { call: Call },
    /// Reads the body, and answers with the trailers.
    Trailers { call: Call },
    /// Begins so many calls, and answers with the number of each outcome.
    AtOnce { call: Call, count: usize },
    /// Begins so many calls, and leaves their responses unread.
    Leave { call: Call, count: usize },
    /// Calls, reads the first byte, and traps.
    Trap { call: Call },
    /// Sends the beginning of a body, and traps.
    TrapUpload { call: Call },
    /// Calls, and writes the answer to its log.
    Log { call: Call },
    /// Calls so often, one after the other, and answers with the nanoseconds of each.
    Many { call: Call, count: usize },
    /// Calls, and adds one to a number in its state.
    Count { call: Call },
    /// Calls, and notes in its state that it has: a payment.
    Pay(Payment),
    /// Calls with a header that is another in each instance.
    Random { call: Call },
}

/// A payment, with what goes wrong after the server was called.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Payment {
    call: Call,
    /// The key under which it is counted.
    id: String,
    /// The handler traps before this attempt.
    #[serde(default)]
    trap_until: u32,
    /// Each attempt asks for something else.
    #[serde(default)]
    differs: bool,
    /// A key that is read before the call, and written after it.
    shared: Option<String>,
    /// Calls so often, one after the other.
    #[serde(default = "once")]
    times: u32,
}

fn once() -> u32 {
    1
}

impl Call {
    fn request(&self) -> OutgoingRequest {
        let mut request = http::request(&self.method, &self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &self.body {
            request = request.bytes(body.as_bytes(), "text/plain");
        }
        let ms = Duration::from_millis;
        for (given, set) in [
            (self.connect_ms, OutgoingRequest::connect_timeout as fn(OutgoingRequest, Duration) -> OutgoingRequest),
            (self.first_byte_ms, OutgoingRequest::first_byte_timeout),
            (self.between_bytes_ms, OutgoingRequest::between_bytes_timeout),
        ] {
            if let Some(time) = given {
                request = set(request, ms(time));
            }
        }
        request
    }
}

fn failed(error: &CallError) -> Value {
    json!({ "error": error.code, "detail": error.detail })
}

/// The error of a body that was read with the traits of `std::io`.
fn broken(error: std::io::Error) -> Value {
    let text = error.to_string();
    match error.into_inner().and_then(|inner| inner.downcast::<CallError>().ok()) {
        Some(error) => failed(&error),
        None => json!({ "error": text }),
    }
}

fn whole(response: IncomingResponse) -> Value {
    let (status, headers) = (response.status, response.headers.clone());
    match response.into_text() {
        Ok(body) => json!({ "status": status, "headers": headers, "body": body }),
        Err(error) => json!({ "status": status, "headers": headers, "error": error.code }),
    }
}

fn outcome(result: Result<IncomingResponse, CallError>, more: impl FnOnce(IncomingResponse) -> Value) -> Value {
    result.map_or_else(|error| failed(&error), more)
}

fn download(mut response: IncomingResponse) -> Value {
    let (mut bytes, mut part) = (0_u64, vec![0; 16 << 10]);
    loop {
        match response.read(&mut part) {
            Ok(0) => return json!({ "status": response.status, "bytes": bytes }),
            Ok(read) => bytes += read as u64,
            Err(error) => {
                let mut told = broken(error);
                told["bytes"] = bytes.into();
                return told;
            }
        }
    }
}

fn upload(call: &Call, parts: u32, bytes: usize, trailers: &[(String, String)]) -> Value {
    let mut stream = match call.request().stream() {
        Ok(stream) => stream,
        Err(error) => return failed(&error),
    };
    let part = vec![b'.'; bytes];
    for _ in 0..parts {
        // What the server or the host says of it comes with the response.
        if stream.write_all(&part).is_err() {
            break;
        }
    }
    let trailers: Vec<(&str, &str)> = trailers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let response = stream.finish_with(&trailers).and_then(http::PendingResponse::wait);
    outcome(response, whole)
}

fn at_once(call: &Call, count: usize) -> Value {
    let begun: Vec<_> = (0..count).map(|_| call.request().start()).collect();
    let mut told = serde_json::Map::new();
    for pending in begun {
        let name = match pending.and_then(http::PendingResponse::wait) {
            Ok(response) => response.status.to_string(),
            Err(error) => error.code.to_owned(),
        };
        let seen = told.get(&name).and_then(Value::as_u64).unwrap_or(0);
        told.insert(name, (seen + 1).into());
    }
    Value::Object(told)
}

/// Returns the statuses, and how often the payment is noted by now.
fn pay(payment: &Payment, attempt: u32) -> Result<Value, Failure> {
    let read = |key: &str| -> Result<i64, Failure> { Ok(state::get_json(key)?.unwrap_or(0)) };
    let shared = payment.shared.as_deref().map(|key| Ok::<_, Failure>((key, read(key)?))).transpose()?;
    let mut statuses = Vec::new();
    for _ in 0..payment.times {
        let mut request = payment.call.request();
        if payment.differs {
            request = request.header("x-attempt", attempt.to_string());
        }
        let response = request.send()?;
        statuses.push(response.status);
        response.into_bytes()?;
    }
    assert!(attempt >= payment.trap_until, "after the payment");
    if let Some((key, before)) = shared {
        state::set_json(key, &(before + 1))?;
    }
    state::increment(&format!("paid/{}", payment.id), 1)?;
    Ok(json!(statuses))
}

impl Agent for Caller {
    fn handle(message: Message) -> Handled {
        let answer = match message.json::<Action>()? {
            Action::Call { call } => outcome(call.request().send(), whole),
            Action::Calls { calls } => {
                let each = calls.iter().map(|call| outcome(call.request().send(), |response| response.status.into()));
                each.collect()
            }
            Action::Upload { call, parts, bytes, trailers } => upload(&call, parts, bytes, &trailers),
            Action::Download { call } => outcome(call.request().send(), download),
            Action::Lines { call } => outcome(call.request().send(), |response| {
                BufReader::new(response).lines().map(|line| line.map_or_else(broken, Value::from)).collect()
            }),
            Action::Trailers { call } => outcome(call.request().send(), |response| {
                response.into_trailers().map_or_else(|error| failed(&error), |trailers| json!(trailers))
            }),
            Action::AtOnce { call, count } => at_once(&call, count),
            Action::Leave { call, count } => {
                for _ in 0..count {
                    // Neither read nor dropped, as a careless guest would leave them.
                    std::mem::forget(call.request().send());
                }
                json!({ "left": count })
            }
            Action::Trap { call } => {
                let mut response = call.request().send()?;
                let mut first = [0];
                let _ = response.read(&mut first);
                panic!("after the first byte");
            }
            Action::TrapUpload { call } => {
                let mut stream = call.request().stream()?;
                // More than is buffered on the way, so that the server has the head by then.
                let _ = stream.write_all(&vec![b'.'; 16 << 20]);
                panic!("in the middle of a request");
            }
            Action::Log { call } => {
                let answer = outcome(call.request().send(), whole);
                log::info!("{answer}");
                // Without what the server said.
                json!({ "logged": answer["status"] })
            }
            Action::Many { call, count } => {
                let mut nanos = Vec::with_capacity(count);
                for _ in 0..count {
                    let began = Instant::now();
                    call.request().send()?.into_bytes()?;
                    nanos.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
                json!(nanos)
            }
            Action::Count { call } => {
                let answer = outcome(call.request().send(), |response| response.status.into());
                state::increment("calls", 1)?;
                answer
            }
            Action::Pay(payment) => pay(&payment, message.attempt)?,
            Action::Random { call } => {
                let number = RandomState::new().hash_one(0);
                let request = call.request().header("x-number", number.to_string());
                outcome(request.send(), |response| response.status.into())
            }
        };
        Ok(Some(Reply::json(&answer)?))
    }
}

caxton_sdk::agent!(Caller);
