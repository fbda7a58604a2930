//! The progress of a guest's HTTP response. An instance is reused only if the guest set a response and finished its
//! body.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http_body::Body;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// The progress of a response. Shared, because it is set while the guest still holds the store.
#[derive(Debug, Clone, Default)]
pub(in crate::wasm) struct ResponseProgress(Arc<AtomicU8>);

/// The guest has set a response that can be sent.
const SENT: u8 = 1;
/// The guest has finished a body, or the response has none.
const FINISHED: u8 = 2;

impl ResponseProgress {
    /// Notes that the guest has set its response, or an error in place of one. An informational response does not
    /// count.
    pub(in crate::wasm) fn note_response_set(&self, response: Option<&http::Response<HyperOutgoingBody>>) {
        let Some(response) = response else { return };
        if response.status().is_informational() {
            return;
        }
        // The guest is not called to finish an empty body.
        let finished = if response.body().is_end_stream() { FINISHED } else { 0 };
        // Relaxed: set within a poll of the guest, and read after it by the same task.
        self.0.fetch_or(SENT | finished, Ordering::Relaxed);
    }

    /// Notes that the guest has finished a body.
    pub(in crate::wasm) fn note_body_finished(&self) {
        self.0.fetch_or(FINISHED, Ordering::Relaxed);
    }

    /// Returns `true` if the guest has set a response and not finished its body.
    pub(in crate::wasm) fn is_body_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == SENT
    }

    /// Returns `true` if the guest has set a response and finished its body.
    pub(in crate::wasm) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed) == SENT | FINISHED
    }
}
