//! Doing what a plan lists.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::lifecycle::State;
use caxton_control::plan::Action;
use caxton_control::rollout::{Ledger, Probes};
use caxton_control::{AgentName, AgentSpec, Digest, RevisionId, revision_settings};

use super::{Reconciler, Record, Report};
use crate::agent::{Revision, Traffic};

impl Reconciler {
    /// Does one action. Says whether who is called by what has changed.
    pub(super) fn apply(&mut self, action: Action) -> bool {
        match action {
            Action::Create { agent, digest, spec } => {
                self.create(&agent, digest, spec);
                false
            }
            Action::Configure { agent, spec } => {
                if let Some(entry) = self.entries.get_mut(&agent) {
                    entry.agent.configure(spec);
                    entry.fit();
                }
                true
            }
            Action::Switch { revision } => self.switch(&revision),
            Action::Roll(action) => self.roll(action),
            Action::Retire { agent } => self.retire(&agent),
            Action::Restore { agent } => self.restore(&agent),
            Action::Forget { agent } => {
                self.forget(&agent);
                true
            }
        }
    }

    fn create(&mut self, name: &AgentName, digest: Digest, spec: Arc<AgentSpec>) {
        let now = self.now();
        let known = self.ledgers.get(name).map_or(0, Ledger::last_number);
        let Some(entry) = self.entries.get_mut(name) else { return };
        let next = entry.next_number.unwrap_or_else(|| {
            let last = self.context.store.last_revision(name.as_str()).unwrap_or_else(|error| {
                tracing::error!(agent = %name, error, "an agent's last revision cannot be read; its numbers begin anew");
                None
            });
            // The same bytes and settings as before a restart are the same revision.
            last.map_or(1, |(number, kept, before)| {
                let same = kept == digest.to_string() && revision_settings::normalize(&before) == spec.revision_settings();
                if same { number } else { number + 1 }
            })
        });
        // One that its ledger knows is not the same again.
        let number = next.max(known + 1);
        entry.next_number = Some(number + 1);
        // Of those that ended only the newest is of interest, and that is this one now.
        entry.revisions.retain(|record| !record.state.is_terminal());
        entry.revisions.push(Record::new(number, spec, digest, now));
    }

    pub(super) fn pause(&mut self, name: &AgentName, paused: bool) {
        if let Some(entry) = self.entries.get_mut(name) {
            if paused {
                entry.paused_since.get_or_insert_with(Instant::now);
            } else if let Some(since) = entry.paused_since.take() {
                let pause = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                entry.longest_pause_ms = entry.longest_pause_ms.max(pause);
            }
            entry.paused = paused;
            if !paused {
                entry.rest = None;
            }
            if let Some(current) = entry.agent.current() {
                current.wake_when_idle(paused);
            }
            entry.agent.set_handoff_paused(paused);
        }
    }

    pub(super) fn stop(&mut self, revision: &RevisionId) -> bool {
        let Some(entry) = self.entries.get_mut(&revision.agent) else { return false };
        let (agent, entry_current) = (Arc::clone(&entry.agent), entry.agent.current());
        let Some(record) = entry.record(revision.number) else { return false };
        let Some(live) = record.live.clone() else {
            // It never came to be; there is nothing to end.
            let to = if record.state.can_stop() { State::Stopped } else { State::failed("superseded") };
            self.go(revision, to, Some("superseded"));
            self.drop_record(revision);
            return false;
        };
        // At rest, or past its time: then what it still has is broken off.
        live.interrupt();
        let current = entry_current.filter(|current| current.id.number != revision.number);
        let taken_over = current.is_some_and(|current| current.kind() == crate::wasm::Kind::Stateful);
        if live.kind() == crate::wasm::Kind::Stateful && !taken_over {
            // Its memory is kept: the agent, or a revision that takes it up, may come back. After a handoff there
            // is no instance of it any more, and nothing is saved.
            record.busy = true;
            let (name, number, reports) = (revision.agent.clone(), revision.number, self.reports.0.clone());
            let guard = self.context.tasks.guard("save");
            tokio::spawn(async move {
                let _guard = guard;
                if let Err(why) = agent.save_last(&live).await {
                    tracing::error!(agent = %name, why, "an agent's memory was not kept");
                }
                live.stop();
                let _ = reports.send(Report::Stopped { agent: name, number }).await;
            });
            return false;
        }
        live.stop();
        self.go(revision, State::Stopped, None);
        self.drop_record(revision);
        false
    }

    /// Lets go of a revision that was ended. As the newest one it would be taken for what was tried last, and a
    /// declaration that comes back to it would wait for ever.
    fn drop_record(&mut self, revision: &RevisionId) {
        if let Some(entry) = self.entries.get_mut(&revision.agent) {
            entry.revisions.retain(|record| record.number != revision.number);
        }
    }

    /// Takes a revision to another state and tells of it.
    pub(super) fn go(&mut self, revision: &RevisionId, to: State, reason: Option<&str>) {
        let now = self.now();
        let Some(record) = self.entries.get_mut(&revision.agent).and_then(|entry| entry.record(revision.number)) else {
            return;
        };
        match record.state.transition(to) {
            Ok(to) => {
                let from = std::mem::replace(&mut record.state, to);
                record.since = now;
                if let Some(live) = &record.live {
                    live.wake_when_idle(record.state == State::Draining);
                }
                let reason = match &record.state {
                    State::Failed { reason } => Some(reason.as_str()),
                    _ => reason,
                };
                let (from, to) = (from.to_string(), record.state.to_string());
                let runs = record.state == State::Running;
                self.context.tell_state(revision.agent.as_str(), revision.number, &from, &to, reason);
                if let (true, Some(entry)) = (runs, self.entries.get_mut(&revision.agent)) {
                    entry.judge();
                }
            }
            // A defect of the plan; what runs goes on.
            Err(error) => tracing::error!(%revision, %error, "a step was not taken"),
        }
    }

    /// Takes in what a task reports.
    pub(super) fn report(&mut self, report: Report) {
        self.standing.mark(report.agent());
        match report {
            Report::Loaded { agent, number } => self.go(&RevisionId { agent, number }, State::Loaded, None),
            Report::Prepared { agent, number, result } => self.prepared(&RevisionId { agent, number }, result),
            Report::Stands { agent, number, instances, result } => {
                let id = RevisionId { agent, number };
                if let Some(record) = self.entries.get_mut(&id.agent).and_then(|entry| entry.record(number)) {
                    record.busy = false;
                    record.stood = record.stood.max(instances);
                    record.failures += u64::from(result.is_err());
                }
                if let Err(why) = result {
                    self.fail(&id, &why);
                }
            }
            Report::Probed { agent, number, passed } => {
                let now = self.now();
                if let Some(record) = self.entries.get_mut(&agent).and_then(|entry| entry.record(number)) {
                    record.busy = false;
                    record.count_probe(passed, now);
                }
            }
            Report::Rehearsed { agent, number, rollout, result } => self.rehearsed(&agent, number, rollout, result),
            Report::Rests { agent, number, rest } => self.rests(&agent, number, rest),
            Report::HandedOff { agent, number, result } => self.moved(&RevisionId { agent, number }, result),
            Report::StateKept { agent, number, rollout, result } => {
                self.state_kept(&RevisionId { agent, number }, rollout, result);
            }
            Report::StateRestored { agent, number, result } => {
                self.state_restored(&RevisionId { agent, number }, result);
            }
            Report::Counted { agent, rollout, lost } => self.counted(&agent, rollout, lost),
            Report::Stopped { agent, number } => {
                let id = RevisionId { agent, number };
                self.go(&id, State::Stopped, None);
                if let Some(record) = self.entries.get_mut(&id.agent).and_then(|entry| entry.record(number)) {
                    record.busy = false;
                    record.live = None;
                }
            }
        }
    }

    /// Takes in that a revision is ready with so many instances, or failed.
    fn prepared(&mut self, id: &RevisionId, result: Result<(Arc<Revision>, u32), String>) {
        let Some(record) = self.entries.get_mut(&id.agent).and_then(|entry| entry.record(id.number)) else { return };
        record.busy = false;
        match result {
            Ok((live, stood)) => {
                record.probes = live.pool.program.summary.health.then(Probes::default);
                (record.live, record.stood) = (Some(live), stood);
                if let Some(entry) = self.entries.get_mut(&id.agent) {
                    // The declaration may have changed since it was begun.
                    entry.fit();
                }
                self.go(id, State::Ready, None);
            }
            Err(why) => {
                // It was compiled, so that an instance was what failed.
                record.failures += u64::from(record.state == State::Loaded);
                self.fail(id, &why);
            }
        }
    }

    /// Ends revisions whose instances fail to start again and again (SPEC §7, supervision).
    pub(super) fn end_given_up(&mut self) {
        let given_up: Vec<(RevisionId, String)> = self
            .entries
            .iter()
            .flat_map(|(name, entry)| entry.revisions.iter().map(move |record| (name, record)))
            .filter(|(_, record)| !record.state.is_terminal())
            .filter_map(|(name, record)| {
                let why = record.live.as_ref()?.pool.given_up()?;
                Some((RevisionId { agent: name.clone(), number: record.number }, why.to_owned()))
            })
            .collect();
        let any = !given_up.is_empty();
        for (id, why) in given_up {
            self.standing.mark(&id.agent);
            self.unset(&id);
            self.fail(&id, &why);
        }
        if any {
            // Nobody is to be sent to who does not run.
            self.publish();
        }
    }

    /// Sends no more messages to a revision that failed: another that has some gets all, or they wait.
    pub(super) fn unset(&mut self, id: &RevisionId) {
        let Some(entry) = self.entries.get_mut(&id.agent) else { return };
        let other = entry.agent.serving().into_iter().find(|serving| serving.id.number != id.number);
        if entry.shares.iter().any(|(number, _)| *number == id.number) {
            entry.shares = other.iter().map(|other| (other.id.number, 100)).collect();
            entry.agent.set_traffic(other.map(Traffic::whole));
        }
    }

    pub(super) fn fail(&mut self, id: &RevisionId, why: &str) {
        let runs = self.entries.get(&id.agent).and_then(|entry| entry.agent.current());
        match runs {
            Some(running) => tracing::error!(agent = %id.agent, "{id} failed: {why}; {} goes on", running.id),
            None => tracing::error!(agent = %id.agent, "{id} failed: {why}"),
        }
        if let Some(record) = self.entries.get_mut(&id.agent).and_then(|entry| entry.record(id.number))
            && let Some(live) = record.live.take()
        {
            live.stop();
        }
        self.go(id, State::failed(why), None);
    }
}
