//! `caxton ps`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::args::PsArgs;
use super::client::{Client, encode};
use super::options::Format;
use super::output::{Cell, CliError, Out, Style, Table, count, one_line, printable, say};
use super::time::{ago, size};
use crate::api_types::{AgentStatus, BreakerOpening, HostStatus, MemoryStatus};

/// Lists the agents, or shows one.
pub(super) async fn run(ps: &PsArgs, out: &mut Out) -> Result<(), CliError> {
    let client = Client::find(&ps.host)?;
    if let Some(name) = &ps.agent {
        let agent: AgentStatus = client.get(&format!("/v1/agents/{}", encode(name))).await?;
        return match out.format() {
            Format::Json => out.json(&agent),
            Format::Text => out.line(&detail(&agent, out.is_terminal())),
        };
    }
    let agents: Vec<AgentStatus> = client.list("/v1/agents").await?;
    let host: HostStatus = client.get("/v1/host").await?;
    match out.format() {
        Format::Json => out.json(&json!({ "host": host, "agents": agents })),
        Format::Text => {
            if agents.is_empty() {
                say(&format!("{} declares no agents", host.file));
            } else {
                out.line(&table(&agents).render(out.is_terminal()))?;
            }
            sync_report(&host).iter().for_each(|line| say(line));
            imbalance_hints(&agents).iter().for_each(|line| say(line));
            deferral_hints(&agents).iter().for_each(|line| say(line));
            Ok(())
        }
    }
}

/// Renders the state, with what keeps messages waiting.
fn state(agent: &AgentStatus) -> Cell {
    let (held, breaker) = (agent.held.then_some("paused"), agent.breaker.as_str());
    let breaker = (breaker != "closed").then(|| format!("breaker {breaker}"));
    // An agent that failed to start shows that by its state.
    let obstacle = agent.obstacle.as_deref().filter(|_| agent.state == "running");
    let restarting = agent.restarts_in_ms.map(|_| "restarting");
    let unusual: Vec<&str> = held.into_iter().chain(breaker.as_deref()).chain(restarting).chain(obstacle).collect();
    let style = match agent.state.as_str() {
        "running" if unusual.is_empty() => Style::Good,
        "failed" => Style::Bad,
        _ => Style::Warn,
    };
    let state =
        if unusual.is_empty() { agent.state.clone() } else { format!("{} ({})", agent.state, unusual.join(", ")) };
    Cell::styled(state, style)
}

/// Renders in one line the failure that opened the breaker; `None` while it is closed.
fn opening(agent: &AgentStatus) -> Option<String> {
    let BreakerOpening { trial, message, attempt, reason } = agent.opening.as_ref()?;
    let what = if *trial { "the trial failed" } else { "it failed again and again, the last time" };
    let at = message
        .as_ref()
        .map_or_else(|| " at an HTTP call".to_owned(), |message| format!(" at message {message}, attempt {attempt}"));
    Some(one_line(&format!("{what}{at}: {reason}")))
}

fn or_dash(text: Option<&String>) -> &str {
    text.map_or("-", String::as_str)
}

fn table(agents: &[AgentStatus]) -> Table {
    let mut table = Table::new(&[
        "AGENT",
        "STATE",
        "REVISION",
        "KIND",
        ">INSTANCES",
        ">IN FLIGHT",
        ">MAILBOX",
        ">HANDLED",
        ">FAILED",
        "WAITING",
    ]);
    for agent in agents {
        let failed = agent.failed.to_string();
        table.row(vec![
            Cell::new(&agent.name),
            state(agent),
            Cell::new(or_dash(agent.revision.as_ref())),
            Cell::new(or_dash(agent.kind.as_ref())),
            Cell::new(format!("{}/{}", agent.instances, agent.max_instances)),
            Cell::new(agent.in_flight.to_string()),
            Cell::new(agent.mailbox_depth.to_string()),
            Cell::new(agent.handled.to_string()),
            if agent.failed == 0 { Cell::new(failed) } else { Cell::styled(failed, Style::Warn) },
            // One line for each agent. `caxton ps AGENT` shows all of it.
            Cell::new(agent.waiting.as_deref().map(one_line).or_else(|| opening(agent)).unwrap_or_default()),
        ]);
    }
    table
}

/// Returns lines about differences between the declaration and the running state.
fn sync_report(host: &HostStatus) -> Vec<String> {
    let mut lines = Vec::new();
    if !host.file_errors.is_empty() {
        let errors = count(host.file_errors.len(), "error");
        lines.push(format!(
            "the file and the host differ: {} has {errors}, and is not followed until it has none",
            host.file
        ));
        for error in &host.file_errors {
            lines.push(format!("  {error}"));
        }
    } else if !host.in_sync {
        lines
            .push(format!("the file and the host differ: not everything that {} declares runs as declared", host.file));
        let own = host.waiting.iter().filter(|waiting| waiting.agent.is_empty());
        lines.extend(own.map(|waiting| format!("  {}", waiting.why)));
    }
    if host.memory.is_short {
        let (used, limit) = (size(host.memory.used_bytes), size(host.memory.limit_bytes));
        lines.push(format!(
            "the host is short of memory: it holds {used} of {limit} (host.memory), and requests wait or are refused; \
             `caxton stats` says what holds most"
        ));
    }
    if host.stopping {
        lines.push("the host is stopping".to_owned());
    }
    lines
}

/// The number of messages to a capability below which their distribution says nothing.
const MIN_MESSAGES: u64 = 100;

/// Returns a hint for each capability whose messages nearly all go to one of several agents.
fn imbalance_hints(agents: &[AgentStatus]) -> Vec<String> {
    let running = || agents.iter().filter(|agent| agent.state == "running");
    let names: BTreeSet<&String> = running().flat_map(|agent| &agent.capabilities).collect();
    let hint = |name: &&String| {
        // Agents that do not run receive nothing, so that they would look neglected.
        let able: Vec<_> = running().filter(|agent| agent.capabilities.contains(name)).collect();
        let sum: u64 = able.iter().map(|agent| agent.accepted).sum();
        let most = able.iter().max_by_key(|agent| agent.accepted)?;
        // Nine tenths: a fair split by conversations never comes near that.
        if able.len() < 2 || sum < MIN_MESSAGES || most.accepted * 10 < sum * 9 {
            return None;
        }
        Some(format!(
            "{} of {sum} messages to the {} agents with cap:{name} went to {}: those of one conversation go to one agent; \
             send work that is to be spread in conversations of its own (Draft::new_conversation, docs/messages.md)",
            most.accepted,
            able.len(),
            most.name
        ))
    };
    names.iter().filter_map(hint).collect()
}

/// Renders how a memory is saved, and what a crash would cost now.
fn memory(memory: &MemoryStatus) -> String {
    let MemoryStatus { in_force, deferred, saved_bytes, unsaved_messages, unsaved_ms, save: _ } = memory;
    let how = match (deferred, in_force.as_str()) {
        (Some(why), every) => format!("saved {every}, as {}", one_line(why)),
        (None, "commit") => "saved with each commit".to_owned(),
        (None, "idle") => "saved when its instance ends".to_owned(),
        (None, every) => format!("saved {every}"),
    };
    let size = if *saved_bytes > 0 { format!(" ({} the last time)", size(*saved_bytes)) } else { String::new() };
    let cost = match unsaved_ms {
        None => "nothing".to_owned(),
        Some(ms) => {
            let messages = count(usize::try_from(*unsaved_messages).unwrap_or(usize::MAX), "message");
            format!("what {messages} of the last {} left in it", ago(Duration::from_millis(*ms)))
        }
    };
    format!("{how}{size}; a crash costs {cost}")
}

/// Returns a line for each agent whose memory is not part of its commits, although it is declared so.
fn deferral_hints(agents: &[AgentStatus]) -> Vec<String> {
    let deferred = |agent: &AgentStatus| {
        let status = agent.memory.as_ref().filter(|memory| memory.deferred.is_some())?;
        Some(format!("{}: its memory is {}", agent.name, memory(status)))
    };
    agents.iter().filter_map(deferred).collect()
}

/// Renders the number of instances, and the number of messages for which each is used.
fn instances(agent: &AgentStatus) -> String {
    let count = format!("{} of at most {}", agent.instances, agent.max_instances);
    match agent.reuse {
        None => count,
        Some(1) => format!("{count}, a fresh one for each message or call"),
        Some(times) => format!("{count}, each for up to {times} messages or calls"),
    }
}

/// Renders one agent in full.
fn detail(agent: &AgentStatus, colours: bool) -> String {
    let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
    let mut lines = vec![
        ("agent", agent.name.clone()),
        ("state", agent.state.clone()),
        ("obstacle", or_dash(agent.obstacle.as_ref()).to_owned()),
        ("waiting", agent.waiting.as_deref().map_or_else(|| "-".to_owned(), printable)),
        ("revision", or_dash(agent.revision.as_ref()).to_owned()),
        ("kind", or_dash(agent.kind.as_ref()).to_owned()),
        ("component", agent.component.clone()),
        ("digest", or_dash(agent.digest.as_ref()).to_owned()),
        ("capabilities", list(&agent.capabilities)),
        ("routes", list(&agent.routes)),
        ("instances", instances(agent)),
        ("memory", agent.memory.as_ref().map_or_else(|| "-".to_owned(), memory)),
        ("in flight", agent.in_flight.to_string()),
        ("mailbox", format!("{} of at most {}", agent.mailbox_depth, agent.mailbox_bound)),
        ("to be retried", agent.later.to_string()),
        ("timers", agent.timers.to_string()),
        ("paused", if agent.held { "yes; `caxton mailbox resume` lets its messages go on" } else { "no" }.to_owned()),
        ("breaker", opening(agent).map_or_else(|| agent.breaker.clone(), |why| format!("{}: {why}", agent.breaker))),
        ("accepted", agent.accepted.to_string()),
        ("handled", agent.handled.to_string()),
        ("failed", agent.failed.to_string()),
        ("retried", agent.retries.to_string()),
        ("runs", agent.runs.to_string()),
        ("conflicts", agent.conflicts.to_string()),
        ("refused", agent.refused.to_string()),
        ("dead letters", agent.dead_letters.to_string()),
        ("keeps", size(agent.state_bytes)),
    ];
    // Most agents wait for nothing and keep nothing in memory; lines of dashes would hide that.
    lines.retain(|(name, value)| !["waiting", "obstacle", "memory"].contains(name) || value != "-");
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect();
    let mut table = Table::new(&["REVISION", "STATE", ">SINCE", ">IN FLIGHT", "DIGEST", "REASON"]);
    for revision in &agent.revisions {
        table.row(vec![
            Cell::new(format!("{}@{}", agent.name, revision.number)),
            Cell::new(&revision.state),
            Cell::new(ago(Duration::from_millis(revision.since_ms))),
            Cell::new(revision.in_flight.to_string()),
            Cell::new(revision.digest.chars().take(12).collect::<String>()),
            Cell::new(revision.reason.as_deref().map(printable).unwrap_or_default()),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render(colours));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_types::tests::{agent, host};
    use crate::api_types::{FileError, WaitingAgent};

    #[test]
    fn a_lopsided_capability_gives_a_hint() {
        let able = |name: &str, accepted: u64| AgentStatus {
            capabilities: vec!["scan".to_owned()],
            state: "running".to_owned(),
            accepted,
            ..agent(name)
        };
        let hints = imbalance_hints(&[able("one", 1_996), able("two", 4), able("three", 0)]);
        assert_eq!(hints.len(), 1);
        assert!(hints[0].starts_with("1996 of 2000 messages to the 3 agents with cap:scan went to one:"), "{hints:?}");
        for (even, why) in [
            (vec![able("one", 1_996)], "there is no other"),
            (vec![able("one", 99), able("two", 0)], "too few to tell"),
            (vec![able("one", 150), able("two", 50)], "both have some"),
            (vec![able("one", 200), AgentStatus { state: "failed".to_owned(), ..able("two", 0) }], "no other runs"),
        ] {
            assert!(imbalance_hints(&even).is_empty(), "{why}");
        }
    }

    #[test]
    fn agents_are_listed() {
        let mut waits = agent("triage");
        waits.state = "failed".to_owned();
        waits.revision = None;
        waits.kind = None;
        waits.waiting = Some("triage@1 failed: \x1b[31mno\nsecond line".to_owned());
        let expected = "\
AGENT   STATE    REVISION  KIND     INSTANCES  IN FLIGHT  MAILBOX  HANDLED  FAILED  WAITING
echo    running  echo@7    message        3/8          1        2        9       4
triage  failed   -         -              3/8          1        2        9       4  triage@1 failed: \\u{1b}[31mno ...";
        assert_eq!(table(&[agent("echo"), waits]).render(false), expected);
    }

    #[test]
    fn unusual_states_are_shown() {
        for (held, breaker, obstacle, expected) in [
            (true, "closed", None, "running (paused)"),
            (false, "open", None, "running (breaker open)"),
            (true, "half-open", None, "running (paused, breaker half-open)"),
            (false, "closed", Some("refused"), "running (refused)"),
        ] {
            let obstacle = obstacle.map(str::to_owned);
            let agent = AgentStatus { held, obstacle, breaker: breaker.to_owned(), ..agent("echo") };
            assert!(table(&[agent]).render(false).contains(expected), "{expected}");
        }
    }

    #[test]
    fn the_cause_of_an_open_breaker_is_shown() {
        let opening = |trial, message: Option<&str>| BreakerOpening {
            trial,
            message: message.map(str::to_owned),
            attempt: 2,
            reason: "it trapped\nat the end".to_owned(),
        };
        for (opening, expected) in [
            (opening(true, Some("01ab")), "open: the trial failed at message 01ab, attempt 2: it trapped ..."),
            (
                opening(false, Some("01ab")),
                "open: it failed again and again, the last time at message 01ab, attempt 2: it trapped ...",
            ),
            (opening(true, None), "open: the trial failed at an HTTP call: it trapped ..."),
        ] {
            let agent = AgentStatus { breaker: "open".to_owned(), opening: Some(opening), ..agent("echo") };
            let text = detail(&agent, false);
            assert!(text.lines().any(|line| line == format!("breaker       {expected}")), "{expected}:\n{text}");
            let row = table(&[agent]).render(false);
            assert!(row.contains(expected.trim_start_matches("open: ")), "{row}");
        }
    }

    #[test]
    fn one_agent_is_rendered_in_full() {
        let text = detail(&agent("echo"), false);
        for line in [
            "revision      echo@7",
            "instances     3 of at most 8, each for up to 1000 messages or calls",
            "mailbox       2 of at most 10000",
            "to be retried 1",
            "timers        3",
            "paused        no",
            "breaker       closed",
            "retried       6",
            "runs          21",
            "conflicts     2",
            "dead letters  3",
            "keeps         2.0 KiB",
            "REVISION  STATE    SINCE  IN FLIGHT  DIGEST        REASON",
            "echo@7    running     1m          1  abababababab",
        ] {
            assert!(text.lines().any(|found| found == line), "`{line}` is missing in:\n{text}");
        }
    }

    #[test]
    fn the_cost_of_a_crash_is_shown() {
        let why = "it saved 81920 bytes, more than snapshot.commit-max (64KiB)";
        let status = |in_force: &str, deferred: bool, bytes, unsaved: Option<(u64, u64)>| MemoryStatus {
            save: "commit".to_owned(),
            in_force: in_force.to_owned(),
            deferred: deferred.then(|| why.to_owned()),
            saved_bytes: bytes,
            unsaved_messages: unsaved.map_or(0, |(messages, _)| messages),
            unsaved_ms: unsaved.map(|(_, ms)| ms),
        };
        let deferred = format!(
            "saved every 5s, as {why} (80.0 KiB the last time); a crash costs what 12 messages of the last 3s left in it"
        );
        for (memory, expected) in [
            (
                status("commit", false, 2_048, None),
                "saved with each commit (2.0 KiB the last time); a crash costs nothing",
            ),
            (
                status("idle", false, 0, Some((1, 90_000))),
                "saved when its instance ends; a crash costs what 1 message of the last 1m left in it",
            ),
            (status("every 20", false, 0, None), "saved every 20; a crash costs nothing"),
            (status("every 5s", true, 81_920, Some((12, 3_000))), &deferred),
        ] {
            let is_deferred = memory.deferred.is_some();
            let agent = AgentStatus { memory: Some(memory), ..agent("session") };
            let text = detail(&agent, false);
            assert!(text.lines().any(|line| line == format!("memory        {expected}")), "{expected}:\n{text}");
            let hints = deferral_hints(&[agent]);
            assert_eq!(hints, if is_deferred { vec![format!("session: its memory is {expected}")] } else { vec![] });
        }
        assert!(!detail(&agent("echo"), false).contains("memory"), "it keeps nothing there");
    }

    #[test]
    fn differences_between_file_and_host_are_reported() {
        let mut status = host();
        assert!(sync_report(&status).is_empty());
        status.memory.is_short = true;
        assert!(
            sync_report(&status)[0].starts_with("the host is short of memory: it holds 0 B of 1.0 GiB (host.memory)")
        );
        status.memory.is_short = false;
        status.in_sync = false;
        status.waiting = vec![
            WaitingAgent { agent: "echo".to_owned(), why: "echo@2 is being compiled".to_owned(), obstacle: None },
            WaitingAgent {
                agent: String::new(),
                why: "http.listen applies when the host starts again".to_owned(),
                obstacle: None,
            },
        ];
        assert_eq!(
            sync_report(&status),
            [
                "the file and the host differ: not everything that caxton.toml declares runs as declared",
                "  http.listen applies when the host starts again"
            ]
        );
        status.file_errors = vec![FileError {
            code: "unknown-key".to_owned(),
            place: "caxton.toml:2:1".to_owned(),
            key: "agnts".to_owned(),
            message: "unknown key".to_owned(),
            help: None,
        }];
        assert_eq!(
            sync_report(&status),
            [
                "the file and the host differ: caxton.toml has 1 error, and is not followed until it has none",
                "  caxton.toml:2:1: agnts: unknown key"
            ]
        );
    }
}
