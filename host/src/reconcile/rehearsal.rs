//! Trials of a candidate: the shadow, with copies of live messages, and the rehearsal, with the latest messages.

use std::sync::Arc;

use caxton_control::rollout::ComparisonCounts;
use caxton_control::rollout::comparison::IgnoredPaths;
use caxton_control::rollout::{self, Ledger, MemoryHandover, ReloadStrategy, Strategy};
use caxton_control::{AgentName, RevisionId};
use tokio_util::sync::CancellationToken;

use super::managed::ManagedAgent;
use super::reconciler::Reconciler;
use super::task_report::TaskReport;
use crate::agent::{AnswerComparison, InitialMemory, RehearsalJob, RehearsalReport, ShadowSettings};
use crate::api_types::DifferingMessage;
use crate::context::HostContext;

impl Reconciler {
    /// Starts or ends the shadow of a rollout, in which the candidate handles copies of live messages.
    pub(super) fn shadow(&mut self, revision: &RevisionId, on: bool) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let Some(managed) = self.managed.get_mut(&revision.agent) else { return };
        if !on {
            managed.agent.end_shadow();
            return;
        }
        let Strategy::Reload(ReloadStrategy::Parallel { min_messages, ignore, .. }) = &rollout.settings.strategy else {
            return;
        };
        let both = managed.live(rollout.from.number).zip(managed.live(rollout.to.number));
        let Some((stable, candidate)) = both else { return };
        // Checked with the declaration, so that they parse.
        let ignore = IgnoredPaths::new(ignore.iter().map(String::as_str)).unwrap_or_default();
        let shadowed = ShadowSettings { rollout: rollout.id, min_messages: *min_messages, ignore };
        tracing::info!(agent = %revision.agent, "{revision} handles copies of what {} handles", stable.id);
        managed.shadow = Some(managed.agent.begin_shadow(&stable, &candidate, shadowed));
    }

    /// Starts the rehearsal of a rollout, in which the candidate handles the latest messages on a copy of the state.
    pub(super) fn rehearse(&mut self, revision: &RevisionId, messages: u32) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let Some(managed) = self.managed.get_mut(&revision.agent) else { return };
        let (agent, stable) = (Arc::clone(&managed.agent), managed.live(rollout.from.number));
        let id = rollout.id;
        let conversion = rollout.conversion.as_ref().filter(|conversion| conversion.migrates);
        let migrate_from = conversion.map(|conversion| conversion.from);
        let memory = match (&rollout.settings.strategy, rollout.settings.state) {
            (Strategy::Undo, _) => InitialMemory::HandedOver(revision.number),
            (Strategy::Deploy(_) | Strategy::Reload(_), MemoryHandover::Migrate) => InitialMemory::Live,
            // The rollout would start without memory as well.
            (Strategy::Deploy(_) | Strategy::Reload(_), MemoryHandover::Discard) => InitialMemory::Empty,
        };
        // A rollout that ends must not wait for the messages that are left.
        let stop = CancellationToken::new();
        managed.running_rehearsal = Some((id, stop.clone()));
        self.spawn_work(revision, move |live, revision| async move {
            let candidate = Arc::clone(&live.pool);
            // Ends at the first failure, since that refuses the candidate.
            let rehearsal =
                RehearsalJob { candidate, stable, messages, memory, migrate_from, stops_at_first: true, stop };
            let result = agent.rehearse(rehearsal).await;
            TaskReport::Rehearsed { agent: revision.agent, number: revision.number, rollout: id, result }
        });
    }

    /// Takes in the result of a rehearsal.
    pub(super) fn take_rehearsal(
        &mut self,
        agent: &AgentName,
        number: u64,
        rollout: u64,
        result: Result<RehearsalReport, String>,
    ) {
        let least = self.ledgers.get(agent).and_then(Ledger::open).filter(|open| open.id == rollout);
        let least = least.and_then(|open| open.settings.rollback.match_percent);
        let Some(managed) = self.managed.get_mut(agent) else { return };
        if let Some(managed_revision) = managed.revision_mut(number) {
            managed_revision.busy = false;
        }
        let id = RevisionId { agent: agent.clone(), number };
        let (outcome, data) = match result {
            Ok(done) => {
                let (failure, answers) = (done.failure(), done.answers());
                let refusal = failure.clone().or_else(|| answers.refusal(least));
                let data = event_data(number, &done, refusal.as_deref());
                let RehearsalReport { messages, passed, comparison, .. } = done;
                match &failure {
                    Some(why) => tracing::warn!(%agent, "the rehearsal of {id} failed: {why}"),
                    None if answers.otherwise > 0 => {
                        tracing::warn!(%agent, "{id} handled {passed} of the last {messages} messages on a copy; {answers}");
                    }
                    None => {
                        tracing::info!(%agent, "{id} handled {passed} of the last {messages} messages on a copy; {answers}");
                    }
                }
                // Persisted after a failure as well, since the differences may explain it.
                persist_differences(&self.context, agent, rollout, &comparison);
                (failure.map_or(rollout::RehearsalState::Passed(answers), rollout::RehearsalState::Failed), data)
            }
            Err(why) => {
                tracing::warn!(%agent, "{id} could not be rehearsed: {why}");
                let data = serde_json::json!({ "revision": number, "failed": why });
                (rollout::RehearsalState::Failed(why), data)
            }
        };
        managed.rehearsal = Some((rollout, outcome));
        self.context.events.emit(Some(agent.as_str()), "rollout.rehearsed", data);
    }
}

/// The most messages that an event lists as answered differently; `rollout differences` lists more.
const MAX_NAMED: usize = 10;
/// The most bytes of differences of one rehearsal that are persisted: answers may be large.
const MAX_DIFFERENCE_BYTES: usize = 256 << 10;

/// Returns the data of the event `rollout.rehearsed`.
fn event_data(number: u64, done: &RehearsalReport, refusal: Option<&str>) -> serde_json::Value {
    let AnswerComparison { alike, otherwise, not_compared, differing, by_nature } = &done.comparison;
    let first = |differing: &DifferingMessage| {
        let place = differing.differences.first()?;
        Some(serde_json::json!({
            "message": differing.message, "path": place.path, "stable": place.stable, "candidate": place.candidate,
        }))
    };
    let differences: Vec<_> = differing.iter().take(MAX_NAMED).filter_map(first).collect();
    serde_json::json!({
        "revision": number, "messages": done.messages, "passed": done.passed, "set_aside": done.set_aside,
        "alike": alike, "otherwise": otherwise, "not_compared": not_compared, "differences": differences,
        "by_nature": by_nature.iter().take(MAX_NAMED).collect::<Vec<_>>(), "failed": refusal,
    })
}

/// Persists the differences of the answers in a rehearsal, beside those of the shadow.
fn persist_differences(context: &HostContext, agent: &AgentName, rollout: u64, comparison: &AnswerComparison) {
    let mut bytes = 0;
    let records =
        comparison.differing.iter().map(|message| serde_json::to_string(message).expect("it is text and numbers"));
    let within = |record: &String| {
        bytes += record.len();
        bytes <= MAX_DIFFERENCE_BYTES
    };
    // Number 0 is for the paths that differ by nature.
    for (number, record) in (1..).zip(records.take_while(within)) {
        context.store.rollouts().keep_difference(agent.shared(), rollout, number, record);
    }
    if !comparison.by_nature.is_empty() {
        let paths = serde_json::to_string(&comparison.by_nature).expect("paths are text");
        context.store.rollouts().keep_difference(agent.shared(), rollout, 0, paths);
    }
}

impl ManagedAgent {
    /// Returns the statistics of the rehearsal of a rollout.
    pub(super) fn rehearsed_answers(&self, rollout: u64) -> ComparisonCounts {
        match self.rehearsal_outcome(rollout) {
            rollout::RehearsalState::Passed(answers) => answers.figures(),
            rollout::RehearsalState::Open | rollout::RehearsalState::Failed(_) => ComparisonCounts::default(),
        }
    }

    /// Returns `true` while copies of messages are made for this rollout.
    pub(super) fn is_shadowed(&self, rollout: u64) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.rollout() == rollout && shadow.is_active())
    }

    /// Returns the comparison of answers in the shadow of a rollout.
    pub(super) fn compared(&self, rollout: u64) -> ComparisonCounts {
        let shadow = self.shadow.as_ref().filter(|shadow| shadow.rollout() == rollout);
        shadow.map(|shadow| shadow.compared()).unwrap_or_default()
    }

    /// Returns the outcome of the rehearsal of a rollout.
    pub(super) fn rehearsal_outcome(&self, rollout: u64) -> rollout::RehearsalState {
        let known = self.rehearsal.as_ref().filter(|(of, _)| *of == rollout);
        known.map(|(_, rehearsal)| rehearsal.clone()).unwrap_or_default()
    }

    /// Ends the trials of all rollouts but the open one.
    pub(super) fn end_rehearsals(&mut self, open: Option<u64>) {
        if self.shadow.as_ref().is_some_and(|shadow| Some(shadow.rollout()) != open) {
            self.agent.end_shadow();
            self.shadow = None;
        }
        // Its task ends soon and reports, so that the revision is not left busy.
        if let Some((_, stop)) = self.running_rehearsal.take_if(|(rollout, _)| Some(*rollout) != open) {
            stop.cancel();
        }
        if self.rehearsal.as_ref().is_some_and(|(rollout, _)| Some(*rollout) != open) {
            self.rehearsal = None;
        }
    }
}
