//! A copy of an agent's state that is written to, over the state itself.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::RevisionId;
use caxton_control::rollout::comparison::Effect;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::super::handler_answer::{change_line, connect_line, connection_line};
use super::super::replayed_calls::{ReplayedCalls, replay};
use super::super::sandbox::{check_send, refused_request};
use crate::agent::Directory;
use crate::clock;
use crate::message::{
    CallBody, CallContext, CallScope, Draft, Expiry, GuestConnect, GuestHost, GuestHttpCall, HttpCallError, Identity,
    LogLevel, LookedUp, Message, Outgoing, Read, RequestError, Seen, SendError, TcpConnection, TcpError, TimerName,
    Value, sum,
};

/// The most bytes that a rehearsal may write: they are in memory, beside those of live messages.
const MAX_BYTES: usize = 64 << 20;

/// The host of a rehearsed message. Keys that earlier messages wrote are read from here, others from the state as it is
/// now.
pub(super) struct StateOverlay {
    directory: Arc<dyn Directory>,
    agent: Arc<str>,
    written: Mutex<OverlayWrite>,
    /// The calls over HTTP of the message in hand.
    calls: Mutex<Arc<Mutex<ReplayedCalls>>>,
}

#[derive(Default)]
struct OverlayWrite {
    /// `None` for a key that was removed.
    keys: BTreeMap<String, Option<Value>>,
    bytes: usize,
}

impl StateOverlay {
    pub(super) fn new(directory: &Arc<dyn Directory>, agent: Arc<str>) -> Arc<Self> {
        let (directory, written, calls) = (Arc::clone(directory), Mutex::default(), Mutex::default());
        Arc::new(Self { directory, agent, written, calls })
    }

    /// Begins with a message whose calls over HTTP were answered like this.
    pub(super) fn begin(&self, answers: Option<&[u8]>) {
        *self.calls.lock() = Arc::new(Mutex::new(answers.map(ReplayedCalls::decode).unwrap_or_default()));
    }

    /// Takes the calls over HTTP of the last message.
    pub(super) fn take_calls(&self) -> Vec<Effect> {
        self.calls.lock().lock().take_effects()
    }

    /// Writes the effects of a message, for the next one to read. Returns `false` if the copy exceeds its bound.
    pub(super) fn write(&self, writes: BTreeMap<String, Option<Value>>, adds: &BTreeMap<String, i64>) -> bool {
        let added = adds.iter().filter_map(|(key, by)| {
            let before = GuestHost::read(self, &self.agent, key).ok()?.value;
            let sum = sum(before.as_ref().map(|read| read.value.as_slice()), *by).ok()?;
            let expiry = before.and_then(|read| read.expires_at).map(|at| Expiry { at, given: None });
            Some((key.clone(), Some(Value { bytes: sum.to_string().into(), expiry })))
        });
        // Collected before the lock is taken, because each read takes it.
        let added: Vec<_> = added.collect();
        let mut written = self.written.lock();
        let size = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.bytes.len());
        for (key, value) in writes.into_iter().chain(added) {
            written.bytes += key.len() + size(&value);
            let length = key.len();
            // The bound is for what is in memory now, and not for the sum of all writes.
            if let Some(before) = written.keys.insert(key, value) {
                written.bytes -= length + size(&before);
            }
        }
        written.bytes <= MAX_BYTES
    }
}

impl GuestHost for StateOverlay {
    fn admit(&self, who: &Identity, work: &CallContext, draft: Draft) -> Result<Outgoing, SendError> {
        check_send(&*self.directory, who, work, draft)
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

    fn find(&self, capability: &str) -> Vec<String> {
        self.directory.find(capability)
    }

    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String> {
        if let Some(written) = self.written.lock().keys.get(key) {
            let there = written.as_ref().filter(|value| value.is_there(clock::now_ms()));
            let what =
                there.map(|value| Read { value: value.bytes.to_vec(), version: 0, expires_at: value.expires_at() });
            // Nothing leaves a rehearsal, so that nothing has to wait for the disk.
            return Ok(Seen { value: what, durable: true });
        }
        self.directory.read(agent, key)
    }

    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        let written: Vec<(String, bool)> = {
            let (written, now) = (self.written.lock(), clock::now_ms());
            let below = written
                .keys
                .iter()
                .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
            let is_there = |value: &Option<Value>| value.as_ref().is_some_and(|value| value.is_there(now));
            below.map(|(key, value)| (key.clone(), is_there(value))).collect()
        };
        // Removed keys do not count, so that as many more are asked for.
        let removed = written.iter().filter(|(_, there)| !there).count();
        let ask = limit.saturating_add(u32::try_from(removed).unwrap_or(u32::MAX));
        let kept = self.directory.keys(agent, prefix, after, ask)?.value;
        // Written keys after the end of a full page belong to the next page: stored keys may come between.
        let end = if kept.len() >= ask as usize { kept.last().cloned() } else { None };
        let mut keys: BTreeSet<String> = kept.into_iter().collect();
        for (key, there) in written {
            if !there {
                keys.remove(&key);
            } else if end.as_ref().is_none_or(|end| key <= *end) {
                keys.insert(key);
            }
        }
        Ok(Seen { value: keys.into_iter().take(limit as usize).collect(), durable: true })
    }

    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String> {
        self.directory.timer(agent, timer)
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
        let calls = Arc::clone(&self.calls.lock());
        replay(&calls, call)
    }

    fn look_up(
        &self,
        _: &Arc<Identity>,
        _: &CallContext,
        name: String,
        _: Arc<CallScope>,
    ) -> BoxFuture<'static, Result<LookedUp, TcpError>> {
        self.calls.lock().lock().refuse(connect_line(&name));
        Box::pin(std::future::ready(Err(TcpError::Denied)))
    }

    fn connect(
        &self,
        _: &Arc<Identity>,
        _: &CallContext,
        call: GuestConnect,
    ) -> BoxFuture<'static, Result<Arc<TcpConnection>, TcpError>> {
        self.calls.lock().lock().refuse(connection_line(&call));
        Box::pin(std::future::ready(Err(TcpError::Denied)))
    }

    fn admits_change(&self, path: &str) -> bool {
        self.calls.lock().lock().refuse(change_line(path));
        false
    }

    fn log(&self, _: &Identity, _: LogLevel, _: &str, _: &str) {}
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::*;
    use crate::context::HostContext;
    use crate::conversation::Conversations;
    use crate::directory::HostDirectory;
    use crate::message::Expiry;
    use crate::store::Store;

    #[tokio::test]
    async fn keys_expire_in_the_copy() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(folder.path(), &crate::store::tests::settings(Durability::Os), Conversations::load).unwrap();
        let context = HostContext::new(store, tokio::runtime::Handle::current());
        let directory: Arc<dyn Directory> = HostDirectory::new(context).unwrap();
        let overlay = StateOverlay::new(&directory, "triage".into());
        let write = |key: &str, ms: i64| {
            let at = clock::now_ms().saturating_add_signed(ms);
            (key.to_owned(), Some(Value { bytes: "1".into(), expiry: Some(Expiry { at, given: None }) }))
        };
        assert!(overlay.write([write("live", 3_600_000), write("over", -1)].into(), &BTreeMap::new()));
        let read = |key| overlay.read("triage", key).unwrap().value;
        assert!(read("live").is_some_and(|read| read.value == b"1" && read.expires_at.is_some()));
        assert_eq!(read("over"), None);
        assert_eq!(overlay.keys("triage", "", None, 9).unwrap().value, ["live"]);
        // An increment keeps the time to live, and starts anew after the key has expired.
        assert!(overlay.write(BTreeMap::new(), &[("live".to_owned(), 2), ("over".to_owned(), 5)].into()));
        assert!(read("live").is_some_and(|read| read.value == b"3" && read.expires_at.is_some()));
        assert!(read("over").is_some_and(|read| read.value == b"5" && read.expires_at.is_none()));
    }
}
