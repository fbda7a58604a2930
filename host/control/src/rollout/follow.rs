//! The effect of an agent's declaration on its ledger.

use crate::names::Digest;

use super::history::{Declined, Ledger};
use super::settings::Settings;
use super::strategy::Strategy;
use super::{CannotHold, Formats, Instances, Obstacle, Side, can_hold, can_read};
use crate::sparse;

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
    /// It runs, or its rollout is in progress.
    Present,
    /// It runs, and the rollout of something else is in progress.
    Back,
    /// It was tried and refused.
    Declined(&'a Declined),
    /// It has to be rolled out with these settings.
    New(&'a Settings),
}

/// The next step for a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: everything is as declared, or a rollout is in progress.
    Rest,
    /// Nothing now, for a reason to show to people.
    Wait(String),
    /// Nothing until a person removes the obstacle.
    Refuse(Obstacle, String),
    /// Create a revision of the declaration, and call again with it.
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
        let stateful = self.current().is_some_and(|side| stateful(side.number));
        if let Err(why) = self.can_follow(&settings.strategy, &declared.settings, stateful, None) {
            return Next::Refuse(Obstacle::Refused, why.to_string());
        }
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
        can_hold(strategy, stateful)?;
        let Some(current) = self.current() else { return Ok(()) };
        let candidate = sparse::read(settings).map(|settings| settings.state).unwrap_or_default();
        let (stable, holds) = (current.format(), self.holds());
        can_read(strategy, stateful, &Formats { stable: &stable, candidate: &candidate, holds: &holds, migrates })
    }
}

impl Settings {
    /// Returns these settings with another strategy.
    pub fn with(&self, strategy: Strategy) -> Self {
        Self { strategy, ..self.clone() }
    }
}
