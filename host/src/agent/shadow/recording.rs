//! The recording of one live handling: everything that it read from outside of itself.

use std::collections::HashMap;

use caxton_control::journal::RequestHash;
use caxton_control::rollout::comparison::Effect;

use super::handler_answer::request_effect;
use crate::message::{Draft, HttpCallError, Message, Read, RequestError, SendError, SharedResponse};

/// The most bytes of one recording. A handling that reads more is not copied: 32 are recorded at once, and 256 wait.
pub(super) const MAX_BYTES: usize = 2 << 20;

/// The arguments of a listing of keys: prefix, the key after which it begins, the most keys.
pub(super) type ListingArguments = (String, Option<String>, u32);

/// A call of a live handling.
pub(super) struct LiveCall {
    /// The method, and the URL without its query.
    pub(super) line: String,
    /// The hash of the request, once that has ended.
    pub(super) hash: Option<RequestHash>,
    /// The answer, as far as the handling has read it; `None` if there was none.
    pub(super) answer: Option<Result<SharedResponse, HttpCallError>>,
}

/// A recording.
#[derive(Default)]
pub(super) struct Recording {
    pub(super) reads: HashMap<String, Option<Read>>,
    pub(super) listings: HashMap<ListingArguments, Vec<String>>,
    /// The agents found, by capability.
    pub(super) found: HashMap<String, Vec<String>>,
    /// The timers looked up, by id or name.
    pub(super) timers: HashMap<String, Option<String>>,
    /// The requests in order, with their answers; `None` if the handling ended before the answer came.
    pub(super) requests: Vec<(Draft, Option<Result<Message, RequestError>>)>,
    /// The receivers of its sends in order, with the reason if one was refused.
    pub(super) sends: Vec<(String, Option<SendError>)>,
    /// The calls over HTTP, in order.
    pub(super) calls: Vec<LiveCall>,
    bytes: usize,
}

impl Recording {
    /// Counts bytes that are to be added. Returns `false` if they would exceed the bound; then nothing more is added.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        // Counted beyond the bound as well: the sum shows later that the recording is not complete.
        self.bytes = self.bytes.saturating_add(bytes);
        self.is_complete()
    }

    /// Returns `true` if nothing was left out.
    pub(super) fn is_complete(&self) -> bool {
        self.bytes <= MAX_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the requests and the calls over HTTP as effects, which is how they are compared.
    pub(super) fn request_effects(&self) -> Vec<Effect> {
        let calls = self.calls.iter().map(|call| Effect::Call { line: call.line.clone(), refused: false });
        self.requests.iter().map(|(draft, _)| request_effect(draft)).chain(calls).collect()
    }
}
