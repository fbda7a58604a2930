//! The patterns of `build.watch`.
//!
//! A pattern is a path from the folder of the declaration, or an absolute one. As far as it has no wildcard it is taken
//! as any program takes a path, `..` and links included; what follows is matched below that. A folder stands for
//! everything in it.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// Folders that builds and tools fill: no change in one is a change of a source, unless its pattern names it.
const NOT_SOURCES: &[&str] =
    &["target", "node_modules", "dist", ".git", ".hg", ".jj", ".venv", "venv", "__pycache__", ".caxton"];
/// More alternatives than this in one pattern are a mistake.
const MAX_ALTERNATIVES: usize = 1_000;

/// A pattern without alternatives (`{a,b}`), which make several of it.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    /// As it is in the declaration.
    pub(crate) written: String,
    /// Where it begins: an absolute path, which may lead through links and need not exist.
    pub(crate) base: PathBuf,
    /// What is matched below that; none for a file, or a folder with everything in it.
    below: Option<GlobMatcher>,
    /// Names of [`NOT_SOURCES`] that it has itself.
    named: Vec<&'static str>,
}

impl Pattern {
    /// The patterns that one of a declaration in the folder `dir` stands for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(written: &str, dir: &Path) -> Result<Vec<Self>, String> {
        if written.trim().is_empty() {
            return Err("it is empty".to_owned());
        }
        let alternatives = alternatives(written).ok_or("its braces do not match, or have too many alternatives")?;
        alternatives.iter().map(|text| Self::one(written, text, dir)).collect()
    }

    fn one(written: &str, text: &str, dir: &Path) -> Result<Self, String> {
        let is_wild = |part: &str| part.contains(['*', '?', '[']);
        let parts: Vec<&str> = text.split('/').collect();
        let fixed = parts.iter().position(|part| is_wild(part)).unwrap_or(parts.len());
        let start = if text.starts_with('/') { Path::new("/") } else { dir };
        let base = parts[..fixed]
            .iter()
            .filter(|part| !matches!(**part, "" | "."))
            .fold(start.to_owned(), |base, part| base.join(unescape(part)));
        let rest: Vec<&str> = parts[fixed..].iter().copied().filter(|part| !matches!(*part, "" | ".")).collect();
        if rest.contains(&"..") {
            return Err("it has `..` after a wildcard; begin it with the folder that is meant".to_owned());
        }
        let below = match rest.join("/") {
            rest if rest.is_empty() => None,
            rest => Some(GlobBuilder::new(&rest).build().map_err(|error| error.kind().to_string())?.compile_matcher()),
        };
        let named = NOT_SOURCES.iter().copied().filter(|name| rest.contains(name)).collect();
        Ok(Self { written: written.to_owned(), base, below, named })
    }

    /// Whether a file at this path below the base is a source; an empty path is the base itself.
    pub(crate) fn matches(&self, below: &Path) -> bool {
        if below.as_os_str().is_empty() {
            return self.below.is_none();
        }
        !self.is_left_out(below)
            && !is_temporary(below.file_name().unwrap_or_default())
            && self.below.as_ref().is_none_or(|glob| glob.is_match(below))
    }

    /// Whether a folder at this path below the base is not looked into.
    pub(crate) fn is_left_out(&self, below: &Path) -> bool {
        below.components().any(|part| match part {
            Component::Normal(name) => {
                NOT_SOURCES.iter().any(|known| name == OsStr::new(known) && !self.named.contains(known))
            }
            _ => false,
        })
    }

    /// The same pattern from another base, as one would write it.
    pub(crate) fn written_from(&self, base: &str) -> String {
        match &self.below {
            Some(glob) => format!("{base}/{}", glob.glob()),
            None => base.to_owned(),
        }
    }
}

/// Whether an editor made this file for the time of a save, or as a copy of what was before.
fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let ends = |end: &[u8]| name.ends_with(end);
    name == b"4913" || name.starts_with(b".#") || ends(b"~") || ends(b".swp") || ends(b".swo") || ends(b".swx")
}

/// A part of a path as it is meant, without the backslashes that make letters of wildcards.
fn unescape(part: &str) -> String {
    let mut text = String::new();
    let mut letters = part.chars();
    while let Some(letter) = letters.next() {
        text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    text
}

/// The texts that one with alternatives in braces stands for; none if the braces do not match.
fn alternatives(text: &str) -> Option<Vec<String>> {
    let mut done = Vec::new();
    let mut open = vec![text.to_owned()];
    while let Some(text) = open.pop() {
        let Some((before, inner, after)) = braces(&text)? else {
            done.push(text);
            continue;
        };
        if done.len() + open.len() + inner.len() > MAX_ALTERNATIVES {
            return None;
        }
        // The last one is taken up first.
        open.extend(inner.iter().rev().map(|inner| format!("{before}{inner}{after}")));
    }
    Some(done)
}

/// What is before, in and after a brace.
type Braces<'a> = (&'a str, Vec<&'a str>, &'a str);

/// The first alternatives of a text; none within if there are none, none at all if a brace has no other.
fn braces(text: &str) -> Option<Option<Braces<'_>>> {
    let (mut depth, mut start, mut inner) = (0_u32, 0, Vec::new());
    let (mut escaped, mut class) = (false, false);
    let mut before = "";
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class = true,
            ']' => class = false,
            _ if class => {}
            '{' => {
                if depth == 0 {
                    (before, start) = (&text[..at], at + 1);
                }
                depth += 1;
            }
            ',' if depth == 1 => {
                inner.push(&text[start..at]);
                start = at + 1;
            }
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    inner.push(&text[start..at]);
                    return Some(Some((before, inner, &text[at + 1..])));
                }
            }
            _ => {}
        }
    }
    (depth == 0).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let patterns = Pattern::parse(pattern, Path::new("/p/app")).unwrap();
        // As the system takes `..` where no link is on the way.
        let normal = |path: &Path| {
            path.components().fold(PathBuf::new(), |mut path, part| {
                if part == Component::ParentDir {
                    path.pop();
                } else {
                    path.push(part);
                }
                path
            })
        };
        patterns.iter().any(|pattern| {
            Path::new(path).strip_prefix(normal(&pattern.base)).is_ok_and(|below| pattern.matches(below))
        })
    }

    #[test]
    fn every_way_to_write_a_pattern_matches() {
        for pattern in [
            "src/**",
            "./src/**",
            "src",
            "src/",
            "./src",
            ".",
            "./",
            "**",
            "*/**",
            "/p/app/src/**",
            "/p/app/src",
            "/p/app/src/",
            "../app/src/**",
            "src//**",
            "src/./**",
            "src/main.rs",
            "./src/main.rs",
            "/p/app/src/main.rs",
            "src/*",
            "src/*.rs",
            "src/*.{rs,toml}",
            "{src,lib}/**",
            "{src,lib}",
            "{src/**,../shared}",
            "{../shared,src}/**",
            "s?c/*.rs",
            "[s]rc/**",
            "**/*.rs",
            "**/main.rs",
            "src/**/*.rs",
            "src/**/",
            "{src/{main,lib},build}.rs",
            "/p/{app,other}/src/*.rs",
        ] {
            assert!(matches(pattern, "/p/app/src/main.rs"), "{pattern}");
        }
        for (pattern, path) in [
            ("../shared/src/**", "/p/shared/src/a.rs"),
            ("../shared", "/p/shared/src/a.rs"),
            ("../shared/*.rs", "/p/shared/a.rs"),
            ("src/\\[id\\]/a.ts", "/p/app/src/[id]/a.ts"),
            ("src/[[]id]/*.ts", "/p/app/src/[id]/a.ts"),
            // One that names a folder that builds fill means it.
            ("dist/**", "/p/app/dist/a.js"),
            ("target/debug/a", "/p/app/target/debug/a"),
            ("**/dist/*.js", "/p/app/web/dist/a.js"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_none_of_its_own_does_not_match() {
        for (pattern, path) in [
            ("src/**", "/p/app/lib/a.rs"),
            ("src/**", "/q/app/src/a.rs"),
            ("src", "/p/app/src2/a.rs"),
            ("src/main.rs", "/p/app/src/main.rs2"),
            ("src/*.{rs,toml}", "/p/app/src/a.md"),
            ("**", "/p/app/target/debug/a.rs"),
            ("src/**", "/p/app/src/node_modules/a.js"),
            ("**", "/p/app/.git/index"),
            ("**", "/p/app/.caxton/caxton.db-wal"),
            ("src/**", "/p/app/src/.main.rs.swp"),
            ("src/**", "/p/app/src/main.rs~"),
            ("src/**", "/p/app/src/4913"),
            ("src", "/p/app/src/.#main.rs"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_can_mean_nothing_is_refused() {
        for (pattern, part) in [
            ("", "empty"),
            ("  ", "empty"),
            ("src/{a,b", "braces"),
            ("src/a}", "braces"),
            ("src/[a", "]"),
            ("src/*/../lib/**", "`..` after a wildcard"),
        ] {
            let why = Pattern::parse(pattern, Path::new("/p")).unwrap_err();
            assert!(why.contains(part), "{pattern}: {why}");
        }
    }
}
