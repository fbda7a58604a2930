//! The golden scripts of rollouts: events in, actions out.
//!
//! A line of a script that is not indented is an event. The indented lines under it are the actions that follow until
//! no further one is safe, with the time in brackets, then the state of the agent and of all agents with a rollout in
//! progress, with the progress and the reason for waiting. `UPDATE_GOLDEN=1` rewrites the scripts.
//!
//! ```text
//! agent NAME BYTES [KEY=VALUE...]    an agent whose first revision runs; keys: deploy, reload, instances,
//!                                    rehearse, match, automatic, min-messages, drain, memory (the limit)
//! declare NAME BYTES [KEY=VALUE...]  the file declares the agent so; further key: config
//! done NAME@N, fails NAME@N REASON   the revision's work has succeeded, or failed
//! all done                           … all work, until no revision is busy
//! breaks NAME@N                      its instances do not start any more
//! takes NAME N                       N messages arrive
//! answers NAME@N N                   N of its messages in flight are answered
//! handles NAME N                     N messages arrive and are answered
//! watched NAME                       enough messages and probes to judge a revision that has all traffic
//! after DURATION                     time passes, with a reconcile cycle whenever one is due
//! pause|resume|promote|abort|retry NAME, undo NAME [N] [at-once]
//!                                    at-once: without a rehearsal
//! restart                            the host restarts
//! ```
//! The properties of a component follow from its name: `memory` exports `snapshot`, `traps` fails one message of ten,
//! `slow`, `leaks`, `unready`, `sick` (its probes fail), `faints` (its probes fail once it has traffic), `unlike` (its
//! answers differ), `spoils` (makes half of the former revision's messages fail), `unrehearsed`, `other`
//! (answers 24 of 25 rehearsed messages otherwise), `forgets` (cannot restore); `v2-traps` has both.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod rollout_model;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use caxton_control::lifecycle::RevisionState;
use caxton_control::rollout::strategy::{Batch, CanaryStep};
use caxton_control::rollout::{
    DeployStrategy, ReloadStrategy, RolloutCommand, RolloutSettings, Step, Strategy, UndoOptions,
};
use caxton_control::units::{parse_bytes, parse_duration, print_duration};
use caxton_control::{AgentName, RevisionId};
use rollout_model::{Agent, Broken, Rev, Work, World, digest, show};

/// The bound on reconcile rounds: a plan that needs more never ends.
const MAX_ROUNDS: usize = 40;

fn revision(text: &str) -> RevisionId {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no revision"))
}

/// Parses `canary:5/5m,pause,50/10m`, `rolling:25%`, `blue-green:1m`.
fn deploy(text: &str) -> DeployStrategy {
    let (name, detail) = text.split_once(':').unwrap_or((text, ""));
    let step = |step: &str| match step.split_once('/') {
        Some((percent, hold)) => {
            CanaryStep::Weight { percent: percent.parse().unwrap(), hold: parse_duration(hold).unwrap() }
        }
        None => CanaryStep::Pause,
    };
    match (name, detail) {
        ("immediate", _) => DeployStrategy::Immediate,
        ("rolling", "") => DeployStrategy::default(),
        ("rolling", detail) => DeployStrategy::Rolling {
            batch: match detail.strip_suffix('%') {
                Some(percent) => Batch::Percent(percent.parse().unwrap()),
                None => Batch::Count(detail.parse().unwrap()),
            },
        },
        ("blue-green", "") => DeployStrategy::blue_green(),
        ("blue-green", detail) => DeployStrategy::BlueGreen { keep_warm: parse_duration(detail).unwrap() },
        ("canary", "") => DeployStrategy::canary(),
        ("canary", detail) => DeployStrategy::Canary { steps: detail.split(',').map(step).collect() },
        _ => panic!("no strategy `{text}`"),
    }
}

fn reload(text: &str) -> ReloadStrategy {
    match text {
        "graceful" => ReloadStrategy::Graceful,
        "immediate" => ReloadStrategy::Immediate,
        "parallel" => ReloadStrategy::parallel(),
        "traffic-splitting" => ReloadStrategy::traffic_splitting(),
        _ => panic!("no strategy `{text}`"),
    }
}

/// Applies `KEY=VALUE` words to a declaration.
fn declare(agent: &mut Agent, words: &[&str]) {
    for (key, value) in words.iter().map(|word| word.split_once('=').unwrap()) {
        let declared = &mut agent.declared;
        let mut both = |change: &dyn Fn(&mut RolloutSettings)| {
            change(&mut declared.deploy);
            change(&mut declared.reload);
        };
        match key {
            "config" => declared.settings = format!("{{\"mood\":\"{value}\"}}"),
            // Such as `2:1,0`: the written version, and the others that are read.
            "format" => {
                declared.settings = match value.split_once(':') {
                    Some((version, reads)) => {
                        format!("{{\"state\":{{\"reads\":[{reads}],\"version\":{version}}}}}")
                    }
                    None => format!("{{\"state\":{{\"version\":{value}}}}}"),
                };
            }
            "deploy" => declared.deploy.strategy = Strategy::Deploy(deploy(value)),
            "reload" => declared.reload.strategy = Strategy::Reload(reload(value)),
            "rehearse" => both(&|settings| settings.rehearse = value.parse().unwrap()),
            "match" => both(&|settings| settings.rollback.match_percent = Some(value.parse().unwrap())),
            "automatic" => both(&|settings| settings.rollback.automatic = value.parse().unwrap()),
            "min-messages" => both(&|settings| settings.rollback.min_messages = value.parse().unwrap()),
            "memory" => both(&|settings| settings.rollback.memory_bytes = Some(parse_bytes(value).unwrap())),
            "drain" => both(&|settings| settings.drain = parse_duration(value).unwrap()),
            "instances" => agent.instances.running = value.parse().unwrap(),
            _ => panic!("unknown key `{key}`"),
        }
    }
}

struct Story {
    world: World,
    out: String,
}

impl Story {
    /// Applies one event.
    fn happen(&mut self, line: &str) -> Result<(), Broken> {
        let words: Vec<&str> = line.split(' ').collect();
        let name = || words[1].parse::<AgentName>().unwrap();
        let number = |at: usize| words.get(at).map(|word| word.parse::<u32>().unwrap());
        let said = match words[0] {
            "pause" => Some(RolloutCommand::Pause),
            "resume" => Some(RolloutCommand::Resume),
            "promote" => Some(RolloutCommand::Promote),
            "abort" => Some(RolloutCommand::Abort),
            "retry" => Some(RolloutCommand::Retry),
            "undo" => Some(RolloutCommand::Undo),
            _ => None,
        };
        if let Some(command) = said {
            let (at_once, restore_state) = (words.contains(&"at-once"), words.contains(&"restore"));
            let to = words.get(2).and_then(|word| word.parse().ok());
            let undo = UndoOptions { to, rehearse: !at_once, restore_state };
            if let Err(refused) = self.world.command(&name(), command, undo) {
                writeln!(self.out, "    refused: {refused}").unwrap();
            }
            return self.reconcile();
        }
        match words[0] {
            "agent" => {
                let agent = Agent::new(
                    &name(),
                    words[2],
                    DeployStrategy::default(),
                    ReloadStrategy::default(),
                    1,
                    self.world.now,
                );
                self.world.agents.insert(name(), agent);
                declare(self.world.agents.get_mut(&name()).unwrap(), &words[3..]);
            }
            "declare" => {
                let agent = self.world.agents.get_mut(&name()).unwrap();
                agent.declared.digest = digest(words[2]);
                declare(agent, &words[3..]);
            }
            "all" => return self.all_done(),
            "done" => {
                let id = revision(words[1]);
                self.world.finish(&id.agent, id.number, Ok(()))?;
            }
            "fails" => {
                let id = revision(words[1]);
                self.world.finish(&id.agent, id.number, Err(&words[2..].join(" ")))?;
            }
            "breaks" => {
                let (id, now) = (revision(words[1]), self.world.now);
                self.world.agents.get_mut(&id.agent).unwrap().break_down(id.number, now)?;
            }
            "takes" => self.world.take(&name(), number(2).unwrap()),
            "answers" => {
                let id = revision(words[1]);
                self.world.answer(&id.agent, id.number, number(2).unwrap())?;
            }
            "handles" => self.handle(&name(), number(2).unwrap())?,
            "watched" => return self.watched(&name()),
            "after" => return self.after(parse_duration(words[1]).unwrap()),
            "restart" => {
                for told in self.world.restart() {
                    writeln!(self.out, "    {told}").unwrap();
                }
            }
            verb => panic!("unknown: `{verb}`"),
        }
        self.reconcile()
    }

    fn reconcile(&mut self) -> Result<(), Broken> {
        for _ in 0..MAX_ROUNDS {
            let actions = self.world.plan()?;
            let at = print_duration(Duration::from_millis(self.world.now - 1_000_000));
            for created in &self.world.created {
                writeln!(self.out, "    [{at}] {created}").unwrap();
            }
            if actions.is_empty() {
                return self.world.rests();
            }
            for (name, action) in actions {
                writeln!(self.out, "    [{at}] {}", show::action(&action)).unwrap();
                self.world.apply(&name, &action)?;
            }
        }
        Err("the plan chases its tail".to_owned())
    }

    fn all_done(&mut self) -> Result<(), Broken> {
        for _ in 0..MAX_ROUNDS {
            let busy = self.world.agents.iter().find_map(|(name, agent)| Some((name.clone(), *agent.busy().first()?)));
            let Some((name, number)) = busy else { return Ok(()) };
            self.world.finish(&name, number, Ok(()))?;
            self.reconcile()?;
        }
        Err("somebody is always busy".to_owned())
    }

    fn handle(&mut self, name: &AgentName, count: u32) -> Result<(), Broken> {
        self.world.take(name, count);
        let numbers: Vec<u64> = self.world.agents[name].revisions.keys().copied().collect();
        numbers.into_iter().try_for_each(|number| self.world.answer(name, number, u32::MAX))
    }

    fn watched(&mut self, name: &AgentName) -> Result<(), Broken> {
        self.handle(name, 100)?;
        self.reconcile()?;
        for _ in 0..MAX_ROUNDS {
            let open = self.world.agents[name].ledger.open();
            if !open.is_some_and(|rollout| matches!(rollout.steps.get(rollout.step), Some(Step::Watch { .. }))) {
                return Ok(());
            }
            self.after(Duration::from_secs(1))?;
        }
        Err("it is watched for ever".to_owned())
    }

    fn after(&mut self, time: Duration) -> Result<(), Broken> {
        let end = self.world.now + time.as_millis() as u64;
        while self.world.now < end {
            let next = self.world.look_again_in.map_or(end, |after| self.world.now + after.as_millis().max(1) as u64);
            self.world.now = next.min(end);
            self.reconcile()?;
            self.probed()?;
        }
        Ok(())
    }

    /// Probes every revision with traffic, which takes no time here.
    fn probed(&mut self) -> Result<(), Broken> {
        for _ in 0..MAX_ROUNDS {
            let asked = self.world.agents.iter().find_map(|(name, agent)| {
                let probed =
                    |(_, rev): &(&u64, &Rev)| rev.work == Some(Work::Probe) && rev.seen.state == RevisionState::Running;
                Some((name.clone(), *agent.revisions.iter().find(probed)?.0))
            });
            let Some((name, number)) = asked else { return Ok(()) };
            self.world.finish(&name, number, Ok(()))?;
            self.reconcile()?;
        }
        Err("it is probed for ever".to_owned())
    }
}

fn run(script: &str) -> String {
    let mut story = Story { world: World::new(None), out: String::new() };
    let mut named: Option<AgentName> = None;
    for line in script.lines().filter(|line| !line.starts_with(' ')) {
        writeln!(story.out, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Err(broken) = story.happen(line) {
            writeln!(story.out, "    BROKEN: {broken}").unwrap();
        }
        let word = line.split(' ').nth(1).and_then(|word| word.split('@').next()?.parse().ok());
        named = word.filter(|name| story.world.agents.contains_key(name)).or(named);
        for line in story.world.show(named.as_ref()).lines() {
            writeln!(story.out, "    {line}").unwrap();
        }
    }
    story.out
}

#[test]
fn rollouts_match_their_golden_scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rollouts");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{} has no scripts", folder.display());
    let mut differ = Vec::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let now = run(&script);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, now).unwrap();
        } else if now != script {
            let line = script.lines().zip(now.lines()).take_while(|(a, b)| a == b).count() + 1;
            differ.push(format!("{}:{line}\n{now}", path.display()));
        }
    }
    assert!(differ.is_empty(), "UPDATE_GOLDEN=1 takes these:\n{}", differ.join("\n"));
}
