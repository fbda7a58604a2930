//! Recording of a response body while it is sent.

use bytes::Bytes;
use http_body::Frame;

use super::response::{ResponseBody, ResponseError};

/// Receives the whole body, or `None`.
type Told = Box<dyn FnOnce(Option<Vec<u8>>) + Send>;

/// Records a body and passes it on when its last byte was read. Passes on `None` if the body was not read to its end or
/// exceeds the bound.
pub(crate) struct Tap {
    bytes: Vec<u8>,
    bound: usize,
    /// The length in the head, if it is there. A reader that got that many bytes need not poll for the end.
    length: Option<usize>,
    told: Option<Told>,
}

impl Tap {
    /// Creates a recorder for a body of up to `bound` bytes.
    pub(crate) fn new(bound: usize, length: Option<usize>, told: Told) -> Self {
        Self { bytes: Vec::new(), bound, length, told: Some(told) }
    }

    /// Records a part of the body, its end (`None`), or its failure.
    pub(super) fn hear(&mut self, part: Option<&Result<Frame<Bytes>, ResponseError>>) {
        match part {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| self.take(data)),
            Some(Err(_)) => self.tell(None),
            None => self.end(),
        }
    }

    fn take(&mut self, data: &Bytes) {
        if self.bytes.len() + data.len() > self.bound {
            self.tell(None);
        } else if self.told.is_some() {
            self.bytes.extend_from_slice(data);
        }
    }

    fn end(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.tell(Some(bytes));
    }

    fn tell(&mut self, bytes: Option<Vec<u8>>) {
        if let Some(told) = self.told.take() {
            told(bytes);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if self.length == Some(self.bytes.len()) { self.end() } else { self.tell(None) }
    }
}

impl ResponseBody {
    /// Attaches a recorder. A body that is complete is recorded at once.
    pub(crate) fn tap(&mut self, mut tap: Tap) {
        match self {
            Self::Whole(data) => {
                data.iter().for_each(|data| tap.take(data));
                tap.end();
            }
            Self::Open(open) => open.tap = Some(tap),
        }
    }
}
