//! The patterns of `build.watch`.
//!
//! A pattern is an absolute path or one relative to the folder of the declaration. Its part before the first wildcard
//! is resolved like any path, with `..` and links; the rest is matched below it. A folder stands for everything in it.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// Folders written by builds and tools. Changes in them are ignored unless the pattern names the folder.
const NOT_SOURCES: &[&str] =
    &["target", "node_modules", "dist", ".git", ".hg", ".jj", ".venv", "venv", "__pycache__", ".caxton"];
/// The bound of alternatives in one pattern: more are a mistake, and nested braces multiply.
const MAX_ALTERNATIVES: usize = 1_000;

/// A pattern without alternatives: `{a,b}` makes several.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    /// The text of the declaration, with its alternatives.
    pub(crate) text: String,
    /// The absolute path before the first wildcard. It may lead through links and need not exist.
    pub(crate) base: PathBuf,
    /// Matches the path below the base. `None` stands for the file itself, or a folder with everything in it.
    matcher: Option<GlobMatcher>,
    /// Names of [`NOT_SOURCES`] that occur in the pattern itself.
    named_exclusions: Vec<&'static str>,
}

impl Pattern {
    /// Parses a pattern of a declaration in the folder `dir`. Returns one for each alternative.
    ///
    /// # Errors
    /// The reason why it is invalid, as a text for the user.
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
            // Dropped, so that `src//a` and `./src/a` have the base of `src/a`.
            .filter(|part| !matches!(**part, "" | "."))
            .fold(start.to_owned(), |base, part| base.join(unescape(part)));
        let rest: Vec<&str> = parts[fixed..].iter().copied().filter(|part| !matches!(*part, "" | ".")).collect();
        // A glob matches text and cannot go up from a folder that a wildcard stands for.
        if rest.contains(&"..") {
            return Err("it has `..` after a wildcard; begin it with the folder that is meant".to_owned());
        }
        let matcher = match rest.join("/") {
            rest if rest.is_empty() => None,
            rest => Some(GlobBuilder::new(&rest).build().map_err(|error| error.kind().to_string())?.compile_matcher()),
        };
        let named_exclusions = NOT_SOURCES.iter().copied().filter(|name| rest.contains(name)).collect();
        Ok(Self { text: written.to_owned(), base, matcher, named_exclusions })
    }

    /// Returns `true` if the file at this path below the base is a source. An empty path is the base itself.
    pub(crate) fn matches(&self, below: &Path) -> bool {
        if below.as_os_str().is_empty() {
            return self.matcher.is_none();
        }
        !self.is_excluded(below)
            && !is_temporary(below.file_name().unwrap_or_default())
            && self.matcher.as_ref().is_none_or(|glob| glob.is_match(below))
    }

    /// Returns `true` if the folder at this path below the base is not searched.
    pub(crate) fn is_excluded(&self, below: &Path) -> bool {
        below.components().any(|part| match part {
            Component::Normal(name) => {
                NOT_SOURCES.iter().any(|known| name == OsStr::new(known) && !self.named_exclusions.contains(known))
            }
            _ => false,
        })
    }

    /// Returns the text of this pattern with another base, for a suggestion.
    pub(crate) fn written_from(&self, base: &str) -> String {
        match &self.matcher {
            Some(glob) => format!("{base}/{}", glob.glob()),
            None => base.to_owned(),
        }
    }
}

/// Returns `true` for names of temporary files and backups of editors.
fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let ends = |end: &[u8]| name.ends_with(end);
    // Vim creates `4913` to test whether it may write in a folder; Emacs locks with `.#NAME`.
    name == b"4913" || name.starts_with(b".#") || ends(b"~") || ends(b".swp") || ends(b".swo") || ends(b".swx")
}

/// Returns a part of a path without the backslashes that escape wildcards.
fn unescape(part: &str) -> String {
    let mut text = String::new();
    let mut letters = part.chars();
    while let Some(letter) = letters.next() {
        text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    text
}

/// Expands alternatives in braces; `None` if the braces do not match or there are too many.
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
        // Reversed, because `open` is a stack and the order of the text is to be kept.
        open.extend(inner.iter().rev().map(|inner| format!("{before}{inner}{after}")));
    }
    Some(done)
}

/// The text before the braces, the alternatives in them, and the text after.
type Braces<'a> = (&'a str, Vec<&'a str>, &'a str);

/// Returns the first group of alternatives: `Some(None)` if there is none, `None` if a brace has no counterpart.
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
        // Like the kernel without links on the way.
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
    fn equivalent_patterns_match() {
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
            // A pattern that names such a folder includes it.
            ("dist/**", "/p/app/dist/a.js"),
            ("target/debug/a", "/p/app/target/debug/a"),
            ("**/dist/*.js", "/p/app/web/dist/a.js"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn other_paths_do_not_match() {
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
    fn invalid_patterns_are_refused() {
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
