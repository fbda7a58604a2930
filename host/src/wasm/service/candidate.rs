//! The names of the release candidate of WASI 0.3 in a component, which the engine does not have.
//!
//! Only the outermost imports and exports are linked by name, and only their names are changed: the types that go with
//! them stay as the component has them, and linking compares each with the host's.

use caxton_control::inspection::{self, Finding};
use wasmparser::{BinaryReader, BinaryReaderError, ComponentExportSectionReader, ComponentImportSectionReader};

use crate::wasm::service::offered::{CANDIDATE, VERSION};

/// The length of the header of a component: the magic bytes and the version.
const HEADER: usize = 8;
/// The ids of the sections with names.
const IMPORTS: u8 = 10;
const EXPORTS: u8 = 11;

/// Returns `true` if this is a name in the release candidate.
pub(in crate::wasm) fn is_of_candidate(name: &str) -> bool {
    name.strip_suffix(CANDIDATE).is_some_and(|name| name.starts_with("wasi:") && name.ends_with('@'))
}

/// Returns the name in 0.3.0.
fn of_version(name: &str) -> Option<String> {
    is_of_candidate(name).then(|| name.replace(CANDIDATE, VERSION))
}

/// Returns the component with the names of 0.3.0 in place of those of the release candidate.
///
/// # Errors
/// The sections cannot be read.
pub(in crate::wasm) fn renamed(bytes: &[u8]) -> Result<Vec<u8>, BinaryReaderError> {
    let mut renamed = bytes[..HEADER.min(bytes.len())].to_vec();
    let mut reader = BinaryReader::new(&bytes[renamed.len()..], HEADER);
    while !reader.eof() {
        let id = reader.read_u8()?;
        let size = reader.read_var_u32()?;
        let content = reader.read_bytes(size as usize)?;
        let changed = match id {
            IMPORTS => Some(imports(content)?),
            EXPORTS => Some(exports(content)?),
            _ => None,
        };
        let content = changed.as_deref().unwrap_or(content);
        renamed.push(id);
        push_length(&mut renamed, content.len());
        renamed.extend_from_slice(content);
    }
    Ok(renamed)
}

fn imports(content: &[u8]) -> Result<Vec<u8>, BinaryReaderError> {
    let section = ComponentImportSectionReader::new(BinaryReader::new(content, 0))?;
    let mut names = Names::of(content);
    for item in section.into_iter_with_offsets() {
        let (at, import) = item?;
        names.change(at, import.name.name);
    }
    Ok(names.finish())
}

fn exports(content: &[u8]) -> Result<Vec<u8>, BinaryReaderError> {
    let section = ComponentExportSectionReader::new(BinaryReader::new(content, 0))?;
    let mut names = Names::of(content);
    for item in section.into_iter_with_offsets() {
        let (at, export) = item?;
        names.change(at, export.name.name);
    }
    Ok(names.finish())
}

/// The content of a section while its names are changed.
struct Names<'a> {
    content: &'a [u8],
    /// The bytes of the content that were copied or replaced.
    done: usize,
    changed: Vec<u8>,
}

impl<'a> Names<'a> {
    fn of(content: &'a [u8]) -> Self {
        Self { content, done: 0, changed: Vec::with_capacity(content.len()) }
    }

    /// Changes the name of the item at this place, if it has to be.
    fn change(&mut self, item: usize, name: &'a str) {
        let Some(other) = of_version(name) else { return };
        // The name is a part of the content.
        let begin = name.as_ptr().addr() - self.content.as_ptr().addr();
        // An item begins with a byte for the form of its name, and the name with its length.
        self.changed.extend_from_slice(&self.content[self.done..=item]);
        push_length(&mut self.changed, other.len());
        self.changed.extend_from_slice(other.as_bytes());
        self.done = begin + name.len();
    }

    fn finish(mut self) -> Vec<u8> {
        self.changed.extend_from_slice(&self.content[self.done..]);
        self.changed
    }
}

/// Writes a length in LEB128.
fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).expect("seven bits fit") | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).expect("seven bits fit"));
}

/// Returns the finding about a component whose types are not those of 0.3.0. The error of the engine names the first that
/// differs.
pub(in crate::wasm) fn differs(error: &str) -> Finding {
    Finding::new(
        &inspection::CANDIDATE_DIFFERS,
        "its imports and exports",
        format!(
            "it is built for the release candidate {CANDIDATE} of WASI 0.3, and has other types than {VERSION}: {error}"
        ),
        format!("build it for WASI {VERSION}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_candidate_change() {
        let text = format!(
            r#"(component
                (import "wasi:clocks/types@{CANDIDATE}" (instance $a))
                (import "other:clocks/types@{CANDIDATE}" (instance $b))
                (import "wasi:io/poll@0.2.6" (instance $c))
                (component (import "wasi:clocks/types@{CANDIDATE}" (instance)))
                (export "wasi:http/handler@{CANDIDATE}" (instance $a)))"#
        );
        let renamed = renamed(&wat::parse_str(&text).unwrap()).unwrap();
        let expected = text
            .replacen(&format!("wasi:clocks/types@{CANDIDATE}"), "wasi:clocks/types@0.3.0", 1)
            .replace(&format!("wasi:http/handler@{CANDIDATE}"), "wasi:http/handler@0.3.0");
        assert_eq!(renamed, wat::parse_str(expected).unwrap());
        assert_eq!(super::renamed(&renamed).unwrap(), renamed);
        assert!(super::renamed(&renamed[..renamed.len() - 1]).is_err());
        assert!(super::renamed(b"\0asm").unwrap().len() == 4);
    }
}
