//! Trying a candidate on copies: of live messages while it waits, of the last ones before it does.

use std::sync::Arc;

use caxton_control::AgentName;
use caxton_control::RevisionId;
use caxton_control::rollout::analysis::Compared;
use caxton_control::rollout::compare::Ignore;
use caxton_control::rollout::{self, Ledger, Memory, Reload, Strategy};

use super::{Entry, Reconciler, Report};
use crate::agent::{Rehearsal, Rehearsed, Shadowed};

impl Reconciler {
    /// Lets a candidate handle copies of live messages, or no more of them.
    pub(super) fn shadow(&mut self, revision: &RevisionId, on: bool) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let Some(entry) = self.entries.get_mut(&revision.agent) else { return };
        if !on {
            entry.agent.end_shadow();
            return;
        }
        let Strategy::Reload(Reload::Parallel { min_messages, ignore, .. }) = &rollout.settings.strategy else {
            return;
        };
        let lives = entry.live(rollout.from.number).zip(entry.live(rollout.to.number));
        let Some((stable, candidate)) = lives else { return };
        // They were read as paths when the file was.
        let ignore = Ignore::new(ignore.iter().map(String::as_str)).unwrap_or_default();
        let what = Shadowed { rollout: rollout.id, enough: *min_messages, ignore };
        tracing::info!(agent = %revision.agent, "{revision} handles copies of what {} handles", stable.id);
        entry.shadow = Some(entry.agent.begin_shadow(&stable, &candidate, what));
    }

    /// Lets a candidate handle the last messages on a copy.
    pub(super) fn rehearse(&mut self, revision: &RevisionId, messages: u32) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let Some(entry) = self.entries.get(&revision.agent) else { return };
        let (agent, stable) = (Arc::clone(&entry.agent), entry.live(rollout.from.number));
        let (id, migrates) = (rollout.id, rollout.settings.state == Memory::Migrate);
        self.work_on(revision, move |live, revision| async move {
            let (candidate, stop) = (Arc::clone(&live.pool), live.interrupted());
            let rehearsal = Rehearsal { candidate, stable, messages, migrates, until_first: true, stop };
            let result = agent.rehearse(rehearsal).await;
            Report::Rehearsed { agent: revision.agent, number: revision.number, rollout: id, result }
        });
    }

    /// Takes in what came of a rehearsal.
    pub(super) fn rehearsed(
        &mut self,
        agent: &AgentName,
        number: u64,
        rollout: u64,
        result: Result<Rehearsed, String>,
    ) {
        let Some(entry) = self.entries.get_mut(agent) else { return };
        if let Some(record) = entry.record(number) {
            record.busy = false;
        }
        let told = RevisionId { agent: agent.clone(), number };
        let (outcome, data) = match result {
            Ok(done) => {
                let Rehearsed { messages, passed, set_aside, .. } = done;
                let refusal = done.refusal();
                match &refusal {
                    None => tracing::info!(%agent, "{told} handled {passed} of the last {messages} messages on a copy"),
                    Some(why) => tracing::warn!(%agent, "the rehearsal of {told} failed: {why}"),
                }
                let data = serde_json::json!({
                    "revision": number, "messages": messages, "passed": passed, "set_aside": set_aside,
                    "failed": refusal,
                });
                (refusal.map_or(rollout::Rehearsal::Passed, rollout::Rehearsal::Failed), data)
            }
            Err(why) => {
                tracing::warn!(%agent, "{told} could not be rehearsed: {why}");
                let data = serde_json::json!({ "revision": number, "failed": why });
                (rollout::Rehearsal::Failed(why), data)
            }
        };
        entry.rehearsal = Some((rollout, outcome));
        self.commons.events.tell(Some(agent.as_str()), "rollout.rehearsed", data);
    }
}

impl Entry {
    /// Whether copies are made for this rollout.
    pub(super) fn is_shadowed(&self, rollout: u64) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.rollout() == rollout && shadow.is_on())
    }

    /// How the copies of a rollout were answered.
    pub(super) fn compared(&self, rollout: u64) -> Compared {
        let shadow = self.shadow.as_ref().filter(|shadow| shadow.rollout() == rollout);
        shadow.map(|shadow| shadow.compared()).unwrap_or_default()
    }

    /// What came of a rollout's rehearsal.
    pub(super) fn rehearsed(&self, rollout: u64) -> rollout::Rehearsal {
        let known = self.rehearsal.as_ref().filter(|(of, _)| *of == rollout);
        known.map(|(_, rehearsal)| rehearsal.clone()).unwrap_or_default()
    }

    /// Ends what was tried for another rollout than the one that is open.
    pub(super) fn end_trials(&mut self, open: Option<u64>) {
        if self.shadow.as_ref().is_some_and(|shadow| Some(shadow.rollout()) != open) {
            self.agent.end_shadow();
            self.shadow = None;
        }
        if self.rehearsal.as_ref().is_some_and(|(rollout, _)| Some(*rollout) != open) {
            self.rehearsal = None;
        }
    }
}
