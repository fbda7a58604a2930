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
            Self::Waits { behind } => Some(Turns { behind: behind.clone(), begin: Vec::new() }.waits()),
        }
    }
}

/// Who is carried out of a host's rollouts, and who may begin.
///
/// One that waits for a person, or only for the end of its old revision, keeps nobody from his turn: a canary that
/// is paused overnight would block the host. It goes on at once when it is resumed, and goes
/// back at once when it has to, also as a sixth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    /// Those that are carried out and those that may begin: whoever else has not begun waits for one of these.
    behind: Vec<AgentName>,
    /// Those that may begin.
    begin: Vec<AgentName>,
}

impl Turns {
    /// Of all rollouts that are open. Looks at each once.
    pub fn of<'a>(rollouts: impl IntoIterator<Item = &'a Rollout>) -> Self {
        let (mut behind, mut first): (Vec<&Rollout>, Vec<&Rollout>) = (Vec::new(), Vec::new());
        for rollout in rollouts {
            match rollout.status {
                Status::Preparing | Status::Starting | Status::RollingBack { .. } => behind.push(rollout),
                Status::InProgress if !rollout.has_moved() => behind.push(rollout),
                Status::Pending => {
                    let at = first.partition_point(|other| asked(other) < asked(rollout));
                    if at < AT_A_TIME {
                        first.insert(at, rollout);
                        first.truncate(AT_A_TIME);
                    }
                }
                Status::InProgress | Status::Paused => {}
                Status::Completed | Status::Failed | Status::Cancelled | Status::Superseded | Status::RolledBack => {}
            }
        }
        behind.sort_by(|one, other| asked(one).cmp(&asked(other)));
        first.truncate(AT_A_TIME.saturating_sub(behind.len()));
        let name = |rollout: &&Rollout| rollout.agent.clone();
        let begin: Vec<AgentName> = first.iter().map(name).collect();
        let behind = behind.iter().map(name).chain(begin.iter().cloned()).collect();
        Self { behind, begin }
    }

    /// Those that have not begun and may.
    pub fn may_begin(&self) -> &[AgentName] {
        &self.begin
    }

    /// Whether a rollout that is open may go on.
    pub fn turn(&self, rollout: &Rollout) -> Turn {
        if rollout.status == Status::Pending && !self.begin.contains(&rollout.agent) {
            Turn::Waits { behind: self.behind.clone() }
        } else {
            Turn::Goes
        }
    }

    /// What those wait for whose turn has not come, for a person to read.
    pub fn waits(&self) -> String {
        let names: Vec<&str> = self.behind.iter().map(AgentName::as_str).collect();
        format!("it waits for its turn: {AT_A_TIME} rollouts are under way, of {}", names.join(", "))
    }
}

/// What rollouts go by in turn: when they were asked for.
pub(crate) fn asked(rollout: &Rollout) -> (u64, &AgentName) {
    (rollout.began, &rollout.agent)
}

/// Which of a host's rollouts may be carried out, in the order in which they were asked for: see [`Turns`].
pub fn turns<'a>(rollouts: impl IntoIterator<Item = &'a Rollout>) -> Vec<(AgentName, Turn)> {
    let mut rollouts: Vec<&Rollout> = rollouts.into_iter().filter(|rollout| !rollout.status.is_terminal()).collect();
    rollouts.sort_by(|one, other| asked(one).cmp(&asked(other)));
    let turns = Turns::of(rollouts.iter().copied());
    rollouts.into_iter().map(|rollout| (rollout.agent.clone(), turns.turn(rollout))).collect()
}
