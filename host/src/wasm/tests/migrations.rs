//! Tests of migrations: the call on an instance of its own, and its steps.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::guests::{COUNT, Guest};
use super::{Bench, call, work};
use crate::message::{CallContext, CommitMode, Effects, Fault};

/// Returns a call that records the number of writes of each step in `steps`.
fn in_steps(steps: &Arc<Mutex<Vec<usize>>>) -> CallContext {
    let steps = Arc::clone(steps);
    let committer = move |effects: Effects, _| {
        steps.lock().push(effects.writes.len());
        Box::pin(std::future::ready(Ok(()))) as _
    };
    CallContext { commit_mode: CommitMode::InSteps(Arc::new(committer)), ..work() }
}

/// Returns a guest that makes five writes `times` times, followed each time by the given loop and commit.
fn writes(world: &str, times: u32, then: &str) -> Vec<u8> {
    let more = format!(
        r#"(data (i32.const 512) "key")
        (func $burn (local $left i32)
            (local.set $left (i32.const 20000))
            (loop (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if 0 (local.get $left))))
        (func $commit
            (call $effects (i32.const 600))
            (if (i32.load8_u (i32.const 600)) (then unreachable)))
        (func (export "caxton:agent/migration@0.1.0#migrate") (param i32) (result i32)
            (local $left i32) (local $five i32)
            (local.set $left (i32.const {times}))
            (loop $more
                (local.set $five (i32.const 5))
                (loop $again
                    (call $set (i32.const 512) (i32.const 3) (i32.const 512) (i32.const 3) (i32.const 600))
                    (if (i32.load8_u (i32.const 600)) (then unreachable))
                    (local.set $five (i32.sub (local.get $five) (i32.const 1)))
                    (br_if $again (local.get $five)))
                {then}
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (br_if $more (local.get $left)))
            (i32.store8 (i32.const 704) (i32.const 0))
            (i32.const 704))
        {snapshot}"#,
        snapshot = if world == "remembering" { SNAPSHOT } else { "" },
    );
    let imports = r#"(import "caxton:agent/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
        (import "caxton:agent/effects@0.1.0" "commit" (func $effects (param i32)))"#;
    Guest { world, imports, more: &more, handle: COUNT, ..Guest::default() }.build()
}

/// A snapshot that must not be restored.
const SNAPSHOT: &str = r#"(func (export "caxton:agent/snapshot@0.1.0#save") (result i32) unreachable)
    (func (export "caxton:agent/snapshot@0.1.0#restore") (param i32 i32) (result i32) unreachable)"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_handling_count_anew_with_each_step() {
    let bench = Bench::new();
    // About 60,000 units of fuel each time.
    let each_step = "(call $burn) (call $commit)";
    let at_once = "(call $burn)";
    for (fuel, then, expected) in [
        (None, each_step, Ok(vec![1, 1, 1, 1])),
        (None, at_once, Err("trap")),
        (Some(150_000), each_step, Ok(vec![1, 1, 1, 1])),
        (Some(150_000), at_once, Err("fuel-exceeded")),
    ] {
        let pool = bench
            .pool(&writes("migrating", 4, then), |spec| {
                spec.limits.writes = if fuel.is_some() { 1_000 } else { 7 };
                spec.limits.fuel = fuel;
            })
            .await;
        let steps = Arc::default();
        let migrated = pool.migrate(1, in_steps(&steps)).await.map_err(|fault| fault.code());
        assert_eq!(migrated.map(|_| steps.lock().clone()), expected, "{fuel:?} {then}");
        assert_eq!((pool.live(), pool.started()), (0, 0), "its instance is none of the pool's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_stateful_agent_is_not_restored_for_it() {
    let bench = Bench::new();
    *bench.world.saved.lock() = Some(Bytes::from_static(b"saved"));
    let pool = bench.pool(&writes("remembering", 1, ""), |_| {}).await;
    let effects = pool.migrate(1, in_steps(&Arc::default())).await.unwrap().unwrap();
    assert_eq!(effects.writes.len(), 1);
    assert!(matches!(call(&pool).await, Err(Fault::Trap { .. })), "a message's instance takes it up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_does_not_migrate_is_told_from_one_that_does() {
    let bench = Bench::new();
    let pool = bench.pool(&writes("migrating", 1, ""), |_| {}).await;
    assert!(pool.program.summary.migrates);
    let pool = bench.pool(&super::guests::counts(), |_| {}).await;
    assert!(!pool.program.summary.migrates);
    let fault = pool.migrate(1, in_steps(&Arc::default())).await.err().unwrap();
    assert_eq!(fault.to_string(), "host error: the component exports no caxton:agent/migration");
    // By name, and by type.
    let exports = r#"(component
        (core module $m (func (export "f")))
        (core instance $c (instantiate $m))
        (func $f (canon lift (core func $c "f")))
        (instance $i (export "NAME" (func $f)))
        (instance $h (export "handle" (func $f)))
        (export "caxton:agent/handler@0.1.0" (instance $h))
        (export "caxton:agent/migration@0.1.0" (instance $i)))"#;
    let bytes = wat::parse_str(exports.replace("NAME", "migrat")).unwrap();
    assert_eq!(
        bench.load(&bytes, false).await.err().unwrap().to_string(),
        "the component does not fit this host: instance export `caxton:agent/migration@0.1.0` does not have export \
         `migrate`"
    );
}
