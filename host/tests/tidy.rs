//! The rules of this repository that a machine can see: sizes, circles between modules, names of types, the form of
//! comments, where wasmtime and `unsafe` may be, and rules of tests.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use modules::{CRATES, Modules, circles, describe, fold, inside, root};

/// Lines of a file before its tests.
const MAX_FILE: usize = 450;
/// Lines of a function.
const MAX_FUNCTION: usize = 70;

/// Files and functions that may be longer, and why.
const LONGER: &[(&str, &str)] = &[];

/// Lines outside `wasm/` that may name wasmtime, and why.
const WASMTIME: &[(&str, &str)] = &[
    // A bound of a generic function: any error that a body can have.
    ("host/src/agent/http.rs", "B::Error: Into<wasmtime_wasi_http::Error>,"),
    // Keeps wasmtime's own lines out of the log.
    ("host/src/telemetry/logging.rs", r#"("caxton=trace,wasmtime=off", None),"#),
];

/// Files that may be unsafe: they load machine code that this host compiled, or are generated.
const UNSAFE: &[&str] = &["host/src/wasm/compile/artefact.rs", "sdk/rust/src/bindings.rs"];

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

/// Returns the part of a file before its tests.
fn production(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests {").map_or(text, |end| &text[..end])
}

fn check(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[test]
fn files_and_functions_have_a_limited_size() {
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

#[test]
fn circles_between_modules_are_found() {
    let two = Modules::parse(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a/mod.rs", "mod inner;\npub use inner::Thing;\n/// `crate::c::Low`\npub struct Other;"),
        ("a/inner.rs", "use crate::{b::{self, Down}, c};\npub struct Thing(Down, c::Low);"),
        ("b.rs", "use crate::a::Thing as Up;\npub struct Down(Option<Box<Up>>);"),
        ("c.rs", "pub struct Low;\n#[cfg(test)]\nmod tests { use crate::a::Other; }"),
    ]);
    let arrows = two.arrows();
    let names = |files: &[&str]| files.iter().map(|file| (*file).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(circles(&arrows), [names(&["a/inner.rs", "b.rs"])], "{arrows:?}");
    assert_eq!(circles(&fold(&arrows, "")), [names(&["a", "b"])], "{arrows:?}");
}

/// The greatest number of the host's files that are in circles. It may only fall; `caxton-control` has none.
const MAX_TIED_FILES: usize = 16;

/// Checks that no two modules below the root of a crate import each other, not even by a third one; and no two files of
/// `caxton-control`. The order of the layers is in `docs/architecture.md`, which `host/tests/tour.rs` compares.
#[test]
fn modules_have_no_circles() {
    let all = Modules::read().arrows();
    let (mut broken, mut tied) = (Vec::new(), 0);
    for (name, folder) in CRATES {
        let arrows = inside(&all, folder);
        let folded = fold(&arrows, folder);
        let (modules, files) = (circles(&folded), circles(&arrows));
        let in_circles: usize = files.iter().map(BTreeSet::len).sum();
        println!(
            "{folder}: {} circles between modules, {} between files, of {in_circles} files",
            modules.len(),
            files.len()
        );
        files.iter().for_each(|circle| println!("files, {}", describe(circle, &arrows)));
        broken.extend(modules.iter().map(|circle| describe(circle, &folded)));
        if name == "caxton_control" {
            broken.extend(files.iter().map(|circle| describe(circle, &arrows)));
        } else {
            tied += in_circles;
        }
    }
    check("no module imports one that imports it", &broken);
    assert!(tied <= MAX_TIED_FILES, "{tied} files of the host are in circles, and not {MAX_TIED_FILES}");
}

/// Types and traits of the two packages that share their name with another, in hundredths.
const MAX_SHARED_NAMES: usize = 5;

#[test]
fn types_have_names_of_their_own() {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, file) in Modules::read().types() {
        by_name.entry(name).or_default().push(file);
    }
    let all: usize = by_name.values().map(Vec::len).sum();
    let shared: Vec<String> = by_name
        .iter()
        .filter(|(_, files)| files.len() > 1)
        .map(|(name, files)| format!("{name}: {}", files.join(", ")))
        .collect();
    let count: usize = by_name.values().map(Vec::len).filter(|files| *files > 1).sum();
    println!("{count} of {all} types share their names:\n{}", shared.join("\n"));
    assert!(count * 100 <= all * MAX_SHARED_NAMES, "{count} of {all} types share their names:\n{}", shared.join("\n"));
}

/// The share of doc comments that may begin otherwise, in thousandths.
const MAX_OTHER_DOCS: usize = 10;

/// Returns whether the first line of a doc comment begins with an article or a verb in the third person.
fn is_doc_line(line: &str, is_help: bool) -> bool {
    // Words that end as a verb does.
    const NO_VERBS: [&str; 12] =
        ["Always", "As", "Besides", "Its", "Is", "Less", "Perhaps", "Sometimes", "This", "Thus", "Unless", "Was"];
    // Questions and pronouns, which begin a clause whose subject is not named.
    const NO_HELP: [&str; 16] = [
        "How", "It", "Its", "Nobody", "Somebody", "That", "This", "What", "When", "Where", "Whether", "Which", "Who",
        "Whoever", "Whom", "Why",
    ];
    let first = line.split_whitespace().next().unwrap_or_default();
    let word = first.trim_end_matches([',', ':', '.', ';']);
    // Help texts of the command line speak to their reader, as other programs' do: "Show this agent in full".
    if is_help {
        return !NO_HELP.contains(&word);
    }
    let is_code = first.starts_with(|c: char| c == '`' || c == '[' || c == '<' || c.is_ascii_digit());
    let is_proper = word.chars().filter(char::is_ascii_uppercase).count() > 1;
    let is_verb = word.ends_with('s') && word.starts_with(char::is_uppercase) && !NO_VERBS.contains(&word);
    // "Set if …" is short for "Is set if …", of flags.
    ["A", "An", "The", "Set"].contains(&word) || is_code || is_proper || is_verb
}

#[test]
fn doc_comments_begin_with_an_article_or_a_verb() {
    for (line, expected) in [
        ("Returns the length.", true),
        ("A slot in the pool.", true),
        ("`Desired` as JSON.", true),
        ("64 KiB at most.", true),
        ("Set if the caller left.", true),
        ("HTTP agents.", true),
        ("Whether it runs.", false),
        ("This runs.", false),
        ("Its name.", false),
        ("Run it.", false),
        ("Taken by whoever asks.", false),
    ] {
        assert_eq!(is_doc_line(line, false), expected, "{line}");
    }
    let (mut broken, mut all) = (Vec::new(), 0);
    for (path, text) in sources(&["host", "sdk/rust", "tests", "benches", "components"]) {
        if UNSAFE.contains(&path.as_str()) && path.ends_with("bindings.rs") {
            continue;
        }
        let mut before = "";
        for (at, line) in text.lines().map(str::trim_start).enumerate() {
            let doc = ["///", "//!"].into_iter().find(|mark| line.starts_with(mark));
            if let Some(mark) = doc.filter(|mark| !before.starts_with(mark)) {
                let line = line[mark.len()..].trim();
                let is_help = path.starts_with("host/src/cli/") && !line.ends_with('.');
                all += 1;
                if !is_doc_line(line, is_help) {
                    broken.push(format!("{path}:{}: {line}", at + 1));
                }
            }
            before = line;
        }
    }
    println!("{} of {all} doc comments begin otherwise:\n{}", broken.len(), broken.join("\n"));
    assert!(
        broken.len() * 1000 <= all * MAX_OTHER_DOCS,
        "{} of {all} doc comments begin with neither an article nor a verb in the third person:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

/// The least share of comment lines that give reasons, of the lines of code, in thousandths.
const MIN_REASONS: usize = 40;

#[test]
fn reasons_stand_beside_the_code() {
    for folder in ["host/src", "host/control/src", "sdk/rust/src", "tests/src", "benches/src"] {
        let (mut reasons, mut code) = (0, 0);
        let mut files = Vec::new();
        for (path, text) in sources(&[folder]) {
            if is_test(&path) || UNSAFE.contains(&path.as_str()) && path.ends_with("bindings.rs") {
                continue;
            }
            let lines = production(&text).lines().map(str::trim_start).filter(|line| !line.is_empty());
            let (comments, other): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("//"));
            let own = comments.iter().filter(|line| !line.starts_with("///") && !line.starts_with("//!")).count();
            files.push(format!("{path}: {own} of {}", other.len()));
            reasons += own;
            code += other.len();
        }
        let share = reasons * 1000 / code.max(1);
        println!("{folder}: {reasons} lines of reasons beside {code} lines of code, {share} in a thousand");
        println!("{}", files.join("\n"));
        assert!(share >= MIN_REASONS, "{folder} gives {share} lines of reasons to a thousand of code");
    }
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
fn schemas_of_the_api_are_in_its_folders() {
    let mut broken = Vec::new();
    for (path, text) in sources(&["host/src"]) {
        let is_api = ["host/src/api_types/", "host/src/admin/"].iter().any(|folder| path.starts_with(folder));
        if !is_api && text.contains("utoipa") {
            broken.push(path);
        }
    }
    check("what the API serves has a type of its own in host/src/api_types or host/src/admin", &broken);
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
fn the_control_package_has_no_side_effects() {
    let manifest = fs::read_to_string(root().join("host/control/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let names: Vec<&str> =
        dependencies.lines().filter_map(|line| line.split(['.', ' ']).next()).filter(|name| !name.is_empty()).collect();
    // The three of the calendar only calculate: the clock is an argument. What hashes differ by decides nothing. Digests
    // and their comparison only calculate, too, and a URL is only parsed.
    let expected = [
        "ahash",
        "chrono",
        "chrono-tz",
        "compact_str",
        "croner",
        "prefetch-index",
        "serde",
        "serde_json",
        "sha2",
        "smallvec",
        "strsim",
        "subtle",
        "thiserror",
        "url",
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
fn tests_neither_sleep_nor_are_ignored() {
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
fn the_repository_has_its_licence_and_example() {
    for (file, holds) in [("LICENSE", "Apache License"), ("caxton.toml", "caxton = 1")] {
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(holds), "{file} does not hold `{holds}`");
    }
}
