//! The guest calls beyond plain reads and writes: additions without a read, reads of reserved keys, and requests whose
//! answer an earlier run has.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock;
use crate::memory_budget::MemoryShortage;
use crate::message::{
    CLOSED, CallContext, Draft, Effects, GuestHost, Identity, Message, NotANumber, RequestError, Value, sum,
};
use crate::wasm::bindings::types::StateError;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::fault::Reserved;

/// The longest decimal text of a number, to estimate its size.
const NUMBER: &[u8] = b"-9223372036854775808";

/// A run with reserved keys waits for an answer for one part in this many of its time, and then gives the keys up: the
/// agent it waits for may wait for those keys in a way that the host does not see.
const WAIT_SHARE: u32 = 4;

/// Adds to a value and keeps its expiry.
pub(in crate::wasm) fn to(before: Option<Value>, by: i64) -> Result<Value, NotANumber> {
    sum_of(before, by).map(|(_, value)| value)
}

/// Adds to a value, and also returns the sum as a number.
pub(in crate::wasm) fn sum_of(before: Option<Value>, by: i64) -> Result<(i64, Value), NotANumber> {
    let sum = sum(before.as_ref().map(|value| &*value.bytes), by)?;
    let expiry = before.and_then(|value| value.expiry);
    Ok((sum, Value { bytes: sum.to_string().into(), expiry }))
}

/// The host's side of requests to other agents in one call.
#[derive(Clone, Copy)]
pub(in crate::wasm) struct RequestAsker<'a> {
    who: &'a Identity,
    host: &'a dyn GuestHost,
    effects: &'a Mutex<Effects>,
    work: &'a CallContext,
    timeout: Duration,
}

impl RequestAsker<'_> {
    /// Sends the request and records the answer for a later run.
    pub(in crate::wasm) async fn ask(self, draft: Draft) -> Result<Message, RequestError> {
        let Self { who, host, effects, work, timeout } = self;
        let asked = draft.clone();
        // Kept across the timeout: the request was sent, and its answer is awaited further without the keys.
        let mut request = host.request(who, work, draft, timeout);
        let answer = match (work.run.ticket, &work.run.reservations) {
            (Some(ticket), Some(reservations)) => {
                match tokio::time::timeout(who.spec.limits.time / WAIT_SHARE, &mut request).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        // Others may change the keys now; a conflict at commit repeats this run, which finds the answer
                        // recorded.
                        reservations.release(ticket);
                        request.await
                    }
                }
            }
            _ => request.await,
        };
        // Errors after the send are recorded too: a repeated run must not send the same request again.
        effects.lock().requests.record(asked, &answer);
        answer
    }
}

impl Ctx {
    /// Returns `true` if another handler is to change the key before this run may depend on it.
    pub(in crate::wasm) fn is_reserved(&self, key: &str) -> bool {
        let Some(run) = self.work.as_ref().map(|work| &work.run).filter(|run| run.yields) else { return false };
        // A run with a committed part cannot start from its beginning.
        !self.effects.lock().partly_committed
            && run.reservations.as_ref().is_some_and(|reservations| reservations.is_reserved(key, &run.own_tickets))
    }

    /// Ends a run that read a key which another handler has reserved, before it does anything that depends on it.
    ///
    /// # Errors
    /// A [`Reserved`] trap with the key.
    pub(in crate::wasm) fn check_not_blocked(&self) -> wasmtime::Result<()> {
        match &self.effects.lock().blocked_on {
            None => Ok(()),
            Some(key) => Err(Reserved(key.clone()).into()),
        }
    }

    /// Ends a run whose last effect was refused because the host has no memory for it.
    ///
    /// # Errors
    /// A [`MemoryShortage`] trap, which is no fault of the guest.
    pub(in crate::wasm) fn check_not_starved<T, E>(&self, effect: &Result<T, E>) -> wasmtime::Result<()> {
        // Without the lock in the usual case.
        if effect.is_err() && self.effects.lock().is_starved { Err(MemoryShortage.into()) } else { Ok(()) }
    }

    /// Returns the answer of an earlier run to the same request.
    pub(in crate::wasm) fn replay_answer(&self, draft: &Draft) -> Option<Result<Message, RequestError>> {
        let answer = self.effects.lock().requests.replay(draft)?;
        self.host().request_replayed(draft, &answer);
        Some(answer)
    }

    /// Creates the host's side of requests for this call.
    pub(in crate::wasm) fn asker<'a>(&'a self, work: &'a CallContext, timeout: Duration) -> RequestAsker<'a> {
        RequestAsker { who: &self.who, host: self.host(), effects: &self.effects, work, timeout }
    }

    /// Adds to a number without reading it: the sum is made at commit, so that concurrent additions do not conflict.
    pub(in crate::wasm) fn add_unread(&mut self, key: String, by: i64) -> Result<(), StateError> {
        self.may_write()?;
        let own = self.effects.lock().writes.get(&key).cloned();
        if let Some(own) = own {
            let sum = to(own.filter(|value| value.is_there(clock::now_ms())), by)?;
            // This call has set the value itself, so that the sum is known and nothing can conflict with it.
            return self.write(key, Some(sum));
        }
        // A read without a conflict check, to report a value that is not a number here instead of at commit.
        let read = self.host().read(self.who.name(), &key).map_err(StateError::Unavailable)?.value;
        let limits = self.limits();
        let mut effects = self.effects.lock();
        if effects.closed {
            return Err(StateError::Unavailable(CLOSED.to_owned()));
        }
        if effects.write_count >= limits.writes {
            return Err(StateError::TooManyWrites(limits.writes));
        }
        let by = effects.adds.get(&key).copied().unwrap_or(0).checked_add(by).ok_or(StateError::NotANumber)?;
        sum(read.as_ref().map(|read| read.value.as_slice()), by)?;
        // An existing key can grow by a few digits only, which is not worth a check of the quota.
        if read.is_none() {
            self.check_quota(&mut effects, &key, &Some(Value::lasting(Bytes::from_static(NUMBER))))?;
        }
        effects.write_count += 1;
        effects.adds.insert(key, by);
        Ok(())
    }
}
