use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};

pub struct Once;

static USED: AtomicU32 = AtomicU32::new(0);
/// Bodies that are never finished.
static LEFT: Mutex<Vec<OutgoingBody>> = Mutex::new(Vec::new());

impl Guest for Once {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let used = USED.fetch_add(1, Ordering::Relaxed) + 1;
        let path = request.path_with_query().unwrap_or_default();
        match path.rsplit('/').next().unwrap_or_default() {
            "silent" => {}
            "abandon" => drop(begin(out, "some")),
            "leak" => LEFT.lock().expect("nobody panics with it").push(begin(out, "some")),
            "exit" => std::process::exit(0),
            "trap" => panic!("told to trap at request {used}"),
            "fetch" => {
                let asked = OutgoingRequest::new(Fields::new());
                asked.set_scheme(Some(&Scheme::Https)).expect("a scheme");
                asked.set_authority(Some("example.com")).expect("a host");
                asked.set_path_with_query(Some("/secret")).expect("a path");
                let error = match outgoing_handler::handle(asked, None) {
                    Err(error) => error,
                    Ok(response) => {
                        response.subscribe().block();
                        match response.get() {
                            Some(Ok(Err(error))) => error,
                            _ => panic!("an answer from outside"),
                        }
                    }
                };
                finish(begin(out, &format!("{error:?}")));
            }
            _ => finish(begin(out, &used.to_string())),
        }
    }
}

fn begin(out: ResponseOutparam, text: &str) -> OutgoingBody {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("its only body");
    ResponseOutparam::set(out, Ok(response));
    body.write().expect("its only stream").blocking_write_and_flush(text.as_bytes()).expect("the host takes it");
    body
}

fn finish(body: OutgoingBody) {
    OutgoingBody::finish(body, None).expect("the body is whole");
}
