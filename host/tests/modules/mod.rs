//! The modules of the two crates as a graph: a file has an arrow to each file whose items it names.
//!
//! Arrows are read from `use` declarations and paths, and lead to the file that defines an item: a re-export is only a
//! shorter name, so it is followed, and makes no arrow of its own. Calls of methods and what macros generate are not seen.
//!
//! Part of two test programs: `host/tests/tidy.rs` and `host/tests/tour.rs`.

#![allow(dead_code, reason = "each of the two uses a part")]

mod lexer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lexer::{Token, after_group, tokens};

/// The two crates, each with the folder of its sources.
pub(crate) const CRATES: [(&str, &str); 2] = [("caxton", "host/src"), ("caxton_control", "host/control/src")];

/// The path of a module, such as `["caxton", "store", "timer"]`.
type ModulePath = Vec<String>;

/// An arrow between two files or folders.
pub(crate) type Arrow = (String, String);

/// The names of which an arrow consists.
pub(crate) type Arrows = BTreeMap<Arrow, BTreeSet<String>>;

/// A name in scope by `use`.
struct Import {
    /// The path after `use`, as written.
    path: Vec<String>,
    /// The name in this module; `*` for a glob.
    name: String,
    /// Set if other modules can use the name.
    is_reexport: bool,
}

/// A module, read from its file.
#[derive(Default)]
struct Module {
    file: String,
    /// The items that it defines, modules apart.
    items: BTreeSet<String>,
    /// The items that are types or traits.
    types: Vec<String>,
    imports: Vec<Import>,
    /// The paths of two segments and more in its code.
    paths: Vec<Vec<String>>,
    /// The identifiers in its code outside of `use`.
    names: BTreeSet<String>,
    /// The functions inside of `impl` blocks and traits.
    methods: BTreeSet<String>,
    /// The methods that its code calls.
    calls: BTreeSet<String>,
}

/// The target of a path.
enum Target {
    /// An item, and the file that defines it.
    Item(String, String),
    Module(ModulePath),
}

/// The modules of some crates.
pub(crate) struct Modules {
    modules: BTreeMap<ModulePath, Module>,
}

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a folder of the repository").to_owned()
}

/// Returns whether a file has nothing but tests.
fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

impl Modules {
    /// Reads the modules of both crates, without their tests.
    pub(crate) fn read() -> Self {
        let mut modules = Self { modules: BTreeMap::new() };
        for (name, folder) in CRATES {
            let before = modules.modules.len();
            modules.read_folder(name, folder, &root().join(folder));
            assert!(modules.modules.len() > before + 1, "{folder} has no modules");
        }
        modules
    }

    /// Makes a crate of files, by their paths from its root.
    pub(crate) fn parse(files: &[(&str, &str)]) -> Self {
        let mut modules = Self { modules: BTreeMap::new() };
        for (file, text) in files {
            modules.add("caxton", file, file, text);
        }
        modules
    }

    fn read_folder(&mut self, name: &str, sources: &str, folder: &Path) {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() {
                self.read_folder(name, sources, &path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(root()).expect("it is in the repository").display().to_string();
                let inside = file.strip_prefix(sources).expect("it is in the folder").trim_start_matches('/');
                self.add(name, &file, inside, &fs::read_to_string(&path).expect("the file can be read"));
            }
        }
    }

    /// Adds a file of the crate `name`, whose path from the crate's root is `inside`.
    fn add(&mut self, name: &str, file: &str, inside: &str, text: &str) {
        // `main.rs` is a crate of its own, which nothing imports.
        if is_test(file) || inside == "main.rs" {
            return;
        }
        let mut path = vec![name.to_owned()];
        path.extend(inside.trim_end_matches(".rs").split('/').map(str::to_owned));
        if path.last().is_some_and(|last| last == "mod") || inside == "lib.rs" {
            path.pop();
        }
        self.read_module(file, &path, &tokens(text));
    }

    fn read_module(&mut self, file: &str, path: &ModulePath, tokens: &[Token]) {
        const ITEMS: [&str; 9] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules"];
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let (mut at, mut depth, mut is_visible) = (0, 0_usize, false);
        while let Some(token) = tokens.get(at) {
            match token {
                Token::Name(word) if word == "use" => {
                    let end = at + tokens[at..].iter().position(|token| *token == Token::Mark(';')).unwrap_or(0);
                    read_use(&tokens[at + 1..end], &mut Vec::new(), is_visible, &mut module.imports);
                    (at, is_visible) = (end, false);
                }
                Token::Name(word) if word == "pub" => {
                    is_visible = true;
                    if tokens.get(at + 1) == Some(&Token::Mark('(')) {
                        at = after_group(tokens, at + 1) - 1;
                    }
                }
                Token::Name(word) if word == "mod" && tokens.get(at + 2) == Some(&Token::Mark('{')) => {
                    let end = after_group(tokens, at + 2);
                    let name = tokens[at + 1].name().unwrap_or_default().to_owned();
                    self.read_module(file, &[&path[..], &[name]].concat(), &tokens[at + 3..end - 1]);
                    (at, is_visible) = (end - 1, false);
                }
                Token::Name(word) => {
                    if word == "fn" && depth > 0 {
                        module.methods.extend(tokens.get(at + 1).and_then(Token::name).map(str::to_owned));
                    }
                    if at > 0 && tokens[at - 1] == Token::Mark('.') && tokens.get(at + 1) == Some(&Token::Mark('(')) {
                        module.calls.insert(word.clone());
                    }
                    let is_item = depth == 0 && ITEMS.contains(&word.as_str());
                    let defined = tokens.iter().skip(at + 1).find(|token| **token != Token::Mark('!'));
                    if let Some(name) = defined.and_then(Token::name).filter(|name| is_item && !ITEMS.contains(name)) {
                        module.items.insert(name.to_owned());
                        if ["struct", "enum", "trait", "type", "union"].contains(&word.as_str()) {
                            module.types.push(name.to_owned());
                        }
                        is_visible = false;
                    }
                    let (segments, end) = read_path(tokens, at);
                    module.names.insert(segments[0].clone());
                    if segments.len() > 1 {
                        module.paths.push(segments);
                    }
                    at = end - 1;
                }
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth = depth.saturating_sub(1),
                Token::Separator | Token::Mark(_) => {}
            }
            at += 1;
        }
        self.modules.insert(path.clone(), module);
    }

    /// Resolves a path that stands in a module; `None` if it leads to another crate than these.
    fn resolve(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<Target> {
        // Two modules may import all of each other; such a name is nowhere.
        let deeper = depth.checked_sub(1)?;
        let (mut module, mut rest) = (from.clone(), path);
        match path[0].as_str() {
            "crate" => (module, rest) = (from[..1].to_vec(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            _ => {}
        }
        let Some(name) = rest.first() else { return Some(Target::Module(module)) };
        let child = [&module[..], std::slice::from_ref(name)].concat();
        if self.modules.contains_key(&child) {
            return if rest.len() == 1 {
                Some(Target::Module(child))
            } else {
                let inside = [&["self".to_owned()], &rest[1..]].concat();
                self.resolve(&child, &inside, deeper)
            };
        }
        let here = self.modules.get(&module)?;
        if here.items.contains(name) {
            return Some(Target::Item(name.clone(), here.file.clone()));
        }
        for import in here.imports.iter().filter(|import| import.name == *name || import.name == "*") {
            // A `use` of a name that leads to the same name again is of another crate.
            if import.path == path {
                continue;
            }
            let imported =
                if import.name == "*" { [&import.path[..], &rest[..1]].concat() } else { import.path.clone() };
            let found = self.resolve(&module, &[&imported[..], &rest[1..]].concat(), deeper);
            if found.is_some() {
                return found;
            }
        }
        // Crates are found last, as a name of the module hides one of a crate.
        let crate_root = std::slice::from_ref(name);
        let is_crate = path.len() == rest.len() && module != crate_root && self.modules.contains_key(crate_root);
        if is_crate {
            self.resolve(&crate_root.to_vec(), &[&["self".to_owned()], &rest[1..]].concat(), deeper)
        } else {
            None
        }
    }

    /// Returns the name and the file of each type and trait.
    pub(crate) fn types(&self) -> Vec<(String, String)> {
        let of = |module: &Module| -> Vec<(String, String)> {
            module.types.iter().map(|name| (name.clone(), module.file.clone())).collect()
        };
        self.modules.values().flat_map(of).collect()
    }

    /// Returns an arrow for each call of a method whose name only one file defines: of other names, the tokens do not
    /// show which type is meant.
    pub(crate) fn calls(&self) -> Arrows {
        let mut definitions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for module in self.modules.values() {
            for method in &module.methods {
                definitions.entry(method).or_default().insert(&module.file);
            }
        }
        let mut arrows = Arrows::new();
        for module in self.modules.values() {
            for call in &module.calls {
                let files = definitions.get(call.as_str()).filter(|files| files.len() == 1);
                if let Some(file) = files.and_then(BTreeSet::first).filter(|file| **file != module.file) {
                    let arrow = (module.file.clone(), (*file).to_owned());
                    arrows.entry(arrow).or_default().insert(call.clone());
                }
            }
        }
        arrows
    }

    /// Returns the arrows between files.
    pub(crate) fn arrows(&self) -> Arrows {
        const DEPTH: usize = 16;
        let mut arrows = Arrows::new();
        for (path, module) in &self.modules {
            let used =
                module.imports.iter().filter(|import| !import.is_reexport || module.names.contains(&import.name));
            for segments in used.map(|import| &import.path).chain(&module.paths) {
                let target = self.resolve(path, segments, DEPTH);
                if let Some(Target::Item(name, file)) = target.filter(|_| segments[0] != "std")
                    && file != module.file
                {
                    arrows.entry((module.file.clone(), file)).or_default().insert(name);
                }
            }
        }
        arrows
    }
}

/// Reads the path that begins here, and returns its segments and the place after it.
fn read_path(tokens: &[Token], from: usize) -> (Vec<String>, usize) {
    let mut segments: Vec<String> = tokens[from].name().map(str::to_owned).into_iter().collect();
    let mut at = from + 1;
    // A field, a method or the rest of a path after `<…>` is no path of its own.
    let is_path = from == 0 || ![Token::Mark('.'), Token::Separator].contains(&tokens[from - 1]);
    while tokens.get(at) == Some(&Token::Separator) {
        let Some(name) = tokens.get(at + 1).and_then(Token::name).filter(|_| is_path) else { break };
        segments.push(name.to_owned());
        at += 2;
    }
    (segments, at)
}

/// Reads a tree of `use` into its leaves.
fn read_use(tree: &[Token], prefix: &mut Vec<String>, is_reexport: bool, found: &mut Vec<Import>) {
    let depth = prefix.len();
    let mut at = 0;
    while let Some(token) = tree.get(at) {
        match token {
            Token::Name(name) => prefix.push(name.clone()),
            Token::Separator => {}
            Token::Mark('{') => {
                let end = after_group(tree, at);
                let inner = &tree[at + 1..end - 1];
                let mut branch = 0;
                while branch < inner.len() {
                    let length = length_of_branch(&inner[branch..]);
                    read_use(&inner[branch..branch + length], prefix, is_reexport, found);
                    branch += length + 1;
                }
                prefix.truncate(depth);
                return;
            }
            Token::Mark('*') => {
                found.push(Import { path: prefix.clone(), name: "*".to_owned(), is_reexport });
                prefix.truncate(depth);
                return;
            }
            Token::Mark(_) => {}
        }
        at += 1;
    }
    let alias = prefix.iter().position(|segment| segment == "as").filter(|at| *at > depth.max(1) - 1);
    let mut path = prefix[..alias.unwrap_or(prefix.len())].to_vec();
    if path.last().is_some_and(|segment| segment == "self") && path.len() > 1 {
        path.pop();
    }
    let name = alias.map_or_else(|| path.last(), |at| prefix.get(at + 1));
    if let Some(name) = name.cloned() {
        found.push(Import { path, name, is_reexport });
    }
    prefix.truncate(depth);
}

/// Returns the length of a branch of a tree of `use`, up to its comma.
fn length_of_branch(tree: &[Token]) -> usize {
    let mut depth = 0_usize;
    let end = tree.iter().position(|token| {
        match token {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Token::Mark(',')
    });
    end.unwrap_or(tree.len())
}

/// Returns the arrows inside the crate whose sources are in `folder`.
pub(crate) fn inside(arrows: &Arrows, folder: &str) -> Arrows {
    let is_inside = |file: &str| file.starts_with(&format!("{folder}/"));
    let kept = arrows.iter().filter(|((from, to), _)| is_inside(from) && is_inside(to));
    kept.map(|(arrow, names)| (arrow.clone(), names.clone())).collect()
}

/// Folds arrows between files into arrows between the modules below the root of their crate.
pub(crate) fn fold(arrows: &Arrows, folder: &str) -> Arrows {
    let module = |file: &str| {
        let inside = file.strip_prefix(folder).unwrap_or(file).trim_start_matches('/');
        inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs").to_owned()
    };
    let mut folded = Arrows::new();
    for ((from, to), names) in arrows {
        let (from, to) = (module(from), module(to));
        if from != to {
            folded.entry((from, to)).or_default().extend(names.iter().cloned());
        }
    }
    folded
}

/// Returns the files that a file leads to.
pub(crate) fn reachable(arrows: &Arrows, from: &str) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(here) = open.pop() {
        let more = arrows.keys().filter(|(from, _)| *from == here).map(|(_, to)| to.clone());
        open.extend(more.filter(|to| found.insert(to.clone())));
    }
    found
}

/// Returns the circles of a graph: the largest sets in which each leads to each.
pub(crate) fn circles(arrows: &Arrows) -> Vec<BTreeSet<String>> {
    let starts: BTreeSet<&String> = arrows.keys().map(|(from, _)| from).collect();
    let reached: BTreeMap<&String, BTreeSet<String>> =
        starts.into_iter().map(|from| (from, reachable(arrows, from))).collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for (from, found) in &reached {
        if found.contains(*from) && !circles.iter().any(|circle| circle.contains(*from)) {
            let is_back = |to: &&String| reached.get(to).is_some_and(|back| back.contains(*from));
            circles.push(found.iter().filter(is_back).cloned().collect());
        }
    }
    circles
}

/// Describes a circle by its arrows and the names that tie it.
pub(crate) fn describe(circle: &BTreeSet<String>, arrows: &Arrows) -> String {
    let inside = arrows.iter().filter(|((from, to), _)| circle.contains(from) && circle.contains(to));
    let lines = inside.map(|((from, to), names)| {
        format!("  {from} -> {to}: {}\n", names.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    });
    format!("circle of {}:\n{}", circle.len(), lines.collect::<String>())
}
