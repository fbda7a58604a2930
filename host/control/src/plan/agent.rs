//! The plan for one agent, apart from the steps of its rollout.

use std::sync::Arc;

use super::{Action, ActualAgent, ComponentFile, DesiredAgent, Plan, Revision};
use crate::lifecycle::RevisionState;
use crate::names::{AgentName, RevisionId};
use crate::rollout::{self, DeclarationOutcome, DeclaredRevision, Ledger, Obstacle};

impl Plan {
    pub(super) fn create(&mut self, wanted: &DesiredAgent) {
        let agent = &wanted.spec.name;
        match &wanted.component {
            ComponentFile::Found(digest) => {
                self.act(Action::Create { agent: agent.clone(), digest: *digest, spec: Arc::clone(&wanted.spec) });
            }
            ComponentFile::Unusable(why) => self.obstruct(agent, Obstacle::Missing, why),
        }
    }

    /// Takes up an agent's declaration: as a whole, or not at all while its component is missing.
    pub(super) fn follow(&mut self, wanted: &DesiredAgent, agent: &ActualAgent, ledger: &mut Ledger, now: u64) {
        let name = &wanted.spec.name;
        // An unchanged declaration is mostly the same allocation, and comparing the settings is expensive.
        let differs = !Arc::ptr_eq(&agent.applied, &wanted.spec) && agent.applied != wanted.spec;
        // In-place settings are written for the revision that they are declared with, so they wait for it.
        if differs && (wanted.is_loadable() || agent.applied.same_revision(&wanted.spec)) {
            self.act(Action::Configure { agent: name.clone(), spec: Arc::clone(&wanted.spec) });
        }
        let running = agent.revisions.iter().find(|r| r.seen.state == RevisionState::Running);
        // Without a current revision in the ledger, a running one is the result of an earlier plan: it is recorded
        // first.
        let Some(current) = ledger.current().map(|side| side.number) else {
            let Some(running) = running else { return self.start_first_revision(wanted, agent) };
            ledger.record_running(running.side());
            return self.follow(wanted, agent, ledger, now);
        };
        if ledger.open().is_none() {
            let as_declared = |running: &Revision| running.number == current && is_as_declared(running, wanted);
            let next = if running.is_some_and(as_declared) {
                DeclarationOutcome::UpToDate
            } else {
                self.change_revision(wanted, agent, ledger, now)
            };
            // Asked again, as the change may have begun a rollout, which keeps its revisions running itself.
            if ledger.open().is_none() {
                self.keep_running(wanted, agent, ledger, next == DeclarationOutcome::CreateRevision, now);
            }
        } else {
            self.change_revision(wanted, agent, ledger, now);
        }
        if let ComponentFile::Unusable(why) = &wanted.component {
            let whole = agent.applied.same_revision(&wanted.spec);
            let rest = if whole { "" } else { "; until then nothing of the agent's declaration is taken up" };
            self.obstruct(name, Obstacle::Missing, format!("{why}{rest}"));
        }
    }

    /// Begins or changes a rollout if the declared revision differs from the running one.
    fn change_revision(
        &mut self,
        wanted: &DesiredAgent,
        agent: &ActualAgent,
        ledger: &mut Ledger,
        now: u64,
    ) -> DeclarationOutcome {
        let settings = wanted.spec.revision_settings().to_owned();
        // An unreadable component is assumed to be unchanged if the settings are those of the running or coming
        // revision. With other settings the meant revision is unknown.
        let on_its_way = |rollout: &&rollout::Rollout| rollout.has_moved() || rollout.to.settings == settings;
        let known = ledger.open().filter(on_its_way).map(|rollout| &rollout.to);
        let digest = match (&wanted.component, known.or(ledger.current())) {
            (ComponentFile::Found(digest), _) => *digest,
            (ComponentFile::Unusable(_), Some(side)) if side.settings == settings => side.digest,
            (ComponentFile::Unusable(_), _) => return DeclarationOutcome::UpToDate,
        };
        // Both, since only the ledger knows if the settings have changed.
        let (deploy, reload) = wanted.spec.rollout.settings(wanted.spec.reload.drain);
        let declared = DeclaredRevision { digest, settings, deploy, reload };
        // A revision that was created for this declaration and that no rollout has used yet.
        let fresh = agent.revisions.last().filter(|newest| {
            let known = ledger.revisions.iter().any(|side| side.number == newest.number)
                || ledger.rollouts.iter().any(|r| r.to.number == newest.number || r.from.number == newest.number);
            let side = newest.side();
            !known
                && newest.seen.state == RevisionState::Unloaded
                && (side.digest, &side.settings) == (declared.digest, &declared.settings)
        });
        let stateful = |number: u64| agent.revision(number).is_some_and(|revision| revision.seen.stateful);
        let instances = agent.instances(ledger);
        let next = ledger.apply_declaration(
            &declared,
            fresh.map(|fresh| fresh.number),
            "reconcile",
            instances,
            &stateful,
            now,
        );
        match &next {
            DeclarationOutcome::UpToDate => {}
            DeclarationOutcome::Wait(why) => self.wait(&wanted.spec.name, why),
            DeclarationOutcome::Refuse(obstacle, why) => self.obstruct(&wanted.spec.name, *obstacle, why),
            DeclarationOutcome::CreateRevision => {
                self.create(&DesiredAgent { spec: Arc::clone(&wanted.spec), component: ComponentFile::Found(digest) });
            }
        }
        next
    }

    /// Brings up an agent's first revision.
    fn start_first_revision(&mut self, wanted: &DesiredAgent, agent: &ActualAgent) {
        let name = &wanted.spec.name;
        let Some(newest) = agent.revisions.last() else { return self.create(wanted) };
        let as_declared = is_as_declared(newest, wanted) && newest.seen.state != RevisionState::Stopped;
        // The revision declared before serves until the present declaration can be taken up.
        if as_declared || (!wanted.is_loadable() && !newest.seen.state.is_terminal()) {
            self.bring_up(name, newest, wanted);
        }
        if let ComponentFile::Unusable(why) = &wanted.component {
            return self.obstruct(name, Obstacle::Missing, why);
        }
        if as_declared {
            return;
        }
        match newest.seen.state {
            RevisionState::Unloaded | RevisionState::Loaded | RevisionState::Ready if newest.seen.busy => {
                self.wait(name, format!("{} is superseded; it ends when its present step does", newest.id(name)));
            }
            RevisionState::Unloaded | RevisionState::Loaded | RevisionState::Ready => {
                self.act(Action::Roll(rollout::RolloutAction::Stop { revision: newest.id(name) }));
            }
            RevisionState::Running
            | RevisionState::Draining
            | RevisionState::Stopped
            | RevisionState::Failed { .. } => {
                self.create(wanted);
            }
        }
    }

    /// Plans the next step of bringing up a revision while no other runs.
    fn bring_up(&mut self, name: &AgentName, revision: &Revision, wanted: &DesiredAgent) {
        let id = revision.id(name);
        match &revision.seen.state {
            RevisionState::Unloaded if !revision.seen.busy => {
                let instances = wanted.spec.instances.min;
                self.act(Action::Roll(rollout::RolloutAction::Prepare { revision: id, instances }));
            }
            RevisionState::Unloaded => self.wait(name, format!("{id} is being validated and compiled")),
            RevisionState::Loaded => self.wait(name, format!("{id} is starting its instances")),
            // A draining revision is still complete and needs only its traffic back.
            RevisionState::Ready | RevisionState::Draining => self.act(Action::Switch { revision: id }),
            RevisionState::Failed { reason } => self.obstruct(name, Obstacle::Failed, format!("{id} failed: {reason}")),
            RevisionState::Running | RevisionState::Stopped => {}
        }
    }

    /// Keeps the current revision running while no rollout is in progress; if it failed for good, returns to the one
    /// before it. `changes` tells that a new revision is about to replace it, which makes the return needless.
    pub(super) fn keep_running(
        &mut self,
        wanted: &DesiredAgent,
        agent: &ActualAgent,
        ledger: &mut Ledger,
        changes: bool,
        now: u64,
    ) {
        let name = &wanted.spec.name;
        let Some(number) = ledger.current().map(|side| side.number) else { return };
        let Some(current) = agent.revision(number).filter(|current| current.seen.state != RevisionState::Stopped)
        else {
            // After a restart the ledger knows the revision, and nothing of it is in memory.
            let revision = RevisionId { agent: name.clone(), number };
            return self.act(Action::Roll(rollout::RolloutAction::Revive { revision }));
        };
        if let RevisionState::Failed { reason } = &current.seen.state {
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
fn is_as_declared(revision: &Revision, wanted: &DesiredAgent) -> bool {
    // Comparing settings is expensive, and usually both are the same allocation.
    let settings = Arc::ptr_eq(&revision.spec, &wanted.spec) || revision.spec.same_settings(&wanted.spec);
    settings
        && match &wanted.component {
            ComponentFile::Found(digest) => revision.digest == *digest,
            ComponentFile::Unusable(_) => true,
        }
}
