//! An agent as it runs: its mailbox, its revisions, and the way of a message through both.
//!
//! ```text
//! admit (grant, size, hops, place) -> effects of the sender -> commit -> mailbox
//!   -> a worker takes it -> lease of an instance -> handle -> commit -> effects leave, reply goes out
//! ```
//! A worker is a task that lives while its mailbox has something ready; there are at most as many as
//! instances. Nothing here decides which revision runs: the reconciler sets it.

mod admit;
mod code;
mod deliver;
mod http;
mod reply;
mod stats;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use caxton_control::mailbox::{Full, Mailbox};
use caxton_control::{AgentName, AgentSpec, Digest, RevisionId};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::commons::Commons;
use crate::store::Snapshot;
use crate::wasm::{Answer, Envelope, Inbox, Kind, Lease, Outcome, Pool};

#[cfg(test)]
pub(crate) use admit::new_id;
pub(crate) use admit::{Accepted, AdmitError, Arrival, act};
pub(crate) use code::{MEANINGS, Meaning, meaning};
pub(crate) use http::HttpError;
pub(crate) use reply::{code, describe};
pub(crate) use stats::{Counts, HttpMetrics, Outcomes, Stats};

/// An agent: the same through all its revisions.
pub(crate) struct Agent {
    name: AgentName,
    commons: Arc<Commons>,
    /// The settings that apply in place.
    spec: ArcSwap<AgentSpec>,
    inbox: Mutex<InboxState>,
    /// The revision that new calls go to; also in `inbox`, for those who hold it.
    current: ArcSwapOption<Revision>,
    state_bytes: Arc<AtomicU64>,
    stats: Stats,
}

struct InboxState {
    mailbox: Mailbox<u64, Envelope>,
    /// Whether messages wait although they could be handled: a handoff is under way.
    paused: bool,
    /// Why no message is taken any more.
    closed: Option<&'static str>,
    /// Tasks that deliver.
    workers: u32,
}

/// A revision that can take messages.
pub(crate) struct Revision {
    /// Its name.
    pub(crate) id: Arc<RevisionId>,
    /// Its settings.
    pub(crate) spec: Arc<AgentSpec>,
    /// Its bytes.
    pub(crate) digest: Digest,
    /// Its instances.
    pub(crate) pool: Arc<Pool>,
    in_flight: AtomicU32,
    /// Broken off when the revision has to stop.
    interrupt: CancellationToken,
    /// Whether the reconciler waits for nothing to be in flight.
    awaited: AtomicBool,
}

/// Counts a message or call as in flight until it is dropped.
pub(crate) struct InFlight {
    revision: Arc<Revision>,
    commons: Arc<Commons>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.revision.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.revision.awaited.load(Ordering::SeqCst) {
            // The reconciler waits for this.
            self.commons.wake();
        }
    }
}

impl Revision {
    /// A revision whose instances are in `pool`.
    pub(crate) fn new(id: Arc<RevisionId>, spec: Arc<AgentSpec>, digest: Digest, pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            id,
            spec,
            digest,
            pool,
            in_flight: AtomicU32::new(0),
            interrupt: CancellationToken::new(),
            awaited: AtomicBool::new(false),
        })
    }

    /// What its component is for.
    pub(crate) fn kind(&self) -> Kind {
        self.pool.program.summary.kind
    }

    /// Messages and calls that it has in hand.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Breaks off what it has in hand.
    pub(crate) fn interrupt(&self) {
        self.interrupt.cancel();
    }

    /// Breaks off what it has in hand, and drops its instances.
    pub(crate) fn stop(&self) {
        self.interrupt();
        self.pool.trim(0, Duration::ZERO);
    }

    /// Whether the reconciler is told when nothing is in flight any more.
    pub(crate) fn tell_when_idle(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::SeqCst);
    }
}

/// Tells conversations apart within this process. Two that share a hash are handled in one order, which
/// costs time and nothing else.
static CONVERSATIONS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Agent {
    /// An agent that takes messages, and keeps them until a revision is set.
    pub(crate) fn new(spec: Arc<AgentSpec>, commons: Arc<Commons>) -> Arc<Self> {
        let mailbox = Mailbox::new(spec.mailbox.order, spec.mailbox.depth);
        let state_bytes = commons.store.state_bytes(spec.name.as_str()).unwrap_or_else(|error| {
            tracing::error!(agent = %spec.name, error, "the size of an agent's state cannot be read; taken for 0");
            0
        });
        Arc::new(Self {
            name: spec.name.clone(),
            commons,
            spec: ArcSwap::new(spec),
            inbox: Mutex::new(InboxState { mailbox, paused: false, closed: None, workers: 0 }),
            current: ArcSwapOption::empty(),
            state_bytes: Arc::new(AtomicU64::new(state_bytes)),
            stats: Stats::default(),
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &AgentName {
        &self.name
    }

    /// The settings that apply in place.
    pub(crate) fn spec(&self) -> Arc<AgentSpec> {
        self.spec.load_full()
    }

    /// The revision that new messages go to.
    pub(crate) fn current(&self) -> Option<Arc<Revision>> {
        self.current.load_full()
    }

    /// What was counted.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The size of its state, shared with those who change it.
    pub(crate) fn state_bytes(&self) -> &Arc<AtomicU64> {
        &self.state_bytes
    }

    /// How many messages wait.
    pub(crate) fn depth(&self) -> u32 {
        self.inbox.lock().mailbox.depth()
    }

    /// Applies settings that need no new revision.
    pub(crate) fn configure(self: &Arc<Self>, spec: Arc<AgentSpec>) {
        if let Some(current) = self.current() {
            current.pool.set_max(spec.instances.max);
        }
        self.inbox.lock().mailbox.configure(spec.mailbox.order, spec.mailbox.depth);
        self.spec.store(spec);
        self.start_workers();
    }

    /// Sends all new messages to `revision`.
    pub(crate) fn switch(self: &Arc<Self>, revision: Arc<Revision>) {
        revision.pool.set_max(self.spec().instances.max);
        self.current.store(Some(revision));
        self.start_workers();
    }

    /// Lets messages wait, or lets them go on.
    pub(crate) fn pause(self: &Arc<Self>, paused: bool) {
        self.inbox.lock().paused = paused;
        if !paused {
            self.start_workers();
        }
    }

    /// Takes no more messages, for this reason, and gives back those that wait to their senders.
    pub(crate) fn close(&self, why: &'static str) {
        let waiting = {
            let mut inbox = self.inbox.lock();
            inbox.closed = Some(why);
            inbox.mailbox.drain()
        };
        for envelope in waiting {
            self.stats.count(Outcomes::Dropped);
            self.commons.events.tell(
                Some(self.name.as_str()),
                "message.undelivered",
                serde_json::json!({ "id": envelope.message.id, "sender": envelope.message.sender, "reason": why }),
            );
            if let Some(waiter) = envelope.waiter {
                waiter.tell(Answer { revision: None, outcome: Outcome::Gone(why) });
            }
        }
    }

    /// Takes no new messages, and goes on with those that wait.
    pub(crate) fn retire(&self, why: &'static str) {
        self.inbox.lock().closed = Some(why);
    }

    /// Whether messages wait or are in hand.
    pub(crate) fn is_busy(&self) -> bool {
        let inbox = self.inbox.lock();
        inbox.mailbox.depth() > 0 || inbox.mailbox.in_flight() > 0
    }

    /// Saves the memory of a stateful agent whose instance was idle for `age`, and ends the instance. Does
    /// nothing for others, and nothing when a message is being handled.
    pub(crate) async fn save_idle(&self, revision: &Revision, age: Duration) -> Result<(), String> {
        if revision.kind() != Kind::Stateful {
            return Ok(());
        }
        match revision.pool.lease_idle(age) {
            Some(lease) => self.save(revision, lease).await,
            None => Ok(()),
        }
    }

    /// The same when the agent ends: waits for the message that is being handled.
    pub(crate) async fn save_last(&self, revision: &Revision) -> Result<(), String> {
        if revision.kind() != Kind::Stateful {
            return Ok(());
        }
        match revision.pool.lease_at_rest().await {
            Some(lease) => self.save(revision, lease).await,
            None => Ok(()),
        }
    }

    async fn save(&self, revision: &Revision, mut lease: Lease) -> Result<(), String> {
        match lease.instance().save(revision.spec.limits.time).await {
            Ok(Some(Ok(data))) => {
                let snapshot = Snapshot { revision: revision.id.number, saved_at: crate::clock::now_ms(), data };
                // Dropping the lease ends the instance; giving it back keeps what could not be saved.
                if let Err(error) = self.keep_snapshot(snapshot).await {
                    lease.finish(true);
                    return Err(format!("its memory could not be kept: {error}"));
                }
                Ok(())
            }
            Ok(Some(Err(why))) => {
                lease.finish(true);
                Err(format!("it refused to save its memory: {why}"))
            }
            Ok(None) => Ok(()),
            Err(fault) => Err(format!("saving its memory: {fault}")),
        }
    }

    /// Keeps what a stateful agent saved.
    pub(crate) async fn keep_snapshot(&self, snapshot: Snapshot) -> Result<(), crate::store::CommitError> {
        self.commons.store.save_snapshot(self.name.shared(), snapshot).await
    }

    /// Keeps a place for one message.
    pub(crate) fn reserve_place(&self) -> Result<(), AdmitError> {
        if self.is_http() {
            return Err(AdmitError::Unavailable("it is an HTTP agent, which takes no messages"));
        }
        let mut inbox = self.inbox.lock();
        if let Some(why) = inbox.closed {
            return Err(AdmitError::Unavailable(why));
        }
        inbox.mailbox.reserve().map_err(|Full { depth }| {
            self.stats.count(Outcomes::Refused);
            AdmitError::Full { depth }
        })
    }

    /// Whether it speaks HTTP itself, and so has nothing that takes messages.
    fn is_http(&self) -> bool {
        self.current.load().as_ref().is_some_and(|current| current.kind() == Kind::Http)
    }

    /// Starts as many workers as can do something.
    fn start_workers(self: &Arc<Self>) {
        while self.may_start(&mut self.inbox.lock()) {
            tokio::spawn(deliver::work(Arc::clone(self)));
        }
    }

    /// Counts one more worker if it has something to do and may be.
    fn may_start(&self, inbox: &mut InboxState) -> bool {
        if inbox.paused || !inbox.mailbox.has_ready() {
            return false;
        }
        let Some(current) = &*self.current.load() else { return false };
        if inbox.workers >= current.pool.max() {
            return false;
        }
        inbox.workers += 1;
        true
    }
}

impl Inbox for Agent {
    fn put(&self, envelope: Envelope) -> bool {
        let conversation = CONVERSATIONS.hash_one(&envelope.message.conversation_id);
        let start = {
            let mut inbox = self.inbox.lock();
            inbox.mailbox.push(conversation, envelope);
            self.may_start(&mut inbox)
        };
        self.stats.count(Outcomes::Accepted);
        start
    }

    fn work(self: Arc<Self>) {
        tokio::spawn(deliver::work(self));
    }

    fn release(&self) {
        self.inbox.lock().mailbox.release();
    }
}
