//! The golden scripts of the planner: events in, actions out.
//!
//! A line of a script that is not indented is an event. The indented lines under it are the actions that follow until
//! no further one is safe, the reasons for waiting and the revisions then. `UPDATE_GOLDEN=1` rewrites the scripts.
//!
//! ```text
//! declare AGENT BYTES [KEY=VALUE...]   the file declares the agent; components named memory… export
//!                                      `snapshot`, `missing` is no component; keys: config, drain, max
//! remove AGENT                         the file does not declare the agent any more
//! loaded|ready|handed-off|saved AGENT@N  the revision's work has succeeded
//! fails AGENT@N REASON                 … or failed
//! takes AGENT N                        N messages arrive
//! answers AGENT@N N                    N messages are handled
//! after DURATION                       time passes
//! retry, restart                       failures are forgotten; the host restarts
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use std::fmt::Write as _;
use std::path::Path;

use caxton_control::plan::Action;
use caxton_control::rollout::RolloutAction as Do;
use caxton_control::units::{parse_duration, print_duration};
use caxton_control::{AgentName, RevisionId};
use model::{Broken, Host};

/// The bound on reconcile rounds: a plan that needs more never ends.
const MAX_ROUNDS: usize = 10;

fn revision(text: &str) -> RevisionId {
    let (agent, number) = text.split_once('@').unwrap_or_else(|| panic!("`{text}` is no revision"));
    RevisionId { agent: agent.parse().unwrap(), number: number.parse().unwrap() }
}

/// Applies one event.
fn happen(host: &mut Host, line: &str) -> Result<(), Broken> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (subject, detail) = rest.split_once(' ').unwrap_or((rest, ""));
    let agent = || subject.parse::<AgentName>().unwrap();
    match verb {
        "declare" => {
            let mut words = detail.split(' ');
            let bytes = words.next().unwrap();
            let mut spec = model::spec(&agent());
            for word in words {
                match word.split_once('=').unwrap() {
                    ("config", value) => _ = spec.config.insert("mood".to_owned(), value.to_owned()),
                    ("drain", value) => spec.reload.drain = parse_duration(value).unwrap(),
                    ("max", value) => spec.instances.max = value.parse().unwrap(),
                    (key, _) => panic!("unknown key `{key}`"),
                }
            }
            let component = if bytes == "missing" { Err("the component is not there") } else { Ok(bytes) };
            host.declare(spec, component);
        }
        "remove" => _ = host.wanted.remove(&agent()).unwrap(),
        "loaded" => host.loaded(&revision(subject))?,
        "ready" | "handed-off" | "saved" => host.finish(&revision(subject), Ok(()))?,
        "fails" => host.finish(&revision(subject), Err(detail))?,
        "takes" => host.take(&agent(), detail.parse().unwrap()),
        "answers" => host.answer(&revision(subject), detail.parse().unwrap())?,
        "after" => host.now += parse_duration(subject).unwrap(),
        "retry" => host.retry(),
        "restart" => host.restart(),
        _ => panic!("unknown: `{line}`"),
    }
    Ok(())
}

fn show(host: &Host, action: &Action) -> String {
    match action {
        Action::Create { agent, digest, .. } => format!("create {agent} of {}", host.name_of(*digest)),
        Action::Configure { agent, .. } => format!("configure {agent}"),
        Action::Roll(action) => match action {
            Do::Revive { revision } => format!("bring {revision} back"),
            Do::Prepare { revision, .. } => format!("prepare {revision}"),
            Do::Weigh { candidate, percent, .. } => format!("{percent}% to {candidate}"),
            Do::Pause { agent } => format!("pause {agent}"),
            Do::Handoff { revision, .. } => format!("hand off to {revision}"),
            Do::TakeBack { revision, .. } => format!("{revision} takes back"),
            Do::Resume { agent } => format!("resume {agent}"),
            Do::Stop { revision } => format!("stop {revision}"),
            Do::Start { .. }
            | Do::Cap { .. }
            | Do::Probe { .. }
            | Do::Rehearse { .. }
            | Do::Shadow { .. }
            | Do::KeepState { .. }
            | Do::Convert { .. }
            | Do::RestoreState { .. } => {
                format!("{action:?}")
            }
        },
        Action::Switch { revision } => format!("switch to {revision}"),
        Action::Retire { agent } => format!("retire {agent}"),
        Action::Restore { agent } => format!("restore {agent}"),
        Action::Forget { agent } => format!("forget {agent}"),
    }
}

/// Applies plans until no further action is safe, and returns the actions as text.
fn reconcile(host: &mut Host) -> Result<String, Broken> {
    let mut text = String::new();
    for _ in 0..MAX_ROUNDS {
        let plan = host.plan();
        if plan.actions.is_empty() {
            for waiting in &plan.waiting {
                writeln!(text, "... {}: {}", waiting.agent, waiting.why).unwrap();
            }
            if let Some(after) = plan.recheck_after() {
                writeln!(text, "... looks again in {}", print_duration(after)).unwrap();
            }
            host.rests()?;
            return Ok(text + &host.show());
        }
        for action in &plan.actions {
            writeln!(text, "{}", show(host, action)).unwrap();
            host.apply(action)?;
        }
    }
    Err("the plan never ends".to_owned())
}

/// Runs a script and returns it with the actions of the present code.
fn run(script: &str) -> String {
    let mut host = Host::new(None);
    let mut out = String::new();
    for line in script.lines().filter(|line| !line.starts_with(' ')) {
        writeln!(out, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let told = happen(&mut host, line).and_then(|()| reconcile(&mut host));
        let told = told.unwrap_or_else(|broken| format!("BROKEN: {broken}"));
        told.lines().for_each(|line| writeln!(out, "    {line}").unwrap());
    }
    out
}

#[test]
fn plans_match_their_golden_scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
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
