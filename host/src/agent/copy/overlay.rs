//! What lies outside a message that is rehearsed: the state that is, with what earlier messages of the rehearsal wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::RevisionId;
use parking_lot::Mutex;

use super::asks_nobody;
use super::replay::nowhere;
use crate::agent::Directory;
use crate::clock;
use crate::wasm::{Expiry, Identity, LogLevel, Outside, Read, Seen, Sent, TimerName, Value, Work, sum, wit};

/// Bytes that a rehearsal may write, at most: they are in memory.
const MAX_BYTES: usize = 64 << 20;

/// A copy of an agent's state that is written to; what is not written is read from the state itself.
pub(super) struct Overlay {
    directory: Arc<dyn Directory>,
    agent: Arc<str>,
    own: Mutex<Own>,
}

#[derive(Default)]
struct Own {
    /// None for a key that is removed.
    keys: BTreeMap<String, Option<Value>>,
    bytes: usize,
}

impl Overlay {
    pub(super) fn new(directory: &Arc<dyn Directory>, agent: Arc<str>) -> Arc<Self> {
        Arc::new(Self { directory: Arc::clone(directory), agent, own: Mutex::default() })
    }

    /// What a message wrote is there for the next. False when there is no room for more.
    pub(super) fn write(&self, writes: BTreeMap<String, Option<Value>>, adds: &BTreeMap<String, i64>) -> bool {
        let added = adds.iter().filter_map(|(key, by)| {
            let before = Outside::read(self, &self.agent, key).ok()?.what;
            let sum = sum(before.as_ref().map(|read| read.value.as_slice()), *by).ok()?;
            let expiry = before.and_then(|read| read.expires_at).map(|at| Expiry { at, given: None });
            Some((key.clone(), Some(Value { bytes: sum.to_string().into(), expiry })))
        });
        // Before the lock, which each look takes.
        let added: Vec<_> = added.collect();
        let mut own = self.own.lock();
        let size = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.bytes.len());
        for (key, value) in writes.into_iter().chain(added) {
            own.bytes += key.len() + size(&value);
            let length = key.len();
            if let Some(before) = own.keys.insert(key, value) {
                own.bytes -= length + size(&before);
            }
        }
        own.bytes <= MAX_BYTES
    }
}

impl Outside for Overlay {
    fn admit(&self, who: &Identity, work: &Work, draft: wit::Draft) -> Result<Sent, wit::SendError> {
        nowhere(&*self.directory, who, work, draft)
    }

    fn request<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a Work,
        _: wit::Draft,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<wit::Message, wit::RequestError>> + Send + 'a>> {
        Box::pin(std::future::ready(asks_nobody()))
    }

    fn find(&self, capability: &str) -> Vec<String> {
        self.directory.find(capability)
    }

    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String> {
        if let Some(own) = self.own.lock().keys.get(key) {
            let there = own.as_ref().filter(|value| value.is_there(clock::now_ms()));
            let what =
                there.map(|value| Read { value: value.bytes.to_vec(), version: 0, expires_at: value.expires_at() });
            return Ok(Seen { what, safe: true });
        }
        self.directory.read(agent, key)
    }

    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        let own: Vec<(String, bool)> = {
            let (own, now) = (self.own.lock(), clock::now_ms());
            let below = own
                .keys
                .iter()
                .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
            let is_there = |value: &Option<Value>| value.as_ref().is_some_and(|value| value.is_there(now));
            below.map(|(key, value)| (key.clone(), is_there(value))).collect()
        };
        let removed = own.iter().filter(|(_, there)| !there).count();
        let ask = limit.saturating_add(u32::try_from(removed).unwrap_or(u32::MAX));
        let kept = self.directory.keys(agent, prefix, after, ask)?.what;
        // Beyond the last one of a full page there are more, which come with the next.
        let end = if kept.len() >= ask as usize { kept.last().cloned() } else { None };
        let mut keys: BTreeSet<String> = kept.into_iter().collect();
        for (key, there) in own {
            if !there {
                keys.remove(&key);
            } else if end.as_ref().is_none_or(|end| key <= *end) {
                keys.insert(key);
            }
        }
        Ok(Seen { what: keys.into_iter().take(limit as usize).collect(), safe: true })
    }

    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String> {
        self.directory.timer(agent, timer)
    }

    fn saved(&self, _: &RevisionId) -> Result<Option<Bytes>, String> {
        Ok(None)
    }

    fn log(&self, _: &Identity, _: LogLevel, _: &str, _: &str) {}
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::*;
    use crate::context::HostContext;
    use crate::directory::HostDirectory;
    use crate::store::Store;
    use crate::wasm::Expiry;

    #[tokio::test]
    async fn what_a_rehearsal_writes_for_a_time_is_gone_in_it_when_that_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &crate::store::tests::settings(Durability::Os)).unwrap();
        let context = HostContext::new(store, tokio::runtime::Handle::current());
        let directory: Arc<dyn Directory> = HostDirectory::new(context).unwrap();
        let overlay = Overlay::new(&directory, "triage".into());
        let write = |key: &str, ms: i64| {
            let at = clock::now_ms().saturating_add_signed(ms);
            (key.to_owned(), Some(Value { bytes: "1".into(), expiry: Some(Expiry { at, given: None }) }))
        };
        assert!(overlay.write([write("live", 3_600_000), write("over", -1)].into(), &BTreeMap::new()));
        let read = |key| overlay.read("triage", key).unwrap().what;
        assert!(read("live").is_some_and(|read| read.value == b"1" && read.expires_at.is_some()));
        assert_eq!(read("over"), None);
        assert_eq!(overlay.keys("triage", "", None, 9).unwrap().what, ["live"]);
        // What is added to it goes with it, and begins anew where it is over.
        assert!(overlay.write(BTreeMap::new(), &[("live".to_owned(), 2), ("over".to_owned(), 5)].into()));
        assert!(read("live").is_some_and(|read| read.value == b"3" && read.expires_at.is_some()));
        assert!(read("over").is_some_and(|read| read.value == b"5" && read.expires_at.is_none()));
    }
}
