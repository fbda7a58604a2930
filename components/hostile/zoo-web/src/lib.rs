//! An HTTP agent that attacks its host and its callers; the second segment of the path names the attack, and those after
//! it say how much.
//!
//! `tests/rogue-web` has all that an HTTP agent may do badly by mistake. This one has what takes intent.
//!
//! | path | attack |
//! |---|---|
//! | `/fields/N/BYTES` | keeps so many headers of so many bytes, each set a resource of its own |
//! | `/pollables/N`, `/responses/N`, `/requests/N` | takes so many resources and drops none |
//! | `/header/BYTES` | answers with one header of so many bytes |
//! | `/split` | answers with headers that would end the head, or frame it otherwise |
//! | `/longer`, `/shorter` | writes more or less than `content-length` says |
//! | `/twice` | says two lengths |
//! | `/unfinished` | keeps the body and its stream open, and returns |
//! | `/after` | ends its response, and then loops |
//! | `/trailers/N` | ends its response with so many trailers |
//! | `/unchecked/BYTES` | writes to the body without asking how much there is room for |
//! | `/many-polls/N` | polls a list of so many pollables |
//! | `/ok` | answers as it should |

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam};
use wasip2::io::poll::poll;

const TEXT: &[u8] = b"ten bytes!";

struct ZooWeb;

impl Guest for ZooWeb {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let words: Vec<&str> = target.split('/').skip(1).collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok()).unwrap_or(0);
        match words.get(1).copied().unwrap_or_default() {
            "ok" => respond(out, Fields::new(), TEXT),
            "fields" => {
                let value = vec![b'v'; number(3)];
                hoard(number(2), || {
                    let fields = Fields::new();
                    let _ = fields.append("x", &value);
                    fields
                });
                respond(out, Fields::new(), TEXT);
            }
            "pollables" => {
                hoard(number(2), || subscribe_duration(u64::MAX));
                respond(out, Fields::new(), TEXT);
            }
            "responses" => {
                hoard(number(2), || OutgoingResponse::new(Fields::new()).body());
                respond(out, Fields::new(), TEXT);
            }
            "requests" => {
                hoard(number(2), || OutgoingRequest::new(Fields::new()).body());
                respond(out, Fields::new(), TEXT);
            }
            "header" => {
                let fields = Fields::new();
                let taken = fields.append("x-long", &vec![b'v'; number(2)]).is_ok();
                respond(out, fields, if taken { TEXT } else { b"refused" });
            }
            "split" => split(out),
            "longer" => respond(out, with(&[("content-length", b"3")]), TEXT),
            "shorter" => respond(out, with(&[("content-length", b"30")]), TEXT),
            "twice" => respond(out, with(&[("content-length", b"10"), ("content-length", b"3")]), TEXT),
            "unfinished" => unfinished(out),
            "after" => {
                respond(out, Fields::new(), TEXT);
                loop {
                    std::hint::black_box(());
                }
            }
            "trailers" => {
                let trailers = Fields::new();
                for at in 0..number(2) {
                    let _ = trailers.append(&format!("x-{at}"), b"value");
                }
                let body = begin(out, Fields::new());
                let _ = OutgoingBody::finish(body, Some(trailers));
            }
            "unchecked" => {
                let body = begin(out, Fields::new());
                let stream = body.write().expect("the stream is taken once");
                // More than it may write at once is a trap by the rules of `wasi:io`.
                let _ = stream.write(&vec![b'u'; number(2)]);
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            "many-polls" => {
                let one = subscribe_duration(0);
                let all = vec![&one; number(2)];
                let ready = poll(&all).len();
                respond(out, Fields::new(), ready.to_string().as_bytes());
            }
            _ => respond(out, Fields::new(), b"there is no such attack"),
        }
    }
}

/// Takes resources and never drops them.
fn hoard<T>(count: usize, take: impl Fn() -> T) {
    for _ in 0..count {
        std::mem::forget(take());
    }
}

fn with(headers: &[(&str, &[u8])]) -> Fields {
    let fields = Fields::new();
    for (name, value) in headers {
        let _ = fields.append(name, value);
    }
    fields
}

fn begin(out: ResponseOutparam, fields: Fields) -> OutgoingBody {
    let response = OutgoingResponse::new(fields);
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn respond(out: ResponseOutparam, fields: Fields, text: &[u8]) {
    let body = begin(out, fields);
    {
        let stream = body.write().expect("the stream is taken once");
        let _ = stream.blocking_write_and_flush(text);
    }
    let _ = OutgoingBody::finish(body, None);
}

fn split(out: ResponseOutparam) {
    let headers: [(&str, &[u8]); 8] = [
        ("x-a", b"1\r\nset-cookie: evil=1"),
        ("x-b\r\nx-c", b"1"),
        ("x-d", b"1\n\n<html>"),
        ("transfer-encoding", b"chunked"),
        ("connection", b"close"),
        ("host", b"evil.example"),
        ("caxton-agent", b"another"),
        ("upgrade", b"websocket"),
    ];
    let fields = Fields::new();
    let taken = headers.iter().filter(|(name, value)| fields.append(name, value).is_ok());
    let names: Vec<&str> = taken.map(|(name, _)| *name).collect();
    respond(out, fields, format!("{names:?}").as_bytes());
}

fn unfinished(out: ResponseOutparam) {
    let body = begin(out, Fields::new());
    let stream = body.write().expect("the stream is taken once");
    let _ = stream.blocking_write_and_flush(TEXT);
    std::mem::forget(stream);
    std::mem::forget(body);
}

wasip2::http::proxy::export!(ZooWeb);
