//! The handles that all parts of a host share. Nothing here knows agents: the directory above does.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use caxton_control::RevisionId;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::bounds;
use crate::clock;
use crate::conversation::Conversations;
use crate::events::Events;
use crate::logs::{Line, Logs};
use crate::outgoing::OutgoingClient;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::host_stats::StatsRecorder;

/// The handles that all parts of a host share.
pub(crate) struct HostContext {
    pub(crate) store: Arc<Store>,
    /// The open conversations.
    pub(crate) conversations: Arc<Conversations>,
    /// The threads of mailboxes, apart from those of HTTP calls, which therefore never wait behind messages.
    pub(crate) workers: Handle,
    /// The logs of agents.
    pub(crate) logs: Logs,
    /// The events of the host.
    pub(crate) events: Events,
    /// The figures of all agents together.
    pub(crate) host_stats: Arc<StatsRecorder>,
    /// The tasks that make up the host.
    pub(crate) tasks: Arc<Tasks>,
    /// Bounds how often the end of a chain of messages is reported.
    pub(crate) chain_ends: Throttle,
    /// The client for calls over HTTP of all agents.
    pub(crate) outgoing: OutgoingClient,
    /// Bounds how often an event tells of a call that was refused or failed: by agent, place and code.
    pub(crate) call_problems: Throttle,
    /// The memory that waiting messages take.
    pub(crate) resident: Resident,
    /// The agents that the reconciler has to look at: a set, so that it is bounded by the number of agents.
    changed: Mutex<BTreeSet<Arc<str>>>,
    reconcile: Notify,
}

/// A count of bytes with a bound. Padded, because all threads write to it.
#[derive(Debug, Default)]
pub(crate) struct Resident(CachePadded<AtomicUsize>);

impl Resident {
    /// Adds bytes. Returns `false`, and adds nothing, if the sum would exceed the bound.
    pub(crate) fn try_add(&self, bytes: usize, bound: usize) -> bool {
        // Relaxed: no other memory is published by this count.
        // Added before it is compared: two threads cannot both take the last bytes.
        let within = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= bound;
        if !within {
            self.subtract(bytes);
        }
        within
    }

    /// Subtracts bytes that were added.
    pub(crate) fn subtract(&self, bytes: usize) {
        // Subtracting nothing would still take the cache line from the other threads.
        if bytes > 0 {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// A bound on how often something is reported of each agent.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<HashMap<Arc<str>, (Instant, u64)>>);

impl Throttle {
    /// Returns `None` if the last report of the agent is less than `interval` ago; otherwise the number of reports that
    /// were suppressed since.
    pub(crate) fn admit(&self, agent: &Arc<str>, now: Instant, interval: Duration) -> Option<u64> {
        // One entry for each agent, so it needs no bound of its own.
        let mut reports = self.0.lock();
        match reports.get_mut(agent) {
            Some((at, suppressed)) if now.saturating_duration_since(*at) < interval => {
                *suppressed += 1;
                None
            }
            Some(last) => Some(std::mem::replace(last, (now, 0)).1),
            None => {
                reports.insert(Arc::clone(agent), (now, 0));
                Some(0)
            }
        }
    }
}

impl HostContext {
    /// Creates the handles of a host whose mailboxes are worked on by `workers`.
    pub(crate) fn new((store, conversations): (Arc<Store>, Arc<Conversations>), workers: Handle) -> Arc<Self> {
        let tasks = Arc::<Tasks>::default();
        Arc::new(Self {
            logs: Logs::new(store.folder().join("logs"), Arc::clone(&tasks)),
            tasks,
            events: Events::new(Arc::clone(&store)),
            store,
            conversations,
            workers,
            host_stats: Arc::default(),
            chain_ends: Throttle::default(),
            outgoing: OutgoingClient::default(),
            call_problems: Throttle::default(),
            resident: Resident::default(),
            changed: Mutex::default(),
            reconcile: Notify::new(),
        })
    }

    /// Wakes the reconciler to look at an agent.
    pub(crate) fn wake(&self, agent: Arc<str>) {
        // Before the notification: the reconciler reads the set when it wakes.
        self.changed.lock().insert(agent);
        self.reconcile.notify_one();
    }

    /// Takes the agents that [`wake`](Self::wake) named since the last call.
    pub(crate) fn take_changed(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut *self.changed.lock())
    }

    /// Waits until [`wake`](Self::wake) is called.
    pub(crate) async fn until_woken(&self) {
        self.reconcile.notified().await;
    }

    /// Writes a line of the host to an agent's log.
    pub(crate) fn note_line(&self, revision: &RevisionId, level: &'static str, text: String) {
        let line = Line {
            at: clock::now_ms(),
            agent: revision.agent.shared(),
            revision: revision.number,
            level,
            context: "caxton".to_owned(),
            // It may quote a guest: a backtrace is part of it.
            text: bounds::cut(text, bounds::LOG_TEXT),
        };
        self.logs.note(line);
    }

    /// Emits `revision.state`.
    pub(crate) fn emit_state(&self, agent: &str, revision: u64, from: &str, to: &str, reason: Option<&str>) {
        let data = json!({ "revision": revision, "from": from, "to": to, "reason": reason });
        self.events.emit(Some(agent), "revision.state", data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_passes_once_in_an_interval_with_the_number_of_those_that_did_not() {
        let (throttle, began) = (Throttle::default(), Instant::now());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for (agent, after, expected) in [
            (&a, 0, Some(0)),
            (&a, 1, None),
            (&b, 1, Some(0)),
            (&a, 999, None),
            (&a, 1_000, Some(2)),
            (&a, 1_500, None),
            (&a, 2_001, Some(1)),
        ] {
            let now = began + Duration::from_millis(after);
            assert_eq!(throttle.admit(agent, now, Duration::from_secs(1)), expected, "{agent} after {after} ms");
        }
    }
}
