//! The reconcile cycle: one pass over the marked agents after another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::AgentName;
use caxton_control::plan::{self, Actual, ActualAgent};
use caxton_control::rollout::{ConversionState, Ledger};
use tokio_util::sync::CancellationToken;

use super::readiness::REASONS_INTERVAL;
use super::recent_failures::RECORD_INTERVAL;
use super::reconciler::{AgentsToDrain, Reconciler};
use crate::tasks::{BEAT, RECONCILER};

/// The interval at which all agents are marked, in case a notification was missed. Long, because a pass over ten
/// thousand agents takes a noticeable part of a second.
const FULL_PASS_INTERVAL: Duration = Duration::from_secs(60);
/// The most reports that are taken in before the next pass.
const MAX_REPORTS: usize = 4_096;
/// The most agents of one plan. What is observed and planned of an agent takes some kilobytes until it is done, and with a
/// hundred thousand at once, at a start, that would be as much as the agents themselves take.
const MAX_PLANNED: usize = 4_096;
/// The number of unserved agents above which a pass waits [`BATCH_PAUSE`] for more reports.
const BATCH_THRESHOLD: usize = 256;
/// The pause between two publications of the routes during a start of many agents, as a multiple of what one takes.
const ROUTES_PAUSE: u32 = 8;
const BATCH_PAUSE: Duration = Duration::from_millis(10);

impl Reconciler {
    /// Keeps what runs as declared, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> AgentsToDrain {
        let mut reports = Vec::new();
        loop {
            self.recheck_unsettled_files();
            self.reconcile();
            // After the pass: one that hangs must show as a stall.
            self.context.tasks.beat(RECONCILER);
            let next_pass = self.next_pass_in();
            tokio::select! {
                // Not biased: a caller that sends requests all the time must not starve the other branches.
                () = stop.cancelled() => break,
                Some(request) = self.requests.recv() => self.handle_request(request),
                Some(wake) = self.wakes.recv() => self.wake(wake),
                _ = self.reports.1.recv_many(&mut reports, MAX_REPORTS) => {
                    // When thousands of agents start at once, many reports arrive together: one pass and one snapshot
                    // of the routes then serve them all.
                    if self.summary.unserved.len() > BATCH_THRESHOLD {
                        tokio::time::sleep(BATCH_PAUSE).await;
                        while let Ok(report) = self.reports.1.try_recv() {
                            reports.push(report);
                        }
                    }
                    for report in reports.drain(..) {
                        self.take_report(report);
                    }
                }
                () = self.context.until_woken() => {}
                // At most a beat: a longer silence counts as a stall of this task.
                () = tokio::time::sleep(next_pass.min(BEAT)) => {}
            }
        }
        // Persisted at intervals only, so that the last of them would be lost.
        self.persist_failures();
        self.facts.stopping = true;
        AgentsToDrain { managed: self.managed, limit: self.declared.desired.host.drain }
    }

    /// Marks all agents: anything may have changed.
    pub(super) fn mark_all(&mut self) {
        let names = self.wanted.keys().chain(self.managed.keys()).chain(self.ledgers.keys());
        names.for_each(|name| self.plans.mark(name));
        self.full_pass_at = Instant::now();
    }

    /// Marks an agent for the next pass, if there is one of this name.
    pub(super) fn mark(&mut self, name: &str) {
        let known = self.managed.get_key_value(name).map(|(name, _)| name);
        if let Some(name) = known.or_else(|| self.wanted.get_key_value(name).map(|(name, _)| name)) {
            self.plans.mark(name);
        }
    }

    /// Makes a pass over the agents that change with time alone, so that a status is current.
    pub(super) fn reconcile_timed(&mut self) {
        // Only these can have changed without a mark of their own.
        self.plans.mark_timed();
        self.reconcile();
    }

    /// Marks all agents with a rollout under way, so that its statistics become current.
    pub(super) fn mark_rolling_out(&mut self) {
        self.summary.rolling_out.iter().for_each(|name| self.plans.mark(name));
    }

    /// Returns the time until the next pass is due without any event.
    fn next_pass_in(&self) -> Duration {
        let now = self.now();
        // On the steady clock: setting the wall clock must not delay a pass.
        let due = self.plans.recheck_at().map(|at| Duration::from_millis(at.saturating_sub(now)));
        let all = FULL_PASS_INTERVAL.saturating_sub(self.full_pass_at.elapsed());
        let readiness = self.summary.stale_since.map(|since| REASONS_INTERVAL.saturating_sub(since.elapsed()));
        let files = self.unsettled_at().into_iter().chain(self.orphans_until).min();
        let files = files.map(|at| at.saturating_duration_since(Instant::now()));
        let failures =
            RECORD_INTERVAL.saturating_sub(self.failures_recorded_at.map_or(Duration::ZERO, |at| at.elapsed()));
        [due, readiness, files].into_iter().flatten().fold(all.min(failures), Duration::min)
    }

    /// Observes, plans and acts for the marked agents, until no more action is safe at this moment.
    pub(super) fn reconcile(&mut self) {
        for name in self.context.take_changed() {
            self.mark(&name);
        }
        if self.full_pass_at.elapsed() >= FULL_PASS_INTERVAL {
            self.mark_all();
        }
        // Both mark agents, so that they come before the marks are taken.
        self.fail_given_up();
        self.bury_orphans();
        loop {
            let now = self.now();
            // All at once, as each publication costs as much as there are agents.
            if self.register() {
                self.publish();
            }
            let names = self.plans.take_marked(now, MAX_PLANNED);
            if names.is_empty() {
                break;
            }
            // Before the observation, which reads the windows that are started here.
            self.update_measurements(&names);
            self.record_failures(&names);
            let actual = self.observe(&names);
            let ledgers = (&mut self.ledgers, &self.summary.rolling_out);
            let plan = plan::plan_for(&names, &self.wanted, &actual, ledgers, now);
            self.plans.update(&names, &plan, now);
            // The plan has judged them as gone; a ledger left behind would apply to a later agent of the same name.
            plan.gone.iter().for_each(|name| self.forget_ledger(name));
            self.record_start_positions(&names);
            // Before the actions: after a crash the host must know what it had begun.
            self.persist(plan.changed.iter());
            let mut routes_changed = false;
            for action in plan.actions {
                routes_changed |= self.apply(action);
            }
            self.summary.routes_stale |= routes_changed;
            self.publish_stale_routes();
            // After the actions, which may have ended a rollout.
            self.start_loss_checks(&names);
            self.update_summary(&names);
        }
        self.publish_stale_routes();
        self.persist_stats();
        self.record_all_failures();
        self.collect_garbage_if_due();
        // Last, so that it tells the result of all of this pass.
        self.publish_readiness();
    }

    /// Publishes routes that have changed. While many agents are being started, each publication may take only a part of
    /// the time: it costs as much as there are agents, and an agent is found by its name and its paths before it runs.
    fn publish_stale_routes(&mut self) {
        let rests = |(at, took): (Instant, Duration)| at.elapsed() < took * ROUTES_PAUSE;
        let is_early =
            self.summary.unserved.len() > BATCH_THRESHOLD && self.summary.routes_published.is_some_and(rests);
        if !self.summary.routes_stale || is_early {
            return;
        }
        let began = Instant::now();
        self.publish();
        self.summary.routes_published = Some((Instant::now(), began.elapsed()));
        self.summary.routes_stale = false;
    }

    fn observe(&self, names: &BTreeSet<AgentName>) -> Actual {
        let present = names.iter().filter_map(|name| Some((name, self.managed.get(name)?)));
        let agents = present.map(|(name, managed)| {
            let revisions = managed.revisions.iter().map(|revision| plan::Revision {
                number: revision.number,
                spec: Arc::clone(&revision.spec),
                digest: revision.digest,
                seen: revision.observe(),
            });
            let open = self.ledgers.get(name).and_then(Ledger::open);
            let (measurements, stats) = open.map(|rollout| managed.measure(rollout)).unwrap_or_default();
            let actual = ActualAgent {
                applied: managed.agent.spec(),
                paused: managed.paused,
                conversion: ConversionState {
                    is_state_kept: open.is_some_and(|rollout| managed.state_saved_for == Some(rollout.id)),
                    unfinished: managed.conversion_unfinished,
                    restoring: managed.restoring,
                },
                retired: managed.retired,
                // Evaluated only for retired agents, because it takes the mailbox's lock.
                has_messages: managed.retired.is_some() && (managed.is_converting() || managed.agent.has_work()),
                revisions: revisions.collect(),
                shares: managed.shares.clone(),
                measurements,
                stats,
                shadowed: open.is_some_and(|rollout| managed.is_shadowed(rollout.id)),
                compared: stats.compared,
                rehearsal: open.map(|rollout| managed.rehearsal_outcome(rollout.id)).unwrap_or_default(),
            };
            (name.clone(), actual)
        });
        Actual { agents: agents.collect() }
    }
}
