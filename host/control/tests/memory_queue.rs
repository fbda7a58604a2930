//! A model of guests that share too little memory: each of them gets to its end, the oldest first, and only a few have
//! to begin again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::VecDeque;

use caxton_control::memory::MemoryPriority;
use caxton_control::memory_queue::{
    MemoryQueue, MemoryRequest, expected_after, expected_after_end, growth_to_wait_for, planned_ceiling,
};
use proptest::prelude::*;

/// The bytes of a guest that has none of its own yet.
const BASE: u64 = 1;
/// The turns for which the oldest waits before others end for it.
const PATIENCE: u32 = 2;

/// A call: the guest takes `need` bytes in steps, and keeps them for some turns.
#[derive(Debug, Clone, Copy)]
struct Call {
    revision: usize,
    need: u64,
    step: u64,
    keeps: u32,
}

#[derive(Debug)]
enum State {
    Starting,
    Running {
        keeps: u32,
    },
    /// Waits for so many bytes, of which it needs the first ones now.
    Growing {
        asked: u64,
        by: u64,
    },
}

#[derive(Debug)]
struct Guest {
    number: usize,
    call: Call,
    state: State,
    taken: u64,
    /// The bytes that are reserved and not taken.
    expected: u64,
    seniority: Option<u64>,
}

impl Guest {
    fn held(&self) -> u64 {
        match self.state {
            State::Starting => 0,
            State::Running { .. } | State::Growing { .. } => BASE + self.taken + self.expected,
        }
    }
}

struct Model {
    budget: u64,
    used: u64,
    limit: u64,
    learned: Vec<u64>,
    queue: MemoryQueue<usize>,
    guests: Vec<Guest>,
    waiting: VecDeque<(usize, Call)>,
    next_ticket: u64,
    oldest: Option<(u64, u32)>,
    ended: usize,
    begun_again: usize,
}

impl Model {
    fn new(budget: u64, limit: u64, calls: &[Call]) -> Self {
        let waiting = calls.iter().copied().enumerate().collect();
        let (queue, guests) = (MemoryQueue::default(), Vec::new());
        let learned = vec![0; 3];
        Self {
            budget,
            used: 0,
            limit,
            learned,
            queue,
            guests,
            waiting,
            next_ticket: 0,
            oldest: None,
            ended: 0,
            begun_again: 0,
        }
    }

    fn guest(&mut self, number: usize) -> &mut Guest {
        self.guests.iter_mut().find(|guest| guest.number == number).unwrap()
    }

    fn planned(&self) -> u64 {
        planned_ceiling(self.budget, MemoryPriority::Instances)
    }

    /// Gives the oldest growth what it cannot do without: no other guest makes room for more.
    fn grant_least(&mut self, seniority: u64, least: u64) {
        let oldest = self.guests.iter_mut().find(|guest| guest.seniority == Some(seniority)).unwrap();
        let number = oldest.number;
        oldest.state = State::Running { keeps: oldest.call.keeps };
        oldest.taken += least;
        self.used += least;
        self.queue.retain(|waiting| *waiting != number);
    }

    /// Lets all calls begin that may, which at once wait in the queue.
    fn arrive(&mut self) {
        while let Some((number, call)) = self.waiting.pop_front() {
            let most = MemoryPriority::Instances.ceiling(self.budget) - BASE;
            let expected = self.learned[call.revision].min(most);
            let (priority, bytes) = (MemoryPriority::Instances, BASE + expected);
            let request = MemoryRequest { priority, seniority: 0, bytes, least: bytes, held: 0 };
            self.queue.push(request, number);
            self.guests.push(Guest { number, call, state: State::Starting, taken: 0, expected, seniority: None });
        }
    }

    fn serve(&mut self) {
        loop {
            let guests = self.guests.iter().map(Guest::held).sum::<u64>();
            let (budget, used) = (self.budget, &mut self.used);
            let served = self.queue.serve(|request, is_first| {
                let most = match request.priority {
                    priority if is_first && guests == 0 => priority.ceiling(budget),
                    _ => planned_ceiling(budget, MemoryPriority::Instances),
                };
                let fits = *used + request.bytes <= most;
                *used += if fits { request.bytes } else { 0 };
                fits
            });
            let Some((_, number)) = served else { break };
            let guest = self.guest(number);
            match guest.state {
                State::Starting => guest.state = State::Running { keeps: guest.call.keeps },
                State::Growing { asked, by } => {
                    guest.taken += by;
                    guest.expected += asked - by;
                    guest.state = State::Running { keeps: guest.call.keeps };
                }
                State::Running { .. } => panic!("{number} asked for nothing"),
            }
        }
        assert!(self.used <= self.budget);
        let held: u64 = self.guests.iter().map(Guest::held).sum();
        assert_eq!(self.used, held, "the books balance");
    }

    /// Lets a guest take its next step, keep what it has, or end.
    fn run(&mut self, at: usize) {
        let (budget, is_free) = (self.budget, self.queue.oldest_growth());
        let Guest { number, call, taken, expected, seniority, .. } = self.guests[at];
        let State::Running { keeps } = self.guests[at].state else { return };
        let by = call.step.min(call.need - taken);
        let learned = &mut self.learned[call.revision];
        if by == 0 && keeps > 0 {
            self.guests[at].state = State::Running { keeps: keeps - 1 };
            return;
        }
        if by == 0 {
            *learned = expected_after(*learned, taken);
            self.used -= self.guests.remove(at).held();
            self.ended += 1;
            return;
        }
        *learned = (*learned).max(taken + by);
        let planned = by.min(expected);
        (self.guests[at].taken, self.guests[at].expected) = (taken + planned, expected - planned);
        let more = by - planned;
        let is_next = is_free.is_none_or(|oldest| seniority.is_some_and(|own| own < oldest.seniority));
        if is_next && self.used + more <= budget {
            self.used += more;
            self.guests[at].taken += more;
            return;
        }
        let seniority = seniority.unwrap_or_else(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        let held = self.guests[at].held();
        let asked = growth_to_wait_for(more, held, self.limit - taken - planned, self.planned().saturating_sub(held));
        let guest = &mut self.guests[at];
        (guest.seniority, guest.state) = (Some(seniority), State::Growing { asked, by: more });
        let request = MemoryRequest { priority: MemoryPriority::Work, seniority, bytes: asked, least: more, held };
        self.queue.push(request, number);
    }

    /// Ends the youngest guests that wait, once the oldest has waited for long.
    fn settle(&mut self) {
        let Some(oldest) = self.queue.oldest_growth() else { return self.oldest = None };
        let waited =
            self.oldest.filter(|(seniority, _)| *seniority == oldest.seniority).map_or(0, |(_, turns)| turns + 1);
        self.oldest = Some((oldest.seniority, waited));
        if waited < PATIENCE {
            return;
        }
        let short = oldest.bytes.saturating_sub(self.planned().saturating_sub(self.used));
        let ended = self.queue.give_up_youngest(short);
        if ended.is_empty() && self.used + oldest.least <= self.budget {
            self.grant_least(oldest.seniority, oldest.least);
        }
        for number in ended {
            let at = self.guests.iter().position(|guest| guest.number == number).unwrap();
            let guest = self.guests.remove(at);
            assert!(guest.seniority.unwrap() > oldest.seniority, "the oldest never ends for others");
            self.used -= guest.held();
            let learned = &mut self.learned[guest.call.revision];
            *learned = (*learned).max(expected_after_end(guest.taken, self.limit));
            self.waiting.push_back((number, guest.call));
            self.begun_again += 1;
        }
    }
}

fn call() -> impl Strategy<Value = Call> {
    (0..3_usize, 1..=100_u64, 1..=30_u64, 0..6_u32).prop_map(|(revision, need, step, keeps)| Call {
        revision,
        need,
        step,
        keeps,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn all_guests_get_to_their_end(
        calls in proptest::collection::vec(call(), 1..120),
        budget in 110..400_u64,
        chances in proptest::collection::vec(0..1_000_usize, 64),
    ) {
        let mut model = Model::new(budget, 100, &calls);
        let mut turns = 0;
        while model.ended < calls.len() {
            model.arrive();
            model.serve();
            // Some of those that run take a step, in an order of chance.
            for chance in &chances {
                if !model.guests.is_empty() {
                    let at = (chance + turns) % model.guests.len();
                    model.run(at);
                    model.serve();
                }
            }
            model.settle();
            turns += 1;
            prop_assert!(turns < 60 * calls.len() + 200, "{} of {} ended", model.ended, calls.len());
        }
        prop_assert_eq!(model.used, 0);
        // With its need learned, a guest does not begin again and again.
        prop_assert!(model.begun_again <= 3 * calls.len(), "{} of {}", model.begun_again, calls.len());
    }
}
