//! The effect of an agent's declaration on its ledger.

use crate::names::Digest;

use super::compat::{Formats, Incompatible, check_formats, check_memory};
use super::ledger::{Ledger, RolloutRefusal};
use super::obstacle::Obstacle;
use super::record::{InstanceCounts, StoredRevision};
use super::settings::RolloutSettings;
use super::strategy::Strategy;
use crate::revision_settings::RevisionSettings;

/// The declaration of an agent, with the present component.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredRevision {
    /// The digest of the component.
    pub digest: Digest,
    /// The settings that make a revision, as [`crate::AgentSpec::revision_settings`] prints them.
    pub settings: String,
    /// The rollout settings for changed settings.
    pub deploy: RolloutSettings,
    /// The rollout settings for a changed component alone.
    pub reload: RolloutSettings,
}

/// The relation of a declaration to the agent's ledger.
#[derive(Debug, Clone, PartialEq)]
pub enum DeclarationStatus<'a> {
    /// The declaration runs, or its rollout is in progress.
    Current,
    /// The declaration runs, and the rollout of something else is in progress.
    Returned,
    /// The declaration was tried and refused.
    Refused(&'a RolloutRefusal),
    /// The declaration has to be rolled out with these settings.
    New(&'a RolloutSettings),
}

/// The next step for a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclarationOutcome {
    /// Asks for nothing: everything is as declared, or a rollout is in progress.
    UpToDate,
    /// Asks for nothing now, for a reason to show to people.
    Wait(String),
    /// Asks for nothing until a person removes the obstacle.
    Refuse(Obstacle, String),
    /// Asks for a revision of the declaration, and another call with it.
    CreateRevision,
}

impl Ledger {
    /// Compares a declaration with the ledger.
    pub fn compare_declaration<'a>(&'a self, declared: &'a DeclaredRevision) -> DeclarationStatus<'a> {
        let is = |side: &StoredRevision| side.digest == declared.digest && side.settings == declared.settings;
        let open = self.open();
        // Also while it goes back: only its end decides if it is declined.
        if open.is_some_and(|rollout| is(&rollout.to)) {
            return DeclarationStatus::Current;
        }
        // An agent's first revision starts without a rollout.
        let Some(current) = self.current() else { return DeclarationStatus::Current };
        // With equal settings only the component can differ, which makes it a reload.
        let settings = if current.settings == declared.settings { &declared.reload } else { &declared.deploy };
        match (self.find_refusal(declared.digest, &declared.settings), is(current), open) {
            // A running revision is not tried, whatever became of it before.
            (_, true, None) => DeclarationStatus::Current,
            (Some(declined), ..) => DeclarationStatus::Refused(declined),
            (None, true, Some(_)) => DeclarationStatus::Returned,
            (None, false, _) => DeclarationStatus::New(settings),
        }
    }

    /// Takes up a declaration: ends a rollout that is no longer wanted, and begins the wanted one.
    ///
    /// `fresh` is the revision created from exactly this declaration that has not run yet, if there is one; `stateful`
    /// tells for a revision's number if it keeps state in its memory. Also [settles](Ledger::settle) a rollout that
    /// just ended.
    pub fn apply_declaration(
        &mut self,
        declared: &DeclaredRevision,
        fresh: Option<u64>,
        who: &str,
        instances: InstanceCounts,
        stateful: &dyn Fn(u64) -> bool,
        now: u64,
    ) -> DeclarationOutcome {
        let settings = match self.compare_declaration(declared) {
            DeclarationStatus::Current => return DeclarationOutcome::UpToDate,
            DeclarationStatus::Refused(declined) => {
                return DeclarationOutcome::Refuse(self.obstacle_of(declined), self.refusal_text(declined));
            }
            DeclarationStatus::Returned => {
                if let Some(rollout) = self.open_mut() {
                    rollout.supersede("the declaration of what runs", now);
                }
                self.settle(now);
                return DeclarationOutcome::UpToDate;
            }
            DeclarationStatus::New(settings) => settings.clone(),
        };
        if let Some(rollout) = self.open_mut() {
            rollout.supersede("a newer change", now);
            if !rollout.status.is_terminal() {
                return DeclarationOutcome::Wait("a newer change waits until the earlier one has gone back".to_owned());
            }
            self.settle(now);
            // The running revision may have changed, and with it the strategy.
            return self.apply_declaration(declared, fresh, who, instances, stateful, now);
        }
        // The memory of the running revision decides: that of the new one is known only once it is loaded.
        let stateful = self.current().is_some_and(|side| stateful(side.number));
        if let Err(why) = self.check_replacement(&settings.strategy, &declared.settings, stateful, None) {
            return DeclarationOutcome::Refuse(Obstacle::Refused, why.to_string());
        }
        // Checked before the revision is created: a refused declaration leaves no revision behind.
        let Some(number) = fresh else { return DeclarationOutcome::CreateRevision };
        let side = StoredRevision { number, digest: declared.digest, settings: declared.settings.clone() };
        match self.begin(side, who, settings, instances, stateful, None, now) {
            Ok(_) => DeclarationOutcome::UpToDate,
            Err(why) => DeclarationOutcome::Refuse(Obstacle::Refused, why.to_string()),
        }
    }
}

impl Ledger {
    /// Checks that a revision with these settings may replace the running one with this strategy; `migrates` is `None`
    /// until its component is loaded.
    ///
    /// # Errors
    /// The reason why it may not, with the way out.
    pub fn check_replacement(
        &self,
        strategy: &Strategy,
        settings: &str,
        stateful: bool,
        migrates: Option<bool>,
    ) -> Result<(), Incompatible> {
        check_memory(strategy, stateful)?;
        let Some(current) = self.current() else { return Ok(()) };
        // Unreadable settings count as those of an agent without the table `state`.
        let candidate = RevisionSettings::from_text(settings).map(|settings| settings.state).unwrap_or_default();
        let (stable, holds) = (current.format(), self.state_versions());
        check_formats(
            strategy,
            stateful,
            &Formats { stable: &stable, candidate: &candidate, state_versions: &holds, migrates },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rollout::ledger::samples::{ran, side};
    use crate::rollout::strategy::{CanaryStep, DeployStrategy, ReloadStrategy};
    use crate::rollout::{CommandError, RolloutCommand, UndoOptions};

    #[test]
    fn the_file_does_not_reverse_an_undo() {
        let mut ledger = ran(&[1, 2]);
        let settings = |strategy| RolloutSettings::new(strategy);
        let declared = DeclaredRevision {
            digest: side(2).digest,
            settings: "{}".to_owned(),
            deploy: settings(Strategy::Deploy(DeployStrategy::default())),
            reload: settings(Strategy::Reload(ReloadStrategy::default())),
        };
        assert_eq!(ledger.compare_declaration(&declared), DeclarationStatus::Current);
        ledger
            .undo(UndoOptions::default(), "anna", &declared.deploy, InstanceCounts::default(), false, &[], 5)
            .unwrap();
        assert_eq!(ledger.open().map(|rollout| rollout.to.number), Some(1));
        let next = ledger.apply_declaration(&declared, None, "reconcile", InstanceCounts::default(), &|_| false, 6);
        assert!(
            matches!(next, DeclarationOutcome::Refuse(Obstacle::Refused, why) if why.starts_with("undone by anna"))
        );
        let again = DeclaredRevision { digest: side(3).digest, ..declared };
        let next = ledger.apply_declaration(&again, None, "reconcile", InstanceCounts::default(), &|_| false, 7);
        assert_eq!(next, DeclarationOutcome::CreateRevision, "what is declared anew is");
    }

    #[test]
    fn content_is_refused_under_any_strategy() {
        let deploy = |strategy| RolloutSettings::new(Strategy::Deploy(strategy));
        let canary = |percent, seconds| {
            let weight = CanaryStep::Weight { percent, hold: Duration::from_secs(seconds) };
            DeployStrategy::Canary { steps: vec![weight, CanaryStep::Pause] }
        };
        let declared = |deploy: RolloutSettings, reload| DeclaredRevision {
            digest: side(2).digest,
            settings: "{}".to_owned(),
            deploy,
            reload: RolloutSettings::new(Strategy::Reload(reload)),
        };
        let tried = declared(deploy(canary(10, 1)), ReloadStrategy::traffic_splitting());
        let mut ledger = ran(&[1]);
        let begin = |ledger: &mut Ledger, declared: &DeclaredRevision| {
            ledger.apply_declaration(declared, Some(2), "reconcile", InstanceCounts::default(), &|_| false, 5)
        };
        assert_eq!(begin(&mut ledger, &tried), DeclarationOutcome::UpToDate);
        ledger.command(RolloutCommand::Abort, "anna", 6).unwrap();
        let others = [
            tried.clone(),
            declared(deploy(canary(50, 1)), ReloadStrategy::traffic_splitting()),
            declared(deploy(canary(10, 9)), ReloadStrategy::Graceful),
            declared(deploy(DeployStrategy::Immediate), ReloadStrategy::Immediate),
            declared(
                RolloutSettings { timeout: Duration::from_secs(9), ..deploy(DeployStrategy::blue_green()) },
                ReloadStrategy::parallel(),
            ),
        ];
        for other in &others {
            let next = begin(&mut ledger, other);
            assert!(matches!(&next, DeclarationOutcome::Refuse(Obstacle::Refused, _)), "{next:?} of {other:?}");
            assert_eq!(ledger.rollouts.len(), 1, "{other:?}");
        }
        // Other content is tried; the refused content replaces it only after a `retry`.
        let more = DeclaredRevision { settings: r#"{"limits":{"sends":7}}"#.to_owned(), ..tried.clone() };
        assert_eq!(begin(&mut ledger, &more), DeclarationOutcome::UpToDate);
        assert_eq!(ledger.rollouts.len(), 2);
        assert!(matches!(begin(&mut ledger, &tried), DeclarationOutcome::Refuse(..)));
        ledger.command(RolloutCommand::Retry, "anna", 7).unwrap();
        assert_eq!(begin(&mut ledger, &tried), DeclarationOutcome::UpToDate);
        assert_eq!(ledger.open().map(|open| open.to.settings.as_str()), Some("{}"));
        let again = ledger.command(RolloutCommand::Retry, "anna", 8);
        assert!(matches!(again, Err(CommandError::InProgress { .. })), "{again:?}");
    }
}
