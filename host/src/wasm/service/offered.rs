//! The interfaces of WASI 0.3 that the host has, by name and version.

use caxton_control::inspection::{self, Finding};

/// The version of WASI 0.3 that the host defines. A guest may use any 0.3 whose types are equal.
pub(in crate::wasm) const VERSION: &str = "0.3.0";
/// The release candidate that Spin 4 builds for. Its types are those of 0.3.0.
pub(in crate::wasm) const CANDIDATE: &str = "0.3.0-rc-2026-03-15";
/// The interface that makes a component an agent of WASI 0.3.
pub(in crate::wasm) const HANDLER: &str = "wasi:http/handler";

/// An interface of WASI 0.3.
pub(crate) struct OfferedInterface {
    /// The name without a version.
    pub(crate) name: &'static str,
    /// Set if it has asynchronous functions, streams or futures.
    pub(crate) is_asynchronous: bool,
    /// Set if it is there for programs that import it and never call it: each use is denied.
    pub(crate) is_denied: bool,
}

const fn offered(name: &'static str) -> OfferedInterface {
    OfferedInterface { name, is_asynchronous: false, is_denied: false }
}

const fn asynchronous(name: &'static str) -> OfferedInterface {
    OfferedInterface { name, is_asynchronous: true, is_denied: false }
}

const fn denied(name: &'static str) -> OfferedInterface {
    OfferedInterface { name, is_asynchronous: true, is_denied: true }
}

/// The interfaces that a component may import.
pub(crate) const OFFERED_INTERFACES: &[OfferedInterface] = &[
    asynchronous("wasi:http/types"),
    asynchronous("wasi:http/client"),
    asynchronous("wasi:clocks/monotonic-clock"),
    offered("wasi:clocks/system-clock"),
    offered("wasi:clocks/types"),
    offered("wasi:random/random"),
    offered("wasi:random/insecure"),
    offered("wasi:random/insecure-seed"),
    asynchronous("wasi:cli/stdin"),
    asynchronous("wasi:cli/stdout"),
    asynchronous("wasi:cli/stderr"),
    offered("wasi:cli/environment"),
    offered("wasi:cli/exit"),
    offered("wasi:cli/types"),
    offered("wasi:cli/terminal-input"),
    offered("wasi:cli/terminal-output"),
    offered("wasi:cli/terminal-stdin"),
    offered("wasi:cli/terminal-stdout"),
    offered("wasi:cli/terminal-stderr"),
    denied("wasi:filesystem/types"),
    denied("wasi:filesystem/preopens"),
    denied("wasi:sockets/types"),
    denied("wasi:sockets/ip-name-lookup"),
];

/// Returns `true` for 0.3.0, a patch of it, and the release candidate.
pub(in crate::wasm) fn is_known(version: &str) -> bool {
    version == CANDIDATE
        || version
            .strip_prefix("0.3.")
            .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Judges an import of another version than 0.2 by a component that exports [`HANDLER`]; `None` if the import is not of
/// WASI 0.3. `Some(None)` is one that the host has.
pub(in crate::wasm) fn judge_import(import: &str, name: &str, version: &str) -> Option<Option<Finding>> {
    if !version.starts_with("0.3.") || !name.starts_with("wasi:") {
        return None;
    }
    let at = format!("import {import}");
    let message = format!("it imports {import}, which this host does not have");
    if !OFFERED_INTERFACES.iter().any(|offered| offered.name == name) {
        let help = "leave that import out, or satisfy it with another component (`wac plug`) before it comes here; \
                    `caxton doctor` lists the interfaces of WASI 0.3 that are offered";
        return Some(Some(Finding::new(&inspection::IMPORT_UNKNOWN, at, message, help)));
    }
    if is_known(version) {
        return Some(None);
    }
    let help = format!("this host has {name}@{VERSION}, also by its name in {CANDIDATE}; build it for one of these");
    Some(Some(Finding::new(&inspection::IMPORT_VERSION, at, message, help)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_line_are_known() {
        for (version, known) in [
            ("0.3.0", true),
            ("0.3.2", true),
            (CANDIDATE, true),
            ("0.3.0-rc-2026-01-06", false),
            ("0.3.", false),
            ("0.3", false),
            ("0.2.12", false),
            ("0.30.1", false),
        ] {
            assert_eq!(is_known(version), known, "{version}");
        }
    }
}
