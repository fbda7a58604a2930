//! The recording of a response body while it is sent.

use bytes::Bytes;
use http_body::Frame;

/// Receives the whole body, or `None`.
type OnEnd = Box<dyn FnOnce(Option<Vec<u8>>) + Send>;

/// Records a body and passes it on when its last byte was read. Passes on `None` if the body was not read to its end or
/// exceeds the bound.
pub(crate) struct BodyRecorder {
    bytes: Vec<u8>,
    bound: usize,
    /// The length in the head, if it is there. A reader that got that many bytes need not poll for the end.
    length: Option<usize>,
    on_end: Option<OnEnd>,
}

impl BodyRecorder {
    /// Creates a recorder for a body of up to `bound` bytes.
    pub(crate) fn new(bound: usize, length: Option<usize>, on_end: OnEnd) -> Self {
        Self { bytes: Vec::new(), bound, length, on_end: Some(on_end) }
    }

    /// Records a part of the body, its end (`None`), or its failure.
    pub(in crate::wasm) fn record<E>(&mut self, part: Option<&Result<Frame<Bytes>, E>>) {
        match part {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| self.take(data)),
            Some(Err(_)) => self.finish(None),
            None => self.end(),
        }
    }

    /// Records a body that is complete.
    pub(in crate::wasm) fn record_whole(&mut self, data: Option<&Bytes>) {
        data.into_iter().for_each(|data| self.take(data));
        self.end();
    }

    fn take(&mut self, data: &Bytes) {
        if self.bytes.len() + data.len() > self.bound {
            self.finish(None);
        } else if self.on_end.is_some() {
            self.bytes.extend_from_slice(data);
        }
    }

    fn end(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.finish(Some(bytes));
    }

    fn finish(&mut self, bytes: Option<Vec<u8>>) {
        // Taken, because an end may be recorded more than once: by the last frame, and by the drop.
        if let Some(on_end) = self.on_end.take() {
            on_end(bytes);
        }
    }
}

impl Drop for BodyRecorder {
    fn drop(&mut self) {
        // A reader may stop at the announced length, so that a complete body never reports its end.
        if self.length == Some(self.bytes.len()) { self.end() } else { self.finish(None) }
    }
}
