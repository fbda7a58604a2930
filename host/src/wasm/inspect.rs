//! The inspection of a component's bytes, without compiling or running it (SPEC §6).

use std::fmt;

use caxton_control::inspection::{self, Finding, in_order};
use serde::Serialize;
use wasmparser::{Parser, WasmFeatures};

use crate::wasm::compat::offer;
use crate::wasm::inspect_imports::{interface, judge_import};
use crate::wasm::scan::{REUSE_SECTION, Scan, ScanError};
use crate::wasm::service::candidate::is_of_candidate;
use crate::wasm::service::offered::{self, HANDLER};

/// The largest component in bytes (SPEC §3).
pub(crate) const MAX_COMPONENT: u64 = 100 << 20;

/// The reuse of an instance of a message agent without another setting.
const MESSAGE_REUSE: u32 = 1_000;
/// The reuse of an instance of an HTTP agent without another setting: components of WASI 0.2 are written for one
/// instance per request, and may leave data of a request where the next one finds it. Those of 0.3 may expect several
/// requests, and the same holds for what they leave.
const HTTP_REUSE: u32 = 1;

/// The kind of a component, determined by its exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Handles messages, in any number of instances.
    Message,
    /// Handles messages and keeps state in the memory of its only instance.
    Stateful,
    /// Answers HTTP requests.
    Http,
    /// Handles messages and answers HTTP requests, in any number of instances.
    Both,
}

impl Kind {
    /// Returns `true` if it handles messages.
    pub(crate) fn takes_messages(self) -> bool {
        match self {
            Self::Message | Self::Stateful | Self::Both => true,
            Self::Http => false,
        }
    }

    /// Returns `true` if it answers HTTP requests itself.
    pub(crate) fn answers_http(self) -> bool {
        match self {
            Self::Http | Self::Both => true,
            Self::Message | Self::Stateful => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Message => "message",
            Self::Stateful => "stateful",
            Self::Http => "http",
            Self::Both => "both",
        })
    }
}

/// The properties of a component that can be used.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// The kind, by its exports.
    pub(crate) kind: Kind,
    /// Set if it exports `health`.
    pub(crate) health: bool,
    /// Set if it exports `migration`.
    pub(crate) migrates: bool,
    /// The names of its imports.
    pub(crate) imports: Vec<String>,
    /// The names of its exports.
    pub(crate) exports: Vec<String>,
    /// The sum of its initial memories and tables in bytes.
    pub(crate) memory_bytes: u64,
    /// The size of the component in bytes.
    pub(crate) size: u64,
    /// Set if it answers by the handler of WASI 0.3.
    #[serde(skip)]
    pub(super) service: bool,
    /// The reuse of an instance according to its section.
    #[serde(skip)]
    pub(super) reuse: Option<u32>,
    /// Set if its messages go to the handler of wasmCloud's interface.
    #[serde(skip)]
    pub(super) is_brokered: bool,
    /// Set if it has DWARF.
    #[serde(skip)]
    pub(super) dwarf: bool,
}

impl Summary {
    /// Returns `true` if it imports an interface to the agent's state.
    pub(crate) fn keeps_state(&self) -> bool {
        let is_state = |import: &String| import.starts_with("caxton:agent/state@") || offer::keeps_state(import);
        self.imports.iter().any(is_state)
    }

    /// Returns `true` if it answers by the handler of WASI 0.3.
    pub(crate) fn is_of_wasi_03(&self) -> bool {
        self.service
    }

    /// Returns `true` if it has names of the release candidate of WASI 0.3.
    pub(super) fn is_of_candidate(&self) -> bool {
        self.imports.iter().chain(&self.exports).any(|name| is_of_candidate(name))
    }

    /// Returns the number of calls for which an instance is used. `declared` is the setting. An instance with
    /// state in its memory is used as long as it lives.
    pub(crate) fn reuse(&self, declared: Option<u32>) -> u32 {
        match self.kind {
            Kind::Stateful => u32::MAX,
            Kind::Message => declared.or(self.reuse).unwrap_or(MESSAGE_REUSE),
            Kind::Http | Kind::Both => declared.or(self.reuse).unwrap_or(HTTP_REUSE),
        }
    }
}

/// Inspects a component, without validating it: in linear time, and up to the bounds of [`Scan::read`].
///
/// # Errors
/// All findings at once; never empty.
pub(crate) fn outline(bytes: &[u8]) -> Result<Summary, Vec<Finding>> {
    read(bytes)?.judge(bytes.len() as u64)
}

/// Returns the imports and exports of a component, also of one that makes no agent; `None` if it cannot be read.
pub(crate) fn imports_and_exports(bytes: &[u8]) -> Option<(Vec<String>, Vec<String>)> {
    read(bytes).ok().map(|scan| (scan.imports, scan.exports))
}

/// Reads the sections of a component.
pub(super) fn read(bytes: &[u8]) -> Result<Scan, Vec<Finding>> {
    let build_again = "build it again, for the target wasm32-wasip2";
    if bytes.is_empty() {
        return Err(vec![Finding::new(&inspection::EMPTY, "the file", "the file is empty", build_again)]);
    }
    if bytes.len() as u64 > MAX_COMPONENT {
        let message = format!("it has {} bytes, more than {MAX_COMPONENT}", bytes.len());
        let help = "leave out debug information (`wasm-tools strip`)";
        return Err(vec![Finding::new(&inspection::TOO_LARGE, "the file", message, help)]);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(vec![Finding::new(&inspection::NOT_WASM, "byte 0x0", "the file is not WebAssembly", build_again)]);
    }
    if Parser::is_core_wasm(bytes) {
        return Err(vec![Finding::new(
            &inspection::CORE_MODULE,
            "byte 0x0",
            "the file is a core module, not a component",
            "build for wasm32-wasip2, or wrap it with `wasm-tools component new`",
        )]);
    }
    // Scanned before it is validated: a truncated file gets an error of its own.
    let mut scan = Scan::default();
    match scan.read(bytes) {
        Ok(()) => Ok(scan),
        Err(ScanError::TooMany { what, found, most }) => {
            let message = format!("it has {found} {what}, and a component may have {most}");
            Err(vec![Finding::new(&inspection::TOO_COMPLEX, what, message, "make several components of it")])
        }
        Err(ScanError::Unreadable(error)) => {
            // wasmparser has no error kinds, so that the message decides.
            let cut = error.message().contains("unexpected end");
            let code = if cut { &inspection::TRUNCATED } else { &inspection::INVALID };
            let at = format!("byte {:#x}", error.offset());
            let message = format!("the component is {}: {} (at {at})", code.name, error.message());
            Err(vec![Finding::new(code, at, message, "build or copy it again")])
        }
    }
}

/// Returns `true` if the bytes are the start of a longer component or module: empty, or cut within a section. Reads
/// only the sizes of the outermost sections.
pub(crate) fn is_cut(bytes: &[u8]) -> bool {
    const HEAD: usize = 8;
    let magic = b"\0asm";
    if bytes.len() < HEAD {
        return magic.starts_with(&bytes[..bytes.len().min(magic.len())]);
    }
    let mut left = &bytes[HEAD..];
    while bytes.starts_with(magic)
        && let Some((_, rest)) = left.split_first()
    {
        // The size in LEB128: seven bits of each byte.
        let (mut size, mut used) = (0_u64, 0);
        loop {
            let Some(byte) = rest.get(used) else { return true };
            size |= u64::from(byte & 0x7f) << (7 * used).min(63);
            used += 1;
            // A size has 32 bits, and thus at most five bytes.
            if byte & 0x80 == 0 || used == 5 {
                break;
            }
        }
        let rest = &rest[used..];
        if size > rest.len() as u64 {
            return true;
        }
        left = &rest[usize::try_from(size).unwrap_or(rest.len())..];
    }
    false
}

/// WebAssembly proposals that are off by policy, because no toolchain of agents needs them and each adds attack
/// surface. Tail calls stay on, because QuickJS is built with them. Multiple memories stay on in the engine, because
/// the adapters between the parts of a component use them; guests are refused them by [`features`].
pub(super) const FEATURES_OFF: WasmFeatures = WasmFeatures::GC
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::EXCEPTIONS)
    .union(WasmFeatures::THREADS)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::WIDE_ARITHMETIC);

/// Returns the proposals that a component may use. `service` is set for one that exports the handler of WASI 0.3.
pub(super) fn features(service: bool) -> WasmFeatures {
    // Several memories in one module are only for the engine's own adapters.
    let refused = FEATURES_OFF.union(WasmFeatures::MULTI_MEMORY).union(ASYNC);
    let asynchronous = if service { WasmFeatures::CM_ASYNC } else { WasmFeatures::empty() };
    WasmFeatures::default().difference(refused).union(asynchronous)
}

/// The asynchronous features of the component model, on which WASI 0.3 is built.
pub(super) const ASYNC: WasmFeatures = WasmFeatures::CM_ASYNC
    .union(WasmFeatures::CM_ASYNC_STACKFUL)
    .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
    .union(WasmFeatures::CM_ERROR_CONTEXT)
    .union(WasmFeatures::CM_THREADING);

/// Returns the finding about asynchronous functions. `service` is set for a component that exports the handler of WASI
/// 0.3, which uses more than WASI 0.3 has.
pub(super) fn needs_async(service: bool) -> Finding {
    if service {
        return Finding::new(
            &inspection::NEEDS_ASYNC,
            "its functions",
            "it uses asynchronous parts of the component model beyond WASI 0.3.0 (threads, contexts of errors, or \
             functions that keep their stack), which this host does not run",
            "build it for WASI 0.3.0",
        );
    }
    Finding::new(
        &inspection::NEEDS_ASYNC,
        "its functions",
        "it is built with asynchronous functions of the component model (WASI 0.3), which this host runs only in \
         components that export wasi:http/handler@0.3.0",
        "export that handler, or build it for WASI 0.2, where functions wait: in Rust for the target wasm32-wasip2, in \
         JavaScript and Python with handlers that are not async; it has to export caxton:agent/handler@0.1.0 (the \
         contract: `caxton wit`) or wasi:http/incoming-handler@0.2.x",
    )
}

impl Scan {
    /// Returns `true` if the component exports a handler of WASI 0.3 that the host knows.
    pub(super) fn is_service(&self) -> bool {
        self.exports.iter().any(|export| {
            interface(export).is_some_and(|(name, version)| name == HANDLER && offered::is_known(version))
        })
    }

    fn exports_interface(&self, name: &str, track: &str) -> bool {
        self.exports.iter().any(|export| interface(export).is_some_and(|(n, v)| n == name && v.starts_with(track)))
    }

    /// Judges imports, exports and sections.
    pub(super) fn judge(self, size: u64) -> Result<Summary, Vec<Finding>> {
        let mut findings = Vec::new();
        let service = self.is_service();
        for import in &self.imports {
            if let Some(finding) = judge_import(import, service) {
                findings.push(finding);
            }
        }
        if let Some(text) = &self.bad_reuse {
            findings.push(Finding::new(
                &inspection::BAD_SECTION,
                format!("section {REUSE_SECTION}"),
                format!("its custom section `{REUSE_SECTION}` says {text:?}"),
                "it has to be a whole number from 1 on a line: how often an instance may be used",
            ));
        }
        findings.extend(self.exports.iter().filter_map(|export| judge_option(export)));
        let contract = self.exports_interface("caxton:agent/handler", "0.1.");
        let brokered = self.exports.iter().any(|export| export == offer::BROKER_HANDLER);
        let handler = contract || brokered;
        let snapshot = self.exports_interface("caxton:agent/snapshot", "0.1.");
        let face = if service { HANDLER } else { "wasi:http/incoming-handler" };
        // A component with both is called by the newer.
        let http = service || self.exports_interface("wasi:http/incoming-handler", "0.2.");
        let kind = match (handler, snapshot, http) {
            (true, false, false) => Some(Kind::Message),
            (true, true, false) => Some(Kind::Stateful),
            (false, false, true) => Some(Kind::Http),
            (true, false, true) => Some(Kind::Both),
            (_, true, true) => {
                findings.push(Finding::new(
                    &inspection::TWO_WORLDS,
                    "its exports",
                    format!(
                        "it exports both caxton:agent/snapshot and {face}: a memory that is saved with each message, and \
                         calls that save none"
                    ),
                    "leave the snapshot out and keep its data with caxton:agent/state, or make two components of it: one \
                     takes messages, one answers HTTP and sends messages to the first",
                ));
                None
            }
            (false, _, false) => {
                findings.push(self.no_world());
                None
            }
        };
        match kind {
            Some(kind) if findings.is_empty() => Ok(Summary {
                kind,
                health: self.exports_interface("caxton:agent/health", "0.1."),
                migrates: self.exports_interface("caxton:agent/migration", "0.1."),
                imports: self.imports,
                exports: self.exports,
                memory_bytes: self.memory_bytes,
                size,
                service,
                reuse: self.reuse,
                // The contract's handler gets more of a message.
                is_brokered: brokered && !contract,
                dwarf: self.dwarf,
            }),
            _ => Err(in_order(findings)),
        }
    }

    fn no_world(&self) -> Finding {
        let other = self.exports.iter().find(|export| export.starts_with("caxton:agent/handler"));
        if let Some(other) = other {
            // A handler of another version is the likelier mistake than none at all.
            return other_version(other, "caxton:agent/handler");
        }
        if let Some(other) = self.exports.iter().find(|export| export.starts_with("wasmcloud:messaging/handler@")) {
            return Finding::new(
                &inspection::OTHER_VERSION,
                format!("export {other}"),
                format!("it exports {other}, another version than this host's {}", offer::BROKER_HANDLER),
                "build it against wasmcloud:messaging@0.2.0",
            );
        }
        let other = self.exports.iter().find(|export| interface(export).is_some_and(|(name, _)| name == HANDLER));
        if let Some(other) = other {
            return Finding::new(
                &inspection::OTHER_VERSION,
                format!("export {other}"),
                format!("it exports {other}, another version than this host's {HANDLER}@{}", offered::VERSION),
                format!("build it for WASI {}, or for its candidate {}", offered::VERSION, offered::CANDIDATE),
            );
        }
        let found = if self.exports.is_empty() { "nothing".to_owned() } else { self.exports.join(", ") };
        Finding::new(
            &inspection::NO_WORLD,
            "its exports",
            format!("it exports {found}, which makes no agent"),
            "export caxton:agent/handler@0.1.0 (the contract: `caxton wit`), wasi:http/incoming-handler@0.2.x or \
             wasi:http/handler@0.3.0",
        )
    }
}

/// Checks an optional export: one of another version would never be called.
fn judge_option(export: &str) -> Option<Finding> {
    let (name, version) = interface(export)?;
    let is_option = ["caxton:agent/snapshot", "caxton:agent/health", "caxton:agent/migration"].contains(&name);
    (is_option && !version.starts_with("0.1.")).then(|| other_version(export, name))
}

fn other_version(export: &str, name: &str) -> Finding {
    Finding::new(
        &inspection::OTHER_VERSION,
        format!("export {export}"),
        format!("it exports {export}, another version than this host's {name}@0.1.0"),
        "build it against the contract that `caxton wit` prints",
    )
}
