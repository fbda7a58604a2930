//! The strategies that are impossible for an agent: because of its memory, of which there is one, or because of the
//! formats of its data.

use std::collections::BTreeSet;

use super::strategy::{CanaryStep, DeployStrategy, ReloadStrategy, Strategy};
use crate::format::StateFormat;

/// The reason why a strategy is impossible for an agent, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// The strategy would give each of two revisions a part of the agent's memory.
    #[error(
        "{strategy} sends messages to two revisions at once, and this agent keeps its state in memory, of which there is one; \
         use {instead}, or keep the state in `state` and do not export `snapshot`"
    )]
    Split {
        /// The strategy.
        strategy: &'static str,
        /// A possible strategy.
        instead: &'static str,
    },
    /// A copy of a message would need the memory as it was before the message.
    #[error(
        "parallel needs the state that each message found, and this agent keeps its state in memory, where it is overwritten; \
         use `strategy = \"graceful\"` with `rehearse = 100`, which tries the last messages on a copy of the memory"
    )]
    Shadow,
    /// The new revision cannot read the present state.
    #[error(
        "the state may hold version {version} of its format, and the new revision writes version {writes} and cannot read \
         version {version}; let it read that and name it in `state.reads`, or {migrate}"
    )]
    Unreadable {
        /// The version that the state may hold.
        version: u32,
        /// The version that the new revision writes.
        writes: u32,
        /// The change that lets it migrate the state instead, as advice.
        migrate: &'static str,
    },
    /// The running revision cannot read what the new one writes.
    #[error(
        "{strategy} sends messages to two revisions at once, and the running one, which writes version {runs} of the \
         state's format, cannot read version {new}; use {instead}, or first roll out a revision that still writes version \
         {runs} and has {new} in `state.reads`"
    )]
    SplitFormats {
        /// The strategy.
        strategy: &'static str,
        /// A possible strategy.
        instead: &'static str,
        /// The version that the running revision writes.
        runs: u32,
        /// The version that the new one writes.
        new: u32,
    },
    /// The new revision would migrate the state while the running one uses it.
    #[error(
        "{strategy} sends messages to two revisions at once, and the new one migrates the state before its first message; \
         use {instead}"
    )]
    SplitMigration {
        /// The strategy.
        strategy: &'static str,
        /// A possible strategy.
        instead: &'static str,
    },
    /// The candidate cannot read the state for copies of messages before it has migrated it.
    #[error(
        "parallel lets the new revision see the state as each message found it, and it cannot read that before it has \
         migrated it; use `strategy = \"graceful\"` with `rehearse = 100`, which migrates a copy first"
    )]
    ShadowMigration,
}

/// The formats of data in a rollout.
#[derive(Debug, Clone, Copy)]
pub struct Formats<'a> {
    /// The format of the running revision.
    pub stable: &'a StateFormat,
    /// The format of the new one.
    pub candidate: &'a StateFormat,
    /// The versions that the state may hold.
    pub state_versions: &'a BTreeSet<u32>,
    /// Set if the new revision exports `migrate`; `None` until its component is loaded.
    pub migrates: Option<bool>,
}

/// Checks that a rollout with this strategy gives no revision data that it cannot read.
///
/// # Errors
/// The reason why it would, with the way out.
pub fn check_formats(strategy: &Strategy, stateful: bool, formats: &Formats<'_>) -> Result<(), Incompatible> {
    let Formats { stable, candidate, state_versions, migrates } = *formats;
    let (runs, new) = (stable.version, candidate.version);
    let unreadable = candidate.unreadable(state_versions);
    // The target of an undo is older than the present format, so it cannot migrate from it.
    let may_migrate = runs != new && *strategy != Strategy::Undo && migrates != Some(false);
    if let Some(version) = unreadable.filter(|_| !may_migrate) {
        let migrate = if runs == new { "raise `state.version` and export `migrate`" } else { "export `migrate`" };
        return Err(Incompatible::Unreadable { version, writes: new, migrate });
    }
    // With one format on both sides, sharing traffic is as safe as before.
    if runs == new {
        return Ok(());
    }
    if let Some((strategy, instead)) = splits_traffic(strategy, stateful) {
        if !stable.can_read(new) {
            return Err(Incompatible::SplitFormats { strategy, instead, runs, new });
        }
        // Until the component is loaded, a migration is certain only if the state is unreadable without one.
        if unreadable.is_some() || migrates == Some(true) {
            return Err(Incompatible::SplitMigration { strategy, instead });
        }
    }
    if unreadable.is_some() && matches!(strategy, Strategy::Reload(ReloadStrategy::Parallel { .. })) {
        return Err(Incompatible::ShadowMigration);
    }
    Ok(())
}

/// Returns the name of a strategy that gives two revisions traffic at once, with the name of one that does not; `None`
/// for all other strategies.
pub(super) fn splits_traffic(strategy: &Strategy, stateful: bool) -> Option<(&'static str, &'static str)> {
    let part = |percent: u8| percent < 100;
    match strategy {
        Strategy::Deploy(DeployStrategy::Canary { steps })
            if steps.iter().any(|step| matches!(step, CanaryStep::Weight { percent, .. } if part(*percent))) =>
        {
            Some(("canary", "`strategy = \"blue-green\"`"))
        }
        // A stateful agent has one instance, so that rolling has one batch and splits nothing.
        Strategy::Deploy(DeployStrategy::Rolling { .. }) if !stateful => {
            Some(("rolling", "`strategy = \"blue-green\"`"))
        }
        Strategy::Reload(ReloadStrategy::TrafficSplitting { steps, .. })
            if steps.iter().any(|percent| part(*percent)) =>
        {
            Some(("traffic-splitting", "`strategy = \"graceful\"`"))
        }
        Strategy::Deploy(_) | Strategy::Reload(_) | Strategy::Undo => None,
    }
}

/// Checks if a strategy is possible for an agent, which is `stateful` if it keeps state in its memory (it exports
/// `snapshot`). Called by the check of a file, if the component is there, and again once the component is loaded.
///
/// # Errors
/// The reason why it is not, with the way out.
pub fn check_memory(strategy: &Strategy, stateful: bool) -> Result<(), Incompatible> {
    // State outside of memory is shared by all revisions, so every strategy is possible.
    if !stateful {
        return Ok(());
    }
    if let Some((strategy, instead)) = splits_traffic(strategy, stateful) {
        return Err(Incompatible::Split { strategy, instead });
    }
    if matches!(strategy, Strategy::Reload(ReloadStrategy::Parallel { .. })) {
        Err(Incompatible::Shadow)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn stateful_agents_are_not_split() {
        let half = |percent| DeployStrategy::Canary {
            steps: vec![CanaryStep::Weight { percent, hold: Duration::ZERO }, CanaryStep::Pause],
        };
        let all = |steps: Vec<u8>| ReloadStrategy::TrafficSplitting { steps, every: Duration::from_secs(1) };
        for (strategy, holds) in [
            (Strategy::Deploy(DeployStrategy::Immediate), true),
            (Strategy::Deploy(DeployStrategy::default()), true),
            (Strategy::Deploy(DeployStrategy::blue_green()), true),
            (Strategy::Deploy(DeployStrategy::canary()), false),
            (Strategy::Deploy(half(50)), false),
            (Strategy::Deploy(half(100)), true),
            (Strategy::Reload(ReloadStrategy::Graceful), true),
            (Strategy::Reload(ReloadStrategy::Immediate), true),
            (Strategy::Reload(ReloadStrategy::parallel()), false),
            (Strategy::Reload(ReloadStrategy::traffic_splitting()), false),
            (Strategy::Reload(all(vec![100])), true),
            (Strategy::Undo, true),
        ] {
            assert_eq!(check_memory(&strategy, true).is_ok(), holds, "{strategy:?}");
            assert_eq!(check_memory(&strategy, false), Ok(()), "{strategy:?}");
        }
    }

    #[test]
    fn no_revision_gets_data_that_it_cannot_read() {
        let format = |version, reads: &[u32]| StateFormat { version, reads: reads.iter().copied().collect() };
        let rolling = || Strategy::Deploy(DeployStrategy::default());
        let graceful = || Strategy::Reload(ReloadStrategy::Graceful);
        let check = |strategy: &Strategy, stable: &StateFormat, candidate: &StateFormat, holds: &[u32], migrates| {
            let holds = holds.iter().copied().collect();
            match check_formats(strategy, false, &Formats { stable, candidate, state_versions: &holds, migrates }) {
                Ok(()) => "ok",
                Err(Incompatible::Unreadable { .. }) => "unreadable",
                Err(Incompatible::SplitFormats { .. }) => "formats",
                Err(Incompatible::SplitMigration { .. }) => "migration",
                Err(Incompatible::ShadowMigration) => "shadow",
                Err(Incompatible::Split { .. } | Incompatible::Shadow) => "memory",
            }
        };
        let (old, expanded, lazy, bare) = (format(1, &[]), format(1, &[2]), format(2, &[1]), format(2, &[]));
        let canary = || Strategy::Deploy(DeployStrategy::canary());
        let parallel = || Strategy::Reload(ReloadStrategy::parallel());
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
    fn errors_name_the_way_out() {
        let told = |strategy| check_memory(&strategy, true).unwrap_err().to_string();
        assert_eq!(
            told(Strategy::Deploy(DeployStrategy::canary())),
            "canary sends messages to two revisions at once, and this agent keeps its state in memory, of which there is \
             one; use `strategy = \"blue-green\"`, or keep the state in `state` and do not export `snapshot`"
        );
        assert!(told(Strategy::Reload(ReloadStrategy::parallel())).contains("with `rehearse = 100`"));
    }
}
