//! What is known of an agent beyond the moment: its rollouts, the revisions that are kept, what was refused.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::command::{Command, Refused, Undo};
use super::errors::Tally;
use super::settings::Settings;
use super::strategy::Strategy;
use super::{CannotHold, Instances, Obstacle, Rollout, Side, Status};
use crate::format::Restored;
use crate::names::{AgentName, Digest};

/// Rollouts that are remembered of an agent, the one under way included; the oldest leave first.
pub const MAX_ROLLOUTS: usize = 50;

/// Refusals that are remembered of an agent; the oldest leave first.
pub const MAX_DECLINED: usize = 20;

/// Who goes back when what runs failed for good.
const SUPERVISION: &str = "supervision";

/// An agent's record. Persisted whole, whenever it changed; the bytes, and the snapshots that were given at a
/// handoff, are kept beside it by number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ledger {
    /// Whose.
    pub agent: AgentName,
    /// Its rollouts, the oldest first. Only the last may be under way. A record that this version cannot read is left
    /// out: the revisions that are kept are not lost with it.
    #[serde(deserialize_with = "crate::sparse::readable")]
    pub rollouts: Vec<Rollout>,
    /// The revisions that ran, in the order in which they last came to. The last is the one that runs, and the one
    /// that a host begins with, whatever is declared meanwhile.
    pub ran: Vec<Side>,
    /// What is not tried again until it changes, or somebody asks for it.
    pub declined: Vec<Declined>,
    /// The next rollout's id.
    next: u64,
    /// What the revision that runs failed at last: what the next one is compared with where none runs beside it.
    #[serde(default)]
    lately: Option<Lately>,
    /// The versions of its format that the state may hold; none before anything ran, and in a record of a version that
    /// knew no formats.
    #[serde(default)]
    holds: BTreeSet<u32>,
}

/// What a revision failed at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Lately {
    /// Which.
    revision: u64,
    /// Its last messages, and its failures among them.
    #[serde(flatten)]
    tally: Tally,
}

/// Bytes with settings that were refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declined {
    /// The bytes.
    pub digest: Digest,
    /// The settings.
    #[serde(deserialize_with = "crate::sparse::deserialize")]
    pub settings: String,
    /// The strategy by which they were tried; none if they ran and were undone, or failed for good.
    pub strategy: Option<Strategy>,
    /// Why, for a person to read.
    pub why: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// What of a ledger is persisted as soon as it changes. Times and figures go with the next of these.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    rollouts: u64,
    last: Option<(Status, usize, usize, u8, u8, bool)>,
    ran: Vec<u64>,
    declined: Vec<u64>,
}

impl Ledger {
    /// What tells whether it is to be persisted again.
    pub fn mark(&self) -> Mark {
        let last = |r: &Rollout| (r.status, r.step, r.steps.len(), r.weight, r.reached, r.handed_over);
        Mark {
            rollouts: self.next,
            last: self.rollouts.last().map(last),
            ran: self.ran.iter().map(|side| side.number).collect(),
            declined: self.declined.iter().map(|declined| declined.at).collect(),
        }
    }

    /// What is known of a revision that is kept or takes part in the rollout under way.
    pub fn side(&self, number: u64) -> Option<&Side> {
        let open = self.open().into_iter().flat_map(|rollout| [&rollout.from, &rollout.to]);
        self.ran.iter().chain(open).find(|side| side.number == number)
    }

    /// The highest number of a revision that it knows; 0 for none.
    pub fn last_number(&self) -> u64 {
        let rolled = self.rollouts.iter().flat_map(|rollout| [rollout.from.number, rollout.to.number]);
        self.ran.iter().map(|side| side.number).chain(rolled).max().unwrap_or(0)
    }

    /// Lets be tried again what never came to take messages, or failed at it for good. What did worse, or was ended by
    /// hand, stays refused.
    pub fn forgive(&mut self) {
        let failed: Vec<bool> = self.declined.iter().map(|declined| self.has_failed(declined)).collect();
        let mut failed = failed.into_iter();
        self.declined.retain(|_| !failed.next().unwrap_or(false));
    }

    /// The refusal of these bytes with these settings. By which strategy they were tried does not matter: what was
    /// refused is what they are.
    pub fn refused(&self, digest: Digest, settings: &str) -> Option<&Declined> {
        self.declined.iter().find(|known| known.digest == digest && known.settings == settings)
    }

    /// What is in the way of what was refused.
    pub fn obstacle_of(&self, declined: &Declined) -> Obstacle {
        if self.has_failed(declined) { Obstacle::Failed } else { Obstacle::Refused }
    }

    /// Whether what was refused never came to take messages, or failed at it for good.
    fn has_failed(&self, declined: &Declined) -> bool {
        let is = |side: &Side| (side.digest, &side.settings) == (declined.digest, &declined.settings);
        match declined.strategy {
            Some(_) => self.rollouts.iter().rfind(|r| is(&r.to)).is_some_and(|r| r.status == Status::Failed),
            None => self.rollouts.iter().rfind(|r| is(&r.from)).is_some_and(|r| r.who == SUPERVISION),
        }
    }

    /// The record of an agent that never ran.
    pub fn new(agent: AgentName) -> Self {
        Self {
            agent,
            rollouts: Vec::new(),
            ran: Vec::new(),
            declined: Vec::new(),
            next: 1,
            lately: None,
            holds: BTreeSet::new(),
        }
    }

    /// The rollout under way.
    pub fn open(&self) -> Option<&Rollout> {
        self.rollouts.last().filter(|rollout| !rollout.status.is_terminal())
    }

    /// The same, to be changed. [`Ledger::settle`] follows.
    pub fn open_mut(&mut self) -> Option<&mut Rollout> {
        self.rollouts.last_mut().filter(|rollout| !rollout.status.is_terminal())
    }

    /// The rollouts that have ended and whose lost messages are to be counted: of the last few, since each is counted
    /// right after its end.
    pub fn uncounted(&self) -> impl Iterator<Item = (u64, u64)> {
        let last = self.rollouts.iter().rev().take(3).filter(|rollout| rollout.status.is_terminal());
        last.filter(|rollout| rollout.figures.lost.is_none())
            .filter_map(|rollout| Some((rollout.id, rollout.after_message?)))
    }

    /// Takes in how many messages were lost during a rollout that has ended. Says whether that is news.
    pub fn count_lost(&mut self, rollout: u64, lost: u64) -> bool {
        let known = self.rollouts.iter_mut().find(|known| known.id == rollout);
        let Some(rollout) = known.filter(|rollout| rollout.status.is_terminal()) else { return false };
        rollout.figures.lost.replace(lost) != Some(lost)
    }

    /// The versions of its format that the state may hold.
    pub fn holds(&self) -> BTreeSet<u32> {
        match self.current() {
            // A record of a version that knew no formats.
            Some(current) if self.holds.is_empty() => [current.format().version].into(),
            Some(_) | None => self.holds.clone(),
        }
    }

    /// Returns true if a revision ran, and is remembered.
    pub fn has_run(&self, number: u64) -> bool {
        self.ran.iter().any(|side| side.number == number)
    }

    /// The revision that runs.
    pub fn current(&self) -> Option<&Side> {
        self.ran.last()
    }

    /// Notes the revision that runs without a rollout: an agent's first, or the one a host began with.
    pub fn runs(&mut self, side: Side) {
        self.holds = self.holds().into_iter().chain([side.format().version]).collect();
        self.ran.retain(|ran| ran.number != side.number);
        self.ran.push(side);
    }

    /// Takes in what a revision failed at last, if it is the one that runs. The rollout under way goes by it too, until
    /// all traffic has moved: what stable still answers while it drains is nothing to compare with. Returns whether that
    /// is news.
    pub fn note_figures(&mut self, revision: u64, tally: Tally) -> bool {
        let runs = self.current().is_some_and(|current| current.number == revision);
        let noted = Some(Lately { revision, tally });
        if !runs || tally.messages == 0 || self.lately == noted {
            return false;
        }
        self.lately = noted;
        if let Some(rollout) = self.open_mut().filter(|rollout| rollout.from.number == revision && rollout.weight < 100)
        {
            rollout.lately = tally;
            if rollout.weights.is_empty() {
                rollout.before = tally;
            }
        }
        true
    }

    /// What a revision failed at last, as far as that is kept.
    pub fn figures_of(&self, revision: u64) -> Tally {
        self.lately.filter(|lately| lately.revision == revision).map(|lately| lately.tally).unwrap_or_default()
    }

    /// Begins a rollout from the revision that runs; `restores` is the kept state that an undo goes back to.
    ///
    /// # Errors
    /// The strategy cannot hold for this agent.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
    pub fn begin(
        &mut self,
        to: Side,
        who: &str,
        settings: Settings,
        instances: Instances,
        stateful: bool,
        restores: Option<Restored>,
        now: u64,
    ) -> Result<&Rollout, CannotHold> {
        let from = self.ran.last().cloned().unwrap_or_else(|| to.clone());
        let lately = self.figures_of(from.number);
        let state = (self.holds(), restores);
        let mut rollout =
            Rollout::begin(self.next, self.agent.clone(), from, to, who, settings, instances, stateful, state, now)?;
        (rollout.lately, rollout.before) = (lately, lately);
        self.next += 1;
        self.rollouts.push(rollout);
        if self.rollouts.len() > MAX_ROLLOUTS {
            self.rollouts.remove(0);
        }
        Ok(&self.rollouts[self.rollouts.len() - 1])
    }

    /// Draws the conclusions from a rollout that has just ended. Says whether it has; to be asked whenever the
    /// rollout under way was observed, commanded or superseded.
    pub fn settle(&mut self, now: u64) -> bool {
        let Some(rollout) = self.rollouts.last().filter(|rollout| rollout.status.is_terminal()) else { return false };
        let (to, why) = (rollout.to.clone(), rollout.why.clone());
        let strategy = rollout.settings.strategy.clone();
        let runs = match rollout.status {
            Status::Completed => true,
            // There was nothing to go back to.
            Status::Failed => rollout.weight == 100,
            _ => false,
        };
        // What an undo by hand could not go to ran before, and what it would have left runs on: neither is refused.
        let stays =
            rollout.status == Status::Failed && strategy == Strategy::Undo && rollout.who != SUPERVISION && !runs;
        if stays {
            let Side { digest, settings, .. } = rollout.from.clone();
            self.declined.retain(|known| (known.digest, &known.settings) != (digest, &settings));
            return true;
        }
        let declines = matches!(rollout.status, Status::Failed | Status::Cancelled | Status::RolledBack);
        let holds = rollout.holds_after();
        if runs && self.current() != Some(&to) {
            self.runs(to.clone());
        }
        self.holds = holds;
        if declines && !runs {
            self.decline(to, Some(strategy), why, now);
        }
        true
    }

    /// Remembers that these bytes with these settings are not to be tried again.
    pub fn decline(&mut self, side: Side, strategy: Option<Strategy>, why: String, at: u64) {
        let Side { digest, settings, .. } = side;
        let new = Declined { digest, settings, strategy, why, at };
        let same = |old: &Declined| (old.digest, &old.settings) == (new.digest, &new.settings);
        if self.declined.iter().any(same) {
            return;
        }
        self.declined.push(new);
        if self.declined.len() > MAX_DECLINED {
            self.declined.remove(0);
        }
    }

    /// Follows a command. Undo of what has ended, or has all the traffic and is to be rehearsed, begins a rollout of its
    /// own, to the revision that `undo` names or else to the one that ran before; `settings` and `instances` are as declared now, `stateful` of the revision that runs. Retry
    /// forgets what was refused, and what is declared is rolled out again when it is next looked at.
    ///
    /// # Errors
    /// It cannot be followed now.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
    pub fn command(
        &mut self,
        command: Command,
        who: &str,
        undo: Undo,
        settings: &Settings,
        instances: Instances,
        stateful: bool,
        now: u64,
    ) -> Result<(), Refused> {
        if command == Command::Undo {
            return self.undo(undo, who, settings, instances, stateful, &[], now);
        }
        // Also with another under way, when what is declared was refused: it is tried in its place. An undo goes on.
        if command == Command::Retry && (self.open().is_none() || !(self.undoes() || self.declined.is_empty())) {
            return self.retry();
        }
        match (self.open_mut(), command) {
            (Some(rollout), _) => {
                rollout.command(command, who, now)?;
                self.settle(now);
                Ok(())
            }
            (None, _) => Err(match self.rollouts.last() {
                Some(rollout) => Refused::Ended { status: rollout.status.as_str() },
                None => Refused::NoRollout,
            }),
        }
    }

    /// Forgets what was refused.
    fn retry(&mut self) -> Result<(), Refused> {
        match self.rollouts.last().map(|rollout| rollout.status) {
            // What was refused may be declared again long after others came and went.
            _ if !self.declined.is_empty() => {
                self.declined.clear();
                Ok(())
            }
            None => Err(Refused::NoRollout),
            Some(Status::Completed) => Err(Refused::Ended { status: Status::Completed.as_str() }),
            Some(_) => Ok(()),
        }
    }

    /// Why what is declared is not tried, with the way out that there is now: an undo under way is not broken off by a
    /// retry.
    pub fn told(&self, declined: &Declined) -> String {
        let (why, short) = (&declined.why, declined.digest.short());
        let when = if self.undoes() { ", which has to wait for the end of the undo" } else { "" };
        format!("{why}; {short} is not tried again until it changes or `caxton rollout retry`{when}")
    }

    /// Returns true if an undo is under way.
    fn undoes(&self) -> bool {
        self.open().is_some_and(|open| open.settings.strategy == Strategy::Undo)
    }

    /// What runs failed for good, and no rollout is under way: begins one to the last revision that ran before, if
    /// one is kept (SPEC §7, supervision), and does not try what failed again. Says whether.
    pub fn recover(&mut self, why: &str, settings: &Settings, instances: Instances, stateful: bool, now: u64) -> bool {
        if self.open().is_some() {
            return false;
        }
        // Not to one that failed before: it would go round and round.
        let refused = |side: &Side| self.refused(side.digest, &side.settings).is_some();
        // Nor to one that cannot read what was written since it ran.
        let holds = self.holds();
        let readable = |side: &Side| side.format().unreadable(&holds).is_none();
        let kept = self.kept(settings.rollback.keep).iter().rev();
        let target = kept.into_iter().find(|side| !refused(side) && readable(side)).cloned();
        let (Some(target), Some(failed)) = (target, self.current().cloned()) else { return false };
        // Nobody is served meanwhile.
        let settings = Settings { rehearse: 0, ..settings.with(Strategy::Undo) };
        let begun = self.begin(target, SUPERVISION, settings, instances, stateful, None, now).is_ok();
        if begun {
            self.decline(failed, None, why.to_owned(), now);
        }
        begun
    }

    /// Which revision an undo goes to: `to`, or else the one that ran before.
    ///
    /// # Errors
    /// It is not kept.
    pub fn undo_target(&self, to: Option<u64>, keep: u32) -> Result<&Side, Refused> {
        let kept = self.kept(keep);
        match to {
            None => kept.last().ok_or(Refused::NothingKept { keep }),
            Some(number) => kept
                .iter()
                .find(|side| side.number == number)
                .ok_or_else(|| Refused::NotKept { number, kept: kept.iter().map(|side| side.number).collect() }),
        }
    }

    /// The revisions that are kept for an undo, the one that ran last at the end.
    pub fn kept(&self, keep: u32) -> &[Side] {
        let earlier = &self.ran[..self.ran.len().saturating_sub(1)];
        &earlier[earlier.len().saturating_sub(keep as usize)..]
    }

    /// Forgets the revisions that are kept no more, and says which: their bytes and snapshots may go. What a rollout
    /// under way needs stays.
    pub fn expire(&mut self, keep: u32) -> Vec<u64> {
        let needed: Vec<u64> =
            self.open().map(|rollout| vec![rollout.from.number, rollout.to.number]).unwrap_or_default();
        let earlier = self.ran.len().saturating_sub(1);
        let beyond = earlier.saturating_sub(keep as usize);
        let gone: Vec<u64> =
            self.ran[..beyond].iter().map(|side| side.number).filter(|number| !needed.contains(number)).collect();
        self.ran.retain(|side| !gone.contains(&side.number));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Deploy, Reload};

    fn side(number: u64) -> Side {
        Side { number, digest: Digest([number as u8; 32]), settings: "{}".to_owned() }
    }

    fn ran(numbers: &[u64]) -> Ledger {
        let mut ledger = Ledger::new("echo".parse().unwrap());
        numbers.iter().for_each(|number| ledger.runs(side(*number)));
        ledger
    }

    fn numbers(sides: &[Side]) -> Vec<u64> {
        sides.iter().map(|side| side.number).collect()
    }

    #[test]
    fn the_last_that_ran_are_kept() {
        // ran, keep, kept, gone
        for (ran_before, keep, kept, gone) in [
            (&[][..], 3, &[][..], &[][..]),
            (&[1], 3, &[], &[]),
            (&[1, 2, 3, 4], 3, &[1, 2, 3], &[]),
            (&[1, 2, 3, 4, 5], 3, &[2, 3, 4], &[1]),
            (&[1, 2, 3], 0, &[], &[1, 2]),
            // Back to 2: what ran last before it is 3.
            (&[1, 2, 3, 2], 1, &[3], &[1]),
        ] {
            let mut ledger = ran(ran_before);
            assert_eq!(numbers(ledger.kept(keep)), kept, "{ran_before:?} {keep}");
            assert_eq!(ledger.expire(keep), gone, "{ran_before:?} {keep}");
            assert_eq!(numbers(ledger.kept(keep)), kept, "{ran_before:?} {keep}");
        }
    }

    #[test]
    fn an_undo_goes_to_what_is_kept() {
        let ledger = ran(&[1, 2, 3, 4, 5]);
        assert_eq!(ledger.undo_target(None, 3).unwrap().number, 4);
        assert_eq!(ledger.undo_target(Some(2), 3).unwrap().number, 2);
        for number in [1, 5, 9] {
            let refused = ledger.undo_target(Some(number), 3).unwrap_err();
            assert_eq!(refused, Refused::NotKept { number, kept: vec![2, 3, 4] });
        }
        assert_eq!(ran(&[1]).undo_target(None, 3), Err(Refused::NothingKept { keep: 3 }));
    }

    #[test]
    fn an_undo_is_not_undone_by_the_file() {
        use crate::rollout::{Declared, Next, Wish};
        let mut ledger = ran(&[1, 2]);
        let settings = |strategy| Settings::new(strategy);
        let declared = Declared {
            digest: side(2).digest,
            settings: "{}".to_owned(),
            deploy: settings(Strategy::Deploy(Deploy::default())),
            reload: settings(Strategy::Reload(Reload::default())),
        };
        assert_eq!(ledger.wish(&declared), Wish::Present);
        ledger
            .command(Command::Undo, "anna", Undo::default(), &declared.deploy, Instances::default(), false, 5)
            .unwrap();
        assert_eq!(ledger.open().map(|rollout| rollout.to.number), Some(1));
        let next = ledger.follow(&declared, None, "reconcile", Instances::default(), &|_| false, 6);
        assert!(matches!(next, Next::Refuse(Obstacle::Refused, why) if why.starts_with("undone by anna")));
        let again = Declared { digest: side(3).digest, ..declared };
        let next = ledger.follow(&again, None, "reconcile", Instances::default(), &|_| false, 7);
        assert_eq!(next, Next::Create, "what is declared anew is");
    }

    #[test]
    fn a_refusal_is_of_content() {
        use std::time::Duration;

        use crate::rollout::strategy::CanaryStep;
        use crate::rollout::{Declared, Next};

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
        ledger.command(Command::Abort, "anna", Undo::default(), &tried.deploy, Instances::default(), false, 6).unwrap();
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
        // Other content is tried, and with it under way the refused one is by `retry` alone.
        let more = Declared { settings: r#"{"limits":{"sends":7}}"#.to_owned(), ..tried.clone() };
        assert_eq!(begin(&mut ledger, &more), Next::Rest);
        assert_eq!(ledger.rollouts.len(), 2);
        assert!(matches!(begin(&mut ledger, &tried), Next::Refuse(..)));
        ledger.command(Command::Retry, "anna", Undo::default(), &tried.deploy, Instances::default(), false, 7).unwrap();
        assert_eq!(begin(&mut ledger, &tried), Next::Rest);
        assert_eq!(ledger.open().map(|open| open.to.settings.as_str()), Some("{}"));
        let again =
            ledger.command(Command::Retry, "anna", Undo::default(), &tried.deploy, Instances::default(), false, 8);
        assert!(matches!(again, Err(Refused::UnderWay { .. })), "{again:?}");
    }

    #[test]
    fn a_retry_that_is_advised_is_followed() {
        let mut ledger = ran(&[1, 2]);
        let settings = Settings::new(Strategy::Undo);
        let command = |ledger: &mut Ledger, command| {
            ledger.command(command, "anna", Undo::default(), &settings, Instances::default(), false, 5)
        };
        // Also with no rollout on record.
        ledger.decline(side(3), None, "it traps".to_owned(), 1);
        let told = |ledger: &Ledger| ledger.told(&ledger.declined[0]);
        assert!(told(&ledger).ends_with("is not tried again until it changes or `caxton rollout retry`"));
        command(&mut ledger, Command::Retry).unwrap();
        assert!(ledger.declined.is_empty());
        // An undo goes on, and the advice says so.
        command(&mut ledger, Command::Undo).unwrap();
        assert!(told(&ledger).ends_with("`caxton rollout retry`, which has to wait for the end of the undo"));
        assert!(command(&mut ledger, Command::Retry).is_err());
    }

    #[test]
    fn commands_need_something_to_command() {
        let settings = Settings::new(Strategy::Undo);
        for command in [Command::Pause, Command::Resume, Command::Promote, Command::Abort, Command::Retry] {
            let answer = ran(&[1]).command(command, "anna", Undo::default(), &settings, Instances::default(), false, 5);
            assert_eq!(answer, Err(Refused::NoRollout), "{command:?}");
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut ledger = ran(&[1]);
        for number in 0..100_u64 {
            ledger.decline(side(number), None, "it traps".to_owned(), number);
            ledger.decline(side(number), None, "it traps".to_owned(), number);
        }
        assert_eq!(ledger.declined.len(), MAX_DECLINED);
        assert_eq!(ledger.declined[0].at, 80);
    }
}
