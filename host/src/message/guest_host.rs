//! The host as a running guest sees it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use caxton_control::{AgentSpec, RevisionId};
use futures::future::BoxFuture;

use super::contract::{Draft, Message, RequestError, SendError};
use super::effects::CommitMode;
use super::fault::Fault;
use super::http_call::{CallBody, CallScope, GuestHttpCall, HttpCallError};
use super::id::new_id;
use super::journal::CallJournal;
use super::outgoing::Outgoing;
use super::reservation::RunContext;
use super::tcp::{GuestConnect, LookedUp, TcpConnection, TcpError};
use super::timer::TimerName;
use super::value::{Expiry, Value};
use crate::budgets::Tree;
use crate::clock;
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

impl From<Read> for Value {
    fn from(read: Read) -> Self {
        let expiry = read.expires_at.map(|at| Expiry { at, given: None });
        Self { bytes: read.value.into(), expiry }
    }
}

/// A part of an agent's state as a call saw it.
#[derive(Debug)]
pub(crate) struct Seen<T> {
    /// The part that was read.
    pub(crate) value: T,
    /// Set if all of it is durable. Data that is still being committed may be read, but nothing that depends on it may
    /// leave the host before it is durable too.
    pub(crate) durable: bool,
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
}

impl Identity {
    /// Returns the agent's name.
    pub(crate) fn name(&self) -> &str {
        self.revision.agent.as_str()
    }
}

/// The context of a call, for the host functions that it uses.
#[derive(Debug, Clone)]
pub(crate) struct CallContext {
    /// The conversation of the message being handled.
    pub(crate) conversation: String,
    /// The length of the chain of messages that caused the message.
    pub(crate) hops: u32,
    /// The time by which the call has to end.
    pub(crate) deadline: Instant,
    /// The trace of the message or request.
    pub(crate) trace: Option<Trace>,
    /// The tree of the message or request, if that has a budget.
    pub(crate) tree: Option<Tree>,
    /// Replaces the host interface of the instance: set for a call that is recorded, or is a copy.
    pub(crate) host: Option<Arc<dyn GuestHost>>,
    /// The way to commit before the call ends.
    pub(crate) commit_mode: CommitMode,
    /// The reservations and earlier answers of the run.
    pub(crate) run: RunContext,
    /// The journal of calls over HTTP; `None` if none is kept.
    pub(crate) calls: Option<Arc<CallJournal>>,
}

impl CallContext {
    /// Returns the time that a handler may be on a core: what the budget of its tree has left, if that is less than its
    /// limit.
    pub(crate) fn cpu(&self, limit: Duration) -> Duration {
        // A call that commits before its end would be blamed for it.
        let tree = self.tree.as_ref().filter(|_| matches!(self.commit_mode, CommitMode::WithResult));
        tree.and_then(Tree::cpu_left).map_or(limit, |left| left.min(limit))
    }
}

/// The identity of a call of an HTTP agent, the same in each run: an extension of its request.
#[derive(Debug, Clone)]
pub(crate) struct CallOrigin {
    /// The id.
    pub(crate) id: String,
    /// The time of its arrival in milliseconds since 1970.
    pub(crate) at_ms: u64,
}

impl CallOrigin {
    /// Creates the identity of a call that arrives now.
    pub(crate) fn now() -> Self {
        Self { id: new_id(), at_ms: clock::now_ms() }
    }
}

/// The severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

/// The interface of the host to everything outside of an instance: other agents, stored state, logs.
///
/// A trait, because the code that runs guests knows neither mailboxes nor the database, and because a recorded call and
/// a copy have implementations of their own: one that records, and one that answers from the record.
pub(crate) trait GuestHost: Send + Sync {
    /// Checks a draft and reserves a place for it in its mailbox.
    fn admit(&self, who: &Identity, work: &CallContext, draft: Draft) -> Result<Outgoing, SendError>;
    /// Sends a request at once and waits for the answer.
    fn request<'a>(
        &'a self,
        who: &'a Identity,
        work: &'a CallContext,
        draft: Draft,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Message, RequestError>> + Send + 'a>>;
    /// Returns running agents with a capability.
    fn find(&self, capability: &str) -> Vec<String>;
    /// Reads a key as of the last commit, or of one that is under way.
    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String>;
    /// Returns up to `limit` keys with a prefix, in order, after the key `after`.
    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String>;
    /// Returns the id of a timer of the agent, as of the last commit.
    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String>;
    /// Returns the latest snapshot of a stateful agent, once all that it commits is decided.
    fn saved<'a>(&'a self, revision: &'a RevisionId) -> BoxFuture<'a, Result<Option<Bytes>, String>>;
    /// Reports that an instance of a stateful agent did not restore its snapshot.
    fn not_restored(&self, _revision: &RevisionId, _fault: &Fault) {}
    /// Reports that the revision starts no more instances, because they failed to start again and again.
    fn given_up(&self, _revision: &RevisionId) {}
    /// Returns the bytes of a key and its value as of the last commit, or of one that is under way; 0 for a key that is
    /// not there.
    fn size(&self, agent: &str, key: &str) -> Result<u64, String> {
        let read = self.read(agent, key)?.value;
        Ok(read.map_or(0, |read| (key.len() + read.value.len()) as u64))
    }
    /// Writes a line to the agent's log.
    fn log(&self, who: &Identity, level: LogLevel, context: &str, text: &str);
    /// Makes a call over HTTP, at once: it cannot be undone. The call ends with its scope.
    fn call_http(
        &self,
        _who: &Arc<Identity>,
        _work: &CallContext,
        _call: GuestHttpCall,
    ) -> BoxFuture<'static, Result<http::Response<CallBody>, HttpCallError>> {
        // Of a host that lets nothing leave it.
        Box::pin(std::future::ready(Err(HttpCallError::Denied)))
    }
    /// Looks up the addresses of a name for connections. The look-up ends with its scope.
    fn look_up(
        &self,
        _who: &Arc<Identity>,
        _work: &CallContext,
        _name: String,
        _scope: Arc<CallScope>,
    ) -> BoxFuture<'static, Result<LookedUp, TcpError>> {
        Box::pin(std::future::ready(Err(TcpError::Denied)))
    }
    /// Makes a connection over TCP, at once. It ends with its scope.
    fn connect(
        &self,
        _who: &Arc<Identity>,
        _work: &CallContext,
        _call: GuestConnect,
    ) -> BoxFuture<'static, Result<Arc<TcpConnection>, TcpError>> {
        Box::pin(std::future::ready(Err(TcpError::Denied)))
    }
    /// Notes that the call is about to change a file, by the path that the guest sees. Returns `false` if it may not.
    fn admits_change(&self, _path: &str) -> bool {
        false
    }
    /// Reports that a request was not sent because an earlier run has its answer.
    fn request_replayed(&self, _draft: &Draft, _answer: &Result<Message, RequestError>) {}
}

impl std::fmt::Debug for dyn GuestHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuestHost")
    }
}
