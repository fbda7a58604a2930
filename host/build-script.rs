//! Tells the crate which wasmtime it is built with: compiled artefacts of another patch release must not be
//! loaded, and wasmtime itself compares only its major version.

use std::path::Path;

fn main() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(&lock).unwrap_or_default();
    let version = text
        .split("[[package]]")
        .find(|package| package.contains("name = \"wasmtime\"\n"))
        .and_then(|package| package.split("version = \"").nth(1)?.split('"').next())
        .unwrap_or("unknown");
    // `cargo run` gives it to the program as well, where a name that begins as settings do would be one.
    println!("cargo::rustc-env=WASMTIME_VERSION={version}");
}
