//! How a new version takes over: the settings, and the steps that follow from them (SPEC §2, §3).
//!
//! Eight short functions give steps over few primitives; nothing else knows one strategy from another.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::holds::{CannotHold, can_hold};
use super::settings::WATCHED;
pub use super::step::Step;
use crate::units::serde_duration;

/// The most steps of weight that a canary or a split may have. A weight is a whole percent, so more cannot rise.
pub const MAX_WEIGHTS: usize = 100;

/// How a changed declaration reaches traffic (SPEC §2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "kebab-case")]
pub enum Deploy {
    /// All traffic at once; what the old revision has in flight gets another attempt on the new one.
    Immediate,
    /// Instances are replaced in batches, and traffic follows.
    Rolling {
        /// How many at a time.
        batch: Batch,
    },
    /// A full second set takes all traffic at once; the old one stays warm for an instant undo.
    BlueGreen {
        /// How long (0 s – 24 h, 300 s).
        #[serde(rename = "keep-warm", with = "serde_duration")]
        keep_warm: Duration,
    },
    /// Traffic moves by weight, judged at each step.
    Canary {
        /// In order; all traffic follows the last.
        steps: Vec<CanaryStep>,
    },
}

/// How changed bytes under the same declaration reach traffic (SPEC §3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "kebab-case")]
pub enum Reload {
    /// The new revision stands and answers its probe before the old one takes no more and drains.
    Graceful,
    /// The new revision takes all as soon as it stands, and the old one ends at once.
    Immediate,
    /// The new revision handles copies of live messages first, and its answers have to agree.
    Parallel {
        /// How long at most (1 s – 1 h, 60 s).
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
        /// How many copies are enough (1 – 1,000,000, 100).
        #[serde(rename = "min-messages")]
        min_messages: u64,
        /// How many of a hundred have to agree (0 – 100, 100).
        #[serde(rename = "match")]
        match_percent: f64,
        /// Paths that may differ; see [`super::compare`].
        ignore: Vec<String>,
    },
    /// Traffic moves by weight, judged all the time.
    TrafficSplitting {
        /// The weights, rising; all traffic follows the last (5, 10, 25, 50, 75, 100).
        steps: Vec<u8>,
        /// How long each is held (1 s – 24 h, 30 s).
        #[serde(with = "serde_duration")]
        every: Duration,
    },
}

/// How many instances are replaced at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batch {
    /// So many (1 – 100, 1).
    Count(u32),
    /// So many of a hundred, rounded up (1 – 100).
    Percent(u32),
}

impl Batch {
    /// The batch of so many instances: at least one, and so large that a whole percent tells the batches apart.
    pub fn of(self, instances: u32) -> u32 {
        let batch = match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (u64::from(instances) * u64::from(percent)).div_ceil(100) as u32,
        };
        batch.max(instances.div_ceil(100)).clamp(1, instances.max(1))
    }
}

/// A step of a canary, as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CanaryStep {
    /// So much traffic, for so long.
    Weight {
        /// Of a hundred messages (1 – 100).
        percent: u8,
        /// How long (0 s – 24 h).
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
    },
    /// Waits until somebody promotes.
    Pause,
}

impl Default for Deploy {
    /// SPEC §2.
    fn default() -> Self {
        Self::Rolling { batch: Batch::Count(1) }
    }
}

impl Default for Reload {
    /// SPEC §3.
    fn default() -> Self {
        Self::Graceful
    }
}

impl Deploy {
    /// Blue-green as it is unless declared otherwise.
    pub fn blue_green() -> Self {
        Self::BlueGreen { keep_warm: Duration::from_secs(300) }
    }

    /// A canary as it is unless declared otherwise.
    pub fn canary() -> Self {
        let step =
            |(percent, minutes): (u8, u64)| CanaryStep::Weight { percent, hold: Duration::from_secs(60 * minutes) };
        Self::Canary { steps: [(5, 5), (25, 10), (50, 10), (100, 0)].map(step).to_vec() }
    }
}

impl Reload {
    /// A shadow as it is unless declared otherwise.
    pub fn parallel() -> Self {
        Self::Parallel { hold: Duration::from_secs(60), min_messages: 100, match_percent: 100.0, ignore: Vec::new() }
    }

    /// A split as it is unless declared otherwise.
    pub fn traffic_splitting() -> Self {
        Self::TrafficSplitting { steps: vec![5, 10, 25, 50, 75, 100], every: Duration::from_secs(30) }
    }
}

/// On which occasion, and so by which strategy, a new version takes over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "occasion", rename_all = "kebab-case")]
pub enum Strategy {
    /// The declaration changed.
    Deploy(Deploy),
    /// Only the bytes changed.
    Reload(Reload),
    /// Somebody went back to an earlier revision: its bytes, settings and the memory it had.
    Undo,
}

impl Strategy {
    /// Which strategy a change is carried out by, if it is one: a changed declaration deploys, also with other
    /// bytes; changed bytes alone reload.
    pub fn of(settings_changed: bool, bytes_changed: bool, deploy: &Deploy, reload: &Reload) -> Option<Self> {
        match (settings_changed, bytes_changed) {
            (true, _) => Some(Self::Deploy(deploy.clone())),
            (false, true) => Some(Self::Reload(reload.clone())),
            (false, false) => None,
        }
    }

    /// The strategy's name, such as `blue-green`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Deploy(Deploy::Immediate) | Self::Reload(Reload::Immediate) => "immediate",
            Self::Deploy(Deploy::Rolling { .. }) => "rolling",
            Self::Deploy(Deploy::BlueGreen { .. }) => "blue-green",
            Self::Deploy(Deploy::Canary { .. }) => "canary",
            Self::Reload(Reload::Graceful) => "graceful",
            Self::Reload(Reload::Parallel { .. }) => "parallel",
            Self::Reload(Reload::TrafficSplitting { .. }) => "traffic-splitting",
            Self::Undo => "undo",
        }
    }
}

/// What becomes of the memory of a stateful agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// The new revision takes it over.
    #[default]
    Migrate,
    /// The new revision begins anew.
    Discard,
}

/// What the steps depend on beside the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Instances that the running revision has, at least those that are always kept.
    pub instances: u32,
    /// Instances that are always kept.
    pub min: u32,
    /// Whether the running revision keeps state in its memory.
    pub stable_stateful: bool,
    /// Whether the new one does; until that is known, as the running one.
    pub candidate_stateful: bool,
}

impl Situation {
    /// Whether the one cannot share traffic with the other: each keeps, or misses, what the other was told.
    pub fn is_stateful(self) -> bool {
        self.stable_stateful || self.candidate_stateful
    }
}

/// What all eight have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Common {
    pub(crate) situation: Situation,
    pub(crate) rehearse: u32,
}

/// The steps of a strategy, or why it cannot hold for this agent.
pub(crate) fn steps(strategy: &Strategy, common: Common) -> Result<Vec<Step>, CannotHold> {
    can_hold(strategy, common.situation.is_stateful())?;
    let mut steps = match strategy {
        Strategy::Deploy(Deploy::Immediate) => deploy_immediate(common),
        Strategy::Deploy(Deploy::Rolling { batch }) => rolling(*batch, common),
        Strategy::Deploy(Deploy::BlueGreen { keep_warm }) => blue_green(*keep_warm, common),
        Strategy::Deploy(Deploy::Canary { steps }) => canary(steps, common),
        Strategy::Reload(Reload::Graceful) => graceful(common),
        Strategy::Reload(Reload::Immediate) => reload_immediate(common),
        Strategy::Reload(Reload::Parallel { hold, min_messages, match_percent, .. }) => {
            parallel(*hold, *min_messages, *match_percent, common)
        }
        Strategy::Reload(Reload::TrafficSplitting { steps, every }) => traffic_splitting(steps, *every, common),
        Strategy::Undo => undo(common),
    };
    steps.extend(watched(strategy));
    Ok(steps)
}

/// However it came to have all the traffic, only then it shows how it bears it. One that ran before has shown it.
fn watched(strategy: &Strategy) -> Option<Step> {
    let warm = match strategy {
        Strategy::Undo => return None,
        // It is watched while the old one is warm.
        Strategy::Deploy(Deploy::BlueGreen { keep_warm }) => *keep_warm,
        Strategy::Deploy(_) | Strategy::Reload(_) => Duration::ZERO,
    };
    Some(Step::Watch { hold: WATCHED.saturating_sub(warm) })
}

fn deploy_immediate(common: Common) -> Vec<Step> {
    [common.ready(common.situation.min), common.rehearsed(), vec![common.switch(), Step::Stop]].concat()
}

fn rolling(batch: Batch, common: Common) -> Vec<Step> {
    let all = common.situation.instances.max(1);
    if common.situation.is_stateful() {
        // It has exactly one instance, and so one batch.
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
        // Less than a whole: the last batch alone makes it 100.
        let percent = (u64::from(replaced) * 100 / u64::from(all)) as u8;
        steps.push(Step::Weight { percent, hold: Duration::ZERO, judged: false });
        if replaced < all {
            steps.push(Step::Shrink { instances: all - replaced });
        }
    }
    steps.extend([Step::Drain, Step::Stop]);
    steps
}

fn blue_green(keep_warm: Duration, common: Common) -> Vec<Step> {
    let full = common.ready(common.situation.instances);
    let switched = vec![common.switch(), Step::KeepWarm { hold: keep_warm }, Step::Drain, Step::Stop];
    [full, vec![Step::Probe], common.rehearsed(), switched].concat()
}

fn canary(declared: &[CanaryStep], common: Common) -> Vec<Step> {
    let mut weights: Vec<Step> = declared
        .iter()
        .map(|step| match *step {
            // Who has everything and holds it for no time is not waited for: stable has nothing to compare with.
            CanaryStep::Weight { percent, hold } => {
                let judged = percent < 100 || !hold.is_zero();
                if percent == 100 && hold.is_zero() { common.switch() } else { Step::Weight { percent, hold, judged } }
            }
            CanaryStep::Pause => Step::Pause,
        })
        .collect();
    if !weights.iter().any(is_last) {
        weights.push(common.switch());
    }
    let ready = common.ready(common.situation.min);
    [ready, vec![Step::Probe], common.rehearsed(), weights, vec![Step::Drain, Step::Stop]].concat()
}

fn graceful(common: Common) -> Vec<Step> {
    let switched = vec![common.switch(), Step::Drain, Step::Stop];
    [common.ready(common.situation.min), vec![Step::Probe], common.rehearsed(), switched].concat()
}

fn reload_immediate(common: Common) -> Vec<Step> {
    // What would be found out before is found out while it is watched.
    [common.ready(common.situation.min), common.rehearsed(), vec![common.switch(), Step::Stop]].concat()
}

fn parallel(hold: Duration, min_messages: u64, match_percent: f64, common: Common) -> Vec<Step> {
    let shadow = vec![Step::Shadow { hold, min_messages, match_percent }];
    let switched = vec![common.switch(), Step::Drain, Step::Stop];
    [common.ready(common.situation.min), vec![Step::Probe], common.rehearsed(), shadow, switched].concat()
}

fn traffic_splitting(percents: &[u8], every: Duration, common: Common) -> Vec<Step> {
    let mut weights: Vec<Step> =
        percents.iter().map(|percent| Step::Weight { percent: *percent, hold: every, judged: true }).collect();
    if percents.last() != Some(&100) {
        weights.push(common.switch());
    }
    let ready = common.ready(common.situation.min);
    [ready, vec![Step::Probe], common.rehearsed(), weights, vec![Step::Drain, Step::Stop]].concat()
}

fn undo(common: Common) -> Vec<Step> {
    // It ran before: it needs neither a probe nor to be judged, and is to be back soon. What the state has become since
    // it cannot have met.
    let switch = if common.situation.candidate_stateful { Step::TakeBack } else { common.switch() };
    [common.ready(common.situation.min), common.rehearsed(), vec![switch, Step::Drain, Step::Stop]].concat()
}

/// Whether all traffic is with the candidate after this step.
pub(crate) fn is_last(step: &Step) -> bool {
    matches!(step, Step::Weight { percent: 100, .. } | Step::Handoff | Step::TakeBack)
}

impl Common {
    fn ready(&self, instances: u32) -> Vec<Step> {
        // One that keeps state in its memory has one instance, which stands when it has the memory.
        vec![Step::Prepare { instances: if self.situation.is_stateful() { 0 } else { instances } }]
    }

    fn rehearsed(&self) -> Vec<Step> {
        if self.rehearse == 0 { Vec::new() } else { vec![Step::Rehearse { messages: self.rehearse }] }
    }

    fn switch(&self) -> Step {
        let Situation { stable_stateful, candidate_stateful, .. } = self.situation;
        if stable_stateful && candidate_stateful {
            // Also where the new one begins anew: what the old one remembers is kept for an undo.
            return Step::Handoff;
        }
        Step::Weight { percent: 100, hold: Duration::ZERO, judged: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Settings;

    /// Steps in short.
    fn short(steps: &[Step]) -> String {
        let one = |step: &Step| match step {
            Step::Prepare { instances } => format!("prepare {instances}"),
            Step::Start { instances } => format!("start {instances}"),
            Step::Probe => "probe".to_owned(),
            Step::Rehearse { messages } => format!("rehearse {messages}"),
            Step::Shadow { hold, min_messages, match_percent } => {
                format!("shadow {}s {min_messages} {match_percent}%", hold.as_secs())
            }
            Step::Weight { percent, hold, judged } => {
                format!("{percent}% {}s{}", hold.as_secs(), if *judged { " judged" } else { "" })
            }
            Step::Shrink { instances } => format!("shrink {instances}"),
            Step::Pause => "pause".to_owned(),
            Step::Handoff => "handoff".to_owned(),
            Step::TakeBack => "take back".to_owned(),
            Step::KeepWarm { hold } => format!("warm {}s", hold.as_secs()),
            Step::Drain => "drain".to_owned(),
            Step::Stop => "stop".to_owned(),
            Step::Watch { hold } => format!("watch {}s", hold.as_secs()),
        };
        steps.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_strategy_has_the_steps_of_the_specification() {
        use Strategy::{Deploy as D, Reload as R};
        let rolling = |batch| D(Deploy::Rolling { batch });
        for (strategy, stateful, expected) in [
            (D(Deploy::Immediate), false, "prepare 2, 100% 0s, stop, watch 300s"),
            (
                rolling(Batch::Count(2)),
                false,
                "prepare 2, probe, 40% 0s, shrink 3, start 4, probe, 80% 0s, shrink 1, start 5, probe, 100% 0s, drain, stop, watch 300s",
            ),
            (rolling(Batch::Percent(100)), false, "prepare 5, probe, 100% 0s, drain, stop, watch 300s"),
            (rolling(Batch::Count(1)), true, "prepare 0, probe, handoff, drain, stop, watch 300s"),
            (D(Deploy::blue_green()), false, "prepare 5, probe, 100% 0s, warm 300s, drain, stop, watch 0s"),
            (D(Deploy::blue_green()), true, "prepare 0, probe, handoff, warm 300s, drain, stop, watch 0s"),
            (
                D(Deploy::canary()),
                false,
                "prepare 2, probe, 5% 300s judged, 25% 600s judged, 50% 600s judged, 100% 0s, drain, stop, watch 300s",
            ),
            (R(Reload::Graceful), false, "prepare 2, probe, 100% 0s, drain, stop, watch 300s"),
            (R(Reload::Graceful), true, "prepare 0, probe, handoff, drain, stop, watch 300s"),
            (R(Reload::Immediate), false, "prepare 2, 100% 0s, stop, watch 300s"),
            (R(Reload::parallel()), false, "prepare 2, probe, shadow 60s 100 100%, 100% 0s, drain, stop, watch 300s"),
            (
                R(Reload::traffic_splitting()),
                false,
                "prepare 2, probe, 5% 30s judged, 10% 30s judged, 25% 30s judged, 50% 30s judged, 75% 30s judged, \
                 100% 30s judged, drain, stop, watch 300s",
            ),
            (Strategy::Undo, false, "prepare 2, 100% 0s, drain, stop"),
            (Strategy::Undo, true, "prepare 0, take back, drain, stop"),
        ] {
            let situation = Situation { instances: 5, min: 2, stable_stateful: stateful, candidate_stateful: stateful };
            let steps = Settings::new(strategy.clone()).steps(situation).unwrap();
            assert_eq!(short(&steps), expected, "{strategy:?} {stateful}");
        }
    }

    #[test]
    fn a_rehearsal_comes_before_any_traffic() {
        let situation = Situation { instances: 1, min: 0, stable_stateful: false, candidate_stateful: false };
        for strategy in [
            Strategy::Deploy(Deploy::Immediate),
            Strategy::Deploy(Deploy::default()),
            Strategy::Deploy(Deploy::blue_green()),
            Strategy::Deploy(Deploy::canary()),
            Strategy::Reload(Reload::Graceful),
            Strategy::Reload(Reload::Immediate),
            Strategy::Reload(Reload::parallel()),
            Strategy::Reload(Reload::traffic_splitting()),
            Strategy::Undo,
        ] {
            let steps = Settings { rehearse: 9, ..Settings::new(strategy.clone()) }.steps(situation).unwrap();
            let rehearse = steps.iter().position(|step| *step == Step::Rehearse { messages: 9 });
            let weight = steps.iter().position(|step| matches!(step, Step::Weight { .. }));
            assert!(rehearse.is_some() && rehearse < weight, "{strategy:?}");
        }
    }

    #[test]
    fn memory_that_is_discarded_is_saved_first() {
        let situation = Situation { instances: 1, min: 0, stable_stateful: true, candidate_stateful: true };
        let settings = Settings { state: Memory::Discard, ..Settings::new(Strategy::Reload(Reload::Graceful)) };
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
