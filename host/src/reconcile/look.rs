//! Looking at whom something changed for, and telling what follows for the host.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use caxton_control::AgentName;
use caxton_control::lifecycle::State;
use caxton_control::plan::{self, Actual, ActualAgent};
use caxton_control::rollout::{Converting, Ledger, Obstacle, Turns};

use super::{Entry, Reconciler, changes};
use crate::config;
use crate::reconcile::handle::Readiness;
use crate::status::{Applied, Waiting};

/// How often all agents are looked at, whoever is marked.
const ALL_EVERY: Duration = Duration::from_secs(60);
/// How old the reasons may be that are told of a host on which something is under way: with thousands of agents that
/// wait, to write them costs more than to look.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// What is told of all agents, kept by what follows from each.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Agents for which something is under way that will end by itself soon.
    unsettled: BTreeSet<AgentName>,
    /// Declared agents of which no revision takes messages.
    unserved: BTreeSet<AgentName>,
    /// Declared agents that are not as declared until a person mends something.
    obstructed: BTreeMap<AgentName, Obstacle>,
    /// Agents with a rollout under way, which is measured.
    pub(super) measured: BTreeSet<AgentName>,
    /// When their figures were compared last with those that are kept.
    pub(super) figures_seen: Option<Instant>,
    /// Since when other reasons may be true than those that are told.
    untold: Option<Instant>,
    /// When they were told last.
    told: Option<Instant>,
}

impl Sums {
    /// How many declared agents are not served.
    pub(super) fn unserved(&self) -> usize {
        self.unserved.len()
    }
}

impl Reconciler {
    /// Something of all agents may have changed.
    pub(super) fn mark_all(&mut self) {
        let names = self.wanted.keys().chain(self.entries.keys()).chain(self.ledgers.keys());
        names.for_each(|name| self.standing.mark(name));
        self.all_seen = Instant::now();
    }

    /// Something of an agent changed.
    pub(super) fn mark(&mut self, name: &str) {
        let known = self.entries.get_key_value(name).map(|(name, _)| name);
        if let Some(name) = known.or_else(|| self.wanted.get_key_value(name).map(|(name, _)| name)) {
            self.standing.mark(name);
        }
    }

    /// What is told of those whom time alone changes is to be of this moment.
    pub(super) fn look_at_timed(&mut self) {
        self.standing.mark_timed();
        self.reconcile();
    }

    /// What is measured of all rollouts under way is to be of this moment.
    pub(super) fn mark_measured(&mut self) {
        self.sums.measured.iter().for_each(|name| self.standing.mark(name));
    }

    /// When to look again although nothing happened.
    pub(super) fn look_again_in(&self) -> Duration {
        let now = self.now();
        let due = self.standing.look_again_at().map(|at| Duration::from_millis(at.saturating_sub(now)));
        let all = ALL_EVERY.saturating_sub(self.all_seen.elapsed());
        let told = self.sums.untold.map(|since| TOLD_EVERY.saturating_sub(since.elapsed()));
        let files = self.unsettled_at().into_iter().chain(self.orphans_until).min();
        let files = files.map(|at| at.saturating_duration_since(Instant::now()));
        [due, told, files].into_iter().flatten().fold(all.min(self.looks.next_in()), Duration::min)
    }

    /// Observes, plans and acts for those of whom something changed, until nothing more is safe to do at this moment.
    pub(super) fn reconcile(&mut self) {
        for name in self.context.changed() {
            self.mark(&name);
        }
        if self.all_seen.elapsed() >= ALL_EVERY {
            self.mark_all();
        }
        self.end_given_up();
        self.bury_orphans();
        loop {
            let now = self.now();
            let names = self.standing.take(now);
            if names.is_empty() {
                break;
            }
            if self.welcome(&names) {
                self.publish();
            }
            self.measure(&names);
            self.note_figures(&names);
            let actual = self.observe(&names);
            let plan = plan::plan_for(&names, &self.wanted, &actual, &mut self.ledgers, now);
            self.standing.planned(&names, &plan, now);
            plan.gone.iter().for_each(|name| self.forget_ledger(name));
            self.note_places(&names);
            self.persist(plan.changed.iter());
            let mut routes_changed = false;
            for action in plan.actions {
                routes_changed |= self.apply(action);
            }
            if routes_changed {
                self.publish();
            }
            self.look_for_lost(&names);
            self.sum(&names);
        }
        self.persist_figures();
        self.note_all_figures();
        self.tidy_now_and_then();
        self.tell();
    }

    fn observe(&self, names: &BTreeSet<AgentName>) -> Actual {
        let present = names.iter().filter_map(|name| Some((name, self.entries.get(name)?)));
        let agents = present.map(|(name, entry)| {
            let revisions = entry.revisions.iter().map(|record| plan::Revision {
                number: record.number,
                spec: std::sync::Arc::clone(&record.spec),
                digest: record.digest,
                seen: record.seen(),
            });
            let open = self.ledgers.get(name).and_then(Ledger::open);
            let (windows, figures) = open.map(|rollout| entry.measured(rollout)).unwrap_or_default();
            let actual = ActualAgent {
                applied: entry.agent.spec(),
                paused: entry.paused,
                conversion: Converting {
                    kept: open.is_some_and(|rollout| entry.state_kept == Some(rollout.id)),
                    unfinished: entry.unfinished,
                    restoring: entry.restoring,
                },
                retired: entry.retired,
                // Only asked for where it matters: it takes the mailbox's lock.
                waits: entry.retired.is_some() && (entry.converts() || entry.agent.has_work()),
                revisions: revisions.collect(),
                shares: entry.shares.clone(),
                windows,
                figures,
                shadowed: open.is_some_and(|rollout| entry.is_shadowed(rollout.id)),
                compared: figures.compared,
                rehearsal: open.map(|rollout| entry.rehearsed(rollout.id)).unwrap_or_default(),
            };
            (name.clone(), actual)
        });
        Actual { agents: agents.collect() }
    }

    /// Takes in what follows for the host from agents that were looked at.
    fn sum(&mut self, names: &BTreeSet<AgentName>) {
        for name in names {
            let entry = self.entries.get(name);
            let settled = entry.is_none_or(|entry| entry.is_settled(self.ledgers.get(name)));
            put(&mut self.sums.unsettled, name, !settled);
            let served = entry.is_some_and(|entry| entry.agent.current().is_some());
            put(&mut self.sums.unserved, name, self.wanted.contains_key(name) && !served);
            let obstacle = self.standing.obstacle(name).filter(|_| self.wanted.contains_key(name));
            self.obstructed(name, obstacle);
            let open = self.ledgers.get(name).and_then(Ledger::open).is_some();
            put(&mut self.sums.measured, name, open);
        }
        self.retell();
    }

    /// Notes what is in the way of what is declared of an agent, and tells of it as it comes.
    fn obstructed(&mut self, name: &AgentName, obstacle: Option<Obstacle>) {
        let before = match obstacle {
            Some(obstacle) => self.sums.obstructed.insert(name.clone(), obstacle),
            None => self.sums.obstructed.remove(name),
        };
        let Some(obstacle) = obstacle.filter(|now| before != Some(*now)) else { return };
        let whys = self.standing.waiting().get(name).into_iter().flatten().filter(|w| w.obstacle == Some(obstacle));
        let why = whys.map(|waiting| waiting.why.as_str()).collect::<Vec<_>>().join("; ");
        // A rollout that failed was logged when it did. A declaration that is refused before it begins is logged here.
        if matches!(obstacle, Obstacle::Missing | Obstacle::Refused) {
            tracing::warn!(agent = %name, "{why}");
        }
        let data = serde_json::json!({ "obstacle": obstacle.as_str(), "why": why });
        self.context.events.tell(Some(name.as_str()), "agent.obstructed", data);
    }

    /// Compares the host's own settings with those that it was started with.
    pub(super) fn compare_host(&mut self) {
        let host = changes::changes(&self.started_with, &self.declared.desired);
        let late = host.into_iter().filter(|change| change.change == "restart-needed");
        self.restart_for = late.map(|change| change.details.join(", ")).collect();
        self.retell();
    }

    /// Other reasons may be true than those that are told.
    pub(super) fn retell(&mut self) {
        self.sums.untold.get_or_insert_with(Instant::now);
    }

    /// What waits, and why.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let mut all: Vec<Waiting> = self.standing.waiting().values().flatten().map(Waiting::from).collect();
        if !self.standing.queued().is_empty() {
            let turn = self.turns().waits();
            let waits = |name: &AgentName| Waiting { agent: name.to_string(), why: turn.clone(), obstacle: None };
            all.extend(self.standing.queued().iter().map(waits));
            all.sort_by(|one, other| one.agent.cmp(&other.agent));
        }
        all.extend(self.entries.iter().filter_map(|(name, entry)| {
            let why = entry.misfit.clone()?;
            Some(Waiting { agent: name.to_string(), why, obstacle: None })
        }));
        all.extend(self.restart_for.iter().map(|keys| Waiting {
            agent: String::new(),
            why: format!("the host has to start again for {keys}"),
            obstacle: None,
        }));
        all
    }

    /// Who is carried out, and who may begin.
    pub(super) fn turns(&self) -> Turns {
        Turns::of(self.ledgers.values().filter_map(Ledger::open))
    }

    /// Tells whether the host is ready, and answers who waits for it.
    fn tell(&mut self) {
        let settled = self.sums.unsettled.is_empty() && self.files.again().is_none();
        // A file that is there and has errors says nothing that could be followed or not: that is told as a reason, and
        // takes no host that serves out of rotation. So is a rollout under way.
        let ready = self.sums.unserved.is_empty() && self.sums.obstructed.is_empty() && !self.file_is_gone();
        let recent = self.sums.told.is_some_and(|told| told.elapsed() < TOLD_EVERY);
        if self.sums.untold.is_some() && (!recent || settled || ready != self.ready.borrow().ready) {
            (self.sums.untold, self.sums.told) = (None, Some(Instant::now()));
            let waiting = self.waiting();
            let now = Readiness { ready, in_sync: self.is_in_sync(&waiting), reasons: self.reasons(waiting) };
            self.ready.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
        }
        if !settled {
            return;
        }
        self.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
        if self.settling.is_empty() {
            return;
        }
        let (waiting, settled) = (self.waiting(), self.is_as_declared());
        for (answer, changes) in std::mem::take(&mut self.settling) {
            let applied = Applied { changes, settled, waiting: waiting.clone() };
            // Who asked may be gone.
            let _ = answer.send(Ok(applied));
        }
    }

    /// Whether the declaration's file cannot be read at all.
    fn file_is_gone(&self) -> bool {
        self.file_errors.iter().any(|error| config::is_unreadable(&error.code))
    }

    fn reasons(&self, waiting: Vec<Waiting>) -> Vec<String> {
        let mut reasons: Vec<String> =
            self.file_errors.iter().map(|e| format!("{}: {}: {}", e.place, e.key, e.message)).collect();
        if !reasons.is_empty() {
            reasons.insert(0, format!("{} has errors, so what runs differs from it", self.source.file.display()));
        }
        reasons.extend(
            waiting.into_iter().map(|w| if w.agent.is_empty() { w.why } else { format!("{}: {}", w.agent, w.why) }),
        );
        reasons
    }
}

fn put(names: &mut BTreeSet<AgentName>, name: &AgentName, belongs: bool) {
    if !belongs {
        names.remove(name);
    } else if !names.contains(name) {
        names.insert(name.clone());
    }
}

impl Entry {
    /// Whether nothing is under way that will end by itself soon; drains may be, and rollouts that wait for time,
    /// messages or people.
    fn is_settled(&self, ledger: Option<&Ledger>) -> bool {
        if let Some(rollout) = ledger.and_then(Ledger::open) {
            return !rollout.is_working();
        }
        !self.paused
            && self.revisions.iter().all(|record| match record.state {
                State::Unloaded | State::Loaded | State::Ready => false,
                State::Running | State::Draining | State::Stopped | State::Failed { .. } => true,
            })
    }
}
