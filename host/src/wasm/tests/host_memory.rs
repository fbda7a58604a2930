//! Tests of the host's budget of memory: who gives way, who waits, and that nobody is blamed.

use caxton_control::memory::MemoryPriority;

use super::guests::{COUNT, Guest, handles};
use super::pool::STATEFUL;
use super::*;
use crate::memory_budget::MemoryKind;
use crate::wasm::limits::INSTANCE_BYTES;

/// An engine whose host has so much memory, after the memory of compilers was given back.
fn bench(mib: u64) -> (Bench, MemoryBudget) {
    let bench = Bench::with_memory(tempfile::tempdir().unwrap(), 16, this_program(), mib << 20);
    let budget = bench.runtime.memory.clone();
    (bench, budget)
}

const PAGE: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn idle_instances_end_for_the_start_and_growth_of_others() {
    let (bench, budget) = bench(64);
    // 20 MiB each: three fit, and a fourth does not.
    let large = Guest { pages: 320, handle: COUNT, ..Guest::default() }.build();
    let set = |spec: &mut AgentSpec| spec.limits.memory_bytes = 64 << 20;
    let mut pools = Vec::new();
    for _ in 0..4 {
        let pool = bench.pool(&large, set).await;
        assert_eq!(call(&pool).await.unwrap(), [1]);
        pools.push(pool);
    }
    let idle: u32 = pools.iter().map(|pool| pool.idle()).sum();
    let used = budget.used() - budget.used_by(MemoryKind::Stacks);
    assert_eq!((idle, used), (3, 3 * (320 * PAGE + INSTANCE_BYTES)), "one gave way");
    let grows = handles("(drop (memory.grow (i32.const 480))) (call $reply (i32.const 8) (i32.const 1))");
    let growing = bench.pool(&grows, set).await;
    assert_eq!(call(&growing).await.unwrap(), [0]);
    let idle: u32 = pools.iter().map(|pool| pool.idle()).sum();
    assert_eq!(idle, 1, "30 MiB are more than one of them had");
    pools.iter().chain([&growing]).for_each(|pool| pool.close());
    assert_eq!((budget.used() - budget.used_by(MemoryKind::Stacks), budget.used_by(MemoryKind::Compilation)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_without_memory_of_the_host_is_not_at_fault() {
    let (bench, budget) = bench(64);
    let grows = handles("(drop (memory.grow (i32.const 480))) (call $reply (i32.const 8) (i32.const 1))");
    let set = |spec: &mut AgentSpec| {
        spec.limits.memory_bytes = 64 << 20;
        // Half of it is the wait for memory.
        spec.limits.time = Duration::from_secs(1);
    };
    let pool = bench.pool(&grows, set).await;
    let held = budget.hold(MemoryKind::Bodies, 40 << 20);
    let fault = call(&pool).await.unwrap_err();
    assert_eq!((fault.code(), fault.is_guests()), ("host-memory", false), "{fault}");
    assert_eq!((pool.failures(), pool.live(), pool.pausing()), (0, 0, None));
    assert_eq!(budget.refused(MemoryPriority::Work), 1);
    // With all of it held, not even a start has room.
    let all = budget.hold(MemoryKind::Bodies, 24 << 20);
    let fault = pool.lease(Instant::now() + Duration::from_millis(200)).await.err().unwrap();
    assert_eq!((fault.code(), pool.failures(), pool.given_up()), ("host-memory", 0, None));
    assert_eq!(pool.probe(Duration::from_millis(200)).await, None, "which says nothing of its health");
    drop((held, all));
    assert_eq!(call(&pool).await.unwrap(), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_memory_goes_on_when_others_end() {
    let (bench, budget) = bench(64);
    let grows = handles("(drop (memory.grow (i32.const 480))) (call $reply (i32.const 8) (i32.const 1))");
    let pool = bench.pool(&grows, |spec| spec.limits.memory_bytes = 64 << 20).await;
    let held = budget.hold(MemoryKind::Bodies, 60 << 20);
    let (of_call, waits) = (Arc::clone(&pool), budget.clone());
    let called = tokio::spawn(async move { call(&of_call).await });
    let until = async {
        while waits.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, until).await.expect("it waits");
    drop(held);
    assert_eq!(called.await.unwrap().unwrap(), [0]);
    assert_eq!(pool.failures(), 0);
    // A revision waits as well, and does not fail for it.
    let held = budget.hold(MemoryKind::Bodies, 64 << 20);
    let of_warm = bench.pool(&grows, |_| {}).await;
    let warm = Arc::clone(&of_warm);
    let warmed = tokio::spawn(async move { warm.warm(1).await });
    let until = async {
        while budget.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, until).await.expect("it waits");
    drop(held);
    warmed.await.unwrap().unwrap();
    assert_eq!((of_warm.idle(), of_warm.failures()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_what_guests_of_its_revision_take() {
    let (bench, budget) = bench(64);
    let grows = handles("(drop (memory.grow (i32.const 480))) (call $reply (i32.const 8) (i32.const 1))");
    let set = |spec: &mut AgentSpec| {
        spec.limits.memory_bytes = 64 << 20;
        spec.instances.reuse = Reuse::ForAll(1);
    };
    let pool = bench.pool(&grows, set).await;
    // The first shows what they take, and gives back what was kept for it.
    assert_eq!(call(&pool).await.unwrap(), [0]);
    assert_eq!(budget.used_by(MemoryKind::Instances) + budget.used_by(MemoryKind::Expected), 0);
    let lease = pool.lease(Instant::now() + LONG).await.unwrap();
    assert_eq!(budget.used_by(MemoryKind::Expected), 480 * PAGE, "beside the page with which it starts");
    let waits = budget.clone();
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { call(&pool).await })
        })
        .collect();
    let until = async {
        while waits.waiting() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, until).await.expect("there is no room for two");
    assert_eq!(pool.live(), 1, "those that wait hold nothing");
    lease.finish(false);
    for called in calls {
        assert_eq!(called.await.unwrap().unwrap(), [0]);
    }
    assert_eq!(
        (budget.refused(MemoryPriority::Work), budget.refused(MemoryPriority::Instances), pool.failures()),
        (0, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_instance_with_a_committed_memory_makes_room() {
    let (bench, budget) = bench(64);
    // 20 MiB each: three fit.
    let large = Guest { world: "stateful", pages: 320, more: STATEFUL, handle: COUNT, ..Guest::default() }.build();
    let mut pools = Vec::new();
    for _ in 0..5 {
        let pool = bench.pool(&large, |spec| spec.limits.memory_bytes = 64 << 20).await;
        assert_eq!(call(&pool).await.unwrap(), [1]);
        pools.push(pool);
    }
    assert_eq!(pools.iter().map(|pool| pool.idle()).sum::<u32>(), 3, "two made room");
    // One whose memory is not committed stays.
    for pool in &pools {
        if let Some(mut lease) = pool.lease_idle(Duration::ZERO) {
            lease.instance().memory().in_step = false;
            lease.finish(true);
        }
    }
    let fault =
        pools.iter().find(|pool| pool.idle() == 0).unwrap().lease(Instant::now() + Duration::from_secs(1)).await;
    assert_eq!(fault.err().unwrap().code(), "host-memory");
    assert_eq!(pools.iter().map(|pool| pool.idle()).sum::<u32>(), 3);
    assert!(budget.refused(MemoryPriority::Work) + budget.refused(MemoryPriority::Instances) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stacks_that_stay_are_counted() {
    let (bench, budget) = bench(64);
    let deep = "(func $deep (call $deep) (i32.store (i32.const 512) (i32.const 1)))";
    let deep = Guest { more: deep, handle: "(call $deep)", ..Guest::default() }.build();
    let pool = bench.pool(&deep, |_| {}).await;
    assert_eq!(budget.used_by(MemoryKind::Stacks), 0);
    let fault = call(&pool).await.unwrap_err();
    assert_eq!(fault.code(), "trap", "{fault}");
    assert!(budget.used_by(MemoryKind::Stacks) > 512 << 10, "{}", budget.used_by(MemoryKind::Stacks));
}
