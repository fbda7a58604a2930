//! What a copy sees: what the live handling saw.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::RevisionId;
use caxton_control::rollout::compare::Effect;
use parking_lot::Mutex;

use super::answer::question;
use super::shadow::Shadow;
use super::tape::Tape;
use super::{Nowhere, asks_nobody};
use crate::agent::Directory;
use crate::wasm::{Identity, Inbox, LogLevel, Outside, Read, Seen, Sent, TimerName, Work, wit};

/// What lies outside a copy.
pub(super) struct Replay {
    directory: Arc<dyn Directory>,
    shadow: Arc<Shadow>,
    tape: Arc<Tape>,
    began: u64,
    heard: Mutex<Heard>,
}

/// What a copy has asked for until now.
#[derive(Default)]
struct Heard {
    asked: Vec<Effect>,
    /// Which recorded answers it has had.
    answered: Vec<usize>,
    /// Which recorded sends it has made.
    sent: Vec<usize>,
    /// Whether it asked for something that is not known any more.
    lost: bool,
}

impl Replay {
    pub(super) fn new(directory: &Arc<dyn Directory>, shadow: &Arc<Shadow>, tape: &Arc<Tape>, began: u64) -> Arc<Self> {
        Arc::new(Self {
            directory: Arc::clone(directory),
            shadow: Arc::clone(shadow),
            tape: Arc::clone(tape),
            began,
            heard: Mutex::default(),
        })
    }

    /// Whether it asked for something that is not known any more, so that nothing can be said of what it did.
    pub(super) fn is_lost(&self) -> bool {
        self.heard.lock().lost
    }

    /// The questions for whose answers it waited.
    pub(super) fn asked(&self) -> Vec<Effect> {
        std::mem::take(&mut self.heard.lock().asked)
    }

    fn lose<T>(&self) -> Result<T, String> {
        self.heard.lock().lost = true;
        Err("it has changed since the message was handled".to_owned())
    }

    /// What came of the question when the live handling asked it; of one to the same agent, if it put it otherwise.
    fn answer(&self, draft: &wit::Draft) -> Result<wit::Message, wit::RequestError> {
        let mut heard = self.heard.lock();
        heard.asked.push(question(draft));
        let alike = |asked: &wit::Draft| asked.receiver == draft.receiver;
        let same = |asked: &wit::Draft| {
            alike(asked) && asked.content == draft.content && asked.performative == draft.performative
        };
        let left = || self.tape.asked.iter().enumerate().filter(|(at, _)| !heard.answered.contains(at));
        let found = left().find(|(_, (asked, _))| same(asked)).or_else(|| left().find(|(_, (asked, _))| alike(asked)));
        match found.map(|(at, (_, answer))| (at, answer.clone())) {
            Some((at, answer)) => {
                heard.answered.push(at);
                answer.unwrap_or(Err(wit::RequestError::TimedOut))
            }
            None => asks_nobody(),
        }
    }
}

impl Outside for Replay {
    fn admit(&self, who: &Identity, work: &Work, draft: wit::Draft) -> Result<Sent, wit::SendError> {
        let refused = {
            let mut heard = self.heard.lock();
            let mut left = self.tape.sent.iter().enumerate().filter(|(at, _)| !heard.sent.contains(at));
            let found = left.find(|(_, (receiver, _))| *receiver == draft.receiver);
            let found = found.map(|(at, (_, refused))| (at, refused.clone()));
            found.and_then(|(at, refused)| {
                heard.sent.push(at);
                refused
            })
        };
        refused.map_or_else(|| nowhere(&*self.directory, who, work, draft), Err)
    }

    fn request<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a Work,
        draft: wit::Draft,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<wit::Message, wit::RequestError>> + Send + 'a>> {
        Box::pin(std::future::ready(self.answer(&draft)))
    }

    fn find(&self, capability: &str) -> Vec<String> {
        self.tape.found.get(capability).cloned().unwrap_or_else(|| self.directory.find(capability))
    }

    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String> {
        if let Some(read) = self.tape.reads.get(key) {
            return Ok(Seen { what: read.clone(), safe: true });
        }
        let seen = self.directory.read(agent, key)?;
        if self.shadow.changed(key, self.began) { self.lose() } else { Ok(seen) }
    }

    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        let listing = (prefix.to_owned(), after.map(str::to_owned), limit);
        if let Some(keys) = self.tape.lists.get(&listing) {
            return Ok(Seen { what: keys.clone(), safe: true });
        }
        let seen = self.directory.keys(agent, prefix, after, limit)?;
        if self.shadow.changed_below(prefix, self.began) { self.lose() } else { Ok(seen) }
    }

    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String> {
        match self.tape.timers.get(timer.text()) {
            Some(found) => Ok(found.clone()),
            None => self.directory.timer(agent, timer),
        }
    }

    fn saved(&self, _: &RevisionId) -> Result<Option<Bytes>, String> {
        Ok(None)
    }

    fn log(&self, _: &Identity, _: LogLevel, _: &str, _: &str) {}
}

/// Checks a draft as if it were sent.
pub(super) fn nowhere(
    directory: &dyn Directory,
    who: &Identity,
    work: &Work,
    draft: wit::Draft,
) -> Result<Sent, wit::SendError> {
    let (_, envelope) = directory.address(who, work, draft)?;
    Ok(Sent::new(Arc::new(Nowhere) as Arc<dyn Inbox>, envelope))
}

/// What lies outside an instance between its copies: nothing, but for the memory that it begins with.
pub(super) struct Nothing {
    /// The memory of a stateful agent, as it was saved.
    pub(super) saved: Option<Bytes>,
}

impl Outside for Nothing {
    fn admit(&self, _: &Identity, _: &Work, _: wit::Draft) -> Result<Sent, wit::SendError> {
        Err(wit::SendError::Unavailable("no message is being handled".to_owned()))
    }

    fn request<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a Work,
        _: wit::Draft,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<wit::Message, wit::RequestError>> + Send + 'a>> {
        // No message is being handled.
        Box::pin(std::future::ready(asks_nobody()))
    }

    fn find(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn read(&self, _: &str, _: &str) -> Result<Seen<Option<Read>>, String> {
        Ok(Seen { what: None, safe: true })
    }

    fn keys(&self, _: &str, _: &str, _: Option<&str>, _: u32) -> Result<Seen<Vec<String>>, String> {
        Ok(Seen { what: Vec::new(), safe: true })
    }

    fn timer(&self, _: &str, _: &TimerName) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn saved(&self, _: &RevisionId) -> Result<Option<Bytes>, String> {
        Ok(self.saved.clone())
    }

    fn log(&self, _: &Identity, _: LogLevel, _: &str, _: &str) {}
}
