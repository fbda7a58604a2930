//! The plan: the next safe actions, given what is declared and what runs.
//!
//! A plan lists only actions that are safe at this moment. Apart from the agents' ledgers there is no stored workflow:
//! after each action the host observes and plans again, so a failed action needs no path of its own.
//!
//! ```text
//! a first revision, or the one that ran when the host ended:   Create | Revive -> Prepare -> Switch
//! a change:          Create -> a rollout of the agent's ledger, step by step (see `rollout`)
//! an agent leaves:   Retire -> its revisions drain -> Stop -> Forget; until then Restore takes that back
//! ```

mod agent;
mod divergence;
mod incremental;
mod retirement;
mod rollouts;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::desired::AgentSpec;
use crate::names::{AgentName, Digest, RevisionId};
use crate::rollout::{
    self, ComparisonCounts, ConversionState, Decision, InstanceCounts, Ledger, Observation, ObservedRevision, Obstacle,
    RehearsalState, RolloutQueue, RolloutStats, StepMeasurements, StoredRevision,
};

pub use divergence::Divergence;
pub use incremental::IncrementalPlan;

/// The declaration of one agent, with the present content of its component's file.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredAgent {
    /// The declared settings.
    pub spec: Arc<AgentSpec>,
    /// The component's file.
    pub component: ComponentFile,
}

impl DesiredAgent {
    /// Returns `true` if the component can be loaded.
    pub fn is_loadable(&self) -> bool {
        matches!(self.component, ComponentFile::Found(_))
    }
}

/// The state of a component's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComponentFile {
    /// A file with usable bytes of this digest.
    Found(Digest),
    /// A file without usable bytes, and the reason.
    Unusable(String),
}

/// The observed state of the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Actual {
    /// The agents of the host, including those that leave.
    pub agents: BTreeMap<AgentName, ActualAgent>,
}

/// The observed state of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct ActualAgent {
    /// The declaration whose in-place settings (routes, mailbox, instances, reload) are in force.
    pub applied: Arc<AgentSpec>,
    /// Set while its mailbox is paused for a handoff.
    pub paused: bool,
    /// The conversion of its state.
    pub conversion: ConversionState,
    /// The time since which it takes no new messages because it leaves, in milliseconds since 1970; `None` if it does
    /// not leave.
    pub retired: Option<u64>,
    /// Set while messages are queued or in flight.
    pub has_messages: bool,
    /// The revisions that have not ended, and the newest one even if it has, in order of number.
    pub revisions: Vec<Revision>,
    /// The split: percent of the traffic by revision number.
    pub shares: Vec<(u64, u8)>,
    /// Measurements of the present step of its rollout.
    pub measurements: StepMeasurements,
    /// Measurements since its rollout began, or since the host started.
    pub stats: RolloutStats,
    /// Set while copies of messages go to its candidate.
    pub shadowed: bool,
    /// The comparison of the copies' answers with the live ones, since the host started.
    pub compared: ComparisonCounts,
    /// The result of its candidate's rehearsal.
    pub rehearsal: RehearsalState,
}

/// An observed revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// The revision's number, counted per agent.
    pub number: u64,
    /// The settings that it was created with.
    pub spec: Arc<AgentSpec>,
    /// The digest of its component.
    pub digest: Digest,
    /// The observed state.
    pub seen: ObservedRevision,
}

/// The actions that are safe now, and what has to wait.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// The actions, which are independent of each other, so that any order is fine.
    pub actions: Vec<Action>,
    /// The agents that are not as declared, with the reason why nothing is done about it now.
    pub waiting: Vec<Divergence>,
    /// Agents whose ledgers changed; stored before any action, so that no decision is lost after it was acted on.
    #[serde(skip)]
    pub changed: BTreeSet<AgentName>,
    /// Agents whose ledgers were removed.
    #[serde(skip)]
    pub gone: Vec<AgentName>,
    /// Agents whose rollout only waits for others to end, apart from what `waiting` says of them.
    #[serde(skip)]
    pub queued: BTreeSet<AgentName>,
    /// Agents whose rollout may begin now and that this plan did not cover.
    #[serde(skip)]
    pub ready_to_begin: Vec<AgentName>,
    /// The time after which an agent is to be planned again although nothing changed.
    #[serde(skip)]
    pub recheck: BTreeMap<AgentName, Duration>,
    /// The places in `actions` by agent, so that an action is compared with those of its agent only.
    #[serde(skip)]
    actions_of: BTreeMap<AgentName, Vec<usize>>,
}

/// An action of the host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Creates a revision of these bytes and settings; the first one creates the agent.
    Create {
        /// The agent.
        agent: AgentName,
        /// The component.
        digest: Digest,
        /// The settings.
        #[serde(skip)]
        spec: Arc<AgentSpec>,
    },
    /// Applies changed settings that need no new revision.
    Configure {
        /// The agent.
        agent: AgentName,
        /// The settings.
        #[serde(skip)]
        spec: Arc<AgentSpec>,
    },
    /// Sends all messages to a ready revision while no other runs.
    Switch {
        /// The revision.
        revision: RevisionId,
    },
    /// An action of a rollout: brings revisions up, moves traffic, ends them.
    Roll(rollout::RolloutAction),
    /// Removes an agent that is no longer declared from the routes and drains it.
    Retire {
        /// The agent.
        agent: AgentName,
    },
    /// Takes a retirement back: the agent keeps its mailbox and every revision that has not ended.
    Restore {
        /// The agent.
        agent: AgentName,
    },
    /// Removes the last trace of a retired agent.
    Forget {
        /// The agent.
        agent: AgentName,
    },
}

impl Action {
    /// Returns the agent that the action is for.
    pub fn agent(&self) -> &AgentName {
        match self {
            Self::Create { agent, .. } | Self::Configure { agent, .. } => agent,
            Self::Retire { agent } | Self::Restore { agent } | Self::Forget { agent } => agent,
            Self::Switch { revision } => &revision.agent,
            Self::Roll(action) => action.agent(),
        }
    }
}

/// Compares declared with observed state, advances the ledgers and returns the next actions. `now` is in milliseconds
/// since 1970, as [`ObservedRevision::since`](crate::rollout::ObservedRevision::since) is.
pub fn plan(
    desired: &BTreeMap<AgentName, DesiredAgent>,
    actual: &Actual,
    ledgers: &mut BTreeMap<AgentName, Ledger>,
    now: u64,
) -> Plan {
    // An agent may be in one of the three only: new, removed, or gone with its ledger left.
    let names = ledgers.keys().chain(desired.keys()).chain(actual.agents.keys()).cloned().collect();
    // All are planned for, so that there are no other open rollouts.
    let mut plan = plan_for(&names, desired, actual, (ledgers, &BTreeSet::new()), now);
    let queue = RolloutQueue::of(ledgers.values().filter_map(Ledger::open));
    // One text for all, since the same rollouts are ahead of each.
    for name in plan.queued.clone() {
        plan.wait(&name, queue.waits());
    }
    plan
}

/// Plans for `names` only; `actual` needs to cover only these. The ledgers have to be complete, and come with the names of
/// those that may have an open rollout; those of `names` are looked at in any case. The union of the last
/// results for all agents is the plan for the host, as long as each agent is planned again after each change to it.
/// [`IncrementalPlan`] keeps that union.
pub fn plan_for(
    names: &BTreeSet<AgentName>,
    desired: &BTreeMap<AgentName, DesiredAgent>,
    actual: &Actual,
    (ledgers, open): (&mut BTreeMap<AgentName, Ledger>, &BTreeSet<AgentName>),
    now: u64,
) -> Plan {
    let mut plan = Plan::default();
    let mut present = BTreeMap::new();
    for name in names {
        match (desired.get(name), actual.agents.get(name)) {
            // A change of its declaration follows with a later plan, once it is back.
            (Some(_), Some(agent)) if agent.retired.is_some() => plan.restore(name, agent),
            (None, Some(agent)) => plan.retire(name, agent, now),
            // Borrowed, as a host may have thousands of agents and plans them again and again.
            (Some(wanted), Some(agent)) => _ = present.insert(name, (wanted, Cow::Borrowed(agent))),
            (Some(wanted), None) => {
                let new = ActualAgent::new(Arc::clone(&wanted.spec));
                _ = present.insert(name, (wanted, Cow::Owned(new)));
            }
            // A gone agent has no history: a later agent of the same name is another one.
            (None, None) => {
                if ledgers.remove(name).is_some() {
                    plan.gone.push(name.clone());
                }
            }
        }
    }
    // After the ledgers of gone agents are removed, so that these hold no place in the queue.
    let open = OpenRollouts { of: names, others: open };
    plan.advance_rollouts(&present, ledgers, &open, now);
    plan
}

/// The agents that may have an open rollout.
struct OpenRollouts<'a> {
    /// Those that are planned for.
    of: &'a BTreeSet<AgentName>,
    /// Those that were known to have one before, which may have some of these.
    others: &'a BTreeSet<AgentName>,
}

impl OpenRollouts<'_> {
    /// Returns the queue of their rollouts. Not of all ledgers: a host has a hundred thousand, and plans for a few at a time.
    fn queue(&self, ledgers: &BTreeMap<AgentName, Ledger>) -> RolloutQueue {
        let names = self.of.iter().chain(self.others.iter().filter(|name| !self.of.contains(*name)));
        RolloutQueue::of(names.filter_map(|name| ledgers.get(name)?.open()))
    }
}

/// The agents that are declared and do not leave, each with its declared and observed state.
type PresentAgents<'a> = BTreeMap<&'a AgentName, (&'a DesiredAgent, Cow<'a, ActualAgent>)>;

impl Plan {
    /// Returns `true` if everything is as declared.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.waiting.is_empty()
    }

    fn wait(&mut self, agent: &AgentName, why: impl Into<String>) {
        self.waiting.push(Divergence { agent: agent.clone(), why: why.into(), obstacle: None });
    }

    /// Notes an obstacle that a person has to remove.
    fn obstruct(&mut self, agent: &AgentName, obstacle: Obstacle, why: impl Into<String>) {
        self.waiting.push(Divergence { agent: agent.clone(), why: why.into(), obstacle: Some(obstacle) });
    }

    /// Returns the time after which to plan again although nothing changed; `None` if there is no need.
    pub fn recheck_after(&self) -> Option<Duration> {
        self.recheck.values().min().copied()
    }

    fn recheck_in(&mut self, agent: &AgentName, after: Duration) {
        let soonest = self.recheck.entry(agent.clone()).or_insert(after);
        *soonest = (*soonest).min(after);
    }

    fn act(&mut self, action: Action) {
        let places = self.actions_of.entry(action.agent().clone()).or_default();
        // Rounds visit an agent more than once and find the same action again.
        if !places.iter().any(|place| self.actions[*place] == action) {
            places.push(self.actions.len());
            self.actions.push(action);
        }
    }

    fn add_decision(&mut self, agent: &AgentName, decision: Decision) {
        decision.actions.into_iter().for_each(|action| self.act(Action::Roll(action)));
        if let Some(waits) = decision.waits {
            self.wait(agent, waits);
        }
        if let Some(after) = decision.recheck_after {
            self.recheck_in(agent, after);
        }
    }
}

impl ActualAgent {
    /// Creates the observed state of an agent of which nothing exists yet.
    pub fn new(applied: Arc<AgentSpec>) -> Self {
        Self {
            applied,
            paused: false,
            conversion: ConversionState::default(),
            retired: None,
            has_messages: false,
            revisions: Vec::new(),
            shares: Vec::new(),
            measurements: StepMeasurements::default(),
            stats: RolloutStats::default(),
            shadowed: false,
            compared: ComparisonCounts::default(),
            rehearsal: RehearsalState::default(),
        }
    }

    fn revision(&self, number: u64) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.number == number)
    }

    fn instances(&self, ledger: &Ledger) -> InstanceCounts {
        let current = ledger.current().and_then(|side| self.revision(side.number));
        InstanceCounts { running: current.map_or(0, |current| current.seen.instances), min: self.applied.instances.min }
    }

    fn observation(&self, stable: u64, candidate: u64) -> Observation {
        let seen = |number| self.revision(number).map(|revision| revision.seen.clone());
        let share = |number| self.shares.iter().find(|(of, _)| *of == number).map_or(0, |(_, share)| *share);
        Observation {
            stable: seen(stable),
            candidate: seen(candidate),
            weight: share(candidate),
            paused: self.paused,
            conversion: self.conversion,
            measurements: self.measurements,
            stats: self.stats,
            shadowed: self.shadowed,
            compared: self.compared,
            rehearsal: self.rehearsal.clone(),
        }
    }
}

impl Revision {
    /// Returns the revision's number, digest and settings.
    pub fn side(&self) -> StoredRevision {
        StoredRevision { number: self.number, digest: self.digest, settings: self.spec.revision_settings().to_owned() }
    }

    fn id(&self, agent: &AgentName) -> RevisionId {
        RevisionId { agent: agent.clone(), number: self.number }
    }
}
