//! Strategies that cannot hold for an agent: for its memory, of which there is one, or for the formats of its data.

use std::collections::BTreeSet;

use super::strategy::{CanaryStep, Deploy, Reload, Strategy};
use crate::format::Format;

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
    /// The new revision would meet data that it cannot read.
    #[error(
        "the state may hold version {version} of its format, and the new revision writes version {writes} and cannot read \
         version {version}; let it read that and name it in `state.reads`, or raise `state.version` and export `migrate`"
    )]
    Unreadable {
        /// The version that the state may hold.
        version: u32,
        /// The version that the new revision writes.
        writes: u32,
    },
    /// The running revision would meet data that it cannot read.
    #[error(
        "{strategy} sends messages to two revisions at once, and the running one, which writes version {runs} of the \
         state's format, cannot read version {new}; use {instead}, or first roll out a revision that still writes version \
         {runs} and has {new} in `state.reads`"
    )]
    SplitFormats {
        /// The strategy.
        strategy: &'static str,
        /// One that holds.
        instead: &'static str,
        /// The version that the running revision writes.
        runs: u32,
        /// The version that the new one writes.
        new: u32,
    },
    /// The new revision migrates the state while the running one uses it.
    #[error(
        "{strategy} sends messages to two revisions at once, and the new one migrates the state before its first message; \
         use {instead}"
    )]
    SplitMigration {
        /// The strategy.
        strategy: &'static str,
        /// One that holds.
        instead: &'static str,
    },
    /// Copies of messages would meet a state that is not migrated yet.
    #[error(
        "parallel lets the new revision see the state as each message found it, and it cannot read that before it has \
         migrated it; use `strategy = \"graceful\"` with `rehearse = 100`, which migrates a copy first"
    )]
    ShadowMigration,
}

/// The formats that meet in a rollout.
#[derive(Debug, Clone, Copy)]
pub struct Formats<'a> {
    /// The format of the running revision.
    pub stable: &'a Format,
    /// The format of the new one.
    pub candidate: &'a Format,
    /// The versions that the state may hold.
    pub holds: &'a BTreeSet<u32>,
    /// The new revision exports `migrate`; none until its component is loaded.
    pub migrates: Option<bool>,
}

/// Checks that no revision meets data that it cannot read in a rollout by this strategy.
///
/// # Errors
/// The reason why one would, with the way out.
pub fn can_read(strategy: &Strategy, stateful: bool, formats: &Formats<'_>) -> Result<(), CannotHold> {
    let Formats { stable, candidate, holds, migrates } = *formats;
    let (runs, new) = (stable.version, candidate.version);
    let unreadable = candidate.unreadable(holds);
    // An undo goes back to what ran, which knows nothing of what came after it.
    let may_migrate = runs != new && *strategy != Strategy::Undo && migrates != Some(false);
    if let Some(version) = unreadable.filter(|_| !may_migrate) {
        return Err(CannotHold::Unreadable { version, writes: new });
    }
    if runs == new {
        return Ok(());
    }
    if let Some((strategy, instead)) = split(strategy, stateful) {
        if !stable.can_read(new) {
            return Err(CannotHold::SplitFormats { strategy, instead, runs, new });
        }
        if unreadable.is_some() || migrates == Some(true) {
            return Err(CannotHold::SplitMigration { strategy, instead });
        }
    }
    if unreadable.is_some() && matches!(strategy, Strategy::Reload(Reload::Parallel { .. })) {
        return Err(CannotHold::ShadowMigration);
    }
    Ok(())
}

/// The name of a strategy by which two revisions have traffic at once, with one by which they have not; none for any
/// other strategy.
pub(super) fn split(strategy: &Strategy, stateful: bool) -> Option<(&'static str, &'static str)> {
    let part = |percent: u8| percent < 100;
    match strategy {
        Strategy::Deploy(Deploy::Canary { steps })
            if steps.iter().any(|step| matches!(step, CanaryStep::Weight { percent, .. } if part(*percent))) =>
        {
            Some(("canary", "`strategy = \"blue-green\"`"))
        }
        // The one instance of an agent that keeps state in memory is one batch.
        Strategy::Deploy(Deploy::Rolling { .. }) if !stateful => Some(("rolling", "`strategy = \"blue-green\"`")),
        Strategy::Reload(Reload::TrafficSplitting { steps, .. }) if steps.iter().any(|percent| part(*percent)) => {
            Some(("traffic-splitting", "`strategy = \"graceful\"`"))
        }
        Strategy::Deploy(_) | Strategy::Reload(_) | Strategy::Undo => None,
    }
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
    if let Some((strategy, instead)) = split(strategy, stateful) {
        return Err(CannotHold::Split { strategy, instead });
    }
    if matches!(strategy, Strategy::Reload(Reload::Parallel { .. })) { Err(CannotHold::Shadow) } else { Ok(()) }
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
    fn no_revision_meets_what_it_cannot_read() {
        let format = |version, reads: &[u32]| Format { version, reads: reads.iter().copied().collect() };
        let rolling = || Strategy::Deploy(Deploy::default());
        let graceful = || Strategy::Reload(Reload::Graceful);
        let check = |strategy: &Strategy, stable: &Format, candidate: &Format, holds: &[u32], migrates| {
            let holds = holds.iter().copied().collect();
            match can_read(strategy, false, &Formats { stable, candidate, holds: &holds, migrates }) {
                Ok(()) => "ok",
                Err(CannotHold::Unreadable { .. }) => "unreadable",
                Err(CannotHold::SplitFormats { .. }) => "formats",
                Err(CannotHold::SplitMigration { .. }) => "migration",
                Err(CannotHold::ShadowMigration) => "shadow",
                Err(CannotHold::Split { .. } | CannotHold::Shadow) => "memory",
            }
        };
        let (old, expanded, lazy, bare) = (format(1, &[]), format(1, &[2]), format(2, &[1]), format(2, &[]));
        let canary = || Strategy::Deploy(Deploy::canary());
        let parallel = || Strategy::Reload(Reload::parallel());
        for (strategy, stable, candidate, holds, migrates, expected) in [
            (rolling(), &old, &old, &[1][..], Some(false), "ok"),
            (rolling(), &old, &lazy, &[1], Some(false), "formats"),
            (rolling(), &expanded, &lazy, &[1], Some(false), "ok"),
            (canary(), &expanded, &lazy, &[1], None, "ok"),
            (canary(), &expanded, &lazy, &[1], Some(true), "migration"),
            (canary(), &expanded, &bare, &[1], None, "migration"),
            (graceful(), &old, &lazy, &[1], None, "ok"),
            (graceful(), &old, &bare, &[1], None, "ok"),
            (graceful(), &old, &bare, &[1], Some(true), "ok"),
            (graceful(), &old, &bare, &[1], Some(false), "unreadable"),
            // The version is the same, so nothing migrates, and some data may still be of version 1.
            (graceful(), &lazy, &bare, &[1, 2], Some(true), "unreadable"),
            (graceful(), &lazy, &bare, &[2], Some(false), "ok"),
            (parallel(), &old, &bare, &[1], None, "shadow"),
            (parallel(), &old, &lazy, &[1], None, "ok"),
            (Strategy::Undo, &lazy, &old, &[1, 2], Some(true), "unreadable"),
            (Strategy::Undo, &lazy, &expanded, &[1, 2], Some(false), "ok"),
        ] {
            let found = check(&strategy, stable, candidate, holds, migrates);
            assert_eq!(found, expected, "{} {stable:?} {candidate:?} {holds:?} {migrates:?}", strategy.as_str());
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
