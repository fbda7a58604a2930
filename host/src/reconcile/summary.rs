//! The summary over all agents that the host's readiness follows from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use caxton_control::AgentName;
use caxton_control::rollout::Obstacle;

/// The state of all agents as far as the host's readiness depends on it. A pass updates only the agents that it planned
/// for, so that its cost does not depend on the number of agents.
#[derive(Debug, Default)]
pub(super) struct ReconcileSummary {
    /// Agents with work under way that will end by itself soon.
    pub(super) unsettled: BTreeSet<AgentName>,
    /// The declared agents without a revision that takes messages.
    pub(super) unserved: BTreeSet<AgentName>,
    /// The declared agents that are not as declared until a person fixes something.
    pub(super) obstructed: BTreeMap<AgentName, Obstacle>,
    /// Agents with a rollout under way.
    pub(super) rolling_out: BTreeSet<AgentName>,
    /// Agents with a setting that cannot act, or a revision that violates the policy.
    pub(super) unusable: BTreeSet<AgentName>,
    /// Set if agents may be declared that are not registered yet. These are marked.
    pub(super) has_new_agents: bool,
    /// The time at which the statistics of rollouts were compared last with the persisted ones.
    pub(super) stats_checked_at: Option<Instant>,
    /// The time since which the published readiness may be outdated.
    pub(super) stale_since: Option<Instant>,
    /// The time at which the readiness was published last.
    pub(super) published_at: Option<Instant>,
    /// The last publication of the routes: its end, and the time that it took.
    pub(super) routes_published: Option<(Instant, Duration)>,
    /// Set if the routes have changed since.
    pub(super) routes_stale: bool,
}
