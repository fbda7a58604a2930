//! Components that are malformed: inspected and validated without a panic, with a finding for each that is refused.

use arbitrary::Unstructured;
use wasm_smith::{Component, Config, Module};

use super::guests::{COUNT, Guest, handles, with_module, with_section};
use crate::mutation::{Case, Chance, INPUTS, mutate};
use crate::wasm::inspect::{is_cut, outline, summarise};

/// Names and bytes that mean something in a component.
const WORDS: [&[u8]; 16] = [
    b"\0asm\x0d\0\x01\0",
    b"\0asm\x01\0\0\0",
    b"\x04\x08\0asm\x0d\0\x01\0",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x00",
    b"\x7f",
    b"caxton:agent/handler@0.1.0",
    b"caxton:agent/snapshot@0.1.0",
    b"wasi:http/incoming-handler@0.2.0",
    b"wasi:cli/environment@9.9.9",
    b"caxton:reuse",
    b"\x00\x20\x0ccaxton:reuse",
    b".debug_info",
    b"\x01\x00",
    b"\x0a\x01",
    b"\x0b\x01",
];

/// Bytes from which `wasm-smith` makes a component or a module.
fn noise(chance: &mut Chance) -> Vec<u8> {
    let count = 16 + chance.below(2_000);
    chance.bytes(count)
}

fn made(number: u64, chance: &mut Chance, guests: &[Vec<u8>]) -> Vec<u8> {
    let noise = noise(chance);
    let mut noise = Unstructured::new(&noise);
    let config = Config { max_imports: 20, max_exports: 20, allow_invalid_funcs: true, ..Config::default() };
    match number % 4 {
        0 => Component::new(config, &mut noise).map(|made| made.to_bytes()).unwrap_or_default(),
        // As a module of a guest: alone, a module is refused by its first bytes.
        1 => {
            let module = Module::new(config, &mut noise).map(|made| made.to_bytes()).unwrap_or_default();
            let mut bytes = guests[0].clone();
            bytes.extend(section(1, &module));
            bytes
        }
        2 => {
            let made = Component::new(config, &mut noise).map(|made| made.to_bytes()).unwrap_or_default();
            mutate(chance, &made, &WORDS)
        }
        _ => {
            let guest = chance.pick(guests);
            mutate(chance, guest, &WORDS)
        }
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn malformed_components_are_inspected() {
    let stateful = Guest {
        world: "stateful",
        more: "(func (export \"caxton:agent/snapshot@0.1.0#save\") (result i32) (i32.const 16))
            (func (export \"caxton:agent/snapshot@0.1.0#restore\") (param i32 i32) (result i32) (i32.const 16))",
        ..Guest::default()
    };
    let guests = [
        handles(COUNT),
        stateful.build(),
        with_section(handles(""), "caxton:reuse", b"7\n"),
        with_module(handles(""), "(module (memory 3) (func (export \"f\")))"),
    ];
    let mut refused = 0;
    for number in 0..INPUTS {
        let (_case, mut chance) = Case::begin("component", number);
        let bytes = made(number, &mut chance, &guests);
        is_cut(&bytes);
        if let Err(findings) = outline(&bytes) {
            assert!(!findings.is_empty(), "refused without a finding");
        }
        if let Err(findings) = summarise(&bytes) {
            refused += 1;
            assert!(findings.iter().all(|finding| finding.to_string().len() < 100_000), "a finding of any length");
        }
    }
    // Neither all: then nothing of it would be looked at, nor none.
    assert!(refused > INPUTS / 2 && refused < INPUTS, "{refused} of {INPUTS} were refused");
}
