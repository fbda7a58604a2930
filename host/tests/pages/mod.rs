//! The pages of the documentation, as tests read them: their text, their headings, links and blocks of code.
//!
//! Part of several test programs: the tests of the host, which parse commands and pieces of `caxton.toml` with the
//! program's own code, `host/tests/docs.rs`, `host/tests/tour.rs` and the tests of a running host.
//!
//! A block is marked by a comment on the line before it, which readers do not see: `<!-- file: Cargo.toml -->` for a block
//! of TOML that is no piece of a `caxton.toml`.

#![allow(dead_code, clippy::unwrap_used, reason = "each of them uses a part, and a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Pages outside `docs/`.
const OTHERS: [&str; 5] =
    ["README.md", "CONTRIBUTING.md", "sdk/rust/README.md", "components/README.md", "CHANGELOG.md"];

/// A page.
pub(crate) struct Page {
    /// The path from the root, such as `docs/http.md`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

/// A fenced block of a page.
pub(crate) struct Block<'a> {
    /// The page.
    pub(crate) page: &'a str,
    /// The line of its first line, from 1.
    pub(crate) line: usize,
    /// The word after the fence, such as `toml`; empty if there is none.
    pub(crate) language: &'a str,
    /// The file that it is of, where a comment before it says so.
    pub(crate) file: Option<&'a str>,
    /// The lines between the fences.
    pub(crate) lines: Vec<&'a str>,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns all pages, sorted by path.
pub(crate) fn pages() -> Vec<Page> {
    let read = |path: String| Page { text: fs::read_to_string(root().join(&path)).unwrap(), path };
    let entries = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let docs = entries.map(|name| format!("docs/{}", name.to_str().unwrap())).filter(|path| path.ends_with(".md"));
    let mut pages: Vec<Page> = docs.chain(OTHERS.map(str::to_owned)).map(read).collect();
    pages.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(pages.len() > OTHERS.len(), "docs/ has no pages");
    pages
}

impl Page {
    /// The fenced blocks, in order.
    pub(crate) fn blocks(&self) -> Vec<Block<'_>> {
        let (mut found, mut open, mut before) = (Vec::new(), None::<Block<'_>>, "");
        for (at, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let file = before.strip_prefix("<!-- file: ").and_then(|rest| rest.strip_suffix(" -->"));
                    open = Some(Block { page: &self.path, line: at + 2, language, file, lines: Vec::new() });
                }
                (Some(_), Some(_)) => found.extend(open.take()),
                (Some(block), None) => block.lines.push(line),
                (None, None) => {}
            }
            before = line;
        }
        assert!(open.is_none(), "{}: a block does not end", self.path);
        found
    }

    /// The lines outside of blocks, with their numbers from 1.
    pub(crate) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(at, line)| {
            let fence = line.starts_with("```");
            inside ^= fence;
            (!fence && !inside).then_some((at + 1, line))
        })
    }

    /// The names by which links find the headings, as GitHub and mdBook make them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (_, line) in self.prose() {
            let Some(heading) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')) else { continue };
            let Some(heading) = heading.strip_prefix(' ') else { continue };
            let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect();
            let again = found.iter().filter(|other| **other == anchor).count();
            found.push(if again == 0 { anchor } else { format!("{anchor}-{again}") });
        }
        found
    }

    /// The targets of the links, with the lines where they stand.
    pub(crate) fn links(&self) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        for (at, line) in self.prose() {
            // What stands in backticks is shown and not followed.
            for (at_part, part) in line.split("](").enumerate() {
                let is_code =
                    line.split("](").take(at_part).map(|part| part.matches('`').count()).sum::<usize>() % 2 == 1;
                if let (true, false, Some((target, _))) = (at_part > 0, is_code, part.split_once(')')) {
                    found.push((at, target));
                }
            }
        }
        found
    }
}

impl Block<'_> {
    /// The command lines with their numbers: all of a script, what follows `$` on a console, the examples in the help of
    /// a command, what a service or a container starts. Lines that end with a backslash go on with the next.
    pub(crate) fn commands(&self) -> Vec<(usize, String)> {
        let mut found: Vec<(usize, String)> = Vec::new();
        let mut goes_on = false;
        for (at, line) in self.lines.iter().enumerate() {
            if let Some(list) = line.strip_prefix("CMD [").filter(|_| self.language == "dockerfile") {
                found.push((self.line + at, list.replace(['"', ',', ']'], "")));
            }
            let command = match self.language {
                "sh" | "bash" => Some(*line),
                "console" if goes_on => Some(*line),
                "console" => line.strip_prefix("$ "),
                "text" if self.page == "docs/cli.md" => {
                    line.strip_prefix("  ").filter(|line| line.starts_with("caxton "))
                }
                "systemd" => line.strip_prefix("ExecStart=").or(line.strip_prefix("ExecStartPre=")),
                _ => None,
            };
            let Some(command) = command else { continue };
            // Help is laid out in columns.
            let command = if self.language == "text" { command.split("  ").next().unwrap() } else { command };
            let (command, more) = command.strip_suffix('\\').map_or((command, false), |command| (command, true));
            match found.last_mut().filter(|_| goes_on) {
                Some((_, before)) => before.push_str(command),
                None => found.push((self.line + at, command.to_owned())),
            }
            goes_on = more;
        }
        found
    }
}

/// The simple commands of a command line as their words: what stands between `|`, `&&` and their like, without variables
/// that are set for it, redirections and comments.
pub(crate) fn words(line: &str) -> Vec<Vec<String>> {
    let (mut found, mut word, mut quote) = (vec![Vec::new()], None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(end)) if c == end => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => (quote, _) = (Some(c), word.get_or_insert_default()),
            ('#', None) if word.is_none() => break,
            (' ', None) => found.last_mut().unwrap().extend(word.take()),
            ('|' | '&' | ';' | '(' | ')' | '`', None) => {
                found.last_mut().unwrap().extend(word.take());
                found.push(Vec::new());
            }
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    found.last_mut().unwrap().extend(word);
    let plain = |words: Vec<String>| {
        let (mut left, mut is_file) = (Vec::<String>::new(), false);
        for word in words {
            let redirection = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix(['>', '<']);
            let is_set = word.contains('=') || ["sudo", "do", "then"].contains(&word.as_str());
            if redirection.is_none() && !is_file && !(left.is_empty() && is_set) {
                left.push(word);
                continue;
            }
            // The file may be the next word.
            is_file = matches!(redirection, Some("" | ">"));
        }
        left
    };
    found.into_iter().map(plain).filter(|words| !words.is_empty()).collect()
}

/// The arguments of a command if it runs `caxton`, by its name, by a path or through cargo.
pub(crate) fn arguments_of_caxton(words: &[String]) -> Option<&[String]> {
    let (program, arguments) = words.split_first()?;
    if program.rsplit('/').next() == Some("caxton") {
        return Some(arguments);
    }
    let runs = program == "cargo" && arguments.first().is_some_and(|word| word == "run");
    let end = arguments.iter().position(|word| word == "--").filter(|_| runs)?;
    Some(&arguments[end + 1..])
}
