//! The journal of a message's calls over HTTP: opened when its handling begins, kept through its attempts.

use std::sync::Arc;

use crate::agent::shadow::encode_calls;
use crate::agent::{Agent, Revision};
use crate::message::{CallJournal, Envelope, Fault, JournalPlace, JournalRows, new_id};

/// Returns `true` if a revision may make calls that are recorded: of places with a journal, or of a handler that may run
/// again after a conflict, or be rehearsed.
fn records(revision: &Revision, follows_all: bool) -> bool {
    let of_place = |rules: caxton_control::journal::JournalRules| rules.is_kept || rules.adds_key;
    let places = &revision.spec.allow.http;
    !places.is_empty() && (follows_all || places.iter().any(|place| of_place(place.journal())))
}

impl Agent {
    /// Begins a run in the journal of a message; `None` if it needs none.
    pub(in crate::agent) fn begin_journal(
        &self,
        envelope: &mut Envelope,
        revision: &Revision,
    ) -> Option<Arc<CallJournal>> {
        // Of most agents, without a look at anything else.
        if revision.spec.allow.http.is_empty() && envelope.calls.is_none() && envelope.recorded.is_empty() {
            return None;
        }
        let follows_all = revision.pool.program.summary.keeps_state() || self.is_rehearsed();
        if envelope.calls.is_none() {
            let recorded = std::mem::take(&mut envelope.recorded);
            // What is recorded leaves with the message, whatever the settings are by now.
            if recorded.is_empty() && !records(revision, follows_all) {
                return None;
            }
            let seq = envelope.seq.filter(|_| self.context.store.keeps_messages());
            let kept = seq.map(|seq| {
                let rows = Arc::clone(&self.context.store) as Arc<dyn JournalRows>;
                (rows, JournalPlace { agent: self.name.shared(), seq })
            });
            envelope.calls = Some(CallJournal::new(&envelope.message.id, kept, &recorded, &self.context.memory));
        }
        let calls = envelope.calls.clone()?;
        calls.begin_run(follows_all, envelope.conflicts.is_some());
        Some(calls)
    }

    /// Opens the journal of a call of an HTTP agent, which lasts as long as that; `None` if it needs none.
    pub(in crate::agent) fn open_journal(&self, revision: &Revision) -> Option<Arc<CallJournal>> {
        let follows_all = revision.pool.program.summary.keeps_state();
        records(revision, follows_all).then(|| CallJournal::new(&new_id(), None, &[], &self.context.memory))
    }

    /// Encodes what the calls of a message were answered, to be kept with it for rehearsals.
    pub(in crate::agent) fn calls_to_keep(&self, envelope: &Envelope) -> Option<Vec<u8>> {
        let calls = envelope.calls.as_ref().filter(|_| self.is_rehearsed())?;
        let spec = self.spec.load();
        let masks: Vec<_> = spec.allow.http.iter().flat_map(|place| self.context.outgoing.masks(place)).collect();
        encode_calls(&calls.answers(), &masks)
    }
}

impl Revision {
    /// Begins a run in the journal of a call of an HTTP agent.
    pub(super) fn begin_run(&self, calls: Option<&CallJournal>, is_rerun: bool) {
        if let Some(calls) = calls {
            calls.begin_run(self.pool.program.summary.keeps_state(), is_rerun);
        }
    }
}

/// Waits until a message is given up for a call of unknown outcome. Returns the reason.
pub(super) async fn given_up(calls: Option<&CallJournal>) -> String {
    match calls {
        Some(calls) => calls.given_up().await,
        None => std::future::pending().await,
    }
}

/// Returns the result of a run, or the fault of a message that is given up: whatever its guest made of the error, a person
/// has to settle it.
pub(super) async fn unless_given_up<T>(result: Result<T, Fault>, calls: Option<&CallJournal>) -> Result<T, Fault> {
    match calls.filter(|calls| calls.is_given_up()) {
        Some(calls) => Err(Fault::UnknownOutcome(calls.given_up().await)),
        None => result,
    }
}
