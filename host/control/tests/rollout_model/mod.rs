//! A model of a host that carries out rollouts and nothing else, without tasks, files or a clock: it applies the
//! actions of [`Rollout::observe`], and long work ends when the test ends it. It checks the invariants after every
//! step.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

pub(crate) mod act;
pub(crate) mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caxton_control::lifecycle::RevisionState;
use caxton_control::rollout::{
    ComparisonCounts, ConversionState, DeclarationOutcome, DeclaredRevision, DeployStrategy, InstanceCounts, Ledger,
    Observation, ObservedRevision, P95, ProbeResults, RehearsalState, ReloadStrategy, Rollout, RolloutAction,
    RolloutCommand, RolloutPermit, RolloutSettings, RolloutStats, StateCopy, Status, StepMeasurements, StoredRevision,
    Strategy, UndoOptions, Window, collect_garbage, permits,
};
use caxton_control::{AgentName, Digest, RevisionId};

/// The description of a broken invariant.
pub(crate) type Broken = String;

/// A defect, planted between the machine and the host, that the invariants have to detect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Moves traffic to a revision before it is ready.
    WeighsUnready,
    /// Stops stable as soon as the candidate has some traffic.
    StopsWithTraffic,
    /// Drains end at once.
    NoDrain,
    /// A handoff does not wait for messages in flight.
    HandsOffBusy,
    /// The mailbox stays paused after a handoff.
    NoResume,
    /// Weights above 100.
    TooMuch,
    /// A rollout that ended is changed again.
    EndedMoves,
    /// A rolled back rollout is begun again.
    ForgetsDeclined,
    /// Stores only the first state of the ledger.
    PersistsNothing,
    /// A rollback sends the traffic nowhere.
    LosesTraffic,
    /// Lets all rollouts proceed at once.
    NoTurns,
    /// A stateful candidate gets a part of the traffic.
    SplitsMemory,
    /// Continues shadowing after its step.
    ShadowStays,
}

/// The work of a busy revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Prepare { instances: u32 },
    Probe,
    Rehearse,
    Handoff,
    TakeBack,
    KeepState,
    Convert,
}

/// A revision in memory.
#[derive(Debug, Clone)]
pub(crate) struct Rev {
    pub(crate) seen: ObservedRevision,
    pub(crate) work: Option<Work>,
    pub(crate) digest: Digest,
    /// The number of messages that its memory has seen, if it keeps state there.
    pub(crate) memory: u64,
}

/// An agent of the model.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) ledger: Ledger,
    /// The present declaration.
    pub(crate) declared: DeclaredRevision,
    pub(crate) instances: InstanceCounts,
    pub(crate) revisions: BTreeMap<u64, Rev>,
    /// The split: percent of the traffic by revision number.
    pub(crate) shares: BTreeMap<u64, u8>,
    pub(crate) paused: bool,
    pub(crate) shadowed: bool,
    pub(crate) waiting: u32,
    compared: ComparisonCounts,
    rehearsal: RehearsalState,
    windows: StepMeasurements,
    figures: RolloutStats,
    /// The messages and faults of each revision.
    tallies: BTreeMap<u64, Window>,
    /// The id of the rollout that is measured.
    measured: Option<u64>,
    /// The number of messages distributed so far, to distribute by weight.
    dealt: u64,
    /// The revisions ever created, by number.
    store: BTreeMap<u64, (Digest, String)>,
    /// Snapshots that were handed over, by number.
    snapshots: BTreeMap<u64, u64>,
    /// The memory of the revision that serves.
    memory: u64,
    /// The versions of the format that the state holds.
    data: BTreeSet<u32>,
    /// The stored copies of the state, by the number of the revision that ran with each.
    copies: BTreeMap<u64, BTreeSet<u32>>,
    /// The rollout for which a copy was stored.
    state_kept: Option<u64>,
    /// Set while a conversion is in progress or was interrupted.
    unfinished: bool,
    /// Set once the conversion of this rollout has ended.
    converted: Option<u64>,
    /// The first state of the ledger.
    persisted: String,
    /// Rollouts that ended, in their final state.
    ended: BTreeMap<u64, Rollout>,
    /// The reasons for waiting at the last plan.
    pub(crate) waits: Vec<String>,
}

/// The host.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) agents: BTreeMap<AgentName, Agent>,
    pub(crate) bug: Option<Bug>,
    pub(crate) look_again_in: Option<Duration>,
    /// Set once a paused rollout was resumed.
    pub(crate) resumed: bool,
    /// Revisions created by the last plan.
    pub(crate) created: Vec<String>,
}

/// Returns the digest of the component with this name, from which its properties follow: see [`is`].
pub(crate) fn digest(name: &str) -> Digest {
    let mut digest = [0; 32];
    name.bytes().take(32).enumerate().for_each(|(at, byte)| digest[at] = byte);
    Digest(digest)
}

/// Returns the name of a component.
pub(crate) fn name_of(digest: Digest) -> String {
    String::from_utf8_lossy(&digest.0).trim_end_matches('\0').to_owned()
}

/// Returns `true` if the name of a component has the part `like`: `memory`, `traps`, `slow`, `leaks`, `unready`,
/// `sick`, `faints`, `unlike`, `forgets`, …
pub(crate) fn is(digest: Digest, like: &str) -> bool {
    name_of(digest).split('-').any(|part| part == like)
}

pub(crate) fn ensure(holds: bool, broken: impl FnOnce() -> Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken()) }
}

impl Agent {
    /// Creates an agent whose first revision runs.
    pub(crate) fn new(
        name: &AgentName,
        bytes: &str,
        deploy: DeployStrategy,
        reload: ReloadStrategy,
        instances: u32,
        now: u64,
    ) -> Self {
        let declared = DeclaredRevision {
            digest: digest(bytes),
            settings: "{}".to_owned(),
            deploy: RolloutSettings::new(Strategy::Deploy(deploy)),
            reload: RolloutSettings::new(Strategy::Reload(reload)),
        };
        let mut ledger = Ledger::new(name.clone());
        ledger.record_running(StoredRevision {
            number: 1,
            digest: declared.digest,
            settings: declared.settings.clone(),
        });
        let mut agent = Self {
            store: [(1, (declared.digest, declared.settings.clone()))].into(),
            ledger,
            declared,
            instances: InstanceCounts { running: instances, min: instances.min(1) },
            revisions: BTreeMap::new(),
            shares: BTreeMap::new(),
            paused: false,
            shadowed: false,
            waiting: 0,
            compared: ComparisonCounts::default(),
            rehearsal: RehearsalState::Open,
            windows: StepMeasurements::default(),
            figures: RolloutStats::default(),
            tallies: BTreeMap::new(),
            measured: None,
            dealt: 0,
            snapshots: BTreeMap::new(),
            memory: 0,
            data: BTreeSet::new(),
            copies: BTreeMap::new(),
            state_kept: None,
            unfinished: false,
            converted: None,
            persisted: String::new(),
            ended: BTreeMap::new(),
            waits: Vec::new(),
        };
        agent.boot(now);
        agent.persisted = serde_json::to_string(&agent.ledger).unwrap();
        agent
    }

    /// Starts the revision that ran last, as a host does unless a rollout has begun.
    fn boot(&mut self, now: u64) {
        if self.ledger.open().is_some_and(|rollout| rollout.status != Status::Pending) {
            return;
        }
        let Some(side) = self.ledger.current().cloned() else { return };
        let stands = |rev: &Rev| matches!(rev.seen.state, RevisionState::Running | RevisionState::Failed { .. });
        if self.revisions.get(&side.number).is_some_and(stands) {
            return;
        }
        let mut rev = self.fresh(side.number, now);
        rev.seen.state = RevisionState::Running;
        (rev.seen.stateful, rev.seen.migrates) = (is(rev.digest, "memory"), is(rev.digest, "migrates"));
        rev.seen.instances = self.instances.running;
        rev.memory = self.memory;
        self.revisions.insert(side.number, rev);
        self.shares = [(side.number, 100)].into();
    }

    /// Returns a revision of which nothing is in memory yet.
    fn fresh(&self, number: u64, now: u64) -> Rev {
        let digest = self.store[&number].0;
        let seen = ObservedRevision {
            state: RevisionState::Unloaded,
            since: now,
            busy: false,
            stateful: false,
            migrates: false,
            in_flight: 0,
            instances: 0,
            instance_limit: None,
            probes: (!is(digest, "probeless")).then(ProbeResults::default),
        };
        Rev { seen, work: None, digest, memory: 0 }
    }

    /// Returns `true` if the current revision failed for good.
    pub(crate) fn is_down(&self) -> bool {
        let current = self.ledger.current().and_then(|side| self.revisions.get(&side.number));
        current.is_some_and(|rev| matches!(rev.seen.state, RevisionState::Failed { .. }))
    }

    /// Returns the newest revision if it matches the declaration and no rollout has used it yet.
    fn newest(&self) -> Option<u64> {
        let (number, rev) = self.revisions.last_key_value()?;
        let made = self.store[number] == (self.declared.digest, self.declared.settings.clone());
        let known = self.ledger.rollouts.iter().any(|r| r.to.number == *number || r.from.number == *number);
        (made && !known && rev.seen.state == RevisionState::Unloaded && *number > 1).then_some(*number)
    }

    fn observation(&self) -> Observation {
        let Some(rollout) = self.ledger.open() else { return Observation::default() };
        let seen = |number: u64| {
            self.revisions.get(&number).map(|rev| ObservedRevision { busy: rev.work.is_some(), ..rev.seen.clone() })
        };
        Observation {
            stable: seen(rollout.from.number),
            candidate: seen(rollout.to.number),
            weight: self.shares.get(&rollout.to.number).copied().unwrap_or(0),
            paused: self.paused,
            conversion: ConversionState {
                is_state_kept: self.state_kept == Some(rollout.id),
                unfinished: self.unfinished,
                restoring: false,
            },
            shadowed: self.shadowed,
            compared: self.compared,
            rehearsal: self.rehearsal.clone(),
            measurements: self.windows,
            stats: self.figures,
        }
    }

    /// Takes up the declaration. Returns the actions that created revisions.
    fn follow(&mut self, now: u64, bug: Option<Bug>) -> Vec<String> {
        let (declared, mut created) = (self.declared.clone(), Vec::new());
        let failed = self.ledger.current().and_then(|side| match &self.revisions.get(&side.number)?.seen.state {
            RevisionState::Failed { reason } => Some(reason.clone()),
            _ => None,
        });
        if self.ledger.open().is_none() && failed.is_none() {
            self.boot(now);
        }
        if let Some(why) = failed {
            let (instances, stateful) = (self.instances, self.stateful());
            if !self.ledger.recover(&why, &declared.deploy, instances, stateful, now) && self.ledger.open().is_none() {
                self.waits.push(format!("what ran failed: {why}"));
            }
        }
        for _ in 0..2 {
            if bug == Some(Bug::ForgetsDeclined) {
                self.ledger.refusals.clear();
            }
            let store = self.store.clone();
            let (fresh, stateful) =
                (self.newest(), |number: u64| store.get(&number).is_some_and(|made| is(made.0, "memory")));
            match self.ledger.apply_declaration(&declared, fresh, "reconcile", self.instances, &stateful, now) {
                DeclarationOutcome::CreateRevision => {
                    let number = self.store.keys().max().unwrap() + 1;
                    self.store.insert(number, (declared.digest, declared.settings.clone()));
                    self.revisions.insert(number, self.fresh(number, now));
                    created.push(format!("create {}", id(&self.ledger.agent, number)));
                }
                DeclarationOutcome::Wait(why) | DeclarationOutcome::Refuse(_, why) => {
                    self.waits.push(why);
                    break;
                }
                DeclarationOutcome::UpToDate => break,
            }
        }
        // Measurements belong to one rollout.
        let open = self.ledger.open().map(|rollout| rollout.id);
        if open != self.measured {
            self.measured = open;
            (self.compared, self.windows, self.figures) = Default::default();
            (self.shadowed, self.rehearsal) = (false, RehearsalState::Open);
        }
        created
    }

    /// Returns the stored copies, newest first.
    fn kept(&self) -> Vec<StateCopy> {
        let kept = self.copies.iter().rev();
        kept.map(|(revision, holds)| StateCopy {
            revision: *revision,
            state_versions: holds.clone(),
            keys: 25,
            written_since: 24,
        })
        .collect()
    }

    fn stateful(&self) -> bool {
        self.ledger.current().is_some_and(|side| is(side.digest, "memory"))
    }
}

impl World {
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        Self { now: 1_000_000, agents: BTreeMap::new(), bug, look_again_in: None, resumed: false, created: Vec::new() }
    }

    /// Follows the declarations and returns the actions that are safe now.
    pub(crate) fn plan(&mut self) -> Result<Vec<(AgentName, RolloutAction)>, Broken> {
        self.created.clear();
        self.look_again_in = None;
        let (now, bug) = (self.now, self.bug);
        let (mut created, mut actions) = (Vec::new(), Vec::new());
        self.agents.values_mut().for_each(|agent| agent.waits.clear());
        let mut names: Vec<AgentName> = self.agents.keys().cloned().collect();
        // The declaration may differ from the result of a rollout that has just ended.
        for round in 0.. {
            if names.is_empty() {
                break;
            }
            ensure(round < 10, || "rollouts begin and end and begin".to_owned())?;
            for name in &names {
                created.extend(self.agents.get_mut(name).unwrap().follow(now, bug));
            }
            let permits: BTreeMap<AgentName, RolloutPermit> =
                permits(self.agents.values().filter_map(|agent| agent.ledger.open())).into_iter().collect();
            let mut ended = Vec::new();
            for name in names {
                let agent = self.agents.get_mut(&name).unwrap();
                let was_open = agent.ledger.open().is_some();
                let turn = permits.get(&name).filter(|_| bug != Some(Bug::NoTurns));
                let (decided, look) = agent.decide(turn, now)?;
                self.look_again_in = [self.look_again_in, look].into_iter().flatten().min();
                for action in decided.into_iter().map(|action| (name.clone(), action)) {
                    if !actions.contains(&action) {
                        actions.push(action);
                    }
                }
                if was_open && agent.ledger.open().is_none() {
                    agent.waits.clear();
                    ended.push(name);
                }
            }
            names = ended;
        }
        for (name, agent) in &mut self.agents {
            let (tidied, look) = agent.collect_garbage(now);
            self.look_again_in = [self.look_again_in, look].into_iter().flatten().min();
            actions.extend(
                tidied
                    .into_iter()
                    .map(|action| (name.clone(), action))
                    .filter(|a| !actions.contains(a))
                    .collect::<Vec<_>>(),
            );
        }
        self.created = created;
        Ok(actions)
    }

    /// Restarts the host: only the stored state is left.
    pub(crate) fn restart(&mut self) -> Vec<String> {
        let (now, bug) = (self.now, self.bug);
        let mut told = Vec::new();
        for (name, agent) in &mut self.agents {
            // The ledger is stored whenever it changes, so its present state is the stored one.
            let persisted = serde_json::to_string(&agent.ledger).unwrap();
            let kept = if bug == Some(Bug::PersistsNothing) { &agent.persisted } else { &persisted };
            let before = std::mem::replace(&mut agent.ledger, serde_json::from_str(kept).unwrap());
            debug_assert!(bug.is_some() || before == agent.ledger, "what is persisted is all there is");
            agent.waiting += agent.revisions.values().map(|rev| rev.seen.in_flight).sum::<u32>();
            // The memory of the running revision is stored with each commit.
            agent.revisions.clear();
            agent.shares.clear();
            // During a conversion the mailbox is paused from the start of the host.
            (agent.paused, agent.shadowed, agent.rehearsal) = (agent.unfinished, false, RehearsalState::Open);
            (agent.compared, agent.windows, agent.figures) = Default::default();
            if let Some(rollout) = agent.ledger.open_mut() {
                told.push(format!("{name}: {}", rollout.record_restart(now)));
                agent.windows.step = rollout.window();
                if agent.converted == Some(rollout.id) {
                    rollout.record_conversion(now);
                }
            }
            agent.boot(now);
        }
        told
    }

    /// Gives an operator's command.
    pub(crate) fn command(
        &mut self,
        name: &AgentName,
        command: RolloutCommand,
        undo: UndoOptions,
    ) -> Result<(), String> {
        let now = self.now;
        let agent = self.agents.get_mut(name).unwrap();
        let (settings, stateful) = (agent.declared.deploy.clone(), agent.stateful());
        let instances = agent.instances;
        let kept = agent.kept();
        let answer = match command {
            RolloutCommand::Undo => agent.ledger.undo(undo, "anna", &settings, instances, stateful, &kept, now),
            _ => agent.ledger.command(command, "anna", now),
        };
        if answer.is_ok()
            && command == RolloutCommand::Undo
            && agent.ledger.open().is_some_and(|r| r.status == Status::Pending)
        {
            let to = agent.ledger.open().unwrap().to.number;
            if agent.revisions.get(&to).is_none_or(|rev| rev.seen.state.is_terminal()) {
                agent.revisions.remove(&to);
            }
        }
        self.resumed |= command == RolloutCommand::Resume || command == RolloutCommand::Promote;
        answer.map_err(|refused| refused.to_string())
    }
}

impl Agent {
    /// Returns the actions that are safe for this agent now.
    fn decide(
        &mut self,
        turn: Option<&RolloutPermit>,
        now: u64,
    ) -> Result<(Vec<RolloutAction>, Option<Duration>), Broken> {
        let (mut actions, mut look) = (Vec::new(), None);
        let waits = turn.and_then(RolloutPermit::waits);
        if let Some(waits) = waits {
            self.waits.push(waits);
        } else if self.ledger.open().is_some() {
            self.measure();
            let seen = self.observation();
            let rollout = self.ledger.open_mut().unwrap();
            let mut again = rollout.clone();
            let decision = rollout.observe(&seen, now);
            let same = again.observe(&seen, now);
            ensure(same == decision && again == *rollout, || "the same question has two answers".to_owned())?;
            self.measure();
            (actions, look) = (decision.actions, decision.recheck_after);
            self.waits.extend(decision.waits);
            self.ledger.settle(now);
        }
        Ok((actions, look))
    }

    /// Begins new measurements if the rollout has reached another step.
    fn measure(&mut self) {
        let Some(step) = self.ledger.open().map(Rollout::window).filter(|step| *step != self.windows.step) else {
            return;
        };
        (self.windows, self.compared) =
            (StepMeasurements { step, ..StepMeasurements::default() }, ComparisonCounts::default());
    }

    /// Ends revisions that neither serve nor take part in a rollout.
    fn collect_garbage(&mut self, now: u64) -> (Vec<RolloutAction>, Option<Duration>) {
        let open = self.ledger.open();
        let mut held: Vec<u64> = Vec::new();
        held.extend(open.iter().flat_map(|rollout| [rollout.from.number, rollout.to.number]));
        held.extend(self.ledger.current().map(|side| side.number));
        let rest: Vec<(u64, ObservedRevision)> = self
            .revisions
            .iter()
            .map(|(number, rev)| (*number, ObservedRevision { busy: rev.work.is_some(), ..rev.seen.clone() }))
            .collect();
        let drain = self.declared.reload.drain;
        let tidied = collect_garbage(&self.ledger.agent, &rest, &held, self.paused, open.is_none(), drain, now);
        self.waits.extend(tidied.waits);
        self.expire();
        (tidied.actions, tidied.recheck_after)
    }

    /// Drops expired records and ended revisions.
    fn expire(&mut self) {
        let keep = self.declared.deploy.rollback.keep;
        for number in self.ledger.expire(keep) {
            self.store.remove(&number);
        }
        let open = self.ledger.open().map(|rollout| [rollout.from.number, rollout.to.number]);
        let current = self.ledger.current().map(|side| side.number);
        let needed = |number: &u64| current == Some(*number) || open.is_some_and(|open| open.contains(number));
        self.revisions.retain(|number, rev| needed(number) || !rev.seen.state.is_terminal());
        // A revision that failed for good has no traffic any more.
        let gone = self.shares.keys().all(|number| !self.revisions.contains_key(number));
        if gone {
            self.shares.clear();
        }
    }
}

/// Returns a revision's id.
pub(crate) fn id(agent: &AgentName, number: u64) -> RevisionId {
    RevisionId { agent: agent.clone(), number }
}

/// Returns the measurements after further messages of a component.
pub(crate) fn measured(digest: Digest, messages: u64, before: &Window) -> Window {
    let messages = before.messages + messages;
    Window {
        messages,
        faults: if is(digest, "traps") { messages.div_ceil(10) } else { 0 },
        timed: messages,
        p95: Some(P95::exactly(Duration::from_millis(if is(digest, "slow") { 90 } else { 20 }))),
        memory_bytes: if is(digest, "leaks") { 512 << 20 } else { 8 << 20 },
        ..*before
    }
}
