//! The order in which requests for memory are served while it is short, the growths that are given up for others, and
//! the memory that a guest is expected to take.
//!
//! ```text
//! start  --> expected memory fits into the planned part? --> begins --> growth within it waits for nothing
//!               '-- no --> waits, and holds nothing
//! growth beyond what was expected --> waits by seniority; the oldest is served first
//!               '-- nothing for the oldest for a while --> the youngest end, and run again later
//! ```
//! The seniority of a guest is that of its first wait in a call: a growth that is served does not send the guest behind
//! all others. So the oldest always gets to its end, and then the next is the oldest.

use std::collections::VecDeque;

use crate::memory::MemoryPriority;

/// The largest request that is served although a growth waits: the admission of a call, a connection.
pub const SMALL_REQUEST: u64 = 64 << 10;
/// The number of smaller starts that may pass one that does not fit yet. Then nothing passes it any more.
pub const MAX_PASSES: u32 = 64;
/// The starts that are looked at for one that fits, so that memory that is given back is handed on in bounded time.
const REACH: usize = 64;
/// The part of the budget, in percent, up to which the expected memory of guests is planned. Below that of connections
/// and calls: these are not refused because of memory that guests may take, and there is room for guests that take more.
const PLANNED_PERCENT: u64 = 80;
/// The part of the difference, as a divisor, by which an expectation falls after a guest that took less. Slow, since a
/// guest that takes more than expected may have to end.
const FALL: u64 = 8;

const PRIORITIES: usize = MemoryPriority::ALL.len();

/// A request for memory that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRequest {
    /// The purpose.
    pub priority: MemoryPriority,
    /// The number of the first wait of the same guest in its call; lower is older.
    pub seniority: u64,
    /// The bytes that are asked for.
    pub bytes: u64,
    /// The bytes of them that it cannot do without.
    pub least: u64,
    /// The bytes that are free again if the request is given up.
    pub held: u64,
}

/// A request with its owner.
#[derive(Debug)]
struct QueuedRequest<T> {
    request: MemoryRequest,
    owner: T,
    /// The number of requests behind it that were served before it.
    passed: u32,
}

/// The requests that wait, by priority.
#[derive(Debug)]
pub struct MemoryQueue<T> {
    queues: [VecDeque<QueuedRequest<T>>; PRIORITIES],
}

impl<T> Default for MemoryQueue<T> {
    fn default() -> Self {
        Self { queues: std::array::from_fn(|_| VecDeque::new()) }
    }
}

impl<T> MemoryQueue<T> {
    /// Adds a request: growth in the order of seniority, all else behind those of its priority.
    pub fn push(&mut self, request: MemoryRequest, owner: T) {
        let queue = &mut self.queues[request.priority as usize];
        let at = match request.priority {
            MemoryPriority::Work => queue.partition_point(|other| other.request.seniority <= request.seniority),
            MemoryPriority::Copies
            | MemoryPriority::Connections
            | MemoryPriority::Calls
            | MemoryPriority::Instances => queue.len(),
        };
        // Behind those of the same seniority: of two growths of one guest the first comes first.
        queue.insert(at, QueuedRequest { request, owner, passed: 0 });
    }

    /// Removes the requests whose owners have left.
    pub fn retain(&mut self, is_there: impl Fn(&T) -> bool) {
        for queue in &mut self.queues {
            queue.retain(|waiting| is_there(&waiting.owner));
        }
    }

    /// Returns the number of requests of a priority.
    pub fn len(&self, priority: MemoryPriority) -> usize {
        self.queues[priority as usize].len()
    }

    /// Returns `true` if no request waits.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Returns the oldest growth.
    pub fn oldest_growth(&self) -> Option<MemoryRequest> {
        self.queues[MemoryPriority::Work as usize].front().map(|waiting| waiting.request)
    }

    /// Takes out the request that is served next. `fits` takes the memory of a request, if there is enough; its second
    /// argument is set for the first start, which may have more than is planned for all if no guest is there.
    pub fn serve(&mut self, mut fits: impl FnMut(&MemoryRequest, bool) -> bool) -> Option<(MemoryRequest, T)> {
        let (is_growing, mut served) = (self.oldest_growth().is_some(), None);
        let mut first = |queue: &mut VecDeque<QueuedRequest<T>>, most: u64| {
            let at = queue.iter().position(|waiting| waiting.request.bytes <= most)?;
            fits(&queue[at].request, false).then(|| queue.remove(at)).flatten()
        };
        if is_growing {
            served = first(&mut self.queues[MemoryPriority::Work as usize], u64::MAX);
        }
        // What would pass the oldest growth could keep it waiting for ever; small requests cannot.
        let most = if is_growing { SMALL_REQUEST } else { u64::MAX };
        for priority in [MemoryPriority::Calls, MemoryPriority::Connections, MemoryPriority::Copies] {
            served = served.or_else(|| first(&mut self.queues[priority as usize], most));
        }
        if served.is_none() && !is_growing {
            served = self.serve_start(fits);
        }
        served.map(|QueuedRequest { request, owner, .. }| (request, owner))
    }

    /// Takes out the first start that fits, unless it would pass one that was passed often.
    fn serve_start(&mut self, mut fits: impl FnMut(&MemoryRequest, bool) -> bool) -> Option<QueuedRequest<T>> {
        let starts = &mut self.queues[MemoryPriority::Instances as usize];
        for at in 0..starts.len().min(REACH) {
            if fits(&starts[at].request, at == 0) {
                starts.iter_mut().take(at).for_each(|passed| passed.passed += 1);
                return starts.remove(at);
            }
            if starts[at].passed >= MAX_PASSES {
                break;
            }
        }
        None
    }

    /// Takes out the youngest growths, until the end of their guests frees `short` bytes. The oldest stays.
    pub fn give_up_youngest(&mut self, short: u64) -> Vec<T> {
        let growths = &mut self.queues[MemoryPriority::Work as usize];
        let (mut freed, mut ended) = (0_u64, Vec::new());
        // The youngest has done the least, and loses the least by being tried again.
        while freed < short && growths.len() > 1 {
            let Some(youngest) = growths.pop_back() else { break };
            freed = freed.saturating_add(youngest.request.held);
            ended.push(youngest.owner);
        }
        ended
    }
}

/// Returns the bytes of a budget up to which the expected memory of guests is planned, for starts of a priority.
pub const fn planned_ceiling(budget: u64, priority: MemoryPriority) -> u64 {
    // Divided first, so that no budget overflows.
    let (planned, own) = (budget / 100 * PLANNED_PERCENT, priority.ceiling(budget));
    if planned < own { planned } else { own }
}

/// Returns the memory that the next guest is expected to take, after one that took `taken` bytes.
pub const fn expected_after(expected: u64, taken: u64) -> u64 {
    // Up at once and down slowly: too little keeps guests waiting, too much only lets fewer of them start.
    if taken >= expected { taken } else { expected - (expected - taken) / FALL }
}

/// Returns the memory that a guest is expected to take that ended when it had `wanted` bytes, and may have `limit`.
pub fn expected_after_end(wanted: u64, limit: u64) -> u64 {
    // It had not got all that it needs, and nobody knows how much more that is.
    wanted.saturating_mul(2).min(limit)
}

/// Returns the bytes that a growth asks for that has to wait: as many as the guest `holds`, within the `left` ones that
/// it may have and the `room` that there can be for it. Doubled, so that a guest waits a few times and not for each page.
pub fn growth_to_wait_for(by: u64, holds: u64, left: u64, room: u64) -> u64 {
    let doubled = by.max(holds.min(left));
    // More than there can be would never be met, while the growth itself may be.
    if doubled > room { by } else { doubled }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(priority: MemoryPriority, seniority: u64, bytes: u64) -> MemoryRequest {
        MemoryRequest { priority, seniority, bytes, least: bytes, held: 100 }
    }

    /// Serves all that fits into `free` bytes, and returns the owners.
    fn served(queue: &mut MemoryQueue<&'static str>, mut free: u64) -> Vec<&'static str> {
        let mut owners = Vec::new();
        while let Some((_, owner)) = queue.serve(|request, _| {
            let fits = request.bytes <= free;
            free -= if fits { request.bytes } else { 0 };
            fits
        }) {
            owners.push(owner);
        }
        owners
    }

    #[test]
    fn growth_is_served_by_seniority_and_only_small_requests_pass_it() {
        let mut queue = MemoryQueue::default();
        queue.push(request(MemoryPriority::Work, 7, 10), "young");
        queue.push(request(MemoryPriority::Instances, 1, 10), "start");
        queue.push(request(MemoryPriority::Calls, 2, SMALL_REQUEST + 1), "large body");
        queue.push(request(MemoryPriority::Connections, 3, 1), "connection");
        queue.push(request(MemoryPriority::Work, 4, 1 << 20), "old");
        assert_eq!(queue.oldest_growth().map(|growth| growth.seniority), Some(4));
        assert_eq!(served(&mut queue, 1 << 19), ["connection"], "the young one fits, and would pass the old one");
        assert_eq!(served(&mut queue, 2 << 20), ["old", "young", "large body", "start"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn small_starts_pass_a_large_one_so_often() {
        let mut queue = MemoryQueue::default();
        queue.push(request(MemoryPriority::Instances, 0, 1_000), "large");
        for _ in 0..2 * MAX_PASSES {
            queue.push(request(MemoryPriority::Instances, 0, 1), "small");
        }
        assert_eq!(served(&mut queue, 999).len(), MAX_PASSES as usize);
        assert_eq!(served(&mut queue, 1_001), ["large", "small"]);
    }

    #[test]
    fn only_the_first_start_may_have_more_than_is_planned() {
        let mut queue = MemoryQueue::default();
        queue.push(request(MemoryPriority::Instances, 0, 1_000), "first");
        queue.push(request(MemoryPriority::Instances, 0, 1_000), "second");
        let mut alone = Vec::new();
        assert!(
            queue
                .serve(|_, is_first| {
                    alone.push(is_first);
                    false
                })
                .is_none()
        );
        assert_eq!(alone, [true, false]);
    }

    #[test]
    fn the_youngest_are_given_up_until_there_is_enough_and_never_the_oldest() {
        for (short, expected) in
            [(1, vec!["d"]), (100, vec!["d"]), (101, vec!["d", "c"]), (u64::MAX, vec!["d", "c", "b"])]
        {
            let mut queue = MemoryQueue::default();
            for (seniority, owner) in [(3, "c"), (1, "a"), (4, "d"), (2, "b")] {
                queue.push(request(MemoryPriority::Work, seniority, 10), owner);
            }
            assert_eq!(queue.give_up_youngest(short), expected, "{short}");
        }
    }

    #[test]
    fn owners_that_left_are_no_obstacle() {
        let mut queue = MemoryQueue::default();
        queue.push(request(MemoryPriority::Work, 1, 1_000), "left");
        queue.push(request(MemoryPriority::Work, 2, 10), "stays");
        queue.retain(|owner| *owner != "left");
        assert_eq!((queue.len(MemoryPriority::Work), served(&mut queue, 10)), (1, vec!["stays"]));
    }

    #[test]
    fn expectations_rise_at_once_and_fall_slowly() {
        assert_eq!(expected_after(0, 48), 48);
        assert_eq!(expected_after(48, 0), 42);
        assert_eq!(expected_after(48, 48), 48);
        assert_eq!((0..200).fold(1 << 26, |expected, _| expected_after(expected, 1 << 20)), (1 << 20) + 7);
        assert_eq!((expected_after_end(10, 64), expected_after_end(40, 64)), (20, 64));
        for (by, holds, left, room, asked) in
            [(1, 10, 100, 1_000, 10), (20, 10, 100, 1_000, 20), (1, 10, 5, 1_000, 5), (1, 600, 2_000, 500, 1)]
        {
            assert_eq!(growth_to_wait_for(by, holds, left, room), asked, "{by} of {holds}");
        }
        assert!(planned_ceiling(1_000, MemoryPriority::Instances) < MemoryPriority::Connections.ceiling(1_000));
        assert_eq!(planned_ceiling(1_000, MemoryPriority::Copies), MemoryPriority::Copies.ceiling(1_000));
    }
}
