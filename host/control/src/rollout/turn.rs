//! How many rollouts a host carries out at a time (SPEC §3).

use crate::names::AgentName;

use super::{Rollout, Status};

/// So many at a time (SPEC §3).
pub const AT_A_TIME: usize = 5;

/// Whether a rollout may be carried out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It may.
    Goes,
    /// It waits for one of these to end.
    Waits {
        /// Those that are carried out.
        behind: Vec<AgentName>,
    },
}

impl Turn {
    /// What it waits for, for a person to read; none if it may go.
    pub fn waits(&self) -> Option<String> {
        match self {
            Self::Goes => None,
            Self::Waits { behind } => {
                let names: Vec<&str> = behind.iter().map(AgentName::as_str).collect();
                Some(format!("it waits for its turn: {AT_A_TIME} rollouts are under way, of {}", names.join(", ")))
            }
        }
    }
}

/// Which of a host's rollouts may be carried out, in the order in which they were asked for.
///
/// One that waits for a person, or only for the end of its old revision, keeps nobody from his turn: a canary that
/// is paused overnight would block the host. It goes on at once when it is resumed, and goes
/// back at once when it has to, also as a sixth.
pub fn turns<'a>(rollouts: impl IntoIterator<Item = &'a Rollout>) -> Vec<(AgentName, Turn)> {
    let mut rollouts: Vec<&Rollout> = rollouts.into_iter().filter(|rollout| !rollout.status.is_terminal()).collect();
    rollouts.sort_by(|one, other| (one.began, &one.agent).cmp(&(other.began, &other.agent)));
    let working = |rollout: &&&Rollout| match rollout.status {
        Status::Preparing | Status::Starting | Status::RollingBack { .. } => true,
        Status::InProgress => !rollout.has_moved(),
        Status::Pending | Status::Paused => false,
        Status::Completed | Status::Failed | Status::Cancelled | Status::Superseded | Status::RolledBack => false,
    };
    let mut behind: Vec<AgentName> = rollouts.iter().filter(working).map(|rollout| rollout.agent.clone()).collect();
    let mut turns = Vec::with_capacity(rollouts.len());
    for rollout in rollouts {
        let turn = match rollout.status {
            Status::Pending if behind.len() >= AT_A_TIME => Turn::Waits { behind: behind.clone() },
            Status::Pending => {
                behind.push(rollout.agent.clone());
                Turn::Goes
            }
            _ => Turn::Goes,
        };
        turns.push((rollout.agent.clone(), turn));
    }
    turns
}
