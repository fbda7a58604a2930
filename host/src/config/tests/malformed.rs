//! Files that are malformed: read, or refused with errors that have a place and can be shown.

use std::fmt::Write as _;

use super::*;
use crate::config::examine::examine;
use crate::mutation::{Case, INPUTS, mutate};

/// Words that mean something in a file, or are the beginning of something that never ends.
const WORDS: [&[u8]; 34] = [
    b"[[",
    b"]]",
    b"[[[[[[[[",
    b"{",
    b"}",
    b"=",
    b".",
    b"\"",
    b"'",
    b"\"\"\"",
    b"'''",
    b"\\u{202e}",
    b"\\U00110000",
    b"\xef\xbb\xbf",
    b"\x1b[2J",
    b"\xe2\x80\xae",
    b"\r",
    b"\n",
    b"#",
    b"nan",
    b"inf",
    b"0x",
    b"9223372036854775808",
    b"-1",
    b"1979-05-27T07:32:00Z",
    b"true",
    b"[agents.a]\n",
    b"[[agents.a.http]]\nroute = \"/{*a}\"\n",
    b"component = ",
    b"agents.a.b.c.d = {}\n",
    b"[defaults.limits]\n",
    b"\"64MiB\"",
    b"\"${secret}\"",
    b"\"100%\"",
];

#[test]
fn malformed_files_are_read_or_refused_with_a_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../caxton.toml");
    let paths = files("good").into_iter().chain(files("bad")).chain([root]);
    let texts: Vec<Vec<u8>> = paths.map(|path| fs::read(path).unwrap()).collect();
    for number in 0..INPUTS {
        let (_case, mut chance) = Case::begin("configuration", number);
        let lines: Vec<&[u8]> = chance.pick(&texts).split_inclusive(|byte| *byte == b'\n').collect();
        // A part of a file: what is said of the whole of a large one takes many times as long, and is of the same kinds.
        let first = chance.below(lines.len());
        let part = lines[first..].iter().take(1 + chance.below(30)).copied().collect::<Vec<_>>().concat();
        let changed = mutate(&mut chance, &part, &WORDS);
        examine(&String::from_utf8_lossy(&changed));
    }
}

#[test]
fn files_that_are_deep_or_wide_are_read_or_refused() {
    const MANY: usize = 20_000;
    let mut wide = String::from("caxton = 1\n");
    for at in 0..MANY {
        let _ = writeln!(wide, "key{at} = 1");
    }
    for text in [
        format!("a = {}", "[".repeat(MANY)),
        format!("a = {}{}", "[".repeat(MANY), "]".repeat(MANY)),
        format!("a = {}", "{ a = ".repeat(MANY)),
        format!("{}a = 1", "a.".repeat(MANY)),
        format!("[{}a]", "a.".repeat(MANY)),
        format!("[[{}a]]", "a.".repeat(MANY)),
        "[[agents.a.http]]\n".repeat(MANY),
        "\"".repeat(MANY),
        "a = \u{9b}31m\u{202e}\u{2066}\u{1b}[2J\n\"\u{9b}\u{202e}\" = 1".to_owned(),
        "\\".repeat(MANY),
        format!("a = \"{}\"", "\\u0000".repeat(MANY)),
        wide,
    ] {
        examine(&text);
    }
}
