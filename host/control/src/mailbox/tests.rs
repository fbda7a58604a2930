//! Tests of the mailbox's promises: nothing lost, nothing doubled, in order, urgent first, none starved.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn filled(order: MailboxOrder, messages: &[(&'static str, u32)]) -> Mailbox<&'static str, u32> {
    let mut mailbox = Mailbox::new(order, 100);
    for (conversation, message) in messages {
        mailbox.reserve().unwrap();
        mailbox.push(*conversation, Priority::Normal, 0, *message);
    }
    mailbox
}

fn take(mailbox: &mut Mailbox<&'static str, u32>, now: u64) -> Option<u32> {
    mailbox.take(now).map(|taken| taken.message)
}

#[test]
fn one_message_of_a_conversation_at_a_time_and_several_conversations_at_once() {
    let mut mailbox = filled(MailboxOrder::Conversation, &[("a", 1), ("a", 2), ("b", 3)]);
    let first = mailbox.take(0).unwrap();
    assert_eq!((first.message, take(&mut mailbox, 0)), (1, Some(3)));
    assert_eq!(take(&mut mailbox, 0), None, "2 waits for 1");
    mailbox.done(first.lane, None);
    assert_eq!(take(&mut mailbox, 0), Some(2));
}

#[test]
fn each_order_limits_what_is_taken_at_once() {
    for (order, at_once) in [(MailboxOrder::Conversation, 2), (MailboxOrder::Agent, 1), (MailboxOrder::None, 3)] {
        let mut mailbox = filled(order, &[("a", 1), ("a", 2), ("b", 3)]);
        let taken = std::iter::from_fn(|| mailbox.take(0)).count();
        assert_eq!(taken, at_once, "{order:?}");
    }
}

#[test]
fn the_limit_counts_queued_and_reserved_messages() {
    let mut mailbox = Mailbox::new(MailboxOrder::None, 2);
    mailbox.reserve().unwrap();
    mailbox.push("a", Priority::Normal, 0, 1);
    mailbox.reserve().unwrap();
    assert_eq!(mailbox.reserve(), Err(MailboxFull { limit: 2 }));
    mailbox.release();
    assert_eq!(mailbox.reserve(), Ok(()));
    assert_eq!(mailbox.reserve(), Err(MailboxFull { limit: 2 }));
    mailbox.take(0).unwrap();
    assert_eq!(mailbox.reserve(), Ok(()), "messages in flight do not count");
}

#[test]
fn a_message_put_back_comes_first_again() {
    let mut mailbox = filled(MailboxOrder::Conversation, &[("a", 1), ("a", 2)]);
    let taken = mailbox.take(0).unwrap();
    mailbox.put_back(taken);
    let taken = mailbox.take(0).unwrap();
    assert_eq!(taken.message, 1);
    mailbox.done(taken.lane, None);
    assert_eq!(take(&mut mailbox, 0), Some(2));
}

#[test]
fn a_deferred_message_queues_behind_the_ready_ones_when_due() {
    let mut mailbox = filled(MailboxOrder::Conversation, &[("bad", 9), ("bad", 10), ("a", 1), ("b", 2), ("c", 3)]);
    let bad = mailbox.take(0).unwrap();
    mailbox.defer(bad, 500);
    assert_eq!(take(&mut mailbox, 0), Some(1));
    mailbox.release_due(500, 10);
    let order: Vec<u32> = std::iter::from_fn(|| take(&mut mailbox, 500)).collect();
    assert_eq!(order, [2, 3, 9], "its own conversation waits behind it");
}

#[test]
fn a_trial_takes_the_message_that_failed_least() {
    // messages with their failures and ranks, in order of arrival; the one that is taken
    for (name, waiting, expected) in [
        (
            "the first that has not failed",
            &[(3, Priority::Normal), (0, Priority::Normal), (0, Priority::Normal)][..],
            Some(1),
        ),
        ("the most urgent of those", &[(0, Priority::Low), (0, Priority::Normal), (1, Priority::Critical)], Some(1)),
        (
            "of those that failed the one that did least",
            &[(4, Priority::Critical), (2, Priority::Low), (2, Priority::Low)],
            Some(1),
        ),
        ("none", &[], None),
    ] {
        let mut mailbox = Mailbox::new(MailboxOrder::None, 100);
        for (nth, (failed, rank)) in waiting.iter().enumerate() {
            mailbox.reserve().unwrap();
            mailbox.push("a", *rank, 0, (nth, *failed));
        }
        let taken = mailbox.take_trial(|(_, failed)| *failed).map(|taken| taken.message.0);
        assert_eq!(taken, expected, "{name}");
        let left = usize::from(expected.is_some());
        assert_eq!((mailbox.depth() as usize, mailbox.in_flight() as usize), (waiting.len() - left, left), "{name}");
    }
}

#[test]
fn the_oldest_message_counts_only_once_due() {
    let mut mailbox = Mailbox::new(MailboxOrder::Conversation, 100);
    assert_eq!(mailbox.oldest(), None);
    mailbox.push_deferred("a", Priority::Normal, 700, 700, 1);
    assert_eq!(mailbox.oldest(), None, "it is not due");
    // Released late, as after a pause of the process.
    mailbox.release_due(900, 10);
    assert_eq!(mailbox.oldest(), Some(700));
    mailbox.push_deferred("b", Priority::Normal, 300, 950, 2);
    mailbox.release_due(950, 10);
    assert_eq!(mailbox.oldest(), Some(300), "since its arrival, not since its last attempt");
}

#[test]
fn expired_messages_make_way_for_the_next_of_their_lane() {
    for order in [MailboxOrder::Conversation, MailboxOrder::Agent, MailboxOrder::None] {
        let mut mailbox = filled(order, &[("a", 1), ("a", 2), ("a", 3), ("b", 14), ("b", 15), ("c", 6), ("d", 7)]);
        let again = mailbox.take(0).unwrap();
        assert_eq!(again.message, 1, "{order:?}");
        mailbox.defer(again, 500);
        mailbox.reserve().unwrap();
        mailbox.push_deferred("a", Priority::Normal, 600, 600, 8);
        let mut over = mailbox.expire(|message| [1, 3, 14, 7, 8].contains(message));
        over.sort_unstable();
        assert_eq!((over, mailbox.depth(), mailbox.next_due()), (vec![1, 3, 7, 8, 14], 3, None), "{order:?}");
        assert!(mailbox.expire(|_| false).is_empty(), "{order:?}");
        let mut left = Vec::new();
        while let Some(taken) = mailbox.take(0) {
            left.push(taken.message);
            mailbox.done(taken.lane, None);
        }
        left.sort_unstable();
        assert_eq!((left, mailbox.depth(), mailbox.in_flight()), (vec![2, 6, 15], 0, 0), "{order:?}");
        assert!(mailbox.lanes.is_empty(), "{order:?}");
    }
}

#[test]
fn urgent_messages_come_first_unless_others_waited_long() {
    let mut mailbox = Mailbox::new(MailboxOrder::None, 100);
    let ranks = [
        (Priority::Low, 0),
        (Priority::Normal, 0),
        (Priority::High, 0),
        (Priority::Critical, 0),
        (Priority::Critical, 9_001),
    ];
    for (message, (rank, since)) in (1..).zip(ranks) {
        mailbox.reserve().unwrap();
        mailbox.push("a", rank, since, message);
    }
    // At 9,001 the low message has 1 + 9 points and a fraction, the new critical one 10.
    let order: Vec<u32> = std::iter::from_fn(|| take(&mut mailbox, 9_001)).collect();
    assert_eq!(order, [4, 3, 2, 1, 5]);
}

#[test]
fn a_deferred_message_holds_its_conversation_and_no_other() {
    let mut mailbox = filled(MailboxOrder::Conversation, &[("a", 1), ("a", 2), ("b", 3)]);
    let taken = mailbox.take(0).unwrap();
    mailbox.defer(taken, 500);
    assert_eq!(mailbox.depth(), 3, "it waits again");
    let other = mailbox.take(0).unwrap();
    assert_eq!(other.message, 3);
    mailbox.done(other.lane, None);
    assert_eq!(mailbox.release_due(499, 10), Some(500));
    assert_eq!(take(&mut mailbox, 499), None, "2 stays behind 1");
    assert_eq!(mailbox.release_due(500, 10), None);
    let again = mailbox.take(500).unwrap();
    assert_eq!(again.message, 1);
    mailbox.done(again.lane, None);
    assert_eq!(take(&mut mailbox, 500), Some(2));
}

#[test]
fn due_messages_are_released_in_order_and_in_batches() {
    let mut mailbox = Mailbox::new(MailboxOrder::None, 100);
    for (message, due) in [(1, 30), (2, 10), (3, 10), (4, 20)] {
        mailbox.reserve().unwrap();
        mailbox.push_deferred("a", Priority::Normal, due, due, message);
    }
    assert_eq!(mailbox.next_due(), Some(10));
    assert_eq!(mailbox.release_due(100, 3), Some(30), "one is left, and due");
    let order: Vec<u32> = std::iter::from_fn(|| take(&mut mailbox, 100)).collect();
    assert_eq!(order, [2, 3, 4]);
    assert_eq!(mailbox.release_due(100, 3), None);
    assert_eq!(take(&mut mailbox, 100), Some(1));
}

#[test]
fn due_messages_are_released_once_even_if_the_clock_jumps() {
    // The clock, step by step, and the messages released then: 1 is due at 950, 2 at 2,000, 3 at 60,000.
    let steps: [(u64, &[u32]); 8] =
        [(900, &[]), (1_000, &[1]), (100, &[]), (960, &[]), (59_999, &[2]), (0, &[]), (u64::MAX, &[3]), (60_000, &[])];
    let mut mailbox = Mailbox::new(MailboxOrder::None, 100);
    for (message, due) in [(1, 950), (2, 2_000), (3, 60_000)] {
        mailbox.reserve().unwrap();
        mailbox.push_deferred("a", Priority::Normal, due, due, message);
    }
    for (now, comes) in steps {
        mailbox.release_due(now, 10);
        let came: Vec<u32> = std::iter::from_fn(|| take(&mut mailbox, now)).collect();
        assert_eq!(came, comes, "{now}");
    }
}

#[test]
fn a_reloaded_mailbox_keeps_its_order() {
    let mut mailbox = Mailbox::new(MailboxOrder::Conversation, 1);
    for _ in 0..3 {
        mailbox.reserve_beyond();
    }
    mailbox.push_deferred("a", Priority::Normal, 500, 500, 1);
    mailbox.push("a", Priority::Normal, 0, 2);
    mailbox.push("b", Priority::Normal, 0, 3);
    assert_eq!((take(&mut mailbox, 0), take(&mut mailbox, 0)), (Some(3), None));
    mailbox.release_due(500, 10);
    assert_eq!(take(&mut mailbox, 500), Some(1));
    assert_eq!(mailbox.drain(), [2]);
}

#[test]
fn drain_keeps_the_order_behind_a_message_in_flight() {
    for order in [MailboxOrder::Conversation, MailboxOrder::Agent] {
        let mut mailbox = filled(order, &[("a", 1), ("a", 2), ("a", 3)]);
        for expected in 1..=2 {
            let taken = mailbox.take(0).unwrap();
            assert_eq!(taken.message, expected, "{order:?}");
            mailbox.done(taken.lane, None);
        }
        let in_hand = mailbox.take(0).unwrap();
        for message in 4..=6 {
            mailbox.reserve().unwrap();
            mailbox.push("a", Priority::Normal, 0, message);
        }
        assert_eq!(mailbox.drain(), [4, 5, 6], "{order:?}");
        mailbox.done(in_hand.lane, None);
        assert!(mailbox.lanes.is_empty(), "{order:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, u8),
    Deferred(u8, u64),
    Take,
    Done(usize),
    PutBack(usize),
    Defer(usize, u64),
    Pass(u64),
    /// Sets the clock.
    Set(u64),
    /// Expires the queued messages of a conversation.
    Expire(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..5, 0u8..4).prop_map(|(conversation, rank)| Step::Push(conversation, rank)),
        1 => (0u8..5, 0u64..3_000).prop_map(|(conversation, after)| Step::Deferred(conversation, after)),
        4 => Just(Step::Take),
        3 => (0usize..8).prop_map(Step::Done),
        1 => (0usize..8).prop_map(Step::PutBack),
        1 => (0usize..8, 0u64..3_000).prop_map(|(at, after)| Step::Defer(at, after)),
        2 => (0u64..1_000).prop_map(Step::Pass),
        1 => (0u64..100_000).prop_map(Step::Set),
        1 => (0u8..3).prop_map(Step::Expire),
    ];
    prop::collection::vec(step, 0..200)
}

/// A message of the model: its conversation, and its number in order of arrival; `None` for a deferred one.
type Message = (u8, Option<u32>);

proptest! {
    #[test]
    fn nothing_is_lost_nothing_is_doubled_and_order_holds(steps in steps(), depth in 1u32..20) {
        let mut mailbox = Mailbox::new(MailboxOrder::Conversation, depth);
        let (mut next, mut accepted, mut handled, mut now) = (0u32, 0usize, 0usize, 0u64);
        let mut flight: Vec<TakenMessage<u8, Message>> = Vec::new();
        let mut last: BTreeMap<u8, u32> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Push(conversation, rank) => {
                    if mailbox.reserve().is_ok() {
                        next += 1;
                        accepted += 1;
                        mailbox.push(conversation, Priority::ALL[rank as usize], now, (conversation, Some(next)));
                    }
                }
                Step::Deferred(conversation, after) => {
                    if mailbox.reserve().is_ok() {
                        accepted += 1;
                        mailbox.push_deferred(conversation, Priority::Normal, now, now + after, (conversation, None));
                    }
                }
                Step::Take => {
                    if let Some(taken) = mailbox.take(now) {
                        prop_assert!(flight.iter().all(|other| other.lane != taken.lane), "two at once");
                        if let (conversation, Some(number)) = taken.message {
                            prop_assert!(last.get(&conversation).is_none_or(|l| *l < number), "out of order");
                        }
                        flight.push(taken);
                    }
                }
                Step::Done(at) if !flight.is_empty() => {
                    let taken = flight.swap_remove(at % flight.len());
                    if let (conversation, Some(number)) = taken.message {
                        last.insert(conversation, number);
                    }
                    handled += 1;
                    mailbox.done(taken.lane, None);
                }
                Step::PutBack(at) if !flight.is_empty() => {
                    let taken = flight.swap_remove(at % flight.len());
                    mailbox.put_back(taken);
                }
                Step::Defer(at, after) if !flight.is_empty() => {
                    let taken = flight.swap_remove(at % flight.len());
                    mailbox.defer(taken, now + after);
                }
                Step::Pass(time) => {
                    now += time;
                    let due = mailbox.release_due(now, usize::MAX);
                    prop_assert!(due.is_none_or(|due| due > now), "a due message was not released");
                }
                Step::Set(time) => now = time,
                Step::Expire(conversation) => {
                    let over = mailbox.expire(|message| message.0 == conversation);
                    prop_assert!(over.iter().all(|message| message.0 == conversation));
                    prop_assert!(mailbox.messages().all(|message| message.0 != conversation));
                    accepted -= over.len();
                }
                Step::Done(_) | Step::PutBack(_) | Step::Defer(..) => {}
            }
            prop_assert_eq!(accepted, handled + flight.len() + mailbox.waiting());
            prop_assert_eq!(mailbox.depth() as usize, mailbox.waiting());
            prop_assert_eq!(mailbox.in_flight() as usize, flight.len());
        }
        // Every queued message can be handled in the end.
        for taken in flight.drain(..) {
            mailbox.done(taken.lane, None);
            handled += 1;
        }
        mailbox.release_due(u64::MAX, usize::MAX);
        while let Some(taken) = mailbox.take(u64::MAX) {
            mailbox.done(taken.lane, None);
            handled += 1;
        }
        prop_assert_eq!(handled, accepted, "a message can never be handled");
    }

    #[test]
    fn no_message_starves(ranks in prop::collection::vec(0u8..4, 1..100)) {
        // Against a stream of critical messages, one each second, a waiting message wins after at most its points.
        let mut mailbox = Mailbox::new(MailboxOrder::None, u32::MAX);
        for rank in &ranks {
            mailbox.push(0u8, Priority::ALL[*rank as usize], 0, Some(()));
        }
        let mut left = ranks.len();
        for step in 0..ranks.len() as u64 + 20 {
            let now = step * 1_000;
            mailbox.push(0, Priority::Critical, now, None);
            if mailbox.take(now).is_some_and(|taken| taken.message.is_some()) {
                left -= 1;
            }
        }
        prop_assert_eq!(left, 0);
    }
}

/// Checks that only a message of the same conversation that was queued when the first was done follows it.
#[test]
fn a_queued_message_follows_the_one_before_it() {
    let mut mailbox: Mailbox<&str, u32> = Mailbox::new(MailboxOrder::Conversation, 100);
    let put = |mailbox: &mut Mailbox<&'static str, u32>, conversation, message| {
        mailbox.reserve().unwrap();
        mailbox.push(conversation, Priority::Normal, 0, message);
    };
    put(&mut mailbox, "a", 1);
    let first = mailbox.take(0).unwrap();
    assert_eq!((first.follows, mailbox.is_open(&"a"), mailbox.has_behind(&first.lane)), (None, true, false));
    put(&mut mailbox, "a", 2);
    put(&mut mailbox, "a", 3);
    put(&mut mailbox, "b", 4);
    assert!(mailbox.has_behind(&first.lane));
    mailbox.done(first.lane, Some(7));
    let mut taken: Vec<_> = std::iter::from_fn(|| mailbox.take(0)).collect();
    taken.sort_by_key(|taken| taken.message);
    let follows = |taken: &[TakenMessage<&str, u32>]| taken.iter().map(|t| (t.message, t.follows)).collect::<Vec<_>>();
    assert_eq!(follows(&taken), [(2, Some(7)), (4, None)]);
    // A deferred message that then expires passes the value on to the next.
    let [again, other] = taken.try_into().unwrap();
    mailbox.defer(again, 10);
    mailbox.done(other.lane, Some(8));
    assert_eq!(mailbox.expire(|message| *message == 2), [2]);
    let third = mailbox.take(0).unwrap();
    assert_eq!((third.message, third.follows), (3, Some(7)));
    mailbox.done(third.lane, Some(7));
    assert!(!mailbox.is_open(&"a"));
    put(&mut mailbox, "a", 5);
    assert_eq!(mailbox.take(0).unwrap().follows, None, "the conversation was idle");
    // In the order of the whole agent the next message belongs to another conversation.
    let mut mailbox: Mailbox<&str, u32> = Mailbox::new(MailboxOrder::Agent, 100);
    put(&mut mailbox, "a", 1);
    put(&mut mailbox, "b", 2);
    let first = mailbox.take(0).unwrap();
    mailbox.done(first.lane, Some(7));
    assert_eq!(mailbox.take(0).unwrap().follows, None);
}

#[test]
fn due_messages_fill_half_of_the_mailbox_and_then_replace_leaving_ones() {
    let mut mailbox: Mailbox<&str, u32> = Mailbox::new(MailboxOrder::None, 5);
    assert_eq!(mailbox.reserve_due(2, false), 2);
    assert_eq!(mailbox.reserve_due(9, false), 1, "three of five are half");
    assert_eq!((mailbox.reserve_due(9, false), mailbox.reserve_due(9, true)), (0, 1));
    mailbox.reserve().unwrap();
    assert_eq!((mailbox.reserve_due(9, true), mailbox.depth()), (0, 5), "it is full");
    mailbox.release();
    assert_eq!((mailbox.reserve_due(0, true), mailbox.reserve_due(9, true), mailbox.depth()), (0, 1, 5));
    let mut smallest: Mailbox<&str, u32> = Mailbox::new(MailboxOrder::None, 1);
    assert_eq!((smallest.reserve_due(9, false), smallest.reserve_due(9, true)), (1, 0));
}
