//! The difference between a declaration and what runs.

use std::sync::Arc;

use caxton_control::plan::ComponentFile;
use caxton_control::rollout::{Ledger, Obstacle};
use caxton_control::{AgentName, AgentSpec, Desired, Digest, diff};

use super::reconciler::Reconciler;
use crate::api_types::PlannedChange;

/// The state of a declared agent that does not run as declared.
enum DeclaredState {
    /// The change begins when the declaration is applied.
    Pending,
    /// The host is making the change; what it waits for.
    UnderWay(String),
    /// A person has to fix something first; the reason.
    Obstructed(Obstacle, String),
}

impl Reconciler {
    /// Returns the changes that a declaration would make, including those of components in their files. Obstacles are
    /// the same as in the status, the probe and the metrics.
    pub(super) fn changes_with(&mut self, desired: &Desired) -> Vec<PlannedChange> {
        let needs_restart = |change: &PlannedChange| change.change == diff::ChangeKind::RestartNeeded.as_str();
        // The settings of the host itself are compared with those of its start, which are in force until a restart.
        let mut all: Vec<PlannedChange> = diff::host(&self.started_with, desired).into_iter().map(planned).collect();
        all.retain(needs_restart);
        all.extend(declared_changes(&self.as_it_runs(), desired).into_iter().filter(|change| !needs_restart(change)));
        let mut changes = all;
        // An operator asks, so that files count in the state that they have now.
        self.files.begin(true);
        for (name, spec) in &desired.agents {
            let path = self.declared.dir.join(&spec.component);
            let found = self.files.component_at(&path, &spec.component);
            self.add_content_change(name, spec, &found, &mut changes);
        }
        changes
    }

    /// Returns the declaration with the settings that its agents run with.
    fn as_it_runs(&self) -> Desired {
        let mut desired = self.declared.desired.clone();
        for (name, spec) in &mut desired.agents {
            let Some(managed) = self.managed.get(name) else { continue };
            let Some(running) = managed.agent.current() else { continue };
            let applied = managed.agent.spec();
            // Settings that apply in place are those of the agent; the others are those that the running revision was
            // made with.
            *spec = if applied.same_settings(&running.spec) {
                applied
            } else {
                let AgentSpec { config, allow, limits, .. } = (*running.spec).clone();
                Arc::new(AgentSpec { config, allow, limits, ..(*applied).clone() })
            };
        }
        desired
    }

    /// Adds the change that follows from an agent's component and settings, if there is one.
    fn add_content_change(
        &self,
        name: &AgentName,
        spec: &Arc<AgentSpec>,
        found: &ComponentFile,
        changes: &mut Vec<PlannedChange>,
    ) {
        let running = self.managed.get(name).and_then(|managed| managed.agent.current());
        let mut details = Vec::new();
        if let (Some(running), ComponentFile::Found(digest)) = (&running, found)
            && running.digest != *digest
        {
            details.push(format!("component: {} -> {}", running.digest.short(), digest.short()));
        }
        let same_settings = running.as_ref().is_some_and(|running| running.spec.same_settings(spec));
        let same = same_settings && details.is_empty();
        let known = changes.iter().position(|change| change.agent.as_deref() == Some(name.as_str()));
        let kind = match self.declared_state(name, spec, found, same) {
            DeclaredState::Obstructed(obstacle, why) => {
                details.push(why);
                obstacle.as_str()
            }
            // Another path to the same bytes needs no new revision.
            _ if same => match known {
                Some(at) if changes[at].change == diff::ChangeKind::NewRevision.as_str() => {
                    diff::ChangeKind::InPlace.as_str()
                }
                Some(_) | None => return,
            },
            DeclaredState::UnderWay(why) => {
                details.push(why);
                "under-way"
            }
            DeclaredState::Pending if running.is_none() && known.is_some() => return,
            DeclaredState::Pending => diff::ChangeKind::NewRevision.as_str(),
        };
        let at = known.unwrap_or_else(|| {
            changes.push(PlannedChange { agent: Some(name.to_string()), change: String::new(), details: Vec::new() });
            changes.len() - 1
        });
        kind.clone_into(&mut changes[at].change);
        changes[at].details.extend(details);
    }

    fn declared_state(
        &self,
        name: &AgentName,
        spec: &Arc<AgentSpec>,
        found: &ComponentFile,
        same: bool,
    ) -> DeclaredState {
        // An applied declaration has a plan, which knows the reasons.
        let is_read = self.wanted.get(name).is_some_and(|known| known.spec == *spec && known.component == *found);
        if is_read {
            let waiting = self.plans.waiting().get(name).map_or(&[][..], Vec::as_slice);
            let whys = waiting.iter().map(|waiting| waiting.why.as_str()).collect::<Vec<_>>().join("; ");
            return match self.plans.obstacle(name) {
                Some(obstacle) => DeclaredState::Obstructed(obstacle, whys),
                None if same => DeclaredState::Pending,
                None if self.plans.queued().contains(name) => DeclaredState::UnderWay(self.rollout_queue().waits()),
                None => DeclaredState::UnderWay(whys),
            };
        }
        match (found, self.ledgers.get(name)) {
            (ComponentFile::Unusable(why), _) => DeclaredState::Obstructed(Obstacle::Missing, why.clone()),
            (ComponentFile::Found(digest), Some(ledger)) if !same => refused(ledger, *digest, spec),
            (ComponentFile::Found(_), _) => DeclaredState::Pending,
        }
    }
}

/// Returns the state that the ledger gives to a component with these settings.
fn refused(ledger: &Ledger, digest: Digest, spec: &AgentSpec) -> DeclaredState {
    match ledger.find_refusal(digest, spec.revision_settings()) {
        Some(declined) => DeclaredState::Obstructed(ledger.obstacle_of(declined), ledger.refusal_text(declined)),
        None => DeclaredState::Pending,
    }
}

/// Returns the differences between two declarations, as the API returns them.
fn declared_changes(old: &Desired, new: &Desired) -> Vec<PlannedChange> {
    diff::diff(old, new).into_iter().map(planned).collect()
}

fn planned(difference: diff::DeclarationChange) -> PlannedChange {
    PlannedChange { agent: difference.agent, change: difference.kind.as_str().to_owned(), details: difference.details }
}
