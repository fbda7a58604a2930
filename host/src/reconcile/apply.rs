//! Doing what a plan lists.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::lifecycle::State;
use caxton_control::plan::Action;
use caxton_control::{AgentName, AgentSpec, Digest, RevisionId};

use super::{Entry, Reconciler, Record, Report};
use crate::agent::Agent;

impl Reconciler {
    /// Does one action. Says whether who is called by what has changed.
    pub(super) fn apply(&mut self, action: Action) -> bool {
        match action {
            Action::Create { agent, digest, spec } => {
                self.create(&agent, digest, spec);
                false
            }
            Action::Configure { agent, spec } => {
                if let Some(entry) = self.entries.get(&agent) {
                    entry.agent.configure(spec);
                }
                true
            }
            Action::Prepare { revision } => {
                self.prepare(&revision);
                false
            }
            Action::Switch { revision } => self.switch(&revision),
            Action::Pause { agent } => self.pause(&agent, true),
            Action::Resume { agent } => self.pause(&agent, false),
            Action::Handoff { revision } => {
                self.hand_off(&revision);
                false
            }
            Action::Stop { revision } => self.stop(&revision),
            Action::Retire { agent } => self.retire(&agent),
            Action::Forget { agent } => {
                if let Some(entry) = self.entries.remove(&agent) {
                    entry.agent.remove("the agent was removed");
                    self.commons.events.tell(Some(agent.as_str()), "agent.removed", serde_json::json!({}));
                    tracing::info!(agent = %agent, "removed");
                }
                true
            }
        }
    }

    /// Gives agents that are declared and unknown a place, so that callers learn that they are not ready rather
    /// than that nobody has the name. Says whether there were any.
    pub(super) fn welcome(&mut self) -> bool {
        let mut any = false;
        for (name, wanted) in &self.wanted {
            if !self.entries.contains_key(name) {
                any = true;
                let agent = Agent::new(Arc::clone(&wanted.spec), Arc::clone(&self.commons));
                let entry = Entry { agent, revisions: Vec::new(), next_number: None, paused: false, retired: false };
                self.entries.insert(name.clone(), entry);
            }
        }
        any
    }

    fn create(&mut self, name: &AgentName, digest: Digest, spec: Arc<AgentSpec>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let number = entry.next_number.unwrap_or_else(|| {
            let last = self.commons.store.last_revision(name.as_str()).unwrap_or_else(|error| {
                tracing::error!(agent = %name, error, "an agent's last revision cannot be read; its numbers begin anew");
                None
            });
            // The same bytes and settings as before a restart are the same revision.
            last.map_or(1, |(number, kept, before)| {
                if kept == digest.to_string() && before == settings(&spec) { number } else { number + 1 }
            })
        });
        entry.next_number = Some(number + 1);
        // Of those that ended only the newest is of interest, and that is this one now.
        entry.revisions.retain(|record| !record.state.is_terminal());
        let (state, since) = (State::Unloaded, Instant::now());
        entry.revisions.push(Record { number, spec, digest, state, since, busy: false, live: None });
    }

    /// Sends new messages to a revision that is ready; the one that ran drains.
    pub(super) fn switch(&mut self, revision: &RevisionId) -> bool {
        let Some(entry) = self.entries.get_mut(&revision.agent) else { return false };
        let Some(live) = entry.record(revision.number).and_then(|record| record.live.clone()) else { return false };
        let old = entry.revisions.iter().find(|record| record.state == State::Running).map(|record| record.number);
        entry.agent.switch(live);
        self.go(revision, State::Running, None);
        if let Some(number) = old {
            self.go(&RevisionId { agent: revision.agent.clone(), number }, State::Draining, None);
        }
        match old {
            Some(old) => tracing::info!(agent = %revision.agent, "{revision} runs; {}@{old} drains", revision.agent),
            None => tracing::debug!(agent = %revision.agent, "{revision} runs"),
        }
        // Capabilities are of running agents only.
        true
    }

    fn pause(&mut self, name: &AgentName, paused: bool) -> bool {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.paused = paused;
            if let Some(current) = entry.agent.current() {
                current.tell_when_idle(paused);
            }
            entry.agent.pause(paused);
        }
        false
    }

    fn hand_off(&mut self, revision: &RevisionId) {
        let Some(entry) = self.entries.get_mut(&revision.agent) else { return };
        let (agent, old) = (Arc::clone(&entry.agent), entry.agent.current());
        let Some(record) = entry.record(revision.number) else { return };
        let (Some(new), Some(old)) = (record.live.clone(), old) else { return };
        record.busy = true;
        let (name, number, reports) = (revision.agent.clone(), revision.number, self.reports.0.clone());
        tokio::spawn(async move {
            let result = super::prepare::hand_off(&agent, &old, &new).await;
            // The reconciler is gone only when the host stops.
            let _ = reports.send(Report::HandedOff { agent: name, number, result }).await;
        });
    }

    fn stop(&mut self, revision: &RevisionId) -> bool {
        let Some(entry) = self.entries.get_mut(&revision.agent) else { return false };
        let agent = Arc::clone(&entry.agent);
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
        if live.kind() == crate::wasm::Kind::Stateful {
            // Its memory is kept: the agent, or a revision that takes it up, may come back. After a handoff there
            // is no instance of it any more, and nothing is saved.
            record.busy = true;
            let (name, number, reports) = (revision.agent.clone(), revision.number, self.reports.0.clone());
            tokio::spawn(async move {
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

    fn retire(&mut self, name: &AgentName) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        entry.retired = true;
        entry.agent.retire("the agent is no longer declared");
        if entry.paused {
            entry.paused = false;
            entry.agent.pause(false);
        }
        let numbers: Vec<(u64, State)> = entry.revisions.iter().map(|r| (r.number, r.state.clone())).collect();
        for (number, state) in numbers {
            let id = RevisionId { agent: name.clone(), number };
            if state.can_drain() {
                self.go(&id, State::Draining, Some("no longer declared"));
            }
        }
        true
    }

    /// Takes a revision to another state and tells of it.
    pub(super) fn go(&mut self, revision: &RevisionId, to: State, reason: Option<&str>) {
        let Some(record) = self.entries.get_mut(&revision.agent).and_then(|entry| entry.record(revision.number)) else {
            return;
        };
        match record.state.transition(to) {
            Ok(to) => {
                let from = std::mem::replace(&mut record.state, to);
                record.since = Instant::now();
                if let Some(live) = &record.live {
                    live.tell_when_idle(record.state == State::Draining);
                }
                let reason = match &record.state {
                    State::Failed { reason } => Some(reason.as_str()),
                    _ => reason,
                };
                let (from, to) = (from.to_string(), record.state.to_string());
                self.commons.tell_state(revision.agent.as_str(), revision.number, &from, &to, reason);
            }
            // A defect of the plan; what runs goes on.
            Err(error) => tracing::error!(%revision, %error, "a step was not taken"),
        }
    }

    /// Takes in what a task reports.
    pub(super) fn report(&mut self, report: Report) {
        match report {
            Report::Loaded { agent, number } => self.go(&RevisionId { agent, number }, State::Loaded, None),
            Report::Prepared { agent, number, result } => {
                let id = RevisionId { agent, number };
                let Some(record) = self.entries.get_mut(&id.agent).and_then(|entry| entry.record(number)) else {
                    return;
                };
                record.busy = false;
                match result {
                    Ok(live) => {
                        record.live = Some(live);
                        self.go(&id, State::Ready, None);
                    }
                    Err(why) => self.fail(&id, &why),
                }
            }
            Report::HandedOff { agent, number, result } => {
                let id = RevisionId { agent, number };
                if let Some(record) = self.entries.get_mut(&id.agent).and_then(|entry| entry.record(number)) {
                    record.busy = false;
                }
                match result {
                    Ok(()) => {
                        self.switch(&id);
                        self.pause(&id.agent, false);
                        self.publish();
                    }
                    Err(why) => self.fail(&id, &why),
                }
            }
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
        for (id, why) in given_up {
            if let Some(entry) = self.entries.get(&id.agent) {
                entry.agent.unset(id.number);
            }
            self.fail(&id, &why);
        }
    }

    fn fail(&mut self, id: &RevisionId, why: &str) {
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

impl Entry {
    pub(super) fn record(&mut self, number: u64) -> Option<&mut Record> {
        self.revisions.iter_mut().find(|record| record.number == number)
    }
}

/// What makes a revision another one, as text that is kept.
pub(super) fn settings(spec: &AgentSpec) -> String {
    serde_json::json!({ "config": spec.config, "allow": spec.allow, "limits": spec.limits }).to_string()
}
