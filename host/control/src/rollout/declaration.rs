//! The effect of an agent's declaration on its ledger.

use crate::names::Digest;

use super::compat::{CannotHold, Formats, check_formats, check_memory};
use super::ledger::{Declined, Ledger};
use super::obstacle::Obstacle;
use super::record::{Instances, Side};
use super::settings::Settings;
use super::strategy::Strategy;
use crate::revision_settings::RevisionSettings;

/// The declaration of an agent, with the present component.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// The digest of the component.
    pub digest: Digest,
    /// The settings that make a revision, as [`crate::AgentSpec::revision_settings`] prints them.
    pub settings: String,
    /// The rollout settings for changed settings.
    pub deploy: Settings,
    /// The rollout settings for a changed component alone.
    pub reload: Settings,
}

/// The relation of a declaration to the agent's ledger.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish<'a> {
    /// The declaration runs, or its rollout is in progress.
    Present,
    /// The declaration runs, and the rollout of something else is in progress.
    Back,
    /// The declaration was tried and refused.
    Declined(&'a Declined),
    /// The declaration has to be rolled out with these settings.
    New(&'a Settings),
}

/// The next step for a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Asks for nothing: everything is as declared, or a rollout is in progress.
    Rest,
    /// Asks for nothing now, for a reason to show to people.
    Wait(String),
    /// Asks for nothing until a person removes the obstacle.
    Refuse(Obstacle, String),
    /// Asks for a revision of the declaration, and another call with it.
    Create,
}

impl Ledger {
    /// Compares a declaration with the ledger.
    pub fn wish<'a>(&'a self, declared: &'a Declared) -> Wish<'a> {
        let is = |side: &Side| side.digest == declared.digest && side.settings == declared.settings;
        let open = self.open();
        // Also while it goes back: only its end decides if it is declined.
        if open.is_some_and(|rollout| is(&rollout.to)) {
            return Wish::Present;
        }
        let Some(current) = self.current() else { return Wish::Present };
        let settings = if current.settings == declared.settings { &declared.reload } else { &declared.deploy };
        match (self.refused(declared.digest, &declared.settings), is(current), open) {
            // A running revision is not tried, whatever became of it before.
            (_, true, None) => Wish::Present,
            (Some(declined), ..) => Wish::Declined(declined),
            (None, true, Some(_)) => Wish::Back,
            (None, false, _) => Wish::New(settings),
        }
    }

    /// Takes up a declaration: ends a rollout that is no longer wanted, and begins the wanted one.
    ///
    /// `fresh` is the revision created from exactly this declaration that has not run yet, if there is one; `stateful`
    /// tells for a revision's number if it keeps state in its memory. Also [settles](Ledger::settle) a rollout that
    /// just ended.
    pub fn follow(
        &mut self,
        declared: &Declared,
        fresh: Option<u64>,
        who: &str,
        instances: Instances,
        stateful: &dyn Fn(u64) -> bool,
        now: u64,
    ) -> Next {
        let settings = match self.wish(declared) {
            Wish::Present => return Next::Rest,
            Wish::Declined(declined) => {
                return Next::Refuse(self.obstacle_of(declined), self.told(declined));
            }
            Wish::Back => {
                if let Some(rollout) = self.open_mut() {
                    rollout.supersede("the declaration of what runs", now);
                }
                self.settle(now);
                return Next::Rest;
            }
            Wish::New(settings) => settings.clone(),
        };
        if let Some(rollout) = self.open_mut() {
            rollout.supersede("a newer change", now);
            if !rollout.status.is_terminal() {
                return Next::Wait("a newer change waits until the earlier one has gone back".to_owned());
            }
            self.settle(now);
            // The running revision may have changed, and with it the strategy.
            return self.follow(declared, fresh, who, instances, stateful, now);
        }
        // The memory of the running revision decides: that of the new one is known only once it is loaded.
        let stateful = self.current().is_some_and(|side| stateful(side.number));
        if let Err(why) = self.can_follow(&settings.strategy, &declared.settings, stateful, None) {
            return Next::Refuse(Obstacle::Refused, why.to_string());
        }
        // Checked before the revision is created: a refused declaration leaves no revision behind.
        let Some(number) = fresh else { return Next::Create };
        let side = Side { number, digest: declared.digest, settings: declared.settings.clone() };
        match self.begin(side, who, settings, instances, stateful, None, now) {
            Ok(_) => Next::Rest,
            Err(why) => Next::Refuse(Obstacle::Refused, why.to_string()),
        }
    }
}

impl Ledger {
    /// Checks that a revision with these settings may replace the running one with this strategy; `migrates` is `None`
    /// until its component is loaded.
    ///
    /// # Errors
    /// The reason why it may not, with the way out.
    pub fn can_follow(
        &self,
        strategy: &Strategy,
        settings: &str,
        stateful: bool,
        migrates: Option<bool>,
    ) -> Result<(), CannotHold> {
        check_memory(strategy, stateful)?;
        let Some(current) = self.current() else { return Ok(()) };
        let candidate = RevisionSettings::from_text(settings).map(|settings| settings.state).unwrap_or_default();
        let (stable, holds) = (current.format(), self.holds());
        check_formats(strategy, stateful, &Formats { stable: &stable, candidate: &candidate, holds: &holds, migrates })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rollout::ledger::samples::{ran, side};
    use crate::rollout::strategy::{CanaryStep, Deploy, Reload};
    use crate::rollout::{Command, Refused, Undo};

    #[test]
    fn the_file_does_not_reverse_an_undo() {
        let mut ledger = ran(&[1, 2]);
        let settings = |strategy| Settings::new(strategy);
        let declared = Declared {
            digest: side(2).digest,
            settings: "{}".to_owned(),
            deploy: settings(Strategy::Deploy(Deploy::default())),
            reload: settings(Strategy::Reload(Reload::default())),
        };
        assert_eq!(ledger.wish(&declared), Wish::Present);
        ledger.undo(Undo::default(), "anna", &declared.deploy, Instances::default(), false, &[], 5).unwrap();
        assert_eq!(ledger.open().map(|rollout| rollout.to.number), Some(1));
        let next = ledger.follow(&declared, None, "reconcile", Instances::default(), &|_| false, 6);
        assert!(matches!(next, Next::Refuse(Obstacle::Refused, why) if why.starts_with("undone by anna")));
        let again = Declared { digest: side(3).digest, ..declared };
        let next = ledger.follow(&again, None, "reconcile", Instances::default(), &|_| false, 7);
        assert_eq!(next, Next::Create, "what is declared anew is");
    }

    #[test]
    fn content_is_refused_under_any_strategy() {
        let deploy = |strategy| Settings::new(Strategy::Deploy(strategy));
        let canary = |percent, seconds| {
            let weight = CanaryStep::Weight { percent, hold: Duration::from_secs(seconds) };
            Deploy::Canary { steps: vec![weight, CanaryStep::Pause] }
        };
        let declared = |deploy: Settings, reload| Declared {
            digest: side(2).digest,
            settings: "{}".to_owned(),
            deploy,
            reload: Settings::new(Strategy::Reload(reload)),
        };
        let tried = declared(deploy(canary(10, 1)), Reload::traffic_splitting());
        let mut ledger = ran(&[1]);
        let begin = |ledger: &mut Ledger, declared: &Declared| {
            ledger.follow(declared, Some(2), "reconcile", Instances::default(), &|_| false, 5)
        };
        assert_eq!(begin(&mut ledger, &tried), Next::Rest);
        ledger.command(Command::Abort, "anna", 6).unwrap();
        let others = [
            tried.clone(),
            declared(deploy(canary(50, 1)), Reload::traffic_splitting()),
            declared(deploy(canary(10, 9)), Reload::Graceful),
            declared(deploy(Deploy::Immediate), Reload::Immediate),
            declared(Settings { timeout: Duration::from_secs(9), ..deploy(Deploy::blue_green()) }, Reload::parallel()),
        ];
        for other in &others {
            let next = begin(&mut ledger, other);
            assert!(matches!(&next, Next::Refuse(Obstacle::Refused, _)), "{next:?} of {other:?}");
            assert_eq!(ledger.rollouts.len(), 1, "{other:?}");
        }
        // Other content is tried; the refused content replaces it only after a `retry`.
        let more = Declared { settings: r#"{"limits":{"sends":7}}"#.to_owned(), ..tried.clone() };
        assert_eq!(begin(&mut ledger, &more), Next::Rest);
        assert_eq!(ledger.rollouts.len(), 2);
        assert!(matches!(begin(&mut ledger, &tried), Next::Refuse(..)));
        ledger.command(Command::Retry, "anna", 7).unwrap();
        assert_eq!(begin(&mut ledger, &tried), Next::Rest);
        assert_eq!(ledger.open().map(|open| open.to.settings.as_str()), Some("{}"));
        let again = ledger.command(Command::Retry, "anna", 8);
        assert!(matches!(again, Err(Refused::UnderWay { .. })), "{again:?}");
    }
}
