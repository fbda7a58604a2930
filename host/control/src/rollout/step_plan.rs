//! The steps that each strategy compiles to.
//!
//! Eight short functions return lists of primitive steps; no other code distinguishes strategies.

use std::time::Duration;

use super::compat::{Incompatible, check_memory, splits_traffic};
use super::step::Step;
use super::strategy::{Batch, CanaryStep, DeployStrategy, ReloadStrategy, Strategy};

/// The longest time for which a new revision with all the traffic is watched, to judge it by `min-messages` and its
/// probes. It has to end, since an agent may have very few messages; later failures are left to supervision and to
/// people.
pub const WATCH_TIME: Duration = Duration::from_secs(300);

/// The facts that steps depend on beside the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Instances of the running revision, at least the declared minimum.
    pub instances: u32,
    /// The declared minimum of instances.
    pub min: u32,
    /// Set if the running revision keeps state in its memory.
    pub stable_stateful: bool,
    /// Set if the new one does; as the running one until that is known.
    pub candidate_stateful: bool,
    /// Set if the format of the state changes with the revision, or a stored copy replaces the state.
    pub new_format: bool,
}

impl Situation {
    /// Returns `true` if the two cannot share traffic: each would miss the messages of the other.
    pub fn is_stateful(self) -> bool {
        self.stable_stateful || self.candidate_stateful
    }
}

/// The facts that all strategies depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepContext {
    pub(super) situation: Situation,
    pub(super) rehearse: u32,
}

/// Returns the steps of a strategy, or the reason why it is impossible for this agent.
pub(super) fn steps(strategy: &Strategy, common: StepContext) -> Result<Vec<Step>, Incompatible> {
    let stateful = common.situation.is_stateful();
    // Once more here: whether the candidate keeps memory is known only now.
    check_memory(strategy, stateful)?;
    // Two revisions with traffic at once can read each other's data, so nothing is paused or converted.
    let splits = common.situation.new_format && splits_traffic(strategy, stateful).is_some();
    let new_format = common.situation.new_format && !splits;
    let common = StepContext { situation: Situation { new_format, ..common.situation }, ..common };
    let mut steps = match strategy {
        Strategy::Deploy(DeployStrategy::Immediate) => deploy_immediate(common),
        Strategy::Deploy(DeployStrategy::Rolling { batch }) => rolling(*batch, common),
        Strategy::Deploy(DeployStrategy::BlueGreen { keep_warm }) => blue_green(*keep_warm, common),
        Strategy::Deploy(DeployStrategy::Canary { steps }) => canary(steps, common),
        Strategy::Reload(ReloadStrategy::Graceful) => graceful(common),
        Strategy::Reload(ReloadStrategy::Immediate) => reload_immediate(common),
        Strategy::Reload(ReloadStrategy::Parallel { hold, min_messages, match_percent, .. }) => {
            parallel(*hold, *min_messages, *match_percent, common)
        }
        Strategy::Reload(ReloadStrategy::TrafficSplitting { steps, every }) => traffic_splitting(steps, *every, common),
        Strategy::Undo => undo(common),
    };
    // Before any traffic moves: a copy made later would have data of both formats.
    if splits && let Some(first) = steps.iter().position(|step| matches!(step, Step::Weight { .. })) {
        steps.insert(first, Step::KeepState);
    }
    steps.extend(watched(strategy));
    Ok(steps)
}

/// Returns the final watch: only with all the traffic does a revision show how it bears the load. An undo needs none,
/// as its target has run before.
fn watched(strategy: &Strategy) -> Option<Step> {
    let warm = match strategy {
        Strategy::Undo => return None,
        // The time of keeping the old revision warm is watched already.
        Strategy::Deploy(DeployStrategy::BlueGreen { keep_warm }) => *keep_warm,
        Strategy::Deploy(_) | Strategy::Reload(_) => Duration::ZERO,
    };
    Some(Step::Watch { hold: WATCH_TIME.saturating_sub(warm) })
}

fn deploy_immediate(common: StepContext) -> Vec<Step> {
    // No drain: messages in flight on the old revision get another attempt on the new one.
    [common.ready(common.situation.min), common.rehearsed(), vec![common.switch(), Step::Stop]].concat()
}

fn rolling(batch: Batch, common: StepContext) -> Vec<Step> {
    // At least one, since the percentage below divides by it.
    let all = common.situation.instances.max(1);
    if common.situation.is_stateful() {
        // A stateful agent has exactly one instance, and so one batch.
        return graceful(common);
    }
    let (batch, mut steps) = (batch.of(all), Vec::new());
    let mut replaced = 0;
    while replaced < all {
        let first = replaced == 0;
        replaced = (replaced + batch).min(all);
        if first {
            steps.extend(common.ready(replaced).into_iter().chain([Step::Probe]).chain(common.rehearsed()));
        } else {
            steps.extend([Step::Start { instances: replaced }, Step::Probe]);
        }
        // Rounded down: only the last batch makes it 100.
        let percent = (u64::from(replaced) * 100 / u64::from(all)) as u8;
        steps.push(Step::Weight { percent, hold: Duration::ZERO, needs_healthy: false });
        // Not after the last batch: then the old revision ends as a whole, once it is drained.
        if replaced < all {
            steps.push(Step::Shrink { instances: all - replaced });
        }
    }
    steps.extend([Step::Drain, Step::Stop]);
    steps
}

fn blue_green(keep_warm: Duration, common: StepContext) -> Vec<Step> {
    // As many as stable has, since all its traffic comes at once.
    let full = common.ready(common.situation.instances);
    let switched = vec![common.switch(), Step::KeepWarm { hold: keep_warm }, Step::Drain, Step::Stop];
    [full, vec![Step::Probe], common.rehearsed(), switched].concat()
}

fn canary(declared: &[CanaryStep], common: StepContext) -> Vec<Step> {
    let mut weights: Vec<Step> = declared
        .iter()
        .map(|step| match *step {
            // All traffic for no time is not judged: stable has no messages to compare with.
            CanaryStep::Weight { percent, hold } => {
                let needs_healthy = percent < 100 || !hold.is_zero();
                if percent == 100 && hold.is_zero() {
                    common.switch()
                } else {
                    Step::Weight { percent, hold, needs_healthy }
                }
            }
            CanaryStep::Pause => Step::Pause,
        })
        .collect();
    if !weights.iter().any(Step::moves_all_traffic) {
        weights.push(common.switch());
    }
    let ready = common.ready(common.situation.min);
    [ready, vec![Step::Probe], common.rehearsed(), weights, vec![Step::Drain, Step::Stop]].concat()
}

fn graceful(common: StepContext) -> Vec<Step> {
    let switched = vec![common.switch(), Step::Drain, Step::Stop];
    [common.ready(common.situation.min), vec![Step::Probe], common.rehearsed(), switched].concat()
}

fn reload_immediate(common: StepContext) -> Vec<Step> {
    // Without a probe before the switch, problems show while it is watched.
    [common.ready(common.situation.min), common.rehearsed(), vec![common.switch(), Step::Stop]].concat()
}

fn parallel(hold: Duration, min_messages: u64, match_percent: f64, common: StepContext) -> Vec<Step> {
    let shadow = vec![Step::Shadow { hold, min_messages, match_percent }];
    let switched = vec![common.switch(), Step::Drain, Step::Stop];
    [common.ready(common.situation.min), vec![Step::Probe], common.rehearsed(), shadow, switched].concat()
}

fn traffic_splitting(percents: &[u8], every: Duration, common: StepContext) -> Vec<Step> {
    let mut weights: Vec<Step> =
        percents.iter().map(|percent| Step::Weight { percent: *percent, hold: every, needs_healthy: true }).collect();
    if percents.last() != Some(&100) {
        weights.push(common.switch());
    }
    let ready = common.ready(common.situation.min);
    [ready, vec![Step::Probe], common.rehearsed(), weights, vec![Step::Drain, Step::Stop]].concat()
}

fn undo(common: StepContext) -> Vec<Step> {
    // The revision has run before, so it needs neither a probe nor a judgement, and has to be back soon. It has not met
    // the state as it is now, which a rehearsal shows.
    let switch = if common.situation.candidate_stateful { Step::TakeBack } else { common.switch() };
    [common.ready(common.situation.min), common.rehearsed(), vec![switch, Step::Drain, Step::Stop]].concat()
}

impl StepContext {
    fn ready(&self, instances: u32) -> Vec<Step> {
        // A stateful revision has one instance, which starts when it gets the memory.
        vec![Step::Prepare { instances: if self.situation.is_stateful() { 0 } else { instances } }]
    }

    fn rehearsed(&self) -> Vec<Step> {
        if self.rehearse == 0 { Vec::new() } else { vec![Step::Rehearse { messages: self.rehearse }] }
    }

    fn switch(&self) -> Step {
        let Situation { stable_stateful, candidate_stateful, .. } = self.situation;
        if stable_stateful && candidate_stateful {
            // Also if the new revision starts anew: the memory of the old one is kept for an undo.
            return Step::Handoff;
        }
        if self.situation.new_format {
            return Step::Convert;
        }
        Step::Weight { percent: 100, hold: Duration::ZERO, needs_healthy: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::RolloutSettings;
    use crate::rollout::strategy::MemoryHandover;

    /// Returns steps in short form.
    fn short(steps: &[Step]) -> String {
        let one = |step: &Step| match step {
            Step::Prepare { instances } => format!("prepare {instances}"),
            Step::Start { instances } => format!("start {instances}"),
            Step::Probe => "probe".to_owned(),
            Step::Rehearse { messages } => format!("rehearse {messages}"),
            Step::Shadow { hold, min_messages, match_percent } => {
                format!("shadow {}s {min_messages} {match_percent}%", hold.as_secs())
            }
            Step::Weight { percent, hold, needs_healthy } => {
                format!("{percent}% {}s{}", hold.as_secs(), if *needs_healthy { " judged" } else { "" })
            }
            Step::Shrink { instances } => format!("shrink {instances}"),
            Step::Pause => "pause".to_owned(),
            Step::Handoff => "handoff".to_owned(),
            Step::TakeBack => "take back".to_owned(),
            Step::KeepWarm { hold } => format!("warm {}s", hold.as_secs()),
            Step::Drain => "drain".to_owned(),
            Step::KeepState => "keep state".to_owned(),
            Step::Convert => "convert".to_owned(),
            Step::Stop => "stop".to_owned(),
            Step::Watch { hold } => format!("watch {}s", hold.as_secs()),
        };
        steps.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_strategy_has_the_steps_of_the_specification() {
        use Strategy::{Deploy as D, Reload as R};
        let rolling = |batch| D(DeployStrategy::Rolling { batch });
        for (strategy, stateful, expected) in [
            (D(DeployStrategy::Immediate), false, "prepare 2, 100% 0s, stop, watch 300s"),
            (
                rolling(Batch::Count(2)),
                false,
                "prepare 2, probe, 40% 0s, shrink 3, start 4, probe, 80% 0s, shrink 1, start 5, probe, 100% 0s, drain, stop, watch 300s",
            ),
            (rolling(Batch::Percent(100)), false, "prepare 5, probe, 100% 0s, drain, stop, watch 300s"),
            (rolling(Batch::Count(1)), true, "prepare 0, probe, handoff, drain, stop, watch 300s"),
            (D(DeployStrategy::blue_green()), false, "prepare 5, probe, 100% 0s, warm 300s, drain, stop, watch 0s"),
            (D(DeployStrategy::blue_green()), true, "prepare 0, probe, handoff, warm 300s, drain, stop, watch 0s"),
            (
                D(DeployStrategy::canary()),
                false,
                "prepare 2, probe, 5% 300s judged, 25% 600s judged, 50% 600s judged, 100% 0s, drain, stop, watch 300s",
            ),
            (R(ReloadStrategy::Graceful), false, "prepare 2, probe, 100% 0s, drain, stop, watch 300s"),
            (R(ReloadStrategy::Graceful), true, "prepare 0, probe, handoff, drain, stop, watch 300s"),
            (R(ReloadStrategy::Immediate), false, "prepare 2, 100% 0s, stop, watch 300s"),
            (
                R(ReloadStrategy::parallel()),
                false,
                "prepare 2, probe, shadow 60s 100 100%, 100% 0s, drain, stop, watch 300s",
            ),
            (
                R(ReloadStrategy::traffic_splitting()),
                false,
                "prepare 2, probe, 5% 30s judged, 10% 30s judged, 25% 30s judged, 50% 30s judged, 75% 30s judged, \
                 100% 30s judged, drain, stop, watch 300s",
            ),
            (Strategy::Undo, false, "prepare 2, 100% 0s, drain, stop"),
            (Strategy::Undo, true, "prepare 0, take back, drain, stop"),
        ] {
            let situation = Situation {
                instances: 5,
                min: 2,
                stable_stateful: stateful,
                candidate_stateful: stateful,
                new_format: false,
            };
            let steps = RolloutSettings::new(strategy.clone()).steps(situation).unwrap();
            assert_eq!(short(&steps), expected, "{strategy:?} {stateful}");
        }
    }

    #[test]
    fn a_rehearsal_comes_before_any_traffic() {
        let situation =
            Situation { instances: 1, min: 0, stable_stateful: false, candidate_stateful: false, new_format: false };
        for strategy in [
            Strategy::Deploy(DeployStrategy::Immediate),
            Strategy::Deploy(DeployStrategy::default()),
            Strategy::Deploy(DeployStrategy::blue_green()),
            Strategy::Deploy(DeployStrategy::canary()),
            Strategy::Reload(ReloadStrategy::Graceful),
            Strategy::Reload(ReloadStrategy::Immediate),
            Strategy::Reload(ReloadStrategy::parallel()),
            Strategy::Reload(ReloadStrategy::traffic_splitting()),
            Strategy::Undo,
        ] {
            let steps =
                RolloutSettings { rehearse: 9, ..RolloutSettings::new(strategy.clone()) }.steps(situation).unwrap();
            let rehearse = steps.iter().position(|step| *step == Step::Rehearse { messages: 9 });
            let weight = steps.iter().position(|step| matches!(step, Step::Weight { .. }));
            assert!(rehearse.is_some() && rehearse < weight, "{strategy:?}");
        }
    }

    #[test]
    fn a_new_format_converts_at_the_switch_or_copies_before_a_split() {
        use Strategy::{Deploy as D, Reload as R};
        for (strategy, stateful, expected) in [
            (D(DeployStrategy::Immediate), false, "prepare 2, convert, stop, watch 300s"),
            (
                D(DeployStrategy::default()),
                false,
                "prepare 1, probe, keep state, 50% 0s, shrink 1, start 2, probe, 100% 0s, drain, stop, watch 300s",
            ),
            (D(DeployStrategy::default()), true, "prepare 0, probe, handoff, drain, stop, watch 300s"),
            (D(DeployStrategy::blue_green()), false, "prepare 2, probe, convert, warm 300s, drain, stop, watch 0s"),
            (
                D(DeployStrategy::canary()),
                false,
                "prepare 2, probe, keep state, 5% 300s judged, 25% 600s judged, 50% 600s judged, 100% 0s, drain, stop, \
                 watch 300s",
            ),
            (R(ReloadStrategy::Graceful), false, "prepare 2, probe, convert, drain, stop, watch 300s"),
            (
                R(ReloadStrategy::parallel()),
                false,
                "prepare 2, probe, shadow 60s 100 100%, convert, drain, stop, watch 300s",
            ),
            (Strategy::Undo, false, "prepare 2, convert, drain, stop"),
            (Strategy::Undo, true, "prepare 0, take back, drain, stop"),
        ] {
            let situation = Situation {
                instances: 2,
                min: 2,
                stable_stateful: stateful,
                candidate_stateful: stateful,
                new_format: true,
            };
            let steps = RolloutSettings::new(strategy.clone()).steps(situation).unwrap();
            assert_eq!(short(&steps), expected, "{strategy:?} {stateful}");
        }
    }

    #[test]
    fn memory_that_is_discarded_is_saved_first() {
        let situation =
            Situation { instances: 1, min: 0, stable_stateful: true, candidate_stateful: true, new_format: false };
        let settings = RolloutSettings {
            state: MemoryHandover::Discard,
            ..RolloutSettings::new(Strategy::Reload(ReloadStrategy::Graceful))
        };
        assert_eq!(short(&settings.steps(situation).unwrap()), "prepare 0, probe, handoff, drain, stop, watch 300s");
    }

    #[test]
    fn batches_are_rounded_up_and_never_too_many() {
        for (batch, instances, expected) in [
            (Batch::Count(1), 1, 1),
            (Batch::Count(3), 2, 2),
            (Batch::Count(1), 1_000, 10),
            (Batch::Percent(25), 5, 2),
            (Batch::Percent(1), 5, 1),
            (Batch::Percent(100), 7, 7),
            (Batch::Count(1), 0, 1),
        ] {
            assert_eq!(batch.of(instances), expected, "{batch:?} of {instances}");
        }
    }
}
