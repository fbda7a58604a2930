//! Copies of calls of HTTP agents.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use caxton_control::rollout::comparison::{Answer, Content};
use caxton_control::supervision::InstanceFailure;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::handler_answer::effects_of;
use super::recording::MAX_BYTES;
use crate::message::{CallContext, CommitFailure, CommitMode, Effects, Fault, GuestHost, RunContext};
use crate::wasm::{BodyError, GuestThreads, HttpCall, Pool, Unanswered};

/// A call that was recorded.
pub(super) struct RecordedCall {
    pub(super) head: http::request::Parts,
    /// The part of the body that the live handler read.
    pub(super) body: Bytes,
    /// Set if that is the whole body.
    pub(super) is_whole: bool,
    pub(super) conversation: String,
}

impl RecordedCall {
    /// Returns the method and the path, in the form in which messages name their HTTP sender.
    pub(super) fn request_line(&self) -> String {
        format!("http:{} {}", self.head.method, self.head.uri.path())
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// Lets an instance of `pool` handle a copy of a call, and reads its response to the end.
pub(super) async fn handle(
    pool: &Arc<Pool>,
    call: &RecordedCall,
    outside: Arc<dyn GuestHost>,
    guests: GuestThreads,
) -> Result<Answer, Fault> {
    let time = pool.who.spec.limits.time;
    let deadline = Instant::now() + time;
    let lease = pool.lease(deadline).await?;
    let is_exceeded = Arc::new(AtomicBool::new(false));
    let body =
        RecordedBody { read: Some(call.body.clone()), is_whole: call.is_whole, is_exceeded: Arc::clone(&is_exceeded) };
    let conversation = call.conversation.clone();
    // Nothing is committed while it runs: the effects of the whole call go to `commit` below.
    let commits = CommitMode::Nowhere;
    let work = CallContext {
        conversation,
        hops: 0,
        deadline,
        trace: None,
        tree: None,
        host: Some(outside),
        commit_mode: commits,
        run: RunContext::default(),
        calls: None,
    };
    let request = http::Request::from_parts(call.head.clone(), body);
    let effects = Arc::new(Mutex::new(Vec::new()));
    let commit = |done: Effects| {
        *effects.lock() = effects_of(&done);
        std::future::ready(Ok::<(), Infallible>(()))
    };
    let late = {
        let effects = Arc::clone(&effects);
        let keep = move |done: Effects, _| -> BoxFuture<'static, Result<(), CommitFailure>> {
            effects.lock().extend(effects_of(&done));
            Box::pin(std::future::ready(Ok(())))
        };
        Arc::new(keep)
    };
    // Never cancelled: the comparer drops this future to stop a copy.
    let interrupt = CancellationToken::new();
    let failure = InstanceFailure::Trap;
    let ended =
        HttpCall { request, work, time, interrupt, failure, guests, late }.run(lease, commit, Box::new(|_| ())).await;
    let response = match ended {
        Ok(response) => response,
        // Checked first: the fault of a guest whose body broke off is not its own.
        Err(_) if is_exceeded.load(Ordering::Relaxed) => return Err(incomplete_body()),
        Err(Unanswered::Fault(fault)) => return Err(fault),
        // Keys are reserved for live handlers only, so that a copy never meets one.
        Err(Unanswered::BrokenOff(key, ..)) => return Err(Fault::Reserved(key)),
        Err(Unanswered::Refused(never, _)) => match never {},
    };
    let (head, content_type) = (response_head(&response), content_type(&response));
    // Read to the end: the body is part of the answer, and may fail after its head.
    let reply = match Limited::new(response.into_body(), MAX_BYTES).collect().await {
        Ok(body) => Ok(Some(Content { content_type, bytes: body.to_bytes().to_vec() })),
        Err(error) => Err(error.to_string()),
    };
    // Checked again, because the guest may read its request while it writes the response.
    if is_exceeded.load(Ordering::Relaxed) {
        return Err(incomplete_body());
    }
    let effects = std::mem::take(&mut *effects.lock());
    Ok(Answer { head, reply, effects })
}

/// Returns the fault of a copy that reads more of the request's body than the live handler did. It is the host's, so
/// that the copy is set aside.
fn incomplete_body() -> Fault {
    Fault::Host("the rest of the request's body was not recorded".to_owned())
}

/// The body of a recorded call.
struct RecordedBody {
    read: Option<Bytes>,
    is_whole: bool,
    /// Set when more is read than was recorded.
    is_exceeded: Arc<AtomicBool>,
}

impl Body for RecordedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(read) = self.read.take().filter(|read| !read.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if self.is_whole {
            return Poll::Ready(None);
        }
        self.is_exceeded.store(true, Ordering::Relaxed);
        // Any error ends the body; this one needs no text.
        Poll::Ready(Some(Err(BodyError::TooLarge { limit: 0 })))
    }
}

/// Returns the status and the headers, without those that follow from the body.
pub(super) fn response_head<B>(response: &http::Response<B>) -> BTreeMap<String, String> {
    // The length and the type are compared with the body, in which ignored paths are taken into account.
    let headers = response.headers().iter().filter(|(name, _)| **name != CONTENT_LENGTH && **name != CONTENT_TYPE);
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut head: BTreeMap<String, String> =
        headers.map(|(name, value)| (format!("headers/{name}"), text(value))).collect();
    head.insert("status".to_owned(), response.status().as_u16().to_string());
    head
}

pub(super) fn content_type<B>(response: &http::Response<B>) -> String {
    let named = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    named.unwrap_or_default().to_owned()
}
