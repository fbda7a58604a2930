//! The calls over HTTP of a copy: answered as the live handling was, or refused.

use std::collections::HashMap;
use std::sync::Arc;

use caxton_control::journal::{CallKey, RequestHash};
use caxton_control::rollout::comparison::Effect;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::handler_answer::{MAX_CALLS, call_line};
use super::recording::{MAX_BYTES, Recording};
use crate::message::{
    CallBody, GuestHttpCall, HttpCallError, MaskedText, RecordedResponse, RequestHasher, ResponseTap, SharedResponse,
};

/// Records what comes of a call of a live handling, whose place among the recorded calls is `index`.
pub(super) fn record_answer(
    recording: &Arc<Mutex<Recording>>,
    index: usize,
    answer: Result<http::Response<CallBody>, HttpCallError>,
) -> Result<http::Response<CallBody>, HttpCallError> {
    let note = |answer| {
        if let Some(call) = recording.lock().calls.get_mut(index) {
            call.answer = Some(answer);
        }
    };
    match answer {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let record = Arc::new(Mutex::new(RecordedResponse::new(&head)));
            note(Ok(Arc::clone(&record)));
            let recording = Arc::clone(recording);
            let body = ResponseTap::new(body, record, Box::new(move |bytes| recording.lock().grow(bytes)));
            Ok(http::Response::from_parts(head, body.boxed_unsync()))
        }
        Err(error) => {
            note(Err(error.clone()));
            Err(error)
        }
    }
}

/// The calls of one copy.
#[derive(Default)]
pub(super) struct ReplayedCalls {
    answers: HashMap<CallKey, Result<SharedResponse, HttpCallError>>,
    /// The number of calls so far by request.
    asked: HashMap<RequestHash, u32>,
    /// The calls, as they are compared.
    effects: Vec<Effect>,
}

impl ReplayedCalls {
    /// Begins with the calls of a live handling.
    pub(super) fn of(recording: &Recording) -> Self {
        let mut calls = Self::default();
        let mut numbers: HashMap<RequestHash, u32> = HashMap::new();
        for call in &recording.calls {
            let (Some(hash), Some(answer)) = (call.hash, &call.answer) else { continue };
            let next = numbers.entry(hash).or_default();
            calls.answers.insert(CallKey { hash, nth: *next }, answer.clone());
            *next += 1;
        }
        calls
    }

    /// Begins with what was [encoded](encode_calls). What this version cannot read is as if it had not been recorded.
    pub(super) fn decode(encoded: &[u8]) -> Self {
        let stored: Vec<EncodedCall<'_>> = postcard::from_bytes(encoded).unwrap_or_default();
        let answers = stored.into_iter().filter_map(|EncodedCall { hash, nth, response }| {
            let response = RecordedResponse::decode(response)?;
            Some((CallKey { hash: RequestHash(hash), nth }, Ok(Arc::new(Mutex::new(response)))))
        });
        Self { answers: answers.collect(), ..Self::default() }
    }

    /// Takes the calls, as they are compared.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Returns the answer to a request; `None` if there is none.
    fn answer(&mut self, hash: RequestHash) -> Option<Result<http::Response<CallBody>, HttpCallError>> {
        let nth = self.asked.entry(hash).or_default();
        let key = CallKey { hash, nth: *nth };
        *nth += 1;
        let answer = self.answers.get(&key)?;
        Some(answer.as_ref().map(|response| response.lock().to_response()).map_err(HttpCallError::clone))
    }
}

/// Answers a call of a copy from the record, or refuses it. Either is among the effects that are compared.
pub(super) fn replay(
    calls: &Arc<Mutex<ReplayedCalls>>,
    call: GuestHttpCall,
) -> BoxFuture<'static, Result<http::Response<CallBody>, HttpCallError>> {
    let index = {
        let mut calls = calls.lock();
        // At once and not with its answer: calls are compared in the order in which they were made.
        (calls.effects.len() < MAX_CALLS).then(|| {
            calls.effects.push(Effect::Call { line: call_line(&call), refused: false });
            calls.effects.len() - 1
        })
    };
    let calls = Arc::clone(calls);
    Box::pin(async move {
        let hash = hash(call.request).await?;
        let mut calls = calls.lock();
        if let Some(answer) = hash.and_then(|hash| calls.answer(hash)) {
            return answer;
        }
        if let Some(Effect::Call { refused, .. }) = index.and_then(|index| calls.effects.get_mut(index)) {
            *refused = true;
        }
        Err(HttpCallError::Denied)
    })
}

/// Returns the hash of a request; `None` if it is larger than any that was recorded.
async fn hash(request: http::Request<CallBody>) -> Result<Option<RequestHash>, HttpCallError> {
    let (head, mut body) = request.into_parts();
    let (mut hasher, mut bytes) = (RequestHasher::new(&head), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        if bytes > MAX_BYTES {
            return Ok(None);
        }
        hasher.frame(&frame);
    }
    Ok(Some(hasher.finish()))
}

/// The answer to a call, as it is stored. The order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct EncodedCall<'a> {
    hash: [u8; 32],
    nth: u32,
    response: &'a [u8],
}

/// Encodes the answers to calls, to be stored with their message; `None` if there are none. `masks` are not stored.
pub(in crate::agent) fn encode_calls(answers: &[(CallKey, SharedResponse)], masks: &[MaskedText]) -> Option<Vec<u8>> {
    let encoded: Vec<Vec<u8>> = answers.iter().map(|(_, response)| response.lock().masked(masks).encode()).collect();
    let stored = answers.iter().zip(&encoded);
    let stored: Vec<EncodedCall<'_>> =
        stored.map(|((key, _), response)| EncodedCall { hash: key.hash.0, nth: key.nth, response }).collect();
    let is_any = !stored.is_empty();
    is_any.then(|| postcard::to_allocvec(&stored).expect("a vector takes whatever is written"))
}
