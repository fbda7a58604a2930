//! The host of a copy: it answers as it answered the live handling.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::RevisionId;
use caxton_control::rollout::comparison::Effect;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::handler_answer::{change_line, connect_line, connection_line, request_effect};
use super::job_queue::Shadow;
use super::recording::Recording;
use super::replayed_calls::{ReplayedCalls, replay};
use super::sandbox::{check_send, refused_request};
use crate::agent::Directory;
use crate::message::{
    CallBody, CallContext, CallScope, Draft, GuestConnect, GuestHost, GuestHttpCall, HttpCallError, Identity, LogLevel,
    LookedUp, Message, Outgoing, Read, RequestError, Seen, SendError, TcpConnection, TcpError, TimerName,
};

/// The host of a copy.
pub(super) struct ReplayHost {
    directory: Arc<dyn Directory>,
    shadow: Arc<Shadow>,
    recording: Arc<Recording>,
    /// The mark at which the live handling began.
    mark: u64,
    progress: Mutex<ReplayProgress>,
    /// The calls over HTTP, which outlive the call of the host.
    calls: Arc<Mutex<ReplayedCalls>>,
}

/// The progress of a copy through its recording.
#[derive(Default)]
struct ReplayProgress {
    /// The requests that the copy made.
    requests: Vec<Effect>,
    /// The indices of recorded answers that were given.
    answers: Vec<usize>,
    /// The indices of recorded sends that were repeated.
    sends: Vec<usize>,
    /// Set if the copy read a value that is neither recorded nor unchanged.
    is_incomplete: bool,
}

impl ReplayHost {
    /// Creates the host of a copy whose original began at `mark`.
    pub(super) fn new(
        directory: &Arc<dyn Directory>,
        shadow: &Arc<Shadow>,
        recording: &Arc<Recording>,
        mark: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            directory: Arc::clone(directory),
            shadow: Arc::clone(shadow),
            recording: Arc::clone(recording),
            mark,
            progress: Mutex::default(),
            calls: Arc::new(Mutex::new(ReplayedCalls::of(recording))),
        })
    }

    /// Returns `true` if the copy read a value that is not known any more, so that its answer must not be compared.
    pub(super) fn is_incomplete(&self) -> bool {
        self.progress.lock().is_incomplete
    }

    /// Takes the requests that the copy made, and its calls over HTTP.
    pub(super) fn take_requests(&self) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.progress.lock().requests);
        effects.append(&mut self.calls.lock().take_effects());
        effects
    }

    fn unknown<T>(&self) -> Result<T, String> {
        self.progress.lock().is_incomplete = true;
        Err("it has changed since the message was handled".to_owned())
    }

    /// Returns the recorded answer to a request. A request that is worded otherwise gets the answer to the next one to
    /// the same agent: a candidate may ask the same thing in another form.
    fn answer(&self, draft: &Draft) -> Result<Message, RequestError> {
        let mut progress = self.progress.lock();
        // Noted before the answer: a request that is refused is part of the comparison as well.
        progress.requests.push(request_effect(draft));
        let is_similar = |asked: &Draft| asked.receiver == draft.receiver;
        let is_same = |asked: &Draft| {
            is_similar(asked) && asked.content == draft.content && asked.performative == draft.performative
        };
        let left = || self.recording.requests.iter().enumerate().filter(|(at, _)| !progress.answers.contains(at));
        let same = left().find(|(_, (asked, _))| is_same(asked));
        let found = same.or_else(|| left().find(|(_, (asked, _))| is_similar(asked)));
        match found.map(|(at, (_, answer))| (at, answer.clone())) {
            Some((at, answer)) => {
                progress.answers.push(at);
                // The live handling did not wait for it to the end.
                answer.unwrap_or(Err(RequestError::TimedOut))
            }
            None => refused_request(),
        }
    }
}

impl GuestHost for ReplayHost {
    fn admit(&self, who: &Identity, work: &CallContext, draft: Draft) -> Result<Outgoing, SendError> {
        let refused = {
            let mut progress = self.progress.lock();
            let mut left = self.recording.sends.iter().enumerate().filter(|(at, _)| !progress.sends.contains(at));
            // By receiver and not by content: a candidate may word its messages differently.
            let found = left.find(|(_, (receiver, _))| *receiver == draft.receiver);
            let found = found.map(|(at, (_, refused))| (at, refused.clone()));
            found.and_then(|(at, refused)| {
                progress.sends.push(at);
                refused
            })
        };
        refused.map_or_else(|| check_send(&*self.directory, who, work, draft), Err)
    }

    fn request<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a CallContext,
        draft: Draft,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Message, RequestError>> + Send + 'a>> {
        Box::pin(std::future::ready(self.answer(&draft)))
    }

    fn find(&self, capability: &str) -> Vec<String> {
        // A capability that the live handling did not ask for has no recorded answer; the present one is rarely
        // another.
        self.recording.found.get(capability).cloned().unwrap_or_else(|| self.directory.find(capability))
    }

    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String> {
        if let Some(read) = self.recording.reads.get(key) {
            return Ok(Seen { value: read.clone(), durable: true });
        }
        // Read before the check: a write between the two is then seen as a change.
        let seen = self.directory.read(agent, key)?;
        if self.shadow.is_key_changed(key, self.mark) { self.unknown() } else { Ok(seen) }
    }

    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        let listing = (prefix.to_owned(), after.map(str::to_owned), limit);
        if let Some(keys) = self.recording.listings.get(&listing) {
            return Ok(Seen { value: keys.clone(), durable: true });
        }
        let seen = self.directory.keys(agent, prefix, after, limit)?;
        if self.shadow.is_prefix_changed(prefix, self.mark) { self.unknown() } else { Ok(seen) }
    }

    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String> {
        match self.recording.timers.get(timer.text()) {
            Some(found) => Ok(found.clone()),
            None => self.directory.timer(agent, timer),
        }
    }

    fn saved<'a>(&'a self, _: &'a RevisionId) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn call_http(
        &self,
        _: &Arc<Identity>,
        _: &CallContext,
        call: GuestHttpCall,
    ) -> BoxFuture<'static, Result<http::Response<CallBody>, HttpCallError>> {
        replay(&self.calls, call)
    }

    fn look_up(
        &self,
        _: &Arc<Identity>,
        _: &CallContext,
        name: String,
        _: Arc<CallScope>,
    ) -> BoxFuture<'static, Result<LookedUp, TcpError>> {
        self.calls.lock().refuse(connect_line(&name));
        Box::pin(std::future::ready(Err(TcpError::Denied)))
    }

    fn connect(
        &self,
        _: &Arc<Identity>,
        _: &CallContext,
        call: GuestConnect,
    ) -> BoxFuture<'static, Result<Arc<TcpConnection>, TcpError>> {
        self.calls.lock().refuse(connection_line(&call));
        Box::pin(std::future::ready(Err(TcpError::Denied)))
    }

    fn admits_change(&self, path: &str) -> bool {
        self.calls.lock().refuse(change_line(path));
        false
    }

    fn log(&self, _: &Identity, _: LogLevel, _: &str, _: &str) {}
}
