//! What a guest can ask of the host, and what one call of it collects.
//!
//! A guest's sends and writes are not done but collected in [`Effects`]; whoever made the call commits or
//! drops them. Reads look into what was collected first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64};
use std::time::{Duration, Instant};

use bytes::Bytes;
use caxton_control::{AgentSpec, Receiver, RevisionId};
use parking_lot::Mutex;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi_http::WasiHttpCtx;

use super::again::Run;
use super::answered::Answered;
use super::bindings::caxton::agent::{messaging, types};
use super::bindings::wasi::logging;
use super::denied::{Denied, Outbound};
use super::effects::{Commits, Effects};
use super::limits::{MemoryBound, Meter};
use super::message::Sent;
use super::places::{Asking, Places};
use super::stdio::LineLog;
use super::timer::{TimerName, check_unnamed};
use super::{Fault, wit};
use crate::trace::Trace;

/// A value that was read, with the version that it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    /// The value.
    pub(crate) value: Vec<u8>,
    /// Grows with every write of the key and never repeats.
    pub(crate) version: u64,
    /// The time at which the key is gone, by the wall clock in milliseconds since 1970; none if it stays.
    pub(crate) expires_at: Option<u64>,
}

/// What a call saw of its agent's state.
#[derive(Debug)]
pub(crate) struct Seen<T> {
    /// What is there.
    pub(crate) what: T,
    /// Whether all of it is safe: what is still being committed may be seen, but nothing that follows from it may
    /// be told before it is safe too.
    pub(crate) safe: bool,
}

/// Which agent a guest is, for everything that it asks.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The revision it runs as.
    pub(crate) revision: Arc<RevisionId>,
    /// The settings it runs with.
    pub(crate) spec: Arc<AgentSpec>,
    /// Bytes of state that the agent keeps; written by the store after each commit.
    pub(crate) state_bytes: Arc<AtomicU64>,
    /// The most memory that one of the revision's instances ever had, in bytes: linear memories and tables.
    pub(crate) peak_memory: Arc<AtomicU64>,
    /// What it was denied and the log tells already.
    pub(crate) denied: Denied,
}

impl Identity {
    /// The same for calls that are copies: what is told of those is not told of the agent.
    pub(super) fn for_copies(&self) -> Self {
        Self {
            revision: Arc::clone(&self.revision),
            spec: Arc::clone(&self.spec),
            state_bytes: Arc::clone(&self.state_bytes),
            peak_memory: Arc::clone(&self.peak_memory),
            denied: Denied::default(),
        }
    }

    /// The agent's name.
    pub(crate) fn name(&self) -> &str {
        self.revision.agent.as_str()
    }
}

/// What a call is about, as far as it matters for what the guest asks during it.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The conversation of the message being handled.
    pub(crate) conversation: String,
    /// Its length of causes.
    pub(crate) hops: u32,
    /// When the call has to be over.
    pub(crate) deadline: Instant,
    /// Its trace.
    pub(crate) trace: Option<Trace>,
    /// What it reaches in place of what its instance does: a call that is recorded, or is a copy of another.
    pub(crate) outside: Option<Arc<dyn Outside>>,
    /// The way in which it commits before it ends.
    pub(crate) commits: Commits,
    /// The reservations and answers that it goes by.
    pub(crate) run: Run,
}

/// How important a line in a log is (`wasi:logging`).
pub(crate) use logging::logging::Level as LogLevel;
/// Why an access to state failed.
pub(crate) use types::StateError;

/// What lies outside an instance: other agents, kept state, logs. One implementation serves the host; the
/// tests of this module have a small one of their own.
pub(crate) trait Outside: Send + Sync {
    /// Checks a draft and keeps a place for it.
    fn admit(&self, who: &Identity, work: &Work, draft: wit::Draft) -> Result<Sent, wit::SendError>;
    /// Sends at once and waits for the answer.
    fn request<'a>(
        &'a self,
        who: &'a Identity,
        work: &'a Work,
        draft: wit::Draft,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<wit::Message, wit::RequestError>> + Send + 'a>>;
    /// Running agents with a capability.
    fn find(&self, capability: &str) -> Vec<String>;
    /// A key as it was committed last, or will be.
    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String>;
    /// Keys with a prefix, after a key, in order: at most `limit`.
    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String>;
    /// The id of a timer that an agent has set, as it was committed last.
    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String>;
    /// What a stateful agent saved last.
    fn saved(&self, revision: &RevisionId) -> Result<Option<Bytes>, String>;
    /// An instance of a stateful agent did not take up what was saved.
    fn not_restored(&self, _revision: &RevisionId, _fault: &Fault) {}
    /// A line for the agent's log.
    fn log(&self, who: &Identity, level: LogLevel, context: &str, text: &str);
    /// A question was not asked, since a run before this one had its answer.
    fn heard_again(&self, _draft: &wit::Draft, _answer: &Result<wit::Message, wit::RequestError>) {}
}

impl std::fmt::Debug for dyn Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outside")
    }
}

/// The data of a store.
pub(crate) struct Ctx {
    pub(super) who: Arc<Identity>,
    pub(super) outside: Arc<dyn Outside>,
    /// Of which it has one.
    pub(super) places: Arc<Places>,
    pub(super) work: Option<Work>,
    /// Shared, because a response of `wasi:http` is sent while the guest still holds the store.
    pub(super) effects: Arc<Mutex<Effects>>,
    pub(super) memory: MemoryBound,
    pub(super) meter: Arc<Meter>,
    pub(super) table: ResourceTable,
    pub(super) wasi: WasiCtx,
    pub(super) http: WasiHttpCtx,
    pub(super) outbound: Outbound,
    pub(super) answer: HttpAnswering,
    /// How far the response of the HTTP call at hand is.
    pub(super) answered: Answered,
    /// What the guest says last is shown with its error.
    pub(super) stderr: LineLog,
}

/// The response of the HTTP call at hand.
#[derive(Default)]
pub(super) struct HttpAnswering {
    /// The request was HEAD.
    pub(super) head: bool,
    /// Its status once it is sent; 0 before. Shared, because it is sent while the guest still holds the store.
    pub(super) status: Arc<AtomicU16>,
}

impl Ctx {
    /// Makes ready for another call.
    pub(super) fn begin(&mut self, mut work: Option<Work>) {
        {
            let mut effects = self.effects.lock();
            effects.reset();
            if let Some(work) = &mut work {
                effects.answers = std::mem::take(&mut work.run.answers);
            }
        }
        self.work = work;
        self.stderr.begin();
        self.answered = Answered::default();
    }

    /// What lies outside for this call.
    pub(super) fn outside(&self) -> &dyn Outside {
        self.work.as_ref().and_then(|work| work.outside.as_deref()).unwrap_or(&*self.outside)
    }

    pub(super) fn limits(&self) -> &caxton_control::desired::Limits {
        &self.who.spec.limits
    }
}

impl types::Host for Ctx {}

impl Ctx {
    /// The call at hand, if it may send so many more messages.
    pub(super) fn may_send(&self, count: usize) -> Result<&Work, wit::SendError> {
        let Some(work) = &self.work else {
            return Err(wit::SendError::Unavailable("no message is being handled".to_owned()));
        };
        let effects = self.effects.lock();
        if effects.closed {
            let why = "the response has begun, and with it the commit is made";
            return Err(wit::SendError::Unavailable(why.to_owned()));
        }
        let limit = self.limits().sends;
        let made = effects.sent_count + effects.sends.len() + effects.cancels.len();
        if made.saturating_add(count) > limit as usize {
            return Err(wit::SendError::TooManySends(limit));
        }
        Ok(work)
    }

    /// Counts the instance among those that wait for answers.
    fn ask(&self) -> Result<Asking, wit::SendError> {
        self.places.ask().ok_or_else(|| {
            let most = self.places.most_asking();
            wit::SendError::Unavailable(format!(
                "{most} instances of this host wait for answers already, and the others are for those who answer \
                 (host.instances)"
            ))
        })
    }

    /// Collects a message for each running agent with a capability, but for this one: all of them, or none.
    fn send_to_all(&self, draft: &wit::Draft) -> Result<Vec<String>, wit::SendError> {
        let Some(capability) = draft.receiver.strip_prefix("cap:") else {
            let why = "`receiver` has to be `cap:NAME`: a broadcast goes to all who have a capability";
            return Err(wit::SendError::Invalid(why.to_owned()));
        };
        check_unnamed(draft)?;
        // The grants of single agents are not one of all who may come.
        let names = |grant: &Receiver| matches!(grant, Receiver::Capability(name) if name.as_str() == capability);
        if !self.who.spec.allow.send.iter().any(names) {
            return Err(wit::SendError::NotAllowed(draft.receiver.clone()));
        }
        let mut receivers = self.outside().find(capability);
        receivers.retain(|name| name != self.who.name());
        if receivers.is_empty() {
            return Err(wit::SendError::UnknownReceiver(draft.receiver.clone()));
        }
        let work = self.may_send(receivers.len())?;
        let admit = |receiver| self.outside().admit(&self.who, work, wit::Draft { receiver, ..draft.clone() });
        // What was admitted before an error is dropped, and gives up its place.
        let sent = receivers.into_iter().map(admit).collect::<Result<Vec<Sent>, _>>()?;
        let ids = sent.iter().map(|sent| sent.id().to_owned()).collect();
        self.effects.lock().sends.extend(sent);
        Ok(ids)
    }
}

impl messaging::Host for Ctx {
    fn send(&mut self, draft: wit::Draft) -> wasmtime::Result<Result<String, wit::SendError>> {
        self.go_on()?;
        let admitted = self.may_send(1).and_then(|work| self.outside().admit(&self.who, work, draft));
        Ok(admitted.map(|sent| {
            let id = sent.id().to_owned();
            self.effects.lock().send(sent);
            id
        }))
    }

    fn cancel(&mut self, timer: String) -> wasmtime::Result<Result<bool, wit::SendError>> {
        Ok(self.cancel_timer(TimerName::of(timer)))
    }

    fn broadcast(&mut self, draft: wit::Draft) -> wasmtime::Result<Result<Vec<String>, wit::SendError>> {
        self.go_on()?;
        Ok(self.send_to_all(&draft))
    }

    async fn request(
        &mut self,
        draft: wit::Draft,
        timeout_ms: u64,
    ) -> wasmtime::Result<Result<wit::Message, wit::RequestError>> {
        self.go_on()?;
        let refuse = |error: wit::SendError| Ok(Err(wit::RequestError::NotSent(error)));
        let Some(work) = &self.work else {
            return refuse(wit::SendError::Unavailable("no message is being handled".to_owned()));
        };
        if let Some(answer) = self.hear_again(&draft) {
            return Ok(answer);
        }
        let _asking = match self.ask() {
            Ok(asking) => asking,
            Err(why) => return refuse(why),
        };
        Ok(self.asker(work, Duration::from_millis(timeout_ms)).ask(draft).await)
    }

    async fn request_all(
        &mut self,
        drafts: Vec<wit::Draft>,
        timeout_ms: u64,
    ) -> wasmtime::Result<Vec<Result<wit::Message, wit::RequestError>>> {
        self.go_on()?;
        let refuse = |error: wit::SendError| Err(wit::RequestError::NotSent(error));
        let limit = self.who.spec.limits.sends;
        let Some(work) = &self.work else {
            let why = "no message is being handled".to_owned();
            return Ok(drafts.iter().map(|_| refuse(wit::SendError::Unavailable(why.clone()))).collect());
        };
        if drafts.len() > limit as usize {
            return Ok(drafts.iter().map(|_| refuse(wit::SendError::TooManySends(limit))).collect());
        }
        let heard: Vec<_> = drafts.iter().map(|draft| self.hear_again(draft)).collect();
        let _asking = match self.ask() {
            Ok(asking) => asking,
            Err(why) => return Ok(drafts.iter().map(|_| refuse(why.clone())).collect()),
        };
        let asker = self.asker(work, Duration::from_millis(timeout_ms));
        let requests = drafts.into_iter().zip(heard).map(|(draft, heard)| async move {
            match heard {
                Some(answer) => answer,
                None => asker.ask(draft).await,
            }
        });
        Ok(futures::future::join_all(requests).await)
    }

    fn find(&mut self, capability: String) -> wasmtime::Result<Vec<String>> {
        Ok(self.outside().find(&capability))
    }
}
