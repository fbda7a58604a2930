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

#[tokio::test]
async fn waiters_are_served_by_priority_and_arrival() {
    let budget = MemoryBudget::new(1_000);
    let all = budget.hold(MemoryKind::Instances, 1_000);
    let wait = |bytes, priority| Box::pin(budget.reserve(MemoryKind::Bodies, bytes, priority, later()));
    let (mut call, mut second_call) = (wait(100, MemoryPriority::Calls), wait(10, MemoryPriority::Calls));
    let (mut large, mut small) = (wait(900, MemoryPriority::Work), wait(100, MemoryPriority::Work));
    for waiter in [&mut call, &mut second_call, &mut large, &mut small] {
        assert!(poll!(waiter).is_pending());
    }
    assert_eq!(budget.waiting(), 4);
    let mut all = all;
    all.hold(850);
    let Poll::Ready(Ok(small)) = poll!(&mut small) else { panic!("there is room for it") };
    assert!(poll!(&mut large).is_pending(), "there is not");
    assert!(poll!(&mut call).is_pending(), "work goes first");
    // A waiter that leaves is no obstacle to those behind it.
    drop(large);
    drop((small, all));
    let Poll::Ready(Ok(first)) = poll!(&mut call) else { panic!("it is the first call") };
    let Poll::Ready(Ok(second)) = poll!(&mut second_call) else { panic!("there is room for it") };
    drop((first, second));
    assert_eq!((budget.used(), budget.waiting()), (0, 0));
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
async fn of_guests_that_wait_for_each_other_the_last_one_ends() {
    let budget = MemoryBudget::new(1_000);
    let (mut first, mut second) = (budget.hold(MemoryKind::Instances, 500), budget.hold(MemoryKind::Instances, 500));
    let later = Instant::now() + Duration::from_secs(3_600);
    let grown = async {
        let ended = second.grow(100, MemoryPriority::Work, later).await;
        drop(second);
        ended
    };
    let (first, second) = tokio::join!(first.grow(100, MemoryPriority::Work, later), grown);
    assert_eq!((first, second), (Ok(()), Err(MemoryShortage)));
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
