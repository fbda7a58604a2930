//! Which strategies an agent that keeps state in its memory can have.

use super::strategy::{CanaryStep, Deploy, Reload, Strategy};

/// Why a strategy cannot be used for an agent, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotHold {
    /// Two revisions would each have a part of what the agent remembers.
    #[error(
        "{strategy} sends messages to two revisions at once, and this agent keeps its state in memory, of which there is one; \
         use {instead}, or keep the state in `state` and do not export `snapshot`"
    )]
    Split {
        /// The strategy.
        strategy: &'static str,
        /// One that holds.
        instead: &'static str,
    },
    /// A copy of a message would need the memory as it was before the message.
    #[error(
        "parallel needs the state that each message found, and this agent keeps its state in memory, where it is overwritten; \
         use `strategy = \"graceful\"` with `rehearse = 100`, which tries the last messages on a copy of the memory"
    )]
    Shadow,
}

/// Whether a strategy holds for an agent that keeps state in its memory (it exports `snapshot`). Asked by the
/// check of a file, where the component is there, and again once the component is loaded.
///
/// # Errors
/// Why it does not, with the way out.
pub fn can_hold(strategy: &Strategy, stateful: bool) -> Result<(), CannotHold> {
    if !stateful {
        return Ok(());
    }
    let part = |percent: u8| percent < 100;
    match strategy {
        Strategy::Deploy(Deploy::Canary { steps })
            if steps.iter().any(|step| matches!(step, CanaryStep::Weight { percent, .. } if part(*percent))) =>
        {
            Err(CannotHold::Split { strategy: "canary", instead: "`strategy = \"blue-green\"`" })
        }
        Strategy::Reload(Reload::TrafficSplitting { steps, .. }) if steps.iter().any(|percent| part(*percent)) => {
            Err(CannotHold::Split { strategy: "traffic-splitting", instead: "`strategy = \"graceful\"`" })
        }
        Strategy::Reload(Reload::Parallel { .. }) => Err(CannotHold::Shadow),
        Strategy::Deploy(_) | Strategy::Reload(_) | Strategy::Undo => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn memory_is_not_split() {
        let half = |percent| Deploy::Canary {
            steps: vec![CanaryStep::Weight { percent, hold: Duration::ZERO }, CanaryStep::Pause],
        };
        let all = |steps: Vec<u8>| Reload::TrafficSplitting { steps, every: Duration::from_secs(1) };
        for (strategy, holds) in [
            (Strategy::Deploy(Deploy::Immediate), true),
            (Strategy::Deploy(Deploy::default()), true),
            (Strategy::Deploy(Deploy::blue_green()), true),
            (Strategy::Deploy(Deploy::canary()), false),
            (Strategy::Deploy(half(50)), false),
            (Strategy::Deploy(half(100)), true),
            (Strategy::Reload(Reload::Graceful), true),
            (Strategy::Reload(Reload::Immediate), true),
            (Strategy::Reload(Reload::parallel()), false),
            (Strategy::Reload(Reload::traffic_splitting()), false),
            (Strategy::Reload(all(vec![100])), true),
            (Strategy::Undo, true),
        ] {
            assert_eq!(can_hold(&strategy, true).is_ok(), holds, "{strategy:?}");
            assert_eq!(can_hold(&strategy, false), Ok(()), "{strategy:?}");
        }
    }

    #[test]
    fn the_way_out_is_told() {
        let told = |strategy| can_hold(&strategy, true).unwrap_err().to_string();
        assert_eq!(
            told(Strategy::Deploy(Deploy::canary())),
            "canary sends messages to two revisions at once, and this agent keeps its state in memory, of which there is \
             one; use `strategy = \"blue-green\"`, or keep the state in `state` and do not export `snapshot`"
        );
        assert!(told(Strategy::Reload(Reload::parallel())).contains("with `rehearse = 100`"));
    }
}
