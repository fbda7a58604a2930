//! The ledger of an agent: its rollouts, the revisions kept, and what was refused.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::command::{Command, Refused, Undo};
use super::errors::Tally;
use super::settings::Settings;
use super::strategy::Strategy;
use super::undo::find;
use super::{CannotHold, Instances, Obstacle, Rollout, Side, Status};
use crate::format::Restored;
use crate::names::{AgentName, Digest};

/// The most rollouts kept of an agent, the one in progress included; the oldest are dropped.
pub const MAX_ROLLOUTS: usize = 50;

/// The most refusals kept of an agent; the oldest are dropped.
pub const MAX_DECLINED: usize = 20;

/// The initiator of a rollout back from a revision that failed for good.
const SUPERVISION: &str = "supervision";

/// The record of an agent. Stored as a whole whenever it changes; components, and the snapshots of handoffs, are stored
/// beside it by revision number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ledger {
    /// The agent.
    pub agent: AgentName,
    /// Its rollouts, oldest first. Only the last may be in progress. A record that this version cannot read is left
    /// out, so that the kept revisions are not lost with it.
    #[serde(deserialize_with = "crate::sparse::readable")]
    pub rollouts: Vec<Rollout>,
    /// The revisions that ran, in the order in which they last began to. The last one is running, and is the one that a
    /// host starts with, whatever was declared meanwhile.
    pub ran: Vec<Side>,
    /// Content that is not tried again until it changes or an operator asks for it.
    pub declined: Vec<Declined>,
    /// The id of the next rollout.
    next: u64,
    /// The latest failures of the running revision, for the comparison with the next one where it no longer runs
    /// beside.
    #[serde(default)]
    lately: Option<Lately>,
    /// The versions of the format that the state may hold; empty before any revision ran, and in a record from before
    /// formats were declared.
    #[serde(default)]
    holds: BTreeSet<u32>,
}

/// The latest failures of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Lately {
    /// The revision's number.
    revision: u64,
    /// Its recent messages and failures.
    #[serde(flatten)]
    tally: Tally,
}

/// A component with settings that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declined {
    /// The digest of the component.
    pub digest: Digest,
    /// The settings.
    #[serde(deserialize_with = "crate::sparse::deserialize")]
    pub settings: String,
    /// The strategy of the rollout; `None` if it ran and was undone, or failed for good.
    pub strategy: Option<Strategy>,
    /// The reason, for people to read.
    pub why: String,
    /// The time, in milliseconds since 1970.
    pub at: u64,
}

/// The parts of a ledger whose change requires storing it at once. Times and figures are stored with the next such
/// change.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    rollouts: u64,
    last: Option<(Status, usize, usize, u8, u8, bool)>,
    ran: Vec<u64>,
    declined: Vec<u64>,
}

impl Ledger {
    /// Returns the mark to compare after a change.
    pub fn mark(&self) -> Mark {
        let last = |r: &Rollout| (r.status, r.step, r.steps.len(), r.weight, r.reached, r.handed_over);
        Mark {
            rollouts: self.next,
            last: self.rollouts.last().map(last),
            ran: self.ran.iter().map(|side| side.number).collect(),
            declined: self.declined.iter().map(|declined| declined.at).collect(),
        }
    }

    /// Returns a revision that is kept or takes part in the rollout in progress.
    pub fn side(&self, number: u64) -> Option<&Side> {
        let open = self.open().into_iter().flat_map(|rollout| [&rollout.from, &rollout.to]);
        self.ran.iter().chain(open).find(|side| side.number == number)
    }

    /// Returns the highest revision number in the ledger; 0 without any.
    pub fn last_number(&self) -> u64 {
        let rolled = self.rollouts.iter().flat_map(|rollout| [rollout.from.number, rollout.to.number]);
        self.ran.iter().map(|side| side.number).chain(rolled).max().unwrap_or(0)
    }

    /// Forgets refusals of revisions that failed before they received messages, or failed for good. Those that did
    /// worse or were aborted stay refused.
    pub fn forgive(&mut self) {
        let failed: Vec<bool> = self.declined.iter().map(|declined| self.has_failed(declined)).collect();
        let mut failed = failed.into_iter();
        self.declined.retain(|_| !failed.next().unwrap_or(false));
    }

    /// Returns the refusal of this component with these settings. The strategy of the attempt does not matter: the
    /// content was refused.
    pub fn refused(&self, digest: Digest, settings: &str) -> Option<&Declined> {
        self.declined.iter().find(|known| known.digest == digest && known.settings == settings)
    }

    /// Returns the obstacle that a refusal stands for.
    pub fn obstacle_of(&self, declined: &Declined) -> Obstacle {
        if self.has_failed(declined) { Obstacle::Failed } else { Obstacle::Refused }
    }

    /// Returns `true` if the refused revision failed before it received messages, or failed for good.
    fn has_failed(&self, declined: &Declined) -> bool {
        let is = |side: &Side| (side.digest, &side.settings) == (declined.digest, &declined.settings);
        match declined.strategy {
            Some(_) => self.rollouts.iter().rfind(|r| is(&r.to)).is_some_and(|r| r.status == Status::Failed),
            None => self.rollouts.iter().rfind(|r| is(&r.from)).is_some_and(|r| r.who == SUPERVISION),
        }
    }

    /// Creates the ledger of an agent that never ran.
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

    /// Returns the rollout in progress.
    pub fn open(&self) -> Option<&Rollout> {
        self.rollouts.last().filter(|rollout| !rollout.status.is_terminal())
    }

    /// Returns the rollout in progress for a change. Call [`Ledger::settle`] afterwards.
    pub fn open_mut(&mut self) -> Option<&mut Rollout> {
        self.rollouts.last_mut().filter(|rollout| !rollout.status.is_terminal())
    }

    /// Returns ended rollouts whose lost messages have to be counted, with their first message. Considers only the last
    /// few, since each is counted right after its end.
    pub fn uncounted(&self) -> impl Iterator<Item = (u64, u64)> {
        let last = self.rollouts.iter().rev().take(3).filter(|rollout| rollout.status.is_terminal());
        last.filter(|rollout| rollout.figures.lost.is_none())
            .filter_map(|rollout| Some((rollout.id, rollout.after_message?)))
    }

    /// Records the messages lost during a rollout that has ended. Returns `true` if the number is new.
    pub fn count_lost(&mut self, rollout: u64, lost: u64) -> bool {
        let known = self.rollouts.iter_mut().find(|known| known.id == rollout);
        let Some(rollout) = known.filter(|rollout| rollout.status.is_terminal()) else { return false };
        rollout.figures.lost.replace(lost) != Some(lost)
    }

    /// Returns the versions of the format that the state may hold.
    pub fn holds(&self) -> BTreeSet<u32> {
        match self.current() {
            // A record from before formats were declared.
            Some(current) if self.holds.is_empty() => [current.format().version].into(),
            Some(_) | None => self.holds.clone(),
        }
    }

    /// Returns `true` if a revision ran and is remembered.
    pub fn has_run(&self, number: u64) -> bool {
        self.ran.iter().any(|side| side.number == number)
    }

    /// Returns the running revision.
    pub fn current(&self) -> Option<&Side> {
        self.ran.last()
    }

    /// Records a revision that runs without a rollout: an agent's first, or the one that a host started with.
    pub fn runs(&mut self, side: Side) {
        self.holds = self.holds().into_iter().chain([side.format().version]).collect();
        self.ran.retain(|ran| ran.number != side.number);
        self.ran.push(side);
    }

    /// Records the latest failures of a revision, if it is the running one. They also count for the rollout in
    /// progress, until all traffic has moved: the messages of a draining revision are no basis for comparison. Returns
    /// `true` if they are new.
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
            // Later failures of stable may be the candidate's doing.
            if rollout.weights.is_empty() {
                rollout.before = tally;
            }
        }
        true
    }

    /// Returns the latest failures of a revision; empty if unknown.
    pub fn figures_of(&self, revision: u64) -> Tally {
        self.lately.filter(|lately| lately.revision == revision).map(|lately| lately.tally).unwrap_or_default()
    }

    /// Begins a rollout from the running revision; `restores` is the kept state that an undo puts back.
    ///
    /// # Errors
    /// The strategy is impossible for this agent.
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

    /// Draws the conclusions from a rollout that has just ended. Returns `true` if it has. Call it whenever the rollout
    /// in progress was observed, commanded or superseded.
    pub fn settle(&mut self, now: u64) -> bool {
        let Some(rollout) = self.rollouts.last().filter(|rollout| rollout.status.is_terminal()) else { return false };
        let (to, why) = (rollout.to.clone(), rollout.why.clone());
        let strategy = rollout.settings.strategy.clone();
        let runs = match rollout.status {
            Status::Completed => true,
            // With nothing to go back to, a failed rollout leaves the candidate running.
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

    /// Records that this component with these settings is not to be tried again.
    pub fn decline(&mut self, side: Side, strategy: Option<Strategy>, why: String, at: u64) {
        let Side { digest, settings, .. } = side;
        let new = Declined { digest, settings, strategy, why, at };
        let same = |old: &Declined| (old.digest, &old.settings) == (new.digest, &new.settings);
        // The first refusal has the reason that explains it.
        if self.declined.iter().any(same) {
            return;
        }
        self.declined.push(new);
        if self.declined.len() > MAX_DECLINED {
            self.declined.remove(0);
        }
    }

    /// Carries out a command. An undo begins a rollout to an earlier revision; see [`undo`](Self::undo) for one that
    /// puts back a stored state. `settings` and `instances` are the declared ones, `stateful` is that of the running
    /// revision. A retry forgets refusals, and the declaration is rolled out again at the next planning.
    ///
    /// # Errors
    /// The command is not possible now.
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
        // A retry also replaces a rollout in progress if the declaration was refused, but never interrupts an undo.
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

    /// Forgets refusals.
    fn retry(&mut self) -> Result<(), Refused> {
        match self.rollouts.last().map(|rollout| rollout.status) {
            // A refused declaration may come back long after other rollouts.
            _ if !self.declined.is_empty() => {
                self.declined.clear();
                Ok(())
            }
            None => Err(Refused::NoRollout),
            Some(Status::Completed) => Err(Refused::Ended { status: Status::Completed.as_str() }),
            Some(_) => Ok(()),
        }
    }

    /// Returns the reason why a declaration is not tried, with the present way out: a retry does not interrupt an undo
    /// in progress.
    pub fn told(&self, declined: &Declined) -> String {
        let (why, short) = (&declined.why, declined.digest.short());
        let when = if self.undoes() { ", which has to wait for the end of the undo" } else { "" };
        format!("{why}; {short} is not tried again until it changes or `caxton rollout retry`{when}")
    }

    /// Returns `true` if an undo is in progress.
    fn undoes(&self) -> bool {
        self.open().is_some_and(|open| open.settings.strategy == Strategy::Undo)
    }

    /// Handles the failure for good of the running revision: begins a rollout to the last kept revision, if there is
    /// one (SPEC §7, supervision), and declines the failed one. Returns `true` if it did. Does nothing during a
    /// rollout.
    pub fn recover(&mut self, why: &str, settings: &Settings, instances: Instances, stateful: bool, now: u64) -> bool {
        if self.open().is_some() {
            return false;
        }
        // Going to one that failed before would loop.
        let refused = |side: &Side| self.refused(side.digest, &side.settings).is_some();
        // Nor one that cannot read what was written since it ran.
        let holds = self.holds();
        let readable = |side: &Side| side.format().unreadable(&holds).is_none();
        let kept = self.kept(settings.rollback.keep).iter().rev();
        let target = kept.into_iter().find(|side| !refused(side) && readable(side)).cloned();
        let (Some(target), Some(failed)) = (target, self.current().cloned()) else { return false };
        // No message is answered meanwhile, so a rehearsal would only prolong the outage.
        let settings = Settings { rehearse: 0, ..settings.with(Strategy::Undo) };
        let begun = self.begin(target, SUPERVISION, settings, instances, stateful, None, now).is_ok();
        if begun {
            self.decline(failed, None, why.to_owned(), now);
        }
        begun
    }

    /// Returns the target of an undo: `to`, or else the revision that ran before.
    ///
    /// # Errors
    /// The revision is not kept.
    pub fn undo_target(&self, to: Option<u64>, keep: u32) -> Result<&Side, Refused> {
        find(self.kept(keep), to, keep)
    }

    /// Returns the revisions that are kept for an undo, the latest last.
    pub fn kept(&self, keep: u32) -> &[Side] {
        let earlier = &self.ran[..self.ran.len().saturating_sub(1)];
        &earlier[earlier.len().saturating_sub(keep as usize)..]
    }

    /// Forgets revisions that are not kept any more and returns their numbers, so that their components and snapshots
    /// can be deleted. A rollout in progress keeps its own.
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
    fn the_latest_revisions_are_kept() {
        // ran, keep, kept, gone
        for (ran_before, keep, kept, gone) in [
            (&[][..], 3, &[][..], &[][..]),
            (&[1], 3, &[], &[]),
            (&[1, 2, 3, 4], 3, &[1, 2, 3], &[]),
            (&[1, 2, 3, 4, 5], 3, &[2, 3, 4], &[1]),
            (&[1, 2, 3], 0, &[], &[1, 2]),
            // Back on 2: the one before it is 3.
            (&[1, 2, 3, 2], 1, &[3], &[1]),
        ] {
            let mut ledger = ran(ran_before);
            assert_eq!(numbers(ledger.kept(keep)), kept, "{ran_before:?} {keep}");
            assert_eq!(ledger.expire(keep), gone, "{ran_before:?} {keep}");
            assert_eq!(numbers(ledger.kept(keep)), kept, "{ran_before:?} {keep}");
        }
    }

    #[test]
    fn an_undo_needs_a_kept_revision() {
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
    fn the_file_does_not_reverse_an_undo() {
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
    fn content_is_refused_under_any_strategy() {
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
        // Other content is tried; the refused content replaces it only after a `retry`.
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
    fn an_advised_retry_works() {
        let mut ledger = ran(&[1, 2]);
        let settings = Settings::new(Strategy::Undo);
        let command = |ledger: &mut Ledger, command| {
            ledger.command(command, "anna", Undo::default(), &settings, Instances::default(), false, 5)
        };
        // Also without a rollout on record.
        ledger.decline(side(3), None, "it traps".to_owned(), 1);
        let told = |ledger: &Ledger| ledger.told(&ledger.declined[0]);
        assert!(told(&ledger).ends_with("is not tried again until it changes or `caxton rollout retry`"));
        command(&mut ledger, Command::Retry).unwrap();
        assert!(ledger.declined.is_empty());
        // An undo continues, and the advice says so.
        command(&mut ledger, Command::Undo).unwrap();
        assert!(told(&ledger).ends_with("`caxton rollout retry`, which has to wait for the end of the undo"));
        assert!(command(&mut ledger, Command::Retry).is_err());
    }

    #[test]
    fn commands_need_a_rollout() {
        let settings = Settings::new(Strategy::Undo);
        for command in [Command::Pause, Command::Resume, Command::Promote, Command::Abort, Command::Retry] {
            let answer = ran(&[1]).command(command, "anna", Undo::default(), &settings, Instances::default(), false, 5);
            assert_eq!(answer, Err(Refused::NoRollout), "{command:?}");
        }
    }

    #[test]
    fn refusals_are_bounded() {
        let mut ledger = ran(&[1]);
        for number in 0..100_u64 {
            ledger.decline(side(number), None, "it traps".to_owned(), number);
            ledger.decline(side(number), None, "it traps".to_owned(), number);
        }
        assert_eq!(ledger.declined.len(), MAX_DECLINED);
        assert_eq!(ledger.declined[0].at, 80);
    }
}
