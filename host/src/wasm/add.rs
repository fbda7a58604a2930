//! Guest calls beside plain reads and writes: additions to unread numbers, reads of reserved keys, and questions that a
//! run before this one asked already.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::effects::{Effects, Value};
use super::fault::Reserved;
use super::guest::{Ctx, Identity, Outside, StateError, Work};
use super::wit;
use crate::clock;

/// The most bytes of a number as decimal text.
const NUMBER: &[u8] = b"-9223372036854775808";

/// Of the time that a message has, the part for which a run that has keys reserved waits for an answer before it gives
/// them up, as one over this: whoever it waits for may wait for those keys in a way that the host does not see.
const PATIENCE: u32 = 4;

/// Adds to a number that is kept as decimal text.
pub(crate) fn sum(before: Option<&[u8]>, by: i64) -> Result<i64, StateError> {
    let before = match before {
        None => 0,
        Some(bytes) => {
            std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<i64>().ok()).ok_or(StateError::NotANumber)?
        }
    };
    before.checked_add(by).ok_or(StateError::NotANumber)
}

/// Adds to a value. The time at which its key is gone stays.
pub(super) fn to(before: Option<Value>, by: i64) -> Result<Value, StateError> {
    sum_of(before, by).map(|(_, value)| value)
}

/// The same, with the sum itself.
pub(super) fn sum_of(before: Option<Value>, by: i64) -> Result<(i64, Value), StateError> {
    let sum = sum(before.as_ref().map(|value| &*value.bytes), by)?;
    let expiry = before.and_then(|value| value.expiry);
    Ok((sum, Value { bytes: sum.to_string().into(), expiry }))
}

/// The host's side of questions to other agents in a call.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    who: &'a Identity,
    outside: &'a dyn Outside,
    effects: &'a Mutex<Effects>,
    work: &'a Work,
    timeout: Duration,
}

impl Asker<'_> {
    /// Asks, and keeps what comes of it for a run after this one.
    pub(super) async fn ask(self, draft: wit::Draft) -> Result<wit::Message, wit::RequestError> {
        let Self { who, outside, effects, work, timeout } = self;
        let asked = draft.clone();
        let mut request = outside.request(who, work, draft, timeout);
        let answer = match (work.run.ticket, &work.run.reserving) {
            (Some(ticket), Some(reserving)) => {
                match tokio::time::timeout(who.spec.limits.time / PATIENCE, &mut request).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        reserving.give_up(ticket);
                        request.await
                    }
                }
            }
            _ => request.await,
        };
        effects.lock().answers.keep(asked, &answer);
        answer
    }
}

impl Ctx {
    /// Returns true if another handler is to change a key before this one may depend on it.
    pub(super) fn meets_reserved(&self, key: &str) -> bool {
        let Some(run) = self.work.as_ref().map(|work| &work.run).filter(|run| run.yields) else { return false };
        // What has committed a part cannot run from its beginning again.
        !self.effects.lock().partly
            && run.reserving.as_ref().is_some_and(|reserving| reserving.is_reserved(key, &run.within))
    }

    /// Ends a run that depends on a key which another has reserved before anything follows from it.
    pub(super) fn go_on(&self) -> wasmtime::Result<()> {
        match &self.effects.lock().doomed {
            None => Ok(()),
            Some(key) => Err(Reserved(key.clone()).into()),
        }
    }

    /// The answer that a run before this one had to the same question.
    pub(super) fn hear_again(&self, draft: &wit::Draft) -> Option<Result<wit::Message, wit::RequestError>> {
        let answer = self.effects.lock().answers.take(draft)?;
        self.outside().heard_again(draft, &answer);
        Some(answer)
    }

    /// Returns the host's side of questions for this call.
    pub(super) fn asker<'a>(&'a self, work: &'a Work, timeout: Duration) -> Asker<'a> {
        Asker { who: &self.who, outside: self.outside(), effects: &self.effects, work, timeout }
    }

    /// Adds to a number, whatever it is when this call's effects are committed.
    pub(super) fn add_unread(&mut self, key: String, by: i64) -> Result<(), StateError> {
        let own = self.effects.lock().writes.get(&key).cloned();
        if let Some(own) = own {
            let sum = to(own.filter(|value| value.is_there(clock::now_ms())), by)?;
            return self.write(key, Some(sum));
        }
        // A look that the commit does not check: so that what cannot be added to is told of here.
        let read = self.outside().read(self.who.name(), &key).map_err(StateError::Unavailable)?.what;
        let limits = self.limits();
        let mut effects = self.effects.lock();
        if effects.closed {
            return Err(StateError::Unavailable("the response has begun, and with it the commit is made".to_owned()));
        }
        if effects.write_count >= limits.writes {
            return Err(StateError::TooManyWrites(limits.writes));
        }
        let by = effects.adds.get(&key).copied().unwrap_or(0).checked_add(by).ok_or(StateError::NotANumber)?;
        sum(read.as_ref().map(|read| read.value.as_slice()), by)?;
        if read.is_none() {
            self.check_quota(&effects, &key, Some(&Value::lasting(Bytes::from_static(NUMBER))))?;
        }
        effects.write_count += 1;
        effects.adds.insert(key, by);
        Ok(())
    }
}
