//! The task that wakes agents whose mailbox has something due, and all of them when the wall clock was set.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::HostDirectory;
use crate::agent::Agent;
use crate::clock;
use crate::tasks::{BEAT, TIMERS};

/// The change of the wall clock, in milliseconds, below which it counts as a correction and is not reported.
const WORTH_A_WORD: u64 = 1_000;

/// Wakes agents until `stop`.
pub(crate) async fn run(directory: Arc<HostDirectory>, stop: CancellationToken) {
    // Agents that `take_due` had removed when this task died are woken once more.
    for_each_agent(&directory, Agent::on_timer);
    loop {
        directory.context.tasks.beat(TIMERS);
        if let Some(ahead) = clock::take_jump() {
            clock_was_set(&directory, ahead).await;
        }
        let now = clock::steady_ms();
        let (ready, next) = directory.shared.wakeups.take_due(now);
        for agent in ready {
            agent.on_timer();
        }
        // Not for longer: the wall clock may be set.
        let pause = next.map_or(BEAT, |next| Duration::from_millis(next.saturating_sub(now)).min(BEAT));
        tokio::select! {
            () = stop.cancelled() => return,
            () = directory.shared.wakeups.until_sooner() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn for_each_agent(directory: &HostDirectory, look: fn(&Agent)) {
    directory.routes.load().all().for_each(|agent| look(agent));
}

/// Handles a change of the wall clock by this many milliseconds. Things with a date follow it; things that wait for a
/// duration do not.
async fn clock_was_set(directory: &HostDirectory, ahead: i64) {
    if let Err(error) = directory.context.store.timers().redate().await {
        tracing::error!(%error, "timers with a date come as if the clock had not been set");
    }
    for_each_agent(directory, Agent::follow_clock);
    // Remembered if schedules do not wait at this moment.
    directory.clock_set.notify_one();
    if ahead.unsigned_abs() < WORTH_A_WORD {
        return;
    }
    let seconds = ahead as f64 / 1e3;
    let way = if ahead > 0 { "forward" } else { "back" };
    tracing::warn!(
        "the clock went {way} by {:.1} s; what waits for a while is not touched by that, what waits for a time follows it",
        seconds.abs()
    );
    directory.context.events.emit(None, "host.clock-set", serde_json::json!({ "seconds": seconds }));
}
