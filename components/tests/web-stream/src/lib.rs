//! An HTTP agent made with the SDK that answers in parts. The path says what it does.
//!
//! | path | effect |
//! |---|---|
//! | `/stream/upper` | the body in upper case, as it comes |
//! | `/stream/events?count=N` | that many events with ids, and a comment before each |
//! | `/stream/trailers` | a body, and the trailer `x-sum` |
//! | `/stream/count` | counts, and answers with the count |
//! | `/stream/fail-before`, `/stream/fail-after` | counts, then fails, without a response or in the middle of one |
//! | `/stream/leave` | a response that it does not finish |
//! | `/stream/nothing` | no response |
//! | `/stream/status?code=N` | a response with that status |

use std::io::{Read, Write};
use std::time::Duration;

use caxton_sdk::http::{Event, IncomingRequest, Responder};
use caxton_sdk::prelude::*;

struct WebStream;

impl HttpStreamAgent for WebStream {
    fn handle(request: IncomingRequest, responder: Responder) -> Result<(), Failure> {
        let name = request.path.rsplit('/').next().unwrap_or_default().to_owned();
        let asked = |name: &str| request.query_value(name).unwrap_or_default();
        match name.as_str() {
            "upper" => upper(request, responder),
            "events" => {
                let count: u32 = asked("count").parse().or_reject()?;
                let mut stream = responder.events()?;
                for number in 1..=count {
                    stream.comment("the next one")?;
                    stream.event(&Event::json(&number)?.named("number").id(number.to_string()))?;
                }
                stream.finish()
            }
            "trailers" => {
                let mut stream = responder.begin(&Response::empty(200).header("trailer", "x-sum"))?;
                stream.write_all(b"body").or_unavailable()?;
                stream.finish_with(&[("x-sum", "4")])
            }
            "count" => responder.send(&Response::text(state::increment("count", 1)?.to_string())),
            "fail-before" => {
                state::increment("count", 1)?;
                Err(Failure::unavailable("told to fail"))
            }
            "fail-after" => {
                state::increment("count", 1)?;
                let mut stream = responder.begin(&Response::text(""))?;
                stream.write_all(b"begun").or_unavailable()?;
                // The host sends the head while the agent waits. Without a wait it learns of both at once.
                std::thread::sleep(Duration::from_millis(5));
                Err(Failure::fault("told to fail in the middle"))
            }
            "leave" => {
                let mut stream = responder.begin(&Response::text(""))?;
                stream.write_all(b"begun").or_unavailable()?;
                Ok(())
            }
            "nothing" => Ok(()),
            "status" => responder.send(&Response::empty(asked("code").parse().or_reject()?)),
            _ => responder.send(&Response::text("there is nothing here").status(404)),
        }
    }
}

/// Answers with the body in upper case, part by part.
fn upper(mut request: IncomingRequest, responder: Responder) -> Result<(), Failure> {
    let mut stream = responder.begin(&Response::text(""))?;
    let mut part = vec![0; 16 << 10];
    loop {
        let read = request.read(&mut part).or_reject()?;
        if read == 0 {
            return stream.finish();
        }
        part[..read].make_ascii_uppercase();
        stream.write_all(&part[..read]).or_unavailable()?;
    }
}

caxton_sdk::http_stream_agent!(WebStream);
