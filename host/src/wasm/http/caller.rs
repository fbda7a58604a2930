//! The influence of an HTTP caller on its call: it may send its body or take the response slowly, or leave.
//!
//! A guest that fails because of its caller is not at fault.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::memory_budget::MemoryShortage;
use crate::message::Fault;
use crate::net::LateBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use wasmtime_wasi_http::Error as WasiHttpError;

/// A timeout counts as caused by the caller if the caller took more than one part in this many of the time. A good
/// connection takes far less, so that a guest that hangs is told apart from one that was kept waiting.
const CALLER_SHARE: u32 = 10;

/// A body is too large for a guest if it exceeds one part in this many of its memory: collecting it takes several times
/// its size.
const LARGE_BODY_SHARE: u64 = 8;

/// The reason why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The body exceeds the bound.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// The body did not come in time.
    #[error(transparent)]
    Late(#[from] LateBody),
    /// The connection broke, or its framing is invalid.
    #[error("the body could not be read")]
    Broken(#[source] hyper::Error),
    /// The host had no memory to hold more of it.
    #[error("the body could not be held: {0}")]
    NotHeld(MemoryShortage),
}

impl From<BodyError> for WasiHttpError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { limit } => Self::HttpRequestBodySize(Some(limit)),
            BodyError::Late(_) => Self::ConnectionReadTimeout,
            BodyError::Broken(error) => Self::Hyper(error),
            // Not of a body that is passed on in pieces, which holds one at a time.
            BodyError::NotHeld(shortage) => Self::InternalError(Some(shortage.to_string())),
        }
    }
}

/// A record of the caller's actions in its call.
#[derive(Debug, Default)]
pub(in crate::wasm) struct CallerActivity(Mutex<CallerActions>);

#[derive(Debug, Default)]
struct CallerActions {
    /// Bytes of the request that have arrived.
    received_bytes: u64,
    /// The total time for which the guest waited for the caller.
    waited: Duration,
    /// The time since when the guest waits for more of the request.
    awaiting_request_since: Option<Instant>,
    /// The time since when the guest waits for the caller to take more of the response.
    awaiting_reader_since: Option<Instant>,
    /// Set if the request body broke off.
    broke_off: bool,
    /// Set if the caller takes no more of the response.
    is_gone: bool,
    /// Set if the caller ignores the content of the response.
    ignores_content: bool,
}

impl CallerActions {
    fn waited(&self, now: Instant) -> Duration {
        let since = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waited + since(self.awaiting_request_since) + since(self.awaiting_reader_since)
    }
}

impl CallerActivity {
    /// Notes a poll of the guest for more of the request; `came` is set if there was data.
    fn note_body_poll(&self, came: bool) {
        let mut done = self.0.lock();
        if came {
            let since = done.awaiting_request_since.take();
            done.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
        } else {
            // The first poll without data counts: later ones are of the same wait.
            done.awaiting_request_since.get_or_insert_with(Instant::now);
        }
    }

    /// Notes that a chunk of the response was handed over. The guest waits until the caller asks for more.
    pub(in crate::wasm) fn note_chunk_ready(&self) {
        self.0.lock().awaiting_reader_since.get_or_insert_with(Instant::now);
    }

    /// Notes that the caller asked for more of the response.
    pub(in crate::wasm) fn note_chunk_taken(&self) {
        let mut done = self.0.lock();
        let since = done.awaiting_reader_since.take();
        done.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// Notes that the caller takes no more of the response.
    pub(in crate::wasm) fn note_departure(&self) {
        self.0.lock().is_gone = true;
    }

    /// Notes that the caller ignores the content: it asked with HEAD, or has it cached.
    pub(in crate::wasm) fn note_content_ignored(&self) {
        self.0.lock().ignores_content = true;
    }

    /// Returns `true` if a fault of the guest was caused by the caller. `time` is the limit of the call, and `starved`
    /// the memory limit if the guest was refused memory beyond it.
    pub(in crate::wasm) fn has_caused(&self, fault: &Fault, time: Duration, starved: Option<u64>) -> bool {
        let done = self.0.lock();
        // Other faults do not count against the guest anyway.
        if !fault.is_guests() {
            return false;
        }
        if done.broke_off || done.is_gone {
            return true;
        }
        match fault {
            Fault::Time { .. } => done.ignores_content || done.waited(Instant::now()) * CALLER_SHARE > time,
            // Output is dropped at once, so that no back-pressure slows the guest down.
            Fault::Cpu { .. } | Fault::Fuel { .. } => done.ignores_content,
            // The guest had to hold a body that is too large for it.
            Fault::Trap { .. } => starved.is_some_and(|memory| done.received_bytes > memory / LARGE_BODY_SHARE),
            Fault::Exceeded { .. }
            | Fault::Start(_)
            | Fault::Restore(_)
            | Fault::Interrupted
            | Fault::Reserved(_)
            | Fault::NoResponse { .. }
            | Fault::Abandoned
            | Fault::CallerTimeout { .. }
            | Fault::Overloaded
            | Fault::Restarting { .. }
            | Fault::HostMemory
            | Fault::UnknownOutcome(_)
            | Fault::OverBudget(_)
            | Fault::Host(_) => false,
        }
    }
}

/// A request body that records the caller's actions.
pub(in crate::wasm) struct CallerBody<B> {
    body: B,
    caller: Arc<CallerActivity>,
}

impl<B> CallerBody<B> {
    /// Wraps a body that `caller` sends.
    pub(in crate::wasm) fn new(body: B, caller: &Arc<CallerActivity>) -> Self {
        Self { body, caller: Arc::clone(caller) }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for CallerBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // An end and an error count as data as well: the wait is over.
        self.caller.note_body_poll(polled.is_ready());
        match &polled {
            Poll::Ready(Some(Err(_))) => self.caller.0.lock().broke_off = true,
            Poll::Ready(Some(Ok(frame))) => {
                self.caller.0.lock().received_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
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

impl<B> Drop for CallerBody<B> {
    fn drop(&mut self) {
        // The guest no longer waits for the rest.
        self.caller.note_body_poll(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Diagnostics;

    type Did = fn(&CallerActivity);

    fn trap() -> Fault {
        Fault::Trap { message: "unreachable".to_owned(), diagnostics: Diagnostics::default() }
    }

    #[test]
    fn faults_are_attributed_to_callers() {
        let (short, long) = (Duration::from_nanos(1), Duration::from_secs(3_600));
        let time = |limit| Fault::Time { limit, diagnostics: Diagnostics::default() };
        let table: &[(&str, Did, Fault, Duration, bool)] = &[
            ("it sent much", |caller| caller.0.lock().received_bytes = 1_000, trap(), long, true),
            ("it sent little", |caller| caller.0.lock().received_bytes = 100, trap(), long, false),
            ("nothing", |_| (), trap(), long, false),
            ("nothing", |_| (), time(long), long, false),
            ("it left", CallerActivity::note_departure, trap(), long, true),
            ("it left", CallerActivity::note_departure, Fault::Interrupted, long, false),
            (
                "it broke off",
                |caller| caller.0.lock().broke_off = true,
                Fault::NoResponse { why: String::new(), diagnostics: Diagnostics::default() },
                long,
                true,
            ),
            ("it still sends", |caller| caller.note_body_poll(false), time(short), short, true),
            ("it still sends", |caller| caller.note_body_poll(false), time(long), long, false),
            ("it still sends", |caller| caller.note_body_poll(false), trap(), short, false),
            ("it has sent", |caller| caller.note_body_poll(true), time(short), short, false),
            ("it takes nothing", CallerActivity::note_chunk_ready, time(short), short, true),
            ("it wants nothing", CallerActivity::note_content_ignored, time(long), long, true),
            (
                "it wants nothing",
                CallerActivity::note_content_ignored,
                Fault::Cpu { limit: short, diagnostics: Diagnostics::default() },
                long,
                true,
            ),
            ("it wants nothing", CallerActivity::note_content_ignored, trap(), long, false),
        ];
        for (did, act, fault, limit, expected) in table {
            let caller = CallerActivity::default();
            act(&caller);
            std::thread::yield_now();
            assert_eq!(caller.has_caused(fault, *limit, Some(4_000)), *expected, "{did}: {fault}, {limit:?}");
        }
    }
}
