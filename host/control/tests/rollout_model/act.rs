//! The execution of actions in the model, with the invariants.

use caxton_control::AgentName;
use caxton_control::format::Conversion;
use caxton_control::lifecycle::RevisionState;
use caxton_control::rollout::{
    ComparisonCounts, DeployStrategy, FailureCounts, MAX_CONCURRENT_ROLLOUTS, RehearsalState, RehearsalSummary,
    ReloadStrategy, RolloutAction, Status, StoredRevision, Strategy,
};

use super::{Agent, Broken, Bug, Rev, Work, World, ensure, id, is, measured};

impl World {
    /// Applies one action.
    pub(crate) fn apply(&mut self, name: &AgentName, action: &RolloutAction) -> Result<(), Broken> {
        let (now, bug) = (self.now, self.bug);
        let agent = self.agents.get_mut(name).unwrap();
        agent.apply(action, now, bug)?;
        agent.flow();
        agent.holds()
    }

    /// Ends the work of a revision.
    pub(crate) fn finish(&mut self, name: &AgentName, number: u64, result: Result<(), &str>) -> Result<(), Broken> {
        let now = self.now;
        let agent = self.agents.get_mut(name).unwrap();
        agent.finish(number, result, now)?;
        agent.flow();
        agent.holds()
    }

    /// Lets `count` messages arrive.
    pub(crate) fn take(&mut self, name: &AgentName, count: u32) {
        let agent = self.agents.get_mut(name).unwrap();
        agent.waiting += count;
        agent.flow();
    }

    /// Lets a revision answer `count` of its messages in flight.
    pub(crate) fn answer(&mut self, name: &AgentName, number: u64, count: u32) -> Result<(), Broken> {
        let agent = self.agents.get_mut(name).unwrap();
        agent.answer(number, count)?;
        agent.flow();
        Ok(())
    }

    /// Checks the invariants of a host at rest.
    pub(crate) fn rests(&mut self) -> Result<(), Broken> {
        let mut begun = 0;
        for (name, agent) in &mut self.agents {
            agent.holds()?;
            if let Some(rollout) = agent.ledger.open() {
                let works = matches!(rollout.status, Status::Preparing | Status::Starting);
                begun += usize::from(works || rollout.status == Status::InProgress && !rollout.has_moved());
                let waits = !agent.waits.is_empty();
                ensure(waits, || format!("{name} is {} and says nothing", rollout.status.as_str()))?;
            } else {
                ensure(!agent.paused, || format!("{name} is paused for nothing"))?;
                ensure(!agent.shadowed, || format!("{name} makes copies for nothing"))?;
            }
            agent.ended_stay()?;
        }
        // Resumed rollouts may exceed the bound, and a rollback never waits.
        let paused = self.agents.values().flat_map(|agent| &agent.ledger.rollouts).any(|r| r.why.contains("resumed"));
        ensure(begun <= MAX_CONCURRENT_ROLLOUTS || paused || self.resumed, || format!("{begun} rollouts go at a time"))
    }
}

impl Agent {
    fn rev(&mut self, number: u64) -> Result<&mut Rev, Broken> {
        self.revisions.get_mut(&number).ok_or_else(|| format!("there is no @{number}"))
    }

    fn idle(&mut self, number: u64) -> Result<&mut Rev, Broken> {
        let rev = self.rev(number)?;
        ensure(rev.work.is_none(), || format!("@{number} is touched while it is busy"))?;
        Ok(rev)
    }

    fn go(&mut self, number: u64, to: RevisionState, now: u64) -> Result<(), Broken> {
        let rev = self.rev(number)?;
        rev.seen.state = rev.seen.state.transition(to).map_err(|error| format!("@{number}: {error}"))?;
        rev.seen.since = now;
        Ok(())
    }

    fn apply(&mut self, action: &RolloutAction, now: u64, bug: Option<Bug>) -> Result<(), Broken> {
        match action {
            RolloutAction::Revive { revision } => self.revive(revision.number, now),
            RolloutAction::Prepare { revision, instances } => {
                let rev = self.idle(revision.number)?;
                ensure(rev.seen.state == RevisionState::Unloaded, || {
                    format!("{revision} is prepared as {}", rev.seen.state)
                })?;
                rev.work = Some(Work::Prepare { instances: *instances });
                if bug == Some(Bug::WeighsUnready) {
                    self.shares.insert(revision.number, 5);
                }
                Ok(())
            }
            RolloutAction::Start { revision, instances } => {
                let rev = self.idle(revision.number)?;
                rev.seen.instances = *instances;
                Ok(())
            }
            RolloutAction::Cap { revision, instances } => {
                let rev = self.rev(revision.number)?;
                rev.seen.instance_limit = *instances;
                rev.seen.instances = instances.unwrap_or(rev.seen.instances).min(rev.seen.instances);
                Ok(())
            }
            RolloutAction::Probe { revision } => self.begin(revision.number, Work::Probe),
            RolloutAction::Rehearse { revision, .. } => self.begin(revision.number, Work::Rehearse),
            RolloutAction::Shadow { on: false, .. } if bug == Some(Bug::ShadowStays) => Ok(()),
            RolloutAction::Shadow { revision, on } => {
                ensure(self.rev(revision.number)?.seen.state == RevisionState::Ready || !on, || {
                    "copies go to what is not ready".to_owned()
                })?;
                self.shadowed = *on;
                Ok(())
            }
            RolloutAction::Weigh { stable, candidate, percent } => {
                let percent = if bug == Some(Bug::TooMuch) { percent.saturating_mul(3) } else { *percent };
                self.weigh(stable.number, candidate.number, percent, now, bug)
            }
            RolloutAction::Pause { .. } => {
                self.paused = true;
                Ok(())
            }
            RolloutAction::Resume { .. } if bug == Some(Bug::NoResume) => Ok(()),
            RolloutAction::Resume { .. } => {
                let moves = self.revisions.values().any(|rev| matches!(rev.work, Some(Work::Handoff | Work::Convert)));
                ensure(!moves, || "messages are handled while the memory moves".to_owned())?;
                ensure(!self.unfinished, || "messages are handled while the state is unfinished".to_owned())?;
                self.paused = false;
                Ok(())
            }
            RolloutAction::Handoff { revision, conversion, .. } => {
                ensure(self.paused, || "memory is saved while messages are handled".to_owned())?;
                if bug == Some(Bug::HandsOffBusy) {
                    self.paused = false;
                    self.waiting += 1;
                    self.flow();
                }
                let current: Vec<u64> = self.shares.iter().filter(|(_, share)| **share > 0).map(|(n, _)| *n).collect();
                for number in current {
                    let in_flight = self.rev(number)?.seen.in_flight;
                    ensure(in_flight == 0, || format!("memory is saved with {in_flight} in flight"))?;
                }
                self.begin(revision.number, Work::Handoff)?;
                conversion.as_ref().map_or(Ok(()), |conversion| self.convert(conversion))
            }
            RolloutAction::KeepState { revision } => self.begin(revision.number, Work::KeepState),
            RolloutAction::Convert { revision, conversion } => {
                ensure(self.paused, || "the state is converted while messages are handled".to_owned())?;
                let running = self.shares.keys().filter_map(|number| self.revisions.get(number));
                let in_flight: u32 = running.map(|rev| rev.seen.in_flight).sum();
                ensure(in_flight == 0, || format!("the state is converted with {in_flight} in flight"))?;
                self.begin(revision.number, Work::Convert)?;
                self.convert(conversion)
            }
            RolloutAction::RestoreState { revision } => {
                ensure(self.unfinished && self.paused, || "a state is put back that is in use".to_owned())?;
                let kept = self.copies.get(&revision.number);
                self.data = kept.ok_or_else(|| format!("the state of {revision} is not kept"))?.clone();
                self.unfinished = false;
                Ok(())
            }
            RolloutAction::TakeBack { revision, conversion } => {
                ensure(self.snapshots.contains_key(&revision.number) || self.is_undo(), || {
                    format!("{revision} takes back what it never handed over")
                })?;
                self.begin(revision.number, Work::TakeBack)?;
                conversion.as_ref().map_or(Ok(()), |conversion| self.convert(conversion))
            }
            RolloutAction::Stop { revision } => self.stop(revision.number, now),
        }
    }

    fn is_undo(&self) -> bool {
        self.ledger.open().is_some_and(|rollout| rollout.settings.strategy == Strategy::Undo)
    }

    fn revive(&mut self, number: u64, now: u64) -> Result<(), Broken> {
        let is_there = self.revisions.get(&number).is_some_and(|rev| !rev.seen.state.is_terminal());
        ensure(!is_there, || format!("@{number} is brought back and stands"))?;
        ensure(self.store.contains_key(&number), || format!("@{number} is kept no more"))?;
        let rev = self.fresh(number, now);
        self.revisions.insert(number, rev);
        Ok(())
    }

    fn begin(&mut self, number: u64, work: Work) -> Result<(), Broken> {
        let rev = self.idle(number)?;
        let stands = matches!(rev.seen.state, RevisionState::Ready | RevisionState::Running | RevisionState::Draining);
        ensure(stands, || format!("{work:?} of @{number}, which is {}", rev.seen.state))?;
        rev.work = Some(work);
        Ok(())
    }

    /// Splits traffic and moves the revisions to the states that follow.
    fn weigh(&mut self, stable: u64, candidate: u64, percent: u8, now: u64, bug: Option<Bug>) -> Result<(), Broken> {
        let moves = self.revisions.values().any(|rev| rev.work == Some(Work::Handoff));
        ensure(!moves, || "traffic moves while the memory does".to_owned())?;
        ensure(percent <= 100, || format!("{percent}% and what is left of 100 are more than 100"))?;
        let percent = if bug == Some(Bug::SplitsMemory) && percent == 100 { 60 } else { percent };
        let lost = bug == Some(Bug::LosesTraffic) && percent == 0;
        for (number, share) in [(stable, 100 - percent), (candidate, percent)] {
            let share = if lost { 0 } else { share };
            if share > 0 {
                let rev = self.rev(number)?;
                if rev.seen.state != RevisionState::Running {
                    self.go(number, RevisionState::Running, now)?;
                }
            } else if self.revisions.get(&number).is_some_and(|rev| rev.seen.state == RevisionState::Running) {
                self.go(number, RevisionState::Draining, now)?;
            }
            self.shares.insert(number, share);
        }
        self.shares.retain(|_, share| *share > 0);
        if bug == Some(Bug::StopsWithTraffic) && percent > 0 && percent < 100 {
            self.stop(stable, now)?;
        }
        if bug == Some(Bug::NoDrain) && percent == 100 {
            self.stop(stable, now)?;
        }
        Ok(())
    }

    fn stop(&mut self, number: u64, now: u64) -> Result<(), Broken> {
        let share = self.shares.get(&number).copied().unwrap_or(0);
        let drain = self.declared.reload.drain.as_millis() as u64;
        let at_once = self.ledger.open().is_some_and(|rollout| {
            let immediate = matches!(
                rollout.settings.strategy,
                Strategy::Deploy(DeployStrategy::Immediate) | Strategy::Reload(ReloadStrategy::Immediate)
            );
            immediate && rollout.from.number == number
        });
        let rev = self.idle(number)?;
        ensure(share == 0 && rev.seen.state != RevisionState::Running, || {
            format!("@{number} is stopped with {share}% of the traffic")
        })?;
        let over = now >= rev.seen.since + drain;
        let in_flight = std::mem::take(&mut rev.seen.in_flight);
        ensure(in_flight == 0 || over || at_once, || {
            format!("@{number} is stopped with {in_flight} in flight before its deadline")
        })?;
        rev.seen.instances = 0;
        let to = if rev.seen.state.can_stop() { RevisionState::Stopped } else { RevisionState::failed("superseded") };
        self.go(number, to, now)?;
        self.waiting += in_flight;
        Ok(())
    }

    fn finish(&mut self, number: u64, result: Result<(), &str>, now: u64) -> Result<(), Broken> {
        let migrates = self.migrates();
        let rev = self.rev(number)?;
        let Some(work) = rev.work.take() else { return Err(format!("@{number} is not busy")) };
        let digest = rev.digest;
        let bad = |what: &str| is(digest, what);
        let why = match work {
            Work::Prepare { .. } if bad("unready") => Some("it traps as it starts"),
            Work::Handoff if bad("forgets") => Some("it refused to restore"),
            Work::Handoff | Work::Convert if bad("stumbles") && migrates => Some("its migration failed"),
            _ => result.err(),
        };
        match (work, why) {
            (Work::Probe, why) => {
                // The probes of `faints` fail only under traffic.
                let well =
                    why.is_none() && !bad("sick") && !(bad("faints") && rev.seen.state == RevisionState::Running);
                if let Some(probes) = &mut rev.seen.probes {
                    probes.count(well, now);
                }
                if self.ledger.open().is_some_and(|rollout| rollout.to.number == number) {
                    let window = &mut self.windows.candidate;
                    *(if well { &mut window.probes_passed } else { &mut window.probes_failed }) += 1;
                }
            }
            (Work::Rehearse | Work::KeepState, Some(_)) => {}
            (Work::Rehearse, None) => {
                let failed = "message 17: it traps".to_owned();
                let alike = if bad("other") { 1 } else { 25 };
                let answers = RehearsalSummary { alike, otherwise: 25 - alike, ..RehearsalSummary::default() };
                let rehearsal =
                    if bad("unrehearsed") { RehearsalState::Failed(failed) } else { RehearsalState::Passed(answers) };
                // The rehearsal of a superseded candidate says nothing about its successor.
                if self.ledger.open().is_some_and(|rollout| rollout.to.number == number) {
                    self.rehearsal = rehearsal;
                }
            }
            (Work::TakeBack, Some(_)) => {}
            (Work::Prepare { .. } | Work::Handoff | Work::Convert, Some(why)) => {
                rev.seen.instances = 0;
                self.go(number, RevisionState::failed(why), now)?;
            }
            (Work::Prepare { instances }, None) => {
                (rev.seen.stateful, rev.seen.migrates) = (bad("memory"), bad("migrates"));
                rev.seen.instances = instances;
                self.go(number, RevisionState::Loaded, now)?;
                self.go(number, RevisionState::Ready, now)?;
            }
            (Work::Handoff, None) => {
                let (old, _) = self.shares.iter().next().map(|(n, s)| (*n, *s)).ok_or("nobody hands over")?;
                self.snapshots.insert(old, self.memory);
                self.converted();
                self.weigh(old, number, 100, now, None)?;
            }
            (Work::KeepState, None) => {
                self.copies.insert(number, self.data.clone());
                self.state_kept = self.ledger.open().map(|rollout| rollout.id);
            }
            (Work::Convert, None) => {
                let old = self.shares.keys().next().copied().unwrap_or(number);
                self.converted();
                self.weigh(old, number, 100, now, None)?;
            }
            (Work::TakeBack, None) => {
                self.converted();
                self.memory = self.snapshots.get(&number).copied().unwrap_or(0);
                let others: Vec<u64> = self.shares.keys().copied().filter(|other| *other != number).collect();
                for other in others {
                    // Messages in flight are interrupted first, and handled again by the other revision.
                    self.waiting += std::mem::take(&mut self.rev(other)?.seen.in_flight);
                    self.weigh(number, other, 0, now, None)?;
                }
                if self.shares.is_empty() {
                    self.go(number, RevisionState::Running, now)?;
                    self.shares = [(number, 100)].into();
                }
            }
        }
        Ok(())
    }

    /// Returns `true` if the rollout in progress migrates the state.
    fn migrates(&self) -> bool {
        let conversion = self.ledger.open().and_then(|rollout| rollout.conversion.as_ref());
        conversion.is_some_and(|conversion| conversion.migrates)
    }

    /// Stores a copy of the state and begins to convert it.
    fn convert(&mut self, conversion: &Conversion) -> Result<(), Broken> {
        let stable = self.ledger.open().map(|rollout| rollout.from.number).ok_or("no rollout converts the state")?;
        if !self.unfinished {
            self.copies.insert(stable, self.data.clone());
        }
        self.unfinished = true;
        if conversion.migrates {
            self.data.insert(conversion.to);
        }
        Ok(())
    }

    /// Ends the conversion.
    fn converted(&mut self) {
        if !std::mem::take(&mut self.unfinished) {
            return;
        }
        let Some(rollout) = self.ledger.open() else { return };
        self.converted = Some(rollout.id);
        match &rollout.conversion {
            Some(Conversion { restores: Some(restored), .. }) => self.data = self.copies[&restored.revision].clone(),
            Some(Conversion { migrates: true, to, .. }) => self.data = [*to].into(),
            Some(_) | None => {}
        }
    }

    /// Distributes queued messages to the running revisions by weight.
    fn flow(&mut self) {
        while self.waiting > 0 && !self.paused {
            let place = (self.dealt * 37 % 100) as u8;
            let mut above = 0;
            let to = self.shares.iter().find(|(_, share)| {
                above += **share;
                place < above
            });
            let Some(rev) = to.and_then(|(number, _)| self.revisions.get_mut(number)) else { return };
            if rev.seen.state != RevisionState::Running {
                return;
            }
            rev.seen.in_flight += 1;
            self.waiting -= 1;
            self.dealt += 1;
        }
    }

    fn answer(&mut self, number: u64, count: u32) -> Result<(), Broken> {
        let rev = self.rev(number)?;
        let count = count.min(rev.seen.in_flight);
        rev.seen.in_flight -= count;
        let (digest, state) = (rev.digest, rev.seen.state.clone());
        if count > 0 {
            let settings = self.store[&number].1.clone();
            let format = StoredRevision { number, digest, settings }.format();
            let met = format.unreadable(&self.data);
            ensure(met.is_none(), || format!("@{number} meets version {met:?} of the state, and cannot read it"))?;
            self.data.insert(format.version);
        }
        self.memory += u64::from(count) * u64::from(state == RevisionState::Running);
        let tally = self.tallies.entry(number).or_default();
        *tally = measured(digest, u64::from(count), tally);
        self.ledger.record_failures(number, FailureCounts::new(tally.messages, tally.faults));
        let Some(rollout) = self.ledger.open() else { return Ok(()) };
        let (from, to) = (rollout.from.number, rollout.to.number);
        let new = self.revisions.get(&to).map(|rev| rev.digest);
        if number == from {
            self.windows.stable = measured(digest, u64::from(count), &self.windows.stable);
            if new.is_some_and(|new| is(new, "spoils")) {
                self.windows.stable.faults = self.windows.stable.messages / 2;
            }
            self.figures.stable_messages += u64::from(count);
            if let (true, Some(new)) = (self.shadowed, new) {
                let ComparisonCounts { copies, alike, set_aside } = self.compared;
                let like = if is(new, "unlike") { count / 2 } else { count };
                let (copies, alike) = (copies + u64::from(count), alike + u64::from(like));
                self.compared = ComparisonCounts { copies, alike, set_aside };
                // Shadow instances belong to the candidate and use its memory, but copies are none of its messages.
                self.windows.candidate.memory_bytes = measured(new, 0, &self.windows.candidate).memory_bytes;
            }
        } else if number == to {
            self.windows.candidate = measured(digest, u64::from(count), &self.windows.candidate);
            self.figures.candidate_messages += u64::from(count);
        }
        Ok(())
    }

    /// Checks the invariants of every moment.
    fn holds(&self) -> Result<(), Broken> {
        let all: u32 = self.shares.values().map(|share| u32::from(*share)).sum();
        ensure(all == 100 || self.shares.is_empty(), || format!("the weights are {all}"))?;
        for (number, share) in &self.shares {
            let rev = self.revisions.get(number).ok_or_else(|| format!("@{number} has {share}% and is not there"))?;
            // A revision that failed by itself keeps its share until the rollout takes it.
            let takes = matches!(rev.seen.state, RevisionState::Running | RevisionState::Failed { .. });
            ensure(takes, || format!("@{number} has {share}% and is {}", rev.seen.state))?;
            ensure(*share == 100 || !rev.seen.stateful, || format!("@{number} keeps memory and has {share}%"))?;
        }
        for (number, rev) in &self.revisions {
            let share = self.shares.contains_key(number);
            ensure(share || rev.seen.state != RevisionState::Running, || format!("@{number} runs without traffic"))?;
        }
        // Once a revision has served, one always does, unless it fails by itself.
        let stands = self.revisions.values().any(|rev| rev.seen.state == RevisionState::Draining);
        let failed = self.revisions.values().any(|rev| matches!(rev.seen.state, RevisionState::Failed { .. }));
        ensure(!self.shares.is_empty() || !stands || failed, || "nobody has the traffic".to_owned())
    }

    /// Checks that ended rollouts do not change.
    fn ended_stay(&mut self) -> Result<(), Broken> {
        for rollout in &self.ledger.rollouts {
            if !rollout.status.is_terminal() {
                continue;
            }
            match self.ended.get(&rollout.id) {
                Some(first) => ensure(first == rollout, || {
                    format!("rollout {} ended and moves: {first:?}, {rollout:?}", rollout.id)
                })?,
                None => _ = self.ended.insert(rollout.id, rollout.clone()),
            }
        }
        Ok(())
    }

    /// Breaks a running revision for good.
    pub(crate) fn break_down(&mut self, number: u64, now: u64) -> Result<(), Broken> {
        self.go(number, RevisionState::failed("its instances do not start"), now)?;
        let rev = self.rev(number)?;
        let in_flight = std::mem::take(&mut rev.seen.in_flight);
        (rev.work, rev.seen.instances) = (None, 0);
        self.waiting += in_flight;
        Ok(())
    }

    /// Returns the numbers of the busy revisions.
    pub(crate) fn busy(&self) -> Vec<u64> {
        self.revisions.iter().filter(|(_, rev)| rev.work.is_some()).map(|(number, _)| *number).collect()
    }

    /// Plants a defect in the stored state.
    pub(crate) fn corrupt(&mut self) {
        if let Some(rollout) = self.ledger.rollouts.iter_mut().find(|rollout| rollout.status.is_terminal()) {
            rollout.why.push('!');
        }
    }

    /// Returns the revision's id for messages.
    pub(crate) fn id(&self, number: u64) -> String {
        id(&self.ledger.agent, number).to_string()
    }
}
