//! `caxton budget`.

use std::fmt::Write;
use std::time::Duration;

use caxton_control::units::print_bytes;
use clap::Subcommand;

use super::client::{Client, encode, query};
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Out, Style, Table, printable, say};
use super::time::rfc3339;
use crate::api_types::{AgentUse, BudgetUse};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A tree is all that followed from one message or call with a budget, over all agents; it has the id of that message. Exit \
code 3 if it is unknown.

Examples:
  caxton budget ls
  caxton budget ls --budget research -o json
  caxton budget show 01a1fd70-ceca-7763-ac17-b399c5b071a6")]
pub(super) struct BudgetArgs {
    #[command(subcommand)]
    pub(super) command: BudgetCommand,
}

/// The subcommands of `caxton budget`.
#[derive(Debug, Subcommand)]
pub(super) enum BudgetCommand {
    /// List trees with what they have used, those that began last first
    Ls {
        /// Only those of this budget
        #[arg(long, value_name = "NAME")]
        budget: Option<String>,
        /// The most to list
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show what the agents of a tree have used
    Show {
        /// The id of the message or call that it began with
        id: String,
        #[command(flatten)]
        host: HostArgs,
    },
}

/// Runs a subcommand.
pub(super) async fn run(command: BudgetCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        BudgetCommand::Ls { budget, limit, host } => {
            let query = query(&[("budget", budget.as_deref()), ("limit", Some(&limit.to_string()))]);
            let found: Vec<BudgetUse> = Client::find(&host)?.get(&format!("/v1/budgets{query}")).await?;
            match out.format() {
                Format::Json => out.json(&found),
                Format::Text if found.is_empty() => {
                    say("nothing with a budget is known");
                    Ok(())
                }
                Format::Text => out.line(&table(&found).render(out.is_terminal())),
            }
        }
        BudgetCommand::Show { id, host } => {
            let found: BudgetUse = Client::find(&host)?.get(&format!("/v1/budgets/{}", encode(&id))).await?;
            match out.format() {
                Format::Json => out.json(&found),
                Format::Text => out.line(render(&found, out.is_terminal()).trim_end()),
            }
        }
    }
}

fn table(found: &[BudgetUse]) -> Table {
    let mut table = Table::new(&["TREE", "BUDGET", "BEGAN", ">MESSAGES", ">CALLS", ">BYTES", ">CPU", "UNITS", "STATE"]);
    for tree in found {
        let (limits, used) = (&tree.limits, &tree.used);
        table.row(vec![
            Cell::new(&tree.id),
            Cell::new(&tree.budget),
            Cell::new(rfc3339(tree.began_at)),
            Cell::new(of(&used.messages.to_string(), limits.messages.map(|limit| limit.to_string()))),
            Cell::new(of(&used.calls.to_string(), limits.calls.map(|limit| limit.to_string()))),
            Cell::new(of(&print_bytes(used.bytes), limits.bytes.map(print_bytes))),
            Cell::new(of(&micros(used.cpu_us), limits.cpu_us.map(micros))),
            Cell::new(units(tree)),
            match tree.exceeded {
                true => Cell::styled("exceeded", Style::Warn),
                false => Cell::new("within"),
            },
        ]);
    }
    table
}

/// Renders a tree with the use of each agent.
pub(super) fn render(tree: &BudgetUse, colours: bool) -> String {
    let limits = &tree.limits;
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(text, "tree          {}", printable(&tree.id));
    let state = if tree.exceeded { "exceeded: something was refused" } else { "within its limits" };
    let time = limits.time_us.map(|time| format!(", for {}", micros(time))).unwrap_or_default();
    let _ = writeln!(text, "budget        {}, {state}", tree.budget);
    let _ = writeln!(text, "began         {}{time}", rfc3339(tree.began_at));
    let _ = writeln!(text, "conversation  {}", printable(&tree.conversation).replace('\n', "\\n"));
    let mut table = Table::new(&["AGENT", ">MESSAGES", ">CALLS", ">BYTES", ">CPU", "UNITS"]);
    for (agent, used) in tree.agents.iter().map(|(agent, used)| (agent.as_str(), used)).chain([("all", &tree.used)]) {
        table.row(row(agent, used));
    }
    let none = || "-".to_owned();
    let count = |limit: Option<u64>| limit.map_or_else(none, |limit| limit.to_string());
    let bound = limits.units.iter().map(|(unit, limit)| format!("{limit} {unit}")).collect::<Vec<_>>().join(", ");
    table.row(vec![
        Cell::new("at most"),
        Cell::new(count(limits.messages)),
        Cell::new(count(limits.calls)),
        Cell::new(limits.bytes.map_or_else(none, print_bytes)),
        Cell::new(limits.cpu_us.map_or_else(none, micros)),
        Cell::new(if bound.is_empty() { none() } else { bound }),
    ]);
    let _ = writeln!(text, "\n{}", table.render(colours));
    for (unit, reserved) in &tree.reserved {
        let _ = writeln!(text, "{reserved} {unit} are reserved for calls under way");
    }
    text
}

fn row(agent: &str, used: &AgentUse) -> Vec<Cell> {
    let units: Vec<String> = used.units.iter().map(|(unit, amount)| format!("{amount} {unit}")).collect();
    vec![
        Cell::new(agent),
        Cell::new(used.messages.to_string()),
        Cell::new(used.calls.to_string()),
        Cell::new(print_bytes(used.bytes)),
        Cell::new(micros(used.cpu_us)),
        Cell::new(if units.is_empty() { "-".to_owned() } else { units.join(", ") }),
    ]
}

fn of(used: &str, limit: Option<String>) -> String {
    limit.map_or_else(|| used.to_owned(), |limit| format!("{used}/{limit}"))
}

fn units(tree: &BudgetUse) -> String {
    let names = tree.limits.units.keys().chain(tree.used.units.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    let print = |unit: &&String| {
        let used = tree.used.units.get(*unit).copied().unwrap_or(0).to_string();
        format!("{} {unit}", of(&used, tree.limits.units.get(*unit).map(u64::to_string)))
    };
    if names.is_empty() { "-".to_owned() } else { names.iter().map(print).collect::<Vec<_>>().join(", ") }
}

fn micros(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match micros {
        0 => "0s".to_owned(),
        // Handlers mostly take less than what the file is written in.
        1..1_000 => format!("{micros}us"),
        _ => caxton_control::units::print_duration(time),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api_types::BudgetLimits;

    pub(in crate::cli) fn tree() -> BudgetUse {
        let units = |amount| BTreeMap::from([("tokens".to_owned(), amount)]);
        let one = AgentUse { messages: 3, calls: 2, bytes: 2_048, cpu_us: 1_500, units: units(70) };
        let other = AgentUse { messages: 1, cpu_us: 700, ..AgentUse::default() };
        let used = AgentUse { messages: 4, calls: 2, bytes: 2_048, cpu_us: 2_200, units: units(70) };
        BudgetUse {
            id: "m-1".to_owned(),
            budget: "research".to_owned(),
            conversation: "c-1".to_owned(),
            began_at: 1_709_251_200_000,
            last_at: Some(1_709_251_200_100),
            exceeded: true,
            limits: BudgetLimits {
                messages: Some(4),
                time_us: Some(60_000_000),
                units: units(100),
                ..BudgetLimits::default()
            },
            used,
            reserved: units(30),
            agents: BTreeMap::from([("desk".to_owned(), one), ("clerk".to_owned(), other)]),
        }
    }

    #[test]
    fn trees_are_listed() {
        let expected = "\
TREE  BUDGET    BEGAN                     MESSAGES  CALLS  BYTES  CPU  UNITS          STATE
m-1   research  2024-03-01T00:00:00.000Z       4/4      2   2KiB  2ms  70/100 tokens  exceeded";
        assert_eq!(table(&[tree()]).render(false), expected);
    }

    #[test]
    fn a_tree_is_shown_by_agent() {
        let expected = "\
tree          m-1
budget        research, exceeded: something was refused
began         2024-03-01T00:00:00.000Z, for 1m
conversation  c-1

AGENT    MESSAGES  CALLS  BYTES    CPU  UNITS
clerk           1      0     0B  700us  -
desk            3      2   2KiB    1ms  70 tokens
all             4      2   2KiB    2ms  70 tokens
at most         4      -      -      -  100 tokens
30 tokens are reserved for calls under way
";
        assert_eq!(render(&tree(), false), expected);
    }
}
