//! `caxton diff` and `caxton apply`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use caxton_control::units::parse_duration;
use http::Method;

use super::args::{ApplyArgs, DiffArgs};
use super::client::{Client, query};
use super::options::Format;
use super::output::{CliError, Exit, Out, Style, printable, say};
use super::rollout_watch;
use crate::api_types::{ApplyResult, DeclarationDiff, PlannedChange, RolloutStatus, WaitingAgent};

/// Prints the changes that the declaration would make.
pub(super) async fn diff(diff: &DiffArgs, out: &mut Out) -> Result<(), CliError> {
    let found: DeclarationDiff = Client::find(&diff.host)?.get("/v1/config/diff").await?;
    match out.format() {
        Format::Json => out.json(&found),
        Format::Text if found.changes.is_empty() => {
            say("nothing would change: what runs is what the file says");
            Ok(())
        }
        Format::Text => print(&found.changes, out),
    }
}

/// Applies the declaration, and waits for the rollouts that it starts.
pub(super) async fn apply(apply: &ApplyArgs, out: &mut Out) -> Result<ExitCode, CliError> {
    let began = Instant::now();
    let timeout =
        // Parsed before anything is sent, so that the message names the flag.
        parse_duration(&apply.timeout).map_err(|error| CliError::new(Exit::Usage, format!("--timeout: {error}")))?;
    let client = Client::find(&apply.host)?;
    if out.format() == Format::Text && out.is_terminal() {
        say("waiting until everything is as declared ...");
    }
    // Read before the apply, to tell its rollouts from earlier ones.
    let before = rollouts(&client).await?;
    let path = format!("/v1/config/apply{}", query(&[("timeout", Some(&apply.timeout))]));
    let applied: ApplyResult = client.json(Method::POST, &path).await?;
    match out.format() {
        Format::Json => out.json(&applied)?,
        Format::Text => print(&applied.changes, out)?,
    }
    let mut started = StartedRollouts { before, moved: BTreeMap::new(), printed: BTreeMap::new() };
    let now = loop {
        let now = started.of(rollouts(&client).await?);
        if out.format() == Format::Text {
            started.tell(&now);
        }
        if apply.no_wait || !now.iter().any(|rollout| started.is_under_way(rollout)) {
            break now;
        }
        // The host's own timeout covers the apply, this one the rollouts that follow.
        if began.elapsed() > timeout {
            let why = "the rollouts go on; `caxton rollout watch AGENT` follows one to its end";
            return Err(CliError::new(Exit::Timeout, why));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    conclude(&applied, &started.before, &now, apply.no_wait, out)
}

/// Prints the outcome and returns the exit code. With `no_wait`, a rollout under way counts as success.
fn conclude(
    applied: &ApplyResult,
    before: &[RolloutStatus],
    rollouts: &[RolloutStatus],
    no_wait: bool,
    out: &Out,
) -> Result<ExitCode, CliError> {
    let went_back = |rollout: &&RolloutStatus| rollout.ended && rollout.status != "completed";
    // A rollout that failed earlier and is still declared is as bad as one that fails now, unless another has begun
    // since.
    let is_last = |b: &&RolloutStatus| !rollouts.iter().any(|rollout| rollout.agent == b.agent);
    let refused = before.iter().filter(|b| is_last(b) && applied.waiting.iter().any(|w| w.agent == b.agent));
    let bad: Vec<&RolloutStatus> = rollouts.iter().chain(refused).filter(went_back).collect();
    let serves = |agent: &str| rollouts.iter().any(|r| r.agent == agent && (r.moved || r.status == "completed"));
    // Entries without an agent are about the host, which waits only while it starts.
    let agents_are = applied.settled || applied.waiting.iter().all(|w| serves(&w.agent));
    let settled = bad.is_empty() && agents_are && !applied.waiting.iter().any(|w| w.agent.is_empty());
    let goes_on = |agent: &str| no_wait && rollouts.iter().any(|r| r.agent == agent && !r.ended);
    let waits_for_rollout = |w: &WaitingAgent| w.obstacle.is_none() && (serves(&w.agent) || goes_on(&w.agent));
    let goes_on = !settled && bad.is_empty() && applied.waiting.iter().all(waits_for_rollout);
    if out.format() == Format::Text {
        let old = applied.waiting.iter().filter(|w| !rollouts.iter().any(|rollout| rollout.agent == w.agent));
        waiting(old);
        match (settled, applied.changes.is_empty() && rollouts.is_empty()) {
            _ if goes_on => say("the rollouts go on; `caxton rollout watch AGENT` follows one to its end"),
            (true, true) => say("nothing changed: what runs is what the file says"),
            (true, false) => say("everything is as declared"),
            (false, _) => say("not everything is as declared; `caxton ps` and `caxton logs` say more"),
        }
    }
    match (settled || goes_on, bad.is_empty()) {
        (true, _) => Ok(ExitCode::SUCCESS),
        // Told apart from other failures, so that a deployment script can react to a refused revision.
        (false, false) => Err(CliError::quiet(Exit::RolledBack)),
        (false, true) => Err(CliError::quiet(Exit::Failed)),
    }
}

/// The interval at which rollouts are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The time for which a rollout with all traffic is observed: probes and messages show within it whether the revision
/// works.
const OBSERVED_FOR: Duration = Duration::from_secs(5);

async fn rollouts(client: &Client) -> Result<Vec<RolloutStatus>, CliError> {
    client.list("/v1/rollouts").await
}

/// The rollouts of an apply.
struct StartedRollouts {
    /// The newest rollout of each agent before the apply.
    before: Vec<RolloutStatus>,
    /// The time since when a rollout has all traffic, by agent.
    moved: BTreeMap<String, Instant>,
    /// The state that was printed last, by agent.
    printed: BTreeMap<String, String>,
}

impl StartedRollouts {
    /// Returns the rollouts that were under way before the apply or have started since.
    fn of(&mut self, now: Vec<RolloutStatus>) -> Vec<RolloutStatus> {
        let over = |rollout: &RolloutStatus| {
            self.before.iter().any(|b| b.agent == rollout.agent && b.rollout == rollout.rollout && b.ended)
        };
        let now: Vec<RolloutStatus> = now.into_iter().filter(|rollout| !over(rollout)).collect();
        for rollout in now.iter().filter(|rollout| rollout.moved) {
            self.moved.entry(rollout.agent.clone()).or_insert_with(Instant::now);
        }
        now
    }

    /// Returns `true` if the command should wait for the rollout.
    fn is_under_way(&self, rollout: &RolloutStatus) -> bool {
        // A rollout with all traffic may wait for hours until the old revision has drained.
        let is_observed = self.moved.get(&rollout.agent).is_some_and(|since| since.elapsed() >= OBSERVED_FOR);
        // A paused one goes on only when a person says so.
        !rollout.ended && rollout.status != "paused" && !is_observed
    }

    fn tell(&mut self, now: &[RolloutStatus]) {
        for rollout in now {
            // Figures are left out, since they change with every poll.
            let progress = format!("{} {} {}", rollout.rollout, rollout.step, rollout.status);
            if self.printed.insert(rollout.agent.clone(), progress.clone()) != Some(progress) {
                say(&rollout_watch::line(rollout));
            }
        }
    }
}

fn print(changes: &[PlannedChange], out: &mut Out) -> Result<(), CliError> {
    for change in changes {
        let (sign, style) = match change.change.as_str() {
            "add" => ("+", Style::Good),
            "remove" => ("-", Style::Bad),
            "restart-needed" | "missing" | "failed" | "refused" => ("!", Style::Bad),
            _ => ("~", Style::Warn),
        };
        let whose = change.agent.as_deref().unwrap_or("host");
        out.line(&out.paint(&format!("{sign} {whose} ({})", change.change), style))?;
        for detail in &change.details {
            out.line(&format!("    {}", printable(detail)))?;
        }
    }
    Ok(())
}

/// Prints the agents that are not as declared.
pub(super) fn waiting<'a>(waiting: impl IntoIterator<Item = &'a WaitingAgent>) {
    for waiting in waiting {
        // An entry without an agent is about the host.
        let whose = if waiting.agent.is_empty() { "host" } else { &waiting.agent };
        say(&format!("{whose}: {}", printable(&waiting.why)));
    }
}
