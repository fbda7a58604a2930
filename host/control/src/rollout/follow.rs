//! What an agent's declaration asks of its ledger.

use crate::names::Digest;

use super::history::{Declined, Ledger};
use super::settings::Settings;
use super::strategy::Strategy;
use super::{Instances, Obstacle, Side, can_hold};

/// What is declared of an agent, with what its component's file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// The bytes.
    pub digest: Digest,
    /// The settings that make a revision, as [`crate::AgentSpec::revision_settings`] prints them.
    pub settings: String,
    /// How changed settings reach traffic.
    pub deploy: Settings,
    /// How changed bytes alone do.
    pub reload: Settings,
}

/// What is declared, against what is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish<'a> {
    /// It runs, or is on its way.
    Present,
    /// It runs, and something else is on its way.
    Back,
    /// It was tried, and is not again.
    Declined(&'a Declined),
    /// It is to be rolled out like this.
    New(&'a Settings),
}

/// What to do for a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: all is as declared, or on its way.
    Rest,
    /// Nothing, for a reason that people should know.
    Wait(String),
    /// Nothing, until a person mends what is told.
    Refuse(Obstacle, String),
    /// Make a revision of what is declared, and ask again with it.
    Create,
}

impl Ledger {
    /// What a declaration is to the agent.
    pub fn wish<'a>(&'a self, declared: &'a Declared) -> Wish<'a> {
        let is = |side: &Side| side.digest == declared.digest && side.settings == declared.settings;
        let open = self.open();
        // Also when it goes back: what becomes of it is known when it has.
        if open.is_some_and(|rollout| is(&rollout.to)) {
            return Wish::Present;
        }
        let Some(current) = self.current() else { return Wish::Present };
        let settings = if current.settings == declared.settings { &declared.reload } else { &declared.deploy };
        match (self.refused(declared.digest, &declared.settings), is(current), open) {
            // What runs is not tried, whatever became of it before.
            (_, true, None) => Wish::Present,
            (Some(declined), ..) => Wish::Declined(declined),
            (None, true, Some(_)) => Wish::Back,
            (None, false, _) => Wish::New(settings),
        }
    }

    /// Takes a declaration up: ends the rollout of what is not wanted any more, and begins one of what is.
    ///
    /// `fresh` is the revision that was made of exactly this declaration and has not begun to run, if there is one;
    /// `stateful` says of a revision, by its number, whether it keeps state in its memory. What just ended is [settled](Ledger::settle) here too.
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
            // What runs may be another now, and with it the strategy.
            return self.follow(declared, fresh, who, instances, stateful, now);
        }
        let stateful = self.current().is_some_and(|side| stateful(side.number));
        if let Err(why) = can_hold(&settings.strategy, stateful) {
            return Next::Refuse(Obstacle::Refused, why.to_string());
        }
        let Some(number) = fresh else { return Next::Create };
        let side = Side { number, digest: declared.digest, settings: declared.settings.clone() };
        match self.begin(side, who, settings, instances, stateful, now) {
            Ok(_) => Next::Rest,
            Err(why) => Next::Refuse(Obstacle::Refused, why.to_string()),
        }
    }
}

impl Settings {
    /// The same settings with another strategy.
    pub fn with(&self, strategy: Strategy) -> Self {
        Self { strategy, ..self.clone() }
    }
}
