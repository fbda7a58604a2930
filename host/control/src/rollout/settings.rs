//! The settings of a rollout: its strategy, the rules for going back, and limits of time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compat::Incompatible;
use super::probe::HealthProbe;
use super::step::Step;
use super::step_plan::{self, Situation, StepContext};
use super::strategy::{MemoryHandover, Strategy};
use crate::units::serde_duration;

/// The table `rollback`: the rules for taking a new revision back, and the revisions kept to go back to (SPEC §4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
// A record of an earlier version lacks later fields.
#[serde(rename_all = "kebab-case", default)]
pub struct RollbackRules {
    /// Set if the rules act without an operator (true).
    pub automatic: bool,
    /// The excess of its failures over stable's, in percent points (0 – 100, 5).
    pub errors: f64,
    /// The bound of its failures regardless of stable, in percent (0 – 100, off).
    #[serde(default)]
    pub errors_above: Option<f64>,
    /// The excess of its p95 over stable's in the same window, in percent (0 – 10,000, 50).
    pub slower: f64,
    /// The p95 up to which it is never slow (0 – 1 h, 10 ms).
    #[serde(with = "serde_duration")]
    pub slower_min: Duration,
    /// The least percentage of passed probes (0 – 100, 50).
    pub probes: f64,
    /// The most memory of one instance, in bytes (1 MiB – 4 GiB, off).
    pub memory_bytes: Option<u64>,
    /// The least percentage of compared answers of its rehearsal that are alike (0 – 100, off).
    #[serde(rename = "match")]
    pub match_percent: Option<f64>,
    /// The fewest messages to judge by; with fewer it is never healthy (0 – 1,000,000, 100).
    pub min_messages: u64,
    /// The revisions that are kept beside the running one, with their components, settings and snapshots (0 – 100, 3).
    pub keep: u32,
}

impl Default for RollbackRules {
    /// Returns the values of SPEC §3 and §4.
    fn default() -> Self {
        Self {
            automatic: true,
            errors: 5.0,
            errors_above: None,
            slower: 50.0,
            slower_min: Duration::from_millis(10),
            probes: 50.0,
            memory_bytes: None,
            match_percent: None,
            min_messages: 100,
            keep: 3,
        }
    }
}

/// The settings of a rollout, as declared when it began. Later changes apply to the next one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RolloutSettings {
    /// The strategy.
    pub strategy: Strategy,
    /// The rules for going back.
    pub rollback: RollbackRules,
    /// The treatment of state in memory (migrate).
    pub state: MemoryHandover,
    /// The number of past messages that the candidate has to handle on a copy first (0 – 10,000, 0).
    pub rehearse: u32,
    /// The probing of its health.
    pub probe: HealthProbe,
    /// The limit of the host's own work, without pauses, step times and waits for messages (30 s – 30 min, 5 min).
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
    /// The time for the old revision to finish messages in flight (5 s – 10 min, 60 s).
    #[serde(with = "serde_duration")]
    pub drain: Duration,
}

impl Default for RolloutSettings {
    /// Returns values for fields that a record lacks; every version wrote the strategy.
    fn default() -> Self {
        Self::new(Strategy::Undo)
    }
}

impl RolloutSettings {
    /// Returns a strategy with the defaults of all other settings.
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            rollback: RollbackRules::default(),
            state: MemoryHandover::default(),
            rehearse: 0,
            probe: HealthProbe::default(),
            timeout: Duration::from_secs(300),
            drain: Duration::from_secs(60),
        }
    }

    /// Returns the steps, in order. The first is always [`Step::Prepare`].
    ///
    /// # Errors
    /// The strategy is impossible for this agent.
    pub fn steps(&self, situation: Situation) -> Result<Vec<Step>, Incompatible> {
        step_plan::steps(&self.strategy, StepContext { situation, rehearse: self.rehearse })
    }

    /// Returns these settings with another strategy.
    pub fn with(&self, strategy: Strategy) -> Self {
        Self { strategy, ..self.clone() }
    }
}
