//! The mailbox of an agent: messages that wait, the workers that take them, and the breaker that may keep them waiting.
//!
//! ```text
//! reserve --> put --> [ready] --> take --> done
//!                        ^          '-- requeue (another attempt, at once or later) --.
//!                        '------------------------------------------------------------'
//! ```
//! One lock protects all of it, because each operation needs most of it: a message may be taken if the mailbox is not
//! paused, the breaker admits it and there are fewer workers than instances. It is held for microseconds and never
//! across an `await`, a read of the store, or a call of another agent. Only this folder takes it: the methods here and
//! those of `Agent` in this folder's files are whole operations. The order of messages is decided in
//! `caxton_control::mailbox`.

pub(super) mod audit;
pub(super) mod backlog;
pub(super) mod breaker;
pub(super) mod entry;
mod expiry;
mod expiry_watch;
pub(super) mod intake;
mod lifecycle;
pub(super) mod timers;
mod wakeup;
mod workers;

use std::sync::atomic::AtomicU32;

use caxton_control::AgentSpec;
use caxton_control::breaker::{Admission, Breaker};
use caxton_control::mailbox::{Lane, Mailbox as Queue};
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use self::entry::QueuedMessage;
use self::expiry_watch::ExpiryWatch;
use crate::agent::conversation_hash;
use crate::api_types::BreakerOpening;
use crate::clock;

/// Messages of an agent that are handled or being committed at once (SPEC §1).
const MAX_IN_FLIGHT: u32 = 10_000;
/// The wait before an operation for which the store failed is tried again, in milliseconds.
pub(super) const STORE_PAUSE: u64 = 1_000;

/// The mailbox of an agent.
pub(super) struct Mailbox {
    /// The state behind the one lock. Padded, because workers write to it all the time and every sender reads its
    /// neighbours in an agent.
    state: CachePadded<Mutex<MailboxState>>,
    /// Handlers that succeeded since the breaker was last told. Beside the lock, so that a success needs none.
    successes: CachePadded<AtomicU32>,
}

struct MailboxState {
    queue: Queue<u64, QueuedMessage>,
    /// Set while a handoff between revisions is under way: messages wait although they could be handled.
    handoff_paused: bool,
    /// Set while an operator lets messages wait.
    operator_paused: bool,
    intake: Intake,
    /// Set when the host stops: messages that the store has are left to its next start.
    is_stopping: bool,
    workers: u32,
    /// Workers that wait for something, with a message in hand.
    waiting_workers: u32,
    breaker: Breaker,
    /// The failure that opened the breaker last.
    opening: Option<Box<BreakerOpening>>,
    /// Set while due timers are on their way from the store into the mailbox.
    is_firing: bool,
    /// Set if timers are due and the mailbox has no room for them.
    has_late_timers: bool,
    /// Set if the next message that leaves makes room for a timer.
    timers_turn: bool,
    /// The time of the next wake-up by the steady clock; `u64::MAX` for none.
    wake_at: u64,
    expiry: ExpiryWatch,
}

/// The messages that a mailbox accepts. The text is the reason for the others' refusal.
#[derive(Debug, Clone, Copy)]
enum Intake {
    /// Accepts all messages.
    Open,
    /// Accepts messages of open conversations in which the agent takes part (SPEC §7): it retires.
    Draining(&'static str),
    /// Accepts no messages.
    Closed(&'static str),
}

/// The figures of a mailbox, for the API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MailboxFigures {
    /// Messages that wait.
    pub(crate) depth: u32,
    /// Messages that may wait.
    pub(crate) bound: u32,
    /// Messages of `depth` that wait for another attempt.
    pub(crate) deferred: u64,
    /// Messages that wait for their time, and have no place in the mailbox before.
    pub(crate) timers: u64,
    /// Messages being handled or committed.
    pub(crate) in_flight: u32,
    /// Set while an operator lets messages wait.
    pub(crate) operator_paused: bool,
    /// `closed`, `open` or `half-open`.
    pub(crate) breaker: &'static str,
}

impl MailboxState {
    /// Returns `true` if a worker can take a message now.
    fn is_ready(&self, now: u64) -> bool {
        !self.handoff_paused
            && !self.operator_paused
            && self.queue.has_ready()
            && self.queue.in_flight() < MAX_IN_FLIGHT
            && !matches!(self.breaker.peek(now), Admission::No { .. })
    }
}

impl Mailbox {
    /// Creates an empty mailbox.
    pub(super) fn new(spec: &AgentSpec, operator_paused: bool) -> Self {
        let state = MailboxState {
            queue: Queue::new(spec.mailbox.order, spec.mailbox.depth),
            handoff_paused: false,
            operator_paused,
            intake: Intake::Open,
            is_stopping: false,
            workers: 0,
            waiting_workers: 0,
            breaker: Breaker::new(spec.breaker.faults, clock::millis(spec.breaker.reset)),
            opening: None,
            is_firing: false,
            has_late_timers: false,
            timers_turn: false,
            wake_at: u64::MAX,
            expiry: ExpiryWatch::default(),
        };
        Self { state: CachePadded::new(Mutex::new(state)), successes: CachePadded::new(AtomicU32::new(0)) }
    }

    fn lock(&self) -> MutexGuard<'_, MailboxState> {
        self.state.lock()
    }

    /// Returns the number of messages that wait.
    pub(super) fn depth(&self) -> u32 {
        self.lock().queue.depth()
    }

    /// Applies settings.
    pub(super) fn configure(&self, spec: &AgentSpec) {
        let mut state = self.lock();
        state.queue.configure(spec.mailbox.order, spec.mailbox.depth);
        // A larger depth may have room for timers.
        state.has_late_timers = false;
        state.breaker.configure(spec.breaker.faults, clock::millis(spec.breaker.reset));
    }

    /// Reserves a place beyond the bound.
    pub(super) fn reserve_beyond(&self) {
        self.lock().queue.reserve_beyond();
    }

    /// Stops or resumes the handling of messages during a handoff.
    pub(super) fn set_handoff_paused(&self, paused: bool) {
        self.lock().handoff_paused = paused;
    }

    /// Accepts no new conversations any more, and continues with the open ones.
    pub(super) fn retire(&self, why: &'static str) {
        self.lock().intake = Intake::Draining(why);
    }

    /// Accepts messages of all conversations again.
    pub(super) fn reopen(&self) {
        self.lock().intake = Intake::Open;
    }

    /// Returns `true` if messages are in hand, or wait and will be handled.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        // Messages that an operator has paused are not handled, and waiting for them might never end.
        (state.queue.depth() > 0 && !state.operator_paused) || state.queue.in_flight() > 0
    }

    /// Returns `true` if messages are in hand or wait, for whatever reason.
    pub(super) fn has_messages(&self) -> bool {
        let state = self.lock();
        state.queue.depth() > 0 || state.queue.in_flight() > 0
    }

    /// Returns `true` if messages of the same conversation wait behind one in hand.
    pub(super) fn has_behind(&self, lane: &Lane<u64>) -> bool {
        self.lock().queue.has_behind(lane)
    }

    /// Returns `true` if a message of the conversation waits or is in hand.
    pub(super) fn is_open(&self, conversation: &str) -> bool {
        self.lock().queue.is_open(&conversation_hash(conversation))
    }

    /// Returns the time since which the oldest message waits that could be handled. O(conversations that wait).
    pub(super) fn oldest(&self) -> Option<u64> {
        self.lock().queue.oldest()
    }

    /// Counts a worker as at work again, after [`worker_waits`](crate::agent::Agent::worker_waits).
    pub(super) fn worker_resumes(&self) {
        self.lock().waiting_workers -= 1;
    }
}
