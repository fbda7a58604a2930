//! Guests in text: what no compiler makes.

use caxton_tests::Setup;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::{ATTACKER, Street, text_of};
use crate::agent;

/// Makes a component of the contract of a core module in text.
pub(super) fn component(module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit")).expect("the contract");
    let world = resolve.select_world(&[package], Some("agent")).expect("its world");
    let mut module = wat::parse_str(module).expect("a module in text");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a module can have metadata");
    let encoder = ComponentEncoder::default().module(&module).expect("a module of the world");
    encoder.validate(true).encode().expect("a component")
}

#[test]
fn every_trap_and_lie_is_a_fault_of_the_guest() {
    let limits = "limits = { cpu = \"300ms\", time = \"60s\", memory = \"8MiB\" }\n";
    // One instance: the attacks on the next message need the same one.
    let settings = format!("{}{limits}", ATTACKER.replace("max = 2", "max = 1"));
    let traps = agent("traps", "echo", &settings).replace("\"GUEST(echo)\"", "\"traps.wasm\"");
    let mut street = Street::start_with(&traps, |setup: &Setup| {
        std::fs::write(setup.folder().join("traps.wasm"), component(&text_of("traps"))).expect("it can be written");
    });
    for (way, status, code) in [
        ("0 unreachable", 500, "trap"),
        ("1 divides by zero", 500, "trap"),
        ("2 divides beyond its range", 500, "trap"),
        ("3 converts what is no number", 500, "trap"),
        ("4 converts beyond the range", 500, "trap"),
        ("5 reads outside its memory", 500, "trap"),
        ("6 fills outside its memory", 500, "trap"),
        ("7 calls nothing", 500, "trap"),
        ("8 calls a function of another type", 500, "trap"),
        ("9 calls outside its table", 500, "trap"),
        ("a reads outside its table", 500, "trap"),
        ("b recurses", 500, "trap"),
        ("d returns a place outside its memory", 500, "trap"),
        ("e returns a content outside its memory", 500, "trap"),
        ("f returns a text that is none", 500, "trap"),
        ("g returns neither ok nor an error", 500, "trap"),
        ("h returns a content of 4 GiB", 500, "trap"),
        ("i returns a crooked place", 500, "trap"),
        ("j grows its memory", 204, ""),
        ("k grows its table", 204, ""),
        ("m traps after its answer", 500, "trap"),
        ("n loops after its answer", 500, "cpu-exceeded"),
    ] {
        let (found, told) = street.post("/traps", way);
        assert_eq!((found, told.as_str()), (status, code), "{way}");
        // An instance of its own for each: what one leaves behind is no part of the next.
        assert_eq!(street.post("/traps", "x").0, 204, "after {way}");
    }
    for (way, code) in [
        ("p takes the next message outside its memory", "trap"),
        ("q takes the next message to a crooked place", "trap"),
        ("r never takes the next message", "cpu-exceeded"),
        ("s traps over the next message", "trap"),
    ] {
        assert_eq!(street.post("/traps", way).0, 204, "{way}");
        let (status, told) = street.post("/traps", "x");
        assert_eq!((status, told.as_str()), (500, code), "{way}");
        assert_eq!(street.post("/traps", "x").0, 204, "after {way}");
    }
    street.until_at_rest();
}
