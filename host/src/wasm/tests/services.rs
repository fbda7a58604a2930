//! Tests of components of WASI 0.3, made as text.

use super::Bench;
use crate::wasm::ProgramError;
use crate::wasm::compile::engine_kind::EngineKind;

/// Returns a component that exports the handler and imports an interface, both by the names of a version.
fn service(version: &str, import: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (import "wasi:random/random@{version}" (instance {import}))
            (instance $handler)
            (export "wasi:http/handler@{version}" (instance $handler)))"#
    );
    wat::parse_str(text).unwrap()
}

const CANDIDATE: &str = "0.3.0-rc-2026-03-15";
const EQUAL: &str = r#"(export "get-random-u64" (func (result u64)))"#;
const OTHER: &str = r#"(export "get-random-u64" (func (result u32)))"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_that_differs_in_a_candidate_is_named() {
    let bench = Bench::new();
    let Err(ProgramError::Findings(findings)) = bench.load(&service(CANDIDATE, OTHER), false).await else {
        panic!("its types are others");
    };
    let text = findings[0].to_string();
    assert_eq!(findings.len(), 1, "{text}");
    assert!(text.contains("(candidate-differs)") && text.contains("wasi:random/random"), "{text}");
    assert!(text.contains("get-random-u64") && text.contains("u64") && text.contains("u32"), "{text}");
    // Without the candidate's names the same is a component that does not fit.
    let fit = bench.load(&service("0.3.0", OTHER), false).await.err();
    assert!(matches!(fit, Some(ProgramError::Link(_))), "{fit:?}");
    // What is equal passes the comparison, and has no function to call.
    for version in [CANDIDATE, "0.3.0", "0.3.2"] {
        let error = bench.load(&service(version, EQUAL), false).await.err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("handle")), "{version}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_are_created_when_a_component_needs_them() {
    let bench = Bench::new();
    let engines = || bench.runtime.engines();
    bench.load(&super::guests::counts(), false).await.unwrap();
    assert_eq!(engines(), [EngineKind::Plain]);
    let _ = bench.load(&service("0.3.0", EQUAL), false).await;
    assert_eq!(engines(), [EngineKind::Plain, EngineKind::Async]);
    let _ = bench.load(&service("0.3.0", EQUAL), true).await;
    assert_eq!(engines(), [EngineKind::Plain, EngineKind::Async, EngineKind::AsyncFuel]);
}
