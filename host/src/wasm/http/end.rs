//! The end of a guest that answers a request.

use std::pin::Pin;
use std::time::Duration;

use crate::message::{Diagnostics, Effects, Fault};

/// A callback for the end of the guest.
pub(crate) type Ended = Box<dyn FnOnce(HttpEnd) + Send>;
/// The running guest; resolves when it ends.
pub(in crate::wasm) type Running = Pin<Box<dyn Future<Output = HttpEnd> + Send>>;

/// The end of a guest.
pub(crate) struct HttpEnd {
    /// The failure of the guest, if it failed.
    pub(crate) result: Result<(), Fault>,
    /// The time on a core.
    pub(crate) cpu: Duration,
    /// The last output of a guest that returned without a complete response.
    pub(in crate::wasm) diagnostics: Diagnostics,
    /// Set if callers caused the failure: this one or earlier ones.
    pub(crate) by_caller: bool,
    /// The effects until the run was broken off for a reserved key.
    pub(in crate::wasm) broken_off: Option<Box<Effects>>,
}

impl From<Fault> for HttpEnd {
    fn from(fault: Fault) -> Self {
        let (cpu, diagnostics) = (Duration::ZERO, Diagnostics::default());
        Self { result: Err(fault), cpu, diagnostics, by_caller: false, broken_off: None }
    }
}

/// Calls `Ended` exactly once, on drop at the latest.
pub(in crate::wasm) struct EndListener(pub(in crate::wasm) Option<Ended>);

impl EndListener {
    pub(in crate::wasm) fn notify(&mut self, end: HttpEnd) {
        if let Some(ended) = self.0.take() {
            ended(end);
        }
    }
}

impl Drop for EndListener {
    fn drop(&mut self) {
        // Does nothing after another end: the callback is gone by then.
        self.notify(Fault::Abandoned.into());
    }
}
