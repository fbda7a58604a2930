//! `caxton stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::client::Client;
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Out, Table};
use super::time::{ago, size};
use crate::admin::HostStats;
use crate::api_types::{HostMemory, Quantiles};

#[derive(Debug, Args)]
#[command(after_help = "\
All figures are measured; `-` stands for one that was not. Rates are over the last five seconds. A delivery is from the \
acceptance of a message to the end of its handling, its commit included.

Examples:
  caxton stats
  caxton stats -o json | jq .messages.per_second")]
pub(super) struct StatsArgs {
    #[command(flatten)]
    pub(super) host: HostArgs,
}

/// The number of mailboxes that are listed, the deepest first.
const SHOWN: usize = 10;

/// Prints the statistics of the host.
pub(super) async fn run(stats: &StatsArgs, out: &mut Out) -> Result<(), CliError> {
    let found: HostStats = Client::find(&stats.host)?.get("/v1/stats").await?;
    match out.format() {
        Format::Json => out.json(&found),
        Format::Text => out.line(&show(&found, out.is_terminal())),
    }
}

/// Renders quantiles in one line.
pub(super) fn times(times: Option<&Quantiles>) -> String {
    let Some(times) = times else { return "-".to_owned() };
    let us = |us: f64| format!("{:.1?}", Duration::from_secs_f64(us / 1e6));
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, at most {} ({} of them)",
        us(times.p50_us),
        us(times.p90_us),
        us(times.p99_us),
        us(times.p999_us),
        us(times.max_us),
        times.count
    )
}

fn show(stats: &HostStats, colours: bool) -> String {
    let HostStats { messages, delivery, process, store, conversations, .. } = stats;
    let memory = process.resident_bytes.map_or_else(|| "-".to_owned(), size);
    let lines = [
        ("messages/s", format!("{:.1}, at most {:.1}", messages.per_second, messages.peak_per_second)),
        (
            "messages",
            format!(
                "{} accepted, {} handled, {} failed, {} retried, {} refused, {} given back",
                messages.accepted,
                messages.handled,
                messages.failed,
                messages.retried,
                messages.refused,
                messages.dropped
            ),
        ),
        ("runs", format!("{} of handlers, {} of them in conflict", messages.runs, messages.conflicts)),
        (
            "conversations",
            format!(
                "{} open, {:.1} messages each; {} kept in all",
                conversations.open,
                conversations.mean_messages.unwrap_or(0.0),
                conversations.written
            ),
        ),
        ("last minute", times(delivery.last_minute.as_ref())),
        ("since start", times(delivery.since_start.as_ref())),
        ("commits", times(store.commits.as_ref())),
        ("store", size(store.bytes)),
        ("memory", memory),
        ("held", held(&stats.memory)),
        ("cores", format!("{:.2} now, {:.1} s in all", process.cores, process.cpu_seconds)),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect();
    text.push_str(&mailboxes(stats, colours));
    text.push_str(&failures(stats, colours));
    text.push_str(&dead_letters(stats, colours));
    text.trim_end().to_owned()
}

/// Renders the memory that the host holds for others, the largest kinds first.
fn held(memory: &HostMemory) -> String {
    let mut kinds: Vec<(&String, &u64)> = memory.by_kind.iter().filter(|(_, bytes)| **bytes > 0).collect();
    kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
    let of_kinds: Vec<String> = kinds.into_iter().map(|(kind, bytes)| format!("{kind} {}", size(*bytes))).collect();
    let refused: u64 = memory.refused.values().sum();
    let mut text = format!("{} of {} (host.memory)", size(memory.used_bytes), size(memory.limit_bytes));
    if !of_kinds.is_empty() {
        text.push_str(&format!(": {}", of_kinds.join(", ")));
    }
    if memory.waiting + refused > 0 {
        text.push_str(&format!("; {} requests wait, {refused} were refused", memory.waiting));
    }
    text
}

/// Renders the deepest mailboxes.
fn mailboxes(stats: &HostStats, colours: bool) -> String {
    let mut text = String::new();
    let mut deep: Vec<_> = stats.mailboxes.iter().filter(|mailbox| mailbox.depth + mailbox.in_flight > 0).collect();
    // By name among equals, so that the list does not jump between two calls.
    deep.sort_by(|a, b| b.depth.cmp(&a.depth).then_with(|| a.agent.cmp(&b.agent)));
    if !deep.is_empty() {
        let mut table = Table::new(&["MAILBOX", ">WAITING", ">TO RETRY", ">IN FLIGHT"]);
        for mailbox in deep.iter().take(SHOWN) {
            table.row(vec![
                Cell::new(&mailbox.agent),
                Cell::new(mailbox.depth.to_string()),
                Cell::new(mailbox.later.to_string()),
                Cell::new(mailbox.in_flight.to_string()),
            ]);
        }
        text.push_str(&format!("\n{}\n", table.render(colours)));
        if deep.len() > SHOWN {
            text.push_str(&format!("and {} more (caxton mailbox ls)\n", deep.len() - SHOWN));
        }
    }
    text
}

/// Renders failed attempts and calls by code.
fn failures(stats: &HostStats, colours: bool) -> String {
    if stats.failures.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["FAILURES", ">COUNT"]);
    for failure in &stats.failures {
        table.row(vec![Cell::new(&failure.code), Cell::new(failure.count.to_string())]);
    }
    format!("\n{}\n", table.render(colours))
}

/// Renders dead letters by reason.
fn dead_letters(stats: &HostStats, colours: bool) -> String {
    let mut text = String::new();
    let mut reasons: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for dead in &stats.dead_letters {
        let (count, bytes, oldest) = reasons.entry(&dead.reason).or_insert((0, 0, u64::MAX));
        (*count, *bytes, *oldest) = (*count + dead.count, *bytes + dead.bytes, dead.oldest.min(*oldest));
    }
    if !reasons.is_empty() {
        let mut table = Table::new(&["DEAD LETTERS", ">COUNT", ">SIZE", ">OLDEST"]);
        for (reason, (count, bytes, oldest)) in reasons {
            let age = Duration::from_millis(stats.at.saturating_sub(oldest));
            table.row(vec![
                Cell::new(reason),
                Cell::new(count.to_string()),
                Cell::new(size(bytes)),
                Cell::new(ago(age)),
            ]);
        }
        text.push_str(&format!("\n{}\n", table.render(colours)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::StoreFigures;
    use crate::api_types::{
        ConversationStats, DeadLetterCount, DeliveryStats, FailureCount, MailboxStatus, MessageStats, ProcessStats,
    };

    #[test]
    fn statistics_are_rendered() {
        let quantiles = Quantiles {
            count: 4,
            p50_us: 81.92,
            p90_us: 100.0,
            p99_us: 2_500.0,
            p999_us: 2_500.0,
            max_us: 3_100_000.0,
        };
        let dead = |agent: &str, count| DeadLetterCount {
            agent: agent.to_owned(),
            reason: "expired".to_owned(),
            count,
            bytes: 1_024,
            oldest: 1_000 * count,
        };
        let failure = |code: &str, count| FailureCount { code: code.to_owned(), count };
        let stats = HostStats {
            at: 121_000,
            messages: MessageStats {
                per_second: 12.34,
                peak_per_second: 99.0,
                accepted: 6,
                handled: 5,
                failed: 1,
                retried: 2,
                refused: 3,
                dropped: 0,
                runs: 11,
                conflicts: 3,
            },
            failures: vec![failure("trap", 21), failure("deadline-exceeded", 3)],
            delivery: DeliveryStats { last_minute: None, since_start: Some(quantiles) },
            conversations: ConversationStats { open: 2, written: 5, mean_messages: Some(3.5), illegal: 0 },
            mailboxes: vec![MailboxStatus {
                agent: "echo".to_owned(),
                depth: 7,
                bound: 10,
                later: 2,
                timers: 0,
                in_flight: 1,
                held: false,
                breaker: "closed".to_owned(),
                oldest_ms: None,
            }],
            dead_letters: vec![dead("echo", 1), dead("triage", 2)],
            store: StoreFigures { bytes: 2_048, commits: None },
            process: ProcessStats { resident_bytes: Some(104_857_600), cpu_seconds: 1.25, cores: 0.5 },
            memory: HostMemory {
                limit_bytes: 1 << 30,
                used_bytes: 3 << 20,
                is_short: true,
                by_kind: [("bodies", 1 << 20), ("instances", 2 << 20), ("logs", 0)]
                    .map(|(kind, bytes)| (kind.to_owned(), bytes))
                    .into(),
                waiting: 1,
                refused: [("calls".to_owned(), 4)].into(),
            },
        };
        let expected = "\
messages/s    12.3, at most 99.0
messages      6 accepted, 5 handled, 1 failed, 2 retried, 3 refused, 0 given back
runs          11 of handlers, 3 of them in conflict
conversations 2 open, 3.5 messages each; 5 kept in all
last minute   -
since start   p50 81.9µs, p90 100.0µs, p99 2.5ms, p99.9 2.5ms, at most 3.1s (4 of them)
commits       -
store         2.0 KiB
memory        100 MiB
held          3.0 MiB of 1.0 GiB (host.memory): instances 2.0 MiB, bodies 1.0 MiB; 1 requests wait, 4 were refused
cores         0.50 now, 1.2 s in all

MAILBOX  WAITING  TO RETRY  IN FLIGHT
echo           7         2          1

FAILURES           COUNT
trap                  21
deadline-exceeded      3

DEAD LETTERS  COUNT     SIZE  OLDEST
expired           3  2.0 KiB      2m";
        assert_eq!(show(&stats, false), expected);
    }
}
