//! The host functions of a guest, and the effects that one call collects.
//!
//! Sends and writes of a guest are collected in [`Effects`] and not carried out: the caller commits or drops them.
//! Reads see the collected writes first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64};
use std::time::{Duration, Instant};

use bytes::Bytes;
use caxton_control::grant::Address;
use caxton_control::{AgentSpec, RevisionId};
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
use crate::telemetry::trace::Trace;

/// A value that was read, with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) value: Vec<u8>,
    /// Grows with every write of the key and never repeats.
    pub(crate) version: u64,
    /// The expiry by the wall clock in milliseconds since 1970; `None` if it does not expire.
    pub(crate) expires_at: Option<u64>,
}

/// A part of an agent's state as a call saw it.
#[derive(Debug)]
pub(crate) struct Seen<T> {
    /// The part that was read.
    pub(crate) what: T,
    /// Set if all of it is durable. Data that is still being committed may be read, but nothing that depends on it may
    /// leave the host before it is durable too.
    pub(crate) safe: bool,
}

/// The identity of a guest for all its requests to the host.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The revision that it runs as.
    pub(crate) revision: Arc<RevisionId>,
    /// The settings that it runs with.
    pub(crate) spec: Arc<AgentSpec>,
    /// The size of the agent's state in bytes, updated by the store after each commit.
    pub(crate) state_bytes: Arc<AtomicU64>,
    /// The largest memory of an instance of the revision in bytes: linear memories and tables.
    pub(crate) peak_memory: Arc<AtomicU64>,
    /// The denials that were logged already.
    pub(crate) denied: Denied,
}

impl Identity {
    /// Returns the identity for calls that are copies, whose denials are logged separately.
    pub(super) fn for_copies(&self) -> Self {
        Self {
            revision: Arc::clone(&self.revision),
            spec: Arc::clone(&self.spec),
            state_bytes: Arc::clone(&self.state_bytes),
            peak_memory: Arc::clone(&self.peak_memory),
            denied: Denied::default(),
        }
    }

    /// Returns the agent's name.
    pub(crate) fn name(&self) -> &str {
        self.revision.agent.as_str()
    }
}

/// The context of a call, for the host functions that it uses.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The conversation of the message being handled.
    pub(crate) conversation: String,
    /// The length of the chain of causes of the message.
    pub(crate) hops: u32,
    /// The time by which the call has to end.
    pub(crate) deadline: Instant,
    /// The trace of the message or request.
    pub(crate) trace: Option<Trace>,
    /// Replaces the host interface of the instance: set for a call that is recorded, or is a copy.
    pub(crate) outside: Option<Arc<dyn Outside>>,
    /// The way to commit before the call ends.
    pub(crate) commits: Commits,
    /// The reservations and earlier answers of the run.
    pub(crate) run: Run,
}

/// The severity of a log line (`wasi:logging`).
pub(crate) use logging::logging::Level as LogLevel;
/// The error of an access to state.
pub(crate) use types::StateError;

/// The interface to everything outside of an instance: other agents, stored state, logs. The host has one
/// implementation, and the tests of this folder a small one.
pub(crate) trait Outside: Send + Sync {
    /// Checks a draft and reserves a place for it in its mailbox.
    fn admit(&self, who: &Identity, work: &Work, draft: wit::Draft) -> Result<Sent, wit::SendError>;
    /// Sends a request at once and waits for the answer.
    fn request<'a>(
        &'a self,
        who: &'a Identity,
        work: &'a Work,
        draft: wit::Draft,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<wit::Message, wit::RequestError>> + Send + 'a>>;
    /// Returns running agents with a capability.
    fn find(&self, capability: &str) -> Vec<String>;
    /// Reads a key as of the last commit, or of one that is under way.
    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String>;
    /// Returns up to `limit` keys with a prefix, in order, after the key `after`.
    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String>;
    /// Returns the id of a timer of the agent, as of the last commit.
    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String>;
    /// Returns the latest snapshot of a stateful agent.
    fn saved(&self, revision: &RevisionId) -> Result<Option<Bytes>, String>;
    /// Reports that an instance of a stateful agent did not restore its snapshot.
    fn not_restored(&self, _revision: &RevisionId, _fault: &Fault) {}
    /// Writes a line to the agent's log.
    fn log(&self, who: &Identity, level: LogLevel, context: &str, text: &str);
    /// Reports that a request was not sent because an earlier run has its answer.
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
    /// The slots, of which this instance has one.
    pub(super) places: Arc<Places>,
    pub(super) work: Option<Work>,
    /// Shared, because the head of an HTTP response is sent while the guest still holds the store.
    pub(super) effects: Arc<Mutex<Effects>>,
    pub(super) memory: MemoryBound,
    pub(super) meter: Arc<Meter>,
    pub(super) table: ResourceTable,
    pub(super) wasi: WasiCtx,
    pub(super) http: WasiHttpCtx,
    pub(super) outbound: Outbound,
    pub(super) answer: HttpAnswering,
    /// The progress of the response of the current HTTP call.
    pub(super) answered: Answered,
    /// The guest's last lines on stderr, shown with its error.
    pub(super) stderr: LineLog,
}

/// The response of the current HTTP call.
#[derive(Default)]
pub(super) struct HttpAnswering {
    /// Set if the request is HEAD.
    pub(super) head: bool,
    /// The status once the response was sent; 0 before. Shared, because it is set while the guest still holds the
    /// store.
    pub(super) status: Arc<AtomicU16>,
}

impl Ctx {
    /// Prepares the store for another call.
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
        // Replaced and not reset: the old one may still be shared with the previous response.
        self.answered = Answered::default();
    }

    /// Returns the host interface of the current call.
    pub(super) fn outside(&self) -> &dyn Outside {
        self.work.as_ref().and_then(|work| work.outside.as_deref()).unwrap_or(&*self.outside)
    }

    pub(super) fn limits(&self) -> &caxton_control::desired::Limits {
        &self.who.spec.limits
    }
}

impl types::Host for Ctx {}

impl Ctx {
    /// Returns the current call, if it may send messages.
    fn may_speak(&self) -> Result<&Work, wit::SendError> {
        if self.is_migration() {
            let why = "a migration tells nobody: it neither sends nor asks, and sets and cancels no timers";
            return Err(wit::SendError::Unsupported(why.to_owned()));
        }
        self.work.as_ref().ok_or_else(|| wit::SendError::Unavailable("no message is being handled".to_owned()))
    }

    /// Returns the current call, if it may send `count` more messages.
    pub(super) fn may_send(&self, count: usize) -> Result<&Work, wit::SendError> {
        let work = self.may_speak()?;
        let effects = self.effects.lock();
        if effects.closed {
            let why = "the response has begun, and with it the commit is made";
            return Err(wit::SendError::Unavailable(why.to_owned()));
        }
        let limit = self.limits().sends;
        // Cancelled timers count as sends: each is a write of the store.
        let made = effects.sent_count + effects.sends.len() + effects.cancels.len();
        if made.saturating_add(count) > limit as usize {
            return Err(wit::SendError::TooManySends(limit));
        }
        Ok(work)
    }

    /// Counts this instance among those that wait for an answer.
    fn ask(&self) -> Result<Asking, wit::SendError> {
        self.places.ask().ok_or_else(|| {
            let most = self.places.most_asking();
            wit::SendError::Unavailable(format!(
                "{most} instances of this host wait for answers already, and the others are for those who answer \
                 (host.instances)"
            ))
        })
    }

    /// Collects a message for each other running agent with the capability: all of them or none.
    fn send_to_all(&self, draft: &wit::Draft) -> Result<Vec<String>, wit::SendError> {
        self.may_speak()?;
        let Address::Capability(capability) = Address::of(&draft.receiver, self.who.name()) else {
            let why = "`receiver` has to be `cap:NAME`: a broadcast goes to all who have a capability";
            return Err(wit::SendError::Invalid(why.to_owned()));
        };
        check_unnamed(draft)?;
        if !self.who.spec.allow.covers_capability(capability) {
            return Err(wit::SendError::NotAllowed(draft.receiver.clone()));
        }
        let mut receivers = self.outside().find(capability);
        // An agent that has the capability itself does not want its own broadcast.
        receivers.retain(|name| name != self.who.name());
        if receivers.is_empty() {
            return Err(wit::SendError::UnknownReceiver(draft.receiver.clone()));
        }
        let work = self.may_send(receivers.len())?;
        let admit = |receiver| self.outside().admit(&self.who, work, wit::Draft { receiver, ..draft.clone() });
        // After an error, the drafts that were admitted are dropped and release their places.
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
        let work = match self.may_speak() {
            Ok(work) => work,
            Err(why) => return refuse(why),
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
        let work = match self.may_speak() {
            Ok(work) => work,
            Err(why) => return Ok(drafts.iter().map(|_| refuse(why.clone())).collect()),
        };
        if drafts.len() > limit as usize {
            return Ok(drafts.iter().map(|_| refuse(wit::SendError::TooManySends(limit))).collect());
        }
        // Before waiting for the others, so that equal drafts are matched in order.
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
