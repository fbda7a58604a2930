//! The inspection of what a component imports: what the host offers, in a version that it has.

use caxton_control::inspection::{self, Finding};

use crate::wasm::call::denials::WASI;
use crate::wasm::call::linker::OFFERED;
use crate::wasm::compat::offer;
use crate::wasm::service::offered;

/// Splits the name of an interface and its version: `wasi:io/poll@0.2.6` is `wasi:io/poll` and `0.2.6`.
pub(super) fn interface(name: &str) -> Option<(&str, &str)> {
    name.split_once('@').or(Some((name, ""))).filter(|(name, _)| name.contains('/'))
}

/// Returns the finding for an import that the host does not have; `service` is set for components of WASI 0.3.
pub(super) fn judge_import(import: &str, service: bool) -> Option<Finding> {
    let Some((name, version)) = interface(import) else {
        return Some(Finding::new(
            &inspection::IMPORT_UNKNOWN,
            format!("import {import}"),
            format!("it imports `{import}`, which is no interface of a package"),
            "import only what `caxton wit` prints and WASI 0.2",
        ));
    };
    if service && let Some(judged) = offered::judge_import(import, name, version) {
        return judged;
    }
    // Some interfaces are offered alone, and of other packages all.
    let package = name.split('/').next().unwrap_or(name);
    if offer::OFFERED.contains(&import) {
        return None;
    }
    let offered = OFFERED.iter().any(|offer| *offer == name || *offer == package);
    let message = format!("it imports {import}, which this host does not have");
    if let Some(help) = offer::nearest(import) {
        let is_known = offer::OFFERED.iter().any(|offer| interface(offer).is_some_and(|(offer, _)| offer == name));
        let code = if is_known { &inspection::IMPORT_VERSION } else { &inspection::IMPORT_UNKNOWN };
        return Some(Finding::new(code, format!("import {import}"), message, help));
    }
    if !offered {
        return Some(Finding::new(
            &inspection::IMPORT_UNKNOWN,
            format!("import {import}"),
            message,
            "leave that import out, or satisfy it with another component (`wac plug`) before it comes here",
        ));
    }
    let (fits, has) = match package {
        "caxton:agent" => (is_patch_of("0.1", version), "0.1.0"),
        "wasi:config" => (version == CONFIG, CONFIG),
        "wasi:logging" => (version == LOGGING, LOGGING),
        _ => (is_patch_of("0.2", version), WASI),
    };
    if fits {
        return None;
    }
    let help = match package {
        "caxton:agent" => {
            format!("this host has {package}@{has}; build it against the contract that `caxton wit` prints")
        }
        "wasi:config" | "wasi:logging" => {
            format!("this host has {package}@{has}; build it against that (`caxton wit`)")
        }
        _ => format!(
            "this host has {package}@0.2.0 to {package}@{has}; build it for WASI 0.2, in Rust for the target \
             wasm32-wasip2"
        ),
    };
    Some(Finding::new(&inspection::IMPORT_VERSION, format!("import {import}"), message, help))
}

/// The versions of WASI proposals in the contract.
const CONFIG: &str = "0.2.0-rc.1";
const LOGGING: &str = "0.1.0-draft";

/// Returns `true` if the version is a patch of `track`. A draft version is compatible with itself only.
pub(super) fn is_patch_of(track: &str, version: &str) -> bool {
    let patch = version.strip_prefix(track).and_then(|rest| rest.strip_prefix('.'));
    patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}
