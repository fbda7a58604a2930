//! Components that attack before their first message.

use std::fmt::Write as _;
use std::fs;

use caxton_tests::{Setup, guest};

use super::text::component;
use super::{Street, text_of};

/// An agent of a file in the folder of the host.
fn of_file(name: &str, more: &str) -> String {
    format!("[agents.{name}]\ncomponent = \"{name}.wasm\"\n{more}")
}

/// A guest that answers nothing, with additions that attack.
fn plain(additions: &str) -> Vec<u8> {
    component(&text_of("plain").replace(";; ADDITIONS", additions))
}

fn parsed(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a component in text")
}

/// Returns a component with a type of the size of two to the power of sixty.
fn types() -> Vec<u8> {
    let mut types = String::new();
    for level in 1..=60 {
        let _ = writeln!(types, "(type $t{level} (tuple $t{0} $t{0}))", level - 1);
    }
    parsed(&text_of("types").replace(";; TYPES", &types))
}

fn imports(count: usize) -> Vec<u8> {
    let mut text = String::from("(component (type $f (func))\n");
    for at in 0..count {
        let _ = writeln!(text, "(import \"a{at}\" (func (type $f)))");
    }
    parsed(&(text + ")"))
}

/// Returns a component with an import of this name, which no text could have.
fn named(name: &[u8]) -> Vec<u8> {
    let component = parsed("(component (import \"aaaa\" (func)))");
    let at = component.windows(4).position(|bytes| bytes == b"aaaa").expect("the name");
    let mut changed = component;
    // The length stands before the name, and that of the section before its content.
    let length = u8::try_from(name.len()).expect("a short name");
    let before = changed[at - 1];
    changed.splice(at..at + 4, name.iter().copied());
    changed[at - 1] = length;
    let section = (0..at).rev().find(|place| changed[*place] == 10).expect("the section of imports");
    changed[section + 1] = changed[section + 1] + length - before;
    changed
}

#[test]
fn components_that_attack_are_refused_before_their_first_message() {
    let echo = fs::read(guest("echo")).expect("a built guest");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("endless", plain("(func $for-ever (loop (br 0))) (start $for-ever)"), "cpu-exceeded"),
        ("trapping", plain("(func $traps unreachable) (start $traps)"), "trap"),
        ("recursing", plain("(func $deep (call $deep)) (start $deep)"), "trap"),
        ("greedy", plain("(table 2000000 funcref)"), "table"),
        ("vast", component(&text_of("plain").replace("\"memory\") 1)", "\"memory\") 65536)")), "memory"),
        ("wrong-type", parsed(&text_of("wrong-type")), "other types than the contract"),
        ("wrong-export", parsed(&text_of("wrong-export")), "exporting a component"),
        ("types", types(), "type size"),
        ("imports", imports(100_001), "100001 imports"),
        ("names", parsed(&format!("(component (import \"a{}\" (func)))", "b".repeat(10_000))), "bytes in the name"),
        ("nameless", named(b""), "import"),
        ("no-text", named(b"\xff\xfe\xfd\xfc"), "invalid"),
        ("twice", twice(), "import"),
        ("a-module", parsed("(module)"), "module"),
        ("cut", echo[..echo.len() / 2].to_vec(), "unexpected end"),
        ("empty", Vec::new(), "empty"),
        ("no-wasm", b"#!/bin/sh\nrm -rf /\n".repeat(100), "WebAssembly"),
    ];
    let mut toml = String::new();
    for (name, ..) in &cases {
        toml += &of_file(name, "limits = { cpu = \"300ms\", time = \"60s\", memory = \"8MiB\" }\n");
    }
    let mut street = Street::start_with(&toml, |setup: &Setup| {
        for (name, bytes, _) in &cases {
            fs::write(setup.folder().join(format!("{name}.wasm")), bytes).expect("it can be written");
        }
    });
    for (name, _, part) in &cases {
        let told = street.host.until(&format!("the refusal of {name}"), |host| {
            let status = host.agent(name);
            // Files that may still be written are waited for: they fail after that.
            let told = status["revisions"][0]["reason"].as_str().or(status["waiting"].as_str())?.to_owned();
            (!told.is_empty() && status["state"] != "starting" && !told.contains("being written")).then_some(told)
        });
        assert!(told.contains(part), "{name}: {told}");
    }
    street.until_at_rest();
}

/// Returns a component with two imports of one name.
fn twice() -> Vec<u8> {
    let mut component = parsed("(component (import \"aaaa\" (func)) (import \"aaab\" (func)))");
    let at = component.windows(4).position(|bytes| bytes == b"aaab").expect("the second name");
    component[at + 3] = b'a';
    component
}
