//! Waking agents whose mailbox has something that comes due.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::clock;
use crate::commons::Commons;

/// Times are of the wall clock, which may be set: it is looked at so often at least while something waits for it.
const LOOK: Duration = Duration::from_secs(1);

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
    /// Wakes an agent at a time, in milliseconds since 1970.
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
pub(crate) async fn run(commons: Arc<Commons>, stop: CancellationToken) {
    loop {
        let now = clock::now_ms();
        let (ready, next) = commons.timers.take_due(now);
        for agent in ready {
            agent.look();
        }
        let pause = next.map(|next| Duration::from_millis(next.saturating_sub(now)).min(LOOK));
        tokio::select! {
            () = stop.cancelled() => return,
            () = commons.timers.sooner.notified() => {}
            () = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}
