//! The handles that all parts of a host share. Nothing here knows agents: the directory above does.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use caxton_control::RevisionId;
use caxton_control::memory::MemoryPriority;
use caxton_control::names::BudgetName;
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::api_types::HostMemory;
use crate::bounds;
use crate::budgets::{Budgets, Tree, TreeLink, TreeRoot};
use crate::clock;
use crate::conversation::Conversations;
use crate::events::Events;
use crate::logs::{Line, Logs};
use crate::memory_budget::{MemoryBudget, MemoryKind, Reservation};
use crate::outgoing::OutgoingClient;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::histogram::Sharded;
use crate::telemetry::host_stats::StatsRecorder;
use crate::wasm::GuestThreads;

/// The handles that all parts of a host share.
pub(crate) struct HostContext {
    pub(crate) store: Arc<Store>,
    /// The open conversations.
    pub(crate) conversations: Arc<Conversations>,
    /// The threads of mailboxes, apart from those of HTTP calls, which therefore never wait behind messages.
    pub(crate) workers: Handle,
    /// The threads of guests that compute.
    pub(crate) guests: GuestThreads,
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
    /// The host's budget of memory.
    pub(crate) memory: MemoryBudget,
    /// The budgets, with the trees in memory.
    pub(crate) budgets: Budgets,
    /// The client for calls over HTTP of all agents.
    pub(crate) outgoing: OutgoingClient,
    /// Bounds how often an event tells of a call that was refused or failed: by agent, place and code.
    pub(crate) call_problems: Throttle,
    /// The memory that waiting messages take.
    pub(crate) resident: Resident,
    /// The memory of the places of waiting messages whose contents are in the store.
    pub(crate) stored_places: Resident,
    /// The memory of caches, as of the last sweep.
    held_caches: Mutex<Reservation>,
    /// The memory of open conversations, as of the last sweep.
    held_conversations: Mutex<Reservation>,
    /// The agents that the reconciler has to look at: a set, so that it is bounded by the number of agents.
    changed: Mutex<BTreeSet<Arc<str>>>,
    reconcile: Notify,
}

/// The memory that waiting messages take.
///
/// Each thread counts for itself and adds to the sum now and then: the sum would pass from core to core with each message
/// otherwise.
#[derive(Debug)]
pub(crate) struct Resident {
    /// The bytes that a thread has not added to the sum yet; negative if it took more messages than it queued.
    pending: Sharded<AtomicI64>,
    sum: AtomicI64,
    /// The share of the host's budget, in whole [`STEP`]s.
    held: Mutex<Reservation>,
}

/// The bytes that a thread counts before it adds them to the sum, and so by how much the sum may be wrong for each.
const PENDING: i64 = 64 << 10;
/// The steps in which the share of the host's budget follows the sum.
const STEP: i64 = 1 << 20;

impl Resident {
    fn new(budget: &MemoryBudget) -> Self {
        let held = Mutex::new(budget.empty(MemoryKind::Messages));
        Self { pending: Sharded::new(AtomicI64::default), sum: AtomicI64::new(0), held }
    }

    /// Adds bytes. Returns `false`, and adds nothing, if the sum would exceed the bound.
    pub(crate) fn try_add(&self, bytes: usize, bound: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        // Relaxed: no other memory is published by this count, and the bound need not be exact.
        let within = self.sum.load(Ordering::Relaxed).saturating_add(bytes) <= i64::try_from(bound).unwrap_or(i64::MAX);
        if within {
            self.add(bytes);
        }
        within
    }

    /// Subtracts bytes that were added.
    pub(crate) fn subtract(&self, bytes: usize) {
        self.add(-i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn add(&self, bytes: i64) {
        let pending = self.pending.here();
        let here = pending.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if here.abs() >= PENDING {
            self.take(pending);
        }
    }

    /// Adds what a thread has counted to the sum.
    fn take(&self, pending: &AtomicI64) {
        let taken = pending.swap(0, Ordering::Relaxed);
        let before = self.sum.fetch_add(taken, Ordering::Relaxed);
        // The lock of the share is taken once for many messages.
        if before.div_euclid(STEP) != (before + taken).div_euclid(STEP) {
            self.follow();
        }
    }

    fn follow(&self) {
        let mut held = self.held.lock();
        // Read under the lock, so that the last one to follow has the newest sum.
        let sum = u64::try_from(self.sum.load(Ordering::Relaxed)).unwrap_or(0);
        held.hold(sum);
    }

    /// Adds what all threads have counted, so that the books are exact while nothing changes.
    pub(crate) fn settle(&self) {
        self.pending.all().for_each(|pending| self.take(pending));
        self.follow();
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
    /// Creates the handles of a host with as much memory as it likes.
    #[cfg(test)]
    pub(crate) fn new(store: (Arc<Store>, Arc<Conversations>), workers: Handle) -> Arc<Self> {
        Self::with_memory(store, workers, MemoryBudget::new(u64::MAX))
    }

    /// Creates the handles of a host whose mailboxes are worked on by `workers`.
    pub(crate) fn with_memory(
        (store, conversations): (Arc<Store>, Arc<Conversations>),
        workers: Handle,
        memory: MemoryBudget,
    ) -> Arc<Self> {
        let tasks = Arc::<Tasks>::default();
        let budgets = Budgets::default();
        budgets.save_with(store.tree_saver());
        Arc::new(Self {
            budgets,
            logs: Logs::new(store.folder().join("logs"), Arc::clone(&tasks), &memory),
            tasks,
            events: Events::new(Arc::clone(&store)),
            store,
            conversations,
            guests: GuestThreads::new(workers.clone()),
            workers,
            host_stats: Arc::default(),
            chain_ends: Throttle::default(),
            outgoing: OutgoingClient::default(),
            call_problems: Throttle::default(),
            resident: Resident::new(&memory),
            stored_places: Resident::new(&memory),
            held_caches: Mutex::new(memory.empty(MemoryKind::Caches)),
            held_conversations: Mutex::new(memory.empty(MemoryKind::Conversations)),
            memory,
            changed: Mutex::default(),
            reconcile: Notify::new(),
        })
    }

    /// Returns the tree of a message, from its row if it is not in memory; `None` if it has none, and its budget is not
    /// declared any more.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn find_tree(&self, link: &TreeLink) -> Result<Option<Tree>, String> {
        let (id, budget) = match link {
            TreeLink::Live(tree) => return Ok(Some(tree.clone())),
            TreeLink::Stored(_) => link.names(),
        };
        if let Some(tree) = self.budgets.find(id) {
            return Ok(Some(tree));
        }
        match self.store.trees().get(id)? {
            Some(found) => Ok(Some(self.budgets.restore(found.record))),
            // Its row left with the history; a dead letter, for example, may be older.
            None => Ok(self.budgets.begin(budget, id, TreeRoot::outside(""))),
        }
    }

    /// Returns the budget of the tree that began with a message, and whether something was refused in it.
    pub(crate) fn budget_of(&self, id: &str) -> Option<(BudgetName, bool)> {
        if let Some(tree) = self.budgets.find(id) {
            return Some((tree.state().budget().clone(), tree.is_exceeded()));
        }
        // An id that no client has from this host has no row.
        let found = self.store.trees().get(id).ok().flatten()?;
        Some((found.record.budget, found.record.ledger.is_told()))
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

    /// Counts the memory of open conversations, which have a bound of their own.
    pub(crate) fn count_conversations(&self) {
        self.held_conversations.lock().hold(self.conversations.bytes());
    }

    /// Counts the memory of caches: so many bytes of agents, and those of the store and of the logs on their way to the
    /// disk. Each has a bound of its own.
    pub(crate) fn count_caches(&self, of_agents: u64) {
        let bytes = of_agents + self.store.cached_bytes() + self.logs.queued_bytes();
        self.held_caches.lock().hold(bytes);
    }

    /// Returns the memory that the host holds for others.
    pub(crate) fn memory_status(&self) -> HostMemory {
        self.resident.settle();
        self.stored_places.settle();
        let memory = &self.memory;
        let by_kind = |kind: MemoryKind| (kind.as_str().to_owned(), memory.used_by(kind));
        let refused = |priority: MemoryPriority| (priority.as_str().to_owned(), memory.refused(priority));
        HostMemory {
            limit_bytes: memory.limit(),
            used_bytes: memory.used(),
            is_short: memory.is_short(),
            by_kind: MemoryKind::ALL.into_iter().map(by_kind).collect(),
            waiting: memory.waiting(),
            refused: MemoryPriority::ALL.into_iter().map(refused).collect(),
        }
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
    fn waiting_messages_are_counted_in_steps_and_leave_nothing() {
        let budget = MemoryBudget::new(u64::MAX);
        let resident = Resident::new(&budget);
        let held = || budget.used_by(MemoryKind::Messages);
        assert!(resident.try_add(1_000, usize::MAX));
        assert_eq!(held(), 0, "a message alone is not worth an entry");
        resident.settle();
        assert_eq!(held(), 1_000);
        assert!(resident.try_add(4 << 20, usize::MAX));
        assert_eq!(held(), 1_000 + (4 << 20));
        assert!(!resident.try_add(1, 4 << 20), "the bound is reached");
        std::thread::scope(|scope| drop(scope.spawn(|| resident.subtract((4 << 20) + 1_000)).join()));
        resident.settle();
        assert_eq!(held(), 0);
    }

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
