//! The end of revisions that take part in no rollout.

use std::time::Duration;

use super::action::{Decision, RolloutAction};
use super::observation::ObservedRevision;
use crate::lifecycle::RevisionState;
use crate::names::{AgentName, RevisionId};
use crate::units::print_duration;

/// Ends the revisions of an agent other than `held`: the running one and those in a rollout. Draining ones end once
/// idle or after `drain`, all others now. With no rollout in progress (`free`), also resumes the mailbox.
pub fn collect_garbage(
    agent: &AgentName,
    revisions: &[(u64, ObservedRevision)],
    in_use: &[u64],
    paused: bool,
    free: bool,
    drain: Duration,
    now: u64,
) -> Decision {
    let mut decision = Decision::default();
    let mut waits = Vec::new();
    // A rollout that ended while it held the mailbox cannot ask for this any more.
    if free && paused {
        decision.request(RolloutAction::Resume { agent: agent.clone() });
    }
    for (number, seen) in revisions.iter().filter(|(number, _)| !in_use.contains(number)) {
        let revision = RevisionId { agent: agent.clone(), number: *number };
        let left = drain.saturating_sub(Duration::from_millis(now.saturating_sub(seen.since)));
        match seen.state {
            RevisionState::Running | RevisionState::Stopped | RevisionState::Failed { .. } => {}
            // Stopping it in the middle of its work would need a way back for each kind of work.
            _ if seen.busy => waits.push(format!("{revision} ends when its present step does")),
            RevisionState::Draining if seen.in_flight > 0 && !left.is_zero() => {
                decision.recheck_in(left);
                let (count, left) = (seen.in_flight, print_duration(left));
                waits.push(format!("{revision} drains: {count} in flight, for {left} more at most"));
            }
            RevisionState::Unloaded | RevisionState::Loaded | RevisionState::Ready | RevisionState::Draining => {
                decision.request(RolloutAction::Stop { revision });
            }
        }
    }
    decision.waits = (!waits.is_empty()).then(|| waits.join("; "));
    decision
}
