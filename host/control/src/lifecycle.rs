//! The lifecycle of a revision: one enum, one transition function (SPEC §1).

use std::fmt;

use serde::Serialize;

/// The longest reason kept for a failure, in characters (SPEC §1).
pub const MAX_REASON: usize = 1_000;

/// The state of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum RevisionState {
    /// The revision is declared, with nothing of it in memory.
    Unloaded,
    /// The revision is validated and compiled.
    Loaded,
    /// The minimum of its instances has started, and its probe passes.
    Ready,
    /// Receives messages.
    Running,
    /// Receives no new messages and finishes those in flight.
    Draining,
    /// Has ended as intended. Terminal.
    Stopped,
    /// Has ended by a failure. Terminal.
    Failed {
        /// The reason for people to read: 1 to 1,000 characters.
        reason: String,
    },
}

impl RevisionState {
    /// Creates the failed state with a reason, cut to [`MAX_REASON`] characters.
    pub fn failed(reason: &str) -> Self {
        // Operators see the reason alone, so an empty one would leave them with nothing.
        let reason = if reason.is_empty() { "no reason was given" } else { reason };
        // By characters, as a cut inside one would be no text.
        Self::Failed { reason: reason.chars().take(MAX_REASON).collect() }
    }

    /// Returns `true` if the revision may begin to receive messages.
    pub fn can_start(&self) -> bool {
        matches!(self, Self::Ready)
    }

    /// Returns `true` if the revision may stop receiving messages and finish those in flight.
    pub fn can_drain(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// Returns `true` if the revision may end as intended.
    pub fn can_stop(&self) -> bool {
        matches!(self, Self::Running | Self::Draining | Self::Ready)
    }

    /// Returns `true` if the revision has messages in flight or may receive some.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Running | Self::Draining)
    }

    /// Returns `true` if no state can follow.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed { .. })
    }

    /// Checks the transition to `to` and returns `to`.
    ///
    /// # Errors
    /// The table of SPEC §1 has no such transition.
    pub fn transition(&self, to: Self) -> Result<Self, IllegalTransition> {
        let legal = match (self, &to) {
            // First, since the next arm would let an ended revision fail.
            (Self::Stopped | Self::Failed { .. }, _) => false,
            (_, Self::Failed { .. })
            | (Self::Unloaded, Self::Loaded)
            | (Self::Loaded, Self::Ready | Self::Unloaded)
            | (Self::Ready, Self::Running | Self::Stopped)
            | (Self::Running, Self::Draining | Self::Stopped)
            | (Self::Draining, Self::Running | Self::Stopped) => true,
            // No wildcard: a new state has to be decided on here.
            (Self::Unloaded | Self::Loaded | Self::Ready | Self::Running | Self::Draining, _) => false,
        };
        // The new state is returned and not assigned: the caller stores it before it takes effect.
        if legal { Ok(to) } else { Err(IllegalTransition { from: self.clone(), to }) }
    }
}

impl fmt::Display for RevisionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unloaded => "unloaded",
            Self::Loaded => "loaded",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed { .. } => "failed",
        })
    }
}

/// The error for a transition that SPEC §1 does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a revision cannot go from {from} to {to}")]
pub struct IllegalTransition {
    /// The present state.
    pub from: RevisionState,
    /// The requested state.
    pub to: RevisionState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_transitions_of_the_specification_are_legal() {
        let failed = || RevisionState::failed("x");
        let all = [
            RevisionState::Unloaded,
            RevisionState::Loaded,
            RevisionState::Ready,
            RevisionState::Running,
            RevisionState::Draining,
            RevisionState::Stopped,
            failed(),
        ];
        let legal: [(RevisionState, &[RevisionState]); 7] = [
            (RevisionState::Unloaded, &[RevisionState::Loaded, failed()]),
            (RevisionState::Loaded, &[RevisionState::Ready, failed(), RevisionState::Unloaded]),
            (RevisionState::Ready, &[RevisionState::Running, RevisionState::Stopped, failed()]),
            (RevisionState::Running, &[RevisionState::Draining, RevisionState::Stopped, failed()]),
            (RevisionState::Draining, &[RevisionState::Running, RevisionState::Stopped, failed()]),
            (RevisionState::Stopped, &[]),
            (failed(), &[]),
        ];
        for (from, allowed) in legal {
            for to in &all {
                let went = from.transition(to.clone());
                assert_eq!(went.is_ok(), allowed.contains(to), "{from} to {to}");
                if let Err(error) = went {
                    assert_eq!(error.to_string(), format!("a revision cannot go from {from} to {to}"));
                }
            }
        }
    }

    #[test]
    fn predicates_match_the_specification() {
        // state, can start, can drain, can stop, active, terminal
        for (state, start, drain, stop, active, terminal) in [
            (RevisionState::Unloaded, false, false, false, false, false),
            (RevisionState::Loaded, false, false, false, false, false),
            (RevisionState::Ready, true, false, true, false, false),
            (RevisionState::Running, false, true, true, true, false),
            (RevisionState::Draining, false, false, true, true, false),
            (RevisionState::Stopped, false, false, false, false, true),
            (RevisionState::failed(""), false, false, false, false, true),
        ] {
            let answers =
                (state.can_start(), state.can_drain(), state.can_stop(), state.is_active(), state.is_terminal());
            assert_eq!(answers, (start, drain, stop, active, terminal), "{state}");
        }
    }

    #[test]
    fn reasons_have_a_default_and_a_bound() {
        for (given, length) in [("", 19), ("x", 1), (&"ä".repeat(5_000), MAX_REASON)] {
            let RevisionState::Failed { reason } = RevisionState::failed(given) else { panic!("failed is failed") };
            assert_eq!(reason.chars().count(), length);
        }
    }
}
