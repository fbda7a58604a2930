//! What each connection waits for, and since when, so that slow clients can be cut without a timer for each
//! request: whoever waits leaves a note here, and one task reads all notes every now and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::serve::Bounds;

/// How long a connection without a request is kept: longer than the usual clients and proxies keep theirs, so
/// that it is them who close.
const IDLE: Duration = Duration::from_secs(75);
/// How long after its deadline a call may hold its connection; by then it has ended by itself, unless its
/// client does not let it.
const GRACE: Duration = Duration::from_secs(1);
/// How long a connection that is to finish and has no request may take for it. HTTP/2 sends a frame there and back;
/// whatever is left after that is of no use to anyone.
const FINISH: Duration = Duration::from_millis(500);

/// No note.
const NOTHING: u64 = 0;

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Go on.
    GoOn,
    /// Finish what is under way, then end.
    Finish,
    /// End now.
    Cut,
}

/// One connection, as those see it who watch over it.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// All times here are milliseconds after this, plus one.
    origin: Instant,
    order: AtomicU8,
    connection: AtomicWaker,
    /// Requests whose response is not complete.
    visits: AtomicU32,
    /// Whether a request ever came.
    visited: AtomicBool,
    multiplexed: AtomicBool,
    /// Whether its client is on this machine.
    local: AtomicBool,
    /// Since when there is no request.
    idle_since: AtomicU64,
    /// Since when the head of a request is coming.
    head_since: AtomicU64,
    /// Since when the client takes nothing of what is to be sent.
    blocked_since: AtomicU64,
    /// Since when it is to finish.
    finishing_since: AtomicU64,
    /// Bodies that come piece by piece, by number.
    bodies: Mutex<HashMap<u64, Arc<Taking>>>,
    next_body: AtomicU64,
}

/// How a body that comes piece by piece is taken.
#[derive(Debug)]
struct Taking {
    /// Since when nobody asks for more.
    left_since: AtomicU64,
    /// When it has to be complete.
    deadline: u64,
}

impl Pulse {
    /// Of a connection that was just accepted.
    pub(super) fn new(origin: Instant) -> Arc<Self> {
        let pulse = Self {
            origin,
            order: AtomicU8::new(Order::GoOn as u8),
            connection: AtomicWaker::new(),
            visits: AtomicU32::new(0),
            visited: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            local: AtomicBool::new(false),
            idle_since: AtomicU64::new(NOTHING),
            head_since: AtomicU64::new(NOTHING),
            blocked_since: AtomicU64::new(NOTHING),
            finishing_since: AtomicU64::new(NOTHING),
            bodies: Mutex::default(),
            next_body: AtomicU64::new(0),
        };
        pulse.idle_since.store(pulse.now(), Ordering::Relaxed);
        Arc::new(pulse)
    }

    /// Notes that its client is on this machine.
    pub(super) fn come_from_here(&self) {
        self.local.store(true, Ordering::Relaxed);
    }

    /// Whether its client is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.local.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Bytes came from the client.
    pub(super) fn received(&self) {
        if self.visits.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == NOTHING {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// The client took bytes, or there are none for it.
    pub(super) fn sent(&self) {
        if self.blocked_since.load(Ordering::Relaxed) != NOTHING {
            self.blocked_since.store(NOTHING, Ordering::Relaxed);
        }
    }

    /// The client takes no bytes at the moment.
    pub(super) fn blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == NOTHING {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A request begins. `multiplexed` says that others may come at the same time (HTTP/2).
    pub(crate) fn visit(self: &Arc<Self>, multiplexed: bool) -> Visit {
        if !self.visited.load(Ordering::Relaxed) {
            self.visited.store(true, Ordering::Relaxed);
            self.multiplexed.store(multiplexed, Ordering::Relaxed);
        }
        self.visits.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(NOTHING, Ordering::Relaxed);
        Visit { pulse: Arc::clone(self), taking: None }
    }

    /// What the connection has to do. Whoever asks is woken when that changes.
    pub(super) fn order(&self, cx: &std::task::Context<'_>) -> Order {
        self.connection.register(cx.waker());
        match self.order.load(Ordering::Acquire) {
            order if order == Order::Cut as u8 => Order::Cut,
            order if order == Order::Finish as u8 => Order::Finish,
            _ => Order::GoOn,
        }
    }

    /// Tells the connection what to do; never less than before.
    pub(super) fn tell(&self, order: Order) {
        if order == Order::Finish && self.finishing_since.load(Ordering::Relaxed) == NOTHING {
            self.finishing_since.store(self.now(), Ordering::Relaxed);
        }
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8 {
            self.connection.wake();
        }
    }

    /// Whether a request is under way.
    pub(super) fn is_visited(&self) -> bool {
        self.visits.load(Ordering::Relaxed) > 0
    }

    /// Whether no request is under way, and all that was answered is with the system.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.is_visited() && self.blocked_since.load(Ordering::Relaxed) == NOTHING
    }

    /// Whether several requests may be under way at once.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// Looks whether the client is too slow at this time, or the connection of no use any more.
    pub(super) fn look(&self, bounds: &Bounds, now: Instant) {
        let now = self.at(now);
        let (stall, head) = (millis(bounds.stall_timeout), millis(bounds.head_timeout));
        let older = |since: &AtomicU64, age: u64| {
            let since = since.load(Ordering::Relaxed);
            since != NOTHING && now.saturating_sub(since) > age
        };
        let late = |taking: &Taking| now > taking.deadline || older(&taking.left_since, stall);
        if older(&self.blocked_since, stall) || self.bodies.lock().values().any(|taking| late(taking)) {
            return self.tell(Order::Cut);
        }
        if self.is_visited() {
            return;
        }
        if self.finishing_since.load(Ordering::Relaxed) != NOTHING {
            let finish = millis(FINISH);
            if self.is_at_rest() && older(&self.finishing_since, finish) && older(&self.idle_since, finish) {
                self.tell(Order::Cut);
            }
        } else if !self.visited.load(Ordering::Relaxed) {
            // Nothing, or not all of a first head.
            if older(&self.idle_since, head) {
                self.tell(Order::Cut);
            }
        } else if !self.multiplexed.load(Ordering::Relaxed) && older(&self.head_since, head) {
            self.tell(Order::Cut);
        } else if older(&self.idle_since, millis(IDLE)) {
            self.tell(Order::Finish);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One request of a connection, until its response is complete or dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    pulse: Arc<Pulse>,
    taking: Option<(u64, Arc<Taking>)>,
}

impl Visit {
    /// Whether others may be under way on the same connection.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.pulse.multiplexed.load(Ordering::Relaxed)
    }

    /// Watches how the response's body is taken, which has to be complete at `deadline`.
    pub(crate) fn watch(&mut self, deadline: Option<Instant>) {
        let deadline = deadline.map_or(u64::MAX, |deadline| self.pulse.at(deadline + GRACE));
        let taking = Arc::new(Taking { left_since: AtomicU64::new(self.pulse.now()), deadline });
        let number = self.pulse.next_body.fetch_add(1, Ordering::Relaxed);
        self.pulse.bodies.lock().insert(number, Arc::clone(&taking));
        self.taking = Some((number, taking));
    }

    /// More of the body is asked for.
    pub(crate) fn asked(&self) {
        if let Some((_, taking)) = &self.taking {
            taking.left_since.store(NOTHING, Ordering::Relaxed);
        }
    }

    /// A piece of the body was handed over.
    pub(crate) fn handed_over(&self) {
        if let Some((_, taking)) = &self.taking {
            taking.left_since.store(self.pulse.now(), Ordering::Relaxed);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some((number, _)) = self.taking.take() {
            self.pulse.bodies.lock().remove(&number);
        }
        if self.pulse.visits.load(Ordering::Relaxed) == 1 {
            self.pulse.idle_since.store(self.pulse.now(), Ordering::Relaxed);
        }
        self.pulse.visits.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds {
            max_connections: 10,
            max_head_bytes: 8 << 10,
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
        }
    }

    /// What the connection is told so many seconds after whatever was noted last.
    fn told(pulse: &Pulse, seconds: u64) -> Order {
        pulse.look(&bounds(), Instant::now() + Duration::from_secs(seconds));
        pulse.order(&std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn a_first_head_has_its_time() {
        let pulse = Pulse::new(Instant::now());
        assert_eq!(told(&pulse, 9), Order::GoOn);
        pulse.received();
        assert_eq!(told(&pulse, 11), Order::Cut);
    }

    #[test]
    fn a_later_head_has_its_time_from_its_first_byte() {
        let pulse = Pulse::new(Instant::now());
        drop(pulse.visit(false));
        assert_eq!(told(&pulse, 60), Order::GoOn);
        pulse.received();
        assert_eq!(told(&pulse, 9), Order::GoOn);
        assert_eq!(told(&pulse, 11), Order::Cut);
    }

    #[test]
    fn an_idle_connection_is_finished_and_a_busy_one_kept() {
        let pulse = Pulse::new(Instant::now());
        let visit = pulse.visit(true);
        assert_eq!(told(&pulse, 10_000), Order::GoOn, "a call has its own limits");
        drop(visit);
        pulse.received();
        assert_eq!(told(&pulse, 74), Order::GoOn, "bytes of HTTP/2 need not be those of a head");
        assert_eq!(told(&pulse, 76), Order::Finish);
        assert_eq!(told(&pulse, 77), Order::Cut, "it had its time to finish");
    }

    #[test]
    fn a_connection_that_is_to_finish_waits_for_its_requests_alone() {
        let pulse = Pulse::new(Instant::now());
        let visit = pulse.visit(true);
        pulse.tell(Order::Finish);
        assert_eq!(told(&pulse, 1_000), Order::Finish, "a call has its own limits");
        pulse.blocked();
        drop(visit);
        assert_eq!(told(&pulse, 2), Order::Finish, "the client still takes what was answered");
        pulse.sent();
        assert_eq!(told(&pulse, 2), Order::Cut);
    }

    #[test]
    fn who_takes_nothing_is_cut() {
        let pulse = Pulse::new(Instant::now());
        let _visit = pulse.visit(false);
        pulse.blocked();
        pulse.sent();
        assert_eq!(told(&pulse, 1_000), Order::GoOn, "all was taken");
        pulse.blocked();
        assert_eq!(told(&pulse, 29), Order::GoOn);
        assert_eq!(told(&pulse, 31), Order::Cut);
    }

    #[test]
    fn a_body_that_nobody_asks_for_is_given_up() {
        let pulse = Pulse::new(Instant::now());
        let mut visit = pulse.visit(true);
        visit.watch(None);
        visit.asked();
        assert_eq!(told(&pulse, 1_000), Order::GoOn, "the agent is slow, not the client");
        visit.handed_over();
        assert_eq!(told(&pulse, 31), Order::Cut);
    }

    #[test]
    fn a_body_has_to_be_complete_in_time() {
        let pulse = Pulse::new(Instant::now());
        let mut visit = pulse.visit(true);
        visit.watch(Some(Instant::now() + Duration::from_secs(5)));
        visit.asked();
        assert_eq!(told(&pulse, 5), Order::GoOn);
        assert_eq!(told(&pulse, 7), Order::Cut);
        drop(visit);
        assert!(pulse.bodies.lock().is_empty());
    }
}
