//! An agent as it runs: its mailbox, its revisions, and the way of a message through both.
//!
//! ```text
//! admit (grant, size, hops, place) -> effects of the sender -> commit -> mailbox
//!   -> a worker takes it -> lease of an instance -> handle -> commit -> effects leave, reply goes out
//!                                                     '-- failed --> again later, or a dead letter
//! ```
//! A worker is a task that lives while its mailbox has something ready; there are at most as many as
//! instances. It does not wait for the disk: while a commit is made it handles messages of other conversations.
//! A call, whose sender waits, is neither kept nor tried again. Nothing here decides which revision runs: the
//! reconciler sets it.

mod admit;
mod asking;
mod began;
mod breaker;
mod code;
mod commit;
mod conflict;
mod deliver;
mod draft;
mod error;
mod expire;
mod fail;
mod handling;
mod held;
mod hops;
mod http;
mod inbox;
mod lost;
mod measure;
mod migrate;
mod notice;
mod orphans;
mod pending;
mod queue;
pub(crate) mod receipts;
mod recent;
mod redeliver;
mod reply;
mod save;
mod shadow;
mod stats;
mod tally;
mod timer;
mod traffic;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use ahash::RandomState;
use arc_swap::{ArcSwap, ArcSwapOption};
use caxton_control::breaker::{Admission, Breaker};
use caxton_control::mailbox::Mailbox;
use caxton_control::{AgentName, AgentSpec, Digest, RevisionId};
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::asking::Asking;
use self::began::Began;
use self::expire::Watch;
use self::measure::Measures;
use self::pending::Pending;
use self::queue::Slot;
use self::recent::Recent;
use self::save::Saves;
use crate::context::HostContext;
use crate::status::Opening;
use crate::store::AgentTimers;
use crate::wasm::{Kind, Pool};

pub(crate) use admit::{Accepted, Key, Submission};
pub(crate) use code::{MEANINGS, Meaning, meaning};
pub(crate) use error::AdmitError;
pub(crate) use expire::expire_conversations;
pub(crate) use hops::Ends;
pub(crate) use http::HttpError;
pub(crate) use orphans::{bury_orphan_timers, bury_orphans, waiting_for_others};
pub(crate) use queue::{Backlog, backlog};
pub(crate) use recent::forget_unwanted;
pub(crate) use redeliver::{Left, RedeliverError, Redelivered, redeliver};
pub(crate) use reply::{code, describe};
pub(crate) use shadow::{AnswerComparison, InitialMemory, RehearsalJob, RehearsalReport, Shadow, ShadowSettings};
#[cfg(test)]
pub(crate) use stats::End;
pub(crate) use stats::{Counts, HttpMetrics, Outcomes, Stats};
pub(crate) use traffic::Traffic;

/// An agent: the same through all its revisions.
pub(crate) struct Agent {
    me: Weak<Agent>,
    name: AgentName,
    context: Arc<HostContext>,
    /// The settings that apply in place.
    spec: ArcSwap<AgentSpec>,
    /// Apart from what senders only read: who works writes to it all the time.
    inbox: CachePadded<Mutex<InboxState>>,
    /// Handlers that ended well since the breaker heard of a fault.
    ended: CachePadded<AtomicU32>,
    /// Who answers.
    traffic: ArcSwapOption<Traffic>,
    state_bytes: Arc<AtomicU64>,
    /// Messages that wait for their time.
    timers: Arc<AgentTimers>,
    pending: Pending,
    /// What its handlers wait for.
    asking: Asking,
    /// Conversations that nobody writes down.
    began: Arc<Began>,
    /// Where copies of its messages go.
    shadow: ArcSwapOption<Shadow>,
    /// The outcome of its last saves.
    saves: Mutex<Saves>,
    /// Which of its last messages are kept.
    recent: Mutex<Recent>,
    stats: Stats,
    calls: HeldCalls,
}

/// Calls of an HTTP agent that wait while its state is converted.
#[derive(Default)]
struct HeldCalls {
    held: AtomicBool,
    resumed: Notify,
}

struct InboxState {
    mailbox: Mailbox<u64, Slot>,
    /// Whether messages wait although they could be handled: a handoff is under way.
    paused: bool,
    /// Whether an operator lets messages wait.
    held: bool,
    /// Which messages are taken.
    taking: Taking,
    /// Whether what the store has is left to the next start of the host.
    leaving: bool,
    /// Tasks that deliver.
    workers: u32,
    /// Those of them that wait for something, while a message is in their hands.
    waiting_workers: u32,
    breaker: Breaker,
    /// The failure that opened the breaker last.
    opening: Option<Box<Opening>>,
    /// Set if timers that are due are on their way into the mailbox.
    firing: bool,
    /// Set if timers are due and the mailbox has no room for them.
    crowded: bool,
    /// Set if the next message that leaves makes room for a timer.
    timers_turn: bool,
    /// When this agent looks at its mailbox again, in milliseconds since 1970; the end of time for never.
    look_at: u64,
    /// When what waits is over.
    watch: Watch,
}

/// Which messages an agent takes.
#[derive(Debug, Clone, Copy)]
enum Taking {
    /// All.
    All,
    /// It leaves: those of open conversations in which it takes part (SPEC §7), and why no others.
    Open(&'static str),
    /// None any more, and why.
    Nothing(&'static str),
}

impl InboxState {
    /// Whether a message can be taken now.
    fn is_ready(&self, now: u64) -> bool {
        !self.paused
            && !self.held
            && self.mailbox.has_ready()
            && self.mailbox.in_flight() < MAX_IN_FLIGHT
            && !matches!(self.breaker.peek(now), Admission::No { .. })
    }
}

/// Messages of an agent that are handled or being committed at once (SPEC §1).
const MAX_IN_FLIGHT: u32 = 10_000;

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
    /// Apart from what senders only read.
    in_flight: CachePadded<AtomicU32>,
    /// Told when it is at rest.
    context: Arc<HostContext>,
    /// Broken off when the revision has to stop.
    interrupt: CancellationToken,
    /// Whether the reconciler waits for nothing to be in flight.
    awaited: AtomicBool,
    /// Messages and calls that it ended.
    answered: AtomicU64,
    /// How many of them failed by its fault.
    faulted: AtomicU64,
    /// What is measured while a rollout goes by it.
    measures: ArcSwapOption<Measures>,
}

/// Counts a message or call as in flight until it is dropped.
pub(crate) struct InFlight {
    revision: Arc<Revision>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.revision.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.revision.awaited.load(Ordering::SeqCst) {
            // The reconciler waits for this.
            self.revision.context.wake(self.revision.id.agent.shared());
        }
    }
}

impl Revision {
    /// A revision whose instances are in `pool`.
    pub(crate) fn new(
        id: Arc<RevisionId>,
        spec: Arc<AgentSpec>,
        digest: Digest,
        pool: Arc<Pool>,
        context: Arc<HostContext>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            spec,
            digest,
            pool,
            in_flight: CachePadded::new(AtomicU32::new(0)),
            context,
            interrupt: CancellationToken::new(),
            awaited: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
            measures: ArcSwapOption::empty(),
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

    /// Told when it is broken off.
    pub(crate) fn interrupted(&self) -> CancellationToken {
        self.interrupt.clone()
    }

    /// Breaks off what it has in hand, and drops its instances.
    pub(crate) fn stop(&self) {
        self.interrupt();
        self.pool.close();
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
    pub(crate) fn new(spec: Arc<AgentSpec>, context: Arc<HostContext>) -> Arc<Self> {
        let mailbox = Mailbox::new(spec.mailbox.order, spec.mailbox.depth);
        let state_bytes = context.store.state_bytes(spec.name.as_str()).unwrap_or_else(|error| {
            tracing::error!(agent = %spec.name, error, "the size of an agent's state cannot be read; taken for 0");
            0
        });
        let breaker = Breaker::new(spec.breaker.faults, millis(spec.breaker.reset));
        let (waiting, held) = context.backlog.lock().take(spec.name.as_str());
        let timers = context.store.timers.of(spec.name.as_str());
        let stats = Stats::new(spec.name.shared(), Arc::clone(&context.figures));
        let agent = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            name: spec.name.clone(),
            context,
            spec: ArcSwap::new(spec),
            inbox: CachePadded::new(Mutex::new(InboxState {
                mailbox,
                paused: false,
                held,
                taking: Taking::All,
                leaving: false,
                workers: 0,
                waiting_workers: 0,
                breaker,
                opening: None,
                firing: false,
                crowded: false,
                timers_turn: false,
                look_at: u64::MAX,
                watch: Watch::default(),
            })),
            ended: CachePadded::new(AtomicU32::new(0)),
            traffic: ArcSwapOption::empty(),
            state_bytes: Arc::new(AtomicU64::new(state_bytes)),
            timers,
            pending: Pending::default(),
            asking: Asking::default(),
            began: Arc::default(),
            shadow: ArcSwapOption::empty(),
            saves: Mutex::default(),
            recent: Mutex::default(),
            stats,
            calls: HeldCalls::default(),
        });
        agent.fill(waiting);
        agent
    }

    /// This agent, for somebody who keeps it.
    fn shared(&self) -> Arc<Self> {
        self.me.upgrade().expect("somebody holds it who asks it to do something")
    }

    /// Its name.
    pub(crate) fn name(&self) -> &AgentName {
        &self.name
    }

    /// The settings that apply in place.
    pub(crate) fn spec(&self) -> Arc<AgentSpec> {
        self.spec.load_full()
    }

    /// The revision that new messages go to; while traffic is split, the one that had all of it before.
    pub(crate) fn current(&self) -> Option<Arc<Revision>> {
        self.traffic.load().as_ref().map(|traffic| Arc::clone(traffic.stable()))
    }

    /// All revisions that new messages go to.
    pub(crate) fn serving(&self) -> Vec<Arc<Revision>> {
        self.traffic.load().as_ref().map_or_else(Vec::new, |traffic| traffic.revisions().cloned().collect())
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
        {
            let mut inbox = self.inbox.lock();
            inbox.mailbox.configure(spec.mailbox.order, spec.mailbox.depth);
            // There may be room for timers now.
            inbox.crowded = false;
            inbox.breaker.configure(spec.breaker.faults, millis(spec.breaker.reset));
        }
        let before = self.spec.swap(spec);
        if before.snapshot != self.spec.load().snapshot {
            self.save_again();
        }
        if before.rollout.rollback.rehearse > 0 && self.spec.load().rollout.rollback.rehearse == 0 {
            self.forget_recent();
        }
        // Their time may be another now.
        self.watch(&mut self.inbox.lock(), 0);
        self.start_workers();
    }

    /// Says who answers from now on; nobody lets messages wait.
    pub(crate) fn direct(self: &Arc<Self>, traffic: Option<Arc<Traffic>>) {
        let stable = |traffic: &Arc<Traffic>| Arc::clone(traffic.stable());
        let now = traffic.as_ref().map(stable);
        let before = self.traffic.swap(traffic).as_ref().map(stable);
        if let Some(now) = now
            && before.is_none_or(|before| !Arc::ptr_eq(&before, &now))
        {
            self.trust();
        }
        self.start_workers();
    }

    /// Lets messages wait, or lets them go on.
    pub(crate) fn pause(self: &Arc<Self>, paused: bool) {
        self.inbox.lock().paused = paused;
        self.calls.held.store(paused, Ordering::Relaxed);
        // A call counts itself and then looks here; whoever pauses does this and then looks at the count. One of the two
        // sees the other.
        fence(Ordering::SeqCst);
        if !paused {
            self.calls.resumed.notify_waiters();
            self.start_workers();
        }
    }

    /// Begins no new conversations, and goes on with what waits and is open.
    pub(crate) fn retire(&self, why: &'static str) {
        self.inbox.lock().taking = Taking::Open(why);
    }

    /// Returns true if messages are in hand, or wait and will be handled: those that an operator lets wait will not, and timers
    /// are not waited for.
    pub(crate) fn is_busy(&self) -> bool {
        let inbox = self.inbox.lock();
        (inbox.mailbox.depth() > 0 && !inbox.held) || inbox.mailbox.in_flight() > 0
    }

    /// Whether it speaks HTTP itself, and so has nothing that takes messages.
    pub(crate) fn is_http(&self) -> bool {
        self.traffic.load().as_ref().is_some_and(|traffic| traffic.stable().kind() == Kind::Http)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
