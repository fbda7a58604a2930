//! The activity of a connection, with the times since when it waits. Slow clients are found without a timer for each
//! request: the connection stores timestamps in atomics, and one task compares all of them with the timeouts at
//! intervals.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::serve::Bounds;

/// The time after which an idle connection is closed. Longer than common clients and proxies keep theirs, so that it is
/// them who close, and no request is lost on a connection that closes under it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The time past its deadline after which a call's connection is closed. By then the call has ended by itself, unless
/// its client reads none of it.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);
/// The time that a finishing connection without requests gets to close. HTTP/2 needs it to exchange its last frames.
const FINISH_TIMEOUT: Duration = Duration::from_millis(500);

/// The value of a timestamp that is not set.
const UNSET: u64 = 0;

/// An order to a connection. The values ascend in urgency, for `fetch_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Serve as usual.
    GoOn,
    /// Answer the requests under way, then close.
    Finish,
    /// Close at once.
    Cut,
}

/// The activity of one connection, shared by its socket, its requests and the task that checks it.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// The start of time for all timestamps here, which are milliseconds since then plus one.
    origin: Instant,
    order: AtomicU8,
    connection: AtomicWaker,
    /// Requests whose response is not complete yet.
    visits: AtomicU32,
    /// Set with the first request.
    visited: AtomicBool,
    multiplexed: AtomicBool,
    /// Set if the client's address is a loopback address.
    local: AtomicBool,
    /// The time since when no request is under way.
    idle_since: AtomicU64,
    /// The time of the first byte of a request head that is not complete yet.
    head_since: AtomicU64,
    /// The time since when the client accepts none of the bytes to be sent.
    blocked_since: AtomicU64,
    /// The time of the order to finish.
    finishing_since: AtomicU64,
    /// Response bodies sent in several chunks, by number.
    bodies: Mutex<HashMap<u64, Arc<BodyProgress>>>,
    next_body: AtomicU64,
}

/// The progress of a response body that is sent in chunks.
#[derive(Debug)]
struct BodyProgress {
    /// The time since when hyper has not asked for more, because the client accepts none.
    stalled_since: AtomicU64,
    /// The time by which it has to be complete.
    deadline: u64,
}

impl Pulse {
    /// The activity of a connection that was just accepted.
    pub(super) fn new(origin: Instant) -> Arc<Self> {
        let pulse = Self {
            origin,
            order: AtomicU8::new(Order::GoOn as u8),
            connection: AtomicWaker::new(),
            visits: AtomicU32::new(0),
            visited: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            local: AtomicBool::new(false),
            idle_since: AtomicU64::new(UNSET),
            head_since: AtomicU64::new(UNSET),
            blocked_since: AtomicU64::new(UNSET),
            finishing_since: AtomicU64::new(UNSET),
            bodies: Mutex::default(),
            next_body: AtomicU64::new(0),
        };
        // Relaxed suffices for all timestamps: a check that misses a new one sees it at the next interval.
        pulse.idle_since.store(pulse.now(), Ordering::Relaxed);
        Arc::new(pulse)
    }

    /// Marks the client as local.
    pub(super) fn come_from_here(&self) {
        self.local.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if the client's address is a loopback address.
    pub(crate) fn is_local(&self) -> bool {
        self.local.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, time: Instant) -> u64 {
        // Plus one, because 0 stands for a timestamp that is not set.
        u64::try_from(time.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Notes that bytes came from the client.
    pub(super) fn received(&self) {
        // During a request the bytes are those of its body, or of frames of HTTP/2: they have bounds of their own.
        if self.visits.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == UNSET {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Notes that the client took bytes, or that there are none to send.
    pub(super) fn sent(&self) {
        if self.blocked_since.load(Ordering::Relaxed) != UNSET {
            self.blocked_since.store(UNSET, Ordering::Relaxed);
        }
    }

    /// Notes that the client accepts no bytes at the moment.
    pub(super) fn blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == UNSET {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Registers a request. `multiplexed` says that others may run at the same time (HTTP/2).
    pub(crate) fn visit(self: &Arc<Self>, multiplexed: bool) -> Visit {
        // The first request decides: a connection does not change its protocol later.
        if !self.visited.load(Ordering::Relaxed) {
            self.visited.store(true, Ordering::Relaxed);
            self.multiplexed.store(multiplexed, Ordering::Relaxed);
        }
        self.visits.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(UNSET, Ordering::Relaxed);
        Visit { pulse: Arc::clone(self), progress: None }
    }

    /// Returns the current order, and registers the task to be woken when it changes.
    pub(super) fn order(&self, cx: &std::task::Context<'_>) -> Order {
        // Registered before the load: an order given between the two would otherwise wake nothing.
        self.connection.register(cx.waker());
        match self.order.load(Ordering::Acquire) {
            order if order == Order::Cut as u8 => Order::Cut,
            order if order == Order::Finish as u8 => Order::Finish,
            _ => Order::GoOn,
        }
    }

    /// Gives an order, unless a more urgent one was given before.
    pub(super) fn tell(&self, order: Order) {
        if order == Order::Finish && self.finishing_since.load(Ordering::Relaxed) == UNSET {
            self.finishing_since.store(self.now(), Ordering::Relaxed);
        }
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8 {
            self.connection.wake();
        }
    }

    /// Returns `true` if a request is under way.
    pub(super) fn is_visited(&self) -> bool {
        self.visits.load(Ordering::Relaxed) > 0
    }

    /// Returns `true` if no request is under way and the kernel has accepted all responses.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.is_visited() && self.blocked_since.load(Ordering::Relaxed) == UNSET
    }

    /// Returns `true` if several requests may be under way at once.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// Checks the timestamps against the bounds at the time `now`, and gives the order that follows.
    pub(super) fn look(&self, bounds: &Bounds, now: Instant) {
        let now = self.at(now);
        let (stall, head) = (millis(bounds.stall_timeout), millis(bounds.head_timeout));
        let older = |since: &AtomicU64, age: u64| {
            let since = since.load(Ordering::Relaxed);
            since != UNSET && now.saturating_sub(since) > age
        };
        let late = |progress: &BodyProgress| now > progress.deadline || older(&progress.stalled_since, stall);
        if older(&self.blocked_since, stall) || self.bodies.lock().values().any(|progress| late(progress)) {
            return self.tell(Order::Cut);
        }
        // A request is bounded by the limits of its call.
        if self.is_visited() {
            return;
        }
        if self.finishing_since.load(Ordering::Relaxed) != UNSET {
            let finish = millis(FINISH_TIMEOUT);
            if self.is_at_rest() && older(&self.finishing_since, finish) && older(&self.idle_since, finish) {
                self.tell(Order::Cut);
            }
        } else if !self.visited.load(Ordering::Relaxed) {
            // Not even the first head has arrived.
            if older(&self.idle_since, head) {
                self.tell(Order::Cut);
            }
        // Bytes on an idle HTTP/2 connection need not belong to a head.
        } else if !self.multiplexed.load(Ordering::Relaxed) && older(&self.head_since, head) {
            self.tell(Order::Cut);
        } else if older(&self.idle_since, millis(IDLE_TIMEOUT)) {
            self.tell(Order::Finish);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A request of a connection, under way until its response is complete or dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    pulse: Arc<Pulse>,
    progress: Option<(u64, Arc<BodyProgress>)>,
}

impl Visit {
    /// Returns `true` if other requests may be under way on the same connection.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.pulse.multiplexed.load(Ordering::Relaxed)
    }

    /// Starts to check that the response's body makes progress and is complete at `deadline`.
    pub(crate) fn watch(&mut self, deadline: Option<Instant>) {
        let deadline = deadline.map_or(u64::MAX, |deadline| self.pulse.at(deadline + DEADLINE_GRACE));
        let progress = Arc::new(BodyProgress { stalled_since: AtomicU64::new(self.pulse.now()), deadline });
        let number = self.pulse.next_body.fetch_add(1, Ordering::Relaxed);
        self.pulse.bodies.lock().insert(number, Arc::clone(&progress));
        self.progress = Some((number, progress));
    }

    /// Notes that hyper asked for more of the body.
    pub(crate) fn asked(&self) {
        if let Some((_, progress)) = &self.progress {
            progress.stalled_since.store(UNSET, Ordering::Relaxed);
        }
    }

    /// Notes that a chunk of the body was handed over.
    pub(crate) fn handed_over(&self) {
        if let Some((_, progress)) = &self.progress {
            progress.stalled_since.store(self.pulse.now(), Ordering::Relaxed);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some((number, _)) = self.progress.take() {
            self.pulse.bodies.lock().remove(&number);
        }
        // Stored before the count falls: the checking task must not see an old time with no request.
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

    /// Returns the order that a check gives this many seconds from now.
    fn order_after(pulse: &Pulse, seconds: u64) -> Order {
        pulse.look(&bounds(), Instant::now() + Duration::from_secs(seconds));
        pulse.order(&std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn the_first_head_has_a_timeout() {
        let pulse = Pulse::new(Instant::now());
        assert_eq!(order_after(&pulse, 9), Order::GoOn);
        pulse.received();
        assert_eq!(order_after(&pulse, 11), Order::Cut);
    }

    #[test]
    fn later_heads_time_out_from_their_first_byte() {
        let pulse = Pulse::new(Instant::now());
        drop(pulse.visit(false));
        assert_eq!(order_after(&pulse, 60), Order::GoOn);
        pulse.received();
        assert_eq!(order_after(&pulse, 9), Order::GoOn);
        assert_eq!(order_after(&pulse, 11), Order::Cut);
    }

    #[test]
    fn idle_connections_are_closed_and_busy_ones_kept() {
        let pulse = Pulse::new(Instant::now());
        let visit = pulse.visit(true);
        assert_eq!(order_after(&pulse, 10_000), Order::GoOn, "a call has its own limits");
        drop(visit);
        pulse.received();
        assert_eq!(order_after(&pulse, 74), Order::GoOn, "bytes of HTTP/2 need not be those of a head");
        assert_eq!(order_after(&pulse, 76), Order::Finish);
        assert_eq!(order_after(&pulse, 77), Order::Cut, "it had its time to finish");
    }

    #[test]
    fn finishing_connections_wait_for_their_requests_only() {
        let pulse = Pulse::new(Instant::now());
        let visit = pulse.visit(true);
        pulse.tell(Order::Finish);
        assert_eq!(order_after(&pulse, 1_000), Order::Finish, "a call has its own limits");
        pulse.blocked();
        drop(visit);
        assert_eq!(order_after(&pulse, 2), Order::Finish, "the client still takes what was answered");
        pulse.sent();
        assert_eq!(order_after(&pulse, 2), Order::Cut);
    }

    #[test]
    fn clients_that_read_nothing_are_cut() {
        let pulse = Pulse::new(Instant::now());
        let _visit = pulse.visit(false);
        pulse.blocked();
        pulse.sent();
        assert_eq!(order_after(&pulse, 1_000), Order::GoOn, "all was taken");
        pulse.blocked();
        assert_eq!(order_after(&pulse, 29), Order::GoOn);
        assert_eq!(order_after(&pulse, 31), Order::Cut);
    }

    #[test]
    fn stalled_bodies_are_cut() {
        let pulse = Pulse::new(Instant::now());
        let mut visit = pulse.visit(true);
        visit.watch(None);
        visit.asked();
        assert_eq!(order_after(&pulse, 1_000), Order::GoOn, "the agent is slow, not the client");
        visit.handed_over();
        assert_eq!(order_after(&pulse, 31), Order::Cut);
    }

    #[test]
    fn bodies_past_their_deadline_are_cut() {
        let pulse = Pulse::new(Instant::now());
        let mut visit = pulse.visit(true);
        visit.watch(Some(Instant::now() + Duration::from_secs(5)));
        visit.asked();
        assert_eq!(order_after(&pulse, 5), Order::GoOn);
        assert_eq!(order_after(&pulse, 7), Order::Cut);
        drop(visit);
        assert!(pulse.bodies.lock().is_empty());
    }
}
