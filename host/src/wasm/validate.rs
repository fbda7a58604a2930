//! The validation of a component by the rules of WebAssembly, with the proposals that it may use.
//!
//! Its time depends on the component, and a second validation is made only to name what is wrong: a host leaves this to a
//! process with bounds.

use std::collections::BTreeSet;

use caxton_control::inspection::{self, Finding, in_order};
use wasmparser::{Validator, WasmFeatures};

use crate::wasm::inspect::{ASYNC, Summary, features, needs_async, read};

/// The proposals that a policy can leave out, by the names of `policy.features`.
const NAMED: &[(&str, WasmFeatures)] = &[
    ("bulk-memory", WasmFeatures::BULK_MEMORY),
    ("component-model-async", WasmFeatures::CM_ASYNC),
    ("extended-const", WasmFeatures::EXTENDED_CONST),
    ("multi-value", WasmFeatures::MULTI_VALUE),
    ("mutable-global", WasmFeatures::MUTABLE_GLOBAL),
    ("reference-types", WasmFeatures::REFERENCE_TYPES),
    ("saturating-float-to-int", WasmFeatures::SATURATING_FLOAT_TO_INT),
    ("sign-extension", WasmFeatures::SIGN_EXTENSION),
    ("simd", WasmFeatures::SIMD),
    ("tail-call", WasmFeatures::TAIL_CALL),
];

/// The proposals that are off for all components, by name.
const OFF: &[(&str, WasmFeatures)] = &[
    ("threads", WasmFeatures::THREADS),
    ("gc", WasmFeatures::GC),
    ("function-references", WasmFeatures::FUNCTION_REFERENCES),
    ("exceptions", WasmFeatures::EXCEPTIONS),
    ("memory64", WasmFeatures::MEMORY64),
    ("multi-memory", WasmFeatures::MULTI_MEMORY),
    ("relaxed-simd", WasmFeatures::RELAXED_SIMD),
    ("wide-arithmetic", WasmFeatures::WIDE_ARITHMETIC),
];

/// Validates a component that was [outlined](crate::wasm::inspect::outline). `allowed` are the proposals that the policy
/// lists; with `None` it may use all that the host takes. Returns all findings.
pub(super) fn validate(bytes: &[u8], allowed: Option<&BTreeSet<&str>>) -> Vec<Finding> {
    let service = read(bytes).is_ok_and(|scan| scan.is_service());
    let base = features(service);
    let Err(error) = Validator::new_with_features(base).validate_all(bytes) else {
        return allowed.map_or_else(Vec::new, |allowed| not_allowed(bytes, base, allowed));
    };
    // Validated again with the asynchronous features on, for an error that names the actual cause.
    if is_valid(bytes, base.union(ASYNC)) {
        return vec![needs_async(service)];
    }
    let off = OFF.iter().fold(WasmFeatures::empty(), |all, (_, feature)| all.union(*feature));
    let needed = needed(bytes, base.union(off).union(ASYNC), OFF);
    if !needed.is_empty() {
        return needed.into_iter().map(feature_off).collect();
    }
    let message = format!("the component is invalid: {} (at byte {:#x})", error.message(), error.offset());
    let at = format!("byte {:#x}", error.offset());
    vec![Finding::new(
        &inspection::INVALID,
        at,
        message,
        "build it again, with a toolchain that validates what it makes",
    )]
}

/// Inspects and validates a component. `features` are the proposals that the policy lists, if it does. The time depends on the component: a host leaves this to a
/// process with bounds.
///
/// # Errors
/// All findings at once; never empty.
pub(crate) fn summarise(bytes: &[u8], features: Option<&BTreeSet<&str>>) -> Result<Summary, Vec<Finding>> {
    let scan = read(bytes)?;
    let mut findings = validate(bytes, features);
    match scan.judge(bytes.len() as u64) {
        Ok(summary) if findings.is_empty() => Ok(summary),
        Ok(_) => Err(findings),
        Err(others) => {
            findings.extend(others);
            Err(in_order(findings))
        }
    }
}

fn is_valid(bytes: &[u8], features: WasmFeatures) -> bool {
    Validator::new_with_features(features).validate_all(bytes).is_ok()
}

/// Returns those of the proposals without which a component is not valid; none if it is not valid with all of them.
fn needed(bytes: &[u8], all: WasmFeatures, of: &[(&'static str, WasmFeatures)]) -> Vec<&'static str> {
    if !is_valid(bytes, all) {
        return Vec::new();
    }
    let is_needed = |(_, feature): &&(&str, WasmFeatures)| !is_valid(bytes, all.difference(*feature));
    let needed: Vec<&str> = of.iter().filter(is_needed).map(|(name, _)| *name).collect();
    // What several proposals bring needs none of them alone.
    if needed.is_empty() { of.iter().map(|(name, _)| *name).collect() } else { needed }
}

fn feature_off(name: &str) -> Finding {
    Finding::new(
        &inspection::FEATURE_OFF,
        name,
        format!("it uses the proposal {name} of WebAssembly, which no component may use here"),
        "build it for the target wasm32-wasip2 without that feature (`-C target-feature=-…` in Rust)",
    )
}

/// Returns findings for the proposals that a component uses and the policy does not list.
fn not_allowed(bytes: &[u8], base: WasmFeatures, allowed: &BTreeSet<&str>) -> Vec<Finding> {
    let left_out: Vec<(&str, WasmFeatures)> =
        NAMED.iter().filter(|(name, _)| !allowed.contains(name)).copied().collect();
    let restricted = left_out.iter().fold(base, |rest, (_, feature)| rest.difference(*feature));
    // The usual case: one validation more.
    if is_valid(bytes, restricted) {
        return Vec::new();
    }
    let finding = |name: &str| {
        Finding::new(
            &inspection::FEATURE_NOT_ALLOWED,
            name,
            format!("it uses the proposal {name} of WebAssembly, which `policy.features` does not list"),
            "build it without that feature, or have the operator list it",
        )
    };
    needed(bytes, base, &left_out).into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use caxton_control::policy::FEATURES;

    use super::*;

    #[test]
    fn the_names_of_proposals_are_those_of_the_policy() {
        assert_eq!(NAMED.iter().map(|(name, _)| *name).collect::<Vec<_>>(), FEATURES);
    }

    #[test]
    fn every_proposal_that_is_not_listed_is_found() {
        // A module for each proposal, and one that needs none.
        for (needs, module) in [
            (None, "(module (func (param i32) (result i32) local.get 0))"),
            (Some("simd"), "(module (func (result v128) v128.const i32x4 0 0 0 0))"),
            (Some("bulk-memory"), "(module (memory 1) (func i32.const 0 i32.const 0 i32.const 0 memory.copy))"),
            (Some("sign-extension"), "(module (func (result i32) i32.const 0 i32.extend8_s))"),
            (Some("saturating-float-to-int"), "(module (func (result i32) f32.const 0 i32.trunc_sat_f32_s))"),
            (Some("multi-value"), "(module (func (result i32 i32) i32.const 0 i32.const 0))"),
            (Some("tail-call"), "(module (func $f return_call $f))"),
            (Some("mutable-global"), r#"(module (global (export "g") (mut i32) (i32.const 0)))"#),
            (Some("extended-const"), "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))"),
            (Some("reference-types"), "(module (table 1 externref))"),
        ] {
            let bytes = wat::parse_str(format!("(component (core {}", &module[1..]) + ")").unwrap();
            let codes = |allowed: Option<&BTreeSet<&str>>| -> Vec<(&str, String)> {
                validate(&bytes, allowed).into_iter().map(|finding| (finding.code, finding.at)).collect()
            };
            assert_eq!(codes(None), []);
            let expected: Vec<_> = needs.iter().map(|name| ("feature-not-allowed", (*name).to_owned())).collect();
            assert_eq!(codes(Some(&BTreeSet::new())), expected, "{module}");
            assert_eq!(codes(Some(&needs.into_iter().collect())), [], "{module}");
        }
    }

    #[test]
    fn asynchronous_functions_are_for_services_that_the_policy_allows() {
        let component = |export: &str| {
            let text = format!(
                r#"(component
                    (core module $m
                        (func (export "f") (result i32) i32.const 0)
                        (func (export "cb") (param i32 i32 i32) (result i32) i32.const 0))
                    (core instance $c (instantiate $m))
                    (func $f async (canon lift (core func $c "f") async (callback (core func $c "cb"))))
                    (instance $i (export "handle" (func $f)))
                    (export "{export}" (instance $i)))"#
            );
            wat::parse_str(text).unwrap()
        };
        let codes = |bytes: &[u8], allowed: Option<&[&str]>| -> Vec<&str> {
            let allowed: Option<BTreeSet<&str>> = allowed.map(|allowed| allowed.iter().copied().collect());
            validate(bytes, allowed.as_ref()).into_iter().map(|finding| finding.code).collect()
        };
        assert_eq!(codes(&component("caxton:agent/handler@0.1.0"), None), ["needs-async"]);
        for version in ["0.3.0", "0.3.0-rc-2026-03-15"] {
            let service = component(&format!("wasi:http/handler@{version}"));
            assert_eq!(codes(&service, None), [""; 0]);
            assert_eq!(codes(&service, Some(&["component-model-async"])), [""; 0]);
            assert_eq!(codes(&service, Some(&["simd"])), ["feature-not-allowed"]);
        }
    }

    #[test]
    fn every_proposal_that_is_off_is_named() {
        for (expected, module) in [
            (&["memory64"][..], "(module (memory i64 1))"),
            (&["multi-memory"], "(module (memory 1) (memory 1))"),
            (&["threads"], "(module (memory 1 2 shared))"),
            (&["exceptions"], "(module (tag))"),
            (&["memory64", "exceptions"], "(module (memory i64 1) (tag))"),
        ] {
            let bytes = wat::parse_str(format!("(component (core {}", &module[1..]) + ")").unwrap();
            let mut found: Vec<_> = validate(&bytes, None).into_iter().map(|finding| finding.at).collect();
            let mut expected: Vec<_> = expected.iter().map(|name| (*name).to_owned()).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{module}");
        }
    }
}
