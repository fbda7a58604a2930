//! The state of an agent as one call sees it: the last commit with the call's own writes on top.

use std::sync::atomic::Ordering;

use crate::clock;
use crate::message::{CLOSED, Effects, Expiry, Seen, Value, Write};
use crate::wasm::bindings::caxton::agent::state;
use crate::wasm::bindings::types::{self as wit, StateError};
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::requests;

/// The longest key in bytes.
pub(in crate::wasm) const MAX_KEY: u32 = 1_024;
/// The largest value in bytes, whatever `limits.state` allows: the store keeps a value in one row of bounded size.
pub(crate) const MAX_VALUE: u64 = 256 << 20;
/// The most keys that a call may read between two commits.
const MAX_READS: usize = 20_000;
/// The most keys in one page of a list.
const MAX_PAGE: u32 = 1_000;

impl Ctx {
    /// Reads a key: first in the call's own writes, then in the store. Notes the version for the conflict check at
    /// commit.
    fn look_up(&self, key: &str) -> Result<Option<Value>, StateError> {
        if let Some(written) = self.effects.lock().writes.get(key) {
            return Ok(written.clone().filter(|value| value.is_there(clock::now_ms())));
        }
        self.check_reads(key)?;
        // Before the guard below, because it takes the same lock.
        let reserved = self.is_reserved(key);
        let Seen { value: read, durable } = self.host().read(self.who.name(), key).map_err(StateError::Unavailable)?;
        let version = read.as_ref().map_or(0, |read| read.version);
        let mut effects = self.effects.lock();
        // The first version that was read is the one to check.
        effects.reads.entry(key.to_owned()).or_insert(version);
        // Data that depends on an uncommitted value must not leave the host before that value is durable.
        effects.reads_uncommitted |= !durable;
        if reserved {
            effects.blocked_on.get_or_insert_with(|| key.to_owned());
        }
        let found = read.map(Value::from);
        let Some(by) = effects.adds.get(key) else { return Ok(found) };
        Ok(Some(requests::to(found, *by)?))
    }

    /// Refuses a write outside of a message or call: in `save`, `restore` and `check`, which commit nothing.
    pub(in crate::wasm) fn may_write(&self) -> Result<(), StateError> {
        let refused = || StateError::Unavailable("no message is being handled".to_owned());
        self.work.as_ref().map(|_| ()).ok_or_else(refused)
    }

    /// Refuses to read another key once the call has read as many as it may: each is kept until the commit and compared
    /// there by the one writer.
    fn check_reads(&self, key: &str) -> Result<(), StateError> {
        let effects = self.effects.lock();
        if effects.reads.len() < MAX_READS || effects.reads.contains_key(key) {
            return Ok(());
        }
        Err(StateError::Unavailable(format!(
            "this handling has read {MAX_READS} keys, as many as it may; it has to commit or end before it reads others"
        )))
    }

    pub(in crate::wasm) fn write(&mut self, key: String, value: Write) -> Result<(), StateError> {
        // Checked in front of the sizes, so that an invalid key is reported as such however large its value is.
        check_key(&key)?;
        self.may_write()?;
        let limits = self.limits();
        let most = limits.state_bytes.min(MAX_VALUE);
        if value.as_ref().is_some_and(|value| value.bytes.len() as u64 > most) {
            return Err(StateError::TooLarge(most));
        }
        let mut effects = self.effects.lock();
        if effects.closed {
            return Err(StateError::Unavailable(CLOSED.to_owned()));
        }
        if effects.write_count >= limits.writes {
            return Err(StateError::TooManyWrites(limits.writes));
        }
        // A removal can only shrink the state.
        if value.is_some() {
            self.check_quota(&mut effects, &key, &value)?;
        }
        let bytes = value.as_ref().map_or(0, |value| value.bytes.len() as u64);
        if !effects.take_bytes(bytes, limits.effects_bytes, &self.budget) {
            return Err(StateError::TooLarge(limits.effects_bytes));
        }
        effects.write_count += 1;
        // A write replaces the value, and with it the additions that were collected for it.
        effects.adds.remove(&key);
        let Effects { writes, sizes, .. } = &mut *effects;
        sizes.note(&key, writes.get(&key), &value);
        writes.insert(key, value);
        Ok(())
    }

    /// Refuses a write that would exceed the quota of the agent. The sizes of old values are looked up only if the sum
    /// without them exceeds it, and each once.
    pub(in crate::wasm) fn check_quota(
        &self,
        effects: &mut Effects,
        key: &str,
        value: &Write,
    ) -> Result<(), StateError> {
        let before = effects.writes.get(key);
        let added = effects.sizes.with(key, before, value);
        let (used, quota) = (self.who.state_bytes.load(Ordering::Relaxed), self.limits().state_bytes);
        // The usual case needs no look-up.
        if used.saturating_add(added) <= quota {
            return Ok(());
        }
        let size = |key: &str| self.host().size(self.who.name(), key).map_err(StateError::Unavailable);
        // Of a key that is written already it is among those of the writes.
        let own = if before.is_none() { size(key)? } else { 0 };
        let replaced = effects.sizes.replaced(size)?.saturating_add(own);
        if used.saturating_add(added).saturating_sub(replaced) <= quota {
            Ok(())
        } else {
            Err(StateError::Quota(quota))
        }
    }
}

fn check_key(key: &str) -> Result<(), StateError> {
    if key.is_empty() || key.len() > MAX_KEY as usize { Err(StateError::InvalidKey(MAX_KEY)) } else { Ok(()) }
}

impl state::Host for Ctx {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, StateError>> {
        Ok(check_key(&key).and_then(|()| self.look_up(&key)).map(|found| found.map(|value| value.bytes.into())))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), StateError>> {
        self.check_not_blocked()?;
        let written = self.write(key, Some(Value::lasting(value.into())));
        self.check_not_starved(&written)?;
        Ok(written)
    }

    fn set_for(&mut self, key: String, value: Vec<u8>, ttl_ms: u64) -> wasmtime::Result<Result<(), StateError>> {
        self.check_not_blocked()?;
        let expiry = Some(Expiry::after(clock::now_ms(), ttl_ms));
        let written = self.write(key, Some(Value { bytes: value.into(), expiry }));
        self.check_not_starved(&written)?;
        Ok(written)
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<Result<(), StateError>> {
        self.check_not_blocked()?;
        Ok(self.write(key, None))
    }

    fn increment(&mut self, key: String, by: i64) -> wasmtime::Result<Result<i64, StateError>> {
        // The sum is made here, because the guest gets it; `add` leaves it to the commit.
        let summed = check_key(&key).and_then(|()| {
            let sum = requests::sum_of(self.look_up(&key)?, by)?;
            self.write(key, Some(sum.1))?;
            Ok(sum.0)
        });
        self.check_not_blocked()?;
        Ok(summed)
    }

    fn add(&mut self, key: String, by: i64) -> wasmtime::Result<Result<(), StateError>> {
        self.check_not_blocked()?;
        Ok(check_key(&key).and_then(|()| self.add_unread(key, by)))
    }

    fn list_keys(
        &mut self,
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Result<wit::KeyPage, StateError>> {
        let (limit, now) = (limit.clamp(1, MAX_PAGE), clock::now_ms());
        let is_there = |write: &Write| write.as_ref().is_some_and(|value| value.is_there(now));
        let mut effects = self.effects.lock();
        // The call's own removals hide at most as many committed keys, so that this many more are read.
        let hidden =
            u32::try_from(effects.writes.values().filter(|write| !is_there(write)).count()).unwrap_or(u32::MAX);
        let ask = limit.saturating_add(hidden).saturating_add(1);
        let kept = match self.host().keys(self.who.name(), &prefix, cursor.as_deref(), ask) {
            Ok(seen) => {
                effects.reads_uncommitted |= !seen.durable;
                seen.value
            }
            Err(why) => return Ok(Err(StateError::Unavailable(why))),
        };
        let after = |key: &String| cursor.as_ref().is_none_or(|cursor| key > cursor);
        let own = effects.writes.iter().filter(|(_, write)| is_there(write)).map(|(key, _)| key);
        let own = own.chain(effects.adds.keys()).filter(|key| key.starts_with(&prefix) && after(key));
        let mut keys: Vec<String> =
            kept.into_iter().filter(|key| effects.writes.get(key).is_none_or(is_there)).chain(own.cloned()).collect();
        // Own keys follow the store's here, and a key that is in both would be listed twice.
        keys.sort_unstable();
        keys.dedup();
        // One key more than the limit was read, which tells a full last page from one with a successor.
        let more = keys.len() > limit as usize;
        keys.truncate(limit as usize);
        let cursor = if more { keys.last().cloned() } else { None };
        Ok(Ok(wit::KeyPage { keys, cursor }))
    }
}
