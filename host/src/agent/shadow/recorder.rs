//! The recording of a live handling, with all that it reads from outside of itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::RevisionId;
use caxton_control::rollout::comparison::Answer;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::handler_answer::{answer, answer_size, call_line, effects_size, fault_answer};
use super::http_job::RecordedCall;
use super::job_queue::{Shadow, ShadowJob, Subject};
use super::recording::{LiveCall, MAX_BYTES, Recording};
use super::replayed_calls::record_answer;
use crate::agent::Directory;
use crate::message::{
    CallBody, CallContext, Draft, Effects, Failure, Fault, GuestHost, GuestHttpCall, HashedBody, HttpCallError,
    Identity, LogLevel, Message, Outgoing, Read, Reply, RequestError, RequestHasher, Seen, SendError, TimerName,
    declared_length,
};

/// The most keys that are written unread and whose value before is looked up. A copy that reads a further one cannot be
/// compared.
const MAX_UNREAD: usize = 64;

/// The host of a live handling, which passes all through and records it.
struct RecordingHost {
    directory: Arc<dyn Directory>,
    // Locked after each call of the host, never across one: the real host may wait. Shared with the bodies of calls over
    // HTTP, which outlive the call of the host.
    recording: Arc<Mutex<Recording>>,
}

impl GuestHost for RecordingHost {
    fn admit(&self, who: &Identity, work: &CallContext, draft: Draft) -> Result<Outgoing, SendError> {
        let receiver = draft.receiver.clone();
        let admitted = GuestHost::admit(&*self.directory, who, work, draft);
        let mut recording = self.recording.lock();
        if recording.grow(receiver.len()) {
            recording.sends.push((receiver, admitted.as_ref().err().cloned()));
        }
        admitted
    }

    fn request<'a>(
        &'a self,
        who: &'a Identity,
        work: &'a CallContext,
        draft: Draft,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Message, RequestError>> + Send + 'a>> {
        // Added now and answered later: requests are compared in the order in which they were made.
        let index = {
            let mut recording = self.recording.lock();
            let bytes = draft.receiver.len() + draft.content.len();
            recording.grow(bytes).then(|| {
                recording.requests.push((draft.clone(), None));
                recording.requests.len() - 1
            })
        };
        Box::pin(async move {
            let answer = self.directory.request(who, work, draft, timeout).await;
            let mut recording = self.recording.lock();
            let bytes = answer.as_ref().map_or(0, |message| message.content.len());
            if let Some(index) = index.filter(|_| recording.grow(bytes)) {
                recording.requests[index].1 = Some(answer.clone());
            }
            answer
        })
    }

    fn find(&self, capability: &str) -> Vec<String> {
        let found = self.directory.find(capability);
        let mut recording = self.recording.lock();
        // The first answer counts; a copy asks from the beginning.
        if !recording.found.contains_key(capability) && recording.grow(found.iter().map(String::len).sum()) {
            recording.found.insert(capability.to_owned(), found.clone());
        }
        found
    }

    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String> {
        let seen = self.directory.read(agent, key)?;
        let mut recording = self.recording.lock();
        // Checked before the value is copied: the same key is often read many times.
        if !recording.reads.contains_key(key) {
            let bytes = key.len() + seen.value.as_ref().map_or(0, |read| read.value.len());
            if recording.grow(bytes) {
                recording.reads.insert(key.to_owned(), seen.value.clone());
            }
        }
        Ok(seen)
    }

    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        let seen = self.directory.keys(agent, prefix, after, limit)?;
        let mut recording = self.recording.lock();
        if recording.grow(seen.value.iter().map(String::len).sum()) {
            recording.listings.insert((prefix.to_owned(), after.map(str::to_owned), limit), seen.value.clone());
        }
        Ok(seen)
    }

    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String> {
        let found = self.directory.timer(agent, timer)?;
        let mut recording = self.recording.lock();
        if recording.grow(timer.text().len()) {
            recording.timers.entry(timer.text().to_owned()).or_insert_with(|| found.clone());
        }
        Ok(found)
    }

    fn saved<'a>(&'a self, revision: &'a RevisionId) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        self.directory.saved(revision)
    }

    fn call_http(
        &self,
        who: &Arc<Identity>,
        work: &CallContext,
        call: GuestHttpCall,
    ) -> BoxFuture<'static, Result<http::Response<CallBody>, HttpCallError>> {
        let line = call_line(&call);
        let mut recording = self.recording.lock();
        if !recording.grow(line.len()) {
            drop(recording);
            return self.directory.call_http(who, work, call);
        }
        let index = recording.calls.len();
        recording.calls.push(LiveCall { line, hash: None, answer: None });
        drop(recording);
        let (head, body) = call.request.into_parts();
        let (hasher, hashed) = (RequestHasher::new(&head), Arc::clone(&self.recording));
        let on_hash = Box::new(move |hash| {
            if let Some(call) = hashed.lock().calls.get_mut(index) {
                call.hash = Some(hash);
            }
        });
        let body = HashedBody::new(body, declared_length(&head.headers), hasher, on_hash).boxed_unsync();
        let request = http::Request::from_parts(head, body);
        let answer = self.directory.call_http(who, work, GuestHttpCall { request, ..call });
        let recording = Arc::clone(&self.recording);
        Box::pin(async move { record_answer(&recording, index, answer.await) })
    }

    fn log(&self, who: &Identity, level: LogLevel, context: &str, text: &str) {
        self.directory.log(who, level, context, text);
    }

    fn request_replayed(&self, draft: &Draft, answer: &Result<Message, RequestError>) {
        let mut recording = self.recording.lock();
        let bytes = answer.as_ref().map_or(0, |message| message.content.len());
        if recording.grow(draft.receiver.len() + draft.content.len() + bytes) {
            recording.requests.push((draft.clone(), Some(answer.clone())));
        }
    }
}

/// A live handling that is recorded.
pub(crate) struct Recorder {
    shadow: Arc<Shadow>,
    host: Arc<RecordingHost>,
    /// The mark at which the handling began; see [`Shadow::is_key_changed`].
    mark: u64,
    hops: u32,
    answer: Option<Answer>,
    /// The permit, held until the job is queued: it bounds the memory of all recordings.
    permit: OwnedSemaphorePermit,
}

impl Recorder {
    /// Creates the recorder of a handling that is about to begin.
    pub(super) fn new(
        shadow: Arc<Shadow>,
        directory: Arc<dyn Directory>,
        hops: u32,
        permit: OwnedSemaphorePermit,
    ) -> Box<Self> {
        let mark = shadow.mark();
        let host = Arc::new(RecordingHost { directory, recording: Arc::default() });
        // Boxed, because nearly all handlings have none.
        Box::new(Self { shadow, host, mark, hops, answer: None, permit })
    }

    /// Returns the host that the handling has to use instead of the real one.
    pub(in crate::agent) fn outside(&self) -> Arc<dyn GuestHost> {
        Arc::clone(&self.host) as Arc<dyn GuestHost>
    }

    /// Takes the answer of the handler, before any of its effects is committed.
    pub(in crate::agent) fn answered(
        &mut self,
        agent: &str,
        result: &Result<Option<Reply>, Failure>,
        effects: &Effects,
    ) {
        // Checked before the answer copies them.
        if effects_size(effects) > MAX_BYTES {
            return;
        }
        self.read_unread(agent, effects);
        let requests = self.host.recording.lock().request_effects();
        self.answer = Some(answer(result, effects, requests));
    }

    /// Reads the keys that are written unread: the candidate may read them first, and by then they have changed.
    pub(super) fn read_unread(&self, agent: &str, effects: &Effects) {
        let is_unread = |key: &&String| !self.host.recording.lock().reads.contains_key(*key);
        for key in effects.writes.keys().chain(effects.adds.keys()).filter(is_unread).take(MAX_UNREAD) {
            // A failure is no loss: the copy finds no recorded value either, and is set aside.
            let _ = GuestHost::read(&*self.host, agent, key);
        }
    }

    /// Takes the fault of the handler.
    pub(in crate::agent) fn failed(&mut self, fault: &Fault) {
        // A fault of the host says nothing about the revision.
        if fault.is_guests() {
            self.answer = Some(fault_answer(fault));
        }
    }

    /// Queues a copy of the message. Called after the commit, so that copies are made of messages handled for good
    /// only.
    pub(in crate::agent) fn enqueue_message(self, message: Message) {
        let Self { shadow, host, mark, hops, answer, permit: _permit } = self;
        let recording = std::mem::take(&mut *host.recording.lock());
        match answer {
            Some(answer) if recording.is_complete() => {
                let bytes = message.content.len() + recording.bytes() + answer_size(&answer);
                let subject = Subject::Message(Box::new(message), hops);
                shadow.enqueue(ShadowJob { subject, recording: Arc::new(recording), mark, answer, bytes });
            }
            Some(_) | None => shadow.set_aside(),
        }
    }

    /// Queues a copy of a call; `None` for a part that is not known.
    pub(super) fn enqueue_call(&self, call: Option<RecordedCall>, answer: Option<Answer>) {
        let recording = std::mem::take(&mut *self.host.recording.lock());
        match call.zip(answer) {
            // Twice: the body of the answer has the bound of a recording for itself.
            Some((call, mut answer)) if recording.is_complete() && answer_size(&answer) <= 2 * MAX_BYTES => {
                if answer.reply.is_ok() {
                    answer.effects.extend(recording.request_effects());
                }
                let bytes = call.bytes() + recording.bytes() + answer_size(&answer);
                let (subject, mark) = (Subject::Call(Box::new(call)), self.mark);
                self.shadow.enqueue(ShadowJob { subject, recording: Arc::new(recording), mark, answer, bytes });
            }
            Some(_) | None => self.shadow.set_aside(),
        }
    }
}
