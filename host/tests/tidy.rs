//! The rules of this repository that a machine can see: sizes, arrows between modules, where wasmtime and
//! `unsafe` may be, and what no test does.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file before its tests.
const MAX_FILE: usize = 450;
/// Lines of a function.
const MAX_FUNCTION: usize = 70;

/// Files and functions that may be longer, and why.
const LONGER: &[(&str, &str)] = &[];

/// The modules of the host, the outermost first. One may import those below it, and those of its own row.
const ROWS: &[&[&str]] = &[
    &["main"],
    &["lib"],
    &["cli"],
    &["host"],
    &["http", "admin"],
    &["reconcile", "watch", "build", "schedules", "sweep"],
    &["agent", "routes", "commons", "receipts", "timers"],
    &["wasm", "store", "events", "logs"],
    &["config", "control", "metrics", "tasks", "systemd", "shutdown"],
    &["telemetry"],
    &["figures", "buckets", "histogram", "prefetch", "listener"],
    &["status", "seam", "clock", "trace", "stamp"],
];

/// Arrows that the rows would allow and that are not wanted.
const NO_ARROWS: &[(&str, &[&str])] = &[
    // Two ways in, neither of which is built on the other, and which change nothing that runs by themselves.
    ("http", &["admin", "reconcile", "watch", "build"]),
    ("admin", &["http", "reconcile", "watch", "build"]),
    // What a guest asks for goes through `Outside`.
    ("wasm", &["store", "events", "logs", "config", "control", "metrics", "status"]),
];

/// Lines outside `wasm/` that may name wasmtime, and why.
const WASMTIME: &[(&str, &str)] = &[
    // A bound of a generic function: any error that a body can have.
    ("host/src/agent/http.rs", "B::Error: Into<wasmtime_wasi_http::Error>,"),
    // Keeps wasmtime's own lines out of the log.
    ("host/src/telemetry.rs", r#"("caxton=trace,wasmtime=off", None),"#),
];

/// Files that may be unsafe: they load machine code that this host compiled, or are generated.
const UNSAFE: &[&str] = &["host/src/wasm/artefact.rs", "sdk/rust/src/bindings.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The Rust files under these folders, by their path from the root.
fn sources(folders: &[&str]) -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<String, String>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    folders.iter().for_each(|folder| walk(&root().join(folder), &mut found));
    assert!(!found.is_empty(), "{folders:?} have no Rust files");
    found
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// What comes before the tests of a file.
fn production(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests {").map_or(text, |end| &text[..end])
}

fn check(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[test]
fn files_and_functions_are_of_a_size_to_read() {
    let longer = |name: &str| LONGER.iter().any(|(known, _)| *known == name);
    let mut broken = Vec::new();
    for (path, text) in sources(&["host/src", "host/control/src", "sdk/rust/src", "tests/src", "benches"]) {
        if is_test(&path) || UNSAFE.contains(&path.as_str()) && path.ends_with("bindings.rs") {
            continue;
        }
        let text = production(&text);
        let lines = text.lines().count();
        if lines > MAX_FILE && !longer(&path) {
            broken.push(format!("{path} has {lines} lines"));
        }
        for (name, lines) in functions(text) {
            if lines > MAX_FUNCTION && !longer(&format!("{path}: {name}")) {
                broken.push(format!("{path}: {name} has {lines} lines"));
            }
        }
    }
    check(&format!("files have up to {MAX_FILE} lines, functions up to {MAX_FUNCTION}"), &broken);
}

/// The functions of a file as rustfmt lays them out, with their lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let Some((before, after)) = line.trim_start().split_once("fn ") else { continue };
        let words =
            ["", "pub ", "pub(crate) ", "pub(super) ", "async ", "const ", "pub(crate) async ", "pub(super) async "];
        if !words.contains(&before) {
            continue;
        }
        let end = lines[at..].iter().position(|line| *line == format!("{indent}}}"));
        if let Some(end) = end.filter(|_| !line.ends_with(';')) {
            let name = after.split(['(', '<']).next().unwrap_or_default();
            found.push((name.to_owned(), end + 1));
        }
    }
    found
}

/// The module of the host that a file belongs to.
fn module(path: &str) -> String {
    let path = path.trim_start_matches("host/src/");
    path.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
}

/// The modules of the host that a text imports, as `crate::NAME` or `crate::{NAME, …}`.
fn imports(text: &str) -> Vec<String> {
    let names = |text: &str| -> Vec<String> {
        let name = |part: &str| part.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap().to_owned();
        match text.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').map(|part| name(part.trim())).collect(),
            None => vec![name(text)],
        }
    };
    text.split("crate::").skip(1).flat_map(names).filter(|name| !name.is_empty()).collect()
}

#[test]
fn arrows_between_modules_point_downwards() {
    let row = |module: &str| ROWS.iter().position(|row| row.contains(&module));
    let mut broken = Vec::new();
    for (path, text) in sources(&["host/src"]) {
        if is_test(&path) {
            continue;
        }
        let from = module(&path);
        let Some(here) = row(&from) else {
            broken.push(format!("{path}: the module `{from}` has no place in `ROWS`"));
            continue;
        };
        for to in imports(production(&text)) {
            let forbidden = NO_ARROWS.iter().any(|(module, not)| *module == from && not.contains(&to.as_str()));
            match row(&to) {
                Some(there) if there < here || forbidden => broken.push(format!("{path}: {from} imports {to}")),
                Some(_) => {}
                // Macros and items of the crate itself.
                None => {}
            }
        }
    }
    check("a module imports what is below it", &broken);
}

#[test]
fn wasmtime_stays_in_its_module() {
    let mut broken = Vec::new();
    for (path, text) in sources(&["host/src", "host/control", "tests"]) {
        if path.starts_with("host/src/wasm/") || path.starts_with("host/control/tests") {
            continue;
        }
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code.filter(|line| line.contains("wasmtime")) {
            if !WASMTIME.contains(&(path.as_str(), line.trim())) {
                broken.push(format!("{path}: {}", line.trim()));
            }
        }
    }
    check("types of wasmtime stay in host/src/wasm", &broken);
}

#[test]
fn unsafe_is_in_the_file_that_loads_artefacts() {
    let mut broken = Vec::new();
    for (path, text) in sources(&["host", "sdk/rust/src", "tests", "benches"]) {
        if !UNSAFE.contains(&path.as_str()) && path != "host/tests/tidy.rs" && text.contains("unsafe_code") {
            broken.push(path);
        }
    }
    check("`unsafe` is allowed in one file", &broken);
}

#[test]
fn decisions_do_not_act() {
    let manifest = fs::read_to_string(root().join("host/control/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let names: Vec<&str> =
        dependencies.lines().filter_map(|line| line.split(['.', ' ']).next()).filter(|name| !name.is_empty()).collect();
    // The three of the calendar only calculate: the clock is an argument. What hashes differ by decides nothing.
    let expected = [
        "ahash",
        "chrono",
        "chrono-tz",
        "compact_str",
        "croner",
        "prefetch-index",
        "serde",
        "serde_json",
        "smallvec",
        "strsim",
        "thiserror",
    ];
    assert_eq!(names, expected, "caxton-control depends on nothing that acts");
    let mut broken = Vec::new();
    for (path, text) in sources(&["host/control/src"]) {
        for acts in [
            "std::fs",
            "TcpListener",
            "TcpStream",
            "UdpSocket",
            "std::process",
            "std::thread",
            "std::env",
            "Instant::now",
            "SystemTime::now",
            "Utc::now",
            "Local::now",
        ] {
            if production(&text).contains(acts) {
                broken.push(format!("{path}: {acts}"));
            }
        }
    }
    check("caxton-control reads no clock, file or variable and starts nothing", &broken);
}

#[test]
fn tests_neither_sleep_nor_hide() {
    let forbidden =
        [concat!("#[", "ignore"), concat!("thread::", "sleep("), concat!("time::", "sleep("), concat!(" ", "sleep(")];
    let mut broken = Vec::new();
    for (path, text) in sources(&["host", "sdk/rust", "tests"]) {
        let tests =
            if is_test(&path) || path.starts_with("tests/") { &text[..] } else { &text[production(&text).len()..] };
        for word in forbidden.iter().filter(|word| tests.contains(*word)) {
            broken.push(format!("{path}: {word}"));
        }
    }
    check("a test waits for a condition with a limit, and none is left out", &broken);
}

#[test]
fn what_a_repository_needs_is_there() {
    for (file, holds) in [("LICENSE", "Apache License"), ("caxton.toml", "caxton = 1")] {
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(holds), "{file} does not hold `{holds}`");
    }
}
