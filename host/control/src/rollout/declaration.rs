//! What the file declares of an agent's rollouts.

use std::time::Duration;

use serde::Serialize;

use super::settings::{HealthProbe, Rollback, Settings};
use super::split::Sticky;
use super::strategy::{Deploy, Memory, Reload, Strategy};
use crate::units::serde_duration;

/// `deploy`, `reload` and `rollback`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Declaration {
    /// How a changed declaration reaches traffic.
    pub deploy: DeploySpec,
    /// How changed bytes do.
    pub reload: ReloadSpec,
    /// When they go back.
    pub rollback: RollbackSpec,
}

/// `deploy`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeploySpec {
    /// The strategy.
    #[serde(flatten)]
    pub strategy: Deploy,
    /// How long the host's own work may take.
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
}

/// `reload`, beside what applies in place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReloadSpec {
    /// The strategy.
    #[serde(flatten)]
    pub strategy: Reload,
    /// What becomes of state in memory.
    pub state: Memory,
    /// How long the host's own work may take.
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
}

/// `rollback`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RollbackSpec {
    /// When a new revision is taken back.
    #[serde(flatten)]
    pub rules: Rollback,
    /// How many of the last messages it has to handle on a copy first.
    pub rehearse: u32,
    /// What conversations stay on meanwhile. Unlike the rest it acts on a rollout under way too.
    pub sticky: Sticky,
}

/// How long the host's own work may take unless declared otherwise (SPEC §2, §3).
const TIMEOUT: Duration = Duration::from_secs(300);

impl Default for DeploySpec {
    fn default() -> Self {
        Self { strategy: Deploy::default(), timeout: TIMEOUT }
    }
}

impl Default for ReloadSpec {
    fn default() -> Self {
        Self { strategy: Reload::default(), state: Memory::default(), timeout: TIMEOUT }
    }
}

impl DeploySpec {
    /// The strategy's name.
    pub fn name(&self) -> &'static str {
        Strategy::Deploy(self.strategy.clone()).as_str()
    }
}

impl ReloadSpec {
    /// The strategy's name.
    pub fn name(&self) -> &'static str {
        Strategy::Reload(self.strategy.clone()).as_str()
    }
}

impl Declaration {
    /// What a rollout of changed settings goes by, and what one of changed bytes does. `drain` is `reload.drain`.
    pub fn settings(&self, drain: Duration) -> (Settings, Settings) {
        let with = |strategy, timeout| Settings {
            strategy,
            rollback: self.rollback.rules.clone(),
            state: self.reload.state,
            rehearse: self.rollback.rehearse,
            probe: HealthProbe::default(),
            timeout,
            drain,
        };
        let deploy = with(Strategy::Deploy(self.deploy.strategy.clone()), self.deploy.timeout);
        let reload = with(Strategy::Reload(self.reload.strategy.clone()), self.reload.timeout);
        (deploy, reload)
    }
}
