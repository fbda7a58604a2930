//! Tests of deadlock detection: tables, and a model that ends handlers as long as any can end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use caxton_control::deadlock::{AgentWaits, PendingRequest, StuckRequests};
use caxton_control::desired::MailboxOrder;
use proptest::prelude::*;

type Agents = BTreeMap<&'static str, AgentWaits<&'static str>>;

/// Builds agents with their turns and order. Each request: the agent, its handler, the conversation it handles, the
/// receiver, the conversation of the request.
fn agents(of: &[(&'static str, u32, MailboxOrder)], asks: &[(&'static str, u64, u64, &'static str, u64)]) -> Agents {
    let mut agents: Agents = of
        .iter()
        .map(|(name, turns, order)| (*name, AgentWaits { capacity: *turns, order: *order, requests: vec![] }))
        .collect();
    for (id, (by, handler, within, to, conversation)) in (1..).zip(asks) {
        let asks = PendingRequest { id, handler: *handler, within: *within, to: *to, conversation: *conversation };
        agents.get_mut(by).unwrap().requests.push(asks);
    }
    agents
}

fn cycle(agents: &Agents, from: &'static str, to: &'static str, conversation: u64) -> Option<Vec<&'static str>> {
    let stuck = StuckRequests::find(&to, conversation, |name| agents.get(name).cloned());
    stuck.is_stuck(&to, conversation).then(|| stuck.cycle(&from, &to))
}

#[test]
fn deadlocked_agents_are_found_with_their_cycle() {
    use MailboxOrder::{Agent, Conversation, None as Free};
    let single = |order| [("a", 1, order), ("b", 1, order), ("c", 1, order)];
    let many = |order| [("a", 4, order), ("b", 4, order), ("c", 4, order)];
    // The agents, the requests with the one to check last, and the cycle.
    let table = [
        // From two sides: each holds the only turn that the other needs.
        (single(Free), vec![("a", 1, 1, "b", 1), ("b", 1, 2, "a", 2)], Some(vec!["a", "b", "a"])),
        // In one chain, and to itself.
        (
            single(Free),
            vec![("a", 1, 1, "b", 1), ("b", 1, 1, "c", 1), ("c", 1, 1, "a", 1)],
            Some(vec!["a", "b", "c", "a"]),
        ),
        (single(Free), vec![("a", 1, 1, "a", 1)], Some(vec!["a", "a"])),
        // Turns are left, but the conversation is blocked, or the whole agent.
        (many(Free), vec![("a", 1, 1, "b", 1), ("b", 1, 1, "a", 1)], None),
        (many(Conversation), vec![("a", 1, 1, "b", 1), ("b", 1, 1, "a", 1)], Some(vec!["a", "b", "a"])),
        (many(Conversation), vec![("a", 1, 1, "b", 1), ("b", 1, 1, "a", 2)], None),
        (many(Agent), vec![("a", 1, 1, "b", 1), ("b", 1, 2, "a", 3)], Some(vec!["a", "b", "a"])),
        // b waits for c, which waits for nothing.
        (single(Free), vec![("b", 1, 1, "c", 1), ("a", 1, 1, "b", 1)], None),
        // A handler with two requests waits for both answers; only the second one is stuck.
        (single(Free), vec![("a", 1, 1, "c", 1), ("a", 1, 1, "b", 1), ("b", 1, 2, "a", 2)], Some(vec!["a", "b", "a"])),
    ];
    for (of, asks, expected) in table {
        let (by, _, _, to, conversation) = *asks.last().unwrap();
        assert_eq!(cycle(&agents(&of, &asks), by, to, conversation), expected, "{asks:?}");
    }
}

#[test]
fn one_handler_that_can_end_frees_its_agent() {
    // Both turns of `a` wait for `b` and both of `b` for others: one for `a`, the other for `c`, which is free.
    let of = [("a", 2, MailboxOrder::None), ("b", 2, MailboxOrder::None), ("c", 1, MailboxOrder::None)];
    let mut asks = vec![("a", 1, 1, "b", 1), ("a", 2, 2, "b", 2), ("b", 1, 3, "c", 3), ("b", 2, 4, "a", 4)];
    assert_eq!(cycle(&agents(&of, &asks), "b", "a", 4), None);
    asks[2] = ("b", 1, 3, "a", 3);
    assert_eq!(cycle(&agents(&of, &asks), "b", "a", 4), Some(vec!["a", "b", "a"]));
    // An agent outside the cycle that asks one inside.
    assert_eq!(cycle(&agents(&of, &asks), "c", "a", 5), Some(vec!["a", "a"]));
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn orders() -> impl Strategy<Value = MailboxOrder> {
    prop_oneof![Just(MailboxOrder::Conversation), Just(MailboxOrder::Agent), Just(MailboxOrder::None)]
}

proptest! {
    /// Ends handlers whose requests can be handled, in random order: exactly the stuck ones are left.
    #[test]
    fn stuck_requests_are_those_left_by_the_model(
        of in prop::collection::vec((1u32..3, orders()), NAMES.len()),
        asks in prop::collection::vec((0..NAMES.len(), 1u64..4, 0..NAMES.len(), 1u64..4), 1..12),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let of: Vec<_> = NAMES.iter().zip(of).map(|(name, (turns, order))| (*name, turns, order)).collect();
        // A handler handles one message, of one conversation.
        let asks: Vec<_> =
            asks.iter().map(|(by, handler, to, to_in)| (NAMES[*by], *handler, *handler, NAMES[*to], *to_in)).collect();
        let before = agents(&of, &asks);
        let mut left = before.clone();
        for pick in picks {
            let free = |(name, standing): (&&'static str, &AgentWaits<&'static str>)| {
                let done = |handler: u64| {
                    let mut own = standing.requests.iter().filter(|asks| asks.handler == handler);
                    own.all(|asks| !left[asks.to].blocks(asks.conversation)).then_some((*name, handler))
                };
                standing.requests.iter().filter_map(|asks| done(asks.handler)).collect::<Vec<_>>()
            };
            let free: Vec<(&str, u64)> = left.iter().flat_map(free).collect();
            if free.is_empty() {
                break;
            }
            let (name, handler) = free[pick.index(free.len())];
            left.get_mut(name).unwrap().requests.retain(|asks| asks.handler != handler);
        }
        for (to, conversation) in NAMES.iter().flat_map(|name| (1..4).map(move |conversation| (*name, conversation))) {
            let stuck = StuckRequests::find(&to, conversation, |name| before.get(name).cloned());
            prop_assert_eq!(
                stuck.is_stuck(&to, conversation),
                left[to].blocks(conversation),
                "{} in {}", to, conversation
            );
        }
    }
}
