//! The surroundings of a copy, which nothing leaves.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use caxton_control::RevisionId;
use futures::future::BoxFuture;

use crate::agent::Directory;
use crate::message::{
    CallContext, CommitMode, Deliver, Draft, Effects, Envelope, Failure, Fault, GuestHost, Identity, LogLevel, Message,
    Outgoing, Read, Reply, RequestError, RunContext, Seen, SendError, TimerName,
};
use crate::wasm::Pool;

/// The result of a handler, and its effects.
type SandboxHandled = (Result<Option<Reply>, Failure>, Effects);

/// Lets an instance of `pool` handle a copy of a message. `outside` is the host that it calls.
pub(super) async fn handle(
    pool: &Arc<Pool>,
    message: &Message,
    hops: u32,
    outside: Arc<dyn GuestHost>,
) -> Result<SandboxHandled, Fault> {
    let time = pool.who.spec.limits.time;
    let deadline = Instant::now() + time;
    // After a fault the lease is dropped, and the instance with it.
    let mut lease = pool.lease(deadline).await?;
    let conversation = message.conversation_id.clone();
    // Nothing is committed: the effects stay with the instance until they are taken below.
    let commits = CommitMode::WithResult;
    let work = CallContext {
        conversation,
        hops,
        deadline,
        trace: None,
        tree: None,
        host: Some(outside),
        commit_mode: commits,
        run: RunContext::default(),
        calls: None,
    };
    let result = lease.instance().handle(message, work, time).await?;
    let effects = lease.instance().take_effects();
    // Reused like a live instance, so that what a message leaves in its memory shows in the comparison.
    lease.finish(true);
    Ok((result, effects))
}

/// Returns the result of a request whose answer was not recorded: a copy never reaches another agent.
pub(super) fn refused_request() -> Result<Message, RequestError> {
    let why = "a copy of a message asks nobody".to_owned();
    Err(RequestError::NotSent(SendError::Unavailable(why)))
}

/// Checks a draft as if it were sent, so that a copy gets the same errors.
pub(super) fn check_send(
    directory: &dyn Directory,
    who: &Identity,
    work: &CallContext,
    draft: Draft,
) -> Result<Outgoing, SendError> {
    // Without `admit`, which would reserve a place in the receiver's mailbox.
    let (_, envelope) = directory.address(who, work, draft)?;
    Ok(Outgoing::new(Arc::new(NullMailbox) as Arc<dyn Deliver>, envelope))
}

/// A mailbox that discards its messages. It has no bound, so that a copy reserves no room that a live message needs.
struct NullMailbox;

impl Deliver for NullMailbox {
    fn put(&self, _: Box<Envelope>) -> bool {
        // No worker has to be woken.
        false
    }

    fn work(self: Arc<Self>) {}

    fn reserve_beyond(&self) {}

    fn other(&self, _: &str) -> Option<Arc<dyn Deliver>> {
        None
    }

    fn release(&self) {}
}

/// The host of an instance while it handles nothing: it has nothing but the memory with which the instance starts.
pub(super) struct IdleHost {
    /// The saved memory of a stateful agent.
    pub(super) saved: Option<Bytes>,
}

impl GuestHost for IdleHost {
    fn admit(&self, _: &Identity, _: &CallContext, _: Draft) -> Result<Outgoing, SendError> {
        Err(SendError::Unavailable("no message is being handled".to_owned()))
    }

    fn request<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a CallContext,
        _: Draft,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Message, RequestError>> + Send + 'a>> {
        Box::pin(std::future::ready(refused_request()))
    }

    fn find(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn read(&self, _: &str, _: &str) -> Result<Seen<Option<Read>>, String> {
        Ok(Seen { value: None, durable: true })
    }

    fn keys(&self, _: &str, _: &str, _: Option<&str>, _: u32) -> Result<Seen<Vec<String>>, String> {
        Ok(Seen { value: Vec::new(), durable: true })
    }

    fn timer(&self, _: &str, _: &TimerName) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn saved<'a>(&'a self, _: &'a RevisionId) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        Box::pin(std::future::ready(Ok(self.saved.clone())))
    }

    fn log(&self, _: &Identity, _: LogLevel, _: &str, _: &str) {}
}
