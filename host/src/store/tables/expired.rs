//! The removal of expired keys: reads leave them out already, and they leave the disk a few at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::params;
use tokio::sync::oneshot;

use crate::store::commit::{Commit, CommitError, StateChange};
use crate::store::commit_request::{CommitRequest, Committed};
use crate::store::handles::StateTable;

impl StateTable<'_> {
    /// Keys whose time is over and that are still on the disk, by agent: those of longest ago, at most `limit` in all.
    pub(crate) fn expired(self, now: u64, limit: u32) -> Result<BTreeMap<Arc<str>, Vec<String>>, String> {
        self.0.with_reader(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT agent, key FROM state WHERE expires_at IS NOT NULL AND expires_at <= ?1
                 ORDER BY expires_at LIMIT ?2",
            )?;
            let mut expired: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
            for row in statement.query_map(params![now.cast_signed(), limit], |row| Ok((row.get(0)?, row.get(1)?)))? {
                let (agent, key): (Arc<str>, String) = row?;
                expired.entry(agent).or_default().push(key);
            }
            Ok(expired)
        })
    }

    /// Removes those of an agent's keys whose time is over; returns when that is safe. `bytes` is told the size of its
    /// state then.
    pub(crate) async fn remove_expired(
        self,
        agent: Arc<str>,
        keys: Vec<String>,
        bytes: Arc<AtomicU64>,
    ) -> Result<(), CommitError> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |committed: Committed| {
            // Here and not by the caller: in the order of the commits.
            if let Some(size) = committed.state_bytes {
                bytes.store(size, Ordering::Relaxed);
            }
            // The caller may have left.
            let _ = sender.send(committed.result);
        });
        let mut commit = Commit::new(agent);
        commit.state = Some(StateChange {
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
            expired: keys,
            adds: BTreeMap::new(),
            // No key is written, so none gets this version.
            version: 0,
            // A removal is never refused.
            quota: u64::MAX,
        });
        self.0.submit(CommitRequest::new(commit, Vec::new(), done));
        receiver.await.unwrap_or_else(|_| Err(CommitError::Store("its writer ended".to_owned())))
    }
}
