//! `caxton rollout`.

use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;

use super::client::{Client, encode, query};
use super::options::{AgentArgs, Format, HostArgs};
use super::output::{Cell, CliError, Exit, Out, Style, Table, count_of, say};
use super::rollout_text::{differences_table, stats_line};
use super::rollout_watch;
use super::time::ago;
use crate::api_types::{AnswerDifferences, RolloutStatus};

#[derive(Debug, Args)]
#[command(after_help = "\
How a rollout goes is declared with `deploy`, `reload` and `rollback`. `undo` works at any time, also when a rollout is \
over: the revision that ran before is kept with its bytes, its settings and the memory that it handed over. Once all \
traffic has moved it is rehearsed: before any traffic goes back, the earlier revision handles the last messages on a copy \
of the current state (`rollback.rehearse` of them, or up to 100). An undo whose rehearsal fails is `failed`, and the \
running revision stays; `--no-rehearse` goes back all the same. A refused declaration is not tried again until it \
changes, or until `retry`.

`status` ends with 6 if the newest rollout was rolled back, and so does `watch` if the one that it followed failed or was \
rolled back.

Examples:
  caxton rollout status triage
  caxton rollout differences triage
  caxton rollout watch triage
  caxton rollout promote triage
  caxton rollout undo triage --to 3
  caxton rollout undo triage --no-rehearse
  caxton rollout undo triage --restore-state
  caxton rollout history triage -o json | jq '.[] | select(.status == \"rolled-back\") | .why'")]
pub(super) struct RolloutArgs {
    #[command(subcommand)]
    pub(super) command: RolloutCommand,
}

/// The subcommands of `caxton rollout`.
#[derive(Debug, Subcommand)]
pub(super) enum RolloutCommand {
    /// List the newest rollout of each agent
    Ls {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show an agent's newest rollout
    Status(AgentArgs),
    /// Follow an agent's rollout until it ends: its steps, weights and figures
    Watch(AgentArgs),
    /// List an agent's rollouts, the newest first
    History(AgentArgs),
    /// Show messages that were answered differently, as copies or in a rehearsal, with both answers side by side
    Differences {
        #[command(flatten)]
        of: AgentArgs,
        /// The rollout, by its number in `history -o json`; by default the newest with differences
        #[arg(long, value_name = "NUMBER")]
        rollout: Option<u64>,
    },
    /// Pause it
    Pause(AgentArgs),
    /// Resume it after a pause
    Resume(AgentArgs),
    /// Promote it to the next step
    Promote(AgentArgs),
    /// Abort it; the revision before gets all traffic back
    Abort(AgentArgs),
    /// Try again what was refused
    Retry(AgentArgs),
    /// Go back to an earlier revision
    Undo {
        #[command(flatten)]
        of: AgentArgs,
        /// The number of the revision, such as 3 or triage@3; by default the one that ran before
        #[arg(long, value_name = "NUMBER", value_parser = revision_number)]
        to: Option<u64>,
        /// Go back at once, without letting that revision handle the last messages on a copy first
        #[arg(long)]
        no_rehearse: bool,
        /// Go back to the state as it was when a revision of another format followed; what was written since is kept
        /// for another undo
        #[arg(long)]
        restore_state: bool,
    },
}

/// Runs a subcommand.
pub(super) async fn run(command: RolloutCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        RolloutCommand::Ls { host } => list(&Client::find(&host)?.list::<RolloutStatus>("/v1/rollouts").await?, out),
        RolloutCommand::History(of) => list(&rollouts(&of).await?, out),
        RolloutCommand::Status(of) => {
            let newest = rollouts(&of).await?.into_iter().next();
            let newest = newest.ok_or_else(|| {
                CliError::new(Exit::NotFound, format!("{} has had no rollout: its first revision runs", of.agent))
            })?;
            show(&newest, out)?;
            // For scripts, which ask whether a deployment has come through.
            if newest.status == "rolled-back" { Err(CliError::quiet(Exit::RolledBack)) } else { Ok(()) }
        }
        RolloutCommand::Differences { of, rollout } => differences(&of, rollout, out).await,
        RolloutCommand::Watch(of) => rollout_watch::watch(&of, out).await,
        RolloutCommand::Pause(of) => act(&of, "pause", "", out).await,
        RolloutCommand::Resume(of) => act(&of, "resume", "", out).await,
        RolloutCommand::Promote(of) => act(&of, "promote", "", out).await,
        RolloutCommand::Abort(of) => act(&of, "abort", "", out).await,
        RolloutCommand::Retry(of) => act(&of, "retry", "", out).await,
        RolloutCommand::Undo { of, to, no_rehearse, restore_state } => {
            let to = to.map(|number| number.to_string());
            let asks = query(&[
                ("to", to.as_deref()),
                ("rehearse", no_rehearse.then_some("false")),
                ("restore-state", restore_state.then_some("true")),
            ]);
            act(&of, "undo", &asks, out).await
        }
    }
}

async fn rollouts(of: &AgentArgs) -> Result<Vec<RolloutStatus>, CliError> {
    Client::find(&of.host)?.get(&format!("/v1/rollouts/{}", encode(&of.agent))).await
}

async fn act(of: &AgentArgs, what: &str, query: &str, out: &mut Out) -> Result<(), CliError> {
    let path = format!("/v1/rollouts/{}/{what}{query}", encode(&of.agent));
    let rollout: RolloutStatus = Client::find(&of.host)?.json(Method::POST, &path).await?;
    match out.format() {
        Format::Json => out.json(&rollout),
        Format::Text if what == "retry" => {
            say(&format!("what {} declares is tried again", of.agent));
            Ok(())
        }
        Format::Text if what == "undo" && !rollout.ended && rollout.strategy == "undo" => {
            let RolloutStatus { agent, from, to, .. } = &rollout;
            say(&format!("{agent} goes back from {from} to {to}; `caxton rollout watch {agent}` follows it"));
            Ok(())
        }
        Format::Text => {
            say(&format!("the rollout of {} is {}: {}", rollout.to, rollout.status, rollout.why));
            Ok(())
        }
    }
}

/// Parses the number of a revision, also in the form in which revisions are shown.
fn revision_number(given: &str) -> Result<u64, String> {
    // Both forms are taken, since other commands print `triage@3`.
    let number = given.rsplit_once('@').map_or(given, |(_, number)| number);
    number
        .parse()
        .map_err(|_| format!("the number of a revision is expected, such as 3 or triage@3; `{given}` is none"))
}

async fn differences(of: &AgentArgs, rollout: Option<u64>, out: &mut Out) -> Result<(), CliError> {
    let query = rollout.map(|number| format!("?rollout={number}")).unwrap_or_default();
    let path = format!("/v1/rollouts/{}/differences{query}", encode(&of.agent));
    let found: AnswerDifferences = Client::find(&of.host)?.get(&path).await?;
    match out.format() {
        Format::Json => return out.json(&found),
        Format::Text if found.messages.is_empty() => {
            say(&format!("no message to {} was answered otherwise", of.agent));
        }
        Format::Text => out.line(&differences_table(&found.messages).render(out.is_terminal()))?,
    }
    if !found.by_nature.is_empty() {
        say(&format!("not compared, since it differs by nature: {}", found.by_nature.join(", ")));
    }
    Ok(())
}

fn show(rollout: &RolloutStatus, out: &mut Out) -> Result<(), CliError> {
    match out.format() {
        Format::Json => out.json(rollout),
        Format::Text => out.line(&text(rollout)),
    }
}

fn text(rollout: &RolloutStatus) -> String {
    let RolloutStatus { from, to, strategy, status, why, step, steps, weight, .. } = rollout;
    let took = ago(Duration::from_millis(rollout.took_ms));
    let passed = if rollout.ended { format!("took {took}") } else { format!("for {took}") };
    let (stable, candidate) = (rollout.stable_messages, rollout.candidate_messages);
    let (copies, alike) = (rollout.copies, rollout.copies_alike);
    let alike = format!("\n{alike} of {} answered alike", count_of(copies, "copy was", "copies were"));
    let compared = match rollout.copies_set_aside {
        0 if copies == 0 => String::new(),
        0 => alike,
        more => format!("{alike}; {more} more could not be compared"),
    };
    let rehearsed = rehearsed(rollout);
    format!(
        "{to} after {from}, {strategy}: {status}, {passed}\n{why}\nstep {step} of {steps}, {weight}% to {to}; {from} answered {stable}, {to} {candidate}{rehearsed}{compared}\n{}",
        stats_line(rollout)
    )
}

/// Returns a line with the comparison of the rehearsal's answers; empty without one.
fn rehearsed(rollout: &RolloutStatus) -> String {
    let RolloutStatus { rehearsed, rehearsed_alike: alike, rehearsed_not_compared: more, .. } = rollout;
    let more = if *more == 0 { String::new() } else { format!("; {more} more could not be compared") };
    if *rehearsed == 0 && more.is_empty() {
        return String::new();
    }
    let all = count_of(*rehearsed, "rehearsed message was", "rehearsed messages were");
    format!("\n{alike} of {all} answered alike{more}")
}

fn list(rollouts: &[RolloutStatus], out: &mut Out) -> Result<(), CliError> {
    match out.format() {
        Format::Json => out.json(&rollouts),
        Format::Text if rollouts.is_empty() => {
            say("there was no rollout");
            Ok(())
        }
        Format::Text => out.line(&table(rollouts).render(out.is_terminal())),
    }
}

fn table(rollouts: &[RolloutStatus]) -> Table {
    let mut table =
        Table::new(&["TO", "FROM", "STRATEGY", "STATUS", ">STEP", ">WEIGHT", ">TOOK", ">LOST", "BY", "WHY"]);
    for rollout in rollouts {
        let style = match rollout.status.as_str() {
            "completed" => Style::Good,
            "failed" | "rolled-back" => Style::Bad,
            _ => Style::Warn,
        };
        table.row(vec![
            Cell::new(&rollout.to),
            Cell::new(&rollout.from),
            Cell::new(&rollout.strategy),
            Cell::styled(rollout.status.clone(), style),
            Cell::new(format!("{}/{}", rollout.step, rollout.steps)),
            Cell::new(format!("{}%", rollout.weight)),
            Cell::new(ago(Duration::from_millis(rollout.took_ms))),
            match rollout.lost_messages {
                None => Cell::new("-"),
                Some(0) => Cell::new("0"),
                Some(lost) => Cell::styled(lost.to_string(), Style::Bad),
            },
            Cell::new(&rollout.who),
            Cell::new(&rollout.why),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::rollout_view::tests::rollout;
    use super::*;

    #[test]
    fn one_is_told_as_one() {
        let of = |number, lost_messages, alike| RolloutStatus {
            started_instances: number,
            probes_passed: number,
            copies: number,
            copies_alike: alike,
            lost_messages,
            ..rollout("so")
        };
        for (status, expected, compared) in [
            (
                of(1, Some(1), 1),
                "echo@2: 1 instance started, 0 failed; 1 probe passed, 0 failed; 1.0 MiB of memory at most; longest pause 0s; 1 message lost",
                "1 of 1 copy was answered alike",
            ),
            (
                of(2, Some(0), 1),
                "echo@2: 2 instances started, 0 failed; 2 probes passed, 0 failed; 1.0 MiB of memory at most; longest pause 0s; 0 messages lost",
                "1 of 2 copies were answered alike",
            ),
        ] {
            assert_eq!(stats_line(&status), expected);
            assert!(text(&status).contains(compared), "{}", text(&status));
        }
    }
}
