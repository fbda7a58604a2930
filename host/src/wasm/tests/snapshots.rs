//! Tests of snapshots of stateful agents: saving, restoring, and their limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guests::{COUNT, Guest};
use super::{Bench, HeldLease, LONG, call, call_kept};
use crate::message::Fault;
use crate::wasm::NotSaved;

const MIB: u64 = 1 << 20;

/// Returns a guest with 8 MiB that counts, and saves this many bytes of its memory after it has run `worked`.
fn saves(bytes: u64, worked: &str) -> Vec<u8> {
    let more = format!(
        r#"(func $work (local $left i64) {worked})
        (func (export "caxton:agent/snapshot@0.1.0#save") (result i32)
            (call $work)
            (i32.store (i32.const 260) (i32.const 0)) (i32.store (i32.const 264) (i32.const {bytes})) (i32.const 256))
        (func (export "caxton:agent/snapshot@0.1.0#restore") (param i32 i32) (result i32)
            (call $work)
            (i32.store8 (i32.const 8) (i32.load8_u offset=8 (local.get 0)))
            (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256))"#
    );
    Guest { world: "stateful", pages: 128, more: &more, handle: COUNT, ..Guest::default() }.build()
}

/// Returns a loop of this many turns.
fn turns(count: u64) -> String {
    format!(
        "(local.set $left (i64.const {count}))
         (loop (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if 0 (i64.ne (local.get $left) (i64.const 0))))"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_have_their_own_bound() {
    let bench = Bench::new();
    // Far above the limits of a message.
    let pool = bench.pool(&saves(6 * MIB, ""), |spec| spec.limits.message_bytes = 1).await;
    assert_eq!(call(&pool).await.unwrap(), [1]);
    for (max, expected) in [
        (6 * MIB, Ok(6 * MIB)),
        (6 * MIB - 1, Err(NotSaved::TooLarge { bytes: 6 * MIB, max: 6 * MIB - 1 })),
        (0, Err(NotSaved::TooLarge { bytes: 6 * MIB, max: 0 })),
    ] {
        let mut lease = pool.lease_at_rest().await.unwrap();
        let saved = lease.instance().save(max).await.unwrap().unwrap();
        assert_eq!(saved.map(|saved| saved.len() as u64), expected, "at most {max}");
        lease.finish(true);
    }
    assert_eq!((call(&pool).await.unwrap(), pool.started()), (vec![2], 1), "it is the same instance");
    let mut lease = pool.lease_at_rest().await.unwrap();
    let saved = lease.instance().save(8 * MIB).await.unwrap().unwrap().unwrap();
    drop(lease);
    *bench.world.saved.lock() = Some(saved);
    assert_eq!((call(&pool).await.unwrap(), pool.started()), (vec![3], 2), "another took up all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn message_limits_do_not_apply_to_snapshots() {
    let bench = Bench::new();
    let cpu = Duration::from_millis(40);
    let pool = bench.pool(&saves(9, &turns(400_000_000)), |spec| spec.limits.cpu = cpu).await;
    assert_eq!(call(&pool).await.unwrap(), [1]);
    let mut lease = pool.lease(Instant::now() + LONG).await.unwrap();
    let saved = lease.instance().save(MIB).await.unwrap().unwrap().unwrap();
    assert!(lease.instance().cpu() > cpu, "it took no longer than a message may");
    drop(lease);
    *bench.world.saved.lock() = Some(saved.clone());
    assert_eq!(call(&pool).await.unwrap(), [2]);
    // The fuel of a message does not bound it either.
    let pool = bench.pool(&saves(9, &turns(1_000_000)), |spec| spec.limits.fuel = Some(10_000)).await;
    assert_eq!(call(&pool).await.unwrap(), [2]);
    let mut lease = pool.lease(Instant::now() + LONG).await.unwrap();
    assert_eq!(lease.instance().save(MIB).await.unwrap().unwrap().unwrap()[8], 2);
    lease.finish(true);
    let pool = bench.pool(&saves(9, "unreachable"), |_| {}).await;
    assert!(matches!(call(&pool).await, Err(Fault::Trap { .. })), "what was saved is not taken up");
    *bench.world.saved.lock() = None;
    assert_eq!(call(&pool).await.unwrap(), [1]);
}

/// Runs saves in a commit, which may use what a message may, but not less than by default.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_in_a_commit_has_bounds_of_its_own() {
    let bench = Bench::new();
    let (short, cpu) = (Duration::from_millis(40), Duration::from_secs(1));
    for (turns_of_save, cpu_limit, fuel, expected) in [
        // Longer than the limits of the message.
        (100_000_000, short, None, None),
        (1_000_000, cpu, Some(10_000), None),
        (u64::MAX, short, None, Some("cpu-exceeded")),
        (u64::MAX, Duration::from_secs(60), Some(10_000), Some("fuel-exceeded")),
    ] {
        let pool = bench
            .pool(&saves(9, &turns(turns_of_save)), |spec| {
                (spec.limits.cpu, spec.limits.fuel) = (cpu_limit, fuel);
            })
            .await;
        assert_eq!(call(&pool).await.unwrap(), [1]);
        let mut lease = pool.lease(Instant::now() + LONG).await.unwrap();
        let code = lease.instance().save_for_commit(MIB).await.err().map(|fault| fault.code());
        assert_eq!(code, expected, "{turns_of_save} turns, {cpu_limit:?}, {fuel:?}");
    }
}

/// Ends an instance whose memory builds on a commit that was refused, wherever it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_of_a_broken_line_is_not_used_again() {
    let bench = Bench::new();
    let pool = bench.pool(&saves(9, ""), |_| {}).await;
    let line = |lease: &mut crate::wasm::Lease| Arc::clone(&lease.instance().memory().line);
    // Idle.
    assert_eq!((call(&pool).await.unwrap(), call(&pool).await.unwrap()), (vec![1], vec![2]));
    let mut lease = pool.lease_at_rest().await.unwrap();
    let broken = line(&mut lease);
    lease.finish(true);
    broken.break_off();
    assert_eq!((call(&pool).await.unwrap(), pool.started(), pool.live()), (vec![1], 2, 1));
    // In use.
    let mut lease = pool.lease_at_rest().await.unwrap();
    line(&mut lease).break_off();
    lease.finish(true);
    assert_eq!((pool.live(), pool.idle()), (0, 0));
    // Kept by a worker.
    let mut kept = HeldLease::default();
    assert_eq!(call_kept(&pool, &mut kept).await.unwrap(), [1]);
    let mut lease = kept.take(&pool).unwrap();
    let broken = line(&mut lease);
    lease.keep(&mut kept);
    broken.break_off();
    assert_eq!(call_kept(&pool, &mut kept).await.unwrap(), [1]);
    drop(kept);
    // Asked for its memory.
    let mut lease = pool.lease_at_rest().await.unwrap();
    let broken = line(&mut lease);
    lease.finish(true);
    broken.break_off();
    assert!(pool.lease_at_rest().await.is_none());
    assert_eq!(pool.live(), 0);
}
