//! The scan of a component's sections: names, sizes and counts, in linear time and within bounds.

use wasmparser::{Encoding, Parser, Payload};

use crate::bounds;
use crate::wasm::limits::TABLE_ENTRY_BYTES;

const PAGE: u64 = 64 << 10;

/// The custom section in which a component states the number of calls for which an instance may be used: a number on a
/// line. The SDK writes it (`reusable!`). If a linker has joined several sections, the lowest number holds.
pub(super) const REUSE_SECTION: &str = "caxton:reuse";

/// The bounds of a component's structure. Real ones have far less: those made from Python have some twenty modules and
/// twenty thousand functions. Within them each step of inspection is linear in the size.
const MOST: &[(Part, usize, &str)] = &[
    (Part::Nesting, 32, "levels of components in components"),
    (Part::Components, 1_000, "components in it"),
    (Part::Modules, 1_000, "core modules"),
    (Part::Instances, 10_000, "instances"),
    (Part::Imports, 100_000, "imports"),
    (Part::Exports, 100_000, "exports"),
    (Part::Functions, 1_000_000, "functions"),
    (Part::Types, 200_000, "types"),
    (Part::Aliases, 200_000, "aliases"),
    (Part::NameBytes, bounds::QUOTED, "bytes in the name of an import or export"),
];

/// A part of a component that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Nesting,
    Components,
    Modules,
    Instances,
    Imports,
    Exports,
    Functions,
    Types,
    Aliases,
    NameBytes,
}

/// The error of reading the sections of a component.
pub(super) enum ScanError {
    /// A section is not as it has to be.
    Unreadable(wasmparser::BinaryReaderError),
    /// The component has more of a part than it may have.
    TooMany {
        /// The part.
        what: &'static str,
        /// The number found so far.
        found: usize,
        /// The bound.
        most: usize,
    },
}

impl From<wasmparser::BinaryReaderError> for ScanError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Unreadable(error)
    }
}

/// The structure of a component, read without validation.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
    /// The initial memories and tables.
    pub(super) memory_bytes: u64,
    /// The lowest number in the reuse sections.
    pub(super) reuse: Option<u32>,
    /// The text of a reuse section that is not a number.
    pub(super) bad_reuse: Option<String>,
    pub(super) dwarf: bool,
    /// The numbers of parts at all levels, in the order of [`MOST`].
    counts: [usize; MOST.len()],
}

impl Scan {
    /// Counts parts of a component.
    fn count(&mut self, part: Part, count: usize) -> Result<(), ScanError> {
        let Some((place, (_, most, what))) = MOST.iter().enumerate().find(|(_, (of, ..))| *of == part) else {
            return Ok(());
        };
        let counted = &mut self.counts[place];
        // Depths and lengths are compared one by one, and not added up.
        let adds = !matches!(part, Part::Nesting | Part::NameBytes);
        *counted = if adds { counted.saturating_add(count) } else { count };
        if *counted > *most {
            return Err(ScanError::TooMany { what, found: *counted, most: *most });
        }
        Ok(())
    }

    /// Counts what a section has, as it says itself: a section that says more than it has is invalid.
    fn count_section(&mut self, payload: &Payload<'_>) -> Result<(), ScanError> {
        let (part, count) = match payload {
            Payload::TypeSection(section) => (Part::Types, section.count()),
            Payload::CoreTypeSection(section) => (Part::Types, section.count()),
            Payload::ComponentTypeSection(section) => (Part::Types, section.count()),
            Payload::ImportSection(section) => (Part::Imports, section.count()),
            Payload::ComponentImportSection(section) => (Part::Imports, section.count()),
            Payload::ExportSection(section) => (Part::Exports, section.count()),
            Payload::ComponentExportSection(section) => (Part::Exports, section.count()),
            Payload::FunctionSection(section) => (Part::Functions, section.count()),
            Payload::ComponentCanonicalSection(section) => (Part::Functions, section.count()),
            Payload::InstanceSection(section) => (Part::Instances, section.count()),
            Payload::ComponentInstanceSection(section) => (Part::Instances, section.count()),
            Payload::ComponentAliasSection(section) => (Part::Aliases, section.count()),
            Payload::ModuleSection { .. } => (Part::Modules, 1),
            Payload::ComponentSection { .. } => (Part::Components, 1),
            _ => return Ok(()),
        };
        self.count(part, count as usize)
    }

    /// Collects the names at the outermost level, and the memories at every level.
    ///
    /// # Errors
    /// The sections cannot be read, or are more than they may be.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        let mut within: Vec<Encoding> = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            self.count_section(&payload)?;
            match payload {
                Payload::Version { encoding, .. } => {
                    within.push(encoding);
                    // The outermost component is no level.
                    self.count(Part::Nesting, within.len() - 1)?;
                }
                Payload::End(_) => _ = within.pop(),
                Payload::ComponentImportSection(section) if within.len() == 1 => {
                    for import in section {
                        let name = import?.name.name;
                        self.count(Part::NameBytes, name.len())?;
                        self.imports.push(name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if within.len() == 1 => {
                    for export in section {
                        let name = export?.name.name;
                        self.count(Part::NameBytes, name.len())?;
                        self.exports.push(name.to_owned());
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        // Saturating, because the sizes are data of the component and not validated yet.
                        self.memory_bytes = self.memory_bytes.saturating_add(memory?.initial.saturating_mul(PAGE));
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        let bytes = table?.ty.initial.saturating_mul(TABLE_ENTRY_BYTES as u64);
                        self.memory_bytes = self.memory_bytes.saturating_add(bytes);
                    }
                }
                Payload::CustomSection(section) => match section.name() {
                    ".debug_info" => self.dwarf = true,
                    // Only the section of the component itself or of its core modules: an inner component does not
                    // speak for the whole.
                    REUSE_SECTION if matches!(within[..], [_] | [_, Encoding::Module]) => {
                        self.read_reuse(section.data());
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the numbers of a reuse section.
    fn read_reuse(&mut self, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        for line in text.lines().map(|line| line.trim().replace('_', "")) {
            match line.parse::<u32>() {
                // The least: every part of a component has to be safe to use again.
                Ok(times) if times > 0 => self.reuse = Some(self.reuse.map_or(times, |least| least.min(times))),
                Ok(_) | Err(_) => self.bad_reuse = Some(line.chars().take(40).collect()),
            }
        }
    }
}
