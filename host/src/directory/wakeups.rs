//! Waking agents whose mailbox has something that comes due, and all of them when somebody set the wall clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::clock;
use crate::context::HostContext;
use crate::tasks::{BEAT, TIMERS};

/// A wall clock that was set by less than this, in milliseconds, was corrected, which is not worth a word.
const WORTH_A_WORD: u64 = 1_000;

/// Who is to be woken when.
#[derive(Default)]
pub(crate) struct Timers {
    due: Mutex<Due>,
    sooner: Notify,
}

#[derive(Default)]
struct Due {
    /// By time, and by a number that tells those of one time apart.
    agents: BTreeMap<(u64, u64), Weak<Agent>>,
    count: u64,
}

impl Timers {
    /// Wakes an agent at a time of the steady clock.
    pub(crate) fn wake(&self, at: u64, agent: &Weak<Agent>) {
        let first = {
            let mut due = self.due.lock();
            let first = due.agents.first_key_value().is_none_or(|((first, _), _)| at < *first);
            due.count += 1;
            let count = due.count;
            due.agents.insert((at, count), Weak::clone(agent));
            first
        };
        if first {
            self.sooner.notify_one();
        }
    }

    /// Takes out whoever is due, and says when the next one is.
    fn take_due(&self, now: u64) -> (Vec<Arc<Agent>>, Option<u64>) {
        let mut due = self.due.lock();
        let later = due.agents.split_off(&(now.saturating_add(1), 0));
        let ready = std::mem::replace(&mut due.agents, later);
        let next = due.agents.first_key_value().map(|((at, _), _)| *at);
        (ready.into_values().filter_map(|agent| agent.upgrade()).collect(), next)
    }
}

/// Wakes agents until `stop`.
pub(crate) async fn run(context: Arc<HostContext>, stop: CancellationToken) {
    // Whoever was taken out when this died is woken once more.
    look_at_all(&context, Agent::look);
    loop {
        context.tasks.beat(TIMERS);
        if let Some(ahead) = clock::look() {
            clock_was_set(&context, ahead).await;
        }
        let now = clock::steady_ms();
        let (ready, next) = context.timers.take_due(now);
        for agent in ready {
            agent.look();
        }
        // Not for longer: the wall clock may be set.
        let pause = next.map_or(BEAT, |next| Duration::from_millis(next.saturating_sub(now)).min(BEAT));
        tokio::select! {
            () = stop.cancelled() => return,
            () = context.timers.sooner.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn look_at_all(context: &HostContext, look: fn(&Agent)) {
    context.routes.load().all().for_each(|agent| look(agent));
}

/// Somebody set the wall clock, by so many milliseconds. What waits for one of its times is looked at anew; all else waits
/// as long as it would have.
async fn clock_was_set(context: &HostContext, ahead: i64) {
    if let Err(error) = context.store.redate_timers().await {
        tracing::error!(%error, "timers with a date come as if the clock had not been set");
    }
    look_at_all(context, Agent::follow_clock);
    context.clock_set.notify_one();
    if ahead.unsigned_abs() < WORTH_A_WORD {
        return;
    }
    let seconds = ahead as f64 / 1e3;
    let way = if ahead > 0 { "forward" } else { "back" };
    tracing::warn!(
        "the clock went {way} by {:.1} s; what waits for a while is not touched by that, what waits for a time follows it",
        seconds.abs()
    );
    context.events.tell(None, "host.clock-set", serde_json::json!({ "seconds": seconds }));
}
