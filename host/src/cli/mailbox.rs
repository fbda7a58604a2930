//! `caxton mailbox`.

use std::time::Duration;

use http::Method;

use super::args::{Format, HostArgs};
use super::client::{Client, encode};
use super::operate::MailboxCommand;
use super::output::{Cell, CliError, Out, Style, Table, say};
use super::time::ago;
use crate::status::MailboxStatus;

/// Lists mailboxes, pauses or resumes one.
pub(super) async fn run(command: MailboxCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        MailboxCommand::Ls { host } => {
            let mailboxes: Vec<MailboxStatus> = Client::find(&host)?.get("/v1/mailboxes").await?;
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
}
