//! `caxton schedule`.

use clap::Subcommand;

use super::client::{Client, query};
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Out, Table, say};
use super::time::rfc3339;
use crate::api_types::ScheduleStatus;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Times are in UTC.

Examples:
  caxton schedule ls
  caxton schedule ls billing
  caxton schedule ls -o json | jq -r '.[].next_at'")]
pub(super) struct ScheduleArgs {
    #[command(subcommand)]
    pub(super) command: ScheduleCommand,
}

/// The subcommands of `caxton schedule`.
#[derive(Debug, Subcommand)]
pub(super) enum ScheduleCommand {
    /// List schedules with their last and next times
    Ls {
        /// Only those of this agent
        agent: Option<String>,
        #[command(flatten)]
        host: HostArgs,
    },
}

/// Runs a subcommand.
pub(super) async fn run(command: ScheduleCommand, out: &mut Out) -> Result<(), CliError> {
    let ScheduleCommand::Ls { agent, host } = command;
    let query = query(&[("agent", agent.as_deref())]);
    let found: Vec<ScheduleStatus> = Client::find(&host)?.list(&format!("/v1/schedules{query}")).await?;
    match out.format() {
        Format::Json => out.json(&found),
        Format::Text if found.is_empty() => {
            say("no schedule is declared");
            Ok(())
        }
        Format::Text => out.line(&table(&found).render(out.is_terminal())),
    }
}

fn table(found: &[ScheduleStatus]) -> Table {
    let mut table = Table::new(&["AGENT", "CRON", "TIMEZONE", "MISSED", "LAST", "NEXT"]);
    for schedule in found {
        let time = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), rfc3339);
        table.row(vec![
            Cell::new(&schedule.agent),
            Cell::new(&schedule.cron),
            Cell::new(&schedule.timezone),
            Cell::new(&schedule.missed),
            Cell::new(time(schedule.last_at)),
            Cell::new(time(schedule.next_at)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_listed() {
        let schedule = ScheduleStatus {
            agent: "billing".to_owned(),
            cron: "0 9 * * MON-FRI".to_owned(),
            timezone: "Europe/Berlin".to_owned(),
            missed: "latest".to_owned(),
            last_at: None,
            next_at: Some(1_709_251_200_000),
        };
        let expected = "\
AGENT    CRON             TIMEZONE       MISSED  LAST  NEXT
billing  0 9 * * MON-FRI  Europe/Berlin  latest  -     2024-03-01T00:00:00.000Z";
        assert_eq!(table(&[schedule]).render(false), expected);
    }
}
