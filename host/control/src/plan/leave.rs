//! An agent that is not declared any more: it drains, and until it is gone its removal can be taken back.

use std::time::Duration;

use super::{Action, ActualAgent, Plan, Revision};
use crate::lifecycle::State;
use crate::names::AgentName;
use crate::rollout;

impl Plan {
    /// Takes an agent that is not declared one step towards its end.
    pub(super) fn leave(&mut self, name: &AgentName, agent: &ActualAgent, now: u64) {
        let Some(since) = agent.retired else {
            self.actions.push(Action::Retire { agent: name.clone() });
            return;
        };
        let drain = agent.applied.reload.drain;
        let mut open = false;
        for revision in agent.revisions.iter().filter(|r| !r.seen.state.is_terminal()) {
            open = true;
            self.drain(name, revision, agent.waits, drain, now);
        }
        if open {
            return;
        }
        // Also what no revision can handle stays until then: the agent may be declared again.
        let left = drain.saturating_sub(Duration::from_millis(now.saturating_sub(since)));
        if agent.waits && !left.is_zero() {
            self.look_again(name, left);
            self.wait(name, "it is not declared any more, and messages wait in its mailbox");
        } else {
            self.actions.push(Action::Forget { agent: name.clone() });
        }
    }

    /// Lets an agent stay that was to leave and is declared again: what is still there of it serves at once, and then is
    /// followed.
    pub(super) fn stay(&mut self, name: &AgentName, agent: &ActualAgent) {
        // One that stands and is busy may be saving its memory, from which it is brought up anew.
        let ends = |revision: &&Revision| match revision.seen.state {
            State::Ready | State::Running | State::Draining => revision.seen.busy,
            State::Unloaded | State::Loaded | State::Stopped | State::Failed { .. } => false,
        };
        match agent.revisions.iter().find(ends) {
            Some(revision) => self.wait(name, format!("{} is stopping", revision.id(name))),
            None => self.actions.push(Action::Restore { agent: name.clone() }),
        }
    }

    /// Ends a revision of an agent that leaves, once it is at rest or its time is over.
    fn drain(&mut self, name: &AgentName, old: &Revision, waits: bool, limit: Duration, now: u64) {
        let revision = old.id(name);
        let left = limit.saturating_sub(Duration::from_millis(now.saturating_sub(old.seen.since)));
        if old.seen.busy {
            self.wait(name, format!("{revision} is stopping"));
        } else if (old.seen.in_flight == 0 && !waits) || left.is_zero() {
            self.actions.push(Action::Roll(rollout::Action::Stop { revision }));
        } else {
            self.look_again(name, left);
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
