//! An agent as it runs: its mailbox, its revisions, and the way of a message through both.
//!
//! ```text
//! admit (grant, size, hops, place) -> effects of the sender -> commit -> mailbox
//!   -> worker -> lease of an instance -> handler -> commit -> effects leave, reply goes out
//!                                           '-- failure --> another attempt, or a dead letter
//! ```
//! | folder | |
//! |---|---|
//! | `mailbox` | messages that wait, timers, the breaker; the one lock |
//! | `delivery` | the way of a message or HTTP call: submission, worker, handler, reply, failure |
//! | `revision` | the revisions that handle messages, the split of traffic, figures of a rollout |
//! | `state` | commits, values under way, snapshots, migrations |
//!
//! A worker is a task that lives while its mailbox has something ready; there are at most as many as instances. It does
//! not wait for the disk: while a commit is made it handles messages of other conversations. A call, whose sender
//! waits, is neither stored nor retried. Agents reach each other through [`Directory`]. Nothing here decides which
//! revision runs: the reconciler sets it.

mod code;
mod conversation_hash;
mod delivery;
pub(crate) mod draft;
mod error;
mod mailbox;
mod outcome_text;
pub(crate) mod receipts;
mod revision;
mod shadow;
mod state;
mod stats;
mod tally;
mod wakeups;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use caxton_control::{AgentName, AgentSpec};
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::delivery::conversation_starts::ConversationStarts;
use self::delivery::outstanding::OutstandingRequests;
use self::mailbox::Mailbox;
use self::mailbox::backlog::{Backlog, backlog};
use self::receipts::Receipts;
use self::state::pending::Pending;
use self::state::recent::RecentMessages;
use self::state::saves::Saves;
use self::state::unsaved::{MemoryWrites, Unsaved};
use self::wakeups::Wakeups;
use crate::context::HostContext;
use crate::message::{CallContext, Draft, Envelope, GuestHost, Identity};
use crate::store::{AgentTimers, CommitBacklog};
use crate::wasm::Kind;

pub(crate) use code::{MEANINGS, Meaning, meaning};
pub(crate) use conversation_hash::conversation_hash;
pub(crate) use delivery::budget::charge;
pub(crate) use delivery::hops::check_hops;
pub(crate) use delivery::http::HttpError;
pub(crate) use delivery::question::Question;
pub(crate) use delivery::submission::{Accepted, Key, Submission};
pub(crate) use error::AdmitError;
pub(crate) use outcome_text::{code, describe};
pub(crate) use revision::{InFlight, Revision, Traffic};
pub(crate) use shadow::{AnswerComparison, InitialMemory, RehearsalJob, RehearsalReport, Shadow, ShadowSettings};
pub(crate) use state::rehearsal::forget_unwanted;
pub(crate) use stats::{Counts, HttpMetrics, Outcomes, Stats};

/// An agent: the same through all its revisions.
pub(crate) struct Agent {
    me: Weak<Agent>,
    name: AgentName,
    context: Arc<HostContext>,
    shared: Arc<AgentShared>,
    directory: Arc<dyn Directory>,
    /// The settings that apply without a new revision.
    spec: ArcSwap<AgentSpec>,
    mailbox: Mailbox,
    /// The revisions that handle messages; `None` before the first is ready.
    traffic: ArcSwapOption<Traffic>,
    state_bytes: Arc<AtomicU64>,
    /// The messages that wait for their time.
    timers: Arc<AgentTimers>,
    pending: Pending,
    /// The commits that wait for the disk.
    backlog: Arc<CommitBacklog>,
    outstanding: Arc<OutstandingRequests>,
    /// The starts of an HTTP agent's conversations, which have no record.
    conversation_starts: Arc<ConversationStarts>,
    /// The shadow that gets copies of its messages.
    shadow: ArcSwapOption<Shadow>,
    /// The outcome of its last saves.
    saves: Mutex<Saves>,
    /// The memories of its instances that are being committed or written.
    memory: MemoryWrites,
    /// The messages that no saved memory has. A small lock, taken for each message of a stateful agent.
    unsaved: Mutex<Unsaved>,
    /// The messages that are kept for rehearsals.
    recent: Mutex<RecentMessages>,
    stats: Stats,
    calls: CallGate,
}

/// The gate of an HTTP agent's calls, closed while the agent's state is converted.
#[derive(Default)]
struct CallGate {
    closed: AtomicBool,
    resumed: Notify,
    /// Calls over HTTP whose head has come, of agents of all kinds.
    expected: AtomicU32,
}

/// A call whose head has come, until it is answered or given up.
pub(crate) struct ExpectedCall(Arc<Agent>);

impl Drop for ExpectedCall {
    fn drop(&mut self) {
        self.0.calls.expected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The handles that the agents of a host share.
pub(crate) struct AgentShared {
    pub(crate) context: Arc<HostContext>,
    /// The outcomes of messages for which no caller waits.
    pub(crate) receipts: Arc<Receipts>,
    /// The times at which agents look at their mailboxes.
    pub(crate) wakeups: Wakeups<Agent>,
    /// The messages that waited when the host started, until their agents take them.
    pub(crate) backlog: Mutex<Backlog>,
}

impl AgentShared {
    /// Reads the messages that wait in the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn new(context: Arc<HostContext>) -> Result<Self, String> {
        // Before any agent exists: messages that arrive from now on are not in it.
        let backlog = Mutex::new(backlog(&context.store)?);
        Ok(Self { context, receipts: Arc::default(), wakeups: Wakeups::default(), backlog })
    }
}

/// The other agents, as an agent reaches them, and the host interface of its guests.
///
/// The directory is built of agents, so an agent cannot name it: this trait breaks that circle. It is defined here,
/// where it is used, because its methods return agents.
pub(crate) trait Directory: GuestHost {
    /// Returns the handles that agents share.
    fn shared(&self) -> &Arc<AgentShared>;
    /// Returns the agent of a name, be it declared or retiring.
    fn agent(&self, name: &str) -> Option<Arc<Agent>>;
    /// Returns the agent of a name if it accepts messages of this conversation; a retiring one accepts those of open
    /// ones.
    fn receiver(&self, name: &str, conversation: &str) -> Option<Arc<Agent>>;
    /// Checks a draft of a guest and finds its receiver. Reserves no place.
    fn address(
        &self,
        who: &Identity,
        work: &CallContext,
        draft: Draft,
    ) -> Result<(Arc<Agent>, Box<Envelope>), AdmitError>;
}

impl Agent {
    /// Creates an agent that accepts messages and keeps them until a revision is set.
    pub(crate) fn new(spec: Arc<AgentSpec>, directory: Arc<dyn Directory>) -> Arc<Self> {
        let shared = Arc::clone(directory.shared());
        let context = Arc::clone(&shared.context);
        let state_bytes = context.store.state().bytes(spec.name.as_str()).unwrap_or_else(|error| {
            tracing::error!(agent = %spec.name, error, "the size of an agent's state cannot be read; taken for 0");
            0
        });
        // Taken out of the backlog: an agent of the same name that is declared again later must not get them twice.
        let (waiting, paused) = shared.backlog.lock().take(spec.name.as_str());
        let mailbox = Mailbox::new(&spec, paused);
        let timers = context.store.timer_counts.of(spec.name.as_str());
        let stats = Stats::new(spec.name.shared(), Arc::clone(&context.host_stats));
        let agent = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            name: spec.name.clone(),
            context,
            shared,
            directory,
            spec: ArcSwap::new(spec),
            mailbox,
            traffic: ArcSwapOption::empty(),
            state_bytes: Arc::new(AtomicU64::new(state_bytes)),
            timers,
            pending: Pending::default(),
            backlog: Arc::default(),
            outstanding: Arc::default(),
            conversation_starts: Arc::default(),
            shadow: ArcSwapOption::empty(),
            saves: Mutex::default(),
            memory: MemoryWrites::default(),
            unsaved: Mutex::default(),
            recent: Mutex::default(),
            stats,
            calls: CallGate::default(),
        });
        agent.add_waiting(waiting);
        agent
    }

    /// Returns a shared reference to this agent.
    fn arc(&self) -> Arc<Self> {
        self.me.upgrade().expect("somebody holds it who asks it to do something")
    }

    pub(crate) fn name(&self) -> &AgentName {
        &self.name
    }

    /// Returns the settings that apply without a new revision.
    pub(crate) fn spec(&self) -> Arc<AgentSpec> {
        self.spec.load_full()
    }

    /// Returns the settings for a short use. Cheaper than [`spec`](Self::spec), whose count of references would pass
    /// from core to core with each message.
    pub(crate) fn load_spec(&self) -> Guard<Arc<AgentSpec>> {
        self.spec.load()
    }

    /// Returns the revision that gets new messages; while traffic is split, the stable one.
    pub(crate) fn current(&self) -> Option<Arc<Revision>> {
        self.traffic.load().as_ref().map(|traffic| Arc::clone(traffic.stable()))
    }

    /// Returns the revisions that get new messages.
    pub(crate) fn serving(&self) -> Vec<Arc<Revision>> {
        self.traffic.load().as_ref().map_or_else(Vec::new, |traffic| traffic.revisions().cloned().collect())
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns the size of the agent's state, which the store updates.
    pub(crate) fn state_bytes(&self) -> &Arc<AtomicU64> {
        &self.state_bytes
    }

    /// Returns the number of messages that wait.
    pub(crate) fn depth(&self) -> u32 {
        self.mailbox.depth()
    }

    /// Applies settings that need no new revision.
    pub(crate) fn configure(self: &Arc<Self>, spec: Arc<AgentSpec>) {
        self.mailbox.configure(&spec);
        let before = self.spec.swap(spec);
        // A save that failed for its bound may fit now, and need not wait for its pause.
        if before.snapshot != self.spec.load().snapshot {
            self.retry_save();
            self.undefer();
        }
        if before.rollout.rollback.rehearse > 0 && self.spec.load().rollout.rollback.rehearse == 0 {
            self.forget_recent();
        }
        // `mailbox.timeout` may have changed, and with it the time at which waiting messages expire.
        self.check_expiry_soon();
        self.start_workers();
    }

    /// Sets the revisions that handle messages; `None` lets messages wait.
    pub(crate) fn set_traffic(self: &Arc<Self>, traffic: Option<Arc<Traffic>>) {
        let stable = |traffic: &Arc<Traffic>| Arc::clone(traffic.stable());
        let now = traffic.as_ref().map(stable);
        let before = self.traffic.swap(traffic).as_ref().map(stable);
        if let Some(now) = now
            && before.is_none_or(|before| !Arc::ptr_eq(&before, &now))
        {
            // Faults of the revision before say nothing of this one.
            self.reset_breaker();
        }
        self.start_workers();
    }

    /// Pauses or resumes messages and calls, for a handoff between revisions.
    pub(crate) fn set_handoff_paused(self: &Arc<Self>, paused: bool) {
        self.mailbox.set_handoff_paused(paused);
        self.calls.closed.store(paused, Ordering::Relaxed);
        // A call counts itself and then reads `closed`; the pausing side sets `closed` and then reads the count. The fence
        // makes one of the two see the other.
        fence(Ordering::SeqCst);
        if !paused {
            self.calls.resumed.notify_waiters();
            self.start_workers();
        }
    }

    /// Accepts no new conversations any more, and continues with the open ones.
    pub(crate) fn retire(&self, why: &'static str) {
        self.mailbox.retire(why);
    }

    /// Expects a call whose body is still to come.
    pub(crate) fn expect_call(self: &Arc<Self>) -> ExpectedCall {
        // Relaxed: only a stop reads it, again and again.
        self.calls.expected.fetch_add(1, Ordering::Relaxed);
        ExpectedCall(Arc::clone(self))
    }

    /// Returns `true` if messages are in hand, or wait and will be handled, or a call over HTTP is expected. Messages that
    /// an operator has paused will not be handled, and timers are not waited for.
    pub(crate) fn is_busy(&self) -> bool {
        self.mailbox.is_busy() || self.calls.expected.load(Ordering::Relaxed) > 0
    }

    /// Returns `true` if the agent answers HTTP itself.
    pub(crate) fn answers_http(&self) -> bool {
        self.traffic.load().as_ref().is_some_and(|traffic| traffic.stable().kind().answers_http())
    }

    /// Returns `true` if the agent speaks HTTP only, and so has no mailbox.
    pub(crate) fn is_http(&self) -> bool {
        self.traffic.load().as_ref().is_some_and(|traffic| traffic.stable().kind() == Kind::Http)
    }
}

#[cfg(test)]
mod tests;
