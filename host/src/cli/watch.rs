//! `caxton rollout watch`: follows a rollout.

use std::time::Duration;

use super::args::Format;
use super::client::{Client, encode};
use super::output::{CliError, Exit, Out, printable};
use super::picture::{Drawn, Window, picture};
use super::rollout::{Of, figures};
use super::time::ago;
use crate::status::RolloutStatus;

/// Follows an agent's newest rollout until it ends. On a terminal the view is redrawn; elsewhere each change of state
/// is a line.
pub(super) async fn watch(of: &Of, out: &mut Out) -> Result<(), CliError> {
    let client = Client::find(&of.host)?;
    out.follow();
    let mut shown = Shown::default();
    let path = format!("/v1/rollouts/{}/events", encode(&of.agent));
    client
        .follow(&path, |frame| {
            let rollout: RolloutStatus = serde_json::from_str(&frame.data).map_err(anyhow::Error::from)?;
            shown.show(rollout, out)
        })
        .await
        .map_err(CliError::of_outcome)?;
    match shown.last {
        Some(last) if last.ended && last.status == "completed" => Ok(()),
        Some(last) if last.ended => Err(CliError::quiet(Exit::RolledBack)),
        Some(_) | None => Err(CliError::new(Exit::Failed, "the host ended before the rollout did")),
    }
}

/// The state that was shown last.
#[derive(Default)]
struct Shown {
    last: Option<RolloutStatus>,
    drawn: Drawn,
}

impl Shown {
    fn show(&mut self, rollout: RolloutStatus, out: &mut Out) -> Result<(), CliError> {
        match out.format() {
            Format::Json => out.json_line(&rollout)?,
            Format::Text if out.is_terminal() => {
                let window = Window::now();
                let lines = picture(&rollout, window, true);
                out.bytes(self.drawn.draw(&lines, window).as_bytes())?;
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

/// Returns the parts whose change is worth another line. Figures are left out: they change all the time.
fn place(rollout: &RolloutStatus) -> (u64, &str, usize, u8) {
    (rollout.rollout, &rollout.status, rollout.step, rollout.weight)
}

/// Renders a rollout in one line.
pub(super) fn line(rollout: &RolloutStatus) -> String {
    let RolloutStatus { to, status, weight, .. } = rollout;
    let why = printable(&rollout.why);
    format!("{:>7} {to} {status} {weight}%: {why}", ago(Duration::from_millis(rollout.took_ms)))
}
