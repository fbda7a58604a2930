//! Doing what a rollout asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::lifecycle::State;
use caxton_control::rollout::Window;
use caxton_control::rollout::split::Split;
use caxton_control::rollout::{Action, Figures, Ledger, Rollout, Status, Windows};
use caxton_control::{AgentName, RevisionId};

use super::convert::Moves;
use super::told::{Told, tell};
use super::{Entry, Reconciler, Record, Report};
use crate::agent::{Revision, Traffic};
use crate::store::{Rest, Store};

/// The ledgers as they were persisted, each told that the host started again.
pub(super) fn load(store: &Store, now: u64) -> BTreeMap<AgentName, Ledger> {
    let records = store.ledgers().unwrap_or_else(|error| {
        tracing::error!(error, "the rollouts cannot be read; all agents begin with what is declared");
        Vec::new()
    });
    let mut ledgers = BTreeMap::new();
    for (agent, record) in records {
        match serde_json::from_str::<Ledger>(&record) {
            Ok(mut ledger) => {
                if let Some(rollout) = ledger.open_mut() {
                    let told = rollout.restarted(now);
                    let copies = store.state_copies(&agent).unwrap_or_else(|error| {
                        tracing::error!(agent, error, "the states that are kept cannot be read");
                        Vec::new()
                    });
                    // Its end was safe before the ledger could say so.
                    if copies.iter().any(|copy| copy.rollout == rollout.id && !copy.unfinished) {
                        rollout.has_converted(now);
                    }
                    tracing::info!(agent, "rollout {} to {}: {told}", rollout.id, rollout.candidate());
                }
                ledgers.insert(ledger.agent.clone(), ledger);
            }
            Err(error) => {
                tracing::error!(agent, %error, "its rollouts cannot be read; it begins with what is declared");
            }
        }
    }
    ledgers
}

/// How often figures are compared with those that are persisted.
const FIGURES_SEEN_EVERY: Duration = Duration::from_secs(1);
/// How often figures are persisted that changed and nothing else.
const FIGURES_EVERY: Duration = Duration::from_secs(5);

/// The rollout that is measured.
pub(super) struct Measuring {
    rollout: u64,
    /// See [`Rollout::window`].
    window: usize,
    /// Stable and the candidate, as they lived last: what they answered counts also when they have ended.
    sides: [Option<Measured>; 2],
}

/// A revision that is measured.
#[derive(Clone)]
struct Measured {
    live: Arc<Revision>,
    /// What it had answered when it was first seen in this rollout.
    before: u64,
    /// Its probes that passed, and that did not, when the window began.
    probed: (u64, u64),
}

impl Measured {
    fn answered(&self) -> u64 {
        self.live.answered().saturating_sub(self.before)
    }
}

impl Reconciler {
    /// Does one action of a rollout. Says whether who is called by what has changed.
    pub(super) fn roll(&mut self, action: Action) -> bool {
        match action {
            Action::Revive { revision } => self.revive(&revision),
            Action::Prepare { revision, instances } => self.prepare(&revision, instances),
            Action::Start { revision, instances } => self.start_more(&revision, instances),
            Action::Cap { revision, instances } => self.cap(&revision, instances),
            Action::Probe { revision } => self.probe(&revision),
            Action::Weigh { stable, candidate, percent } => return self.weigh(&stable, &candidate, percent),
            Action::Pause { agent } => self.hold(&agent),
            Action::Resume { agent } => self.pause(&agent, false),
            Action::Handoff { revision, memory, conversion } => {
                self.move_data(&revision, Moves::Memory(memory), conversion);
            }
            Action::Convert { revision, conversion } => self.move_data(&revision, Moves::State, Some(conversion)),
            Action::TakeBack { revision, conversion } => self.move_data(&revision, Moves::Earlier, conversion),
            Action::KeepState { revision } => self.keep_state(&revision),
            Action::RestoreState { revision } => self.restore_state(&revision),
            Action::Stop { revision } => return self.stop(&revision),
            Action::Rehearse { revision, messages } => self.rehearse(&revision, messages),
            Action::Shadow { revision, on } => self.shadow(&revision, on),
        }
        false
    }

    /// Persists ledgers before anything is done that they ask for, and tells how their rollouts go on.
    pub(super) fn persist<'a>(&mut self, changed: impl IntoIterator<Item = &'a AgentName>) {
        for name in changed {
            let Some(wanted) = self.wanted.get(name) else { continue };
            let Some(ledger) = self.ledgers.get_mut(name) else { continue };
            let gone = ledger.expire(wanted.spec.rollout.rollback.rules.keep);
            let record = serde_json::to_string(ledger).expect("a ledger is text and numbers");
            self.context.store.keep_ledger(name.shared(), Some(record));
            if !gone.is_empty() {
                self.context.store.forget_state_copies(name.shared(), gone.clone());
                self.context.store.forget_handoffs(name.shared(), gone);
                self.unused = true;
            }
            let Some(rollout) = ledger.rollouts.last() else { continue };
            let Some(entry) = self.entries.get_mut(name) else { continue };
            entry.kept = Some((Instant::now(), rollout.figures));
            let before = entry.told.replace(Told::of(rollout));
            tell(&self.context, rollout, before.as_ref());
        }
        if std::mem::take(&mut self.unused) {
            self.tidy(false);
        }
    }

    /// Persists the figures of rollouts under way that changed since they were, now and then: a host that is killed
    /// loses no more of them than that.
    pub(super) fn persist_figures(&mut self) {
        if self.sums.figures_seen.is_some_and(|seen| seen.elapsed() < FIGURES_SEEN_EVERY) {
            return;
        }
        self.sums.figures_seen = Some(Instant::now());
        let mut due = Vec::new();
        for name in &self.sums.measured {
            let Some(rollout) = self.ledgers.get(name).and_then(Ledger::open) else { continue };
            let Some(entry) = self.entries.get(name) else { continue };
            match entry.kept {
                Some((_, figures)) if figures == rollout.figures => {}
                Some((at, _)) if at.elapsed() < FIGURES_EVERY => {}
                Some(_) | None => due.push(name.clone()),
            }
        }
        self.persist(&due);
    }

    /// Forgets the ledgers of agents that are gone.
    pub(super) fn forget_ledger(&mut self, name: &AgentName) {
        self.ledgers.remove(name);
        self.context.store.keep_ledger(name.shared(), None);
        self.unused = true;
    }

    /// Gives a kept revision a new life.
    fn revive(&mut self, revision: &RevisionId) {
        let now = self.now();
        let Some(wanted) = self.wanted.get(&revision.agent) else { return };
        let side = self.ledgers.get(&revision.agent).and_then(|ledger| ledger.side(revision.number));
        let (Some(side), Some(entry)) = (side, self.entries.get_mut(&revision.agent)) else { return };
        let kept = wanted.spec.with_settings(&side.settings);
        let (spec, state) = match kept {
            Some(kept) if kept.same_settings(&wanted.spec) => (Arc::clone(&wanted.spec), State::Unloaded),
            Some(kept) => (Arc::new(kept), State::Unloaded),
            None => (Arc::clone(&wanted.spec), State::failed("its settings cannot be read by this version")),
        };
        let mut record = Record::new(side.number, spec, side.digest, now);
        record.state = state;
        entry.revisions.retain(|record| record.number != revision.number);
        entry.revisions.push(record);
        entry.revisions.sort_by_key(|record| record.number);
    }

    /// Lets more instances stand.
    fn start_more(&mut self, revision: &RevisionId, instances: u32) {
        self.work_on(revision, move |live, id| async move {
            let result = super::prepare::stand(&live, instances).await;
            Report::Stands { agent: id.agent, number: id.number, instances, result }
        });
    }

    /// Asks a revision's `health` once.
    fn probe(&mut self, revision: &RevisionId) {
        let Some(ledger) = self.ledgers.get(&revision.agent) else { return };
        let time = ledger.open().map_or(Duration::from_secs(5), |rollout| rollout.settings.probe.timeout);
        self.work_on(revision, move |live, id| async move {
            let answer = live.pool.probe(time).await;
            if let Some(Err(why)) = &answer {
                tracing::warn!(agent = %id.agent, "a probe of {id} failed: {why}");
            }
            Report::Probed { agent: id.agent, number: id.number, passed: answer.map(|answer| answer.is_ok()) }
        });
    }

    /// Holds the mailbox of an agent for a handoff, once the disk is free for it.
    fn hold(&mut self, name: &AgentName) {
        let Some(candidate) = self.ledgers.get(name).and_then(Ledger::open).map(Rollout::candidate) else { return };
        let context = Arc::clone(&self.context);
        self.work_on(&candidate, move |_, id| async move {
            let rest = context.store.rest().await;
            Report::Rests { agent: id.agent, number: id.number, rest }
        });
    }

    /// Takes in that the disk is free for a handoff.
    pub(super) fn rests(&mut self, name: &AgentName, number: u64, rest: Rest) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some(record) = entry.record(number) {
            record.busy = false;
        }
        let open = self.ledgers.get(name).and_then(Ledger::open);
        // What is not to be handed over any more lets its messages be handled.
        if entry.retired.is_none() && open.is_some_and(|rollout| rollout.to.number == number && rollout.hands_over()) {
            entry.rest = Some(rest);
            self.pause(name, true);
        }
    }

    /// Does long work for a revision, which is left alone until it ends.
    pub(super) fn work_on<F>(
        &mut self,
        revision: &RevisionId,
        work: impl FnOnce(Arc<Revision>, RevisionId) -> F + Send + 'static,
    ) where
        F: Future<Output = Report> + Send,
    {
        let Some(record) = self.entries.get_mut(&revision.agent).and_then(|entry| entry.record(revision.number)) else {
            return;
        };
        let Some(live) = record.live.clone() else { return };
        record.busy = true;
        let (id, reports) = (revision.clone(), self.reports.0.clone());
        let guard = self.context.tasks.guard("rollout");
        tokio::spawn(async move {
            let _guard = guard;
            let report = work(live, id).await;
            // The reconciler is gone only when the host stops.
            let _ = reports.send(report).await;
        });
    }

    /// Bounds the instances of a revision.
    fn cap(&mut self, revision: &RevisionId, instances: Option<u32>) {
        let Some(entry) = self.entries.get_mut(&revision.agent) else { return };
        if let Some(record) = entry.record(revision.number) {
            record.cap = instances;
        }
        entry.bound_instances();
    }

    /// Sends traffic to a revision beside which none runs.
    pub(super) fn switch(&mut self, revision: &RevisionId) -> bool {
        self.weigh(revision, revision, 100)
    }

    /// Splits traffic, with the states that follow from it. Says whether who is called by what has changed.
    fn weigh(&mut self, stable: &RevisionId, candidate: &RevisionId, percent: u8) -> bool {
        let Some(entry) = self.entries.get_mut(&stable.agent) else { return false };
        let live = |number: u64| entry.revisions.iter().find(|r| r.number == number).and_then(|r| r.live.clone());
        let all = |id: &RevisionId| live(id.number).map(Traffic::whole);
        let traffic = match percent {
            0 => all(stable),
            100.. => all(candidate),
            _ => live(stable.number).zip(live(candidate.number)).map(|(stable, candidate)| {
                let rollout = self.ledgers.get(&stable.id.agent).and_then(Ledger::open);
                let split = rollout.map(|rollout| Split::new(rollout.id, &rollout.weights)).unwrap_or_default();
                Traffic::parted(stable, candidate, split)
            }),
        };
        let Some(traffic) = traffic else { return false };
        let before = std::mem::take(&mut entry.shares);
        entry.shares = [(stable.number, 100 - percent), (candidate.number, percent)]
            .into_iter()
            .filter(|(_, share)| *share > 0)
            .collect();
        let (agent, serving) = (Arc::clone(&entry.agent), entry.shares.clone());
        entry.bound_instances();
        let (ran, has_capabilities) = (agent.current().is_some(), !agent.spec().capabilities.is_empty());
        agent.set_traffic(Some(traffic));
        let running: Vec<u64> =
            entry.revisions.iter().filter(|r| r.state == State::Running).map(|record| record.number).collect();
        let id = |number| RevisionId { agent: stable.agent.clone(), number };
        for (number, _) in serving.iter().filter(|(number, _)| !running.contains(number)) {
            self.go(&id(*number), State::Running, None);
        }
        let over = |number: &&u64| !serving.iter().any(|(serves, _)| serves == *number);
        let drained: Vec<u64> = running.iter().filter(over).copied().collect();
        for number in &drained {
            self.go(&id(*number), State::Draining, None);
        }
        if before != serving {
            let share = |(number, share): &(u64, u8)| match share {
                100 => format!("{} runs", id(*number)),
                part => format!("{} has {part}%", id(*number)),
            };
            let drains = drained.iter().map(|number| format!("{} drains", id(*number)));
            let told: Vec<String> = serving.iter().map(share).chain(drains).collect();
            if before.is_empty() {
                tracing::debug!(agent = %stable.agent, "{}", told.join("; "));
            } else {
                tracing::info!(agent = %stable.agent, "{}", told.join("; "));
            }
        }
        // Capabilities are of running agents only.
        !ran && has_capabilities
    }

    /// Begins to measure anew where a rollout came to another step.
    pub(super) fn measure(&mut self, names: &BTreeSet<AgentName>) {
        for name in names {
            let Some(entry) = self.entries.get_mut(name) else { continue };
            let open = self.ledgers.get(name).and_then(Ledger::open);
            entry.end_trials(open.map(|rollout| rollout.id));
            if let Some(converting) = &entry.converting
                && open.is_none_or(|rollout| matches!(rollout.status, Status::RollingBack { .. }))
            {
                // Before any message was handled nothing is lost by that: the state is put back as it was.
                converting.cancel();
            }
            let Some(rollout) = open else {
                if entry.measuring.take().is_some() {
                    entry.lives().for_each(|live| live.end_window());
                }
                continue;
            };
            let [stable, candidate] = [rollout.from.number, rollout.to.number].map(|number| entry.live(number));
            let same = entry.measuring.take().filter(|measuring| measuring.rollout == rollout.id);
            if same.is_none() {
                entry.longest_pause_ms = 0;
            }
            let (before, window) = (same.as_ref().map(|same| same.window), rollout.window());
            let [first, second] = same.map_or([None, None], |same| same.sides);
            let mut sides = [seen_last(first, stable), seen_last(second, candidate)];
            if before != Some(window) {
                let numbers = [rollout.from.number, rollout.to.number];
                for (side, number) in sides.iter_mut().zip(numbers) {
                    let Some(side) = side else { continue };
                    side.live.begin_window();
                    side.probed = probed(&entry.revisions, number);
                }
            }
            entry.measuring = Some(Measuring { rollout: rollout.id, window, sides });
        }
    }
}

/// How many probes of a revision passed, and how many did not.
fn probed(revisions: &[Record], number: u64) -> (u64, u64) {
    let probes = revisions.iter().find(|record| record.number == number).and_then(|record| record.probes);
    probes.map_or((0, 0), |probes| (probes.passed, probes.failed))
}

/// Who is measured: the one that lives, or else the one that did.
fn seen_last(known: Option<Measured>, live: Option<Arc<Revision>>) -> Option<Measured> {
    match (known, live) {
        (Some(known), Some(live)) if Arc::ptr_eq(&known.live, &live) => Some(known),
        (_, Some(live)) => {
            live.begin_window();
            // Its probes begin with it.
            Some(Measured { before: live.answered(), live, probed: (0, 0) })
        }
        (known, None) => known,
    }
}

impl Entry {
    pub(super) fn live(&self, number: u64) -> Option<Arc<Revision>> {
        self.revisions.iter().find(|record| record.number == number).and_then(|record| record.live.clone())
    }

    /// Lets each revision have as many instances as it may.
    pub(super) fn bound_instances(&self) {
        let instances = self.agent.spec().instances.clone();
        let max = instances.max;
        for (record, live) in self.revisions.iter().filter_map(|record| Some((record, record.live.as_ref()?))) {
            live.pool.set_max(record.cap.map_or(max, |cap| cap.min(max)).max(1));
            live.pool.set_reuse(instances.reuse.said());
            if let Some(cap) = record.cap {
                live.pool.trim(cap, Duration::ZERO);
            }
        }
    }

    /// What was measured of a rollout.
    pub(super) fn measured(&self, rollout: &Rollout) -> (Windows, Figures) {
        let Some(measuring) = self.measuring.as_ref().filter(|measuring| measuring.rollout == rollout.id) else {
            return Default::default();
        };
        let [stable, candidate] = &measuring.sides;
        let window = |side: &Option<Measured>, number: u64| {
            let Some(side) = side else { return Window::default() };
            let ((passed, failed), (passed_before, failed_before)) = (probed(&self.revisions, number), side.probed);
            Window {
                probes_passed: passed.saturating_sub(passed_before),
                probes_failed: failed.saturating_sub(failed_before),
                ..side.live.window()
            }
        };
        let (held, sticky) = self.agent.held_conversations();
        let mut windows = Windows {
            step: measuring.window,
            stable: window(stable, rollout.from.number),
            candidate: window(candidate, rollout.to.number),
            held,
            sticky,
        };
        let has_all = self.agent.current().is_some_and(|current| current.id.number == rollout.to.number);
        windows.candidate.breaker_open = has_all && self.agent.is_left_alone();
        let (probes_passed, probes_failed) = probed(&self.revisions, rollout.to.number);
        let answered = |side: &Option<Measured>| side.as_ref().map_or(0, Measured::answered);
        let failures = self.revisions.iter().find(|r| r.number == rollout.to.number).map_or(0, |r| r.failures);
        let of_pool = |get: fn(&crate::wasm::Pool) -> u64| candidate.as_ref().map_or(0, |side| get(&side.live.pool));
        let figures = Figures {
            started: of_pool(|pool| u64::from(pool.started())),
            failed: failures + of_pool(|pool| u64::from(pool.failures())),
            peak_memory_bytes: of_pool(crate::wasm::Pool::peak_memory),
            longest_pause_ms: self.longest_pause_ms,
            stable_messages: answered(stable),
            candidate_messages: answered(candidate),
            probes_passed,
            probes_failed,
            compared: self.compared(rollout.id),
            rehearsed: self.rehearsed_answers(rollout.id),
            // Counted when it has ended.
            lost: None,
        };
        (windows, figures)
    }
}
