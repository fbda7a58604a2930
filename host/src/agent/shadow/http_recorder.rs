//! The recording of a live call of an HTTP agent, whose bodies are streamed past the recorder.

use std::sync::Arc;

use bytes::Bytes;
use caxton_control::rollout::comparison::{Answer, Content, Effect};
use http::header::CONTENT_LENGTH;
use http_body::Body;
use parking_lot::Mutex;

use super::handler_answer::{effects_of, fault_answer};
use super::http_job::{RecordedCall, content_type, response_head};
use super::recorder::Recorder;
use super::recording::MAX_BYTES;
use crate::message::{Effects, GuestHost};
use crate::wasm::{BodyRecorder, HttpFailure, ResponseBody};

/// A live call that is recorded. Shared by the request's body, the commits and the response's body, which end in any
/// order.
pub(in crate::agent) struct HttpRecorder {
    recorder: Box<Recorder>,
    head: http::request::Parts,
    /// The part of the request's body that was read; `None` if it exceeds the bound.
    body: Mutex<Option<Vec<u8>>>,
    /// The length of the body, if the request says it.
    length: Option<u64>,
    conversation: String,
    effects: Mutex<Vec<Effect>>,
}

impl HttpRecorder {
    /// Creates the recorder of a request that is about to be handed to the agent.
    pub(in crate::agent) fn new<B: Body>(
        recorder: Box<Recorder>,
        request: &http::Request<B>,
        conversation: &str,
    ) -> Arc<Self> {
        // Without the extensions of the request, of which a copy has no use.
        let (head, ()) = {
            let mut copy = http::Request::new(());
            *copy.method_mut() = request.method().clone();
            *copy.uri_mut() = request.uri().clone();
            *copy.version_mut() = request.version();
            *copy.headers_mut() = request.headers().clone();
            copy.into_parts()
        };
        Arc::new(Self {
            recorder,
            head,
            body: Mutex::new(Some(Vec::new())),
            // Without it the end of the body is not known to the recorder, which sees only its data.
            length: request.body().size_hint().exact(),
            conversation: conversation.to_owned(),
            effects: Mutex::default(),
        })
    }

    /// Returns the host that the call has to use instead of the real one.
    pub(in crate::agent) fn outside(&self) -> Arc<dyn GuestHost> {
        self.recorder.outside()
    }

    /// Adds a part of the request's body that the agent reads.
    pub(in crate::agent) fn read(&self, data: &Bytes) {
        let mut body = self.body.lock();
        // One part too many makes the copy useless, so that all memory is given back.
        match &mut *body {
            Some(bytes) if bytes.len() + data.len() <= MAX_BYTES => bytes.extend_from_slice(data),
            Some(_) | None => *body = None,
        }
    }

    /// Adds effects that are about to be committed.
    pub(in crate::agent) fn committing(&self, agent: &str, effects: &Effects) {
        // Before the commit: afterwards the old values are gone.
        self.recorder.read_unread(agent, effects);
        self.effects.lock().extend(effects_of(effects));
    }

    /// Takes the response. The copy is queued once its body is sent.
    pub(in crate::agent) fn answered(self: Arc<Self>, response: &mut http::Response<ResponseBody>) {
        let head = response_head(response);
        let (length, content_type) = (content_length(response), content_type(response));
        let enqueue = move |body: Option<Vec<u8>>| {
            let answer = body.map(|bytes| {
                let effects = std::mem::take(&mut *self.effects.lock());
                Answer { head, reply: Ok(Some(Content { content_type, bytes })), effects }
            });
            self.enqueue(answer);
        };
        // The end of the recording, and not the head, queues the copy: the body is part of the answer.
        response.body_mut().record_with(BodyRecorder::new(MAX_BYTES, length, Box::new(enqueue)));
    }

    /// Takes the failure of a call without a response.
    pub(in crate::agent) fn failed(&self, failure: &HttpFailure) {
        // Other failures say nothing about the revision.
        if let HttpFailure::Fault(fault) = failure
            && fault.is_guests()
        {
            self.enqueue(Some(fault_answer(fault)));
        }
    }

    fn enqueue(&self, answer: Option<Answer>) {
        let body = self.body.lock().take();
        let call = body.map(|body| RecordedCall {
            head: self.head.clone(),
            // A guest may leave a part of the body unread; the candidate may then read more than was recorded.
            is_whole: self.length == Some(body.len() as u64),
            body: body.into(),
            conversation: self.conversation.clone(),
        });
        self.recorder.enqueue_call(call, answer);
    }
}

fn content_length<B>(response: &http::Response<B>) -> Option<usize> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
