//! `caxton dead`.

use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::client::{Client, query};
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Exit, Out, Style, Table, count, one_line, printable, say};
use super::time::{ago, rfc3339, size};
use crate::admin::{DeadPage, DeadShown, DropResult, RedeliverResult};
use crate::api_types::DeadLetterStatus;
use crate::clock;

#[derive(Debug, Args)]
#[command(after_help = "\
A message becomes a dead letter when every attempt at it failed (mailbox.attempts), when it waited too long, when its \
agent rejected it, when its agent was removed, or when a call of it may have been carried out or not (unknown-outcome). \
Nothing is lost: fix the cause and redeliver it. Exit code 3 \
if there is no such dead letter, 4 if its agent cannot take it now.

Examples:
  caxton dead ls --agent triage
  caxton dead show 1207                        its content and all attempts
  caxton dead redeliver 1207
  caxton dead redeliver --agent triage --revision triage@8
  caxton dead redeliver 1207 --repeat-calls    after a look at the server that it called
  caxton dead drop --reason expired
  caxton dead ls -o json | jq -r '.dead_letters[].number'")]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    pub(super) command: DeadCommand,
}

/// The subcommands of `caxton dead`.
#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// List dead letters in the order in which they were given up
    Ls {
        /// Only those of this agent
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// Only those with this reason, such as attempts-exhausted, expired, invalid, agent-removed, unknown-outcome
        #[arg(long, value_name = "REASON")]
        reason: Option<String>,
        /// Only those after this number
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
        /// The most to list
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show one with its content and all attempts with their errors
    Show {
        /// The dead letter's number
        number: u64,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Put dead letters back into their agents' mailboxes
    Redeliver {
        #[command(flatten)]
        which: DeadSelection,
        /// Only if this revision runs, such as triage@8
        #[arg(long, value_name = "REVISION")]
        revision: Option<String>,
        /// Make their calls over HTTP again that have no success on record: also those that may have been carried out
        #[arg(long)]
        repeat_calls: bool,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Drop dead letters for good
    Drop {
        #[command(flatten)]
        which: DeadSelection,
        #[command(flatten)]
        host: HostArgs,
    },
}

/// The choice of dead letters. At least one is required, so that a forgotten argument never means all of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct DeadSelection {
    /// The numbers
    #[arg(value_name = "NUMBER", conflicts_with_all = ["agent", "reason", "all"])]
    pub(super) numbers: Vec<u64>,
    /// Those of this agent
    #[arg(long, value_name = "AGENT")]
    pub(super) agent: Option<String>,
    /// Those with this reason
    #[arg(long, value_name = "REASON")]
    pub(super) reason: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["agent", "reason"])]
    pub(super) all: bool,
}

/// Runs a subcommand.
pub(super) async fn run(command: DeadCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        DeadCommand::Ls { agent, reason, after, limit, host } => {
            let query = query(&[
                ("agent", agent.as_deref()),
                ("reason", reason.as_deref()),
                ("after", after.map(|after| after.to_string()).as_deref()),
                ("limit", Some(&limit.to_string())),
            ]);
            list(&host, &query, out).await
        }
        DeadCommand::Show { number, host } => {
            let shown: DeadShown = Client::find(&host)?.get(&format!("/v1/dead-letters/{number}")).await?;
            match out.format() {
                Format::Json => out.json(&shown),
                Format::Text => out.line(&detail(&shown, out)),
            }
        }
        DeadCommand::Redeliver { which, revision, repeat_calls, host } => {
            redeliver(&which, (revision.as_deref(), repeat_calls), &host, out).await
        }
        DeadCommand::Drop { which, host } => drop_them(&which, &host, out).await,
    }
}

async fn list(host: &HostArgs, query: &str, out: &mut Out) -> Result<(), CliError> {
    let page: DeadPage = Client::find(host)?.get(&format!("/v1/dead-letters{query}")).await?;
    if out.format() == Format::Json {
        return out.json(&page);
    }
    if page.dead_letters.is_empty() {
        say("no dead letters");
        return Ok(());
    }
    out.line(&table(&page.dead_letters, clock::now_ms()).render(out.is_terminal()))?;
    if let Some(next) = page.next {
        say(&format!("there may be more: `--after {next}` shows them"));
    }
    Ok(())
}

fn table(dead: &[DeadLetterStatus], now: u64) -> Table {
    let mut table = Table::new(&[">NUMBER", "AGENT", "REASON", ">ATTEMPTS", ">AGE", "SENDER", "ERROR"]);
    for dead in dead {
        table.row(vec![
            Cell::new(dead.number.to_string()),
            Cell::new(&dead.agent),
            Cell::styled(&dead.reason, Style::Warn),
            Cell::new(dead.tried.to_string()),
            Cell::new(ago(Duration::from_millis(now.saturating_sub(dead.at)))),
            Cell::new(one_line(&dead.sender)),
            Cell::new(one_line(&dead.error)),
        ]);
    }
    table
}

/// Renders one dead letter in full.
fn detail(shown: &DeadShown, out: &Out) -> String {
    let DeadShown { dead, attempts, calls, headers, text, .. } = shown;
    let mut lines = vec![
        ("number", dead.number.to_string()),
        ("agent", dead.agent.clone()),
        ("reason", dead.reason.clone()),
        ("error", printable(&dead.error)),
        ("given up", rfc3339(dead.at)),
        ("sent", rfc3339(dead.sent_at)),
        ("message", dead.id.clone()),
        ("conversation", printable(&dead.conversation)),
        ("sender", printable(&dead.sender)),
        ("performative", dead.performative.clone()),
        ("content", format!("{}, {}", printable(&dead.content_type), size(dead.bytes))),
    ];
    lines.extend(headers.iter().map(|(name, value)| ("header", format!("{name}: {}", printable(value)))));
    let mut shown: String = lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect();
    for attempt in attempts {
        let (took, cpu) = (Duration::from_micros(attempt.took_us), Duration::from_micros(attempt.cpu_us));
        let head =
            format!("attempt {} at {} by {}: {}", attempt.number, rfc3339(attempt.at), attempt.revision, attempt.code);
        let error = printable(attempt.error.trim_end()).replace('\n', "\n    ");
        shown.push_str(&format!(
            "\n{}\n    took {took:.1?}, {cpu:.1?} on a core\n    {error}\n",
            out.paint(&head, Style::Head)
        ));
    }
    for call in calls {
        let line = format!("call {} at {}: {}", printable(&call.call), rfc3339(call.at), printable(&call.outcome));
        shown.push_str(&format!("\n{}\n", out.paint(&line, Style::Head)));
    }
    let content = match text {
        Some(text) => printable(text),
        None => "(not text; -o json has it in base64)".to_owned(),
    };
    shown.push('\n');
    shown.push_str(&content);
    shown.trim_end().to_owned()
}

/// Returns the parameter that has calls made again.
fn repeat_calls(repeats: bool) -> (&'static str, Option<&'static str>) {
    ("repeat_calls", repeats.then_some("true"))
}

fn filter<'a>(which: &'a DeadSelection, revision: Option<&'a str>, repeats_calls: bool) -> String {
    query(&[
        ("agent", which.agent.as_deref()),
        ("reason", which.reason.as_deref()),
        ("all", which.all.then_some("true")),
        ("revision", revision),
        repeat_calls(repeats_calls),
    ])
}

async fn redeliver(
    which: &DeadSelection,
    (revision, repeats_calls): (Option<&str>, bool),
    host: &HostArgs,
    out: &mut Out,
) -> Result<(), CliError> {
    let client = Client::find(host)?;
    let mut result = RedeliverResult { redelivered: 0, left: Vec::new() };
    if which.numbers.is_empty() {
        let path = format!("/v1/dead-letters/redeliver{}", filter(which, revision, repeats_calls));
        result = client.json(Method::POST, &path).await?;
    }
    for number in &which.numbers {
        let path = format!(
            "/v1/dead-letters/{number}/redeliver{}",
            query(&[("revision", revision), repeat_calls(repeats_calls)])
        );
        let one: RedeliverResult =
            // Numbers are sent one by one, so that an error names the one that failed.
            client.json(Method::POST, &path).await.map_err(|error| after(result.redelivered, error))?;
        result.redelivered += one.redelivered;
    }
    match out.format() {
        Format::Json => out.json(&result)?,
        Format::Text => {
            say(&format!("{} redelivered", letters(result.redelivered)));
            for left in &result.left {
                say(&format!("{} of {} left as they are: {}", letters(left.count), left.agent, printable(&left.why)));
            }
        }
    }
    // Some were left as they are, which the exit code has to tell.
    if result.left.is_empty() { Ok(()) } else { Err(CliError::quiet(Exit::Conflict)) }
}

async fn drop_them(which: &DeadSelection, host: &HostArgs, out: &mut Out) -> Result<(), CliError> {
    let client = Client::find(host)?;
    let mut dropped = 0;
    if which.numbers.is_empty() {
        let path = format!("/v1/dead-letters{}", filter(which, None, false));
        dropped = client.json::<DropResult>(Method::DELETE, &path).await?.dropped;
    }
    for number in &which.numbers {
        let one = client.json::<DropResult>(Method::DELETE, &format!("/v1/dead-letters/{number}")).await;
        dropped += one.map_err(|error| after(dropped, error))?.dropped;
    }
    match out.format() {
        Format::Json => out.json(&json!({ "dropped": dropped })),
        Format::Text => {
            say(&format!("{} dropped", letters(dropped)));
            Ok(())
        }
    }
}

/// Adds to an error the number of dead letters that were done before it.
fn after(done: u64, error: CliError) -> CliError {
    match error.message {
        // What was done before the error cannot be undone, so that it is told.
        Some(message) if done > 0 => CliError::new(error.exit, format!("{} done, then: {message}", letters(done))),
        _ => error,
    }
}

fn letters(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "dead letter")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_types::{AttemptStatus, RecordedCallStatus};

    fn dead() -> DeadLetterStatus {
        DeadLetterStatus {
            number: 1_207,
            id: "m-1".to_owned(),
            agent: "triage".to_owned(),
            sender: "http:POST /tickets".to_owned(),
            performative: "request".to_owned(),
            conversation: "c-1".to_owned(),
            sent_at: 1_000,
            at: 61_000,
            reason: "attempts-exhausted".to_owned(),
            error: "fault: no\x1b[2J\nway".to_owned(),
            tried: 5,
            code: Some("agent-fault".to_owned()),
            revision: Some("triage@7".to_owned()),
            content_type: "text/plain".to_owned(),
            bytes: 2_048,
        }
    }

    #[test]
    fn dead_letters_are_listed() {
        let expected = "\
NUMBER  AGENT   REASON              ATTEMPTS  AGE  SENDER              ERROR
  1207  triage  attempts-exhausted         5   2m  http:POST /tickets  fault: no\\u{1b}[2J ...";
        assert_eq!(table(&[dead()], 181_000).render(false), expected);
    }

    #[test]
    fn one_is_rendered_with_its_attempts() {
        let attempt = AttemptStatus {
            number: 5,
            at: 60_000,
            revision: "triage@7".to_owned(),
            code: "trap".to_owned(),
            error: "it trapped\n  at f".to_owned(),
            took_us: 1_500,
            cpu_us: 900,
        };
        let shown = DeadShown {
            dead: dead(),
            attempts: vec![attempt],
            calls: vec![RecordedCallStatus {
                call: "POST https://pay.example".to_owned(),
                at: 60_000,
                outcome: "not known".to_owned(),
            }],
            headers: vec![("accept".to_owned(), "*/*".to_owned())],
            text: Some("hello\x07".to_owned()),
            content_base64: String::new(),
        };
        let text = detail(&shown, &Out::new(Format::Text));
        for part in [
            "number        1207\n",
            "header        accept: */*\n",
            "content       text/plain, 2.0 KiB\n",
            "attempt 5 at 1970-01-01T00:01:00.000Z by triage@7: trap\n    took 1.5ms, 900.0µs on a core\n    it trapped\n      at f\n",
            "\ncall POST https://pay.example at 1970-01-01T00:01:00.000Z: not known\n",
            "\nhello\\u{7}",
        ] {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
    }
}
