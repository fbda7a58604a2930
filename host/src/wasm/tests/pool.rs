//! Tests of instances: reuse, limits, eviction and ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use caxton_control::desired::Reuse;
use caxton_control::supervision::InstanceFailure;

use super::guests::{COUNT, Guest, counts, handles};
use super::{Bench, HeldLease, LONG, Pool, call, call_kept};
use crate::message::Fault;

/// The wait that is enough to see that an event does not occur.
const SHORT: Duration = Duration::from_millis(30);

async fn lease(pool: &Arc<Pool>, patience: Duration) -> Result<super::super::Lease, Fault> {
    pool.lease(Instant::now() + patience).await
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_reused_and_replaced_after_enough_messages() {
    let bench = Bench::new();
    for (reuse, counts_seen) in [(1_000, [1, 2, 3, 4, 5]), (2, [1, 2, 1, 2, 1]), (1, [1, 1, 1, 1, 1])] {
        let pool = bench.pool(&counts(), |spec| spec.instances.reuse = Reuse::Own(reuse)).await;
        for count in counts_seen {
            assert_eq!(call(&pool).await.unwrap(), [count], "reuse = {reuse}");
        }
        let fresh = counts_seen.iter().filter(|count| **count == 1).count();
        assert_eq!(pool.started() as usize, fresh, "reuse = {reuse}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_reuse_takes_effect_at_once() {
    let bench = Bench::new();
    let pool = bench.pool(&counts(), |spec| spec.instances.reuse = Reuse::Own(1_000)).await;
    for count in [1, 2, 3] {
        assert_eq!(call(&pool).await.unwrap(), [count]);
    }
    pool.set_reuse(Some(3));
    assert_eq!((pool.live(), pool.idle()), (0, 0), "it was used as often as one may be");
    assert_eq!(call(&pool).await.unwrap(), [1]);
    pool.set_reuse(Some(1_000));
    assert_eq!(call(&pool).await.unwrap(), [2], "a higher bound ends no instance");
    // An instance that is leased meanwhile.
    let mut kept = HeldLease::default();
    assert_eq!(call_kept(&pool, &mut kept).await.unwrap(), [3]);
    pool.set_reuse(Some(2));
    assert_eq!(call_kept(&pool, &mut kept).await.unwrap(), [1]);
    // Without a setting, the component's own default holds: 1,000 for one that handles messages.
    pool.set_reuse(None);
    assert_eq!((pool.reuse(), call_kept(&pool, &mut kept).await.unwrap()), (Some(1_000), vec![2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_do_not_count_as_uses() {
    let bench = Bench::new();
    let health = r#"(func (export "caxton:agent/health@0.1.0#check") (result i32)
        (i32.store8 (i32.const 400) (i32.const 0)) (i32.const 400))"#;
    let guest = Guest { world: "healthy", more: health, handle: COUNT, ..Guest::default() }.build();
    let pool = bench.pool(&guest, |spec| spec.instances.reuse = Reuse::Own(1)).await;
    pool.warm(1).await.unwrap();
    for _ in 0..3 {
        assert_eq!(pool.probe(LONG).await, Some(Ok(())));
    }
    assert_eq!((pool.started(), pool.idle()), (1, 1), "the one that stands was asked");
    assert_eq!(call(&pool).await.unwrap(), [1]);
    assert_eq!(pool.started(), 1, "and handles the first message");
    assert_eq!(call(&pool).await.unwrap(), [1]);
    assert_eq!(pool.started(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_instances_are_replaced_as_they_end() {
    let bench = Bench::new();
    let pool = bench.pool(&counts(), |spec| spec.instances.reuse = Reuse::Own(1)).await;
    pool.keep_warm(2).await.unwrap();
    for round in 1..=5 {
        assert_eq!(call(&pool).await.unwrap(), [1]);
        let replaced = async {
            while pool.idle() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, replaced).await.expect("another stands in its place");
        assert_eq!(pool.started(), 2 + round);
    }
    pool.close();
    assert_eq!(pool.live(), 0, "none is started in place of those that are let go");
}

/// Keeps its count in a snapshot of one byte.
pub(super) const STATEFUL: &str = r#"
    (func (export "caxton:agent/snapshot@0.1.0#save") (result i32)
        (i32.store (i32.const 260) (i32.const 8)) (i32.store (i32.const 264) (i32.const 1)) (i32.const 256))
    (func (export "caxton:agent/snapshot@0.1.0#restore") (param i32 i32) (result i32)
        (i32.store8 (i32.const 8) (i32.load8_u (local.get 0)))
        (i32.store8 (i32.const 256) (i32.eq (local.get 1) (i32.const 0)))
        (i32.const 256))"#;

fn stateful() -> Vec<u8> {
    Guest { world: "stateful", more: STATEFUL, handle: COUNT, ..Guest::default() }.build()
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_instances_are_not_replaced_after_messages() {
    let bench = Bench::new();
    let pool = bench.pool(&stateful(), |spec| (spec.instances.reuse, spec.instances.max) = (Reuse::ForAll(2), 4)).await;
    assert_eq!(pool.max(), 1, "state in memory is in one instance");
    for count in 1..=7 {
        assert_eq!(call(&pool).await.unwrap(), [count]);
    }
    pool.trim(1, Duration::ZERO);
    assert_eq!(call(&pool).await.unwrap(), [8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_agents_start_with_their_snapshot() {
    let bench = Bench::new();
    let first = bench.pool(&stateful(), |_| {}).await;
    assert_eq!(call(&first).await.unwrap(), [1]);
    let mut lease = first.lease_at_rest().await.unwrap();
    let saved = lease.instance().save(1).await.unwrap().unwrap().unwrap();
    assert_eq!(*saved, [1]);
    *bench.world.saved.lock() = Some(saved);
    drop(lease);
    assert_eq!(first.live(), 0);
    let second = bench.pool(&stateful(), |_| {}).await;
    assert_eq!(call(&second).await.unwrap(), [2]);
    // This guest refuses to start without a snapshot.
    *bench.world.saved.lock() = Some(Bytes::new());
    let third = bench.pool(&stateful(), |_| {}).await;
    let fault = third.warm(1).await.unwrap_err();
    assert!(matches!(fault, Fault::Restore(_)), "{fault}");
    assert_eq!(third.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_above_max_fail_at_their_deadline() {
    let bench = Bench::new();
    let pool = bench.pool(&counts(), |spec| spec.instances.max = 2).await;
    let first = lease(&pool, LONG).await.unwrap();
    let second = lease(&pool, LONG).await.unwrap();
    assert!(matches!(lease(&pool, SHORT).await, Err(Fault::Overloaded)));
    first.finish(true);
    let third = lease(&pool, LONG).await.unwrap();
    assert_eq!((pool.live(), pool.started()), (2, 2), "the third has the instance of the first");
    // One more call is admitted while all are busy, then two fewer, which shows when calls end.
    pool.set_max(3);
    let fourth = lease(&pool, LONG).await.unwrap();
    assert_eq!(pool.started(), 3);
    for lease in [second, third, fourth] {
        lease.finish(true);
    }
}

/// Starts a call that waits for a permit or a slot.
async fn waiting(pool: &Arc<Pool>) -> tokio::task::JoinHandle<Result<Vec<u8>, Fault>> {
    let waits = tokio::spawn({
        let pool = Arc::clone(pool);
        async move { call(&pool).await }
    });
    while !pool.is_wanted() {
        tokio::task::yield_now().await;
    }
    waits
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_kept_until_others_wait_for_their_permit_or_slot() {
    let bench = Bench::with_instances(2);
    let [a, b] = [
        bench.pool(&counts(), |spec| (spec.instances.max, spec.instances.reuse) = (1, Reuse::Own(4))).await,
        bench.pool(&counts(), |_| {}).await,
    ];
    let mut kept = HeldLease::default();
    for count in [1, 2] {
        assert_eq!(call_kept(&a, &mut kept).await.unwrap(), [count]);
        assert_eq!((a.live(), a.idle()), (1, 0));
    }
    // It waits for the permit.
    let waits = waiting(&a).await;
    assert_eq!(call_kept(&a, &mut kept).await.unwrap(), [3]);
    assert_eq!(tokio::time::timeout(LONG / 2, waits).await.unwrap().unwrap().unwrap(), [4]);
    assert_eq!((a.live(), a.started()), (0, 1), "the fourth message was its last");
    // It waits for the slot.
    assert_eq!(call_kept(&a, &mut kept).await.unwrap(), [1]);
    let busy = lease(&b, LONG).await.unwrap();
    let waits = waiting(&b).await;
    assert_eq!(call_kept(&a, &mut kept).await.unwrap(), [2]);
    assert_eq!(tokio::time::timeout(LONG / 2, waits).await.unwrap().unwrap().unwrap(), [1]);
    busy.finish(true);
    assert_eq!(a.live(), 0);
    // A worker that goes on with another pool returns the kept instance, and none outlives a closed pool.
    assert_eq!(call_kept(&b, &mut kept).await.unwrap(), [1]);
    assert!(kept.take(&a).is_none());
    assert_eq!((b.live(), b.idle()), (2, 2));
    assert_eq!(call_kept(&b, &mut kept).await.unwrap(), [2]);
    b.close();
    drop(kept);
    assert_eq!(b.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_instances_are_evicted_when_all_slots_are_taken() {
    let bench = Bench::with_instances(2);
    let [a, b, c] =
        [bench.pool(&counts(), |_| {}).await, bench.pool(&counts(), |_| {}).await, bench.pool(&counts(), |_| {}).await];
    for pool in [&a, &b] {
        call(pool).await.unwrap();
    }
    assert_eq!((bench.runtime.live(), a.idle(), b.idle()), (2, 1, 1));
    assert_eq!(call(&c).await.unwrap(), [1]);
    assert_eq!((bench.runtime.live(), a.idle() + b.idle(), c.idle()), (2, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_wait_when_all_slots_are_busy() {
    let bench = Bench::with_instances(1);
    let (a, b) = (bench.pool(&counts(), |_| {}).await, bench.pool(&counts(), |_| {}).await);
    let busy = lease(&a, LONG).await.unwrap();
    assert!(matches!(lease(&b, SHORT).await, Err(Fault::Overloaded)));
    let waits = waiting(&b).await;
    // The instance could be reused, but another caller needs its slot more.
    busy.finish(true);
    assert_eq!(tokio::time::timeout(LONG / 2, waits).await.unwrap().unwrap().unwrap(), [1]);
    assert_eq!((a.live(), b.live()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_instances_do_not_evict_others() {
    let bench = Bench::with_instances(2);
    let [a, b, c] =
        [bench.pool(&counts(), |_| {}).await, bench.pool(&counts(), |_| {}).await, bench.pool(&counts(), |_| {}).await];
    for pool in [&a, &b] {
        pool.keep_warm(1).await.unwrap();
    }
    c.keep_warm(1).await.unwrap();
    assert_eq!((a.live(), b.live(), c.live()), (1, 1, 0));
    // A pool that is to take traffic may evict.
    c.warm(1).await.unwrap();
    assert_eq!((a.live() + b.live(), c.live()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_are_freed_after_their_instance_has_ended() {
    let bench = Bench::with_instances(1);
    let mut callers = Vec::new();
    for _ in 0..4 {
        let pool = bench.pool(&counts(), |spec| spec.instances.reuse = Reuse::Own(1)).await;
        callers.push(tokio::spawn(async move {
            for _ in 0..500 {
                assert_eq!(call(&pool).await.unwrap(), [1]);
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_bounded_by_the_machine() {
    let bench = Bench::with_instances(u32::MAX);
    assert!((64..=16_384).contains(&bench.runtime.instances()), "{}", bench.runtime.instances());
}

/// The runtime has one more thread: while that is busy, a woken waiter does not get to its slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_more_instances_are_evicted_than_needed() {
    let bench = Bench::with_instances(4);
    let pool = bench.pool(&counts(), |spec| spec.instances.max = 4).await;
    let busy = [lease(&pool, LONG).await, lease(&pool, LONG).await, lease(&pool, LONG).await, lease(&pool, LONG).await];
    let others = [bench.pool(&counts(), |_| {}).await, bench.pool(&counts(), |_| {}).await];
    let waits = others.each_ref().map(|other| {
        let other = Arc::clone(other);
        tokio::spawn(async move { call(&other).await })
    });
    while bench.runtime.awaited() < 2 {
        tokio::task::yield_now().await;
    }
    let (sender, kept) = std::sync::mpsc::channel::<()>();
    let keeps = tokio::spawn(async move { kept.recv().is_err() });
    for lease in busy {
        lease.unwrap().finish(true);
    }
    assert_eq!((pool.live(), pool.idle()), (4, 4), "they are there for those who are at work");
    drop(sender);
    assert!(keeps.await.unwrap(), "it was kept until now");
    for call in waits {
        assert_eq!(tokio::time::timeout(LONG, call).await.unwrap().unwrap().unwrap(), [1]);
    }
    assert_eq!((pool.live(), bench.runtime.live()), (2, 4), "two waited, so two made way");
}

/// Chains of messages among more agents than slots, from more threads than cores.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_more_agents_than_slots_make_progress() {
    let bench = Bench::with_instances(8);
    let mut pools = Vec::new();
    for _ in 0..64 {
        pools.push(bench.pool(&counts(), |_| {}).await);
    }
    let chains: Vec<_> = (0..32)
        .map(|chain| {
            let pair = [Arc::clone(&pools[2 * chain]), Arc::clone(&pools[2 * chain + 1])];
            tokio::spawn(async move {
                for hop in 0..500 {
                    call(&pair[hop % 2]).await.unwrap();
                    // Other tasks join in between.
                    tokio::task::consume_budget().await;
                }
            })
        })
        .collect();
    for chain in chains {
        tokio::time::timeout(LONG, chain).await.expect("each gets on").unwrap();
    }
    let started: u32 = pools.iter().map(|pool| pool.started()).sum();
    assert!(started < 32 * 500 / 2, "an instance that was started does more than one call: {started}");
    let idle: u32 = pools.iter().map(|pool| pool.idle()).sum();
    assert!(idle > 0 && bench.runtime.live() == idle && bench.runtime.awaited() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_instances_above_min_are_ended() {
    let bench = Bench::new();
    let pool = bench.pool(&counts(), |_| {}).await;
    pool.warm(3).await.unwrap();
    pool.trim(1, LONG);
    assert_eq!(pool.live(), 3, "none is idle for so long");
    pool.trim(1, Duration::ZERO);
    assert_eq!((pool.live(), bench.runtime.live()), (1, 1));
    pool.warm(9).await.unwrap();
    assert_eq!(pool.live(), 4, "never more than max");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_health_checks_fail_the_start() {
    let bench = Bench::new();
    // Returns Err("no") unless the test changes that.
    let more = r#"
        (data (i32.const 600) "no")
        (func (export "caxton:agent/health@0.1.0#check") (result i32)
            (i32.store8 (i32.const 256) (i32.const 1))
            (i32.store (i32.const 260) (i32.const 600))
            (i32.store (i32.const 264) (i32.const 2))
            (i32.const 256))"#;
    let guest = Guest { world: "healthy", more, ..Guest::default() }.build();
    let pool = bench.pool(&guest, |_| {}).await;
    assert!(pool.program.summary.health);
    for result in [pool.warm(1).await, pool.check_start().await] {
        assert_eq!(result.unwrap_err().to_string(), "no instance could be started: its health check says: no");
    }
    assert_eq!((pool.live(), bench.runtime.live()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_calls_release_everything() {
    let bench = Bench::new();
    let pool = bench.pool(&handles("(loop (br 0))"), |_| {}).await;
    let broken_off = tokio::time::timeout(SHORT, call(&pool)).await;
    assert!(broken_off.is_err());
    assert_eq!((pool.live(), pool.idle(), bench.runtime.live()), (0, 0, 0));
    assert!(lease(&pool, SHORT).await.is_ok(), "its turn is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_failures_to_start_make_others_wait() {
    let bench = Bench::new();
    let pool = bench.pool(&counts(), |_| {}).await;
    let fault = Fault::Host("a fault at a message".to_owned());
    for _ in 0..20 {
        lease(&pool, LONG).await.unwrap().fail(&fault, InstanceFailure::Message);
    }
    assert_eq!((pool.pausing(), pool.live()), (None, 0));
    lease(&pool, SHORT).await.unwrap().fail(&fault, InstanceFailure::Message);
    // The tenth in five minutes would be the last.
    (0..9).for_each(|_| pool.failed(InstanceFailure::Start, &fault));
    let until = pool.pausing().unwrap();
    match lease(&pool, SHORT).await {
        Err(Fault::Restarting { after }) => assert!(after.as_millis() <= u128::from(until), "{after:?}"),
        other => panic!("{:?}", other.err()),
    }
}
