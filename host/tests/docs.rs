//! The documentation as far as a machine can see whether it is right: links, the table of contents, the files that it
//! names, blocks of JSON. Commands and pieces of `caxton.toml` are tested where they are parsed: in `host/src/cli` and
//! `host/src/config`; Rust by the SDK's tests of its documentation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use caxton_control::inspection::{CODES, FindingCode};
use pages::{Block, Page, arguments_of_caxton, pages, root, words};

fn check(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn links_lead_to_existing_files_and_headings() {
    let pages = pages();
    let anchors: BTreeMap<&str, Vec<String>> = pages.iter().map(|page| (page.path.as_str(), page.anchors())).collect();
    let mut broken = Vec::new();
    for page in &pages {
        for (line, link) in page.links() {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let folder = Path::new(&page.path).parent().unwrap();
            let target = if file.is_empty() { PathBuf::from(&page.path) } else { plain(&folder.join(file)) };
            if !root().join(&target).exists() {
                broken.push(format!("{}:{line}: {link}: there is no such file", page.path));
            } else if let Some(anchor) = anchor {
                let found = anchors.get(target.to_str().unwrap());
                if !found.is_some_and(|anchors| anchors.iter().any(|known| known == anchor)) {
                    broken.push(format!("{}:{line}: {link}: there is no such heading", page.path));
                }
            }
        }
    }
    check("links lead somewhere", &broken);
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let pages = pages();
    let summary = pages.iter().find(|page| page.path == "docs/SUMMARY.md").expect("docs/SUMMARY.md");
    let listed: Vec<String> = summary.links().into_iter().map(|(_, link)| format!("docs/{link}")).collect();
    let mut broken: Vec<String> = pages
        .iter()
        .map(|page| &page.path)
        .filter(|path| path.starts_with("docs/") && *path != "docs/SUMMARY.md")
        .filter(|path| listed.iter().filter(|listed| listed == path).count() != 1)
        .map(|path| format!("{path} is not in docs/SUMMARY.md once"))
        .collect();
    let readme = pages.iter().find(|page| page.path == "README.md").unwrap();
    let named: BTreeSet<&str> = readme.links().into_iter().map(|(_, link)| link).collect();
    broken.extend(
        listed.iter().filter(|path| !named.contains(path.as_str())).map(|path| format!("README.md lacks {path}")),
    );
    check("the table of contents has every page, and so has the README", &broken);
}

#[test]
fn blocks_of_json_are_json() {
    let mut broken = Vec::new();
    for page in &pages() {
        for block in page.blocks().iter().filter(|block| block.language == "json") {
            if let Err(error) = serde_json::from_str::<serde_json::Value>(&block.lines.join("\n")) {
                broken.push(format!("{}:{}: {error}", block.page, block.line));
            }
        }
    }
    check("blocks of JSON parse", &broken);
}

#[test]
fn blocks_have_a_known_language() {
    // A block without a language is Rust to rustdoc.
    const LANGUAGES: [&str; 10] =
        ["console", "dockerfile", "json", "mermaid", "rust", "sh", "systemd", "text", "toml", "wit"];
    let sdk = fs::read_to_string(root().join("sdk/rust/src/lib.rs")).unwrap();
    let mut broken = Vec::new();
    for page in &pages() {
        for block in page.blocks() {
            let Block { page: path, line, language, .. } = block;
            if !LANGUAGES.contains(&language) {
                broken.push(format!("{path}:{line}: `{language}` is none of the languages that a test reads"));
            }
            let included = match path.strip_prefix("sdk/rust/") {
                Some(own) => format!("include_str!(\"../{own}\")"),
                None => format!("include_str!(\"../../../{path}\")"),
            };
            if language == "rust" && !sdk.contains(&included) {
                broken.push(format!("{path}:{line}: sdk/rust/src/lib.rs does not compile the page's examples"));
            }
        }
    }
    check("blocks say what they are", &broken);
}

/// Checks that the packages, tests and benches named by commands of cargo exist.
#[test]
fn cargo_commands_name_existing_targets() {
    let packages: Vec<String> = ["host", "host/control", "sdk/rust", "tests", "benches"]
        .map(|folder| fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap())
        .iter()
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("name = \"")).map(|name| name.replace('"', ""))
        })
        .collect();
    let is_there = |option: &str, name: &str| match option {
        "-p" => packages.iter().any(|package| package == name),
        "--path" => root().join(name).join("Cargo.toml").is_file(),
        "--manifest-path" => root().join(name).is_file(),
        "--bench" => root().join(format!("benches/benches/{name}.rs")).is_file(),
        "--example" => root().join(format!("sdk/rust/examples/{name}.rs")).is_file(),
        "--test" => ["host/tests", "host/control/tests", "sdk/rust/tests", "tests/tests"]
            .iter()
            .any(|folder| [".rs", "/main.rs"].iter().any(|end| root().join(format!("{folder}/{name}{end}")).is_file())),
        _ => true,
    };
    let mut broken = Vec::new();
    for page in &pages() {
        for (line, command) in page.blocks().iter().flat_map(Block::commands) {
            for words in words(&command).iter().filter(|words| words[0] == "cargo") {
                // Members of the other workspace have manifests of their own.
                let own = !words.iter().any(|word| word == "--manifest-path");
                let mut pairs = words.windows(2).filter(|pair| own || pair[0] != "-p");
                let wrong = pairs.find(|pair| arguments_of_caxton(words).is_none() && !is_there(&pair[0], &pair[1]));
                broken.extend(wrong.map(|pair| format!("{}:{line}: {} {} is not there", page.path, pair[0], pair[1])));
            }
        }
    }
    check("commands of cargo name what is there", &broken);
}

/// The words of a page in backticks that look like paths of this repository.
fn paths(page: &Page) -> Vec<(usize, &str)> {
    const FOLDERS: [&str; 8] = ["host/", "sdk/", "wit/", "components/", "tests/", "benches/", "docs/", ".ci/"];
    let words = page.prose().flat_map(|(at, line)| line.split('`').skip(1).step_by(2).map(move |word| (at, word)));
    words
        .filter(|(_, word)| FOLDERS.iter().any(|folder| word.starts_with(folder)) && !word.contains([' ', '*', '{']))
        .collect()
}

#[test]
fn files_named_by_the_pages_exist() {
    let mut broken = Vec::new();
    for page in pages().iter().filter(|page| page.path != "CHANGELOG.md") {
        for (line, path) in paths(page) {
            let beside = Path::new(&page.path).parent().unwrap().join(path);
            // What is built is not in a fresh checkout.
            let is_built = path.starts_with("components/dist");
            if !is_built && !root().join(path).exists() && !root().join(beside).exists() {
                broken.push(format!("{}:{line}: {path}", page.path));
            }
        }
    }
    check("files that the pages name are there", &broken);
}

/// The Rust files under a folder, one after the other.
fn sources(folder: &str) -> String {
    fn walk(folder: &Path, text: &mut String) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut text = String::new();
    walk(&root().join(folder), &mut text);
    text
}

#[test]
fn cited_sections_are_in_the_specification() {
    let spec = fs::read_to_string(root().join("docs/spec.md")).unwrap();
    let code = ["host/src", "host/control", "tests/tests"].map(sources).join("\n");
    let mut cited = BTreeSet::new();
    for (_, rest) in code.lines().filter_map(|line| line.split_once("SPEC §")) {
        // A line may cite several: `SPEC §2, §3`, `SPEC §2–§4`.
        let list = rest.split([')', ':', ';', '(']).next().unwrap();
        cited.extend(
            list.split('§').filter_map(|part| part.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()),
        );
    }
    assert!(cited.len() > 5, "the code cites {cited:?}, or its citations are not found");
    let lacks = |section: &&u32| !spec.contains(&format!("\n## {section}. "));
    let broken: Vec<String> = cited.iter().filter(lacks).map(|section| format!("§{section}")).collect();
    check("docs/spec.md has the sections that the code cites", &broken);
}

/// Words in backticks that have the form of a key, such as `limits.memory`, are keys.
#[test]
fn keys_named_by_the_pages_exist() {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let (mut keys, mut table) = (BTreeSet::new(), String::new());
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("## `[").and_then(|line| line.split(']').next()) {
            table = name.trim_start_matches('[').replace("agents.NAME", "").trim_start_matches('.').to_owned();
            keys.insert(table.clone());
        } else if let Some(key) = line.strip_prefix("| `").and_then(|line| line.split('`').next()) {
            keys.insert(if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") });
        }
    }
    const TABLES: [&str; 16] = [
        "admin",
        "allow",
        "breaker",
        "build",
        "conversations",
        "deploy",
        "http",
        "instances",
        "limits",
        "mailbox",
        "outgoing",
        "probes",
        "reload",
        "rollback",
        "snapshot",
        "store",
    ];
    // Known, and refused.
    const NOT_YET: [&str; 1] = ["allow.udp"];
    // Events have names of the same form.
    let events = sources("host/src");
    let mut broken = Vec::new();
    for page in &pages() {
        for (at, word) in
            page.prose().flat_map(|(at, line)| line.split('`').skip(1).step_by(2).map(move |word| (at, word)))
        {
            let key = word.split([' ', '=']).next().unwrap();
            let is_key = |key: &str| key.split_once('.').is_some_and(|(table, _)| TABLES.contains(&table));
            let plain = key.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '.');
            let is_file = key.ends_with(".rs") || key.ends_with(".md") || key.ends_with(".json");
            let known = || keys.contains(key) || NOT_YET.contains(&key) || events.contains(&format!("\"{key}\""));
            if plain && is_key(key) && !is_file && !known() {
                broken.push(format!("{}:{at}: there is no key {key}", page.path));
            }
        }
    }
    check("keys that the pages name are there", &broken);
}

#[test]
fn metrics_named_by_the_pages_exist() {
    let code = fs::read_to_string(root().join("host/src/telemetry/metrics.rs")).unwrap();
    let mut broken = Vec::new();
    for page in &pages() {
        for (at, line) in page.text.lines().enumerate() {
            for (from, _) in line.match_indices("caxton_") {
                let name: String = line[from..]
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit())
                    .collect();
                let is_crate = line[from..].starts_with("caxton_sdk") || line[from..].starts_with("caxton_control");
                if !is_crate && !code.contains(&format!("\"{name}\"")) {
                    broken.push(format!("{}:{}: there is no metric {name}", page.path, at + 1));
                }
            }
        }
    }
    check("metrics that the pages name are there", &broken);
}

/// The unit of systemd agrees with what the host does: it notifies, feeds the watchdog, drains before it ends, and loads machine
/// code that it compiled.
#[test]
fn the_unit_of_systemd_agrees_with_the_host() {
    let pages = pages();
    let page = |path: &str| pages.iter().find(|page| page.path == path).unwrap();
    let unit = page("docs/operate.md").blocks().into_iter().find(|block| block.language == "systemd").unwrap();
    let value = |key: &str| {
        let line = unit.lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{}:{}: the unit has no {key}", unit.page, unit.line))
    };
    assert!(["notify", "notify-reload"].contains(&value("Type")));
    assert!(value("ExecReload").contains("kill -HUP"), "SIGHUP makes the host read everything again");
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    assert!(seconds(value("WatchdogSec")) >= 6, "the tasks of the host come round once a second");
    let drain = page("docs/configuration.md").text.split("## `[host]`").nth(1).unwrap().to_owned();
    let drain = drain.lines().find(|line| line.starts_with("| `drain`")).unwrap();
    let drain = drain.split("`\"").nth(1).and_then(|rest| rest.split("\"`").next()).unwrap();
    assert!(seconds(value("TimeoutStopSec")) > seconds(drain), "a stop waits for host.drain, which is {drain}");
    assert!(
        !unit.lines.iter().any(|line| line.starts_with("MemoryDenyWriteExecute=") || line.starts_with("ProcSubset="))
    );
}

/// A value in one form: `5 s to 10 min` and `5s to 10m`, `10,000` and `10000` are the same.
fn plain_value(text: &str) -> String {
    text.replace(" min", "m")
        .replace(" %", "%")
        .replace(".0", "")
        .replace([' ', ',', '"', '`'], "")
        .replace("10¹²", "1000000000000")
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    Some(line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect())
}

/// Bounds and defaults in the specification are those of the settings, whose page is written from the table that checks a file.
#[test]
fn the_specification_has_the_bounds_of_the_settings() {
    let pages = pages();
    let page = |path: &str| pages.iter().find(|page| page.path == path).unwrap();
    // Key -> what it takes, and what holds by default.
    let (mut settings, mut table) = (BTreeMap::new(), "");
    for line in page("docs/configuration.md").text.lines() {
        if let Some(name) = line.strip_prefix("## `[").and_then(|line| line.split(']').next()) {
            table = name.trim_start_matches('[').trim_start_matches("agents.NAME").trim_start_matches('.');
        }
        if let Some([key, takes, default, ..]) = cells(line).as_deref() {
            settings.insert(format!("{table}.{}", key.trim_matches('`')), (takes.to_string(), default.to_string()));
        }
    }
    let (mut broken, mut compared) = (Vec::new(), 0);
    for (at, line) in page("docs/spec.md").prose() {
        let Some(cells) = cells(line) else { continue };
        let find = |cell: &str| {
            let key = cell.split('`').nth(1)?;
            let setting = settings.get(key).or_else(|| settings.get(&format!("limits.{key}")));
            setting.map(|setting| (key.to_owned(), setting.clone()))
        };
        let Some((place, (key, (takes, default)))) =
            cells.iter().enumerate().take(2).find_map(|(place, cell)| Some((place, find(cell)?)))
        else {
            continue;
        };
        // A number of a list has its bounds in words.
        let Some((_, bounds)) = takes.split_once(", ").filter(|(_, bounds)| bounds.contains(" to ")) else { continue };
        let Some([said_bounds, said_default, ..]) = cells.get(place + 1..).filter(|rest| rest[0].contains(" to "))
        else {
            continue;
        };
        let said_bounds = said_bounds.split([';', '(']).next().unwrap();
        compared += 1;
        if !plain_value(said_bounds).starts_with(&plain_value(bounds)) {
            broken.push(format!("docs/spec.md:{at}: {key} has the bounds {bounds}, and not {said_bounds}"));
        }
        let default = if default.starts_with("off") { "off" } else { default.as_str() };
        if !plain_value(said_default).starts_with(&plain_value(default)) {
            broken.push(format!("docs/spec.md:{at}: {key} is by default {default}, and not {said_default}"));
        }
    }
    check("docs/spec.md has the values of docs/configuration.md", &broken);
    assert!(compared > 25, "docs/spec.md has the values of {compared} settings, or they are not found");
}

#[test]
fn every_strategy_has_its_picture() {
    let pages = pages();
    let page = |path: &str| &pages.iter().find(|page| page.path == path).unwrap().text;
    let (mut broken, mut strategies) = (Vec::new(), 0);
    for occasion in ["deploy", "reload"] {
        let table = page("docs/configuration.md").split(&format!("## `[agents.NAME.{occasion}]`")).nth(1).unwrap();
        let row = table.lines().find(|line| line.starts_with("| `strategy` |")).unwrap();
        for word in row.split('|').nth(2).unwrap().split('"').skip(1).step_by(2) {
            strategies += 1;
            let section = page("docs/rollouts.md").split(&format!("\n### `{occasion}`: `{word}`\n")).nth(1);
            let section = section.and_then(|rest| rest.split("\n### ").next()).unwrap_or_default();
            if !section.contains("```text\n") || !section.contains(&format!("strategy = \"{word}\"")) {
                broken.push(format!("docs/rollouts.md has no picture and no example of `{occasion}`: `{word}`"));
            }
        }
    }
    assert_eq!(strategies, 8);
    check("each strategy is shown", &broken);
}

/// Checks that the page of the policy lists the codes of findings with their stages, as the program has them.
#[test]
fn the_codes_of_findings_are_listed() {
    let page = fs::read_to_string(root().join("docs/policy.md")).unwrap();
    let is_row = |line: &&str| (1..=6).any(|stage| line.starts_with(&format!("| {stage} | ")));
    let listed: Vec<&str> = page.lines().filter(is_row).collect();
    let row = |code: &&FindingCode| {
        format!("| {} | {} | `{}` | {} |", code.stage.number(), code.stage.as_str(), code.name, code.meaning)
    };
    assert_eq!(listed, CODES.iter().map(row).collect::<Vec<_>>());
}

/// The tests of a folder or file, by name.
fn tests_of(place: &Path) -> BTreeSet<String> {
    let text = if place.is_dir() {
        sources(place.strip_prefix(root()).unwrap().to_str().unwrap())
    } else {
        fs::read_to_string(place).unwrap_or_default()
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_marked = |line: &str| line == "#[test]" || line.starts_with("#[tokio::test");
    let after = lines.iter().enumerate().filter(|(_, line)| is_marked(line));
    let functions = after.filter_map(|(at, _)| lines[at..].iter().find_map(|line| line.split_once("fn ")));
    functions.map(|(_, rest)| rest.split('(').next().unwrap().to_owned()).collect()
}

#[test]
fn tests_named_by_the_page_on_security_exist() {
    let host = root().join("tests/tests/host");
    let all: BTreeSet<String> =
        ["host", "tests/tests"].iter().flat_map(|folder| tests_of(&root().join(folder))).collect();
    let pages = pages();
    let page = pages.iter().find(|page| page.path == "docs/security.md").expect("docs/security.md");
    let is_name = |word: &&str| {
        word.matches('_').count() > 1 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
    };
    let (mut broken, mut named) = (Vec::new(), 0);
    for (at, line) in page.prose() {
        for word in line.split('`').skip(1).step_by(2).filter(is_name) {
            named += 1;
            let is_there = match word.split_once("::") {
                None => all.contains(word),
                Some((module, name)) => {
                    let (file, folder) = (host.join(format!("{module}.rs")), host.join(module));
                    tests_of(if folder.is_dir() { &folder } else { &file }).contains(name)
                }
            };
            if !is_there {
                broken.push(format!("{}:{at}: {word}", page.path));
            }
        }
    }
    check("each test that the page names is there", &broken);
    assert!(named > 50, "the page names {named} tests, or they are not found");
    // A row without a test is a claim.
    let rows = page.prose().filter(|(_, line)| line.starts_with("| ") && line.matches('|').count() == 4);
    let what = page.text.split("## What is defended").nth(1).unwrap().split("\n## ").next().unwrap();
    let without: Vec<String> = rows
        .filter(|(_, line)| what.contains(line) && !line.starts_with("| attack |"))
        .filter(|(_, line)| !line.rsplit('|').nth(1).is_some_and(|shown| shown.contains("_")))
        .map(|(at, line)| format!("{}:{at}: {line}", page.path))
        .collect();
    check("each row of what is defended names a test", &without);
}
