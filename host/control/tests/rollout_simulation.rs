//! A simulation of rollouts under random input: declarations, commands and strategies that change, work that fails,
//! messages that never end, time that jumps, hosts that restart at any point. After every step the model in
//! `rollout_model/` checks the invariants; once declarations rest, the host has to become as declared, or give the
//! reason why not, in a bounded number of steps.
//!
//! A failure prints its seed and its steps; `SEED=n` runs that seed alone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod rollout_model;

use std::time::Duration;

use caxton_control::AgentName;
use caxton_control::lifecycle::RevisionState;
use caxton_control::rollout::strategy::{Batch, CanaryStep};
use caxton_control::rollout::{
    DeclarationStatus, DeclaredRevision, DeployStrategy, ReloadStrategy, RolloutCommand, RolloutSettings, Status, Step,
    Strategy, UndoOptions,
};
use rollout_model::{Agent, Broken, Bug, World, digest, is, show};

const SEEDS: u64 = 10_000;
/// The number of random steps before declarations rest.
const STEPS: usize = 32;
/// The bound on planning rounds for one wake: a plan that needs more runs in circles.
const MAX_ROUNDS: usize = 60;
/// The bound on steps after declarations rest: with more, the declared state is never reached.
const MAX_SETTLING: usize = 600;

/// The generator SplitMix64: small, and equal on every platform.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

struct Run {
    world: World,
    chance: Chance,
    told: Vec<String>,
}

const NAMES: [&str; 7] = ["anna", "bert", "cleo", "dora", "emil", "fred", "gina"];

impl Run {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut run = Self { world: World::new(bug), chance: Chance(seed), told: Vec::new() };
        // Rarely so many that some rollouts have to wait for their turn.
        let agents = if run.chance.one_in(8) { NAMES.len() } else { 1 + run.chance.below(2) };
        for name in NAMES.iter().take(agents) {
            let name: AgentName = name.parse().unwrap();
            let bytes = run.chance.pick(&["v1", "v1", "memory-1"]);
            let (deploy, reload) = (run.deploy(), run.reload());
            let instances = u32::try_from(run.chance.below(6)).unwrap();
            run.told.push(format!("{name} {bytes} {deploy:?} {reload:?} {instances}"));
            let mut agent = Agent::new(&name, bytes, deploy, reload, instances, run.world.now);
            run.adjust(&mut agent);
            run.world.agents.insert(name, agent);
        }
        run
    }

    fn deploy(&mut self) -> DeployStrategy {
        let weight = |percent, seconds| CanaryStep::Weight { percent, hold: Duration::from_secs(seconds) };
        match self.chance.below(6) {
            0 => DeployStrategy::Immediate,
            1 => DeployStrategy::Rolling { batch: Batch::Count(2) },
            2 => DeployStrategy::Rolling { batch: Batch::Percent(30) },
            3 => DeployStrategy::BlueGreen { keep_warm: Duration::from_secs(40) },
            4 => DeployStrategy::Canary { steps: vec![weight(10, 7), CanaryStep::Pause, weight(60, 31)] },
            _ => DeployStrategy::Canary { steps: vec![weight(50, 5), weight(100, 9)] },
        }
    }

    fn reload(&mut self) -> ReloadStrategy {
        match self.chance.below(4) {
            0 => ReloadStrategy::Graceful,
            1 => ReloadStrategy::Immediate,
            2 => ReloadStrategy::parallel(),
            _ => ReloadStrategy::TrafficSplitting { steps: vec![5, 50, 100], every: Duration::from_secs(6) },
        }
    }

    fn adjust(&mut self, agent: &mut Agent) {
        let (rehearse, min_messages) = (self.chance.pick(&[0, 0, 20]), self.chance.pick(&[0, 5, 20]));
        let (automatic, memory) = (!self.chance.one_in(6), self.chance.one_in(2));
        let DeclaredRevision { deploy, reload, .. } = &mut agent.declared;
        for settings in [deploy, reload] {
            settings.rehearse = rehearse;
            settings.rollback.min_messages = min_messages;
            settings.rollback.automatic = automatic;
            settings.rollback.memory_bytes = memory.then_some(256 << 20);
        }
    }

    /// Runs the whole simulation: random steps, then rest.
    fn all(&mut self) -> Result<(), Broken> {
        for _ in 0..STEPS {
            self.step()?;
            self.reconcile()?;
        }
        self.told.push("wishes rest".to_owned());
        self.settle()
    }

    fn agent(&mut self) -> AgentName {
        let names: Vec<AgentName> = self.world.agents.keys().cloned().collect();
        names[self.chance.below(names.len())].clone()
    }

    /// Takes one random step.
    fn step(&mut self) -> Result<(), Broken> {
        let name = self.agent();
        match self.chance.below(24) {
            0..4 => self.wish(&name),
            4..11 => {
                for number in self.world.agents[&name].busy() {
                    let fails = self.chance.one_in(5);
                    self.told.push(format!("{name}@{number}: {}", if fails { "fails" } else { "done" }));
                    self.world.finish(&name, number, if fails { Err("no luck") } else { Ok(()) })?;
                }
            }
            11..14 => {
                let count = self.chance.pick(&[1, 7, 60]);
                self.told.push(format!("{count} for {name}"));
                self.world.take(&name, count);
            }
            14..18 => {
                let count = self.chance.pick(&[1, 5, 1_000]);
                let numbers: Vec<u64> = self.world.agents[&name].revisions.keys().copied().collect();
                for number in numbers {
                    self.world.answer(&name, number, count)?;
                }
                self.told.push(format!("{name} answers {count}"));
            }
            18 | 19 => {
                let seconds = self.chance.pick(&[1, 7, 31, 90, 400]);
                self.told.push(format!("after {seconds} s"));
                self.world.now += seconds * 1_000;
            }
            20 | 21 => {
                use RolloutCommand::{Abort, Pause, Promote, Resume, Retry, Undo};
                let command = self.chance.pick(&[Pause, Resume, Resume, Promote, Promote, Abort, Retry, Undo]);
                let (restore_state, rehearse) = (self.chance.one_in(2), self.chance.one_in(2));
                let undo = caxton_control::rollout::UndoOptions { to: None, rehearse, restore_state };
                let answer = self.world.command(&name, command, undo);
                self.told.push(format!("{command:?} {name}: {answer:?}"));
            }
            22 => {
                let agent = &self.world.agents[&name];
                let runs = |number: &u64| agent.revisions[number].seen.state == RevisionState::Running;
                let running: Vec<u64> = agent.shares.keys().copied().filter(runs).collect();
                if agent.ledger.open().is_some() && !running.is_empty() && self.chance.one_in(3) {
                    let number = self.chance.pick(&running);
                    self.told.push(format!("{name}@{number} breaks down"));
                    let now = self.world.now;
                    self.world.agents.get_mut(&name).unwrap().break_down(number, now)?;
                }
            }
            _ => {
                if self.chance.one_in(2) {
                    self.told.push("restart".to_owned());
                    self.world.restart();
                }
                if self.world.bug == Some(Bug::EndedMoves) {
                    self.world.agents.get_mut(&name).unwrap().corrupt();
                }
            }
        }
        Ok(())
    }

    /// Changes the file.
    fn wish(&mut self, name: &AgentName) {
        let bytes = self.chance.pick(&[
            "v2",
            "v3",
            "v4",
            "memory-2",
            "memory-3",
            "memory-forgets",
            "traps",
            "slow",
            "leaks",
            "unready",
            "sick",
            "faints",
            "memory-faints",
            "unlike",
            "unrehearsed",
            "probeless",
            "migrates",
            "memory-migrates",
            "migrates-stumbles",
            "memory-migrates-stumbles",
        ]);
        // Rarely: most changes of the format are refused, and refused rollouts test little.
        let formats = [
            "{\"state\":{\"reads\":[0],\"version\":1}}",
            "{\"state\":{\"reads\":[1]}}",
            "{\"state\":{\"reads\":[0,1],\"version\":2}}",
            "{\"state\":{\"version\":2}}",
        ];
        let config = if self.chance.one_in(4) {
            self.chance.pick(&formats)
        } else {
            self.chance.pick(&["{}", "{}", "{\"mood\":\"calm\"}"])
        };
        let (deploy, reload) = (self.deploy(), self.reload());
        self.told.push(format!("declare {name} {bytes} {config} {deploy:?} {reload:?}"));
        let mut agent = self.world.agents.remove(name).unwrap();
        agent.declared = DeclaredRevision {
            digest: digest(bytes),
            settings: config.to_owned(),
            deploy: RolloutSettings::new(Strategy::Deploy(deploy)),
            reload: RolloutSettings::new(Strategy::Reload(reload)),
        };
        self.adjust(&mut agent);
        self.world.agents.insert(name.clone(), agent);
    }

    /// Plans and acts until no further action is safe. The actions of one plan are applied in random order. Some fail,
    /// which equals not having asked for them, and the host may be killed between two.
    fn reconcile(&mut self) -> Result<(), Broken> {
        for _ in 0..MAX_ROUNDS {
            let mut actions = self.world.plan()?;
            self.told.extend(self.world.created.iter().map(|created| format!("  {created}")));
            if actions.is_empty() {
                return self.world.rests();
            }
            for at in (1..actions.len()).rev() {
                actions.swap(at, self.chance.below(at + 1));
            }
            for (name, action) in actions {
                if self.chance.one_in(20) {
                    self.told.push(format!("  fails: {}", show::action(&action)));
                    continue;
                }
                self.told.push(format!("  {}", show::action(&action)));
                self.world.apply(&name, &action)?;
                if self.chance.one_in(150) {
                    self.told.push("  killed".to_owned());
                    self.world.restart();
                    break;
                }
            }
        }
        Err("the plan chases its tail".to_owned())
    }

    /// Checks that the host comes to rest once no declaration changes, operators let every rollout continue, and
    /// messages arrive.
    fn settle(&mut self) -> Result<(), Broken> {
        for _ in 0..MAX_SETTLING {
            self.reconcile()?;
            let busy = self.world.agents.iter().find_map(|(name, agent)| Some((name.clone(), *agent.busy().first()?)));
            if let Some((name, number)) = busy {
                self.told.push(format!("{name}@{number}: done"));
                self.world.finish(&name, number, Ok(()))?;
                continue;
            }
            let names: Vec<AgentName> = self.world.agents.keys().cloned().collect();
            for name in &names {
                match self.world.agents[name].ledger.open().map(|rollout| rollout.status) {
                    Some(Status::Paused) => {
                        let command =
                            if self.chance.one_in(2) { RolloutCommand::Promote } else { RolloutCommand::Resume };
                        _ = self.world.command(name, command, UndoOptions::default());
                    }
                    // A rollout that is refused and does not go back by itself waits for a person.
                    Some(Status::InProgress) if self.chance.one_in(40) => {
                        _ = self.world.command(name, RolloutCommand::Promote, UndoOptions::default());
                    }
                    _ => {}
                }
                self.world.take(name, 30);
                for number in self.world.agents[name].revisions.keys().copied().collect::<Vec<_>>() {
                    self.world.answer(name, number, u32::MAX)?;
                }
            }
            let open = self.world.agents.values().any(|agent| agent.ledger.open().is_some());
            let draining = self.world.look_again_in.is_some();
            if !open && !draining {
                self.reconcile()?;
                if self.world.agents.values().all(|agent| agent.ledger.open().is_none() && agent.busy().is_empty()) {
                    return self.is_as_declared();
                }
            }
            let after = self.world.look_again_in.unwrap_or(Duration::from_secs(1));
            self.world.now += after.as_millis().max(1) as u64;
        }
        Err("it never comes to rest".to_owned())
    }

    /// Checks that what is declared runs, or that the reason is given, and that nothing else is left.
    fn is_as_declared(&self) -> Result<(), Broken> {
        for (name, agent) in &self.world.agents {
            if agent.is_down() && !agent.waits.is_empty() {
                continue;
            }
            let current = agent.ledger.current().unwrap();
            let runs: Vec<u64> = agent.shares.keys().copied().collect();
            if runs != [current.number] || agent.revisions.len() != 1 {
                return Err(format!("{name} is left with {runs:?}, @{} runs", current.number));
            }
            let wish = agent.ledger.compare_declaration(&agent.declared);
            let told = !agent.waits.is_empty();
            match wish {
                DeclarationStatus::Current if !told => {}
                DeclarationStatus::Refused(_) | DeclarationStatus::New(_) if told => {}
                other => return Err(format!("{name} rests at {other:?}, and says {:?}", agent.waits)),
            }
            let bad = ["unready", "unrehearsed"].iter().any(|like| is(digest_of(agent), like));
            let tried = agent.ledger.rollouts.last().is_some_and(|r| r.status == Status::Completed);
            if bad
                && tried
                && agent.ledger.rollouts.last().unwrap().to.digest == digest_of(agent)
                && !self.excused(agent)
            {
                return Err(format!("{name} runs what cannot run"));
            }
            if agent.waiting > 0 {
                return Err(format!("messages for {name} wait for ever"));
            }
        }
        Ok(())
    }

    /// Returns `true` if the present revision runs only because there was no other, or without rehearsal.
    fn excused(&self, agent: &Agent) -> bool {
        let steps = &agent.ledger.rollouts.last().unwrap().steps;
        !is(digest_of(agent), "unready") && !steps.iter().any(|step| matches!(step, Step::Rehearse { .. }))
    }
}

fn digest_of(agent: &Agent) -> caxton_control::Digest {
    agent.ledger.current().unwrap().digest
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let one: Option<u64> = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    one.map_or(0..count, |seed| seed..seed + 1)
}

#[test]
fn invariants_hold_in_random_runs() {
    for seed in seeds(SEEDS) {
        let mut run = Run::new(seed, None);
        if let Err(broken) = run.all() {
            panic!("SEED={seed}: {broken}\n{}\n{}", run.told.join("\n"), run.world.show(None));
        }
    }
}

/// An invariant that no planted defect breaks checks nothing.
#[test]
fn every_planted_defect_is_found() {
    for (bug, found_by) in [
        (Bug::WeighsUnready, "the weights are"),
        (Bug::StopsWithTraffic, "of the traffic"),
        (Bug::NoDrain, "before its deadline"),
        (Bug::HandsOffBusy, "in flight"),
        (Bug::NoResume, "the plan chases its tail"),
        (Bug::TooMuch, "more than 100"),
        (Bug::EndedMoves, "ended and moves"),
        (Bug::ForgetsDeclined, "it never comes to rest"),
        (Bug::PersistsNothing, "ended and moves"),
        (Bug::LosesTraffic, "nobody has the traffic"),
        (Bug::NoTurns, "rollouts go at a time"),
        (Bug::SplitsMemory, "keeps memory and has"),
        (Bug::ShadowStays, "the plan chases its tail"),
    ] {
        let found = |seed| Run::new(seed, Some(bug)).all().err().is_some_and(|broken| broken.contains(found_by));
        assert!((0..SEEDS).any(found), "{bug:?} is not found");
    }
}
