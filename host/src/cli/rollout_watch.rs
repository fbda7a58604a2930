//! `caxton rollout watch`: follows a rollout.

use std::time::Duration;

use super::client::{Client, encode};
use super::options::{AgentArgs, Format};
use super::output::{CliError, Exit, Out, printable};
use super::rollout_text::stats_line;
use super::rollout_view::{Screen, TerminalSize, render};
use super::time::ago;
use crate::api_types::RolloutStatus;

/// Follows an agent's newest rollout until it ends. On a terminal the view is redrawn; elsewhere each change of state
/// is a line.
pub(super) async fn watch(of: &AgentArgs, out: &mut Out) -> Result<(), CliError> {
    let client = Client::find(&of.host)?;
    // A reader that has left ends the command: it has nothing else to do.
    out.follow();
    let mut progress = WatchProgress::default();
    let path = format!("/v1/rollouts/{}/events", encode(&of.agent));
    client
        .follow(&path, |frame| {
            let rollout: RolloutStatus = serde_json::from_str(&frame.data).map_err(anyhow::Error::from)?;
            progress.show(rollout, out)
        })
        .await
        .map_err(CliError::of_outcome)?;
    match progress.last {
        Some(last) if last.ended && last.status == "completed" => Ok(()),
        // Quiet, because its last line has the reason.
        Some(last) if last.ended => Err(CliError::quiet(Exit::RolledBack)),
        Some(_) | None => Err(CliError::new(Exit::Failed, "the host ended before the rollout did")),
    }
}

/// The state that was shown last.
#[derive(Default)]
struct WatchProgress {
    last: Option<RolloutStatus>,
    screen: Screen,
}

impl WatchProgress {
    fn show(&mut self, rollout: RolloutStatus, out: &mut Out) -> Result<(), CliError> {
        match out.format() {
            Format::Json => out.json_line(&rollout)?,
            Format::Text if out.is_terminal() => {
                let window = TerminalSize::now();
                let lines = render(&rollout, window, true);
                out.bytes(self.screen.draw(&lines, window).as_bytes())?;
            }
            Format::Text => {
                if self.last.as_ref().is_none_or(|last| milestone(last) != milestone(&rollout)) {
                    out.line(&line(&rollout))?;
                }
                if rollout.ended {
                    out.line(&stats_line(&rollout))?;
                }
            }
        }
        self.last = Some(rollout);
        Ok(())
    }
}

/// Returns the parts whose change is worth another line. Figures are left out: they change all the time.
fn milestone(rollout: &RolloutStatus) -> (u64, &str, usize, u8) {
    (rollout.rollout, &rollout.status, rollout.step, rollout.weight)
}

/// Renders a rollout in one line.
pub(super) fn line(rollout: &RolloutStatus) -> String {
    let RolloutStatus { to, status, weight, .. } = rollout;
    let why = printable(&rollout.why);
    format!("{:>7} {to} {status} {weight}%: {why}", ago(Duration::from_millis(rollout.took_ms)))
}
