//! Migrations of an agent with its store: what they come to, and what is left of those that fail.

use std::collections::BTreeMap;

use bytes::Bytes;
use caxton_control::{AgentSpec, RevisionId};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::agent::tests::agent;
use crate::agent::{InitialMemory, RehearsalJob};
use crate::message::{GuestHost, Identity, Value};
use crate::store::StateChange;
use crate::store::tests::message;
use crate::wasm::tests::guests::Guest;
use crate::wasm::tests::this_program;
use crate::wasm::{Pool, Runtime, RuntimeOptions, digest};

/// A limit that nothing reaches which ends by itself.
const LONG: Duration = Duration::from_secs(60);

/// An agent whose revision migrates.
struct Bench {
    agent: Arc<Agent>,
    revision: Arc<Revision>,
    _folder: TempDir,
}

impl Bench {
    /// Creates an agent whose guest does this, with these limits.
    async fn new(migrate: &str, limit: impl FnOnce(&mut AgentSpec)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(&folder, "");
        let mut spec = (*agent.spec()).clone();
        limit(&mut spec);
        let spec = Arc::new(spec);
        let options = RuntimeOptions {
            cache: folder.path().join("cache"),
            shared_cache: false,
            compiler: this_program(),
            instances: Some(2),
            secrets: Arc::default(),
            memory: crate::memory_budget::MemoryBudget::new(u64::MAX),
        };
        let runtime = Runtime::new(options).unwrap();
        let (bytes, path) = (guest(migrate), folder.path().join("guest.wasm"));
        std::fs::write(&path, &bytes).unwrap();
        let program = runtime.program(&path, digest(&bytes), false, |_| ()).await.unwrap();
        let id = Arc::new(RevisionId { agent: agent.name().clone(), number: 2 });
        let who = Identity {
            revision: Arc::clone(&id),
            spec: Arc::clone(&spec),
            state_bytes: Arc::clone(agent.state_bytes()),
            peak_memory: Arc::default(),
        };
        let outside = Arc::clone(&agent.directory) as Arc<dyn GuestHost>;
        let pool = Pool::new(&runtime, program, Arc::new(who), outside, 1);
        let revision = Revision::new(id, spec, digest(&bytes), pool, Arc::clone(&agent.context));
        Self { agent, revision, _folder: folder }
    }

    async fn migrate(&self) -> Result<(u64, u32), String> {
        let migrated = self.agent.migrate(&self.revision, 7, LONG).await;
        migrated.map(|Migrated { keys, steps }| (keys, steps))
    }

    /// Writes a key as an operator does.
    async fn set(&self, key: &str, value: String) {
        let change = StateChange {
            reads: BTreeMap::new(),
            writes: BTreeMap::from([(key.to_owned(), Some(Value::lasting(Bytes::from(value))))]),
            expired: Vec::new(),
            adds: BTreeMap::new(),
            version: 0,
            quota: u64::MAX,
        };
        self.agent.commit(Some(change), Vec::new()).await.unwrap();
    }

    /// The number of keys that there are.
    fn keys(&self) -> usize {
        self.agent.directory.keys("triage", "k", None, 10_000).unwrap().value.len()
    }

    fn value(&self, key: &str) -> Option<String> {
        let read = self.agent.directory.read("triage", key).unwrap().value;
        read.map(|read| String::from_utf8(read.value).unwrap())
    }
}

/// A guest that migrates like this. The version is in `$from`, and `$i` a local of its own.
///
/// - `$put` writes the key `kNNNN` of a number, with the version as its value,
/// - `$commit` commits, and traps if it cannot,
/// - `$fail` ends it with a failure whose reason is the text at an address.
///
/// It fails at messages as long as there is no `k0000`.
fn guest(migrate: &str) -> Vec<u8> {
    let imports = r#"
        (import "caxton:agent/state@0.1.0" "get" (func $get (param i32 i32 i32)))
        (import "caxton:agent/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
        (import "caxton:agent/effects@0.1.0" "commit" (func $effects-commit (param i32)))
        (import "caxton:agent/effects@0.1.0" "discard" (func $effects-discard (param i32)))
        (import "caxton:agent/messaging@0.1.0" "send" (func $send (param i32 i32)))
        (import "caxton:agent/messaging@0.1.0" "broadcast" (func $broadcast (param i32 i32)))
        (import "caxton:agent/messaging@0.1.0" "cancel" (func $cancel (param i32 i32 i32)))
        (import "caxton:agent/messaging@0.1.0" "request" (func $request (param i32 i32)))"#;
    let more = format!(
        r#"(data (i32.const 512) "k0000") (data (i32.const 520) "v0") (data (i32.const 528) "no more of it")
        (func $digit (param $at i32) (param $number i32)
            (i32.store8 (local.get $at)
                (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10)))))
        (func $name (param $number i32)
            (call $digit (i32.const 516) (local.get $number))
            (call $digit (i32.const 515) (i32.div_u (local.get $number) (i32.const 10)))
            (call $digit (i32.const 514) (i32.div_u (local.get $number) (i32.const 100)))
            (call $digit (i32.const 513) (i32.div_u (local.get $number) (i32.const 1000))))
        (func $put (param $number i32)
            (call $name (local.get $number))
            (call $set (i32.const 512) (i32.const 5) (i32.const 520) (i32.const 2) (i32.const 600))
            (if (i32.load8_u (i32.const 600)) (then unreachable)))
        (func $commit
            (call $effects-commit (i32.const 600))
            (if (i32.load8_u (i32.const 600)) (then unreachable)))
        (func $fail (param $text i32) (param $length i32)
            (i32.store8 (i32.const 704) (i32.const 1))
            (i32.store8 (i32.const 712) (i32.const 2))
            (i32.store (i32.const 716) (local.get $text))
            (i32.store (i32.const 720) (local.get $length)))
        (func $run (param $from i32) (local $i i32) {migrate})
        (func (export "caxton:agent/migration@0.1.0#migrate") (param $from i32) (result i32)
            (call $digit (i32.const 521) (local.get $from))
            (call $run (local.get $from))
            (i32.const 704))"#
    );
    let handle = "
        (call $name (i32.const 0))
        (call $get (i32.const 512) (i32.const 5) (i32.const 600))
        (if (i32.eqz (i32.load8_u (i32.const 608))) (then unreachable))";
    Guest { world: "migrating", imports, more: &more, handle, ..Guest::default() }.build()
}

/// Writes so many keys, and does something after each, with the number of those written in `$i`.
fn put(keys: u32, then: &str) -> String {
    format!(
        "(loop $more
            (call $put (local.get $i))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            {then}
            (br_if $more (i32.lt_u (local.get $i) (i32.const {keys}))))"
    )
}

/// Commits after every so many keys.
fn each(keys: u32) -> String {
    format!("(if (i32.eqz (i32.rem_u (local.get $i) (i32.const {keys}))) (then (call $commit)))")
}

const FAIL: &str = "(call $fail (i32.const 528) (i32.const 13))";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_one_commit_or_as_many_as_it_makes() {
    let fail_after = |keys: u32| format!("(if (i32.eq (local.get $i) (i32.const {keys})) (then {FAIL} return))");
    let trap_after = |keys: u32| format!("(if (i32.eq (local.get $i) (i32.const {keys})) (then unreachable))");
    for (migrate, expected, keys) in [
        (String::new(), Ok((0, 0)), 0),
        (put(3, ""), Ok((3, 1)), 3),
        (put(1_000, ""), Ok((1_000, 1)), 1_000),
        (put(1_001, ""), Err("trapped: "), 0),
        (put(2_500, &each(900)), Ok((2_500, 3)), 2_500),
        (put(1_800, &each(900)), Ok((1_800, 2)), 1_800),
        (put(9, &fail_after(7)), Err("fault: no more of it"), 0),
        (put(9, &trap_after(7)), Err("trapped: "), 0),
        (
            put(9, &(each(5) + &fail_after(7))),
            Err("fault: no more of it (after 1 steps with 5 keys, which were committed)"),
            5,
        ),
        (put(9, &(each(2) + &trap_after(7))), Err("(after 3 steps with 6 keys, which were committed)"), 6),
        (put(5, &each(3)) + "(call $effects-discard (i32.const 600))", Ok((3, 1)), 3),
    ] {
        let bench = Bench::new(&migrate, |_| ()).await;
        let migrated = bench.migrate().await;
        match (&migrated, expected) {
            (Ok(done), Ok(expected)) => assert_eq!(*done, expected, "{migrate}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{why}: {migrate}"),
            _ => panic!("{migrated:?} is not {expected:?}: {migrate}"),
        }
        assert_eq!(bench.keys(), keys, "{migrate}");
        let first = bench.value("k0000");
        assert!(first.as_deref().is_none_or(|value| value == "v7"), "it is told the version: {first:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_called_again_and_finds_what_was_committed() {
    // Fails where a key is missing that the call before has committed.
    let migrate = format!(
        "(call $name (i32.const 0))
        (call $get (i32.const 512) (i32.const 5) (i32.const 600))
        (if (i32.load8_u (i32.const 608)) (then (call $put (i32.const 1)) return))
        (call $put (i32.const 0)) (call $commit) {FAIL}"
    );
    let bench = Bench::new(&migrate, |_| ()).await;
    assert!(bench.migrate().await.unwrap_err().contains("no more of it"));
    assert_eq!(bench.migrate().await, Ok((1, 1)));
    assert_eq!(bench.keys(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_nobody() {
    for (call, error, text) in [
        // The error of a send has its case at 8 and its text at 16, that of a request is one level deeper.
        ("(call $send (i32.const 800) (i32.const 600))", 608, 616),
        ("(call $broadcast (i32.const 800) (i32.const 600))", 608, 616),
        ("(call $cancel (i32.const 512) (i32.const 5) (i32.const 600))", 608, 616),
        ("(call $request (i32.const 800) (i32.const 600))", 616, 624),
    ] {
        const UNSUPPORTED: u32 = 7;
        let migrate = format!(
            "{call}
            (if (i32.ne (i32.load8_u (i32.const 600)) (i32.const 1)) (then unreachable))
            (if (i32.ne (i32.load8_u (i32.const {error})) (i32.const {UNSUPPORTED})) (then unreachable))
            (call $fail (i32.load (i32.const {text})) (i32.load (i32.const {})))",
            text + 4
        );
        let bench = Bench::new(&migrate, |_| ()).await;
        let why = bench.migrate().await.unwrap_err();
        assert!(why.starts_with("fault: a migration tells nobody"), "{call}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_ends_it_and_says_which() {
    let short = Duration::from_millis(50);
    let endless = format!("{} (loop (br 0))", put(1, &each(1)));
    let left = " (after 1 steps with 1 keys, which were committed)";
    let bench = Bench::new(&endless, |spec| spec.limits.cpu = short).await;
    let why = bench.migrate().await.unwrap_err();
    assert!(why.starts_with("cpu-exceeded: used more than 50 ms on a core") && why.ends_with(left), "{why}");
    let endless = |spec: &mut AgentSpec| (spec.limits.cpu, spec.limits.time) = (LONG, short);
    let bench = Bench::new("(loop (br 0))", endless).await;
    assert_eq!(bench.migrate().await.unwrap_err(), "deadline-exceeded: took longer than 50 ms");
    let bench = Bench::new("(loop (br 0))", |spec| (spec.limits.cpu, spec.limits.time) = (LONG, LONG)).await;
    let why = bench.agent.migrate(&bench.revision, 1, short).await.unwrap_err();
    assert_eq!(why, "it took longer than 50 ms in all");
    bench.revision.stop();
    assert_eq!(bench.migrate().await.unwrap_err(), "its revision stops");
}

/// Reads a key until it is another than at first, and then writes it.
const MEETS: &str = "
    (call $name (i32.const 0))
    (call $get (i32.const 512) (i32.const 5) (i32.const 600))
    (local.set $i (i32.load8_u (i32.load (i32.const 612))))
    (loop $same
        (global.set $top (i32.const 1024))
        (call $get (i32.const 512) (i32.const 5) (i32.const 600))
        (br_if $same (i32.eq (local.get $i) (i32.load8_u (i32.load (i32.const 612))))))
    (call $put (i32.const 0))
    (call $put (i32.const 1))";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_an_operator_writes_meanwhile_is_a_conflict() {
    for (then, expected) in [("", "the key `k0000` has changed meanwhile"), ("(call $commit)", "trapped: ")] {
        let bench = Bench::new(&format!("{MEETS} {then}"), |_| ()).await;
        bench.set("k0000", "0".to_owned()).await;
        let writes = async {
            for n in (0_u8..10).cycle() {
                bench.set("k0000", n.to_string()).await;
            }
        };
        let why = tokio::select! {
            migrated = bench.migrate() => migrated.unwrap_err(),
            () = writes => unreachable!("it never ends"),
        };
        assert!(why.contains(expected), "{why}");
        assert_eq!(bench.keys(), 1, "{then}: nothing of the step is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_half_committed_when_nobody_waits_for_it_any_more() {
    let endless = format!("{} (call $put (i32.const 8)) (loop (br 0))", put(3, &each(3)));
    let bench = Bench::new(&endless, |spec| spec.limits.cpu = LONG).await;
    let stepped = async {
        while bench.keys() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        migrated = bench.migrate() => panic!("{migrated:?}"),
        () = stepped => {}
    }
    bench.agent.context.store.flush().await.unwrap();
    assert_eq!((bench.keys(), bench.value("k0008")), (3, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_migrates_on_the_copy_first_and_leaves_the_state_alone() {
    let trap = put(9, "(if (i32.eq (local.get $i) (i32.const 7)) (then unreachable))");
    for (migrate, from, (passed, failed), unready) in [
        (put(1, ""), None, (0, 1), None),
        (put(1, ""), Some(1), (1, 0), None),
        (put(2_500, &each(900)), Some(1), (1, 0), None),
        (put(9, &(each(5) + FAIL)), Some(1), (0, 0), Some("its migration failed: fault: no more of it")),
        (trap, Some(1), (0, 0), Some("its migration failed: trapped: ")),
    ] {
        let bench = Bench::new(&migrate, |_| ()).await;
        let store = &bench.agent.context.store;
        store.recent().keep((1, 1), Box::new(message("m-1", "http:POST /", "triage")), None, None);
        let rehearsal = RehearsalJob {
            candidate: Arc::clone(&bench.revision.pool),
            stable: None,
            messages: 10,
            memory: InitialMemory::Empty,
            migrate_from: from,
            stops_at_first: true,
            stop: CancellationToken::new(),
        };
        let done = bench.agent.rehearse(rehearsal).await.unwrap();
        let why = done.start_error.clone().unwrap_or_default();
        assert!(
            done.start_error.is_some() == unready.is_some() && why.starts_with(unready.unwrap_or_default()),
            "{why}"
        );
        assert_eq!((done.passed, done.failed.len()), (passed, failed), "{migrate}");
        store.flush().await.unwrap();
        assert_eq!(bench.keys(), 0, "{migrate}");
    }
}
