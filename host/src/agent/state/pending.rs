//! The state under way: values that are written and not yet committed, as the next handler reads them, and reserved
//! keys.
//!
//! A handler that reads what another has just written need not wait for the disk: it goes on with the value, and
//! its own commit comes after the other's. If the other's is refused, so is its own, which read a version that
//! never came to be, and it runs again.
//!
//! A handler that runs again has the keys that it touched [reserved](caxton_control::reservations). A reservation ends
//! when the commit is given to the store, not when it is durable: the next handler reads what is written here.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashMap;
use caxton_control::reservations::Reservations;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock;
use crate::message::{Expiry, Read, Value, is_as_seen, sum};
use crate::store::{CommitError, CommitRequest, StateChange, Store};

/// The values that are written and not yet committed.
#[derive(Default)]
pub(in crate::agent) struct Pending {
    state: Mutex<PendingState>,
    /// Keys that are reserved, to be read where the lock would cost too much.
    reserved: AtomicUsize,
}

#[derive(Default)]
struct PendingState {
    /// The newest values. A hash map, because every message looks keys up; the rare caller that needs an order sorts
    /// them.
    keys: AHashMap<String, PendingValue>,
    /// The reserved keys. Under the same lock as the values, so that no key is reserved between the check for
    /// reservations and the write.
    table: Reservations<Continuation>,
    /// The waiters until none of these keys is under way.
    settling: Vec<(BTreeSet<String>, oneshot::Sender<()>)>,
}

/// The newest value of a key.
#[derive(Debug, Clone)]
struct PendingValue {
    version: u64,
    /// The value; `None` if the key is removed.
    value: Option<Value>,
}

impl PendingValue {
    /// Returns the value, unless the key is removed or has expired.
    fn live(&self) -> Option<&Value> {
        self.value.as_ref().filter(|value| value.is_there(clock::now_ms()))
    }
}

/// A callback that lets a run begin.
pub(in crate::agent) type Resume = Box<dyn FnOnce() + Send>;

/// The continuation for when a reserved key is free.
enum Continuation {
    Run(Resume),
    Commit(Box<CommitRequest>),
}

/// The callbacks to run once the lock is released.
#[derive(Default)]
struct Callbacks {
    refused: Vec<(CommitRequest, CommitError)>,
    runs: Vec<Resume>,
}

impl Callbacks {
    fn run(self) {
        self.refused.into_iter().for_each(|(request, why)| request.refuse(why));
        self.runs.into_iter().for_each(|go_on| go_on());
    }
}

impl PendingState {
    /// Returns a key that was read and has been written since.
    fn stale(&self, state: &StateChange) -> Option<String> {
        let now = clock::now_ms();
        let is_stale = |(key, seen): &(&String, &u64)| {
            self.keys.get(*key).is_some_and(|newest| {
                // A key that is removed is seen as one that never was.
                let version = if newest.value.is_some() { newest.version } else { 0 };
                !is_as_seen(**seen, version, newest.value.as_ref().and_then(Value::expires_at), now)
            })
        };
        state.reads.iter().find(is_stale).map(|(key, _)| key.clone())
    }

    /// Gives a commit to the store, delays it, or refuses it.
    fn take(&mut self, store: &Store, mut request: CommitRequest, callbacks: &mut Callbacks) {
        let is_in_line = request.is_in_line();
        let commit = &mut request.commit;
        let (ticket, is_part) = (commit.ticket, commit.is_part);
        if let Some(state) = commit.state.as_mut().filter(|state| state.writes_anything()) {
            let taken = (!self.table.is_empty())
                .then(|| state.written().find(|key| !self.table.admits(std::iter::once(*key), &commit.within)))
                .flatten();
            match taken {
                // A run with reserved keys never waits: two that wait for each other's keys would never end. Nor does
                // one of a stateful agent, whose next commit has its memory.
                Some(key) if ticket.is_some() || is_in_line => {
                    let why = CommitError::Conflict(key.clone());
                    return callbacks.refused.push((request, why));
                }
                Some(_) => {
                    let keys = state.written().cloned().collect();
                    let within = commit.within.clone();
                    return self.table.delay(keys, within, Continuation::Commit(Box::new(request)));
                }
                None => {}
            }
            // Refused before its values can be read: others would build on values that are never committed.
            if let Some(key) = self.stale(state) {
                return callbacks.refused.push((request, CommitError::Conflict(key)));
            }
            if let Err(why) = self.note(store, &commit.agent, state) {
                return callbacks.refused.push((request, why));
            }
        }
        // Under the lock: commits of an agent reach the store in the order of their versions.
        store.submit(request);
        if let (Some(ticket), false) = (ticket, is_part) {
            self.table.leave(ticket);
        }
    }

    /// Adds what a commit writes to the values under way. The result of an `add` is computed from the newest value.
    fn note(&mut self, store: &Store, agent: &str, state: &mut StateChange) -> Result<(), CommitError> {
        let mut sums = Vec::with_capacity(state.adds.len());
        for (key, add) in &mut state.adds {
            let before = match self.keys.get(key) {
                Some(newest) => newest.live().cloned(),
                None => store.state().read(agent, key).map_err(CommitError::Store)?.map(Value::from),
            };
            let bytes = before.as_ref().map(|value| &*value.bytes);
            add.sum = sum(bytes, add.by).map_err(|_| CommitError::NotANumber(key.clone()))?;
            let expiry = before.and_then(|value| value.expires_at()).map(|at| Expiry { at, given: None });
            sums.push((key.clone(), Some(Value { bytes: add.sum.to_string().into(), expiry })));
        }
        // Under the lock, so that the order of versions is that of the commits in the store.
        let version = store.state().next_version();
        state.version = version;
        let written = state.writes.iter().map(|(key, value)| (key.clone(), value.clone()));
        for (key, value) in written.chain(sums) {
            self.keys.insert(key, PendingValue { version, value });
        }
        Ok(())
    }

    /// Runs continuations whose keys are free.
    fn go_on(&mut self, store: &Store, callbacks: &mut Callbacks) {
        loop {
            // In a loop: a commit that goes on leaves its keys, which may free others.
            let due = self.table.due();
            if due.is_empty() {
                return;
            }
            for next in due {
                match next {
                    Continuation::Run(go_on) => callbacks.runs.push(go_on),
                    Continuation::Commit(commit) => self.take(store, *commit, callbacks),
                }
            }
        }
    }

    fn is_settled(&self, keys: &BTreeSet<String>) -> bool {
        self.keys.is_empty() || !keys.iter().any(|key| self.keys.contains_key(key))
    }
}

impl Pending {
    /// Makes a change, and runs the continuations that it frees.
    fn change<T>(&self, store: &Store, change: impl FnOnce(&mut PendingState, &mut Callbacks) -> T) -> T {
        let mut callbacks = Callbacks::default();
        let changed = {
            let mut state = self.state.lock();
            let changed = change(&mut state, &mut callbacks);
            state.go_on(store, &mut callbacks);
            // Relaxed: a run that misses a reservation conflicts at its commit instead.
            self.reserved.store(state.table.len(), Ordering::Relaxed);
            changed
        };
        // Without the lock: they hand commits to the store and start runs, which take it again.
        callbacks.run();
        changed
    }

    /// Gives a commit to the store; what it writes can be read from now on. A commit that writes a key that another has
    /// reserved waits for that; one that is sure to be refused is refused at once.
    pub(in crate::agent) fn submit(&self, store: &Store, request: CommitRequest) {
        let commit = &request.commit;
        let writes = commit.state.as_ref().is_some_and(StateChange::writes_anything);
        if writes || commit.ticket.is_some() {
            self.change(store, |state, callbacks| state.take(store, request, callbacks));
        } else {
            store.submit(request);
        }
    }

    /// Removes what a commit wrote: the store has it, or refused it.
    pub(in crate::agent) fn settled(&self, change: &StateChange) {
        if !change.writes_anything() {
            return;
        }
        let mut state = self.state.lock();
        let PendingState { keys, settling, .. } = &mut *state;
        for key in change.written() {
            // A later handler may have written the key anew since.
            if keys.get(key).is_some_and(|value| value.version == change.version) {
                keys.remove(key);
            }
        }
        if !settling.is_empty() {
            let waiting = std::mem::take(settling);
            for (keys, settled) in waiting {
                if state.is_settled(&keys) {
                    // The waiter may have been dropped.
                    let _ = settled.send(());
                } else {
                    state.settling.push((keys, settled));
                }
            }
        }
    }

    /// Waits until nothing of these keys is under way. They are reserved, so that this ends.
    pub(in crate::agent) async fn until_settled(&self, keys: &BTreeSet<String>) {
        let settled = {
            let mut state = self.state.lock();
            if state.is_settled(keys) {
                return;
            }
            let (sender, settled) = oneshot::channel();
            state.settling.push((keys.clone(), sender));
            settled
        };
        // The sender is dropped with the agent only.
        let _ = settled.await;
    }

    /// Queues a run for keys, and releases those that it had. `go_on` is called when it can [begin](Self::begin).
    pub(in crate::agent) fn queue_run(
        &self,
        store: &Store,
        ticket: u64,
        keys: BTreeSet<String>,
        (within, first): (Vec<u64>, bool),
        go_on: Resume,
    ) {
        self.change(store, |state, _| state.table.wait(ticket, keys, within, first, Continuation::Run(go_on)));
    }

    /// Reserves the keys of a run that was called. Returns `false` if another has one of them.
    pub(in crate::agent) fn begin(&self, ticket: u64) -> bool {
        self.state.lock().table.begin(ticket)
    }

    /// Queues a run that could not begin in its old place.
    pub(in crate::agent) fn requeue_run(&self, store: &Store, ticket: u64, go_on: Resume) {
        self.change(store, |state, _| state.table.wait_again(ticket, Continuation::Run(go_on)));
    }

    /// Releases the keys of a ticket.
    pub(in crate::agent) fn release(&self, store: &Store, ticket: u64) {
        // Most runs never reserve, and need no lock to leave.
        if self.reserved.load(Ordering::Relaxed) > 0 {
            self.change(store, |state, _| state.table.leave(ticket));
        }
    }

    /// Returns true if a run within these must not depend on a key.
    pub(in crate::agent) fn is_reserved(&self, key: &str, within: &[u64]) -> bool {
        self.reserved.load(Ordering::Relaxed) > 0 && self.state.lock().table.is_reserved(key, within)
    }

    /// Returns a key as it will be; `None` if nothing is under way for it.
    pub(in crate::agent) fn read(&self, key: &str) -> Option<Option<Read>> {
        let state = self.state.lock();
        let found = state.keys.get(key)?;
        Some(found.live().map(|value| Read {
            value: value.bytes.to_vec(),
            version: found.version,
            expires_at: value.expires_at(),
        }))
    }

    /// Returns the keys under way with a prefix, after a key, each with `true` if it will exist.
    pub(super) fn keys(&self, prefix: &str, after: Option<&str>) -> Vec<(String, bool)> {
        let state = self.state.lock();
        let keys = state.keys.iter();
        keys.filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after))
            .map(|(key, newest)| (key.clone(), newest.live().is_some()))
            .collect()
    }
}
