//! The guests of `components/` export what a host recognizes them by, as read from the bytes that `components/build.sh`
//! built. A language whose tools are missing is printed as not tested.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use wasmparser::{Parser, Payload};
use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldItem, WorldKey};

const HANDLER: &str = "caxton:agent/handler@0.1.0";
const HEALTH: &str = "caxton:agent/health@0.1.0";
const MIGRATION: &str = "caxton:agent/migration@0.1.0";
const SNAPSHOT: &str = "caxton:agent/snapshot@0.1.0";
const HTTP: &str = "wasi:http/incoming-handler@0.2";
const SERVICE: &str = "wasi:http/handler@0.3.0";
const BROKER: &str = "wasmcloud:messaging/handler@0.2.0";

/// The packages of other hosts whose interfaces are offered.
const OTHER_HOSTS: [&str; 2] = ["fermyon:spin/", "wasmcloud:messaging/"];

/// The largest size of a small guest in Rust, in bytes.
const SMALL: u64 = 80 * 1024;

#[test]
fn guests_export_what_hosts_look_for() {
    let languages = build();
    for (name, language) in list() {
        if !languages.contains(&format!("\"{language}\": true")) {
            println!("not tested: {name}, since {languages}");
            continue;
        }
        let (imports, exports) = read(&name);
        let expected: &[&str] = match name.as_str() {
            "web" | "web-echo" | "rogue-web" | "web-effects" | "once" | "reusable" | "zoo-web" => &[HTTP],
            "keyvalue" | "spin-counter" => &[HTTP],
            "p3-web" | "p3-candidate" | "p3-spin" => &[SERVICE],
            "two-faces" => &[HANDLER, HTTP],
            "wasmcloud-echo" => &[BROKER],
            "assistant" | "limiter" | "model" | "web-stream" => &[HEALTH, HTTP],
            "web-agent" => &[HEALTH, MIGRATION, HTTP],
            "session" | "fragile" | "memoir" | "tally" | "zoo-memory" => &[HANDLER, HEALTH, SNAPSHOT],
            "shapes-new" => &[HANDLER, HEALTH, MIGRATION],
            "by-record" | "by-resource" => &["read-all", "read-content", "read-routing"],
            _ if language == "rust" => &[HANDLER, HEALTH],
            _ => &[HANDLER],
        };
        // The runtime of a language may export functions of its own, which hosts ignore.
        let found: Vec<&String> = exports.iter().filter(|export| language == "rust" || export.contains(':')).collect();
        let as_expected =
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, start)| found.starts_with(start));
        assert!(as_expected, "{name} exports {exports:?}");
        // These have state or send as well.
        let made_for_any_host = expected == [HTTP] && !["web-effects", "keyvalue"].contains(&name.as_str());
        for import in &imports {
            let known = import.starts_with("wasi:")
                || (import.starts_with("caxton:") && !made_for_any_host)
                || OTHER_HOSTS.iter().any(|package| import.starts_with(package));
            assert!(known, "{name} imports {import}");
        }
    }
}

#[test]
fn the_declared_reuse_is_in_the_component() {
    build();
    for (name, expected) in [("reusable", Some("3\n")), ("once", None), ("echo", None)] {
        let bytes = fs::read(dist(name)).expect("it was built");
        let found = Parser::new(0).parse_all(&bytes).find_map(|payload| match payload.expect("it is a component") {
            Payload::CustomSection(section) if section.name() == "caxton:reuse" => {
                Some(String::from_utf8_lossy(section.data()).into_owned())
            }
            _ => None,
        });
        assert_eq!(found.as_deref(), expected, "{name}");
    }
}

#[test]
fn a_small_guest_in_rust_is_small() {
    build();
    let bytes = fs::metadata(dist("echo")).expect("it was built").len();
    assert!(bytes < SMALL, "echo has {bytes} bytes");
}

/// Builds the guests once and returns the content of `components/dist/languages`.
fn build() -> &'static str {
    static LANGUAGES: LazyLock<String> = LazyLock::new(run_build);
    &LANGUAGES
}

fn run_build() -> String {
    let built = Command::new(components().join("build.sh")).status().expect("build.sh can be started");
    assert!(built.success(), "build.sh failed");
    fs::read_to_string(components().join("dist/languages")).expect("build.sh wrote it")
}

/// Returns the name and language of every guest.
fn list() -> Vec<(String, String)> {
    let listed = Command::new(components().join("build.sh")).arg("--list").output().expect("build.sh can be started");
    let listed = String::from_utf8(listed.stdout).expect("names are text");
    let words = listed.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    words.map(|words| (words[0].clone(), words[1].clone())).collect()
}

/// Returns the imports and exports of a guest, sorted by name.
fn read(name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let bytes = fs::read(dist(name)).expect("it was built");
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&bytes).expect("it is a component") else {
        panic!("{name} is a package and not a component")
    };
    let world = &resolve.worlds[world];
    let imports = world.imports.iter().filter(|(_, item)| !matches!(item, WorldItem::Type { .. }));
    (
        imports.map(|(key, _)| key_name(&resolve, key)).collect(),
        world.exports.keys().map(|key| key_name(&resolve, key)).collect(),
    )
}

fn key_name(resolve: &Resolve, key: &WorldKey) -> String {
    resolve.name_world_key(key)
}

fn dist(name: &str) -> PathBuf {
    components().join("dist").join(format!("{name}.wasm"))
}

fn components() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../components")
}
