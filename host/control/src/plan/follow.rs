//! The plan for one agent, apart from the steps of its rollout.

use std::sync::Arc;

use super::{Action, ActualAgent, Component, Plan, Revision, Wanted};
use crate::lifecycle::State;
use crate::names::{AgentName, RevisionId};
use crate::rollout::{self, Declared, Ledger, Next, Obstacle};

impl Plan {
    pub(super) fn create(&mut self, wanted: &Wanted) {
        let agent = &wanted.spec.name;
        match &wanted.component {
            Component::Found(digest) => {
                self.act(Action::Create { agent: agent.clone(), digest: *digest, spec: Arc::clone(&wanted.spec) });
            }
            Component::Unusable(why) => self.obstruct(agent, Obstacle::Missing, why),
        }
    }

    /// Takes up an agent's declaration: as a whole, or not at all while its component is missing.
    pub(super) fn follow(&mut self, wanted: &Wanted, agent: &ActualAgent, ledger: &mut Ledger, now: u64) {
        let name = &wanted.spec.name;
        let differs = !Arc::ptr_eq(&agent.applied, &wanted.spec) && agent.applied != wanted.spec;
        // In-place settings are written for the revision that they are declared with, so they wait for it.
        if differs && (wanted.is_there() || agent.applied.same_revision(&wanted.spec)) {
            self.act(Action::Configure { agent: name.clone(), spec: Arc::clone(&wanted.spec) });
        }
        let running = agent.revisions.iter().find(|r| r.seen.state == State::Running);
        // Without a current revision in the ledger, a running one is the result of an earlier plan: it is recorded
        // first.
        let Some(current) = ledger.current().map(|side| side.number) else {
            let Some(running) = running else { return self.first(wanted, agent) };
            ledger.runs(running.side());
            return self.follow(wanted, agent, ledger, now);
        };
        if ledger.open().is_none() {
            let as_declared = |running: &Revision| running.number == current && is_as_declared(running, wanted);
            let next =
                if running.is_some_and(as_declared) { Next::Rest } else { self.change(wanted, agent, ledger, now) };
            if ledger.open().is_none() {
                self.stand(wanted, agent, ledger, next == Next::Create, now);
            }
        } else {
            self.change(wanted, agent, ledger, now);
        }
        if let Component::Unusable(why) = &wanted.component {
            let whole = agent.applied.same_revision(&wanted.spec);
            let rest = if whole { "" } else { "; until then nothing of the agent's declaration is taken up" };
            self.obstruct(name, Obstacle::Missing, format!("{why}{rest}"));
        }
    }

    /// Begins or changes a rollout if the declared revision differs from the running one.
    fn change(&mut self, wanted: &Wanted, agent: &ActualAgent, ledger: &mut Ledger, now: u64) -> Next {
        let settings = wanted.spec.revision_settings().to_owned();
        // An unreadable component is assumed to be unchanged if the settings are those of the running or coming
        // revision. With other settings the meant revision is unknown.
        let on_its_way = |rollout: &&rollout::Rollout| rollout.has_moved() || rollout.to.settings == settings;
        let known = ledger.open().filter(on_its_way).map(|rollout| &rollout.to);
        let digest = match (&wanted.component, known.or(ledger.current())) {
            (Component::Found(digest), _) => *digest,
            (Component::Unusable(_), Some(side)) if side.settings == settings => side.digest,
            (Component::Unusable(_), _) => return Next::Rest,
        };
        let (deploy, reload) = wanted.spec.rollout.settings(wanted.spec.reload.drain);
        let declared = Declared { digest, settings, deploy, reload };
        // A revision that was created for this declaration and that no rollout has used yet.
        let fresh = agent.revisions.last().filter(|newest| {
            let known = ledger.ran.iter().any(|side| side.number == newest.number)
                || ledger.rollouts.iter().any(|r| r.to.number == newest.number || r.from.number == newest.number);
            let side = newest.side();
            !known
                && newest.seen.state == State::Unloaded
                && (side.digest, &side.settings) == (declared.digest, &declared.settings)
        });
        let stateful = |number: u64| agent.revision(number).is_some_and(|revision| revision.seen.stateful);
        let instances = agent.instances(ledger);
        let next = ledger.follow(&declared, fresh.map(|fresh| fresh.number), "reconcile", instances, &stateful, now);
        match &next {
            Next::Rest => {}
            Next::Wait(why) => self.wait(&wanted.spec.name, why),
            Next::Refuse(obstacle, why) => self.obstruct(&wanted.spec.name, *obstacle, why),
            Next::Create => {
                self.create(&Wanted { spec: Arc::clone(&wanted.spec), component: Component::Found(digest) });
            }
        }
        next
    }

    /// Brings up an agent's first revision.
    fn first(&mut self, wanted: &Wanted, agent: &ActualAgent) {
        let name = &wanted.spec.name;
        let Some(newest) = agent.revisions.last() else { return self.create(wanted) };
        let as_declared = is_as_declared(newest, wanted) && newest.seen.state != State::Stopped;
        // The revision declared before serves until the present declaration can be taken up.
        if as_declared || (!wanted.is_there() && !newest.seen.state.is_terminal()) {
            self.bring_up(name, newest, wanted);
        }
        if let Component::Unusable(why) = &wanted.component {
            return self.obstruct(name, Obstacle::Missing, why);
        }
        if as_declared {
            return;
        }
        match newest.seen.state {
            State::Unloaded | State::Loaded | State::Ready if newest.seen.busy => {
                self.wait(name, format!("{} is superseded; it ends when its present step does", newest.id(name)));
            }
            State::Unloaded | State::Loaded | State::Ready => {
                self.act(Action::Roll(rollout::Action::Stop { revision: newest.id(name) }));
            }
            State::Running | State::Draining | State::Stopped | State::Failed { .. } => {
                self.create(wanted);
            }
        }
    }

    /// Plans the next step of bringing up a revision while no other runs.
    fn bring_up(&mut self, name: &AgentName, revision: &Revision, wanted: &Wanted) {
        let id = revision.id(name);
        match &revision.seen.state {
            State::Unloaded if !revision.seen.busy => {
                let instances = wanted.spec.instances.min;
                self.act(Action::Roll(rollout::Action::Prepare { revision: id, instances }));
            }
            State::Unloaded => self.wait(name, format!("{id} is being validated and compiled")),
            State::Loaded => self.wait(name, format!("{id} is starting its instances")),
            State::Ready | State::Draining => self.act(Action::Switch { revision: id }),
            State::Failed { reason } => self.obstruct(name, Obstacle::Failed, format!("{id} failed: {reason}")),
            State::Running | State::Stopped => {}
        }
    }

    /// Keeps the current revision running while no rollout is in progress; if it failed for good, returns to the one
    /// before it. `changes` tells that a new revision is about to replace it, which makes the return needless.
    pub(super) fn stand(&mut self, wanted: &Wanted, agent: &ActualAgent, ledger: &mut Ledger, changes: bool, now: u64) {
        let name = &wanted.spec.name;
        let Some(number) = ledger.current().map(|side| side.number) else { return };
        let Some(current) = agent.revision(number).filter(|current| current.seen.state != State::Stopped) else {
            let revision = RevisionId { agent: name.clone(), number };
            return self.act(Action::Roll(rollout::Action::Revive { revision }));
        };
        if let State::Failed { reason } = &current.seen.state {
            let (deploy, _) = wanted.spec.rollout.settings(wanted.spec.reload.drain);
            let (instances, stateful) = (agent.instances(ledger), current.seen.stateful);
            if changes || ledger.recover(reason, &deploy, instances, stateful, now) {
                return;
            }
        }
        self.bring_up(name, current, wanted);
    }
}

/// Returns `true` if a revision matches the declaration. An unreadable component is assumed to be unchanged.
fn is_as_declared(revision: &Revision, wanted: &Wanted) -> bool {
    // Comparing settings is expensive, and usually both are the same allocation.
    let settings = Arc::ptr_eq(&revision.spec, &wanted.spec) || revision.spec.same_settings(&wanted.spec);
    settings
        && match &wanted.component {
            Component::Found(digest) => revision.digest == *digest,
            Component::Unusable(_) => true,
        }
}
