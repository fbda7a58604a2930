//! Places in a guest's source, from the DWARF in its component.
//!
//! The DWARF is read from the component's file when a guest first traps, and kept as long as its program: most
//! components have none, and most of the others never trap. wasmtime can do the same from the compiled code, but starts
//! anew for each frame, at an unbounded cost.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use caxton_control::Digest;
use gimli::{EndianSlice, LittleEndian};
use parking_lot::Mutex;
use wasmparser::{Encoding, Parser, Payload};

use crate::bounds::FRAME_NAME;
use crate::wasm::digest;

/// The bound of DWARF in memory in bytes. A debug build with its standard library has a tenth of it.
const MAX_DWARF: usize = 64 << 20;
/// The pause between two lookups of one component, as a multiple of the first one's duration. A guest that traps on
/// purpose cannot keep the host reading DWARF.
const PAUSE: u32 = 20;
/// The most functions shown for one place. The length of a chain of inlined functions is data of the component, and may
/// be wrong.
const MAX_INLINED: usize = 32;

type DwarfReader<'a> = EndianSlice<'a, LittleEndian>;
type Context<'a> = addr2line::Context<DwarfReader<'a>>;

/// A place in a guest's source.
pub(in crate::wasm) struct SourceLocation {
    /// The function's name, still mangled.
    pub(in crate::wasm) function: Option<String>,
    /// The file with line and column, such as `src/lib.rs:12:5`.
    pub(in crate::wasm) source: Option<String>,
}

/// The source places of one component, read on first use.
#[derive(Default)]
pub(in crate::wasm) struct Symbols {
    /// The component's file and digest; `None` if it has no DWARF.
    component: Option<(PathBuf, Digest)>,
    modules: OnceLock<Vec<Module>>,
    /// The time before which lookups return nothing.
    next: Mutex<Option<Instant>>,
}

/// A core module of the component.
struct Module {
    /// The range of its code in the component's file.
    code: Range<u64>,
    /// The DWARF of the module by section name.
    sections: HashMap<String, Vec<u8>>,
}

impl Symbols {
    /// Creates the places of the component in this file, without reading it.
    pub(in crate::wasm) fn of(path: PathBuf, digest: Digest) -> Self {
        Self { component: Some((path, digest)), ..Self::default() }
    }

    /// Returns the functions at each of these offsets in the component's file, the innermost first, followed by those
    /// it was inlined into. Empty where nothing is known.
    pub(in crate::wasm) fn find(&self, places: &[Option<u64>]) -> Vec<Vec<SourceLocation>> {
        let nothing = || places.iter().map(|_| Vec::new()).collect();
        // Before the lock, so that components without DWARF do not contend for it.
        if self.component.is_none() {
            return nothing();
        }
        // Held during the lookup, so that concurrent traps do not all read the DWARF.
        let mut next = self.next.lock();
        let began = Instant::now();
        if next.is_some_and(|next| began < next) {
            return nothing();
        }
        // A failed read is kept as an empty list, so that a file that is gone is not read at each trap.
        let modules = self.modules.get_or_init(|| self.read().unwrap_or_default());
        let contexts: Vec<(&Module, Option<Context<'_>>)> =
            modules.iter().map(|module| (module, module.context())).collect();
        let found = places.iter().map(|at| at.map_or_else(Vec::new, |at| find(&contexts, at))).collect();
        // The cost depends on the component, so that the pause is a multiple of it and not a constant.
        let took: Duration = began.elapsed();
        *next = Some(began + took * PAUSE);
        found
    }

    fn read(&self) -> Option<Vec<Module>> {
        let (path, expected) = self.component.as_ref()?;
        let bytes = std::fs::read(path).ok()?;
        // The file may have been built anew since.
        if digest(&bytes) != *expected { None } else { Some(modules(&bytes)) }
    }
}

fn find(contexts: &[(&Module, Option<Context<'_>>)], at: u64) -> Vec<SourceLocation> {
    let Some((module, Some(context))) = contexts.iter().find(|(module, _)| module.code.contains(&at)) else {
        return Vec::new();
    };
    let Ok(mut frames) = context.find_frames(at - module.code.start).skip_all_loads() else { return Vec::new() };
    let mut places = Vec::new();
    while let (true, Ok(Some(frame))) = (places.len() < MAX_INLINED, frames.next()) {
        let function = frame.function.as_ref().and_then(|function| function.raw_name().ok());
        places.push(SourceLocation {
            function: function.map(std::borrow::Cow::into_owned),
            source: frame.location.as_ref().and_then(source),
        });
    }
    places
}

fn source(location: &addr2line::Location<'_>) -> Option<String> {
    // Paths are data of the component, and could otherwise control a terminal.
    let plain = location.file?.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut text: String = plain.take(FRAME_NAME).collect();
    // DWARF uses 0 for an unknown line or column.
    let line = location.line.filter(|line| *line > 0);
    let column = line.and(location.column).filter(|column| *column > 0);
    for number in line.iter().chain(&column) {
        text.push_str(&format!(":{number}"));
    }
    Some(text)
}

/// Reads the core modules of a component that have DWARF.
fn modules(component: &[u8]) -> Vec<Module> {
    let (mut found, mut left) = (Vec::new(), MAX_DWARF);
    // The module that is being read. Core modules do not nest.
    let mut open: Option<Module> = None;
    // Errors end the loop and are ignored: the component was validated, and its DWARF is a convenience.
    for payload in Parser::new(0).parse_all(component).map_while(Result::ok) {
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => {
                open = Some(Module { code: 0..0, sections: HashMap::new() });
            }
            Payload::CodeSectionStart { range, .. } => {
                if let Some(module) = &mut open {
                    module.code = range.start as u64..range.end as u64;
                }
            }
            Payload::CustomSection(section) if section.name().starts_with(".debug_") => {
                if let (Some(module), Some(rest)) = (&mut open, left.checked_sub(section.data().len())) {
                    left = rest;
                    module.sections.insert(section.name().to_owned(), section.data().to_vec());
                }
            }
            Payload::End(_) => found.extend(open.take().filter(|module| !module.sections.is_empty())),
            _ => {}
        }
    }
    found
}

impl Module {
    fn context(&self) -> Option<Context<'_>> {
        let load = |id: gimli::SectionId| {
            // An absent section is an empty one to gimli, and most are absent.
            let data = self.sections.get(id.name()).map_or(&[][..], Vec::as_slice);
            Ok::<_, gimli::Error>(DwarfReader::new(data, LittleEndian))
        };
        Context::from_dwarf(gimli::Dwarf::load(load).ok()?).ok()
    }
}
