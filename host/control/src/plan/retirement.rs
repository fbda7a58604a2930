//! The removal of an agent that is no longer declared: it drains, and until it is gone the removal can be taken back.

use std::time::Duration;

use super::{Action, ActualAgent, Plan, Revision};
use crate::lifecycle::RevisionState;
use crate::names::AgentName;
use crate::rollout;

impl Plan {
    /// Plans the next step of removing an agent.
    pub(super) fn retire(&mut self, name: &AgentName, agent: &ActualAgent, now: u64) {
        let Some(since) = agent.retired else {
            self.actions.push(Action::Retire { agent: name.clone() });
            return;
        };
        // The settings in force: the declaration that would have others is gone.
        let drain = agent.applied.reload.drain;
        let mut open = false;
        for revision in agent.revisions.iter().filter(|r| !r.seen.state.is_terminal()) {
            open = true;
            self.drain(name, revision, agent.has_messages, drain, now);
        }
        if open {
            return;
        }
        // Messages that no revision can handle also stay for the drain time, since the agent may be declared again.
        let left = drain.saturating_sub(Duration::from_millis(now.saturating_sub(since)));
        if agent.has_messages && !left.is_zero() {
            self.recheck_in(name, left);
            self.wait(name, "it is not declared any more, and messages wait in its mailbox");
        } else {
            self.actions.push(Action::Forget { agent: name.clone() });
        }
    }

    /// Plans the return of a retired agent that is declared again: its remaining revisions serve at once, and then the
    /// declaration is followed.
    pub(super) fn restore(&mut self, name: &AgentName, agent: &ActualAgent) {
        // A busy revision is stopping and may be saving its snapshot; the agent is restored afterwards, and starts from
        // that.
        let ends = |revision: &&Revision| match revision.seen.state {
            RevisionState::Ready | RevisionState::Running | RevisionState::Draining => revision.seen.busy,
            // A revision that is only being prepared has nothing to save and can go on.
            RevisionState::Unloaded | RevisionState::Loaded | RevisionState::Stopped | RevisionState::Failed { .. } => {
                false
            }
        };
        match agent.revisions.iter().find(ends) {
            Some(revision) => self.wait(name, format!("{} is stopping", revision.id(name))),
            None => self.actions.push(Action::Restore { agent: name.clone() }),
        }
    }

    /// Stops a revision of a leaving agent once nothing is in flight or its drain time is over.
    fn drain(&mut self, name: &AgentName, old: &Revision, waits: bool, limit: Duration, now: u64) {
        let revision = old.id(name);
        let left = limit.saturating_sub(Duration::from_millis(now.saturating_sub(old.seen.since)));
        if old.seen.busy {
            self.wait(name, format!("{revision} is stopping"));
        } else if (old.seen.in_flight == 0 && !waits) || left.is_zero() {
            self.actions.push(Action::Roll(rollout::RolloutAction::Stop { revision }));
        } else {
            self.recheck_in(name, left);
            self.wait(
                name,
                match old.seen.in_flight {
                    0 => format!("{revision} drains: messages wait"),
                    in_flight => format!("{revision} drains: {in_flight} in flight"),
                },
            );
        }
    }
}
