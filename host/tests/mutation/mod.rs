//! A generator of malformed inputs, which are the same in each run: each has a number, and nothing else decides it.
//!
//! Part of several test programs: the tests of the host, and those of a running host.

#![allow(dead_code, clippy::unwrap_used, reason = "each of them uses a part, and a test may panic")]

use serde_json::{Map, Value, json};

/// The number of inputs of each kind.
pub(crate) const INPUTS: u64 = 10_000;

/// The longest input that is made of another, in bytes.
const MOST: usize = 256 << 10;

/// An input of a test. A test that fails prints its number, with which it can be made again.
pub(crate) struct Case {
    kind: &'static str,
    number: u64,
}

impl Case {
    /// Begins an input, and returns the source of its chances.
    pub(crate) fn begin(kind: &'static str, number: u64) -> (Self, Chance) {
        // Kinds differ, so that the same number is not the same choice in each.
        let seed = kind.bytes().fold(number, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        (Self { kind, number }, Chance(seed))
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed on the input {} of the kind `{}`", self.number, self.kind);
        }
    }
}

/// A source of numbers: SplitMix64.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below a bound; 0 if the bound is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap().max(1);
        usize::try_from(self.number() % bound).unwrap()
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number().to_le_bytes()[0]).collect()
    }

    /// A range within so many bytes, which is short more often than long.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        let most = if self.one_in(4) { length - start } else { (length - start).min(16) };
        start..start + self.below(most + 1)
    }
}

/// Returns an input with a few changes: of bits and bytes, pieces that are removed, doubled, moved or repeated, and words
/// that mean something in the format.
pub(crate) fn mutate(chance: &mut Chance, input: &[u8], words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=chance.below(6) {
        let range = chance.range(bytes.len());
        match chance.below(11) {
            0 if !bytes.is_empty() => bytes[range.start] ^= 1 << chance.below(8),
            1 if !bytes.is_empty() => bytes[range.start] = *chance.pick(&[0, 1, 9, 10, 13, 32, 0x7f, 0x80, 0xc3, 0xff]),
            2 => drop(bytes.drain(range)),
            3 => {
                let piece = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, piece);
            }
            4 => {
                let piece: Vec<u8> = bytes.drain(range).collect();
                let at = chance.below(bytes.len() + 1);
                bytes.splice(at..at, piece);
            }
            5 if chance.one_in(8) => {
                let times = 1 + chance.below(2_000);
                let piece = bytes[range.clone()].repeat(times.min(MOST / range.len().max(1)));
                bytes.splice(range, piece);
            }
            6 if chance.one_in(4) => bytes.truncate(range.start),
            7 => {
                let count = chance.below(9);
                let noise = chance.bytes(count);
                bytes.splice(range, noise);
            }
            _ if !words.is_empty() => {
                let word = chance.pick(words).to_vec();
                bytes.splice(range, word);
            }
            _ => {}
        }
    }
    bytes.truncate(MOST);
    bytes
}

/// A text that few expect.
pub(crate) fn odd_text(chance: &mut Chance) -> String {
    const TEXTS: [&str; 26] = [
        "",
        " ",
        "\0",
        "a\r\nb",
        "\u{1b}[2J\u{7}",
        "\u{202e}txt.exe",
        "..",
        "../../etc/passwd",
        "%2e%2e%2f",
        "%",
        "%zz",
        "{id}",
        "{*",
        "cap:",
        "host:x",
        "http:POST /",
        "-1",
        "0",
        "18446744073709551616",
        "1e999",
        "NaN",
        "'; DROP TABLE state; --",
        "\u{10ffff}",
        "\u{fc}",
        "null",
        "true",
    ];
    let text = *chance.pick(&TEXTS);
    match chance.below(12) {
        0 => text.repeat(1 + chance.below(3_000)),
        1 => "z".repeat(chance.below(70_000)),
        2 => String::from_utf8_lossy(&{
            let count = chance.below(40);
            chance.bytes(count)
        })
        .into_owned(),
        _ => text.to_owned(),
    }
}

/// A value of JSON that few expect.
pub(crate) fn odd_value(chance: &mut Chance) -> Value {
    match chance.below(12) {
        0 => Value::Null,
        1 => json!(chance.one_in(2)),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1e308),
        5 => json!([]),
        6 => json!({}),
        7 => {
            let depth = chance.below(100);
            (0..depth).fold(json!(0), |inner, _| json!([inner]))
        }
        8 => json!({ odd_text(chance): odd_text(chance) }),
        9 => Value::Array((0..chance.below(200)).map(|_| json!(odd_text(chance))).collect()),
        _ => json!(odd_text(chance)),
    }
}

/// Returns a value with a few changes: members that are another value, missing, doubled or new.
pub(crate) fn mutate_value(chance: &mut Chance, value: &Value) -> Value {
    if chance.one_in(6) {
        return odd_value(chance);
    }
    match value {
        Value::Object(members) => {
            let mut changed = Map::new();
            for (name, member) in members {
                match chance.below(5) {
                    0 => {}
                    1 => drop(changed.insert(odd_text(chance), member.clone())),
                    2 => drop(changed.insert(name.clone(), mutate_value(chance, member))),
                    _ => drop(changed.insert(name.clone(), member.clone())),
                }
            }
            if chance.one_in(3) {
                changed.insert(odd_text(chance), odd_value(chance));
            }
            Value::Object(changed)
        }
        Value::Array(members) => members.iter().map(|member| mutate_value(chance, member)).collect(),
        other if chance.one_in(2) => other.clone(),
        _ => odd_value(chance),
    }
}
