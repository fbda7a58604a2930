//! Hearing what a response's body was, beside sending it.

use bytes::Bytes;
use http_body::Frame;

use super::response::{ResponseBody, ResponseError};

/// Hears the whole of a body.
type Told = Box<dyn FnOnce(Option<Vec<u8>>) + Send>;

/// Hears the whole of a body when its last byte has been read; nothing if it was not, or is too large.
pub(crate) struct Tap {
    bytes: Vec<u8>,
    bound: usize,
    /// Its length, where the head says it: who reads so many need not ask for the end.
    length: Option<usize>,
    told: Option<Told>,
}

impl Tap {
    /// For a body of up to `bound` bytes.
    pub(crate) fn new(bound: usize, length: Option<usize>, told: Told) -> Self {
        Self { bytes: Vec::new(), bound, length, told: Some(told) }
    }

    /// A part of the body has been read, its end been reached, or it broke off.
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
    /// Lets `tap` hear what the body is.
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
