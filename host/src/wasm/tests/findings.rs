//! Tests of the findings about components that cannot be used.

use super::guests::{counts, handles, with_module, with_section};
use super::{Bench, call};
use crate::wasm::{Kind, summarise};
use caxton_control::inspection::Finding;

/// Returns a component that exports and imports empty instances of these names.
fn shell(imports: &[&str], exports: &[&str]) -> Vec<u8> {
    let imports = imports.iter().map(|name| format!(r#"(import "{name}" (instance))"#));
    let exports =
        exports.iter().enumerate().map(|(i, name)| format!(r#"(instance $i{i}) (export "{name}" (instance $i{i}))"#));
    wat::parse_str(format!("(component {})", imports.chain(exports).collect::<String>())).unwrap()
}

/// The finding about a component with asynchronous functions that is no service of WASI 0.3.
const NEEDS_ASYNC: &str = "it is built with asynchronous functions of the component model (WASI 0.3), which this host runs only in components that export wasi:http/handler@0.3.0 (needs-async); export that handler, or build it for WASI 0.2, where functions wait: in Rust for the target wasm32-wasip2, in JavaScript and Python with handlers that are not async; it has to export caxton:agent/handler@0.1.0 (the contract: `caxton wit`) or wasi:http/incoming-handler@0.2.x";

const HANDLER: &str = "caxton:agent/handler@0.1.0";
const SNAPSHOT: &str = "caxton:agent/snapshot@0.1.0";
const MIGRATION: &str = "caxton:agent/migration@0.1.0";
const SERVICE: &str = "wasi:http/handler@0.3.0";
const HTTP: &str = "wasi:http/incoming-handler@0.2.6";

#[test]
fn findings_are_reported() {
    let cut = counts()[..counts().len() / 2].to_vec();
    let table: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", Vec::new(), &["the file is empty (empty); build it again, for the target wasm32-wasip2"]),
        (
            "garbage",
            b"#!/bin/sh".to_vec(),
            &["the file is not WebAssembly (not-wasm); build it again, for the target wasm32-wasip2"],
        ),
        (
            "a core module",
            wat::parse_str("(module)").unwrap(),
            &[
                "the file is a core module, not a component (core-module); build for wasm32-wasip2, or wrap it with `wasm-tools component new`",
            ],
        ),
        ("cut in the middle", cut, &["the component is truncated: @ (truncated); build or copy it again"]),
        (
            "cut in its head",
            b"\0asm\x0d\0".to_vec(),
            &["the component is truncated: @ (truncated); build or copy it again"],
        ),
        (
            "with rubbish in it",
            [counts(), vec![0x55, 1, 0]].concat(),
            &["the component is invalid: @ (invalid); build it again, with a toolchain that validates what it makes"],
        ),
        (
            "nothing exported",
            shell(&[], &[]),
            &[
                "it exports nothing, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`), wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.0",
            ],
        ),
        (
            "another world",
            shell(&[], &["wasi:cli/run@0.2.6"]),
            &[
                "it exports wasi:cli/run@0.2.6, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`), wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.0",
            ],
        ),
        (
            "another version",
            shell(&[], &["caxton:agent/handler@0.2.0"]),
            &[
                "it exports caxton:agent/handler@0.2.0, another version than this host's caxton:agent/handler@0.1.0 (other-version); build it against the contract that `caxton wit` prints",
            ],
        ),
        (
            "another version of what it may export",
            shell(&[], &[HANDLER, "caxton:agent/migration@0.2.0"]),
            &[
                "it exports caxton:agent/migration@0.2.0, another version than this host's caxton:agent/migration@0.1.0 (other-version); build it against the contract that `caxton wit` prints",
            ],
        ),
        (
            "a migration of nothing",
            shell(&[], &[MIGRATION]),
            &[
                "it exports caxton:agent/migration@0.1.0, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`), wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.0",
            ],
        ),
        (
            "another version of HTTP",
            shell(&[], &["wasi:http/incoming-handler@0.3.0"]),
            &[
                "it exports wasi:http/incoming-handler@0.3.0, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`), wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.0",
            ],
        ),
        (
            "HTTP beside a memory that is saved with each message",
            shell(&[], &[HANDLER, SNAPSHOT, HTTP]),
            &[
                "it exports both caxton:agent/snapshot and wasi:http/incoming-handler: a memory that is saved with each message, and calls that save none (two-worlds); leave the snapshot out and keep its data with caxton:agent/state, or make two components of it: one takes messages, one answers HTTP and sends messages to the first",
            ],
        ),
        (
            "interfaces of other hosts",
            shell(
                &["wasi:blobstore/blobstore@0.2.0-draft", "wasi:keyvalue/store@0.1.0", "fermyon:spin/mqtt@2.0.0"],
                &["wasmcloud:messaging/handler@0.3.0"],
            ),
            &[
                "it imports wasi:blobstore/blobstore@0.2.0-draft, which this host does not have (import-unknown); the nearest is wasi:keyvalue/store@0.2.0-draft2, with values of up to 256 MiB (limits.state)",
                "it imports wasi:keyvalue/store@0.1.0, which this host does not have (import-version); this host has store, atomics and batch of wasi:keyvalue@0.2.0-draft and @0.2.0-draft2",
                "it imports fermyon:spin/mqtt@2.0.0, which this host does not have (import-unknown); the nearest is caxton:agent/messaging@0.1.0, whose messages go to agents",
                "it exports wasmcloud:messaging/handler@0.3.0, another version than this host's wasmcloud:messaging/handler@0.2.0 (other-version); build it against wasmcloud:messaging@0.2.0",
            ],
        ),
        (
            "a snapshot of nothing",
            shell(&[], &[SNAPSHOT]),
            &[
                "it exports caxton:agent/snapshot@0.1.0, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`), wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.0",
            ],
        ),
        (
            "everything that is wrong at once",
            shell(
                &["wasi:nn/graph@0.2.0", "wasi:clocks/monotonic-clock@0.3.0", "caxton:agent/messaging@0.2.0", "spirit"],
                &["wasi:cli/run@0.2.6"],
            ),
            &[
                "it imports wasi:nn/graph@0.2.0, which this host does not have (import-unknown); leave that import out, or satisfy it with another component (`wac plug`) before it comes here",
                "it imports wasi:clocks/monotonic-clock@0.3.0, which this host does not have (import-version); this host has wasi:clocks@0.2.0 to wasi:clocks@0.2.12; build it for WASI 0.2, in Rust for the target wasm32-wasip2",
                "it imports caxton:agent/messaging@0.2.0, which this host does not have (import-version); this host has caxton:agent@0.1.0; build it against the contract that `caxton wit` prints",
                "it imports `spirit`, which is no interface of a package (import-unknown); import only what `caxton wit` prints and WASI 0.2",
                "it exports wasi:cli/run@0.2.6, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`), wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.0",
            ],
        ),
        (
            "versions of proposals, and a draft of WASI 0.2",
            shell(
                &["wasi:config/store@0.2.0-rc.0", "wasi:logging/logging@0.2.0", "wasi:io/poll@0.2.0-rc-2023-11-10"],
                &[HANDLER],
            ),
            &[
                "it imports wasi:config/store@0.2.0-rc.0, which this host does not have (import-version); this host has wasi:config@0.2.0-rc.1; build it against that (`caxton wit`)",
                "it imports wasi:logging/logging@0.2.0, which this host does not have (import-version); this host has wasi:logging@0.1.0-draft; build it against that (`caxton wit`)",
                "it imports wasi:io/poll@0.2.0-rc-2023-11-10, which this host does not have (import-version); this host has wasi:io@0.2.0 to wasi:io@0.2.12; build it for WASI 0.2, in Rust for the target wasm32-wasip2",
            ],
        ),
        (
            "another candidate of WASI 0.3",
            shell(&[], &["wasi:http/handler@0.3.0-rc-2026-01-06"]),
            &[
                "it exports wasi:http/handler@0.3.0-rc-2026-01-06, another version than this host's wasi:http/handler@0.3.0 (other-version); build it for WASI 0.3.0, or for its candidate 0.3.0-rc-2026-03-15",
            ],
        ),
        (
            "interfaces of WASI 0.3 that are not offered",
            shell(
                &[
                    "wasi:http/handler@0.3.0",
                    "wasi:clocks/timezone@0.3.0",
                    "wasi:clocks/system-clock@0.3.0-rc-2026-01-06",
                    "wasi:clocks/monotonic-clock@0.3.0-rc-2026-03-15",
                    "wasi:cli/stdout@0.3.2",
                ],
                &[SERVICE],
            ),
            &[
                "it imports wasi:http/handler@0.3.0, which this host does not have (import-unknown); leave that import out, or satisfy it with another component (`wac plug`) before it comes here; `caxton doctor` lists the interfaces of WASI 0.3 that are offered",
                "it imports wasi:clocks/timezone@0.3.0, which this host does not have (import-unknown); leave that import out, or satisfy it with another component (`wac plug`) before it comes here; `caxton doctor` lists the interfaces of WASI 0.3 that are offered",
                "it imports wasi:clocks/system-clock@0.3.0-rc-2026-01-06, which this host does not have (import-version); this host has wasi:clocks/system-clock@0.3.0, also by its name in 0.3.0-rc-2026-03-15; build it for one of these",
            ],
        ),
        (
            "WASI 0.3 beside a memory that is saved with each message",
            shell(&[], &[HANDLER, SNAPSHOT, SERVICE]),
            &[
                "it exports both caxton:agent/snapshot and wasi:http/handler: a memory that is saved with each message, and calls that save none (two-worlds); leave the snapshot out and keep its data with caxton:agent/state, or make two components of it: one takes messages, one answers HTTP and sends messages to the first",
            ],
        ),
        (
            "asynchronous functions of the component model",
            wat::parse_str(
                r#"(component
                    (core module $m
                        (func (export "f") (result i32) i32.const 0)
                        (func (export "cb") (param i32 i32 i32) (result i32) i32.const 0))
                    (core instance $c (instantiate $m))
                    (func $f async (canon lift (core func $c "f") async (callback (core func $c "cb"))))
                    (instance $i (export "handle" (func $f)))
                    (export "caxton:agent/handler@0.1.0" (instance $i)))"#,
            )
            .unwrap(),
            &[NEEDS_ASYNC],
        ),
        (
            "a section that says nothing of use",
            with_section(shell(&[], &[HANDLER]), "caxton:reuse", b"often\n"),
            &[
                "its custom section `caxton:reuse` says \"often\" (bad-section); it has to be a whole number from 1 on a line: how often an instance may be used",
            ],
        ),
        (
            "a proposal that is off",
            wat::parse_str(format!(
                r#"(component (core module (memory i64 1)) (instance $i) (export "{HANDLER}" (instance $i)))"#
            ))
            .unwrap(),
            &[
                "it uses the proposal memory64 of WebAssembly, which no component may use here (feature-off); build it for the target wasm32-wasip2 without that feature (`-C target-feature=-…` in Rust)",
            ],
        ),
    ];
    for (name, bytes, expected) in table {
        let findings = summarise(&bytes, None).expect_err(name);
        let said: Vec<String> = findings.iter().map(|finding| without_detail(&finding.to_string())).collect();
        assert_eq!(said, expected, "{name}");
    }
}

/// Removes the parser's own text, which may change with its version.
fn without_detail(text: &str) -> String {
    match (text.find(": "), text.find(" (at byte 0x")) {
        (Some(from), Some(at)) if at > from + 2 => {
            let rest = text[at + 1..].find(')').map_or("", |end| &text[at + 2 + end..]);
            format!("{}: @{rest}", &text[..from])
        }
        _ => text.to_owned(),
    }
}

#[test]
fn kinds_are_determined_by_exports() {
    for (exports, kind, health, migrates) in [
        (&[HANDLER][..], Kind::Message, false, false),
        (&[HANDLER, "caxton:agent/health@0.1.0"], Kind::Message, true, false),
        (&[HANDLER, MIGRATION], Kind::Message, false, true),
        (&[HANDLER, SNAPSHOT], Kind::Stateful, false, false),
        (&[HANDLER, MIGRATION, SNAPSHOT], Kind::Stateful, false, true),
        (&["caxton:agent/handler@0.1.3"], Kind::Message, false, false),
        (&[HTTP], Kind::Http, false, false),
        (&["wasi:http/incoming-handler@0.2.0", "caxton:agent/health@0.1.0"], Kind::Http, true, false),
        (&[MIGRATION, HTTP], Kind::Http, false, true),
        (&[HANDLER, HTTP], Kind::Both, false, false),
        (&["wasmcloud:messaging/handler@0.2.0"], Kind::Message, false, false),
        (&["wasmcloud:messaging/handler@0.2.0", HTTP], Kind::Both, false, false),
    ] {
        let summary =
            summarise(&shell(&["wasi:io/poll@0.2.0", "wasi:logging/logging@0.1.0-draft"], exports), None).unwrap();
        let found = (summary.kind, summary.health, summary.migrates);
        assert_eq!(found, (kind, health, migrates), "{exports:?}");
        assert_eq!(summary.exports, exports);
    }
}

#[test]
fn reuse_is_set_by_declaration_component_or_kind() {
    let section = |bytes: Vec<u8>, text: &str| with_section(bytes, "caxton:reuse", text.as_bytes());
    let stateful = || shell(&[], &[HANDLER, SNAPSHOT]);
    for (name, bytes, unset, said) in [
        ("messages", shell(&[], &[HANDLER]), 1_000, 7),
        ("HTTP", shell(&[], &[HTTP]), 1, 7),
        ("memory", stateful(), u32::MAX, u32::MAX),
        ("HTTP that may be used again", section(shell(&[], &[HTTP]), "1_000\n"), 1_000, 7),
        ("messages, once each", section(shell(&[], &[HANDLER]), "1\n"), 1, 7),
        ("memory, which is not replaced", section(stateful(), "5\n"), u32::MAX, u32::MAX),
        ("two that were joined", section(shell(&[], &[HTTP]), "50\n20\n"), 20, 7),
        ("in a core module", with_module(shell(&[], &[HTTP]), r#"(module (@custom "caxton:reuse" "9\n"))"#), 9, 7),
        (
            "of a component inside",
            wat::parse_str(format!(
                r#"(component
                    (component (core module (@custom "caxton:reuse" "9\n")))
                    (instance $i) (export "{HTTP}" (instance $i)))"#
            ))
            .unwrap(),
            1,
            7,
        ),
    ] {
        let summary = summarise(&bytes, None).expect(name);
        assert_eq!((summary.reuse(None), summary.reuse(Some(7))), (unset, said), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn named_versions_are_defined() {
    let bench = Bench::new();
    for patch in [0, 6, 12] {
        let import = format!("wasi:clocks/monotonic-clock@0.2.{patch}");
        let now = format!(
            r#"(component (import "{import}" (instance (export "now" (func (result u64)))))
                (instance $i) (export "{HANDLER}" (instance $i)))"#
        );
        let error = bench.load(&wat::parse_str(now).unwrap(), false).await.err().expect("it exports no function");
        assert!(error.to_string().contains("does not have export `handle`"), "{import}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_are_refused_before_the_first_message() {
    let bench = Bench::new();
    let exports = r#"(component
        (core module $m (func (export "f")))
        (core instance $c (instantiate $m))
        (func $f (canon lift (core func $c "f")))
        (instance $i (export "NAME" (func $f)))
        (export "caxton:agent/handler@0.1.0" (instance $i)))"#;
    let bytes = wat::parse_str(exports.replace("NAME", "hande")).unwrap();
    let error = bench.load(&bytes, false).await.err().expect("a function is missing");
    assert_eq!(
        error.to_string(),
        "the component does not fit this host: instance export `caxton:agent/handler@0.1.0` does not have export `handle`"
    );
    let pool = bench.pool(&wat::parse_str(exports.replace("NAME", "handle")).unwrap(), |_| {}).await;
    let fault = pool.check_start().await.unwrap_err();
    assert_eq!(
        fault.to_string(),
        "no instance could be started: its exports have other types than the contract: failed to convert function to \
         given type: type mismatch with parameters: expected 1-tuple, found 0-tuple"
    );
    let import = r#"(component
        (import "caxton:agent/messaging@0.1.0" (instance (export "find" (func (param "x" u32)))))
        (instance $i) (export "caxton:agent/handler@0.1.0" (instance $i)))"#;
    let error = bench.load(&wat::parse_str(import).unwrap(), false).await.err().expect("an import of another type");
    assert_eq!(
        error.to_string(),
        "the component does not fit this host: component imports instance `caxton:agent/messaging@0.1.0`, but a matching \
         implementation was not found in the linker: instance export `find` has the wrong type: type mismatch with \
         parameters: expected `string` found `u32`"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_guest_works() {
    let bench = Bench::new();
    let pool = bench.pool(&handles(""), |_| {}).await;
    assert_eq!(call(&pool).await.unwrap(), b"");
}

/// Returns a component that has a component in itself, and so on.
fn nested(depth: usize) -> Vec<u8> {
    let header = b"\0asm\x0d\0\x01\0";
    let mut bytes = header.to_vec();
    for _ in 0..depth {
        let mut outer = header.to_vec();
        outer.push(4);
        let mut length = bytes.len();
        while length >= 0x80 {
            outer.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap());
        outer.extend_from_slice(&bytes);
        bytes = outer;
    }
    bytes
}

#[test]
fn the_structure_of_a_component_is_bounded() {
    let many = |count: usize, one: &[u8]| {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        (0..count).for_each(|_| bytes.extend_from_slice(one));
        bytes
    };
    // A section with an empty component or module, and sections that say that they have 2^28 of a part.
    let component = [&[4, 8][..], b"\0asm\x0d\0\x01\0"].concat();
    let module = [&[1, 8][..], b"\0asm\x01\0\0\0"].concat();
    let says = |section: u8| [section, 5, 0xff, 0xff, 0xff, 0x7f, 0];
    let functions = [&[1, 15][..], b"\0asm\x01\0\0\0", &says(3)].concat();
    let mut long_name = b"\0asm\x0d\0\x01\0".to_vec();
    long_name.extend_from_slice(&[11, 0xd8, 0x04, 1, 0, 0xd0, 0x04]);
    long_name.extend_from_slice(&[b'a'; 592]);
    long_name.extend_from_slice(&[1, 0, 0, 0]);
    for (name, bytes, part) in [
        ("nesting", nested(100), "levels of components in components"),
        ("components", many(2_000, &component), "components in it"),
        ("modules", many(2_000, &module), "core modules"),
        ("functions", many(1, &functions), "functions"),
        ("core instances", many(1, &says(2)), "instances"),
        ("core types", many(1, &says(3)), "types"),
        ("instances", many(1, &says(5)), "instances"),
        ("aliases", many(1, &says(6)), "aliases"),
        ("types", many(1, &says(7)), "types"),
        ("functions of the host", many(1, &says(8)), "functions"),
        ("imports", many(1, &says(10)), "imports"),
        ("exports", many(1, &says(11)), "exports"),
        ("a name", long_name, "bytes in the name of an import or export"),
    ] {
        let findings = summarise(&bytes, None).expect_err(name);
        assert_eq!(findings[0].code, "too-complex", "{name}: {}", findings[0]);
        assert!(findings[0].message.contains(part), "{name}: {}", findings[0]);
    }
    assert_eq!(summarise(&nested(20), None).expect_err("it makes no agent")[0].code, "no-world");
}

#[test]
fn a_finding_of_the_compiler_reads_as_one_of_the_host() {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // A section of types with one of no kind.
    bytes.extend_from_slice(&[7, 2, 1, 0x3e]);
    let findings = summarise(&bytes, None).expect_err("it is invalid");
    let [finding, ..] = &findings[..] else { panic!("no finding") };
    assert_eq!(Finding::of_line(&finding.to_line()).as_ref(), Some(finding));
    assert_eq!(Finding::of_line("thread 'main' panicked"), None);
}

#[test]
fn a_component_that_is_too_large_is_not_read() {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.resize(usize::try_from(crate::wasm::MAX_COMPONENT).unwrap() + 1, 0);
    let findings = summarise(&bytes, None).expect_err("it is too large");
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["too-large"]);
}

#[test]
fn findings_of_all_stages_are_told_at_once_in_their_order() {
    let text = format!(
        r#"(component
            (import "wasi:nn/graph@0.2.0" (instance))
            (core module (memory i64 1))
            (instance $i) (export "{HTTP}" (instance $i)) (export "{SNAPSHOT}" (instance $i)))"#
    );
    let bytes = with_section(wat::parse_str(text).unwrap(), "caxton:reuse", b"often\n");
    let findings = summarise(&bytes, None).expect_err("much is wrong");
    let found: Vec<_> =
        findings.iter().map(|finding| (finding.stage.number(), finding.code, &finding.at[..])).collect();
    let expected = [
        (1, "bad-section", "section caxton:reuse"),
        (2, "feature-off", "memory64"),
        (3, "import-unknown", "import wasi:nn/graph@0.2.0"),
        (4, "two-worlds", "its exports"),
    ];
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_its_own_looks_at_proposals() {
    let bench = Bench::new();
    let path = bench.folder.path().join("guest.wasm");
    let module =
        r#"(module (memory 1) (func i32.const 0 i32.const 0 i32.const 0 memory.copy i32.const 0 i32.extend8_s drop))"#;
    let bytes = with_module(handles(""), module);
    std::fs::write(&path, &bytes).unwrap();
    let of = crate::wasm::digest(&bytes);
    for (allowed, expected) in [
        (&["bulk-memory", "sign-extension"][..], &[][..]),
        (&["bulk-memory"], &["sign-extension"]),
        (&[], &["bulk-memory", "sign-extension"]),
    ] {
        let allowed = allowed.iter().copied().collect();
        // Twice: the second answer is the one that is kept.
        for _ in 0..2 {
            let findings = bench.runtime.features(&path, of, &allowed).await.unwrap();
            let found: Vec<&str> = findings.iter().map(|finding| finding.at.as_str()).collect();
            assert_eq!(found, expected, "{allowed:?}");
        }
    }
    let policy = caxton_control::policy::Policy {
        imports: vec![vec!["wasi:*".parse().unwrap()]],
        features: Some(["bulk-memory"].into()),
        ..Default::default()
    };
    let codes: Vec<&str> = bench.runtime.inspect(&path, &policy).await.0.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"feature-not-allowed"), "{codes:?}");
}
