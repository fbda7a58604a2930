//! The effects of one call of a guest, committed or dropped by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::again::{Answers, Conflict};
use super::bindings::caxton::agent::effects;
use super::fault::Reserved;
use super::guest::{Ctx, Read};
use super::message::Sent;
use super::timer::{Cancel, TimerName};

/// A collected write: the new value, or `None` to remove the key.
pub(crate) type Write = Option<Value>;

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    /// The bytes.
    pub(crate) bytes: Bytes,
    /// The expiry; `None` if it does not expire.
    pub(crate) expiry: Option<Expiry>,
}

/// The time at which a key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// By the wall clock, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The time to live of this call in milliseconds; `None` if the key had its expiry before.
    pub(crate) given: Option<u64>,
}

impl Expiry {
    /// Returns the time this many milliseconds from now, bounded by the store's signed integers, which reach beyond any clock.
    pub(crate) fn after(now: u64, ttl_ms: u64) -> Self {
        Self { at: now.saturating_add(ttl_ms).min(i64::MAX.unsigned_abs()), given: Some(ttl_ms) }
    }
}

impl Value {
    /// Creates a value that does not expire.
    pub(crate) fn lasting(bytes: Bytes) -> Self {
        Self { bytes, expiry: None }
    }

    /// Returns `false` once the value has expired.
    pub(crate) fn is_there(&self, now: u64) -> bool {
        self.expiry.is_none_or(|expiry| expiry.at > now)
    }

    /// Returns the time at which it expires, if it does.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        self.expiry.map(|expiry| expiry.at)
    }
}

impl From<Read> for Value {
    fn from(read: Read) -> Self {
        let expiry = read.expires_at.map(|at| Expiry { at, given: None });
        Self { bytes: read.value.into(), expiry }
    }
}

/// Returns `true` if a key was not written since it was seen with the version `seen`, 0 if it did not exist. A value
/// that has expired meanwhile counts as unchanged: the commit is made as of the time of the read. A value that was seen
/// as expired counts as unchanged until it is written.
pub(crate) fn is_as_seen(seen: u64, version: u64, expires_at: Option<u64>, now: u64) -> bool {
    seen == version || (seen == 0 && expires_at.is_some_and(|at| at <= now))
}

/// The effects that a copy would have committed before its end.
#[derive(Clone, Default)]
struct Mark {
    writes: BTreeMap<String, Write>,
    adds: BTreeMap<String, i64>,
    /// The numbers of messages and of cancelled timers.
    sends: usize,
    cancels: usize,
}

/// The effects of one call.
#[derive(Default)]
pub(crate) struct Effects {
    /// Messages to send, in order.
    pub(crate) sends: Vec<Sent>,
    /// Timers to cancel, in order. They are cancelled before the messages are sent.
    pub(crate) cancels: Vec<Cancel>,
    /// Keys to write.
    pub(crate) writes: BTreeMap<String, Write>,
    /// Amounts to add to numbers as they are at commit. Disjoint from `writes`.
    pub(crate) adds: BTreeMap<String, i64>,
    /// Keys that were read from the store, with the version seen; 0 if the key did not exist.
    pub(crate) reads: BTreeMap<String, u64>,
    /// Set if the call has read data that is not durable yet.
    pub(crate) ahead: bool,
    /// Requests to other agents with their answers, in case the handler runs again.
    pub(crate) answers: Answers,
    /// A key that was read although another handler has reserved it: the run must not act on it.
    pub(super) doomed: Option<String>,
    /// The number of writes, including repeated and committed ones.
    pub(super) write_count: u32,
    /// The number of committed sends and cancelled timers.
    pub(super) sent_count: usize,
    /// The effects that a copy would have committed, which it does not discard.
    mark: Option<Mark>,
    /// Set if a part of the call is committed.
    pub(crate) partly: bool,
    /// Set once the effects were taken, so that no more can be added.
    pub(super) closed: bool,
}

impl Effects {
    /// Returns `true` if keys are written.
    pub(crate) fn changes_state(&self) -> bool {
        !(self.writes.is_empty() && self.adds.is_empty())
    }

    /// Returns the keys that are read or written.
    pub(crate) fn touched(&self) -> BTreeSet<String> {
        self.reads.keys().chain(self.writes.keys()).chain(self.adds.keys()).cloned().collect()
    }

    /// Returns `true` if timers are set or cancelled, which the store handles even where it keeps no messages.
    pub(crate) fn has_timers(&self) -> bool {
        !self.cancels.is_empty() || self.sends.iter().any(|sent| sent.envelope().is_timer())
    }

    /// Removes a timer that this call has sent. The earlier timer that it would have replaced is cancelled as well.
    pub(super) fn cancel_own(&mut self, timer: &TimerName) -> bool {
        let Some(at) = self.sends.iter().position(|sent| timer.names(sent.envelope())) else { return false };
        let sent = self.sends.remove(at);
        if let Some(name) = &sent.envelope().timer {
            self.cancels.push(Cancel { timer: TimerName::Name(name.clone()), found: None, told: false });
        }
        true
    }

    /// Adds a message. A named timer replaces one of the same name from this call.
    pub(super) fn send(&mut self, sent: Sent) {
        if let Some(name) = &sent.envelope().timer {
            self.sends.retain(|other| other.envelope().timer.as_ref() != Some(name));
        }
        self.sends.push(sent);
    }

    /// Clears the effects for another call.
    pub(super) fn reset(&mut self) {
        self.sends.clear();
        self.cancels.clear();
        self.writes.clear();
        self.adds.clear();
        self.reads.clear();
        self.ahead = false;
        self.answers = Answers::default();
        self.doomed = None;
        self.write_count = 0;
        self.sent_count = 0;
        self.mark = None;
        self.partly = false;
        self.closed = false;
    }

    /// Takes the effects so far. The counts stay, so that the limits hold for the call as a whole.
    fn take_part(&mut self) -> Self {
        let (write_count, sent_count) = (self.write_count, self.sent_count + self.sends.len() + self.cancels.len());
        let mut taken = std::mem::take(self);
        (self.write_count, self.sent_count) = (write_count, sent_count);
        // Requests and their answers belong to the call as a whole.
        (self.answers, self.partly) = (std::mem::take(&mut taken.answers), taken.partly);
        taken
    }

    /// Returns the effects that a copy would have committed before its response; `None` if there are none, as for every
    /// live call.
    pub(super) fn up_to_mark(mut self) -> Option<Self> {
        self.discard();
        self.mark.is_some().then_some(self)
    }

    /// Drops the effects since the last commit. Reads stay, because later effects may depend on them.
    fn discard(&mut self) {
        let Mark { writes, adds, sends, cancels } = self.mark.clone().unwrap_or_default();
        (self.writes, self.adds) = (writes, adds);
        self.sends.truncate(sends);
        self.cancels.truncate(cancels);
    }
}

/// Commits effects of an HTTP call or a migration, and with `true` the last of them. Returns when they are durable.
pub(crate) type Committer =
    Arc<dyn Fn(Effects, bool) -> Pin<Box<dyn Future<Output = Result<(), NotCommitted>> + Send>> + Send + Sync>;

/// The error of committing an HTTP call or a migration.
pub(crate) enum NotCommitted {
    /// Another handler has changed a key that the call had read.
    Conflict(Box<Conflict>),
    /// Another error, for a person.
    Other(String),
}

/// The way in which a call commits before its end.
#[derive(Clone)]
pub(crate) enum Commits {
    /// The handler of a message commits only with its result, so that the message and its effects are one commit.
    WithResult,
    /// An HTTP call commits through this function.
    Through(Committer),
    /// A copy of an HTTP call keeps its effects, and commits none.
    Nowhere,
    /// A migration: each commit is a step with limits of its own.
    InSteps(Committer),
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WithResult => "WithResult",
            Self::Through(_) => "Through",
            Self::Nowhere => "Nowhere",
            Self::InSteps(_) => "InSteps",
        })
    }
}

/// Replaces `commit` by a function with access to the store, which is needed to refill its fuel.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut interface = linker.instance("caxton:agent/effects@0.1.0")?;
    interface.func_wrap_async("commit", |mut store: StoreContextMut<'_, Ctx>, (): ()| {
        Box::new(async move {
            let committed = effects::Host::commit(store.data_mut()).await?;
            if committed.is_ok()
                && store.data().is_migration()
                && let Some(fuel) = store.data().limits().fuel
            {
                store.set_fuel(fuel)?;
            }
            Ok((committed,))
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Ctx {
    /// Returns `true` in a migration, which sends no messages.
    pub(super) fn is_migration(&self) -> bool {
        self.work.as_ref().is_some_and(|work| matches!(work.commits, Commits::InSteps(_)))
    }

    /// Resets the limits for the next step of a migration.
    fn begin_step(&self) {
        self.effects.lock().write_count = 0;
        self.meter.begin_step();
    }

    /// Returns the way in which the current call may still commit.
    fn commits(&self) -> Result<Commits, String> {
        let commits = self.work.as_ref().map_or(Commits::WithResult, |work| work.commits.clone());
        if let Commits::WithResult = commits {
            return Err("the effects of a message handler are committed when it returns ok, and not before".to_owned());
        }
        if self.effects.lock().closed {
            return Err("the response has begun, and with it the commit is made".to_owned());
        }
        Ok(commits)
    }
}

impl effects::Host for Ctx {
    async fn commit(&mut self) -> wasmtime::Result<Result<(), String>> {
        let (committer, is_step) = match self.commits() {
            Ok(Commits::Through(committer)) => (committer, false),
            Ok(Commits::InSteps(committer)) => (committer, true),
            Ok(Commits::Nowhere | Commits::WithResult) => {
                let mut effects = self.effects.lock();
                let (writes, adds) = (effects.writes.clone(), effects.adds.clone());
                let (sends, cancels) = (effects.sends.len(), effects.cancels.len());
                effects.mark = Some(Mark { writes, adds, sends, cancels });
                return Ok(Ok(()));
            }
            Err(why) => return Ok(Err(why)),
        };
        self.go_on()?;
        let taken = self.effects.lock().take_part();
        match committer(taken, false).await {
            Ok(()) => {
                self.effects.lock().partly = true;
                if is_step {
                    self.begin_step();
                }
                Ok(Ok(()))
            }
            Err(NotCommitted::Other(why)) => Ok(Err(why)),
            Err(NotCommitted::Conflict(conflict)) => {
                let runs_again = self.work.as_ref().is_some_and(|work| work.run.runs_again);
                let mut effects = self.effects.lock();
                if !runs_again || effects.partly {
                    return Ok(Err(format!("the key `{}` has changed meanwhile", conflict.key)));
                }
                // The run is repeated from its beginning, which is possible as nothing of it is committed.
                effects.reads.extend(conflict.keys.into_iter().map(|key| (key, 0)));
                Err(Reserved(conflict.key).into())
            }
        }
    }

    fn discard(&mut self) -> wasmtime::Result<Result<(), String>> {
        Ok(self.commits().map(|_| self.effects.lock().discard()))
    }
}
