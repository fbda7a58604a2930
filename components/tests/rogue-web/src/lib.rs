//! An HTTP agent that carries out the action in the path, good or bad.
//!
//! | path | effect |
//! |---|---|
//! | `/ok` | status 200 and `ok` |
//! | `/trap` | traps before there is a response |
//! | `/trap-midway` | traps when half of the body that `content-length` promises is written |
//! | `/end-midway` | ends the body there, without the rest |
//! | `/nothing` | returns without a response |
//! | `/error` | gives the host an error code instead of a response |
//! | `/loop` | never ends, and uses a core |
//! | `/sleep` | waits a minute before there is a response |
//! | `/sleep-midway` | waits a minute after the first part of the body |
//! | `/grow` | takes memory until it is refused, then traps |
//! | `/endless` | a body that never ends |
//! | `/status-0` | asks for a status that does not exist |
//! | `/headers` | as many headers as the host takes |
//! | `/hoard?COUNT,BYTES` | so many sets of fields of so many bytes each, all of them held until the answer |
//! | `/unread` | status 200 without reading the request's body |
//! | `/length` | a body of 1,234 bytes, of which HEAD is told the length and given nothing |
//! | `/not-modified`, `/not-modified-late` | status 304 with the length of that body, set before or after the body is taken |
//! | `/no-content` | status 204 with a length and a body, neither of which there may be |
//! | `/upload` | the length of the body, and a trap if it breaks off |
//! | `/collect` | keeps all of the body in memory, and answers with its length |
//! | `/stream` | a body that never ends, and a trap when nobody reads it |

use std::time::Duration;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

const A_MINUTE: Duration = Duration::from_secs(60);
const HALF: &[u8] = b"half of it";
const LONG: [u8; 1_234] = [b'x'; 1_234];

struct RogueWeb;

impl Guest for RogueWeb {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        match target.split('?').next().unwrap_or_default() {
            "/ok" | "/unread" => respond(out, &[], |body| drop(body.blocking_write_and_flush(b"ok"))),
            "/length" => {
                let head = matches!(request.method(), Method::Head);
                respond_well(out, 200, false, if head { &[] } else { &LONG });
            }
            "/not-modified" => respond_well(out, 304, false, &[]),
            "/not-modified-late" => respond_well(out, 304, true, &[]),
            "/no-content" => respond_well(out, 204, false, &LONG),
            "/upload" => {
                let length = read_all(&request);
                respond(out, &[], |body| drop(body.blocking_write_and_flush(length.to_string().as_bytes())));
            }
            "/collect" => {
                let length = collect(&request);
                respond(out, &[], |body| drop(body.blocking_write_and_flush(length.to_string().as_bytes())));
            }
            "/stream" => respond(out, &[], |body| {
                loop {
                    body.blocking_write_and_flush(&[b'.'; 4096]).expect("somebody reads");
                }
            }),
            "/trap" => panic!("told to trap"),
            "/trap-midway" => respond(out, &promised(), |body| {
                write_half(body);
                panic!("told to trap midway");
            }),
            "/end-midway" => respond(out, &promised(), write_half),
            "/nothing" => {}
            "/error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some(String::from("told to fail"))))),
            "/loop" => loop {
                std::hint::black_box(());
            },
            "/sleep" => {
                std::thread::sleep(A_MINUTE);
                respond(out, &[], write_half);
            }
            "/sleep-midway" => respond(out, &[], |body| {
                write_half(body);
                std::thread::sleep(A_MINUTE);
            }),
            "/grow" => {
                let mut taken = Vec::new();
                loop {
                    taken.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            "/endless" => respond(out, &[], |body| while body.blocking_write_and_flush(&[b'.'; 4096]).is_ok() {}),
            "/status-0" => {
                let response = OutgoingResponse::new(Fields::new());
                response.set_status_code(0).expect("there is no such status");
                ResponseOutparam::set(out, Ok(response));
            }
            "/headers" => {
                let headers: Vec<_> =
                    (0..10_000).map(|number| (format!("x-{number}"), String::from("value"))).collect();
                respond(out, &headers, write_half);
            }
            "/hoard" => {
                let asked = target.split_once('?').map(|(_, query)| query.split(',')).into_iter().flatten();
                let asked: Vec<usize> = asked.filter_map(|number| number.parse().ok()).collect();
                let hold = |_| {
                    let fields = Fields::new();
                    for _ in 0..asked[1] / 400 {
                        fields.append("x", &[b'x'; 400]).expect("a header");
                    }
                    fields
                };
                let held: Vec<Fields> = (0..asked[0]).map(hold).collect();
                respond(out, &[], |body| drop(body.blocking_write_and_flush(held.len().to_string().as_bytes())));
            }
            _ => {
                let response = OutgoingResponse::new(Fields::new());
                let _ = response.set_status_code(404);
                let body = response.body().expect("the body is taken once");
                ResponseOutparam::set(out, Ok(response));
                let _ = OutgoingBody::finish(body, None);
            }
        }
    }
}

/// Answers as most runtimes do, which take it for granted that the host is content.
fn respond_well(out: ResponseOutparam, status: u16, late: bool, content: &[u8]) {
    let fields = Fields::new();
    fields.append("content-length", LONG.len().to_string().as_bytes()).expect("a header");
    let response = OutgoingResponse::new(fields);
    if !late {
        response.set_status_code(status).expect("a status");
    }
    let body = response.body().expect("the body is taken once");
    if late {
        response.set_status_code(status).expect("a status");
    }
    ResponseOutparam::set(out, Ok(response));
    {
        let stream = body.write().expect("the stream is taken once");
        if !content.is_empty() {
            stream.blocking_write_and_flush(content).expect("it is taken");
        }
    }
    OutgoingBody::finish(body, None).expect("it is as long as it should");
}

/// The length of a request's body.
fn read_all(request: &IncomingRequest) -> usize {
    let mut length = 0;
    read(request, |piece| length += piece.len());
    length
}

/// The same, with all of it in memory at once.
fn collect(request: &IncomingRequest) -> usize {
    let mut all = Vec::new();
    read(request, |piece| all.extend(piece));
    std::hint::black_box(all).len()
}

fn read(request: &IncomingRequest, mut take: impl FnMut(Vec<u8>)) {
    let body = request.consume().expect("the body is taken once");
    let stream = body.stream().expect("the stream is taken once");
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(piece) => take(piece),
            Err(StreamError::Closed) => return,
            Err(error) => panic!("the body broke off: {error:?}"),
        }
    }
}

fn promised() -> [(String, String); 1] {
    [(String::from("content-length"), (HALF.len() * 2).to_string())]
}

fn write_half(body: &OutputStream) {
    // A client that has gone is no error of this agent's.
    let _ = body.blocking_write_and_flush(HALF);
}

fn respond(out: ResponseOutparam, headers: &[(String, String)], write: impl FnOnce(&OutputStream)) {
    let fields = Fields::new();
    for (name, value) in headers {
        // The host says when there are too many; the answer goes without the rest.
        if fields.append(name, value.as_bytes()).is_err() {
            break;
        }
    }
    let response = OutgoingResponse::new(fields);
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    write(&body.write().expect("the stream is taken once"));
    let _ = OutgoingBody::finish(body, None);
}

wasip2::http::proxy::export!(RogueWeb);
