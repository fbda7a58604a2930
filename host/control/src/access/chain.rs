//! The audit log as a chain: each line has the hash of the one before it and its own, so that a line that was changed,
//! taken out or exchanged is found.
//!
//! ```text
//! {"n":7,"prev":"HASH OF 6",…,"hash":"HASH"}     HASH = SHA-256 of the line without its `hash`
//! ```
//! A chain binds nobody who can write the whole file: for that, heads of it have to be kept elsewhere, and
//! [`Verifier`] says whether one of them is in the chain. Where old lines were removed, the first line of the file is an
//! anchor, with the head of what was removed; a line of the chain confirms it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::tokens::TokenDigest;

/// The text before the hash of a line.
const HASH_MEMBER: &str = ",\"hash\":\"";
/// The length of the end of a line: the member with its 64 digits, a quote and a brace.
const HASH_END: usize = HASH_MEMBER.len() + 64 + 2;
/// Findings that are listed; a file that is not an audit log at all would have one for each line.
const MAX_FINDINGS: usize = 100;

/// The SHA-256 of a line.
pub type LineHash = TokenDigest;

/// The last line of a chain: its number and its hash, written `7:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// The number of the line; 0 before the first one.
    pub number: u64,
    /// The hash of the line; zeros before the first one.
    pub hash: LineHash,
}

impl ChainHead {
    /// The head of an empty chain.
    pub const START: Self = Self { number: 0, hash: LineHash::ZERO };

    /// Makes the line that follows, without a line feed. Returns it with the new head. `entry` is an object.
    pub fn append(&self, at: u64, entry: &impl Serialize) -> (String, Self) {
        let number = self.number + 1;
        let line = Line { n: number, prev: self.hash, at, entry };
        let (text, hash) = seal(&serde_json::to_string(&line).expect("texts and numbers can be written"));
        (text, Self { number, hash })
    }

    /// Makes the first line of a file whose lines up to this head were removed.
    pub fn anchor(&self) -> String {
        seal(&serde_json::to_string(&Anchor { after: *self }).expect("texts and numbers can be written")).0
    }
}

impl fmt::Display for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

/// The error for a text that is not the head of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a head of the audit log, which is the number of a line, `:` and 64 hexadecimal digits", .0.escape_debug())]
pub struct ChainHeadError(String);

impl FromStr for ChainHead {
    type Err = ChainHeadError;

    fn from_str(text: &str) -> Result<Self, ChainHeadError> {
        let parsed = text.split_once(':').and_then(|(number, hash)| {
            let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten()?;
            Some(Self { number, hash: LineHash::parse(hash)? })
        });
        parsed.ok_or_else(|| ChainHeadError(text.to_owned()))
    }
}

impl Serialize for ChainHead {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHead {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A line before it has its hash.
#[derive(Serialize)]
struct Line<'a, E> {
    n: u64,
    prev: LineHash,
    at: u64,
    #[serde(flatten)]
    entry: &'a E,
}

/// The first line of a file from which lines were removed.
#[derive(Serialize, Deserialize)]
struct Anchor {
    after: ChainHead,
}

/// The members of a line that make the chain.
#[derive(Deserialize)]
struct Link {
    n: u64,
    prev: LineHash,
    #[serde(default)]
    kind: String,
    /// The head of what was removed, in a line that records a removal.
    #[serde(default)]
    until: Option<ChainHead>,
}

/// Adds the hash to the text of an object.
fn seal(object: &str) -> (String, LineHash) {
    let hash = LineHash::of(object);
    let open = object.strip_suffix('}').unwrap_or(object);
    (format!("{open}{HASH_MEMBER}{hash}\"}}"), hash)
}

/// Splits a line into the object without the hash, and the hash that it claims.
fn unseal(line: &str) -> Option<(String, LineHash)> {
    let at = line.len().checked_sub(HASH_END).filter(|at| line.is_char_boundary(*at))?;
    let (open, end) = line.split_at(at);
    let hash = end.strip_prefix(HASH_MEMBER)?.strip_suffix("\"}")?;
    Some((format!("{open}}}"), LineHash::parse(hash)?))
}

/// Returns the head that a line of a chain makes, by what it claims. `None` if it is no such line.
pub fn head_of(line: &str) -> Option<ChainHead> {
    let (object, hash) = unseal(line)?;
    if let Ok(anchor) = serde_json::from_str::<Anchor>(&object) {
        return Some(anchor.after);
    }
    let link: Link = serde_json::from_str(&object).ok()?;
    Some(ChainHead { number: link.n, hash })
}

/// Returns `true` if a line has the hash of its own text.
pub fn is_intact(line: &str) -> bool {
    unseal(line).is_some_and(|(object, hash)| LineHash::of(&object).is(&hash))
}

/// A defect of an audit log. Lines are counted in the file, from 1; entries have the numbers that they were given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "code")]
pub enum ChainFinding {
    /// A line that is none of an audit log.
    #[error("line {line} is not a line of an audit log")]
    Unreadable {
        /// The line in the file.
        line: u64,
    },
    /// A line whose text does not have its hash.
    #[error("line {line} was changed: entry {entry} does not have the hash of its text")]
    Changed {
        /// The line in the file.
        line: u64,
        /// The number of the entry.
        entry: u64,
    },
    /// A line that has its hash, and another one than the line after it knows.
    #[error("line {line} was written anew: entry {entry} has another hash than the entry after it was written for")]
    Replaced {
        /// The line in the file.
        line: u64,
        /// The number of the entry.
        entry: u64,
    },
    /// Lines that are not there.
    #[error("{} missing before line {line}", entries(*first, *last))]
    Missing {
        /// The line in the file before which they belong.
        line: u64,
        /// The number of the first missing entry.
        first: u64,
        /// The number of the last missing entry.
        last: u64,
    },
    /// A line in the place of another.
    #[error("line {line} was exchanged: entry {entry} stands there, which belongs to line {belongs}")]
    Exchanged {
        /// The line in the file.
        line: u64,
        /// The number of the entry.
        entry: u64,
        /// The line to which it belongs.
        belongs: u64,
    },
    /// A line that is there twice.
    #[error("line {line} repeats entry {entry}")]
    Repeated {
        /// The line in the file.
        line: u64,
        /// The number of the entry.
        entry: u64,
    },
    /// An anchor that nothing confirms.
    #[error("line 1 says that entries up to {entry} were removed, and no entry records that removal")]
    Unconfirmed {
        /// The number of the last removed entry.
        entry: u64,
    },
    /// A head that is not in the chain.
    #[error("the head {head} is not in the log: {why}")]
    HeadMissing {
        /// The head.
        head: ChainHead,
        /// The reason.
        why: String,
    },
}

fn entries(first: u64, last: u64) -> String {
    if first == last { format!("entry {first} is") } else { format!("entries {first} to {last} are") }
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Set if the log has no defect.
    pub ok: bool,
    /// The number of entries in the file.
    pub entries: u64,
    /// The head of what retention removed; `None` if nothing was.
    pub removed: Option<ChainHead>,
    /// The head of the log; `None` if it has no entries.
    pub head: Option<ChainHead>,
    /// The defects in the order of the file, up to a bound.
    pub findings: Vec<ChainFinding>,
}

/// The check of an audit log, line by line.
#[derive(Debug)]
pub struct Verifier {
    sought: Option<ChainHead>,
    found: bool,
    /// The other hash of the entry with the number of the sought head.
    other_hash: bool,
    line: u64,
    removed: Option<ChainHead>,
    confirmed: bool,
    last: Option<ChainHead>,
    /// The line of `last`.
    last_line: u64,
    /// The number of the entry of each line, from the first entry on; 0 for a line that has none.
    // Eight bytes a line: what stands where is known only at the end.
    numbers: Vec<u64>,
    findings: Vec<ChainFinding>,
}

impl Verifier {
    /// Creates the check of a log, which looks for a head if one is given.
    pub fn new(sought: Option<ChainHead>) -> Self {
        Self {
            sought,
            found: false,
            other_hash: false,
            line: 0,
            removed: None,
            confirmed: false,
            last: None,
            last_line: 0,
            numbers: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Checks the next line, given without its line feed.
    pub fn push(&mut self, text: &str) {
        self.line += 1;
        let Some((object, hash)) = unseal(text) else { return self.unreadable() };
        let intact = LineHash::of(&object).is(&hash);
        if self.line == 1
            && let Ok(Anchor { after }) = serde_json::from_str(&object)
        {
            if !intact {
                self.note(ChainFinding::Changed { line: 1, entry: after.number });
            }
            self.see(after);
            (self.removed, self.last, self.last_line) = (Some(after), Some(after), 1);
            return;
        }
        let Ok(link) = serde_json::from_str::<Link>(&object) else { return self.unreadable() };
        if !intact {
            self.note(ChainFinding::Changed { line: self.line, entry: link.n });
        } else if link.kind == "removed" && link.until.is_some() && link.until == self.removed {
            self.confirmed = true;
        }
        self.numbers.push(link.n);
        let head = ChainHead { number: link.n, hash };
        self.see(head);
        let before = self.last.unwrap_or(ChainHead::START);
        // Only a direct successor can tell of the line before it.
        if link.n == before.number + 1 && !link.prev.is(&before.hash) && intact {
            self.note(ChainFinding::Replaced { line: self.last_line, entry: before.number });
        }
        if link.n > before.number {
            (self.last, self.last_line) = (Some(head), self.line);
        }
    }

    fn unreadable(&mut self) {
        self.numbers.push(0);
        self.note(ChainFinding::Unreadable { line: self.line });
    }

    fn see(&mut self, head: ChainHead) {
        if let Some(sought) = self.sought.filter(|sought| sought.number == head.number) {
            // A later line with the number may have the right one.
            self.found |= sought.hash.is(&head.hash);
            self.other_hash |= !sought.hash.is(&head.hash);
        }
    }

    fn note(&mut self, finding: ChainFinding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// Ends the check.
    pub fn finish(mut self) -> Verified {
        self.check_order();
        if let Some(removed) = self.removed.filter(|_| !self.confirmed) {
            self.note(ChainFinding::Unconfirmed { entry: removed.number });
        }
        let has_entries = self.numbers.iter().any(|number| *number > 0);
        if let Some(head) = self.sought.filter(|_| !self.found) {
            let end = self.last.map_or(0, |last| last.number);
            let why = match self.removed {
                _ if self.other_hash => "the entry with its number has another hash".to_owned(),
                Some(removed) if head.number < removed.number => {
                    format!("entries up to {} were removed, and their heads with them", removed.number)
                }
                _ if head.number > end => format!("the log ends with entry {end}"),
                _ => "no entry has its number".to_owned(),
            };
            self.note(ChainFinding::HeadMissing { head, why });
        }
        Verified {
            ok: self.findings.is_empty(),
            entries: self.numbers.iter().filter(|number| **number > 0).count() as u64,
            removed: self.removed,
            head: self.last.filter(|_| has_entries),
            findings: self.findings,
        }
    }

    /// Finds what is missing, repeated or out of its place.
    fn check_order(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        let offset = u64::from(self.removed.is_some());
        let start = self.removed.map_or(0, |removed| removed.number);
        let mut sorted: Vec<u64> = numbers.iter().copied().filter(|number| *number > start).collect();
        sorted.sort_unstable();
        sorted.dedup();
        // The line of an entry if nothing but the missing ones is wrong: its rank among those that are there.
        let line_of = |number: u64| sorted.partition_point(|other| *other < number) as u64 + 1 + offset;
        let mut seen = std::collections::BTreeSet::new();
        let in_order = numbers.is_sorted();
        let mut found = Vec::new();
        // Lines that are none take a place, and would shift all that follow.
        let all_readable = numbers.iter().all(|number| *number > 0);
        for (at, number) in numbers.iter().enumerate() {
            let line = at as u64 + 1 + offset;
            if *number == 0 {
                continue;
            }
            if !in_order && !seen.insert(*number) || in_order && at > 0 && numbers[at - 1] == *number {
                found.push(ChainFinding::Repeated { line, entry: *number });
            } else if !in_order && all_readable && line_of(*number) != line {
                found.push(ChainFinding::Exchanged { line, entry: *number, belongs: line_of(*number) });
            }
        }
        let mut before = start;
        for number in &sorted {
            // A line that cannot be read stands for one entry, and was told of.
            if *number > before + 1 && all_readable {
                found.push(ChainFinding::Missing { line: line_of(*number), first: before + 1, last: number - 1 });
            }
            before = *number;
        }
        found.into_iter().for_each(|finding| self.note(finding));
        self.numbers = numbers;
    }
}

#[cfg(test)]
mod tests {
    use super::super::audit::AuditEntry;
    use super::*;

    /// A log of `count` entries.
    fn log(count: u64) -> (Vec<String>, Vec<ChainHead>) {
        let (mut lines, mut heads) = (Vec::new(), vec![ChainHead::START]);
        for number in 1..=count {
            let entry = AuditEntry::Repaired { bytes: number };
            let (line, head) = heads[heads.len() - 1].append(1_000 + number, &entry);
            lines.push(line);
            heads.push(head);
        }
        (lines, heads)
    }

    fn verify(lines: &[String], sought: Option<ChainHead>) -> Verified {
        let mut verifier = Verifier::new(sought);
        lines.iter().for_each(|line| verifier.push(line));
        verifier.finish()
    }

    fn findings(lines: &[String]) -> Vec<String> {
        verify(lines, None).findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn whole_logs_verify() {
        for count in [0, 1, 2, 50] {
            let (lines, heads) = log(count);
            let verified = verify(&lines, None);
            assert!(verified.ok, "{verified:?}");
            assert_eq!((verified.entries, verified.head), (count, heads.last().copied().filter(|_| count > 0)));
            for line in &lines {
                assert!(is_intact(line) && head_of(line).is_some(), "{line}");
            }
        }
    }

    #[test]
    fn defects_are_found_with_their_lines() {
        let (lines, heads) = log(6);
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines = lines.clone();
            change(&mut lines);
            findings(&lines)
        };
        let changed = with(&|lines| lines[2] = lines[2].replace("\"bytes\":3", "\"bytes\":9"));
        assert_eq!(changed, ["line 3 was changed: entry 3 does not have the hash of its text"]);
        let last = with(&|lines| lines[5] = lines[5].replace("\"bytes\":6", "\"bytes\":9"));
        assert_eq!(last, ["line 6 was changed: entry 6 does not have the hash of its text"]);
        // With a hash that fits the changed text: the entry after it tells.
        let rewritten = with(&|lines| lines[2] = heads[2].append(7, &AuditEntry::Repaired { bytes: 9 }).0);
        assert_eq!(
            rewritten,
            ["line 3 was written anew: entry 3 has another hash than the entry after it was written for"]
        );
        let missing = with(&|lines| drop(lines.remove(2)));
        assert_eq!(missing, ["entry 3 is missing before line 3"]);
        let two = with(&|lines| drop(lines.drain(1..3)));
        assert_eq!(two, ["entries 2 to 3 are missing before line 2"]);
        let first = with(&|lines| drop(lines.remove(0)));
        assert_eq!(first, ["entry 1 is missing before line 1"]);
        let neighbours = with(&|lines| lines.swap(2, 3));
        assert_eq!(
            neighbours,
            [
                "line 3 was exchanged: entry 4 stands there, which belongs to line 4",
                "line 4 was exchanged: entry 3 stands there, which belongs to line 3"
            ]
        );
        let far = with(&|lines| lines.swap(1, 4));
        assert_eq!(
            far,
            [
                "line 2 was exchanged: entry 5 stands there, which belongs to line 5",
                "line 5 was exchanged: entry 2 stands there, which belongs to line 2"
            ]
        );
        let repeated = with(&|lines| lines.insert(2, lines[1].clone()));
        assert_eq!(repeated, ["line 3 repeats entry 2"]);
        let noise = with(&|lines| lines[2] = "{}".to_owned());
        assert_eq!(noise, ["line 3 is not a line of an audit log"]);
    }

    #[test]
    fn heads_are_found_in_the_chain() {
        let (lines, heads) = log(6);
        for head in &heads[1..] {
            assert!(verify(&lines, Some(*head)).ok, "{head}");
        }
        let why = |head| verify(&lines[..4], Some(head)).findings.last().map(ToString::to_string).unwrap();
        // A log that was cut off verifies by itself: only a head that is kept elsewhere shows it.
        assert!(verify(&lines[..4], None).ok);
        assert_eq!(why(heads[6]), format!("the head {} is not in the log: the log ends with entry 4", heads[6]));
        let other = ChainHead { number: 3, hash: heads[4].hash };
        assert!(why(other).ends_with("the entry with its number has another hash"));
        // A chain that was written anew as a whole has other heads.
        let mut anew = Vec::new();
        let mut head = ChainHead::START;
        for number in 1..=6 {
            let (line, next) = head.append(1, &AuditEntry::Repaired { bytes: number });
            anew.push(line);
            head = next;
        }
        assert!(verify(&anew, None).ok && !verify(&anew, Some(heads[6])).ok);
    }

    #[test]
    fn what_is_left_after_a_removal_verifies() {
        let (lines, heads) = log(6);
        let entry = AuditEntry::Removed { lines: 4, until: heads[4] };
        let (removal, head) = heads[6].append(2_000, &entry);
        let kept = [vec![heads[4].anchor()], lines[4..].to_vec(), vec![removal]].concat();
        let verified = verify(&kept, Some(heads[5]));
        assert!(verified.ok, "{verified:?}");
        assert_eq!((verified.removed, verified.head, verified.entries), (Some(heads[4]), Some(head), 3));
        assert!(verify(&kept, Some(heads[4])).ok, "the head before what was removed is kept");
        let gone = verify(&kept, Some(heads[2])).findings[0].to_string();
        assert!(gone.ends_with("entries up to 4 were removed, and their heads with them"), "{gone}");
        // Lines that were taken out by hand behind an anchor, with an anchor made for it.
        let forged = [vec![heads[5].anchor()], kept[2..].to_vec()].concat();
        assert_eq!(
            findings(&forged),
            ["line 1 says that entries up to 5 were removed, and no entry records that removal"]
        );
        let missing = [kept[..1].to_vec(), kept[2..].to_vec()].concat();
        assert_eq!(findings(&missing), ["entry 5 is missing before line 2"]);
    }

    #[test]
    fn heads_are_read_back() {
        let (_, heads) = log(2);
        assert_eq!(heads[2].to_string().parse(), Ok(heads[2]));
        for wrong in ["", "2", "2:", "x:00", "+2:00", &format!("-1:{}", heads[1].hash)] {
            assert!(wrong.parse::<ChainHead>().is_err(), "{wrong}");
        }
    }

    /// Any single change of the bytes of a log is found, by the chain or by its head.
    #[test]
    fn no_changed_byte_passes() {
        let (lines, heads) = log(4);
        let text = lines.join("\n");
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed: Vec<String> = String::from_utf8(bytes).unwrap().split('\n').map(str::to_owned).collect();
            assert!(!verify(&changed, Some(heads[4])).ok, "byte {at} of {text}");
        }
    }
}
