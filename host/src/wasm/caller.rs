//! What a caller over HTTP does to a call: how it sends its body, how it takes the response, and whether it stays.
//!
//! A guest that fails because of that has done nothing wrong.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use wasmtime_wasi_http::Error as WasiHttpError;

use super::Fault;

/// A call that runs out of time is its caller's doing when the caller took more than this part of it, as one over this.
/// On a good line it is far less, and a guest that hangs is still told from one that was kept waiting.
const PART: u32 = 10;

/// A body is much for a guest when it takes more than this part of its memory, as one over this: collecting it takes
/// several times its size, and the guest has its own needs.
const MUCH: u64 = 8;

/// Why the body of a request ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is larger than it may be.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The client sent nothing for too long.
    #[error("nothing more of the body came for {} ms (http.stall-timeout)", limit.as_millis())]
    Stalled {
        /// The bound.
        limit: Duration,
    },
    /// The connection or what came over it is broken.
    #[error("the body could not be read")]
    Broken(#[source] hyper::Error),
}

impl From<BodyError> for WasiHttpError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { limit } => Self::HttpRequestBodySize(Some(limit)),
            BodyError::Stalled { .. } => Self::ConnectionReadTimeout,
            BodyError::Broken(error) => Self::Hyper(error),
        }
    }
}

/// What a caller did to its call so far.
#[derive(Debug, Default)]
pub(super) struct Caller(Mutex<Done>);

#[derive(Debug, Default)]
struct Done {
    /// Bytes of the request that came.
    sent: u64,
    /// How long the guest waited for the caller.
    waited: Duration,
    /// Since when it waits for more of the request.
    sending_since: Option<Instant>,
    /// Since when it waits for the caller to take more of the response.
    taking_since: Option<Instant>,
    /// Its request broke off.
    broke_off: bool,
    /// It takes no more of the response.
    left: bool,
    /// It wants no content, whatever there is.
    wants_none: bool,
}

impl Done {
    fn waited(&self, now: Instant) -> Duration {
        let since = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waited + since(self.sending_since) + since(self.taking_since)
    }
}

impl Caller {
    /// More of the request was asked for, and came or did not.
    fn sends(&self, came: bool) {
        let mut done = self.0.lock();
        if came {
            let since = done.sending_since.take();
            done.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
        } else {
            done.sending_since.get_or_insert_with(Instant::now);
        }
    }

    /// A piece of the response was handed over, and until the caller asks for more the guest does not go on.
    pub(super) fn has_piece(&self) {
        self.0.lock().taking_since.get_or_insert_with(Instant::now);
    }

    /// More of the response is asked for.
    pub(super) fn asks(&self) {
        let mut done = self.0.lock();
        let since = done.taking_since.take();
        done.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// The caller takes no more of the response.
    pub(super) fn leaves(&self) {
        self.0.lock().left = true;
    }

    /// The caller wants no content of the response: it asked with HEAD, or has it already.
    pub(super) fn wants_none(&self) {
        self.0.lock().wants_none = true;
    }

    /// Whether a fault of the guest is the caller's doing. `time` is what the call might take, and `starved` the memory
    /// that it might have, if it was refused more.
    pub(super) fn caused(&self, fault: &Fault, time: Duration, starved: Option<u64>) -> bool {
        let done = self.0.lock();
        if !fault.is_guests() {
            return false;
        }
        if done.broke_off || done.left {
            return true;
        }
        match fault {
            Fault::Time { .. } => done.wants_none || done.waited(Instant::now()) * PART > time,
            // Nobody takes what it writes, so that nothing slows it down.
            Fault::Cpu { .. } | Fault::Fuel { .. } => done.wants_none,
            // It had to hold what is too much for it.
            Fault::Trap { .. } => starved.is_some_and(|memory| done.sent > memory / MUCH),
            Fault::Start(_)
            | Fault::Restore(_)
            | Fault::Interrupted
            | Fault::Reserved(_)
            | Fault::NoResponse { .. }
            | Fault::Abandoned
            | Fault::Patience { .. }
            | Fault::Overloaded
            | Fault::Host(_) => false,
        }
    }
}

/// The body of a request, whose caller is watched.
pub(super) struct Sending<B> {
    body: B,
    caller: Arc<Caller>,
}

impl<B> Sending<B> {
    /// A body that `caller` sends.
    pub(super) fn new(body: B, caller: &Arc<Caller>) -> Self {
        Self { body, caller: Arc::clone(caller) }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Sending<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.caller.sends(polled.is_ready());
        match &polled {
            Poll::Ready(Some(Err(_))) => self.caller.0.lock().broke_off = true,
            Poll::Ready(Some(Ok(frame))) => {
                self.caller.0.lock().sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Sending<B> {
    fn drop(&mut self) {
        // Nobody waits for the rest.
        self.caller.sends(true);
    }
}

#[cfg(test)]
mod tests {
    use super::super::trail::Trail;
    use super::*;

    type Did = fn(&Caller);

    fn trap() -> Fault {
        Fault::Trap { message: "unreachable".to_owned(), trail: Trail::default() }
    }

    #[test]
    fn what_the_caller_did_is_not_the_guests_fault() {
        let (short, long) = (Duration::from_nanos(1), Duration::from_secs(3_600));
        let time = |limit| Fault::Time { limit, trail: Trail::default() };
        let table: &[(&str, Did, Fault, Duration, bool)] = &[
            ("it sent much", |caller| caller.0.lock().sent = 1_000, trap(), long, true),
            ("it sent little", |caller| caller.0.lock().sent = 100, trap(), long, false),
            ("nothing", |_| (), trap(), long, false),
            ("nothing", |_| (), time(long), long, false),
            ("it left", Caller::leaves, trap(), long, true),
            ("it left", Caller::leaves, Fault::Interrupted, long, false),
            (
                "it broke off",
                |caller| caller.0.lock().broke_off = true,
                Fault::NoResponse { why: String::new(), trail: Trail::default() },
                long,
                true,
            ),
            ("it still sends", |caller| caller.sends(false), time(short), short, true),
            ("it still sends", |caller| caller.sends(false), time(long), long, false),
            ("it still sends", |caller| caller.sends(false), trap(), short, false),
            ("it has sent", |caller| caller.sends(true), time(short), short, false),
            ("it takes nothing", Caller::has_piece, time(short), short, true),
            ("it wants nothing", Caller::wants_none, time(long), long, true),
            ("it wants nothing", Caller::wants_none, Fault::Cpu { limit: short, trail: Trail::default() }, long, true),
            ("it wants nothing", Caller::wants_none, trap(), long, false),
        ];
        for (did, act, fault, limit, expected) in table {
            let caller = Caller::default();
            act(&caller);
            std::thread::yield_now();
            assert_eq!(caller.caused(fault, *limit, Some(4_000)), *expected, "{did}: {fault}, {limit:?}");
        }
    }
}
