//! A model of the host without tasks, files or a clock: it applies actions in the way of `host/src/reconcile/actions.rs`,
//! and long work ends when the test ends it. It checks the invariants after every step.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use caxton_control::backoff::Backoff;
use caxton_control::desired::{
    BreakerSpec, Grants, InstancesSpec, Limits, MailboxOrder, MailboxSpec, ReloadOptions, Reuse, SnapshotSpec,
};
use caxton_control::lifecycle::RevisionState;
use caxton_control::plan::{
    Action, Actual, ActualAgent, ComponentFile, DesiredAgent, Divergence, IncrementalPlan, Plan, Revision, plan,
    plan_for,
};
use caxton_control::rollout::{Ledger, ObservedRevision, RolloutAction as Do, Status};
use caxton_control::snapshot::SaveMode;
use caxton_control::{AgentName, AgentSpec, Digest, RevisionId};

/// A defect, planted in the host or between it and the planner, that the invariants have to detect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The planner gets a time far ahead, so that drains end at once.
    TimeAhead,
    /// The planner sees no messages in flight.
    NothingInFlight,
    /// The planner sees no busy revision.
    NothingBusy,
    /// Mailboxes are not resumed after a handoff.
    NoResume,
    /// Switches traffic to a revision instead of preparing it.
    SwitchUnready,
    /// The former revision is stopped together with the switch.
    NoDrain,
    /// A failing candidate ends the running revision too.
    FailureStopsAll,
    /// A number is given twice after a failure.
    NumberAgain,
    /// A restarted host numbers from 1 again.
    NumbersForgotten,
    /// A revision stays busy after its work failed.
    BusyAfterFailure,
    /// A leaving agent is forgotten with messages in flight.
    ForgetsEarly,
    /// The end of work marks no agent.
    UnmarkedEnd,
    /// The answer to the last message marks no agent.
    UnmarkedRest,
    /// A changed declaration marks no agent.
    UnmarkedWish,
}

/// The work of a busy revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Validates, compiles, starts instances.
    Prepare,
    /// Restores the snapshot of the running revision.
    Handoff,
    /// Restores the snapshot that it had handed over.
    TakeBack,
    /// Saves its snapshot because the agent leaves.
    Save,
}

/// A revision, with the state that the planner does not see.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) seen: Revision,
    pub(crate) work: Option<Work>,
    /// Set while its instances run.
    pub(crate) live: bool,
}

/// An agent of the host.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) applied: Arc<AgentSpec>,
    pub(crate) paused: bool,
    pub(crate) retired: Option<u64>,
    pub(crate) revisions: Vec<Record>,
    next_number: u64,
    /// The revision that receives messages.
    current: Option<u64>,
    /// The queued messages.
    pub(crate) waiting: u32,
    /// Set once one of its revisions has received messages.
    ran: bool,
}

/// The identity of a revision: component and settings.
type Made = (Digest, String);

/// The host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    pub(crate) wanted: BTreeMap<AgentName, DesiredAgent>,
    pub(crate) entries: BTreeMap<AgentName, Entry>,
    /// The agents' ledgers; these survive a restart.
    pub(crate) ledgers: BTreeMap<AgentName, Ledger>,
    /// The agents whose ledger had an open rollout after the last plan for them.
    open: BTreeSet<AgentName>,
    pub(crate) now: Duration,
    pub(crate) bug: Option<Bug>,
    /// The bookkeeping of incremental plans.
    standing: IncrementalPlan,
    /// The newest stored revision of each agent; survives a restart.
    kept: BTreeMap<AgentName, (u64, Made)>,
    /// The revision numbers ever given, with the identity behind each.
    given: BTreeMap<RevisionId, Made>,
    /// The revision numbers given since the last restart.
    given_now: BTreeSet<RevisionId>,
    /// The name of each component.
    names: BTreeMap<Digest, String>,
}

/// Returns the digest of the component with this name.
pub(crate) fn digest(name: &str) -> Digest {
    let mut digest = [0; 32];
    for (at, byte) in name.bytes().take(32).enumerate() {
        digest[at] = byte;
    }
    Digest(digest)
}

/// Returns a declaration with a value for every setting.
pub(crate) fn spec(name: &AgentName) -> AgentSpec {
    AgentSpec {
        budget: None,
        settings_text: Default::default(),
        name: name.clone(),
        component: format!("{name}.wasm"),
        build: None,
        capabilities: BTreeSet::new(),
        instances: InstancesSpec { min: 0, max: 4, reuse: Reuse::Unset, idle: Duration::from_secs(60) },
        snapshot: SnapshotSpec { save: SaveMode::Commit, commit_max_bytes: 64 << 10, max_bytes: 64 << 20, own: false },
        state: Default::default(),
        config: BTreeMap::new(),
        allow: Grants::default(),
        limits: Limits {
            memory_bytes: 64 << 20,
            cpu: Duration::from_secs(1),
            fuel: None,
            time: Duration::from_secs(10),
            message_bytes: 256 << 10,
            sends: 1_000,
            writes: 1_000,
            effects_bytes: 8 << 20,
            state_bytes: 64 << 20,
            timers: 100_000,
            hops: 64,
            log_lines: 1_000,
        },
        mailbox: MailboxSpec {
            order: MailboxOrder::Conversation,
            depth: 10_000,
            attempts: 5,
            backoff: Backoff { first: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(300), jitter: 0.2 },
            timeout: None,
            on_dead: caxton_control::desired::OnDead::Keep,
        },
        breaker: BreakerSpec { faults: 10, reset: Duration::from_secs(60) },
        schedules: Vec::new(),
        http: Vec::new(),
        reload: ReloadOptions { watch: true, drain: Duration::from_secs(60) },
        rollout: caxton_control::rollout::RolloutSpec::default(),
    }
}

fn made(spec: &AgentSpec, digest: Digest) -> Made {
    (digest, serde_json::json!({ "config": spec.config, "allow": spec.allow, "limits": spec.limits }).to_string())
}

/// Returns the observed state of a revision that is not in memory.
fn unloaded(now: Duration) -> ObservedRevision {
    ObservedRevision {
        state: RevisionState::Unloaded,
        since: millis(now),
        busy: false,
        stateful: false,
        migrates: false,
        in_flight: 0,
        instances: 0,
        instance_limit: None,
        probes: None,
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

/// The description of a broken invariant.
pub(crate) type Broken = String;

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken()) }
}

impl Host {
    /// Creates a host that has done nothing yet.
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        // At 0 a revision would look as old as the host.
        Self { now: Duration::from_secs(1), bug, ..Self::default() }
    }

    /// Declares an agent whose component has this name; one named `memory…` exports `snapshot`.
    pub(crate) fn declare(&mut self, spec: AgentSpec, component: Result<&str, &str>) {
        let component = match component {
            Ok(name) => {
                self.names.insert(digest(name), name.to_owned());
                ComponentFile::Found(digest(name))
            }
            Err(why) => ComponentFile::Unusable(why.to_owned()),
        };
        self.mark_but(&spec.name, Bug::UnmarkedWish);
        self.wanted.insert(spec.name.clone(), DesiredAgent { spec: Arc::new(spec), component });
    }

    /// Removes an agent from the declarations.
    pub(crate) fn remove(&mut self, name: &AgentName) {
        self.mark_but(name, Bug::UnmarkedWish);
        self.wanted.remove(name);
    }

    /// Marks an agent as changed, unless the planted defect forgets that.
    fn mark_but(&mut self, name: &AgentName, bug: Bug) {
        if self.bug != Some(bug) {
            self.standing.mark(name);
        }
    }

    fn mark_all(&mut self) {
        let names = self.wanted.keys().chain(self.entries.keys()).chain(self.ledgers.keys());
        names.for_each(|name| self.standing.mark(name));
    }

    /// Plans for the agents that changed, repeatedly until there are actions or no agent is marked.
    pub(crate) fn look(&mut self) -> Plan {
        loop {
            let now = millis(self.now);
            let names = self.standing.take_marked(now, usize::MAX);
            let mut actual = self.observe();
            actual.agents.retain(|name, _| names.contains(name));
            let plan = plan_for(&names, &self.wanted, &actual, (&mut self.ledgers, &self.open), now);
            self.note_open(&names);
            self.standing.update(&names, &plan, now);
            if names.is_empty() || !plan.actions.is_empty() {
                return plan;
            }
        }
    }

    /// Notes which of the agents that were planned for have an open rollout.
    fn note_open(&mut self, names: &BTreeSet<AgentName>) {
        for name in names {
            if self.ledgers.get(name).and_then(Ledger::open).is_some() {
                self.open.insert(name.clone());
            } else {
                self.open.remove(name);
            }
        }
    }

    /// Checks that, with no agent marked, a full plan finds nothing that the incremental ones missed.
    pub(crate) fn all_is_seen(&self) -> Result<(), Broken> {
        let (mut ledgers, now) = (self.ledgers.clone(), millis(self.now));
        let all = plan(&self.wanted, &self.observe(), &mut ledgers, now);
        ensure(all.actions.is_empty(), || format!("it was not seen that this is to be done: {:?}", all.actions))?;
        ensure(all.changed.is_empty() && all.gone.is_empty(), || format!("{:?} were not seen", all.changed))?;
        let mut told: BTreeMap<AgentName, Vec<Divergence>> = BTreeMap::new();
        for waiting in all.waiting.iter().filter(|waiting| !waiting.why.starts_with("it waits for its turn")) {
            told.entry(waiting.agent.clone()).or_default().push(waiting.clone());
        }
        ensure(all.queued == *self.standing.queued(), || format!("{:?} wait for their turn", all.queued))?;
        let known = self.standing.waiting();
        ensure(told.keys().eq(known.keys()), || format!("it was not seen that {told:?}, but {known:?}"))?;
        for (name, whys) in told {
            let due = self.standing.due_of(&name);
            let after = all.recheck.get(&name).map(|after| now + millis(*after) + 1);
            ensure(after.is_none_or(|after| due.is_some_and(|due| due <= after)), || format!("{name} is late"))?;
            // Reasons that depend on the time alone are as old as the last plan for the agent.
            ensure(due.is_some() || whys == known[&name], || format!("{name} says {:?}, and {whys:?}", known[&name]))?;
        }
        Ok(())
    }

    pub(crate) fn name_of(&self, digest: Digest) -> &str {
        self.names.get(&digest).map_or("?", String::as_str)
    }

    fn is_stateful(&self, digest: Digest) -> bool {
        self.name_of(digest).starts_with("memory")
    }

    pub(crate) fn observe(&self) -> Actual {
        let agents = self.entries.iter().map(|(name, entry)| {
            let waits = entry.waiting > 0 || entry.revisions.iter().any(|r| r.seen.seen.in_flight > 0);
            let revisions = entry.revisions.iter().map(|record| {
                let mut seen = record.seen.clone();
                seen.seen.busy = record.work.is_some();
                seen
            });
            let seen = ActualAgent {
                paused: entry.paused,
                retired: entry.retired,
                has_messages: waits,
                revisions: revisions.collect(),
                shares: entry.current.map(|number| (number, 100)).into_iter().collect(),
                ..ActualAgent::new(Arc::clone(&entry.applied))
            };
            (name.clone(), seen)
        });
        Actual { agents: agents.collect() }
    }

    /// Plans for the observed state, as far as the planted defect lets it through.
    pub(crate) fn plan(&mut self) -> Plan {
        let (mut actual, mut now) = (self.observe(), self.now);
        if self.bug == Some(Bug::NothingInFlight) {
            actual.agents.values_mut().for_each(|agent| agent.has_messages = false);
        }
        let revisions = actual.agents.values_mut().flat_map(|agent| agent.revisions.iter_mut());
        match self.bug {
            Some(Bug::TimeAhead) => now += Duration::from_secs(86_400),
            Some(Bug::NothingInFlight) => revisions.for_each(|r| r.seen.in_flight = 0),
            Some(Bug::NothingBusy) => revisions.for_each(|r| r.seen.busy = false),
            _ => {}
        }
        let mut plan = plan(&self.wanted, &actual, &mut self.ledgers, millis(now));
        self.note_open(&self.ledgers.keys().chain(&self.open).cloned().collect());
        match self.bug {
            Some(Bug::NoResume) => plan.actions.retain(|action| !matches!(action, Action::Roll(Do::Resume { .. }))),
            Some(Bug::SwitchUnready) => {
                for action in &mut plan.actions {
                    if let Action::Roll(Do::Prepare { revision, .. }) = action {
                        *action = Action::Switch { revision: revision.clone() };
                    }
                }
            }
            Some(Bug::ForgetsEarly) => {
                let leaves =
                    self.entries.iter().filter(|(_, entry)| entry.retired.is_some()).map(|(name, _)| name.clone());
                plan.actions.extend(leaves.map(|agent| Action::Forget { agent }));
            }
            _ => {}
        }
        plan
    }

    /// Applies one action.
    pub(crate) fn apply(&mut self, action: &Action) -> Result<(), Broken> {
        let now = millis(self.now);
        match action {
            Action::Create { agent, digest, spec } => self.create(agent, *digest, spec)?,
            Action::Configure { agent, spec } => self.entry(agent)?.applied = Arc::clone(spec),
            Action::Switch { revision } => {
                self.idle_record(revision)?;
                self.switch(revision)?;
            }
            Action::Roll(action) => self.roll(action)?,
            Action::Retire { agent } => self.retire(agent)?,
            Action::Restore { agent } => self.restore(agent)?,
            Action::Forget { agent } => {
                let entry = self.entry(agent)?;
                ensure(entry.retired.is_some(), || format!("{agent} is forgotten though it is declared"))?;
                let open = entry.revisions.iter().find(|r| !r.seen.seen.state.is_terminal()).map(|r| r.seen.number);
                ensure(open.is_none(), || format!("{agent} is forgotten while {open:?} is not ended"))?;
                let until = entry.retired.unwrap_or_default() + millis(entry.applied.reload.drain);
                let waiting = entry.waiting;
                ensure(waiting == 0 || now >= until, || format!("{agent} is forgotten while {waiting} messages wait"))?;
                self.entries.remove(agent);
            }
        }
        self.flow();
        self.holds()
    }

    /// Applies one action of a rollout.
    fn roll(&mut self, action: &Do) -> Result<(), Broken> {
        match action {
            Do::Revive { revision } => self.revive(revision),
            Do::Prepare { revision, .. } => {
                let record = self.idle_record(revision)?;
                ensure(record.seen.seen.state == RevisionState::Unloaded, || format!("{revision} is prepared twice"))?;
                record.work = Some(Work::Prepare);
                let made = made(&record.seen.spec, record.seen.digest);
                let kept = self.kept.entry(revision.agent.clone()).or_insert_with(|| (revision.number, made.clone()));
                if kept.0 < revision.number {
                    *kept = (revision.number, made);
                }
                Ok(())
            }
            Do::Weigh { stable, candidate, percent } => {
                let to = if *percent == 100 { candidate } else { stable };
                ensure([0, 100].contains(percent), || format!("{percent}% of one instance"))?;
                self.idle_record(to)?;
                self.switch(to)
            }
            Do::Pause { agent } => {
                self.entry(agent)?.paused = true;
                Ok(())
            }
            Do::Resume { agent } => {
                self.entry(agent)?.paused = false;
                Ok(())
            }
            Do::Handoff { revision, .. } => self.hand_off(revision),
            Do::TakeBack { revision, .. } => {
                self.idle_record(revision)?.work = Some(Work::TakeBack);
                Ok(())
            }
            Do::Stop { revision } => self.stop(revision),
            Do::Start { .. }
            | Do::Cap { .. }
            | Do::Probe { .. }
            | Do::Rehearse { .. }
            | Do::Shadow { .. }
            | Do::KeepState { .. }
            | Do::Convert { .. }
            | Do::RestoreState { .. } => Err(format!("not asked for by what is declared here: {action:?}")),
        }
    }

    /// Brings a stored revision back.
    fn revive(&mut self, revision: &RevisionId) -> Result<(), Broken> {
        let ledger = self.ledgers.get(&revision.agent).ok_or("there is no ledger")?;
        let side = ledger.revision(revision.number).ok_or_else(|| format!("{revision} is not kept"))?.clone();
        let wanted = self.wanted.get(&revision.agent).ok_or("it is not declared")?;
        let spec = wanted.spec.with_settings(&side.settings).ok_or("its settings cannot be read")?;
        let digest = side.digest;
        let seen = Revision { number: side.number, spec: Arc::new(spec), digest, seen: unloaded(self.now) };
        let next = self.kept.get(&revision.agent).map_or(1, |(number, _)| number + 1).max(ledger.last_number() + 1);
        let entry = self.entries.entry(revision.agent.clone()).or_insert_with(|| Entry::new(&wanted.spec, next));
        ensure(
            entry.revisions.iter().all(|r| r.seen.number != side.number || r.seen.seen.state.is_terminal()),
            || format!("{revision} is brought back and stands"),
        )?;
        entry.revisions.retain(|record| record.seen.number != side.number);
        entry.revisions.push(Record { seen, work: None, live: false });
        entry.revisions.sort_by_key(|record| record.seen.number);
        Ok(())
    }

    fn create(&mut self, name: &AgentName, digest: Digest, spec: &Arc<AgentSpec>) -> Result<(), Broken> {
        let made = made(spec, digest);
        let kept = self.kept.get(name).filter(|_| self.bug != Some(Bug::NumbersForgotten));
        // A revision that the ledger knows is never created again under its number.
        let known = self.ledgers.get(name).map_or(0, Ledger::last_number);
        let first =
            kept.map_or(1, |(number, before)| if *before == made { *number } else { number + 1 }).max(known + 1);
        let new = !self.entries.contains_key(name);
        let entry = self.entries.entry(name.clone()).or_insert_with(|| Entry::new(spec, first));
        if self.bug == Some(Bug::NumberAgain) && entry.revisions.last().is_some_and(|r| r.seen.seen.state.is_terminal())
        {
            entry.next_number -= 1;
        }
        let number = entry.next_number;
        entry.next_number += 1;
        entry.revisions.retain(|record| !record.seen.seen.state.is_terminal());
        let seen = Revision { number, spec: Arc::clone(spec), digest, seen: unloaded(self.now) };
        entry.revisions.push(Record { seen, work: None, live: false });
        let id = RevisionId { agent: name.clone(), number };
        let before = self.given.insert(id.clone(), made.clone());
        ensure(before.is_none_or(|before| before == made), || format!("{id} was another revision before"))?;
        // An agent that is removed and declared again with the same content gets the same revision.
        let twice = !self.given_now.insert(id.clone());
        ensure(new || !twice, || format!("{id} is made twice"))
    }

    fn switch(&mut self, revision: &RevisionId) -> Result<(), Broken> {
        let no_drain = self.bug == Some(Bug::NoDrain);
        let is_current = self.entry(&revision.agent)?.current == Some(revision.number);
        let record = self.record(revision)?;
        if is_current && record.seen.seen.state == RevisionState::Running {
            return Ok(());
        }
        let stands = record.seen.seen.state.can_start() || record.seen.seen.state == RevisionState::Draining;
        ensure(stands && record.live, || format!("{revision} gets messages though it is {}", record.seen.seen.state))?;
        let old = self.entry(&revision.agent)?.running().map(|record| record.seen.number);
        self.go(revision, RevisionState::Running)?;
        if let Some(number) = old {
            let old = RevisionId { agent: revision.agent.clone(), number };
            self.go(&old, RevisionState::Draining)?;
            if no_drain {
                self.end(&old)?;
            }
        }
        let entry = self.entry(&revision.agent)?;
        (entry.ran, entry.current) = (true, Some(revision.number));
        Ok(())
    }

    fn hand_off(&mut self, revision: &RevisionId) -> Result<(), Broken> {
        self.idle_record(revision)?;
        let entry = self.entry(&revision.agent)?;
        ensure(entry.paused, || format!("{revision} takes over the state while messages are handled"))?;
        let in_flight = entry.running().map(|old| old.seen.seen.in_flight);
        ensure(in_flight == Some(0), || format!("the state for {revision} is taken with {in_flight:?} in flight"))?;
        self.record(revision)?.work = Some(Work::Handoff);
        Ok(())
    }

    fn stop(&mut self, revision: &RevisionId) -> Result<(), Broken> {
        let entry = self.entry(&revision.agent)?;
        let (retired, current) = (entry.retired.is_some(), entry.current == Some(revision.number));
        let record = self.idle_record(revision)?;
        ensure(record.seen.seen.state != RevisionState::Running || retired, || {
            format!("{revision} is stopped while it runs")
        })?;
        let saves = retired && current && record.live;
        if !saves {
            return self.end(revision);
        }
        self.has_had_its_time(revision)?;
        // Its snapshot is kept, since the agent may come back.
        self.record(revision)?.work = Some(Work::Save);
        Ok(())
    }

    /// Checks that nothing in flight is interrupted before its deadline.
    fn has_had_its_time(&mut self, revision: &RevisionId) -> Result<(), Broken> {
        let now = self.now;
        // A revision in a rollout has the drain time declared when the rollout began.
        let mut rollouts = self.ledgers.get(&revision.agent).into_iter().flat_map(|ledger| &ledger.rollouts);
        let rollout = rollouts.rfind(|rollout| rollout.from.number == revision.number);
        let begun = rollout.map(|rollout| rollout.settings.drain);
        let entry = self.entry(&revision.agent)?;
        let waits = entry.retired.is_some() && entry.waiting > 0;
        let limit = begun.map_or(entry.applied.reload.drain, |begun| begun.min(entry.applied.reload.drain));
        let ObservedRevision { in_flight, state, since, .. } = &self.record(revision)?.seen.seen;
        let rests = *in_flight == 0 && !(waits && state.is_active());
        ensure(rests || millis(now) >= *since + millis(limit), || {
            format!("{revision} is stopped with {in_flight} in flight before its deadline")
        })
    }

    /// Ends a revision; its messages in flight return to the mailbox.
    fn end(&mut self, revision: &RevisionId) -> Result<(), Broken> {
        self.has_had_its_time(revision)?;
        let record = self.record(revision)?;
        let in_flight = std::mem::take(&mut record.seen.seen.in_flight);
        (record.live, record.work) = (false, None);
        let to = if record.seen.seen.state.can_stop() {
            RevisionState::Stopped
        } else {
            RevisionState::failed("superseded")
        };
        self.go(revision, to)?;
        let entry = self.entry(&revision.agent)?;
        entry.waiting += in_flight;
        entry.revisions.retain(|record| record.seen.number != revision.number);
        Ok(())
    }

    fn retire(&mut self, name: &AgentName) -> Result<(), Broken> {
        let now = millis(self.now);
        let entry = self.entry(name)?;
        (entry.retired, entry.paused) = (Some(now), false);
        let drain: Vec<u64> =
            entry.revisions.iter().filter(|r| r.seen.seen.state.can_drain()).map(|r| r.seen.number).collect();
        for number in drain {
            self.go(&RevisionId { agent: name.clone(), number }, RevisionState::Draining)?;
        }
        Ok(())
    }

    /// Lets a draining revision serve again; one that is being ended ends.
    fn restore(&mut self, name: &AgentName) -> Result<(), Broken> {
        let entry = self.entry(name)?;
        ensure(entry.retired.take().is_some(), || format!("{name} is restored and did not leave"))?;
        let current = entry.current;
        let serves = |r: &&Record| Some(r.seen.number) == current && r.seen.seen.state == RevisionState::Draining;
        let number = entry.revisions.iter().filter(|r| r.work.is_none()).find(serves).map(|r| r.seen.number);
        if let Some(number) = number {
            self.go(&RevisionId { agent: name.clone(), number }, RevisionState::Running)?;
        }
        // An ended revision has to be brought up again.
        self.entry(name)?.ran = number.is_some();
        Ok(())
    }

    /// Ends the work of a busy revision; an error is the reason of its failure. A revision in preparation becomes
    /// loaded first.
    pub(crate) fn finish(&mut self, revision: &RevisionId, result: Result<(), &str>) -> Result<(), Broken> {
        self.mark_but(&revision.agent, Bug::UnmarkedEnd);
        let running = self.entry(&revision.agent)?.running().map(|record| record.seen.number);
        let (bug, record) = (self.bug, self.record(revision)?);
        let Some(work) = record.work.take() else { return Err(format!("{revision} is not busy")) };
        match (work, result) {
            (Work::Prepare, Ok(())) => {
                if record.seen.seen.state == RevisionState::Unloaded {
                    self.go(revision, RevisionState::Loaded)?;
                }
                let digest = self.record(revision)?.seen.digest;
                let stateful = self.is_stateful(digest);
                let record = self.record(revision)?;
                (record.seen.seen.stateful, record.live) = (stateful, true);
                self.go(revision, RevisionState::Ready)?;
            }
            (Work::Handoff | Work::TakeBack, Ok(())) => {
                self.switch(revision)?;
                self.entry(&revision.agent)?.paused = false;
            }
            (Work::Save, _) => self.end(revision)?,
            (Work::TakeBack, Err(_)) => {}
            (Work::Prepare | Work::Handoff, Err(why)) => {
                record.live = false;
                if bug == Some(Bug::BusyAfterFailure) {
                    record.work = Some(work);
                }
                self.go(revision, RevisionState::failed(why))?;
                if let (Some(Bug::FailureStopsAll), Some(number)) = (bug, running) {
                    self.end(&RevisionId { agent: revision.agent.clone(), number })?;
                }
                let still = self.entry(&revision.agent)?.running().map(|record| record.seen.number);
                ensure(still == running, || format!("{revision} failed, and with it {running:?}"))?;
            }
        }
        self.flow();
        self.holds()
    }

    /// Marks a revision in preparation as compiled.
    pub(crate) fn loaded(&mut self, revision: &RevisionId) -> Result<(), Broken> {
        self.mark_but(&revision.agent, Bug::UnmarkedEnd);
        self.go(revision, RevisionState::Loaded)?;
        self.holds()
    }

    /// Lets `count` messages arrive for an agent.
    pub(crate) fn take(&mut self, name: &AgentName, count: u32) {
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.retired.is_none()) else { return };
        entry.waiting += count;
        self.flow();
    }

    /// Moves queued messages to the running revision, unless the mailbox is paused.
    fn flow(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| !entry.paused) {
            let takes = |r: &&mut Record| Some(r.seen.number) == entry.current && r.live && r.work.is_none();
            if let Some(record) = entry.revisions.iter_mut().find(takes) {
                record.seen.seen.in_flight += std::mem::take(&mut entry.waiting);
            }
        }
    }

    /// Lets a revision finish `count` of its messages in flight.
    pub(crate) fn answer(&mut self, revision: &RevisionId, count: u32) -> Result<(), Broken> {
        let record = self.record(revision)?;
        record.seen.seen.in_flight = record.seen.seen.in_flight.saturating_sub(count);
        if record.seen.seen.in_flight == 0 {
            self.mark_but(&revision.agent, Bug::UnmarkedRest);
        }
        Ok(())
    }

    /// Forgets failures, so that failed revisions are tried again.
    pub(crate) fn retry(&mut self) {
        for entry in self.entries.values_mut() {
            entry.revisions.retain(|record| !matches!(record.seen.seen.state, RevisionState::Failed { .. }));
        }
        self.ledgers.values_mut().for_each(Ledger::forget_failures);
        self.mark_all();
    }

    /// Restarts the host: only the stored state is left.
    pub(crate) fn restart(&mut self) {
        self.entries.clear();
        let now = millis(self.now);
        for ledger in self.ledgers.values_mut() {
            // A real host keeps only text across a restart.
            *ledger = serde_json::from_str(&serde_json::to_string(ledger).unwrap()).unwrap();
            if let Some(rollout) = ledger.open_mut() {
                rollout.record_restart(now);
            }
        }
        self.given_now.clear();
        self.standing = IncrementalPlan::default();
        self.open.clear();
        self.mark_all();
    }

    /// Returns `true` if the last rollout was taken back, or the declared revision ran and failed for good.
    pub(crate) fn went_back(&self, name: &AgentName) -> bool {
        let (Some(ledger), Some(wanted)) = (self.ledgers.get(name), self.wanted.get(name)) else { return false };
        let failed = ledger.refusals.iter().any(|declined| {
            let same = ComponentFile::Found(declined.digest) == wanted.component;
            declined.strategy.is_none() && same && declined.settings == wanted.spec.revision_settings()
        });
        failed || ledger.rollouts.last().is_some_and(|rollout| rollout.status == Status::RolledBack)
    }

    /// Returns all busy revisions with their work.
    pub(crate) fn busy(&self) -> Vec<(RevisionId, Work)> {
        let all = self.entries.iter().flat_map(|(name, entry)| entry.revisions.iter().map(move |r| (name, r)));
        all.filter_map(|(name, r)| Some((RevisionId { agent: name.clone(), number: r.seen.number }, r.work?))).collect()
    }

    /// Checks the invariants of a host at rest.
    pub(crate) fn rests(&self) -> Result<(), Broken> {
        for (name, entry) in &self.entries {
            let takes_over = entry
                .revisions
                .last()
                .is_some_and(|r| r.seen.seen.state == RevisionState::Ready && r.seen.seen.stateful);
            ensure(!entry.paused || takes_over, || format!("{name} is paused for nothing"))?;
        }
        Ok(())
    }

    /// Checks the invariants of every moment.
    fn holds(&self) -> Result<(), Broken> {
        for (name, entry) in &self.entries {
            let running = entry.revisions.iter().filter(|r| r.seen.seen.state == RevisionState::Running).count();
            ensure(running <= 1, || format!("{running} revisions of {name} run"))?;
            let serves = running == 1 || !entry.ran || entry.retired.is_some();
            ensure(serves, || format!("no revision of {name} runs any more"))?;
        }
        Ok(())
    }

    fn go(&mut self, revision: &RevisionId, to: RevisionState) -> Result<(), Broken> {
        let now = self.now;
        let record = self.record(revision)?;
        record.seen.seen.state =
            record.seen.seen.state.transition(to).map_err(|error| format!("{revision}: {error}"))?;
        record.seen.seen.since = millis(now);
        Ok(())
    }

    fn entry(&mut self, name: &AgentName) -> Result<&mut Entry, Broken> {
        self.entries.get_mut(name).ok_or_else(|| format!("there is no {name}"))
    }

    pub(crate) fn record(&mut self, revision: &RevisionId) -> Result<&mut Record, Broken> {
        let records = &mut self.entry(&revision.agent)?.revisions;
        records.iter_mut().find(|r| r.seen.number == revision.number).ok_or_else(|| format!("there is no {revision}"))
    }

    /// Returns the record for an action, which must not touch a busy revision.
    fn idle_record(&mut self, revision: &RevisionId) -> Result<&mut Record, Broken> {
        let record = self.record(revision)?;
        ensure(record.work.is_none(), || format!("{revision} is touched while it is busy"))?;
        Ok(record)
    }

    /// Formats all agents with their revisions, one a line.
    pub(crate) fn show(&self) -> String {
        let mut text = String::new();
        for (name, entry) in &self.entries {
            let mut parts: Vec<String> = entry.revisions.iter().map(|record| self.show_record(record)).collect();
            let marks = [(entry.paused, "paused"), (entry.retired.is_some(), "leaving")];
            parts.extend(marks.iter().filter(|(is, _)| *is).map(|(_, mark)| (*mark).to_owned()));
            if entry.waiting > 0 {
                parts.push(format!("{} waiting", entry.waiting));
            }
            _ = writeln!(text, "{name}: {}", parts.join(", "));
        }
        if text.is_empty() { "no agents\n".to_owned() } else { text }
    }

    fn show_record(&self, record: &Record) -> String {
        let Revision { number, digest, seen: ObservedRevision { state, in_flight, .. }, .. } = &record.seen;
        let mut text = format!("@{number} {} {state}", self.name_of(*digest));
        if record.work.is_some() {
            text.push_str(" (busy)");
        }
        if *in_flight > 0 {
            _ = write!(text, " ({in_flight} in flight)");
        }
        text
    }
}

impl Entry {
    fn new(spec: &Arc<AgentSpec>, next_number: u64) -> Self {
        Self {
            applied: Arc::clone(spec),
            paused: false,
            retired: None,
            revisions: Vec::new(),
            next_number,
            current: None,
            waiting: 0,
            ran: false,
        }
    }

    pub(crate) fn running(&self) -> Option<&Record> {
        self.revisions.iter().find(|record| record.seen.seen.state == RevisionState::Running)
    }
}
