//! What a file would change against what runs, and what of it does not come to run.

use std::sync::Arc;

use caxton_control::plan::Component;
use caxton_control::rollout::{Ledger, Obstacle};
use caxton_control::{AgentName, AgentSpec, Desired, diff};

use super::Reconciler;
use crate::status::Change;

/// Why what is declared of an agent does not run.
enum Standing {
    /// Nothing is under way for it: it is taken up when the file is read.
    Comes,
    /// The host is at it, and what it waits for.
    UnderWay(String),
    /// A person has to mend something.
    Obstructed(Obstacle, String),
}

impl Reconciler {
    /// What a declaration would change, components that changed in their files included. The same is told of what does
    /// not come to run as by the status, the probe and the metrics.
    pub(super) fn changes_with(&mut self, desired: &Desired) -> Vec<Change> {
        let needs_restart = |change: &Change| change.change == diff::Kind::RestartNeeded.as_str();
        // Of the host's own settings those are in force that it was started with, whatever was read since.
        let mut all = changes(&self.started_with, desired);
        all.retain(needs_restart);
        all.extend(changes(&self.as_it_runs(), desired).into_iter().filter(|change| !needs_restart(change)));
        let mut changes = all;
        self.files.begin(true);
        for (name, spec) in &desired.agents {
            let path = self.declared.dir.join(&spec.component);
            let found = self.files.look(&path, &spec.component);
            self.tell_content(name, spec, &found, &mut changes);
        }
        changes
    }

    /// The declaration with what its agents run with.
    fn as_it_runs(&self) -> Desired {
        let mut desired = self.declared.desired.clone();
        for (name, spec) in &mut desired.agents {
            let Some(entry) = self.entries.get(name) else { continue };
            let Some(running) = entry.agent.current() else { continue };
            let applied = entry.agent.spec();
            *spec = if applied.same_settings(&running.spec) {
                applied
            } else {
                let AgentSpec { config, allow, limits, .. } = (*running.spec).clone();
                Arc::new(AgentSpec { config, allow, limits, ..(*applied).clone() })
            };
        }
        desired
    }

    /// Adds to the changes what comes of an agent's bytes and settings.
    fn tell_content(&self, name: &AgentName, spec: &Arc<AgentSpec>, found: &Component, changes: &mut Vec<Change>) {
        let running = self.entries.get(name).and_then(|entry| entry.agent.current());
        let mut details = Vec::new();
        if let (Some(running), Component::Found(digest)) = (&running, found)
            && running.digest != *digest
        {
            details.push(format!("component: {} -> {}", running.digest.short(), digest.short()));
        }
        let same_settings = running.as_ref().is_some_and(|running| running.spec.same_settings(spec));
        let same = same_settings && details.is_empty();
        let known = changes.iter().position(|change| change.agent.as_deref() == Some(name.as_str()));
        let kind = match self.standing_of(name, spec, found, same) {
            Standing::Obstructed(obstacle, why) => {
                details.push(why);
                obstacle.as_str()
            }
            // Another path to the same bytes is none.
            _ if same => match known {
                Some(at) if changes[at].change == diff::Kind::NewRevision.as_str() => diff::Kind::InPlace.as_str(),
                Some(_) | None => return,
            },
            Standing::UnderWay(why) => {
                details.push(why);
                "under-way"
            }
            Standing::Comes if running.is_none() && known.is_some() => return,
            Standing::Comes => diff::Kind::NewRevision.as_str(),
        };
        let at = known.unwrap_or_else(|| {
            changes.push(Change { agent: Some(name.to_string()), change: String::new(), details: Vec::new() });
            changes.len() - 1
        });
        kind.clone_into(&mut changes[at].change);
        changes[at].details.extend(details);
    }

    fn standing_of(&self, name: &AgentName, spec: &Arc<AgentSpec>, found: &Component, same: bool) -> Standing {
        let is_read = self.wanted.get(name).is_some_and(|known| known.spec == *spec && known.component == *found);
        if is_read {
            let waiting = self.standing.waiting().get(name).map_or(&[][..], Vec::as_slice);
            let whys = waiting.iter().map(|waiting| waiting.why.as_str()).collect::<Vec<_>>().join("; ");
            return match self.standing.obstacle(name) {
                Some(obstacle) => Standing::Obstructed(obstacle, whys),
                None if same => Standing::Comes,
                None if self.standing.queued().contains(name) => Standing::UnderWay(self.turns().waits()),
                None => Standing::UnderWay(whys),
            };
        }
        match (found, self.ledgers.get(name)) {
            (Component::Unusable(why), _) => Standing::Obstructed(Obstacle::Missing, why.clone()),
            (Component::Found(digest), Some(ledger)) if !same => refused(ledger, *digest, spec),
            (Component::Found(_), _) => Standing::Comes,
        }
    }
}

/// What the ledger says of bytes with settings that do not run.
fn refused(ledger: &Ledger, digest: caxton_control::Digest, spec: &AgentSpec) -> Standing {
    match ledger.refused(digest, spec.revision_settings()) {
        Some(declined) => Standing::Obstructed(ledger.obstacle_of(declined), ledger.told(declined)),
        None => Standing::Comes,
    }
}

/// What differs between two declarations, in the shape that is told.
pub(super) fn changes(old: &Desired, new: &Desired) -> Vec<Change> {
    diff::diff(old, new)
        .into_iter()
        .map(|difference| Change {
            agent: difference.agent,
            change: difference.kind.as_str().to_owned(),
            details: difference.details,
        })
        .collect()
}
