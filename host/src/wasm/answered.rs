//! How far a guest is with its response over HTTP: only one that set it and finished its body is used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http_body::Body;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// How far a guest is with its response. Shared, because it is set while the guest still holds the store.
#[derive(Debug, Clone, Default)]
pub(super) struct Answered(Arc<AtomicU8>);

/// The guest set a response that can be sent.
const SENT: u8 = 1;
/// It finished a body, or has none.
const FINISHED: u8 = 2;

impl Answered {
    /// The guest sets its response, or an error in place of one.
    pub(super) fn sends(&self, response: &Result<http::Response<HyperOutgoingBody>, ErrorCode>) {
        let Ok(response) = response else { return };
        if response.status().is_informational() {
            return;
        }
        // One without a body is never asked to finish it.
        let finished = if response.body().is_end_stream() { FINISHED } else { 0 };
        self.0.fetch_or(SENT | finished, Ordering::Relaxed);
    }

    /// The guest finished a body.
    pub(super) fn finishes(&self) {
        self.0.fetch_or(FINISHED, Ordering::Relaxed);
    }

    /// Whether the guest set a response and did not finish its body.
    pub(super) fn is_part(&self) -> bool {
        self.0.load(Ordering::Relaxed) == SENT
    }

    /// Whether the guest set a response and finished its body.
    pub(super) fn is_whole(&self) -> bool {
        self.0.load(Ordering::Relaxed) == SENT | FINISHED
    }
}
