//! The declared settings of an agent's rollouts.

use std::time::Duration;

use serde::Serialize;

use super::probe::HealthProbe;
use super::settings::{RollbackRules, RolloutSettings};
use super::split::Sticky;
use super::strategy::{DeployStrategy, MemoryHandover, ReloadStrategy, Strategy};
use crate::units::serde_duration;

/// The tables `deploy`, `reload` and `rollback`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RolloutSpec {
    /// The rollout of a changed declaration.
    pub deploy: DeploySpec,
    /// The rollout of a changed component.
    pub reload: ReloadSpec,
    /// The rules for going back.
    pub rollback: RollbackSpec,
}

/// The table `deploy`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeploySpec {
    /// The strategy.
    #[serde(flatten)]
    pub strategy: DeployStrategy,
    /// The limit of the host's own work.
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
}

/// The table `reload`, without the settings that apply in place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReloadSpec {
    /// The strategy.
    #[serde(flatten)]
    pub strategy: ReloadStrategy,
    /// The treatment of state in memory.
    pub state: MemoryHandover,
    /// The limit of the host's own work.
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
}

/// The table `rollback`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RollbackSpec {
    /// The rules by which a new revision is taken back.
    #[serde(flatten)]
    pub rules: RollbackRules,
    /// The number of past messages that it has to handle on a copy first.
    pub rehearse: u32,
    /// The binding of conversations during the rollout. Unlike the other settings it also acts on a rollout in
    /// progress.
    pub sticky: Sticky,
}

/// The default limit of the host's own work (SPEC §2, §3).
const TIMEOUT: Duration = Duration::from_secs(300);

impl Default for DeploySpec {
    fn default() -> Self {
        Self { strategy: DeployStrategy::default(), timeout: TIMEOUT }
    }
}

impl Default for ReloadSpec {
    fn default() -> Self {
        Self { strategy: ReloadStrategy::default(), state: MemoryHandover::default(), timeout: TIMEOUT }
    }
}

impl DeploySpec {
    /// Returns the strategy's name in the file.
    pub fn name(&self) -> &'static str {
        Strategy::Deploy(self.strategy.clone()).as_str()
    }
}

impl ReloadSpec {
    /// Returns the strategy's name in the file.
    pub fn name(&self) -> &'static str {
        Strategy::Reload(self.strategy.clone()).as_str()
    }
}

impl RolloutSpec {
    /// Returns the settings for a rollout of changed settings, and those for one of a changed component. `drain` is
    /// `reload.drain`.
    pub fn settings(&self, drain: Duration) -> (RolloutSettings, RolloutSettings) {
        let with = |strategy, timeout| RolloutSettings {
            strategy,
            rollback: self.rollback.rules.clone(),
            state: self.reload.state,
            rehearse: self.rollback.rehearse,
            // Not declared in a file, and the same for all agents.
            probe: HealthProbe::default(),
            timeout,
            drain,
        };
        let deploy = with(Strategy::Deploy(self.deploy.strategy.clone()), self.deploy.timeout);
        let reload = with(Strategy::Reload(self.reload.strategy.clone()), self.reload.timeout);
        (deploy, reload)
    }
}
