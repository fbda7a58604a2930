//! What a component's bytes are, found out without running or compiling them (SPEC §6).

use std::fmt;

use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use super::link::OFFERED;

/// The largest component, in bytes (SPEC §3).
pub(crate) const MAX_COMPONENT: u64 = 100 << 20;
const PAGE: u64 = 64 << 10;

/// What a component is for, told from its exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Takes messages, in any number of instances.
    Message,
    /// Takes messages and keeps state in the memory of its one instance.
    Stateful,
    /// Answers HTTP requests.
    Http,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Message => "message",
            Self::Stateful => "stateful",
            Self::Http => "http",
        })
    }
}

/// What was found out about a component that can be used.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// What it is for.
    pub(crate) kind: Kind,
    /// Whether it exports `health`.
    pub(crate) health: bool,
    /// What it imports, by name.
    pub(crate) imports: Vec<String>,
    /// What it exports, by name.
    pub(crate) exports: Vec<String>,
    /// Bytes that its memories have at the start, summed.
    pub(crate) memory_bytes: u64,
    /// Bytes of the component itself.
    pub(crate) size: u64,
}

/// Something that keeps a component from being used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable, for programs.
    pub(crate) code: &'static str,
    /// What is wrong and where.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) help: String,
}

impl Finding {
    fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}); {}", self.message, self.code, self.help)
    }
}

/// Looks at a component's bytes.
///
/// # Errors
/// Everything that is wrong, at once; never an empty list.
pub(crate) fn summarise(bytes: &[u8]) -> Result<Summary, Vec<Finding>> {
    let build_again = "build it again, for the target wasm32-wasip2";
    if bytes.is_empty() {
        return Err(vec![Finding::new("empty", "the file is empty", build_again)]);
    }
    if bytes.len() as u64 > MAX_COMPONENT {
        let message = format!("it has {} bytes, more than {MAX_COMPONENT}", bytes.len());
        return Err(vec![Finding::new("too-large", message, "leave out debug information (`wasm-tools strip`)")]);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(vec![Finding::new("not-wasm", "the file is not WebAssembly", build_again)]);
    }
    if Parser::is_core_wasm(bytes) {
        return Err(vec![Finding::new(
            "core-module",
            "the file is a core module, not a component",
            "build for wasm32-wasip2, or wrap it with `wasm-tools component new`",
        )]);
    }
    let mut scan = Scan::default();
    if let Err(error) = scan.read(bytes) {
        let cut = error.message().contains("unexpected end");
        let code = if cut { "truncated" } else { "invalid" };
        let message = format!("the component is {code}: {} (at byte {:#x})", error.message(), error.offset());
        return Err(vec![Finding::new(code, message, "build or copy it again")]);
    }
    if let Err(error) = Validator::new_with_features(features()).validate_all(bytes) {
        let message = format!("the component is invalid: {} (at byte {:#x})", error.message(), error.offset());
        let help = "build it again; threads, GC, exceptions and 64-bit or several memories are not taken";
        return Err(vec![Finding::new("invalid", message, help)]);
    }
    scan.judge(bytes.len() as u64)
}

/// Whether bytes are the beginning of a component or module that goes on: none, or a section that ends after them. Reads
/// the sizes of the outermost sections alone.
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
        // The number of bytes, seven bits at a time.
        let (mut size, mut used) = (0_u64, 0);
        loop {
            let Some(byte) = rest.get(used) else { return true };
            size |= u64::from(byte & 0x7f) << (7 * used).min(63);
            used += 1;
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

/// Proposals that are off by policy: what no toolchain of agents needs is only more surface. Tail calls stay
/// on, because QuickJS is built with them, and several memories, because what joins the parts of a component has
/// them; guests themselves may not.
pub(super) const FEATURES_OFF: WasmFeatures = WasmFeatures::GC
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::EXCEPTIONS)
    .union(WasmFeatures::THREADS)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::WIDE_ARITHMETIC);

fn features() -> WasmFeatures {
    // Several memories in one module are for the engine's own adapters between the parts of a component.
    let refused = FEATURES_OFF.union(WasmFeatures::MULTI_MEMORY).union(WasmFeatures::CM_ASYNC);
    WasmFeatures::default().difference(refused)
}

#[derive(Default)]
struct Scan {
    imports: Vec<String>,
    exports: Vec<String>,
    memory_bytes: u64,
}

impl Scan {
    /// Collects the names at the outermost level and the memories at every level.
    fn read(&mut self, bytes: &[u8]) -> Result<(), wasmparser::BinaryReaderError> {
        let mut depth = 0u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding: Encoding::Component | Encoding::Module, .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        self.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        self.exports.push(export?.name.name.to_owned());
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        self.memory_bytes = self.memory_bytes.saturating_add(memory?.initial.saturating_mul(PAGE));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn exports_interface(&self, name: &str, track: &str) -> bool {
        self.exports.iter().any(|export| interface(export).is_some_and(|(n, v)| n == name && v.starts_with(track)))
    }

    fn judge(self, size: u64) -> Result<Summary, Vec<Finding>> {
        let mut findings = Vec::new();
        for import in &self.imports {
            if let Some(finding) = judge_import(import) {
                findings.push(finding);
            }
        }
        let handler = self.exports_interface("caxton:agent/handler", "0.1.");
        let snapshot = self.exports_interface("caxton:agent/snapshot", "0.1.");
        let http = self.exports_interface("wasi:http/incoming-handler", "0.2.");
        let kind = match (handler, snapshot, http) {
            (true, false, false) => Some(Kind::Message),
            (true, true, false) => Some(Kind::Stateful),
            (false, false, true) => Some(Kind::Http),
            (true, _, true) | (false, true, true) => {
                findings.push(Finding::new(
                    "two-worlds",
                    "it exports both an interface of caxton:agent and wasi:http/incoming-handler",
                    "make two components of it: one takes messages, one answers HTTP and sends messages to the first",
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
                imports: self.imports,
                exports: self.exports,
                memory_bytes: self.memory_bytes,
                size,
            }),
            _ => Err(findings),
        }
    }

    fn no_world(&self) -> Finding {
        let other = self.exports.iter().find(|export| export.starts_with("caxton:agent/handler"));
        if let Some(other) = other {
            return Finding::new(
                "other-version",
                format!("it exports {other}, another version than this host's caxton:agent/handler@0.1.0"),
                "build it against the contract that `caxton wit` prints",
            );
        }
        let found = if self.exports.is_empty() { "nothing".to_owned() } else { self.exports.join(", ") };
        Finding::new(
            "no-world",
            format!("it exports {found}, which makes no agent"),
            "export caxton:agent/handler@0.1.0 (the contract: `caxton wit`) or wasi:http/incoming-handler@0.2.x",
        )
    }
}

/// An interface's name and version: `wasi:io/poll@0.2.6` is `wasi:io/poll` and `0.2.6`.
fn interface(name: &str) -> Option<(&str, &str)> {
    name.split_once('@').or(Some((name, ""))).filter(|(name, _)| name.contains('/'))
}

fn judge_import(import: &str) -> Option<Finding> {
    let Some((name, version)) = interface(import) else {
        return Some(Finding::new(
            "import-unknown",
            format!("it imports `{import}`, which is no interface of a package"),
            "import only what `caxton wit` prints and WASI 0.2",
        ));
    };
    let package = name.split('/').next().unwrap_or(name);
    let offered = OFFERED.iter().any(|offer| *offer == name || *offer == package);
    let track = match package {
        "caxton:agent" => version.starts_with("0.1."),
        "wasi:config" => version == "0.2.0-rc.1",
        "wasi:logging" => version == "0.1.0-draft",
        _ => version.starts_with("0.2."),
    };
    let message = format!("it imports {import}, which this host does not have");
    match (offered, track) {
        (true, true) => None,
        (true, false) if package.starts_with("wasi:") => {
            Some(Finding::new("import-version", message, "build it for WASI 0.2 (target wasm32-wasip2)"))
        }
        (true, false) => {
            Some(Finding::new("import-version", message, "build it against the contract that `caxton wit` prints"))
        }
        (false, _) => Some(Finding::new(
            "import-unknown",
            message,
            "leave that import out, or satisfy it with another component (`wac plug`) before it comes here",
        )),
    }
}
