//! The strategies of a takeover, with their settings (SPEC §2, §3).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::serde_duration;

/// The most weight steps of a canary or a split. Weights are whole percentages that rise, so there cannot be more.
pub const MAX_WEIGHTS: usize = 100;

/// The strategy for a changed declaration (SPEC §2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "kebab-case")]
pub enum DeployStrategy {
    /// Moves all traffic at once; messages in flight on the old revision get another attempt on the new one.
    Immediate,
    /// Replaces instances in batches, and traffic follows.
    Rolling {
        /// The size of a batch.
        batch: Batch,
    },
    /// A full second set takes all traffic at once; the old one stays warm for an instant undo.
    BlueGreen {
        /// The time for which it stays warm (0 s – 24 h, 300 s).
        #[serde(rename = "keep-warm", with = "serde_duration")]
        keep_warm: Duration,
    },
    /// Moves traffic by weight, judged at each step.
    Canary {
        /// The steps; all traffic follows the last.
        steps: Vec<CanaryStep>,
    },
}

/// The strategy for a changed component under the same declaration (SPEC §3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "kebab-case")]
pub enum ReloadStrategy {
    /// The new revision is up and healthy before the old one gets no more messages and drains.
    Graceful,
    /// The new revision gets all traffic as soon as it is up, and the old one ends at once.
    Immediate,
    /// The new revision handles copies of live messages first, and its answers have to agree.
    Parallel {
        /// The longest time for copies (1 s – 1 h, 60 s).
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
        /// The number of copies that is enough (1 – 1,000,000, 100).
        #[serde(rename = "min-messages")]
        min_messages: u64,
        /// The percentage that has to agree (0 – 100, 100).
        #[serde(rename = "match")]
        match_percent: f64,
        /// Paths that may differ; see [`super::comparison`].
        ignore: Vec<String>,
    },
    /// Moves traffic by weight, judged all the time.
    TrafficSplitting {
        /// The weights, rising; all traffic follows the last (5, 10, 25, 50, 75, 100).
        steps: Vec<u8>,
        /// The time of each weight (1 s – 24 h, 30 s).
        #[serde(with = "serde_duration")]
        every: Duration,
    },
}

/// The number of instances replaced at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batch {
    /// A number (1 – 100, 1).
    Count(u32),
    /// A percentage, rounded up (1 – 100).
    Percent(u32),
}

impl Batch {
    /// Returns the batch for a number of instances: at least one, and large enough that each batch is a whole percent.
    pub fn of(self, instances: u32) -> u32 {
        let batch = match self {
            Self::Count(count) => count,
            // In 64 bits, since the product may not fit in 32.
            Self::Percent(percent) => (u64::from(instances) * u64::from(percent)).div_ceil(100) as u32,
        };
        // Traffic moves in whole percents: a smaller batch would move none.
        batch.max(instances.div_ceil(100)).clamp(1, instances.max(1))
    }
}

/// A declared step of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CanaryStep {
    /// A weight, held for a time.
    Weight {
        /// The candidate's percentage (1 – 100).
        percent: u8,
        /// The time (0 s – 24 h).
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
    },
    /// A wait for an operator's promotion.
    Pause,
}

impl Default for DeployStrategy {
    /// Returns the value of SPEC §2.
    fn default() -> Self {
        Self::Rolling { batch: Batch::Count(1) }
    }
}

impl Default for ReloadStrategy {
    /// Returns the value of SPEC §3.
    fn default() -> Self {
        Self::Graceful
    }
}

impl DeployStrategy {
    /// Returns blue-green with its defaults.
    pub fn blue_green() -> Self {
        Self::BlueGreen { keep_warm: Duration::from_secs(300) }
    }

    /// Returns a canary with its defaults.
    pub fn canary() -> Self {
        let step =
            |(percent, minutes): (u8, u64)| CanaryStep::Weight { percent, hold: Duration::from_secs(60 * minutes) };
        Self::Canary { steps: [(5, 5), (25, 10), (50, 10), (100, 0)].map(step).to_vec() }
    }
}

impl ReloadStrategy {
    /// Returns parallel with its defaults.
    pub fn parallel() -> Self {
        Self::Parallel { hold: Duration::from_secs(60), min_messages: 100, match_percent: 100.0, ignore: Vec::new() }
    }

    /// Returns traffic splitting with its defaults.
    pub fn traffic_splitting() -> Self {
        Self::TrafficSplitting { steps: vec![5, 10, 25, 50, 75, 100], every: Duration::from_secs(30) }
    }
}

/// The occasion of a rollout, with the strategy for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "occasion", rename_all = "kebab-case")]
pub enum Strategy {
    /// The declaration changed.
    Deploy(DeployStrategy),
    /// The component alone changed.
    Reload(ReloadStrategy),
    /// An operator returned to an earlier revision: its component, settings and memory.
    Undo,
}

impl Strategy {
    /// Returns the strategy for a change, if there is one: changed settings deploy, with or without another component;
    /// a changed component alone reloads.
    pub fn of(
        settings_changed: bool,
        bytes_changed: bool,
        deploy: &DeployStrategy,
        reload: &ReloadStrategy,
    ) -> Option<Self> {
        match (settings_changed, bytes_changed) {
            (true, _) => Some(Self::Deploy(deploy.clone())),
            (false, true) => Some(Self::Reload(reload.clone())),
            (false, false) => None,
        }
    }

    /// Returns the strategy's name, such as `blue-green`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Deploy(DeployStrategy::Immediate) | Self::Reload(ReloadStrategy::Immediate) => "immediate",
            Self::Deploy(DeployStrategy::Rolling { .. }) => "rolling",
            Self::Deploy(DeployStrategy::BlueGreen { .. }) => "blue-green",
            Self::Deploy(DeployStrategy::Canary { .. }) => "canary",
            Self::Reload(ReloadStrategy::Graceful) => "graceful",
            Self::Reload(ReloadStrategy::Parallel { .. }) => "parallel",
            Self::Reload(ReloadStrategy::TrafficSplitting { .. }) => "traffic-splitting",
            Self::Undo => "undo",
        }
    }
}

/// The treatment of the memory of a stateful agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryHandover {
    /// The new revision takes it over.
    #[default]
    Migrate,
    /// The new revision starts anew.
    Discard,
}
