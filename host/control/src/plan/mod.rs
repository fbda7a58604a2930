//! What to do next, given what is declared and what runs.
//!
//! A plan lists only what is safe at this moment. Beside the agents' ledgers there is no stored workflow: after each
//! action the host observes again and asks again, so an action that failed needs no path of its own.
//!
//! ```text
//! a first revision, or what ran when the host ended:   Create | Revive -> Prepare -> Switch
//! a change:          Create -> a rollout of the agent's ledger, step by step (see `rollout`)
//! an agent leaves:   Retire -> its revisions drain -> Stop -> Forget; until then Restore takes that back
//! ```

mod follow;
mod leave;
mod standing;
mod waiting;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::desired::AgentSpec;
use crate::names::{AgentName, Digest, RevisionId};
use crate::rollout::analysis::Compared;
use crate::rollout::{
    self, Decision, Figures, Instances, Ledger, Observation, Obstacle, Rehearsal, Seen, Side, Status, Turns, Windows,
    tidy,
};

pub use standing::Standing;
pub use waiting::Waiting;

/// What is declared of one agent, with what its component's file holds now.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The declaration.
    pub spec: Arc<AgentSpec>,
    /// The component's file.
    pub component: Component,
}

impl Wanted {
    /// Whether there are bytes that can be taken up.
    pub fn is_there(&self) -> bool {
        matches!(self.component, Component::Found(_))
    }
}

/// A component's file, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// Bytes with this digest.
    Found(Digest),
    /// No usable bytes, and why.
    Unusable(String),
}

/// What runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Actual {
    /// The agents of the host, also those that leave.
    pub agents: BTreeMap<AgentName, ActualAgent>,
}

/// What runs of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct ActualAgent {
    /// The declaration whose in-place settings (routes, mailbox, instances, reload) are in force.
    pub applied: Arc<AgentSpec>,
    /// Whether its mailbox is held for a handoff.
    pub paused: bool,
    /// Since when it takes no new messages because it leaves, in milliseconds since 1970; none if it does not leave.
    pub retired: Option<u64>,
    /// Whether messages are in hand or wait in its mailbox.
    pub waits: bool,
    /// Its revisions that are not ended, and the newest even if it is, in order of number.
    pub revisions: Vec<Revision>,
    /// Who has how much of the traffic, by number, of a hundred.
    pub shares: Vec<(u64, u8)>,
    /// What was measured at the present step of its rollout.
    pub windows: Windows,
    /// What was measured since its rollout began, or the host started.
    pub figures: Figures,
    /// Whether copies of messages go to its candidate.
    pub shadowed: bool,
    /// How the copies were answered in this life of the host.
    pub compared: Compared,
    /// What came of its candidate's rehearsal.
    pub rehearsal: Rehearsal,
}

/// A revision, as observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Counts the agent's revisions.
    pub number: u64,
    /// The settings it was made with.
    pub spec: Arc<AgentSpec>,
    /// The bytes it was made with.
    pub digest: Digest,
    /// How it is.
    pub seen: Seen,
}

/// What is safe to do now, and what is not done yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// In any order: none depends on another.
    pub actions: Vec<Action>,
    /// What is not as declared and why nothing is done about it now.
    pub waiting: Vec<Waiting>,
    /// Whose ledgers changed: they are persisted before anything is done.
    #[serde(skip)]
    pub changed: BTreeSet<AgentName>,
    /// Whose ledgers are forgotten.
    #[serde(skip)]
    pub gone: Vec<AgentName>,
    /// Who waits for nothing but their turn, beside what is told of them in `waiting`.
    #[serde(skip)]
    pub queued: BTreeSet<AgentName>,
    /// Who may begin now and was not looked at.
    #[serde(skip)]
    pub turn_of: Vec<AgentName>,
    /// When to look at whom again although nothing happened.
    #[serde(skip)]
    pub look_again: BTreeMap<AgentName, Duration>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Make a new revision of these bytes and settings; a first one brings the agent into being.
    Create {
        /// Whose.
        agent: AgentName,
        /// With these bytes.
        digest: Digest,
        /// With these settings.
        #[serde(skip)]
        spec: Arc<AgentSpec>,
    },
    /// Apply changed settings that need no new revision.
    Configure {
        /// Whose.
        agent: AgentName,
        /// The settings.
        #[serde(skip)]
        spec: Arc<AgentSpec>,
    },
    /// Send all messages to a ready revision beside which none runs.
    Switch {
        /// To which.
        revision: RevisionId,
    },
    /// What brings revisions up, moves traffic and ends them.
    Roll(rollout::Action),
    /// Take an agent that is no longer declared out of the routes and drain it.
    Retire {
        /// Whose.
        agent: AgentName,
    },
    /// Let a retired agent stay after all, with its mailbox and all that is not ended of it.
    Restore {
        /// Whose.
        agent: AgentName,
    },
    /// Remove the last trace of a retired agent.
    Forget {
        /// Whose.
        agent: AgentName,
    },
}

impl Action {
    /// Whose it is.
    pub fn agent(&self) -> &AgentName {
        match self {
            Self::Create { agent, .. } | Self::Configure { agent, .. } => agent,
            Self::Retire { agent } | Self::Restore { agent } | Self::Forget { agent } => agent,
            Self::Switch { revision } => &revision.agent,
            Self::Roll(action) => action.agent(),
        }
    }
}

/// Compares what is declared with what runs, and takes the agents' ledgers on. `now` is in milliseconds since 1970, as
/// [`Seen::since`] is.
pub fn plan(
    desired: &BTreeMap<AgentName, Wanted>,
    actual: &Actual,
    ledgers: &mut BTreeMap<AgentName, Ledger>,
    now: u64,
) -> Plan {
    let names = ledgers.keys().chain(desired.keys()).chain(actual.agents.keys()).cloned().collect();
    let mut plan = plan_for(&names, desired, actual, ledgers, now);
    let turns = Turns::of(ledgers.values().filter_map(Ledger::open));
    for name in plan.queued.clone() {
        plan.wait(&name, turns.waits());
    }
    plan
}

/// The same for these agents alone, of which alone `actual` has to tell. The ledgers are those of all. When each agent
/// was looked at since something of it changed, all that is planned for it is what this gave then; [`Standing`] keeps
/// account of that.
pub fn plan_for(
    names: &BTreeSet<AgentName>,
    desired: &BTreeMap<AgentName, Wanted>,
    actual: &Actual,
    ledgers: &mut BTreeMap<AgentName, Ledger>,
    now: u64,
) -> Plan {
    let mut plan = Plan::default();
    let mut present = BTreeMap::new();
    for name in names {
        match (desired.get(name), actual.agents.get(name)) {
            (Some(_), Some(agent)) if agent.retired.is_some() => plan.stay(name, agent),
            (None, Some(agent)) => plan.leave(name, agent, now),
            (Some(wanted), Some(agent)) => _ = present.insert(name, (wanted, Cow::Borrowed(agent))),
            (Some(wanted), None) => {
                let new = ActualAgent::new(Arc::clone(&wanted.spec));
                _ = present.insert(name, (wanted, Cow::Owned(new)));
            }
            // An agent that is gone has no history: one of its name is another.
            (None, None) => {
                if ledgers.remove(name).is_some() {
                    plan.gone.push(name.clone());
                }
            }
        }
    }
    plan.roll(&present, ledgers, now);
    plan
}

/// What is declared and what is there of each agent that is to be.
type Present<'a> = BTreeMap<&'a AgentName, (&'a Wanted, Cow<'a, ActualAgent>)>;

/// More rounds than this, and rollouts begin and end and begin: the rest is left to the next plan.
const MAX_ROUNDS: usize = 10;

impl Plan {
    /// Whether all is as declared.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.waiting.is_empty()
    }

    fn wait(&mut self, agent: &AgentName, why: impl Into<String>) {
        self.waiting.push(Waiting { agent: agent.clone(), why: why.into(), obstacle: None });
    }

    /// Notes what a person has to mend.
    fn obstruct(&mut self, agent: &AgentName, obstacle: Obstacle, why: impl Into<String>) {
        self.waiting.push(Waiting { agent: agent.clone(), why: why.into(), obstacle: Some(obstacle) });
    }

    /// When to look again although nothing happened.
    pub fn look_again_in(&self) -> Option<Duration> {
        self.look_again.values().min().copied()
    }

    fn look_again(&mut self, agent: &AgentName, after: Duration) {
        let soonest = self.look_again.entry(agent.clone()).or_insert(after);
        *soonest = (*soonest).min(after);
    }

    fn act(&mut self, action: Action) {
        if !self.actions.contains(&action) {
            self.actions.push(action);
        }
    }

    fn take(&mut self, agent: &AgentName, decision: Decision) {
        decision.actions.into_iter().for_each(|action| self.act(Action::Roll(action)));
        if let Some(waits) = decision.waits {
            self.wait(agent, waits);
        }
        if let Some(after) = decision.look_again_in {
            self.look_again(agent, after);
        }
    }

    /// Brings the agents to what is declared: each by itself, and their rollouts in turn.
    fn roll(&mut self, present: &Present<'_>, ledgers: &mut BTreeMap<AgentName, Ledger>, now: u64) {
        let mut names: Vec<&AgentName> = present.keys().copied().collect();
        let mut turns = Turns::default();
        // What is declared may be something else than what came of a rollout that has just ended.
        for _ in 0..MAX_ROUNDS {
            let mut again = Vec::new();
            for name in &names {
                let (wanted, agent) = &present[*name];
                let ledger = ledgers.entry((*name).clone()).or_insert_with(|| Ledger::new((*name).clone()));
                let (before, was_open) = (ledger.mark(), ledger.open().is_some());
                self.follow(wanted, agent, ledger, now);
                self.note(ledger, &before);
                if was_open && ledger.open().is_none() {
                    again.push(*name);
                }
            }
            turns = Turns::of(ledgers.values().filter_map(Ledger::open));
            again.extend(self.observe(&names, &turns, present, ledgers, now));
            again.sort();
            names = again;
            if names.is_empty() {
                break;
            }
        }
        for (name, (_, agent)) in present {
            if let Some(ledger) = ledgers.get(*name).filter(|ledger| ledger.current().is_some()) {
                self.tidy(agent, ledger, now);
            }
        }
        // With what has begun and ended here, the turn may be of others.
        let after = Turns::of(ledgers.values().filter_map(Ledger::open));
        let seen = |name: &&AgentName| present.contains_key(name) && turns.may_begin().contains(name);
        self.turn_of = after.may_begin().iter().filter(|name| !seen(name)).cloned().collect();
    }

    fn note(&mut self, ledger: &Ledger, before: &rollout::Mark) {
        if ledger.mark() != *before {
            self.changed.insert(ledger.agent.clone());
        }
    }

    /// Takes the rollouts on whose turn it is. Says whose have ended.
    fn observe<'a>(
        &mut self,
        names: &[&'a AgentName],
        turns: &Turns,
        present: &Present<'a>,
        ledgers: &mut BTreeMap<AgentName, Ledger>,
        now: u64,
    ) -> Vec<&'a AgentName> {
        let mut ended = Vec::new();
        let asked = |name: &&'a AgentName| ledgers.get(*name)?.open().map(|open| (rollout::asked(open).0, *name));
        let mut open: Vec<(u64, &AgentName)> = names.iter().filter_map(asked).collect();
        open.sort();
        for (_, name) in open {
            let ((wanted, agent), Some(ledger)) = (&present[name], ledgers.get_mut(name)) else { continue };
            let waits = ledger.open().is_some_and(|open| open.status == Status::Pending);
            if waits && !turns.may_begin().contains(name) {
                // Until then what ran runs, also when the host has just started.
                self.stand(wanted, agent, ledger, false, now);
                self.queued.insert(name.clone());
                continue;
            }
            let before = ledger.mark();
            if let Some(rollout) = ledger.open_mut() {
                let seen = agent.observation(rollout.from.number, rollout.to.number);
                let decision = rollout.observe(&seen, now);
                self.take(name, decision);
            }
            ledger.settle(now);
            self.note(ledger, &before);
            if ledger.open().is_none() {
                self.waiting.retain(|waiting| waiting.agent != *name);
                ended.push(name);
            }
        }
        ended
    }

    /// Ends what no rollout holds.
    fn tidy(&mut self, agent: &ActualAgent, ledger: &Ledger, now: u64) {
        let (name, open) = (&ledger.agent, ledger.open());
        let current = ledger.current().map(|side| side.number);
        if open.is_none() && !agent.paused && agent.revisions.iter().all(|revision| Some(revision.number) == current) {
            return;
        }
        let mut held: Vec<u64> = current.into_iter().collect();
        held.extend(open.iter().flat_map(|rollout| [rollout.from.number, rollout.to.number]));
        let revisions: Vec<(u64, Seen)> = agent.revisions.iter().map(|r| (r.number, r.seen.clone())).collect();
        let drain = agent.applied.reload.drain;
        self.take(name, tidy(name, &revisions, &held, agent.paused, open.is_none(), drain, now));
    }
}

impl ActualAgent {
    /// An agent of which nothing is there yet.
    pub fn new(applied: Arc<AgentSpec>) -> Self {
        Self {
            applied,
            paused: false,
            retired: None,
            waits: false,
            revisions: Vec::new(),
            shares: Vec::new(),
            windows: Windows::default(),
            figures: Figures::default(),
            shadowed: false,
            compared: Compared::default(),
            rehearsal: Rehearsal::default(),
        }
    }

    fn revision(&self, number: u64) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.number == number)
    }

    fn instances(&self, ledger: &Ledger) -> Instances {
        let current = ledger.current().and_then(|side| self.revision(side.number));
        Instances { standing: current.map_or(0, |current| current.seen.instances), min: self.applied.instances.min }
    }

    fn observation(&self, stable: u64, candidate: u64) -> Observation {
        let seen = |number| self.revision(number).map(|revision| revision.seen.clone());
        let share = |number| self.shares.iter().find(|(of, _)| *of == number).map_or(0, |(_, share)| *share);
        Observation {
            stable: seen(stable),
            candidate: seen(candidate),
            weight: share(candidate),
            paused: self.paused,
            windows: self.windows,
            figures: self.figures,
            shadowed: self.shadowed,
            compared: self.compared,
            rehearsal: self.rehearsal.clone(),
        }
    }
}

impl Revision {
    /// What it is made of.
    pub fn side(&self) -> Side {
        Side { number: self.number, digest: self.digest, settings: self.spec.revision_settings().to_owned() }
    }

    fn id(&self, agent: &AgentName) -> RevisionId {
        RevisionId { agent: agent.clone(), number: self.number }
    }
}
