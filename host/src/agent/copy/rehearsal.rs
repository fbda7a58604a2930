//! A candidate handles the last messages on a copy, before it gets any.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::super::{Agent, Revision, code, describe};
use super::handle;
use super::overlay::Overlay;
use super::replay::Nothing;
use crate::wasm::{Envelope, Kind, Outcome, Outside, Pool};

/// Failures that are listed of one rehearsal.
const MAX_FAILED: usize = 100;
/// The longest text of why a message failed, in characters.
const MAX_WHY: usize = 1_000;

/// What came of a rehearsal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rehearsed {
    /// Messages that were there to rehearse with.
    pub(crate) messages: u32,
    /// How many were handled.
    pub(crate) passed: u32,
    /// How many say nothing of the candidate: the running revision fails at them now as well.
    pub(crate) set_aside: u32,
    /// The first that were not handled, with why.
    pub(crate) failed: Vec<(String, String)>,
    /// Why it did not take up the memory of the running revision, or start.
    pub(crate) unready: Option<String>,
}

impl Rehearsed {
    /// Why the candidate is refused; none if it is not.
    pub(crate) fn refusal(&self) -> Option<String> {
        let failed = self.failed.first().map(|(id, why)| format!("message {id}: {why}"));
        self.unready.clone().or(failed)
    }
}

/// What is rehearsed.
pub(crate) struct Rehearsal {
    /// The instances of the candidate; its copies get others.
    pub(crate) candidate: Arc<Pool>,
    /// What runs.
    pub(crate) stable: Option<Arc<Revision>>,
    /// How many of the last messages.
    pub(crate) messages: u32,
    /// Whether it takes up the memory of what runs.
    pub(crate) migrates: bool,
    /// Whether it ends with the first message that fails.
    pub(crate) until_first: bool,
    /// Ends it at once.
    pub(crate) stop: CancellationToken,
}

impl Agent {
    /// Lets a candidate handle the last messages on a copy.
    ///
    /// # Errors
    /// It could not be done.
    pub(crate) async fn rehearse(&self, rehearsal: Rehearsal) -> Result<Rehearsed, String> {
        let stop = rehearsal.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err("it was broken off".to_owned()),
            rehearsed = self.rehearse_all(rehearsal) => rehearsed,
        }
    }

    async fn rehearse_all(&self, rehearsal: Rehearsal) -> Result<Rehearsed, String> {
        let Rehearsal { candidate, stable, messages, migrates, until_first, .. } = rehearsal;
        // What was handled before this is asked for is there.
        self.commons.store.flush().await.map_err(|error| error.to_string())?;
        let envelopes = tokio::task::block_in_place(|| self.commons.store.recent(self.name.as_str(), messages))?;
        let mut done =
            Rehearsed { messages: u32::try_from(envelopes.len()).unwrap_or(u32::MAX), ..Rehearsed::default() };
        let takes_up = migrates && candidate.program.summary.kind == Kind::Stateful;
        let saved = match &stable {
            Some(stable) if takes_up => self.live_memory(stable).await?,
            Some(_) | None => None,
        };
        let mut candidate = Side::new(self, &candidate, saved.clone());
        if let Err(fault) = candidate.pool.warm(1).await {
            done.unready = Some(fault.to_string());
            return Ok(done);
        }
        let mut stable = stable.map(|stable| Side::new(self, &stable.pool, saved));
        for (at, envelope) in envelopes.iter().enumerate() {
            match candidate.take(envelope).await {
                Took::Well => done.passed += 1,
                Took::Full => {
                    done.set_aside += done.messages - u32::try_from(at).unwrap_or(u32::MAX);
                    break;
                }
                Took::Unknown => done.set_aside += 1,
                Took::Failed(outcome) => {
                    let same = match &mut stable {
                        Some(stable) => stable.fails_like(&envelopes[..=at], &outcome).await,
                        None => false,
                    };
                    if same {
                        done.set_aside += 1;
                        continue;
                    }
                    if done.failed.len() < MAX_FAILED {
                        done.failed.push((envelope.message.id.clone(), told(&outcome)));
                    }
                    if until_first {
                        break;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(done)
    }

    /// The memory of a stateful agent as it is now. It goes on with it afterwards.
    async fn live_memory(&self, stable: &Arc<Revision>) -> Result<Option<Bytes>, String> {
        if stable.kind() != Kind::Stateful {
            return Ok(None);
        }
        // Between two messages, as a message would come.
        let Some(lease) = stable.pool.lease_at_rest().await else {
            let kept = self.commons.store.snapshot(self.name.as_str(), stable.id.number)?;
            return Ok(kept.map(|snapshot| snapshot.data));
        };
        let (lease, saved) = self.save(stable, lease).await?;
        lease.finish(true);
        Ok(saved.map(|snapshot| snapshot.data.clone()))
    }
}

/// For a person: why a message failed, with the trace of a trap.
fn told(outcome: &Outcome) -> String {
    let mut why = describe(outcome);
    if let Outcome::Fault(fault) = outcome
        && let Some(first) = fault.trail().and_then(|trail| trail.backtrace().lines().next())
    {
        why.push_str(&format!(" at {first}"));
    }
    why.chars().take(MAX_WHY).collect()
}

/// A revision with the copy of the state that it writes to.
struct Side {
    pool: Arc<Pool>,
    overlay: Arc<Overlay>,
    /// Messages that it has handled.
    handled: usize,
}

/// What became of a message that was rehearsed.
enum Took {
    /// It was handled.
    Well,
    /// It was not.
    Failed(Outcome),
    /// The host could not do its part.
    Unknown,
    /// There is no room for what was written.
    Full,
}

impl Side {
    fn new(agent: &Agent, pool: &Pool, saved: Option<Bytes>) -> Self {
        let pool = pool.for_copies(Arc::new(Nothing { saved }) as Arc<dyn Outside>);
        Self { pool, overlay: Overlay::new(&agent.commons, agent.name.shared()), handled: 0 }
    }

    async fn take(&mut self, envelope: &Envelope) -> Took {
        self.handled += 1;
        let outside = Arc::clone(&self.overlay) as Arc<dyn Outside>;
        let (result, effects) = match handle(&self.pool, &envelope.message, envelope.hops, outside).await {
            Ok(said) => said,
            Err(fault) if fault.is_guests() => return Took::Failed(Outcome::Fault(fault)),
            Err(_) => return Took::Unknown,
        };
        let limit = self.pool.who.spec.limits.message_bytes;
        match result {
            Err(failure) => Took::Failed(Outcome::Gave(failure)),
            Ok(Some(reply)) if reply.content.len() as u64 > limit => {
                let why = format!("it has {} bytes, more than limits.message ({limit})", reply.content.len());
                Took::Failed(Outcome::BadReply(why))
            }
            Ok(_) if self.overlay.write(effects.writes, &effects.adds) => Took::Well,
            Ok(_) => Took::Full,
        }
    }

    /// Whether the last of these messages fails here in the same way, with those before it handled.
    async fn fails_like(&mut self, messages: &[Envelope], outcome: &Outcome) -> bool {
        let mut last = None;
        for envelope in messages.get(self.handled..).unwrap_or_default() {
            last = Some(self.take(envelope).await);
        }
        matches!(&last, Some(Took::Failed(own)) if code(own) == code(outcome))
    }
}
