//! The strategies of the tables `deploy` and `reload`, each with its own settings (SPEC §2, §3).
//!
//! [`super::schema`] decides which keys a file may have: one that is not implemented is refused before it gets here,
//! and a missing key has its default. Once a host implements another one, its row in the schema changes, and nothing
//! here.

use std::time::Duration;

use super::error::{At, ConfigError};
use super::findings::Findings;
use crate::rollout::compare::Ignore;
use crate::rollout::strategy::{Batch, CanaryStep};
use crate::rollout::{Deploy, Reload};

/// Reads the paths that may differ when answers are compared.
pub(super) fn ignore(paths: &[String], at: At, findings: &mut Findings) -> Vec<String> {
    // The first error is enough: the patterns share one notation.
    if let Some((given, reason)) = paths.iter().find_map(|path| Some((path, Ignore::new([path.as_str()]).err()?))) {
        findings.errors.push(ConfigError::WrongType {
            at,
            expected: format!("paths, and `{given}` is none: {reason}"),
            found: "another text",
            example: "ignore = [\"reply.at\", \"**.id\"]".to_owned(),
        });
    }
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
    pub(super) fn strategy(self, base: &Deploy) -> Deploy {
        let base = match (self.strategy, base) {
            ("immediate", _) => Deploy::Immediate,
            ("blue-green", Deploy::BlueGreen { .. }) | ("canary", Deploy::Canary { .. }) => base.clone(),
            ("blue-green", _) => Deploy::blue_green(),
            ("canary", _) => Deploy::canary(),
            (_, Deploy::Rolling { .. }) => base.clone(),
            _ => Deploy::default(),
        };
        match base {
            Deploy::Rolling { batch } => Deploy::Rolling { batch: self.batch.unwrap_or(batch) },
            Deploy::BlueGreen { keep_warm } => Deploy::BlueGreen { keep_warm: self.keep_warm.unwrap_or(keep_warm) },
            Deploy::Canary { steps } => Deploy::Canary { steps: self.steps.unwrap_or(steps) },
            Deploy::Immediate => base,
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
    pub(super) fn strategy(self, base: &Reload) -> Reload {
        let base = match (self.strategy, base) {
            ("immediate", _) => Reload::Immediate,
            ("parallel", Reload::Parallel { .. }) | ("traffic-splitting", Reload::TrafficSplitting { .. }) => {
                base.clone()
            }
            ("parallel", _) => Reload::parallel(),
            ("traffic-splitting", _) => Reload::traffic_splitting(),
            _ => Reload::Graceful,
        };
        match base {
            Reload::Parallel { hold, min_messages, match_percent, ignore } => Reload::Parallel {
                hold: self.hold.unwrap_or(hold),
                min_messages: self.min_messages.unwrap_or(min_messages),
                match_percent: self.match_percent.unwrap_or(match_percent),
                ignore: self.ignore.unwrap_or(ignore),
            },
            Reload::TrafficSplitting { steps, every } => {
                Reload::TrafficSplitting { steps: self.steps.unwrap_or(steps), every: self.every.unwrap_or(every) }
            }
            Reload::Graceful | Reload::Immediate => base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    #[test]
    fn ignored_paths_are_checked() {
        let at = At { key: "x".to_owned(), place: Place::Default };
        for (path, errors) in [("reply.at", 0), ("**.id", 0), ("a..b", 1)] {
            let mut findings = Findings::default();
            ignore(&[path.to_owned()], at.clone(), &mut findings);
            assert_eq!(findings.errors.len(), errors, "{path}");
        }
    }

    #[test]
    fn settings_are_inherited_only_by_the_same_strategy() {
        let table = |strategy| DeployTable { strategy, batch: None, keep_warm: Some(Duration::ZERO), steps: None };
        let pauses = Deploy::Canary { steps: vec![CanaryStep::Pause] };
        for (strategy, base, expected) in [
            ("canary", &pauses, pauses.clone()),
            ("canary", &Deploy::Immediate, Deploy::canary()),
            ("blue-green", &pauses, Deploy::BlueGreen { keep_warm: Duration::ZERO }),
            ("rolling", &Deploy::Rolling { batch: Batch::Percent(7) }, Deploy::Rolling { batch: Batch::Percent(7) }),
            ("rolling", &pauses, Deploy::default()),
            ("immediate", &pauses, Deploy::Immediate),
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
        let nine = Reload::TrafficSplitting { steps: vec![9], every: Duration::from_secs(30) };
        for (strategy, base, expected) in [
            ("graceful", &nine, Reload::Graceful),
            ("immediate", &nine, Reload::Immediate),
            ("traffic-splitting", &Reload::Graceful, nine.clone()),
        ] {
            assert_eq!(table(strategy).strategy(base), expected, "{strategy} {base:?}");
        }
        let Reload::Parallel { match_percent, min_messages, .. } = table("parallel").strategy(&nine) else { panic!() };
        assert_eq!((match_percent, min_messages), (90.0, 100));
    }
}
