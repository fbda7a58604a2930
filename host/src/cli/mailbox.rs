//! `caxton mailbox`: mailboxes, and the timers that wait beside them.

use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;

use super::client::{Client, encode, query};
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Out, Style, Table, one_line, printable, say};
use super::time::{ago, rfc3339};
use crate::admin::{TimerPage, TimerStatus};
use crate::api_types::MailboxStatus;

#[derive(Debug, Args)]
#[command(after_help = "\
A paused mailbox accepts messages up to mailbox.depth and keeps them, also over a restart; none is handled \
until it is resumed. A caller that waits for an answer waits until its timeout.

A timer is a message that waits for its time. One that is cancelled is not delivered, and nobody is told.

Examples:
  caxton mailbox ls
  caxton mailbox pause triage
  caxton mailbox resume triage
  caxton mailbox timers triage
  caxton mailbox cancel triage nightly
  caxton mailbox ls -o json | jq -r '.[] | select(.held) | .agent'")]
pub(super) struct MailboxArgs {
    #[command(subcommand)]
    pub(super) command: MailboxCommand,
}

/// The subcommands of `caxton mailbox`.
#[derive(Debug, Subcommand)]
pub(super) enum MailboxCommand {
    /// List the mailboxes
    Ls {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Hold an agent's messages
    Pause {
        /// The agent
        agent: String,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Release an agent's messages
    Resume {
        /// The agent
        agent: String,
        #[command(flatten)]
        host: HostArgs,
    },
    /// List an agent's timers: messages to it that wait for their due time, the next first
    Timers {
        /// The agent
        agent: String,
        /// Only timers after this position, as printed with the previous page
        #[arg(long, value_name = "PLACE")]
        after: Option<String>,
        /// The most to list
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Cancel a timer
    Cancel {
        /// The agent that it waits for
        agent: String,
        /// The id of its message, or its name
        #[arg(value_name = "ID|NAME")]
        timer: String,
        #[command(flatten)]
        host: HostArgs,
    },
}

/// Runs a subcommand.
pub(super) async fn run(command: MailboxCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        MailboxCommand::Ls { host } => {
            let mailboxes: Vec<MailboxStatus> = Client::find(&host)?.list("/v1/mailboxes").await?;
            match out.format() {
                Format::Json => out.json(&mailboxes),
                Format::Text if mailboxes.is_empty() => {
                    say("no agent takes messages");
                    Ok(())
                }
                Format::Text => out.line(&table(&mailboxes).render(out.is_terminal())),
            }
        }
        MailboxCommand::Pause { agent, host } => hold(&agent, "pause", &host, out).await,
        MailboxCommand::Resume { agent, host } => hold(&agent, "resume", &host, out).await,
        MailboxCommand::Timers { agent, after, limit, host } => {
            timers(&agent, after.as_deref(), limit, &host, out).await
        }
        MailboxCommand::Cancel { agent, timer, host } => cancel(&agent, &timer, &host, out).await,
    }
}

async fn timers(agent: &str, after: Option<&str>, limit: u32, host: &HostArgs, out: &mut Out) -> Result<(), CliError> {
    let query = query(&[("after", after), ("limit", Some(&limit.to_string()))]);
    let page: TimerPage = Client::find(host)?.get(&format!("/v1/mailboxes/{}/timers{query}", encode(agent))).await?;
    if out.format() == Format::Json {
        return out.json(&page);
    }
    if page.timers.is_empty() {
        say(&format!("no timer waits for {agent}"));
        return Ok(());
    }
    out.line(&timer_table(&page.timers).render(out.is_terminal()))?;
    if let Some(next) = page.next {
        say(&format!("there may be more: `--after {next}` shows them"));
    }
    Ok(())
}

fn timer_table(timers: &[TimerStatus]) -> Table {
    let mut table = Table::new(&["ID", "NAME", "SENDER", "DUE", "CONVERSATION"]);
    for timer in timers {
        table.row(vec![
            Cell::new(&timer.id),
            Cell::new(timer.name.as_deref().map_or_else(|| "-".to_owned(), one_line)),
            Cell::new(one_line(&timer.sender)),
            Cell::new(rfc3339(timer.due_at)),
            Cell::new(one_line(&timer.conversation)),
        ]);
    }
    table
}

async fn cancel(agent: &str, timer: &str, host: &HostArgs, out: &mut Out) -> Result<(), CliError> {
    let path = format!("/v1/mailboxes/{}/timers/{}", encode(agent), encode(timer));
    let cancelled: TimerStatus = Client::find(host)?.json(Method::DELETE, &path).await?;
    match out.format() {
        Format::Json => out.json(&cancelled),
        Format::Text => {
            let TimerStatus { id, sender, due_at, .. } = &cancelled;
            let due = rfc3339(*due_at);
            say(&format!("the timer {id} of {}, which was due at {due}, is cancelled", printable(sender)));
            Ok(())
        }
    }
}

async fn hold(agent: &str, what: &str, host: &HostArgs, out: &mut Out) -> Result<(), CliError> {
    let path = format!("/v1/mailboxes/{}/{what}", encode(agent));
    let mailbox: MailboxStatus = Client::find(host)?.json(Method::POST, &path).await?;
    match out.format() {
        Format::Json => out.json(&mailbox),
        Format::Text => {
            let state = if mailbox.held { "is paused" } else { "goes on" };
            say(&format!("the mailbox of {agent} {state}; {} wait in it", mailbox.depth));
            Ok(())
        }
    }
}

fn table(mailboxes: &[MailboxStatus]) -> Table {
    let mut table =
        Table::new(&["AGENT", "STATE", ">WAITING", ">BOUND", ">TO RETRY", ">TIMERS", ">IN FLIGHT", ">OLDEST"]);
    for mailbox in mailboxes {
        let (state, style) = match (mailbox.held, mailbox.breaker.as_str()) {
            (true, "closed") => ("paused".to_owned(), Style::Warn),
            (true, breaker) => (format!("paused, breaker {breaker}"), Style::Warn),
            (false, "closed") => ("open".to_owned(), Style::Good),
            (false, breaker) => (format!("breaker {breaker}"), Style::Bad),
        };
        let oldest = mailbox.oldest_ms.map_or_else(|| "-".to_owned(), |ms| ago(Duration::from_millis(ms)));
        table.row(vec![
            Cell::new(&mailbox.agent),
            Cell::styled(state, style),
            Cell::new(mailbox.depth.to_string()),
            Cell::new(mailbox.bound.to_string()),
            Cell::new(mailbox.later.to_string()),
            Cell::new(mailbox.timers.to_string()),
            Cell::new(mailbox.in_flight.to_string()),
            Cell::new(oldest),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_are_listed() {
        let mailbox = |agent: &str, held, breaker: &str, oldest_ms| MailboxStatus {
            agent: agent.to_owned(),
            depth: 7,
            bound: 10_000,
            later: 2,
            timers: 30,
            in_flight: 1,
            held,
            breaker: breaker.to_owned(),
            oldest_ms,
        };
        let mailboxes = [
            mailbox("echo", false, "closed", None),
            mailbox("held", true, "closed", Some(61_000)),
            mailbox("triage", false, "open", Some(500)),
        ];
        let expected = "\
AGENT   STATE         WAITING  BOUND  TO RETRY  TIMERS  IN FLIGHT  OLDEST
echo    open                7  10000         2      30          1       -
held    paused              7  10000         2      30          1      1m
triage  breaker open        7  10000         2      30          1      0s";
        assert_eq!(table(&mailboxes).render(false), expected);
    }

    #[test]
    fn timers_are_listed() {
        let timer = |id: &str, name: Option<&str>| TimerStatus {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            sender: "desk".to_owned(),
            due_at: 1_709_251_200_000,
            conversation: "c-1".to_owned(),
        };
        let expected = "\
ID   NAME    SENDER  DUE                       CONVERSATION
m-1  -       desk    2024-03-01T00:00:00.000Z  c-1
m-2  ni ...  desk    2024-03-01T00:00:00.000Z  c-1";
        assert_eq!(timer_table(&[timer("m-1", None), timer("m-2", Some("ni\nce"))]).render(false), expected);
    }
}
