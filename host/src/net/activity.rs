//! The activity of a connection, with the times since when it waits. Slow clients are found without a timer for each
//! request: the connection stores timestamps in atomics, and one task compares all of them with the timeouts at
//! intervals.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::limits::ConnectionLimits;
use crate::clock::millis;

/// The time past its deadline after which a call's connection is closed. By then the call has ended by itself, unless
/// its client reads none of it.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);
/// The time that a finishing connection without requests gets to close. HTTP/2 needs it to exchange its last frames.
const FINISH_TIMEOUT: Duration = Duration::from_millis(500);

/// The value of a timestamp that is not set.
const UNSET: u64 = 0;

/// The shutdown that a connection is asked for. The values ascend in urgency, for `fetch_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// The connection serves as usual.
    None,
    /// The connection answers the requests under way, then closes.
    Graceful,
    /// The connection closes at once.
    Immediate,
}

/// The activity of one connection, shared by its socket, its requests and the task that checks it.
#[derive(Debug)]
pub(crate) struct ConnectionActivity {
    /// The start of time for all timestamps here, which are milliseconds since then plus one.
    origin: Instant,
    // An atomic, because it is read at each poll of the connection.
    shutdown: AtomicU8,
    /// The task of the connection.
    task: AtomicWaker,
    /// Requests whose response is not complete yet.
    requests: AtomicU32,
    /// Set with the first request.
    had_request: AtomicBool,
    multiplexed: AtomicBool,
    /// The client's address; `None` if the socket does not tell it.
    peer: Option<IpAddr>,
    /// The time since when no request is under way.
    idle_since: AtomicU64,
    /// The time of the first byte of a request head that is not complete yet.
    head_since: AtomicU64,
    /// The time since when the client accepts none of the bytes to be sent.
    blocked_since: AtomicU64,
    /// The time of the order to finish.
    finishing_since: AtomicU64,
    /// The response bodies sent in several chunks, by number.
    // Locked to add or remove one body and by the check, never across a wait.
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

impl ConnectionActivity {
    /// The activity of a connection that was just accepted.
    pub(super) fn new(origin: Instant, peer: Option<IpAddr>) -> Arc<Self> {
        let activity = Self {
            origin,
            shutdown: AtomicU8::new(Shutdown::None as u8),
            task: AtomicWaker::new(),
            requests: AtomicU32::new(0),
            had_request: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            // Canonical, because a dual-stack socket reports 127.0.0.1 as ::ffff:127.0.0.1.
            peer: peer.map(|peer| peer.to_canonical()),
            idle_since: AtomicU64::new(UNSET),
            head_since: AtomicU64::new(UNSET),
            blocked_since: AtomicU64::new(UNSET),
            finishing_since: AtomicU64::new(UNSET),
            bodies: Mutex::default(),
            next_body: AtomicU64::new(0),
        };
        // Relaxed suffices for all timestamps: a check that misses a new one sees it at the next interval.
        activity.idle_since.store(activity.now(), Ordering::Relaxed);
        Arc::new(activity)
    }

    /// Returns the client's address, if it is known.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Returns `true` if the client's address is a loopback address.
    pub(crate) fn is_local(&self) -> bool {
        self.peer.is_some_and(|peer| peer.is_loopback())
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
        if self.requests.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == UNSET {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Notes that the client took bytes, or that there are none to send.
    pub(super) fn sent(&self) {
        // Loaded first: an unconditional store would write to a shared cache line with each write to the socket.
        if self.blocked_since.load(Ordering::Relaxed) != UNSET {
            self.blocked_since.store(UNSET, Ordering::Relaxed);
        }
    }

    /// Notes that the client accepts no bytes at the moment.
    pub(super) fn blocked(&self) {
        // The first refusal counts: the timeout is for the whole time without progress.
        if self.blocked_since.load(Ordering::Relaxed) == UNSET {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Registers a request. `multiplexed` says that others may run at the same time (HTTP/2).
    pub(crate) fn begin_request(self: &Arc<Self>, multiplexed: bool) -> RequestGuard {
        // The first request decides: a connection does not change its protocol later.
        if !self.had_request.load(Ordering::Relaxed) {
            self.had_request.store(true, Ordering::Relaxed);
            self.multiplexed.store(multiplexed, Ordering::Relaxed);
        }
        // Relaxed: only the checking task reads it, at intervals.
        self.requests.fetch_add(1, Ordering::Relaxed);
        // The head is complete: what follows is bounded by the limits of the body.
        self.head_since.store(UNSET, Ordering::Relaxed);
        RequestGuard { activity: Arc::clone(self), progress: None }
    }

    /// Returns the shutdown that is asked for, and registers the task to be woken when it changes.
    pub(super) fn requested_shutdown(&self, cx: &std::task::Context<'_>) -> Shutdown {
        // Registered before the load: a request between the two would otherwise wake nothing.
        self.task.register(cx.waker());
        match self.shutdown.load(Ordering::Acquire) {
            asked if asked == Shutdown::Immediate as u8 => Shutdown::Immediate,
            asked if asked == Shutdown::Graceful as u8 => Shutdown::Graceful,
            _ => Shutdown::None,
        }
    }

    /// Asks for a shutdown, unless a more urgent one was asked for before.
    pub(super) fn request_shutdown(&self, shutdown: Shutdown) {
        // The first order counts: a repeated one must not extend the time to finish.
        if shutdown == Shutdown::Graceful && self.finishing_since.load(Ordering::Relaxed) == UNSET {
            self.finishing_since.store(self.now(), Ordering::Relaxed);
        }
        // Woken only by a change: the check repeats its order at every interval.
        if self.shutdown.fetch_max(shutdown as u8, Ordering::AcqRel) < shutdown as u8 {
            self.task.wake();
        }
    }

    /// Returns `true` if a request is under way.
    pub(super) fn has_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Returns `true` if no request is under way and the kernel has accepted all responses.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_requests() && self.blocked_since.load(Ordering::Relaxed) == UNSET
    }

    /// Returns whether a request came before, and the milliseconds for which the connection has waited for the next one at
    /// the time `now`. `None` if a request is under way or the connection is about to close.
    pub(super) fn idle_for(&self, now: Instant) -> Option<(bool, u64)> {
        let is_closing = self.shutdown.load(Ordering::Acquire) != Shutdown::None as u8;
        let waited = self.at(now).saturating_sub(self.idle_since.load(Ordering::Relaxed));
        (!is_closing && self.is_idle()).then(|| (self.had_request.load(Ordering::Relaxed), waited))
    }

    /// Asks an idle connection to close, so that another one has its place.
    pub(super) fn make_way(&self) {
        // A request may be on its way where one came before, and is still answered. A client that has sent none in all
        // this time is not waited for.
        let had_request = self.had_request.load(Ordering::Relaxed);
        self.request_shutdown(if had_request { Shutdown::Graceful } else { Shutdown::Immediate });
    }

    /// Returns `true` if several requests may be under way at once.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// Compares the timestamps with the limits at the time `now`, and asks for the shutdown that follows.
    pub(super) fn check_timeouts(&self, limits: &ConnectionLimits, now: Instant) {
        let now = self.at(now);
        let (stall, head) = (millis(limits.stall_timeout), millis(limits.head_timeout));
        let older = |since: &AtomicU64, age: u64| {
            let since = since.load(Ordering::Relaxed);
            since != UNSET && now.saturating_sub(since) > age
        };
        let late = |progress: &BodyProgress| now > progress.deadline || older(&progress.stalled_since, stall);
        // Immediate: a graceful shutdown would wait for the very client that accepts nothing.
        if older(&self.blocked_since, stall) || self.bodies.lock().values().any(|progress| late(progress)) {
            return self.request_shutdown(Shutdown::Immediate);
        }
        // A request is bounded by the limits of its call, not of the connection.
        if self.has_requests() {
            return;
        }
        if self.finishing_since.load(Ordering::Relaxed) != UNSET {
            let finish = millis(FINISH_TIMEOUT);
            // Both times: the last request may have ended just now, and its client needs the time as well.
            if self.is_idle() && older(&self.finishing_since, finish) && older(&self.idle_since, finish) {
                self.request_shutdown(Shutdown::Immediate);
            }
        } else if !self.had_request.load(Ordering::Relaxed) {
            // Not even the first head has arrived.
            if older(&self.idle_since, head) {
                self.request_shutdown(Shutdown::Immediate);
            }
        // Bytes on an idle HTTP/2 connection need not belong to a head.
        } else if !self.multiplexed.load(Ordering::Relaxed) && older(&self.head_since, head) {
            self.request_shutdown(Shutdown::Immediate);
        } else if older(&self.idle_since, millis(limits.idle_timeout)) {
            // Graceful: a request may be on its way at this moment, and is still answered.
            self.request_shutdown(Shutdown::Graceful);
        }
    }
}

/// A request of a connection, under way until its response is complete or dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    activity: Arc<ConnectionActivity>,
    progress: Option<(u64, Arc<BodyProgress>)>,
}

impl RequestGuard {
    /// Returns `true` if other requests may be under way on the same connection.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.activity.multiplexed.load(Ordering::Relaxed)
    }

    /// Starts to check that the response's body makes progress and is complete at `deadline`.
    pub(crate) fn watch_body(&mut self, deadline: Option<Instant>) {
        let deadline = deadline.map_or(u64::MAX, |deadline| self.activity.at(deadline + DEADLINE_GRACE));
        // Stalled from the beginning: hyper may never ask for the first chunk.
        let progress = Arc::new(BodyProgress { stalled_since: AtomicU64::new(self.activity.now()), deadline });
        let number = self.activity.next_body.fetch_add(1, Ordering::Relaxed);
        self.activity.bodies.lock().insert(number, Arc::clone(&progress));
        self.progress = Some((number, progress));
    }

    /// Notes that hyper asked for more of the body.
    pub(crate) fn body_polled(&self) {
        if let Some((_, progress)) = &self.progress {
            progress.stalled_since.store(UNSET, Ordering::Relaxed);
        }
    }

    /// Notes that a chunk of the body was handed over.
    pub(crate) fn chunk_sent(&self) {
        if let Some((_, progress)) = &self.progress {
            progress.stalled_since.store(self.activity.now(), Ordering::Relaxed);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if let Some((number, _)) = self.progress.take() {
            self.activity.bodies.lock().remove(&number);
        }
        // Stored before the count falls: the checking task must not see an old time with no request.
        if self.activity.requests.load(Ordering::Relaxed) == 1 {
            self.activity.idle_since.store(self.activity.now(), Ordering::Relaxed);
        }
        self.activity.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::files::FileReserve;

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            max_connections: 10,
            max_head_bytes: 8 << 10,
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            reserve: FileReserve::Calls,
        }
    }

    /// Returns the shutdown that is asked for this many seconds from now.
    fn shutdown_after(activity: &ConnectionActivity, seconds: u64) -> Shutdown {
        activity.check_timeouts(&limits(), Instant::now() + Duration::from_secs(seconds));
        activity.requested_shutdown(&std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn the_first_head_has_a_timeout() {
        let activity = ConnectionActivity::new(Instant::now(), None);
        assert_eq!(shutdown_after(&activity, 9), Shutdown::None);
        activity.received();
        assert_eq!(shutdown_after(&activity, 11), Shutdown::Immediate);
    }

    #[test]
    fn later_heads_time_out_from_their_first_byte() {
        let activity = ConnectionActivity::new(Instant::now(), None);
        drop(activity.begin_request(false));
        assert_eq!(shutdown_after(&activity, 60), Shutdown::None);
        activity.received();
        assert_eq!(shutdown_after(&activity, 9), Shutdown::None);
        assert_eq!(shutdown_after(&activity, 11), Shutdown::Immediate);
    }

    #[test]
    fn idle_connections_are_closed_and_busy_ones_kept() {
        let activity = ConnectionActivity::new(Instant::now(), None);
        let request = activity.begin_request(true);
        assert_eq!(shutdown_after(&activity, 10_000), Shutdown::None, "a call has its own limits");
        drop(request);
        activity.received();
        assert_eq!(shutdown_after(&activity, 74), Shutdown::None, "bytes of HTTP/2 need not be those of a head");
        assert_eq!(shutdown_after(&activity, 76), Shutdown::Graceful);
        assert_eq!(shutdown_after(&activity, 77), Shutdown::Immediate, "it had its time to finish");
    }

    #[test]
    fn connections_without_a_request_make_way_once() {
        let origin = Instant::now() - Duration::from_secs(9);
        let [silent, served, busy] = [(); 3].map(|()| ConnectionActivity::new(origin, None));
        drop(served.begin_request(false));
        let request = busy.begin_request(false);
        let idle = |activity: &ConnectionActivity| activity.idle_for(Instant::now());
        assert_eq!(idle(&busy), None);
        let had_request = [&silent, &served].map(|activity| idle(activity).map(|(had_request, _)| had_request));
        assert_eq!(had_request, [Some(false), Some(true)]);
        for (activity, expected) in [(&silent, Shutdown::Immediate), (&served, Shutdown::Graceful)] {
            activity.make_way();
            assert_eq!(shutdown_after(activity, 0), expected);
            assert_eq!(idle(activity), None, "it is asked once");
        }
        drop(request);
        assert!(idle(&busy).is_some());
    }

    #[test]
    fn finishing_connections_wait_for_their_requests_only() {
        let activity = ConnectionActivity::new(Instant::now(), None);
        let request = activity.begin_request(true);
        activity.request_shutdown(Shutdown::Graceful);
        assert_eq!(shutdown_after(&activity, 1_000), Shutdown::Graceful, "a call has its own limits");
        activity.blocked();
        drop(request);
        assert_eq!(shutdown_after(&activity, 2), Shutdown::Graceful, "the client still takes what was answered");
        activity.sent();
        assert_eq!(shutdown_after(&activity, 2), Shutdown::Immediate);
    }

    #[test]
    fn clients_that_read_nothing_are_cut() {
        let activity = ConnectionActivity::new(Instant::now(), None);
        let _request = activity.begin_request(false);
        activity.blocked();
        activity.sent();
        assert_eq!(shutdown_after(&activity, 1_000), Shutdown::None, "all was taken");
        activity.blocked();
        assert_eq!(shutdown_after(&activity, 29), Shutdown::None);
        assert_eq!(shutdown_after(&activity, 31), Shutdown::Immediate);
    }

    #[test]
    fn stalled_bodies_are_cut() {
        let activity = ConnectionActivity::new(Instant::now(), None);
        let mut request = activity.begin_request(true);
        request.watch_body(None);
        request.body_polled();
        assert_eq!(shutdown_after(&activity, 1_000), Shutdown::None, "the agent is slow, not the client");
        request.chunk_sent();
        assert_eq!(shutdown_after(&activity, 31), Shutdown::Immediate);
    }

    #[test]
    fn bodies_past_their_deadline_are_cut() {
        let activity = ConnectionActivity::new(Instant::now(), None);
        let mut request = activity.begin_request(true);
        request.watch_body(Some(Instant::now() + Duration::from_secs(5)));
        request.body_polled();
        assert_eq!(shutdown_after(&activity, 5), Shutdown::None);
        assert_eq!(shutdown_after(&activity, 7), Shutdown::Immediate);
        drop(request);
        assert!(activity.bodies.lock().is_empty());
    }
}
