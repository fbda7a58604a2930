//! The limit of rollouts that a host carries out at a time (SPEC §3).

use super::record::Rollout;
use super::status::Status;
use crate::names::AgentName;

/// The limit (SPEC §3).
pub const MAX_CONCURRENT_ROLLOUTS: usize = 5;

/// The permission of a rollout to proceed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutPermit {
    /// Lets it proceed.
    Granted,
    /// Makes it wait for one of the others to end.
    Queued {
        /// The agents whose rollouts proceed or come first.
        behind: Vec<AgentName>,
    },
}

impl RolloutPermit {
    /// Returns the reason for waiting, for people to read; `None` if the rollout may proceed.
    pub fn waits(&self) -> Option<String> {
        match self {
            Self::Granted => None,
            Self::Queued { behind } => Some(RolloutQueue { active: behind.clone(), may_begin: Vec::new() }.waits()),
        }
    }
}

/// The rollouts of a host that proceed, and those that may begin.
///
/// A rollout that waits for a person, or only for the end of its old revision, does not count against the limit: a
/// canary that is paused overnight would block the host. It continues at once when resumed, and goes back at once when
/// it has to, even beyond the limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolloutQueue {
    /// Agents whose rollouts proceed or may begin: all others wait for one of these.
    active: Vec<AgentName>,
    /// Agents whose rollouts may begin.
    may_begin: Vec<AgentName>,
}

impl RolloutQueue {
    /// Evaluates all rollouts in progress. O(n), as only the first few candidates are kept sorted.
    pub fn of<'a>(rollouts: impl IntoIterator<Item = &'a Rollout>) -> Self {
        let (mut behind, mut first): (Vec<&Rollout>, Vec<&Rollout>) = (Vec::new(), Vec::new());
        for rollout in rollouts {
            match rollout.status {
                Status::Preparing | Status::Starting | Status::RollingBack { .. } => behind.push(rollout),
                Status::InProgress if !rollout.has_moved() => behind.push(rollout),
                Status::Pending => {
                    let at = first.partition_point(|other| queue_key(other) < queue_key(rollout));
                    // More can never begin, so the rest need not be sorted.
                    if at < MAX_CONCURRENT_ROLLOUTS {
                        first.insert(at, rollout);
                        first.truncate(MAX_CONCURRENT_ROLLOUTS);
                    }
                }
                // These wait for a person or the end of an old revision, and hold no place meanwhile.
                Status::InProgress | Status::Paused => {}
                Status::Completed | Status::Failed | Status::Cancelled | Status::Superseded | Status::RolledBack => {}
            }
        }
        // For the text alone: people should see the same order each time.
        behind.sort_by(|one, other| queue_key(one).cmp(&queue_key(other)));
        // Resumed rollouts may exceed the limit, so there may be no place at all.
        first.truncate(MAX_CONCURRENT_ROLLOUTS.saturating_sub(behind.len()));
        let name = |rollout: &&Rollout| rollout.agent.clone();
        let may_begin: Vec<AgentName> = first.iter().map(name).collect();
        let active = behind.iter().map(name).chain(may_begin.iter().cloned()).collect();
        Self { active, may_begin }
    }

    /// Returns the agents whose rollouts may begin.
    pub fn may_begin(&self) -> &[AgentName] {
        &self.may_begin
    }

    /// Returns the permission of a rollout in progress.
    pub fn permit(&self, rollout: &Rollout) -> RolloutPermit {
        if rollout.status == Status::Pending && !self.may_begin.contains(&rollout.agent) {
            RolloutPermit::Queued { behind: self.active.clone() }
        } else {
            RolloutPermit::Granted
        }
    }

    /// Returns the reason for waiting of rollouts that may not begin, for people to read.
    pub fn waits(&self) -> String {
        let names: Vec<&str> = self.active.iter().map(AgentName::as_str).collect();
        format!("it waits for its turn: {MAX_CONCURRENT_ROLLOUTS} rollouts are under way, of {}", names.join(", "))
    }
}

/// Returns the sort key of rollouts: the time of the request.
pub(crate) fn queue_key(rollout: &Rollout) -> (u64, &AgentName) {
    // Several may begin in one millisecond; the name keeps their order the same each time.
    (rollout.began, &rollout.agent)
}

/// Returns the permissions of a host's rollouts, in the order of their requests: see [`RolloutQueue`].
pub fn permits<'a>(rollouts: impl IntoIterator<Item = &'a Rollout>) -> Vec<(AgentName, RolloutPermit)> {
    let mut rollouts: Vec<&Rollout> = rollouts.into_iter().filter(|rollout| !rollout.status.is_terminal()).collect();
    rollouts.sort_by(|one, other| queue_key(one).cmp(&queue_key(other)));
    let queue = RolloutQueue::of(rollouts.iter().copied());
    rollouts.into_iter().map(|rollout| (rollout.agent.clone(), queue.permit(rollout))).collect()
}
