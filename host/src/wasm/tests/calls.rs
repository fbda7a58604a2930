//! Tests of calls that fail: traps and every limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::guests::{COUNT, Guest, handles, with_module};
use super::{Bench, call, message, work};
use crate::message::Fault;

/// A guest's `messaging.request` that is never answered.
const REQUEST: &str = r#"(import "caxton:agent/messaging@0.1.0" "request" (func $request (param i32 i32)))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_names_its_place_and_ends_the_instance() {
    let bench = Bench::new();
    let guest = Guest {
        more: "(func $inner unreachable) (func $outer (call $inner))",
        handle: "(call $outer)",
        ..Guest::default()
    };
    let pool = bench.pool(&guest.build(), |_| {}).await;
    let Err(Fault::Trap { message, diagnostics }) = call(&pool).await else { panic!("no trap") };
    assert_eq!(message, "wasm trap: wasm `unreachable` instruction executed");
    let places: Vec<&str> = diagnostics.backtrace().lines().collect();
    assert_eq!(places[..3], ["0: guest!inner", "1: guest!outer", "2: guest!handle"], "{diagnostics:?}");
    assert_eq!((pool.live(), pool.idle(), bench.runtime.live()), (0, 0, 0), "a store is dead after a trap");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_trap_the_next_message_gets_a_fresh_instance() {
    let bench = Bench::new();
    let trap_at_two = format!("{COUNT} (if (i32.eq (i32.load8_u (i32.const 8)) (i32.const 2)) (then unreachable))");
    let pool = bench.pool(&handles(&trap_at_two), |_| {}).await;
    assert_eq!(call(&pool).await.unwrap(), [1]);
    assert!(matches!(call(&pool).await, Err(Fault::Trap { .. })));
    assert_eq!(call(&pool).await.unwrap(), [1]);
    assert_eq!(pool.started(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn endless_loops_end_at_the_cpu_limit_and_yield() {
    let bench = Bench::new();
    let budget = Duration::from_millis(300);
    let pool = bench.pool(&handles("(loop (br 0))"), |spec| spec.limits.cpu = budget).await;
    let turns = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    // On the only worker thread, so that the other task runs only when this one yields.
    let (fault, cpu) = tokio::spawn(async move {
        let mut lease = pool.lease(Instant::now() + super::LONG).await.unwrap();
        let fault = lease.instance().handle(&message(b""), work(), super::LONG).await.unwrap_err();
        (fault, lease.instance().cpu())
    })
    .await
    .unwrap();
    other.abort();
    assert!(matches!(fault, Fault::Cpu { limit, .. } if limit == budget), "{fault}");
    assert_eq!(fault.to_string(), "cpu-exceeded: used more than 300 ms on a core");
    assert!(cpu >= budget && cpu < budget * 10, "{cpu:?}");
    assert!(turns.load(Ordering::Relaxed) >= 3, "{turns:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cpu_limit_is_per_message() {
    let bench = Bench::new();
    // About 2 ms each, and in total far above the budget.
    let spin = "(local $left i32) (local.set $left (i32.const 1000000))
        (loop (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))";
    let budget = Duration::from_millis(500);
    let pool = bench.pool(&handles(spin), |spec| spec.limits.cpu = budget).await;
    let mut used = Duration::ZERO;
    while used < budget * 3 / 2 {
        let mut lease = pool.lease(Instant::now() + super::LONG).await.unwrap();
        lease.instance().handle(&message(b""), work(), super::LONG).await.unwrap().unwrap();
        used += lease.instance().cpu();
        lease.finish(true);
    }
    assert_eq!(pool.started(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_loops_end_at_the_time_limit() {
    let bench = Bench::new();
    let limit = Duration::from_millis(50);
    let pool = bench.pool(&handles("(loop (br 0))"), |spec| spec.limits.time = limit).await;
    let fault = call(&pool).await.unwrap_err();
    assert_eq!(fault.to_string(), "deadline-exceeded: took longer than 50 ms");
    assert_eq!(pool.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_in_the_host_ends_at_the_time_limit_without_cpu_time() {
    let bench = Bench::new();
    let guest =
        Guest { imports: REQUEST, handle: "(call $request (i32.const 256) (i32.const 512))", ..Guest::default() };
    let set = |spec: &mut caxton_control::AgentSpec| {
        spec.limits.time = Duration::from_millis(60);
        spec.limits.cpu = Duration::from_millis(30);
    };
    let pool = bench.pool(&guest.build(), set).await;
    let fault = call(&pool).await.unwrap_err();
    assert!(matches!(fault, Fault::Time { limit, .. } if limit == Duration::from_millis(60)), "{fault}");
    assert_eq!((pool.live(), bench.runtime.live()), (0, 0), "a store is dead after a dropped call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_function_has_the_limits_of_a_message() {
    let bench = Bench::new();
    let start = |more| Guest { more, ..Guest::default() }.build();
    let (endless, traps) =
        (start("(func $start (loop (br 0))) (start $start)"), start("(start $start) (func $start unreachable)"));
    let short = Duration::from_millis(30);
    for (guest, cpu, time, says) in [
        (&endless, short, super::LONG, "no instance could be started: cpu-exceeded: used more than 30 ms on a core"),
        (&endless, super::LONG, short, "no instance could be started: deadline-exceeded: took longer than 30 ms"),
        (
            &traps,
            super::LONG,
            super::LONG,
            "no instance could be started: trapped: wasm trap: wasm `unreachable` instruction executed",
        ),
    ] {
        let set = |spec: &mut caxton_control::AgentSpec| (spec.limits.cpu, spec.limits.time) = (cpu, time);
        let pool = bench.pool(guest, set).await;
        let fault = pool.warm(1).await.unwrap_err();
        assert_eq!(fault.to_string(), says);
        assert!(matches!(fault, Fault::Start(_)), "{fault:?}");
        assert_eq!((pool.live(), bench.runtime.live()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fuel_is_exact_and_repeatable() {
    let bench = Bench::new();
    let spin = format!(
        "(local $left i32) (local.set $left (i32.const 1000))
         (loop (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) {COUNT}"
    );
    let guest = handles(&spin);
    let (mut too_little, mut enough) = (0, 1_000_000);
    while enough - too_little > 1 {
        let middle = u64::midpoint(too_little, enough);
        let pool = bench.pool(&guest, |spec| spec.limits.fuel = Some(middle)).await;
        match call(&pool).await {
            Ok(_) => enough = middle,
            Err(_) => too_little = middle,
        }
    }
    let pool = bench.pool(&guest, |spec| spec.limits.fuel = Some(enough)).await;
    for count in 1..=20 {
        assert_eq!(call(&pool).await.unwrap(), [count], "{enough} units are enough every time");
    }
    let pool = bench.pool(&guest, |spec| spec.limits.fuel = Some(too_little)).await;
    for _ in 0..20 {
        let fault = call(&pool).await.unwrap_err();
        assert_eq!(fault.to_string(), format!("fuel-exceeded: used more than {too_little} units of fuel"));
    }
    // As exact on an instance for each message, and after a restart of the host.
    let bench = bench.again();
    for (fuel, is_enough) in [(enough, true), (too_little, false)] {
        let once = |spec: &mut caxton_control::AgentSpec| {
            (spec.limits.fuel, spec.instances.reuse) = (Some(fuel), caxton_control::desired::Reuse::Own(1));
        };
        let pool = bench.pool(&guest, once).await;
        for _ in 0..5 {
            match call(&pool).await {
                Ok(count) => assert_eq!((count, is_enough), (vec![1], true), "{fuel}"),
                Err(fault) => assert_eq!((fault.code(), is_enough), ("fuel-exceeded", false), "{fuel}"),
            }
        }
    }
}

/// Returns code that traps unless growing by these numbers gives these results.
fn grows(steps: &[(&str, u32, i32)]) -> String {
    let step = |(what, by, result): &(&str, u32, i32)| {
        let grow = match *what {
            "memory" => format!("(memory.grow (i32.const {by}))"),
            table => format!("(table.grow {table} (ref.null func) (i32.const {by}))"),
        };
        format!("(if (i32.ne {grow} (i32.const {result})) (then unreachable))")
    };
    steps.iter().map(step).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_as_a_sum_over_memories_and_tables() {
    let bench = Bench::new();
    let set = |spec: &mut caxton_control::AgentSpec| spec.limits.memory_bytes = 2 << 20;
    // 2 MiB are 32 pages; a table entry takes 8 bytes.
    for (name, second, more, handle) in [
        ("one memory", "", "", grows(&[("memory", 32, -1), ("memory", 31, 1), ("memory", 1, -1)])),
        (
            "with another module's memory",
            "(module (memory 20))",
            "",
            grows(&[("memory", 12, -1), ("memory", 11, 1), ("memory", 1, -1)]),
        ),
        (
            "with tables",
            "",
            "(table $a 0 funcref) (table $b 0 funcref)",
            grows(&[
                ("memory", 23, 1),
                ("$a", 40_000, 0),
                ("$b", 40_000, -1),
                ("$b", 25_536, 0),
                ("memory", 1, -1),
                ("$a", 1, -1),
            ]),
        ),
    ] {
        let mut guest = Guest { more, handle: &handle, ..Guest::default() }.build();
        if !second.is_empty() {
            guest = with_module(guest, second);
        }
        let pool = bench.pool(&guest, set).await;
        let result = call(&pool).await;
        assert!(result.is_ok(), "{name}: {}", result.unwrap_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_after_refused_memory_says_so() {
    let bench = Bench::new();
    let guest = handles("(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))");
    let pool = bench.pool(&guest, |_| {}).await;
    assert_eq!(
        call(&pool).await.unwrap_err().to_string(),
        "trapped: wasm trap: wasm `unreachable` instruction executed \
         (memory above limits.memory, 16777216 bytes, was refused before)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_above_the_memory_limit_are_refused() {
    let bench = Bench::new();
    let set = |spec: &mut caxton_control::AgentSpec| spec.limits.memory_bytes = 1 << 20;
    let small = Guest { pages: 10, ..Guest::default() }.build();
    for (guest, bytes) in [
        (Guest { pages: 17, ..Guest::default() }.build(), 17 << 16),
        (with_module(small, "(module (memory 7))"), 17 << 16),
    ] {
        let pool = bench.pool(&guest, set).await;
        assert_eq!(pool.program.summary.memory_bytes, bytes, "known before it starts");
        let fault = pool.warm(1).await.unwrap_err();
        assert_eq!(
            fault.to_string(),
            "no instance could be started: limits.memory (1048576 bytes) is too small for its start"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_and_writes_are_counted_and_refused_above_their_limits() {
    let bench = Bench::new();
    // `set` writes its result at 512: 0 for ok, 1 for an error, whose kind is at 520.
    let guest = Guest {
        imports: r#"(import "caxton:agent/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))"#,
        handle: r#"
            (local $left i32) (local.set $left (i32.const 5))
            (loop
                (call $set (i32.const 600) (i32.const 1) (i32.const 0) (i32.const 4) (i32.const 512))
                (i32.store8 (i32.const 8) (i32.add (i32.load8_u (i32.const 8)) (i32.load8_u (i32.const 512))))
                (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (call $reply (i32.const 8) (i32.const 1))"#,
        more: r#"(data (i32.const 600) "k")"#,
        ..Guest::default()
    };
    let guest = guest.build();
    for (writes, refused) in [(5, 0), (2, 3), (0, 5)] {
        let pool = bench.pool(&guest, |spec| spec.limits.writes = writes).await;
        assert_eq!(call(&pool).await.unwrap(), [refused], "{writes} writes allowed");
    }
    let pool = bench.pool(&guest, |spec| spec.limits.state_bytes = 4).await;
    assert_eq!(call(&pool).await.unwrap(), [5], "one key and its value have 5 bytes");
    // Each write counts, also those of the same key.
    for (bytes, refused) in [(20, 0), (19, 1), (10, 3), (3, 5)] {
        let pool = bench.pool(&guest, |spec| spec.limits.effects_bytes = bytes).await;
        assert_eq!(call(&pool).await.unwrap(), [refused], "values of 4 bytes, {bytes} bytes allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_outside_the_guests_memory_is_a_trap() {
    let bench = Bench::new();
    // A reply whose content lies far outside of the memory.
    let pool = bench.pool(&handles("(call $reply (i32.const 0x7fffffff) (i32.const 16))"), |_| {}).await;
    let fault = call(&pool).await.unwrap_err();
    assert!(matches!(fault, Fault::Trap { .. }), "{fault}");
    assert_eq!(pool.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_the_host_have_their_own_codes() {
    let bench = Bench::new();
    // 1,472 headers whose names and values are the same 28 kB.
    let copies = "(local $at i32) (local.set $at (i32.const 0x8000))
        (loop
            (i32.store offset=0 (local.get $at) (i32.const 0x1000)) (i32.store offset=4 (local.get $at) (i32.const 0x7070))
            (i32.store offset=8 (local.get $at) (i32.const 0x1000)) (i32.store offset=12 (local.get $at) (i32.const 0x7070))
            (local.set $at (i32.add (local.get $at) (i32.const 16)))
            (br_if 0 (i32.lt_u (local.get $at) (i32.const 0xdc00))))
        (call $reply (i32.const 8) (i32.const 1))
        (i32.store (i32.const 96) (i32.const 0x8000)) (i32.store (i32.const 100) (i32.const 1472))";
    let pool = bench.pool(&handles(copies), |spec| spec.limits.memory_bytes = 1 << 20).await;
    let fault = call(&pool).await.unwrap_err();
    assert_eq!(fault.code(), "copies-exceeded", "{fault}");
    assert!(fault.is_guests());
}
