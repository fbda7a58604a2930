//! The smallest HTTP agent: answers every request with status 200 and the same 13 bytes. The benchmarks compare
//! hosts with it, so it imports nothing of Caxton's.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct WebEcho;

impl Guest for WebEcho {
    fn handle(_: IncomingRequest, out: ResponseOutparam) {
        let headers = Fields::new();
        // The host may forbid a header; the answer then goes without it.
        let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));
        // A client that has gone is no error of this agent's.
        if let Ok(stream) = body.write() {
            let _ = stream.blocking_write_and_flush(b"Hello, world!");
        }
        let _ = OutgoingBody::finish(body, None);
    }
}

wasip2::http::proxy::export!(WebEcho);
