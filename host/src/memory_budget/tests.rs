//! Tests of the budget: what fits, who waits, who is first, and that the books balance.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use caxton_control::memory::MemoryPriority;
use futures::poll;

use super::*;

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn reservations_give_back_what_they_hold() {
    let budget = MemoryBudget::new(1_000);
    let mut one = budget.try_reserve(MemoryKind::Bodies, 400, MemoryPriority::Work).unwrap();
    assert!(one.try_grow(601, MemoryPriority::Work).is_err());
    assert!(one.try_grow(600, MemoryPriority::Work).is_ok());
    assert_eq!((budget.used(), budget.used_by(MemoryKind::Bodies), one.bytes()), (1_000, 1_000, 1_000));
    // What is there already is counted beyond the bound, too.
    let held = budget.hold(MemoryKind::Logs, 500);
    assert_eq!(budget.used(), 1_500);
    one.hold(100);
    let one = one.into_kind(MemoryKind::Messages);
    assert_eq!((budget.used_by(MemoryKind::Bodies), budget.used_by(MemoryKind::Messages)), (0, 100));
    assert_eq!(budget.refused(MemoryPriority::Work), 1);
    drop((one, held));
    assert_eq!(budget.used(), 0);
    assert!(MemoryKind::ALL.into_iter().all(|kind| budget.used_by(kind) == 0));
}

#[test]
fn each_priority_has_its_share() {
    let budget = MemoryBudget::new(100_000);
    for (priority, most) in MemoryPriority::ALL.into_iter().zip([75_000, 85_000, 90_000, 95_000, 100_000]) {
        assert!(budget.try_reserve(MemoryKind::Bodies, most + 1, priority).is_none(), "{priority:?}");
        let all = budget.try_reserve(MemoryKind::Bodies, most, priority).unwrap();
        assert!(!budget.has_room(priority), "{priority:?}");
        drop(all);
        assert!(budget.has_room(priority), "{priority:?}");
    }
}

#[test]
fn idle_instances_end_before_anything_is_refused() {
    let budget = MemoryBudget::new(1_000);
    let idle = Arc::new(parking_lot::Mutex::new(Vec::new()));
    for _ in 0..3 {
        idle.lock().push(budget.try_reserve(MemoryKind::Instances, 300, MemoryPriority::Work).unwrap());
    }
    let (ended, of_budget) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&idle));
    let count = Arc::clone(&ended);
    budget.on_shortage(move || {
        let one = of_budget.lock().pop();
        count.fetch_add(usize::from(one.is_some()), Ordering::Relaxed);
        one.is_some()
    });
    let all = budget.try_reserve(MemoryKind::Bodies, 650, MemoryPriority::Work).unwrap();
    assert_eq!((ended.load(Ordering::Relaxed), budget.used()), (2, 950));
    assert!(budget.try_reserve(MemoryKind::Bodies, 1_001, MemoryPriority::Work).is_none());
    assert_eq!(ended.load(Ordering::Relaxed), 2, "none ends in vain");
    drop(all);
}

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn waiters_are_served_by_priority_and_arrival() {
    let budget = MemoryBudget::new(100 * MIB);
    let mut all = budget.hold(MemoryKind::Logs, 100 * MIB);
    let wait = |bytes, priority| Box::pin(budget.reserve(MemoryKind::Bodies, bytes, priority, later()));
    let (mut body, mut call) = (wait(25 * MIB, MemoryPriority::Calls), wait(1, MemoryPriority::Calls));
    let (mut large, mut small) = (wait(40 * MIB, MemoryPriority::Work), wait(MIB, MemoryPriority::Work));
    for waiter in [&mut body, &mut call, &mut large, &mut small] {
        assert!(poll!(waiter).is_pending());
    }
    assert_eq!(budget.waiting(), 4);
    all.hold(50 * MIB);
    let Poll::Ready(Ok(call)) = poll!(&mut call) else { panic!("its admission takes nothing") };
    assert!(poll!(&mut small).is_pending(), "it would pass the larger one, which came first");
    assert!(poll!(&mut body).is_pending(), "work goes first");
    all.hold(30 * MIB);
    let Poll::Ready(Ok(large)) = poll!(&mut large) else { panic!("there is room for it") };
    let Poll::Ready(Ok(small)) = poll!(&mut small) else { panic!("and for the next") };
    assert!(poll!(&mut body).is_pending(), "it has a smaller share");
    // A waiter that leaves is no obstacle to those behind it.
    let mut next = wait(1, MemoryPriority::Calls);
    assert!(poll!(&mut next).is_pending());
    drop(body);
    drop((large, small, call));
    let Poll::Ready(Ok(next)) = poll!(&mut next) else { panic!("it is the first by now") };
    drop((next, all));
    assert_eq!((budget.used(), budget.waiting()), (0, 0));
}

/// Starts a guest that is expected to take so much.
async fn guest(budget: &MemoryBudget, expected: u64) -> GuestMemory {
    budget.reserve_guest(MIB, expected, MemoryPriority::Instances, later()).await.unwrap()
}

#[tokio::test]
async fn a_guest_waits_before_it_starts_and_not_within_what_is_expected() {
    let budget = MemoryBudget::new(100 * MIB);
    let mut first = guest(&budget, 39 * MIB).await;
    let mut second = guest(&budget, 39 * MIB).await;
    assert_eq!((budget.used(), budget.used_by(MemoryKind::Expected)), (80 * MIB, 78 * MIB));
    let start = |expected| Box::pin(budget.reserve_guest(MIB, expected, MemoryPriority::Instances, later()));
    let (mut large, mut small) = (start(39 * MIB), start(MIB));
    assert!(poll!(&mut large).is_pending(), "a fifth of the budget is not planned");
    assert!(poll!(&mut small).is_pending());
    // Calls and connections find room meanwhile.
    assert!(budget.has_room(MemoryPriority::Connections) && !budget.blocks(MemoryPriority::Calls, MIB));
    // What was expected of a guest is there, and what it took less is free after its call.
    first.grow(20 * MIB, (64 * MIB, 0), later()).await.unwrap();
    assert_eq!((budget.used(), budget.used_by(MemoryKind::Instances)), (80 * MIB, 22 * MIB));
    first.end_call();
    let Poll::Ready(Ok(small)) = poll!(&mut small) else { panic!("it passes one that does not fit") };
    assert!(poll!(&mut large).is_pending());
    second.grow(39 * MIB, (64 * MIB, 0), later()).await.unwrap();
    drop(second);
    let Poll::Ready(Ok(large)) = poll!(&mut large) else { panic!("there is room for it") };
    drop((first, small, large));
    assert!(MemoryKind::ALL.into_iter().all(|kind| budget.used_by(kind) == 0) && budget.used() == 0);
}

#[tokio::test]
async fn a_guest_that_takes_nearly_all_starts_when_it_is_alone() {
    let budget = MemoryBudget::new(100 * MIB);
    let connections = budget.hold(MemoryKind::Connections, 5 * MIB);
    let only = guest(&budget, 99 * MIB).await;
    assert_eq!(budget.used(), 95 * MIB, "as much as there can be for it");
    let mut next = Box::pin(budget.reserve_guest(MIB, 99 * MIB, MemoryPriority::Instances, later()));
    assert!(poll!(&mut next).is_pending());
    drop(only);
    assert!(matches!(poll!(&mut next), Poll::Ready(Ok(_))));
    drop((next, connections));
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_request_that_cannot_be_met_is_refused_in_time() {
    let budget = MemoryBudget::new(1_000);
    // Long after the end of this test: no wait helps, and there is none.
    assert!(budget.reserve(MemoryKind::Bodies, 1_001, MemoryPriority::Work, later()).await.is_err());
    let held = budget.hold(MemoryKind::Instances, 1_000);
    let soon = || Instant::now() + Duration::from_millis(20);
    assert!(budget.admit(MemoryPriority::Calls, soon()).await.is_err());
    budget.until_short().await;
    assert_eq!(budget.refused(MemoryPriority::Calls), 1);
    drop(held);
    assert!(budget.admit(MemoryPriority::Calls, soon()).await.is_ok());
    assert_eq!((budget.used(), budget.waiting()), (0, 0));
}

#[tokio::test]
async fn of_guests_that_wait_for_each_other_the_oldest_gets_to_its_end() {
    let budget = MemoryBudget::new(100 * MIB);
    let mut guests = Vec::new();
    for _ in 0..20 {
        guests.push(guest(&budget, 0).await);
    }
    let far = Instant::now() + Duration::from_secs(3_600);
    // Each takes 50 MiB in steps, of which there are not enough for two.
    let grown = guests.into_iter().map(async |mut guest: GuestMemory| {
        for taken in 0..50 {
            guest.grow(MIB, ((64 - taken) * MIB, 0), far).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, MemoryShortage>(())
    });
    let grown = futures::future::join_all(grown).await;
    let ended = grown.iter().filter(|grown| grown.is_ok()).count();
    assert!(grown[0].is_ok(), "the first to wait is never ended for others");
    assert!(ended >= 2, "{ended} got to their end");
    assert_eq!((budget.used(), budget.waiting()), (0, 0));
}

#[tokio::test]
async fn the_last_bytes_are_for_a_guest_that_needs_no_more() {
    let budget = MemoryBudget::new(100 * MIB);
    let connections = budget.hold(MemoryKind::Connections, 5 * MIB);
    let (mut first, mut second) = (guest(&budget, 0).await, guest(&budget, 0).await);
    first.grow(90 * MIB, (99 * MIB, 0), later()).await.unwrap();
    let waits = async {
        let waited = first.grow(4 * MIB, (9 * MIB, 0), later()).await;
        drop(first);
        waited
    };
    let ends = async {
        let waited = second.grow(4 * MIB, (99 * MIB, 0), later()).await;
        drop(second);
        waited
    };
    // Twice what the first has would never be there, and what it asks for is, once the second ends.
    assert_eq!(tokio::join!(waits, ends), (Ok(()), Err(MemoryShortage)));
    drop(connections);
    assert_eq!(budget.used(), 0);
}

#[test]
fn threads_that_reserve_and_give_back_leave_nothing() {
    let budget = MemoryBudget::new(10_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..2_000_u64 {
                    let held = budget.try_reserve(MemoryKind::Effects, round % 3_000, MemoryPriority::Instances);
                    // Given back by another thread, and so from another shard.
                    std::thread::scope(|other| drop(other.spawn(|| drop(held))));
                }
            });
        }
    });
    assert_eq!((budget.used(), budget.used_by(MemoryKind::Effects)), (0, 0));
}
