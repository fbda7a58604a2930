//! Copies of calls over HTTP.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use caxton_control::rollout::compare::{Answer, Content, Effect};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::answer::{effects_of, faulty};
use super::tape::{MAX_BYTES, Recording};
use crate::wasm::{
    BodyError, Commits, Effects, Fault, HttpCall, HttpFailure, Outside, Pool, ResponseBody, Run, Tap, Unanswered, Work,
};

/// A call that was handled, to be handled once more.
pub(super) struct CallCopy {
    head: http::request::Parts,
    /// What was read of the body.
    body: Bytes,
    /// Whether that is all of it.
    whole: bool,
    pub(super) conversation: String,
}

impl CallCopy {
    /// The request line, for a person.
    pub(super) fn line(&self) -> String {
        format!("http:{} {}", self.head.method, self.head.uri.path())
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// A live call that is recorded.
pub(in crate::agent) struct CallRecording {
    recording: Box<Recording>,
    head: http::request::Parts,
    /// What was read of the request's body; none when that is too much.
    body: Mutex<Option<Vec<u8>>>,
    /// The body's length, where it is known.
    length: Option<u64>,
    conversation: String,
    effects: Mutex<Vec<Effect>>,
}

impl CallRecording {
    /// Of a request that is about to be handed over.
    pub(in crate::agent) fn new<B: Body>(
        recording: Box<Recording>,
        request: &http::Request<B>,
        conversation: &str,
    ) -> Arc<Self> {
        let (head, ()) = {
            let mut request_of_head = http::Request::new(());
            *request_of_head.method_mut() = request.method().clone();
            *request_of_head.uri_mut() = request.uri().clone();
            *request_of_head.version_mut() = request.version();
            *request_of_head.headers_mut() = request.headers().clone();
            request_of_head.into_parts()
        };
        Arc::new(Self {
            recording,
            head,
            body: Mutex::new(Some(Vec::new())),
            length: request.body().size_hint().exact(),
            conversation: conversation.to_owned(),
            effects: Mutex::default(),
        })
    }

    /// What the call is to reach.
    pub(in crate::agent) fn outside(&self) -> Arc<dyn Outside> {
        self.recording.outside()
    }

    /// A part of the request's body has been read.
    pub(in crate::agent) fn read(&self, data: &Bytes) {
        let mut body = self.body.lock();
        match &mut *body {
            Some(bytes) if bytes.len() + data.len() <= MAX_BYTES => bytes.extend_from_slice(data),
            Some(_) | None => *body = None,
        }
    }

    /// Its effects, or a part of them, are about to be committed.
    pub(in crate::agent) fn committing(&self, agent: &str, effects: &Effects) {
        self.recording.note_unread(agent, effects);
        self.effects.lock().extend(effects_of(effects));
    }

    /// It has a response, whose body may be yet to come.
    pub(in crate::agent) fn answered(self: Arc<Self>, response: &mut http::Response<ResponseBody>) {
        let head = head(response);
        let (length, content_type) = (content_length(response), content_type(response));
        let told = move |body: Option<Vec<u8>>| {
            let answer = body.map(|bytes| {
                let effects = std::mem::take(&mut *self.effects.lock());
                Answer { head, reply: Ok(Some(Content { content_type, bytes })), effects }
            });
            self.copy(answer);
        };
        response.body_mut().tap(Tap::new(MAX_BYTES, length, Box::new(told)));
    }

    /// It has none.
    pub(in crate::agent) fn failed(&self, failure: &HttpFailure) {
        if let HttpFailure::Fault(fault) = failure
            && fault.is_guests()
        {
            self.copy(Some(faulty(fault)));
        }
    }

    fn copy(&self, answer: Option<Answer>) {
        let body = self.body.lock().take();
        let call = body.map(|body| CallCopy {
            head: self.head.clone(),
            whole: self.length == Some(body.len() as u64),
            body: body.into(),
            conversation: self.conversation.clone(),
        });
        self.recording.copy_call(call, answer);
    }
}

/// Lets an instance of `pool` handle a copy of a call.
pub(super) async fn handle(pool: &Arc<Pool>, call: &CallCopy, outside: Arc<dyn Outside>) -> Result<Answer, Fault> {
    let time = pool.who.spec.limits.time;
    let deadline = Instant::now() + time;
    let lease = pool.lease(deadline).await?;
    let lost = Arc::new(AtomicBool::new(false));
    let body = Part { read: Some(call.body.clone()), whole: call.whole, lost: Arc::clone(&lost) };
    let conversation = call.conversation.clone();
    let commits = Commits::Nowhere;
    let work =
        Work { conversation, hops: 0, deadline, trace: None, outside: Some(outside), commits, run: Run::default() };
    let request = http::Request::from_parts(call.head.clone(), body);
    let effects = Mutex::new(Vec::new());
    let commit = |done: Effects| {
        *effects.lock() = effects_of(&done);
        std::future::ready(Ok::<(), Infallible>(()))
    };
    let interrupt = CancellationToken::new();
    let ended = HttpCall { request, work, time, interrupt }.run(lease, commit, Box::new(|_| ())).await;
    let response = match ended {
        Ok(response) => response,
        Err(_) if lost.load(Ordering::Relaxed) => return Err(unknown()),
        Err(Unanswered::Fault(fault)) => return Err(fault),
        // It meets nothing that is reserved.
        Err(Unanswered::BrokenOff(key, ..)) => return Err(Fault::Reserved(key)),
        Err(Unanswered::Refused(never, _)) => match never {},
    };
    let (head, content_type) = (head(&response), content_type(&response));
    let reply = match Limited::new(response.into_body(), MAX_BYTES).collect().await {
        Ok(body) => Ok(Some(Content { content_type, bytes: body.to_bytes().to_vec() })),
        Err(error) => Err(error.to_string()),
    };
    if lost.load(Ordering::Relaxed) {
        return Err(unknown());
    }
    Ok(Answer { head, reply, effects: effects.into_inner() })
}

/// What a copy wants to know is not known.
fn unknown() -> Fault {
    Fault::Host("nobody knows the rest of the request".to_owned())
}

/// The body of a request as far as it was read when it was live.
struct Part {
    read: Option<Bytes>,
    whole: bool,
    /// Told when more is asked for than is known.
    lost: Arc<AtomicBool>,
}

impl Body for Part {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(read) = self.read.take().filter(|read| !read.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if self.whole {
            return Poll::Ready(None);
        }
        self.lost.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(BodyError::TooLarge { limit: 0 })))
    }
}

/// Status and headers; those that only frame the body are seen by it.
fn head<B>(response: &http::Response<B>) -> BTreeMap<String, String> {
    let headers = response.headers().iter().filter(|(name, _)| **name != CONTENT_LENGTH && **name != CONTENT_TYPE);
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut head: BTreeMap<String, String> =
        headers.map(|(name, value)| (format!("headers/{name}"), text(value))).collect();
    head.insert("status".to_owned(), response.status().as_u16().to_string());
    head
}

fn content_type<B>(response: &http::Response<B>) -> String {
    let named = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    named.unwrap_or_default().to_owned()
}

fn content_length<B>(response: &http::Response<B>) -> Option<usize> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
