//! The tour of the code, `docs/architecture.md`: its files are there, its ways follow imports and calls, and its table of
//! modules has the order of the layers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod modules;
mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use pages::{Page, pages, root};

/// The sources of the host.
const HOST: &str = "host/src";
/// The ways through the code in `docs/architecture.md`.
const WAYS: [&str; 4] = ["An HTTP call", "A message", "A changed file", "A setting"];

fn check(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

fn tour() -> Page {
    pages().into_iter().find(|page| page.path == "docs/architecture.md").expect("docs/architecture.md")
}

/// A step of a way through the code.
struct Step<'a> {
    line: usize,
    number: &'a str,
    text: &'a str,
}

impl Step<'_> {
    /// Returns the file with which the step begins.
    fn file(&self) -> Option<&str> {
        Some(self.text.strip_prefix('`')?.split_once('`')?.0)
    }
}

/// Returns the ordered lists of `docs/architecture.md`, by their headings.
fn ways(tour: &Page) -> BTreeMap<&str, Vec<Step<'_>>> {
    let (mut ways, mut way): (BTreeMap<&str, Vec<Step<'_>>>, _) = (BTreeMap::new(), "");
    for (line, text) in tour.prose() {
        if text.starts_with('#') {
            way = text.trim_start_matches(['#', ' ']);
        } else if let Some((number, text)) = text.split_once(". ").filter(|(number, _)| number.parse::<usize>().is_ok())
        {
            ways.entry(way).or_default().push(Step { line, number, text });
        }
    }
    ways
}

/// Checks the ordered lists of `docs/architecture.md`, the ways through the code: each step names a file and has a line on
/// what it does. The tables have to name every module.
#[test]
fn the_tour_of_the_code_is_complete() {
    let tour = tour();
    let (mut broken, ways) = (Vec::new(), ways(&tour));
    for (way, steps) in &ways {
        for (at, Step { line, number, text }) in steps.iter().enumerate() {
            if *number != (at + 1).to_string() {
                broken.push(format!("{}:{line}: step {} of `{way}` has the number {number}", tour.path, at + 1));
            }
            let file = text.strip_prefix('`').and_then(|text| text.split_once('`'));
            if !file.is_some_and(|(file, does)| root().join(file).is_file() && does.len() > 10) {
                broken.push(format!("{}:{line}: no file that is there, with what it does: {text}", tour.path));
            }
        }
    }
    for way in WAYS {
        if ways.get(way).is_none_or(|steps| steps.len() < 5) {
            broken.push(format!("{}: the way `{way}` is missing", tour.path));
        }
    }
    let named: BTreeSet<&str> = tour.prose().flat_map(|(_, line)| line.split('`').skip(1).step_by(2)).collect();
    for folder in ["host/src", "host/control/src"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let name = if entry.path().is_dir() { format!("{name}/") } else { name };
            if !named.contains(name.as_str()) {
                broken.push(format!("{}: {folder}/{name} is in no table", tour.path));
            }
        }
    }
    check("the tour names the files that there are", &broken);
}

/// A way enters a file once, and each file is tied to one before it: that one leads to it by what it imports and calls, or
/// it imports that one, as what takes from a queue imports the queue.
#[test]
fn the_ways_of_the_tour_follow_the_code() {
    let tour = tour();
    let modules = modules::Modules::read();
    let imports = modules.arrows();
    let mut all = imports.clone();
    all.extend(modules.calls());
    let mut broken = Vec::new();
    for (way, steps) in ways(&tour) {
        let mut before: Vec<String> = Vec::new();
        for (line, file) in steps.iter().filter_map(|step| Some((step.line, step.file()?.to_owned()))) {
            let is_tied = |earlier: &String| {
                modules::reachable(&all, earlier).contains(&file)
                    || imports.contains_key(&(file.clone(), earlier.clone()))
            };
            if before.contains(&file) {
                broken.push(format!("{}:{line}: `{way}` enters {file} twice", tour.path));
            } else if !before.is_empty() && !before.iter().any(is_tied) {
                broken.push(format!("{}:{line}: no earlier step of `{way}` leads to {file}", tour.path));
            }
            before.push(file);
        }
    }
    check("the ways through the code are those of its imports and calls", &broken);
}

/// The table of the host's modules is in the order of its layers: a module imports those of its own row and of the rows
/// below.
#[test]
fn the_table_of_modules_goes_downwards() {
    let tour = tour();
    let table = tour.text.split(&format!("| in `{HOST}` |")).nth(1).unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let mut row_of: BTreeMap<&str, usize> = BTreeMap::new();
    for (row, line) in rows.enumerate() {
        let names = line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2);
        row_of.extend(names.map(|name| (name.trim_end_matches('/').trim_end_matches(".rs"), row)));
    }
    let arrows = modules::fold(&modules::inside(&modules::Modules::read().arrows(), HOST), HOST);
    // Of modules in a circle there is no order; `host/tests/tidy.rs` refuses those.
    let circles = modules::circles(&arrows);
    let is_circle = |from, to| circles.iter().any(|circle| circle.contains(from) && circle.contains(to));
    let broken: Vec<String> = arrows
        .iter()
        .filter(|((from, to), _)| !is_circle(from, to))
        .filter(|((from, to), _)| row_of[from.as_str()] > row_of[to.as_str()])
        .map(|((from, to), names)| format!("{from} is below {to}, and imports {names:?}"))
        .collect();
    check("a module imports those of its own row of docs/architecture.md and of the rows below", &broken);
}
