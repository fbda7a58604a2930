//! The strategies of the tables `deploy` and `reload`, each with its own settings (SPEC §2, §3).
//!
//! [`super::schema`] decides which keys a file may have: one that is not implemented is refused before it gets here,
//! and a missing key has its default. Once a host implements another one, its row in the schema changes, and nothing
//! here.

use std::time::Duration;

use super::error::{ConfigError, Location};
use super::findings::Findings;
use crate::rollout::comparison::IgnoredPaths;
use crate::rollout::strategy::{Batch, CanaryStep};
use crate::rollout::{DeployStrategy, ReloadStrategy};

/// Reads the paths that may differ when answers are compared.
pub(super) fn ignore(paths: &[String], at: Location, findings: &mut Findings) -> Vec<String> {
    // The first error is enough: the patterns share one notation.
    if let Some((given, reason)) = paths.iter().find_map(|path| Some((path, IgnoredPaths::new([path.as_str()]).err()?)))
    {
        findings.errors.push(ConfigError::WrongType {
            at,
            expected: format!("paths, and `{given}` is none: {reason}"),
            found: "another text",
            example: "ignore = [\"reply.at\", \"**.id\"]".to_owned(),
        });
    }
    // Also with an error, since the whole declaration is dropped then.
    paths.to_vec()
}

/// The content of a `deploy` table.
pub(super) struct DeployTable {
    pub(super) strategy: &'static str,
    pub(super) batch: Option<Batch>,
    pub(super) keep_warm: Option<Duration>,
    pub(super) steps: Option<Vec<CanaryStep>>,
}

impl DeployTable {
    /// Returns the strategy with its own settings; missing ones come from `base` if it is the same strategy.
    pub(super) fn strategy(self, base: &DeployStrategy) -> DeployStrategy {
        let base = match (self.strategy, base) {
            ("immediate", _) => DeployStrategy::Immediate,
            // A base of another strategy has no settings that mean anything here.
            ("blue-green", DeployStrategy::BlueGreen { .. }) | ("canary", DeployStrategy::Canary { .. }) => {
                base.clone()
            }
            ("blue-green", _) => DeployStrategy::blue_green(),
            ("canary", _) => DeployStrategy::canary(),
            (_, DeployStrategy::Rolling { .. }) => base.clone(),
            _ => DeployStrategy::default(),
        };
        match base {
            DeployStrategy::Rolling { batch } => DeployStrategy::Rolling { batch: self.batch.unwrap_or(batch) },
            DeployStrategy::BlueGreen { keep_warm } => {
                DeployStrategy::BlueGreen { keep_warm: self.keep_warm.unwrap_or(keep_warm) }
            }
            DeployStrategy::Canary { steps } => DeployStrategy::Canary { steps: self.steps.unwrap_or(steps) },
            DeployStrategy::Immediate => base,
        }
    }
}

/// The content of a `reload` table.
pub(super) struct ReloadTable {
    pub(super) strategy: &'static str,
    pub(super) hold: Option<Duration>,
    pub(super) min_messages: Option<u64>,
    pub(super) match_percent: Option<f64>,
    pub(super) ignore: Option<Vec<String>>,
    pub(super) steps: Option<Vec<u8>>,
    pub(super) every: Option<Duration>,
}

impl ReloadTable {
    /// Returns the strategy with its own settings; missing ones come from `base` if it is the same strategy.
    pub(super) fn strategy(self, base: &ReloadStrategy) -> ReloadStrategy {
        let base = match (self.strategy, base) {
            ("immediate", _) => ReloadStrategy::Immediate,
            ("parallel", ReloadStrategy::Parallel { .. })
            | ("traffic-splitting", ReloadStrategy::TrafficSplitting { .. }) => base.clone(),
            ("parallel", _) => ReloadStrategy::parallel(),
            ("traffic-splitting", _) => ReloadStrategy::traffic_splitting(),
            _ => ReloadStrategy::Graceful,
        };
        match base {
            ReloadStrategy::Parallel { hold, min_messages, match_percent, ignore } => ReloadStrategy::Parallel {
                hold: self.hold.unwrap_or(hold),
                min_messages: self.min_messages.unwrap_or(min_messages),
                match_percent: self.match_percent.unwrap_or(match_percent),
                ignore: self.ignore.unwrap_or(ignore),
            },
            ReloadStrategy::TrafficSplitting { steps, every } => ReloadStrategy::TrafficSplitting {
                steps: self.steps.unwrap_or(steps),
                every: self.every.unwrap_or(every),
            },
            ReloadStrategy::Graceful | ReloadStrategy::Immediate => base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn ignored_paths_are_checked() {
        let at = Location { key: "x".to_owned(), source: Source::Default };
        for (path, errors) in [("reply.at", 0), ("**.id", 0), ("a..b", 1)] {
            let mut findings = Findings::default();
            ignore(&[path.to_owned()], at.clone(), &mut findings);
            assert_eq!(findings.errors.len(), errors, "{path}");
        }
    }

    #[test]
    fn settings_are_inherited_only_by_the_same_strategy() {
        let table = |strategy| DeployTable { strategy, batch: None, keep_warm: Some(Duration::ZERO), steps: None };
        let pauses = DeployStrategy::Canary { steps: vec![CanaryStep::Pause] };
        for (strategy, base, expected) in [
            ("canary", &pauses, pauses.clone()),
            ("canary", &DeployStrategy::Immediate, DeployStrategy::canary()),
            ("blue-green", &pauses, DeployStrategy::BlueGreen { keep_warm: Duration::ZERO }),
            (
                "rolling",
                &DeployStrategy::Rolling { batch: Batch::Percent(7) },
                DeployStrategy::Rolling { batch: Batch::Percent(7) },
            ),
            ("rolling", &pauses, DeployStrategy::default()),
            ("immediate", &pauses, DeployStrategy::Immediate),
        ] {
            assert_eq!(table(strategy).strategy(base), expected, "{strategy} {base:?}");
        }
        let table = |strategy| ReloadTable {
            strategy,
            hold: None,
            min_messages: None,
            match_percent: Some(90.0),
            ignore: None,
            steps: Some(vec![9]),
            every: None,
        };
        let nine = ReloadStrategy::TrafficSplitting { steps: vec![9], every: Duration::from_secs(30) };
        for (strategy, base, expected) in [
            ("graceful", &nine, ReloadStrategy::Graceful),
            ("immediate", &nine, ReloadStrategy::Immediate),
            ("traffic-splitting", &ReloadStrategy::Graceful, nine.clone()),
        ] {
            assert_eq!(table(strategy).strategy(base), expected, "{strategy} {base:?}");
        }
        let ReloadStrategy::Parallel { match_percent, min_messages, .. } = table("parallel").strategy(&nine) else {
            panic!()
        };
        assert_eq!((match_percent, min_messages), (90.0, 100));
    }
}
