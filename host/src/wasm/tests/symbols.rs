//! Tests of source places in the backtraces of guests.

use gimli::write::{Address, AttributeValue, DwarfUnit, EndianVec, LineProgram, LineString, Sections};
use gimli::{DW_AT_high_pc, DW_AT_low_pc, DW_AT_name, DW_TAG_subprogram, Encoding, Format, LineEncoding, LittleEndian};

use super::guests::Guest;
use super::{Bench, call};
use crate::message::Fault;

/// A size above that of the code of any guest here.
const CODE: u64 = 10_000;

/// Returns DWARF sections as text: all code is the function `name` in `guest.c`, at line 7.
fn dwarf(name: &str) -> String {
    let encoding = Encoding { format: Format::Dwarf32, version: 4, address_size: 4 };
    let mut unit = DwarfUnit::new(encoding);
    let text = |text: &str| LineString::String(text.as_bytes().to_vec());
    let lines = LineEncoding::default();
    let mut program = LineProgram::new(encoding, lines, text("/src"), None, text("guest.c"), None);
    let directory = program.default_directory();
    let file = program.add_file(text("guest.c"), directory, None);
    program.begin_sequence(Some(Address::Constant(0)));
    (program.row().file, program.row().line) = (file, 7);
    program.generate_row();
    program.end_sequence(CODE);
    unit.unit.line_program = program;
    let root = unit.unit.root();
    let whole = |entry: &mut gimli::write::DebuggingInformationEntry| {
        entry.set(DW_AT_low_pc, AttributeValue::Address(Address::Constant(0)));
        entry.set(DW_AT_high_pc, AttributeValue::Udata(CODE));
    };
    whole(unit.unit.get_mut(root));
    unit.unit.get_mut(root).set(DW_AT_name, AttributeValue::String(b"guest.c".to_vec()));
    let function = unit.unit.add(root, DW_TAG_subprogram);
    whole(unit.unit.get_mut(function));
    unit.unit.get_mut(function).set(DW_AT_name, AttributeValue::String(name.as_bytes().to_vec()));
    let mut sections = Sections::new(EndianVec::new(LittleEndian));
    unit.write(&mut sections).unwrap();
    let mut written = String::new();
    let write = |id: gimli::SectionId, data: &EndianVec<LittleEndian>| {
        let bytes: String = data.slice().iter().map(|byte| format!("\\{byte:02x}")).collect();
        written.push_str(&format!("(@custom \"{}\" \"{bytes}\")", id.name()));
        Ok::<_, ()>(())
    };
    sections.for_each(write).unwrap();
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn traps_have_their_place_in_the_source() {
    let bench = Bench::new();
    let guest = Guest { more: &dwarf("_ZN5guest5triesEv"), handle: "unreachable", ..Guest::default() };
    let pool = bench.pool(&guest.build(), |_| {}).await;
    let Err(Fault::Trap { diagnostics, .. }) = call(&pool).await else { panic!("no trap") };
    let lines: Vec<&str> = diagnostics.backtrace().lines().collect();
    assert_eq!(lines[0], "0: guest!guest::tries()", "{diagnostics:?}");
    assert!(lines[1].starts_with("     at ") && lines[1].contains("guest.c:7"), "{diagnostics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_dwarf_is_ignored() {
    let bench = Bench::new();
    let rubbish = r#"(@custom ".debug_info" "\ff\ff\ff\ff") (@custom ".debug_line" "rubbish")"#;
    let guest = Guest { more: rubbish, handle: "unreachable", ..Guest::default() };
    let pool = bench.pool(&guest.build(), |_| {}).await;
    let Err(Fault::Trap { diagnostics, .. }) = call(&pool).await else { panic!("no trap") };
    assert_eq!(diagnostics.backtrace().lines().next(), Some("0: guest!handle"), "{diagnostics:?}");
}
