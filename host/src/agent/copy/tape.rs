//! What a handling sees of what lies outside it, recorded while it is live.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::RevisionId;
use caxton_control::rollout::compare::{Answer, Effect};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{answer, faulty, question, size, size_of};
use super::call::CallCopy;
use super::shadow::{Asked, Copy, Shadow};
use crate::agent::Directory;
use crate::wasm::{Effects, Fault, Identity, LogLevel, Outside, Read, Seen, Sent, TimerName, Work, wit};

/// Bytes of one recording: what sees more is not copied.
pub(super) const MAX_BYTES: usize = 2 << 20;
/// Keys that were written unread and whose value before is looked up, at most: a copy that asks for another cannot be
/// compared.
const MAX_UNREAD: usize = 64;

/// A list of keys that was asked for: prefix, after which key, how many at most.
pub(super) type Listing = (String, Option<String>, u32);

/// What a handling saw.
#[derive(Default)]
pub(super) struct Tape {
    pub(super) reads: HashMap<String, Option<Read>>,
    pub(super) lists: HashMap<Listing, Vec<String>>,
    pub(super) found: HashMap<String, Vec<String>>,
    /// Timers that were asked for, by id or name.
    pub(super) timers: HashMap<String, Option<String>>,
    /// Questions in order, with what came of them.
    pub(super) asked: Vec<(wit::Draft, Option<Result<wit::Message, wit::RequestError>>)>,
    /// To whom it wanted to send, in order, and why it could not.
    pub(super) sent: Vec<(String, Option<wit::SendError>)>,
    bytes: usize,
}

impl Tape {
    fn takes(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= MAX_BYTES
    }

    /// The questions as effects.
    fn questions(&self) -> Vec<Effect> {
        self.asked.iter().map(|(draft, _)| question(draft)).collect()
    }
}

/// Lets a live handling reach what it always does, and notes what it sees.
pub(super) struct Recorder {
    directory: Arc<dyn Directory>,
    tape: Mutex<Tape>,
}

impl Outside for Recorder {
    fn admit(&self, who: &Identity, work: &Work, draft: wit::Draft) -> Result<Sent, wit::SendError> {
        let receiver = draft.receiver.clone();
        let admitted = Outside::admit(&*self.directory, who, work, draft);
        let mut tape = self.tape.lock();
        if tape.takes(receiver.len()) {
            tape.sent.push((receiver, admitted.as_ref().err().cloned()));
        }
        admitted
    }

    fn request<'a>(
        &'a self,
        who: &'a Identity,
        work: &'a Work,
        draft: wit::Draft,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<wit::Message, wit::RequestError>> + Send + 'a>> {
        // In the order of the questions, whichever is answered first.
        let place = {
            let mut tape = self.tape.lock();
            let bytes = draft.receiver.len() + draft.content.len();
            tape.takes(bytes).then(|| {
                tape.asked.push((draft.clone(), None));
                tape.asked.len() - 1
            })
        };
        Box::pin(async move {
            let answer = self.directory.request(who, work, draft, timeout).await;
            let mut tape = self.tape.lock();
            let bytes = answer.as_ref().map_or(0, |message| message.content.len());
            if let Some(place) = place.filter(|_| tape.takes(bytes)) {
                tape.asked[place].1 = Some(answer.clone());
            }
            answer
        })
    }

    fn find(&self, capability: &str) -> Vec<String> {
        let found = self.directory.find(capability);
        let mut tape = self.tape.lock();
        if !tape.found.contains_key(capability) && tape.takes(found.iter().map(String::len).sum()) {
            tape.found.insert(capability.to_owned(), found.clone());
        }
        found
    }

    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String> {
        let seen = self.directory.read(agent, key)?;
        let mut tape = self.tape.lock();
        if !tape.reads.contains_key(key) {
            let bytes = key.len() + seen.what.as_ref().map_or(0, |read| read.value.len());
            if tape.takes(bytes) {
                tape.reads.insert(key.to_owned(), seen.what.clone());
            }
        }
        Ok(seen)
    }

    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        let seen = self.directory.keys(agent, prefix, after, limit)?;
        let mut tape = self.tape.lock();
        if tape.takes(seen.what.iter().map(String::len).sum()) {
            tape.lists.insert((prefix.to_owned(), after.map(str::to_owned), limit), seen.what.clone());
        }
        Ok(seen)
    }

    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String> {
        let found = self.directory.timer(agent, timer)?;
        let mut tape = self.tape.lock();
        if tape.takes(timer.text().len()) {
            tape.timers.entry(timer.text().to_owned()).or_insert_with(|| found.clone());
        }
        Ok(found)
    }

    fn saved(&self, revision: &RevisionId) -> Result<Option<Bytes>, String> {
        self.directory.saved(revision)
    }

    fn log(&self, who: &Identity, level: LogLevel, context: &str, text: &str) {
        self.directory.log(who, level, context, text);
    }

    fn heard_again(&self, draft: &wit::Draft, answer: &Result<wit::Message, wit::RequestError>) {
        let mut tape = self.tape.lock();
        let bytes = answer.as_ref().map_or(0, |message| message.content.len());
        if tape.takes(draft.receiver.len() + draft.content.len() + bytes) {
            tape.asked.push((draft.clone(), Some(answer.clone())));
        }
    }
}

/// A live handling that is recorded, so that a copy of it can be handled.
pub(crate) struct Recording {
    shadow: Arc<Shadow>,
    recorder: Arc<Recorder>,
    /// How much was written by then; see [`Shadow::changed`].
    began: u64,
    hops: u32,
    answer: Option<Answer>,
    /// One of few: what they hold is in memory.
    turn: OwnedSemaphorePermit,
}

impl Recording {
    /// Of a handling that is about to begin.
    pub(super) fn new(
        shadow: Arc<Shadow>,
        directory: Arc<dyn Directory>,
        began: u64,
        hops: u32,
        turn: OwnedSemaphorePermit,
    ) -> Box<Self> {
        let recorder = Arc::new(Recorder { directory, tape: Mutex::default() });
        Box::new(Self { shadow, recorder, began, hops, answer: None, turn })
    }

    /// What the handling is to reach in place of what it reaches otherwise.
    pub(in crate::agent) fn outside(&self) -> Arc<dyn Outside> {
        Arc::clone(&self.recorder) as Arc<dyn Outside>
    }

    /// The handler is done, and nothing of its effects is committed yet.
    pub(in crate::agent) fn answered(
        &mut self,
        agent: &str,
        result: &Result<Option<wit::Reply>, wit::Failure>,
        effects: &Effects,
    ) {
        if size_of(effects) > MAX_BYTES {
            return;
        }
        self.note_unread(agent, effects);
        let asked = self.recorder.tape.lock().questions();
        self.answer = Some(answer(result, effects, asked));
    }

    /// Notes what was written unread, as it was before: the candidate may read it first, and then it is there no more.
    pub(super) fn note_unread(&self, agent: &str, effects: &Effects) {
        let unread = |key: &&String| !self.recorder.tape.lock().reads.contains_key(*key);
        for key in effects.writes.keys().chain(effects.adds.keys()).filter(unread).take(MAX_UNREAD) {
            // What cannot be read now is not known to the copy either.
            let _ = Outside::read(&*self.recorder, agent, key);
        }
    }

    /// A call over HTTP is over; none of what is not known of it.
    pub(super) fn copy_call(&self, call: Option<CallCopy>, answer: Option<Answer>) {
        let tape = std::mem::take(&mut *self.recorder.tape.lock());
        match call.zip(answer) {
            Some((call, mut answer)) if tape.bytes <= MAX_BYTES && size(&answer) <= 2 * MAX_BYTES => {
                if answer.reply.is_ok() {
                    answer.effects.extend(tape.questions());
                }
                let bytes = call.bytes() + tape.bytes + size(&answer);
                let (asked, began) = (Asked::Call(Box::new(call)), self.began);
                self.shadow.offer(Copy { asked, tape: Arc::new(tape), began, answer, bytes });
            }
            Some(_) | None => self.shadow.set_aside(),
        }
    }

    /// The handler brought no result.
    pub(in crate::agent) fn failed(&mut self, fault: &Fault) {
        if fault.is_guests() {
            self.answer = Some(faulty(fault));
        }
    }

    /// The handling is over, and what it came to is safe: a copy of the message is handled when there is time for it.
    pub(in crate::agent) fn copy(self, message: wit::Message) {
        let Self { shadow, recorder, began, hops, answer, turn: _turn } = self;
        let tape = std::mem::take(&mut *recorder.tape.lock());
        match answer {
            Some(answer) if tape.bytes <= MAX_BYTES => {
                let bytes = message.content.len() + tape.bytes + size(&answer);
                let asked = Asked::Message(Box::new(message), hops);
                shadow.offer(Copy { asked, tape: Arc::new(tape), began, answer, bytes });
            }
            Some(_) | None => shadow.set_aside(),
        }
    }
}
