//! `caxton rollout watch`: a rollout as it goes on.

use std::time::Duration;

use super::args::Format;
use super::client::{Client, encode};
use super::output::{Cell, CliError, Exit, Out, Style, Table, printable};
use super::rollout::{Of, figures};
use super::time::{ago, size};
use crate::status::{RolloutStatus, SideStatus};

/// Follows an agent's newest rollout until it ends. On a terminal it is drawn anew each time; elsewhere each step is a
/// line.
pub(super) async fn watch(of: &Of, out: &mut Out) -> Result<(), CliError> {
    let client = Client::find(&of.host)?;
    let mut drawn = Drawn::default();
    let path = format!("/v1/rollouts/{}/events", encode(&of.agent));
    client
        .follow(&path, |frame| {
            let rollout: RolloutStatus = serde_json::from_str(&frame.data).map_err(anyhow::Error::from)?;
            drawn.show(rollout, out)
        })
        .await?;
    match drawn.last {
        Some(last) if last.ended && last.status == "completed" => Ok(()),
        Some(last) if last.ended => Err(CliError::quiet(Exit::RolledBack)),
        Some(_) | None => Err(CliError::new(Exit::Failed, "the host ended before the rollout did")),
    }
}

/// What was shown last.
#[derive(Default)]
struct Drawn {
    last: Option<RolloutStatus>,
    /// Lines of it that a terminal shows.
    lines: usize,
}

impl Drawn {
    fn show(&mut self, rollout: RolloutStatus, out: &mut Out) -> Result<(), CliError> {
        match out.format() {
            Format::Json => out.json_line(&rollout)?,
            Format::Text if out.is_terminal() => {
                let text = picture(&rollout, out);
                let up = if self.lines > 0 { format!("\x1b[{}A\x1b[J", self.lines) } else { String::new() };
                self.lines = text.lines().count();
                out.line(&format!("{up}{}", text.trim_end()))?;
            }
            Format::Text => {
                if self.last.as_ref().is_none_or(|last| place(last) != place(&rollout)) {
                    out.line(&line(&rollout))?;
                }
                if rollout.ended {
                    out.line(&figures(&rollout))?;
                }
            }
        }
        self.last = Some(rollout);
        Ok(())
    }
}

/// What makes another line: where it is, and not what is measured there.
fn place(rollout: &RolloutStatus) -> (u64, &str, usize, u8) {
    (rollout.rollout, &rollout.status, rollout.step, rollout.weight)
}

/// A rollout in a line.
pub(super) fn line(rollout: &RolloutStatus) -> String {
    let RolloutStatus { to, status, weight, .. } = rollout;
    let why = printable(&rollout.why);
    format!("{:>7} {to} {status} {weight}%: {why}", ago(Duration::from_millis(rollout.took_ms)))
}

fn picture(rollout: &RolloutStatus, out: &Out) -> String {
    let RolloutStatus { from, to, strategy, status, weight, .. } = rollout;
    let why = printable(&rollout.why);
    let took = ago(Duration::from_millis(rollout.took_ms));
    let style = match status.as_str() {
        "completed" => Style::Good,
        "failed" | "rolled-back" | "rolling-back" => Style::Bad,
        _ => Style::Warn,
    };
    let over = |index: usize| index + 1 < rollout.step || (rollout.ended && status == "completed");
    let step = |(index, step): (usize, &String)| {
        if over(index) {
            out.paint(&format!("[x] {step}"), Style::Good)
        } else if index + 1 == rollout.step {
            out.paint(&format!("[>] {step}"), style)
        } else {
            out.paint(&format!("[ ] {step}"), Style::Dim)
        }
    };
    let steps: Vec<String> = rollout.plan.iter().enumerate().map(step).collect();
    let mut text = format!(
        "{to} after {from}, {strategy}: {} for {took}\n{}\n{why}\n",
        out.paint(status, style),
        steps.join("  ")
    );
    if let Some([stable, candidate]) = &rollout.measured {
        let mut table = Table::new(&["REVISION", ">SHARE", ">MESSAGES", ">FAILED", ">P95", ">MEMORY"]);
        table.row(row(from, 100 - weight, stable));
        table.row(row(to, *weight, candidate));
        text.push_str(table.render(out.is_terminal()).trim_end());
        text.push('\n');
    }
    text + &figures(rollout) + "\n"
}

fn row(revision: &str, share: u8, side: &SideStatus) -> Vec<Cell> {
    let p95 = side.p95_us.map_or_else(|| "-".to_owned(), |us| format!("{:.1}ms", us as f64 / 1_000.0));
    vec![
        Cell::new(revision),
        Cell::new(format!("{share}%")),
        Cell::new(side.messages.to_string()),
        Cell::new(side.failed.to_string()),
        Cell::new(p95),
        Cell::new(size(side.memory_bytes)),
    ]
}
