//! The comparison of two revisions' answers to one message (SPEC §3, parallel).
//!
//! It covers the reply and the effects: writes to state by key, with times to live, and messages and requests in order.
//! JSON is compared by structure, so that neither spaces nor the order of keys matter; everything else byte by byte.
//! Every difference is listed with its path, such as `reply.items[0].price` or `state.total`.
//!
//! A pattern names paths that may differ, with everything below them: `reply.at`, `sends[*].content.id`, and `**.at` at
//! any depth. Comparing stable with itself shows differences that mean nothing (a time, a random id):
//! [`IgnoredPaths::learn`] adds them to the patterns.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::ignored_paths::PathPart;

pub use super::answer::{Answer, AnswerDifference, Content, Effect};
pub use super::ignored_paths::{IgnoredPaths, PathError, PathPattern};

/// The longest text of a listed value, in characters.
// A record holds up to `MAX_LISTED` of them, twice.
const MAX_SHOWN: usize = 200;

/// The reason why a call over HTTP of a copy is refused.
pub const COPY_CALLS: &str = "a copy of a message makes no call over HTTP (HTTP-request-denied)";

/// The beginning of the line of a connection over TCP. That of a call over HTTP has a URL behind its first word.
pub const CONNECTS: &str = "connect to ";
/// The beginning of the line of a file that is changed.
pub const CHANGES: &str = "change ";

/// Returns the reason why a copy does not do what a line says.
fn refusal(line: &str) -> &'static str {
    if line.starts_with(CONNECTS) {
        "a copy of a message makes no connection (access-denied)"
    } else if line.starts_with(CHANGES) && !line.contains("://") {
        "a copy of a message changes no file (read-only)"
    } else {
        COPY_CALLS
    }
}

/// The most listed differences of one message.
pub const MAX_LISTED: usize = 100;

/// Compares two answers to one message. Lists at most [`MAX_LISTED`] differences, and none that `ignore` covers.
pub fn compare(stable: &Answer, candidate: &Answer, ignore: &IgnoredPaths) -> Vec<AnswerDifference> {
    let mut found = Found { ignore, path: Vec::new(), differences: Vec::new() };
    // First, as the reply is what a person looks for.
    found.at("reply", |found| found.replies(&stable.reply, &candidate.reply));
    // Without two replies the difference is reported once, at `reply`.
    if let (Ok(Some(_)), Ok(Some(_))) = (&stable.reply, &candidate.reply) {
        found.at("head", |found| found.heads(&stable.head, &candidate.head));
    }
    let (old, new) = (writes(&stable.effects), writes(&candidate.effects));
    // Sorted, so that equal answers list their differences in the same order.
    let keys: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    found.at("state", |found| {
        for key in keys {
            found.at(key, |found| found.written(old.get(key), new.get(key)));
        }
    });
    let (old, new) = (times(&stable.effects), times(&candidate.effects));
    let keys: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    found.at("expires", |found| {
        for key in keys.into_iter().filter(|key| old.get(key) != new.get(key)) {
            let told = |times: &BTreeMap<&str, u64>| times.get(key).map(|ms| format!("{ms}ms"));
            found.at(key, |found| found.differs(told(&old), told(&new)));
        }
    });
    let (old, new) = (sends(&stable.effects), sends(&candidate.effects));
    found.at("sends", |found| {
        // To the end of the longer one: a message that only one side sent is a difference.
        for at in 0..old.len().max(new.len()) {
            found.within(PathPart::Index(at), |found| found.sent(old.get(at).copied(), new.get(at).copied()));
        }
    });
    let (old, new) = (cancels(&stable.effects), cancels(&candidate.effects));
    if old != new {
        found.at("cancels", |found| found.differs(old, new));
    }
    let (old, new) = (requests(&stable.effects), requests(&candidate.effects));
    found.at("requests", |found| {
        for at in 0..old.len().max(new.len()) {
            found.within(PathPart::Index(at), |found| found.asked(old.get(at).copied(), new.get(at).copied()));
        }
    });
    let (old, new) = (calls(&stable.effects), calls(&candidate.effects));
    found.at("calls", |found| {
        for at in 0..old.len().max(new.len()) {
            // A refused one differs from one that was made: an answer without its result says little.
            if old.get(at) != new.get(at) {
                let told = |calls: &[&Effect]| calls.get(at).map(|call| call.told());
                found.within(PathPart::Index(at), |found| found.differs(told(&old), told(&new)));
            }
        }
    });
    found.differences
}

/// The final write to a key: the last value or its deletion, and the increments after that.
#[derive(Default, PartialEq)]
struct Written<'a> {
    value: Option<Option<&'a [u8]>>,
    added: i64,
}

fn writes(effects: &[Effect]) -> BTreeMap<&str, Written<'_>> {
    let mut writes: BTreeMap<&str, Written<'_>> = BTreeMap::new();
    for effect in effects {
        match effect {
            // A write replaces earlier increments of its key.
            Effect::Set { key, value } => _ = writes.insert(key, Written { value: Some(Some(value)), added: 0 }),
            Effect::Delete { key } => _ = writes.insert(key, Written { value: Some(None), added: 0 }),
            Effect::Increment { key, by } => {
                let written = writes.entry(key).or_default();
                // Guests choose the amounts, so their sum may overflow.
                written.added = written.added.saturating_add(*by);
            }
            Effect::Expire { .. }
            | Effect::Send { .. }
            | Effect::Cancel { .. }
            | Effect::Request { .. }
            | Effect::Call { .. } => {}
        }
    }
    writes
}

/// Returns the final times to live of keys.
fn times(effects: &[Effect]) -> BTreeMap<&str, u64> {
    let mut times = BTreeMap::new();
    for effect in effects {
        match effect {
            Effect::Expire { key, for_ms } => _ = times.insert(key.as_str(), *for_ms),
            // A new value has no time to live.
            Effect::Set { key, .. } | Effect::Delete { key } => _ = times.remove(key.as_str()),
            // An increment keeps the time to live of its key.
            Effect::Increment { .. }
            | Effect::Send { .. }
            | Effect::Cancel { .. }
            | Effect::Request { .. }
            | Effect::Call { .. } => {}
        }
    }
    times
}

fn sends(effects: &[Effect]) -> Vec<&Effect> {
    effects.iter().filter(|effect| matches!(effect, Effect::Send { .. })).collect()
}

/// Returns the cancelled timers, in order; `None` if there are none.
fn cancels(effects: &[Effect]) -> Option<String> {
    let timers: Vec<&str> = effects
        .iter()
        .filter_map(|effect| if let Effect::Cancel { timer } = effect { Some(timer.as_str()) } else { None })
        .collect();
    (!timers.is_empty()).then(|| timers.join(", "))
}

fn requests(effects: &[Effect]) -> Vec<&Effect> {
    effects.iter().filter(|effect| matches!(effect, Effect::Request { .. })).collect()
}

fn calls(effects: &[Effect]) -> Vec<&Effect> {
    effects.iter().filter(|effect| matches!(effect, Effect::Call { .. })).collect()
}

struct Found<'a> {
    ignore: &'a IgnoredPaths,
    path: Vec<PathPart>,
    differences: Vec<AnswerDifference>,
}

impl Found<'_> {
    fn at(&mut self, key: &str, compare: impl FnOnce(&mut Self)) {
        self.within(PathPart::Key(key.to_owned()), compare);
    }

    fn within(&mut self, part: PathPart, compare: impl FnOnce(&mut Self)) {
        self.path.push(part);
        compare(self);
        self.path.pop();
    }

    fn differs(&mut self, stable: Option<String>, candidate: Option<String>) {
        if !self.ignore.covers(&self.path) {
            self.differ(stable, candidate);
        }
    }

    fn differ(&mut self, stable: Option<String>, candidate: Option<String>) {
        // A long list that differs in each element would fill the record.
        if self.differences.len() < MAX_LISTED {
            let path = PathPattern(self.path.clone()).to_string();
            let [stable, candidate] = [stable, candidate].map(|text| text.map(cut));
            self.differences.push(AnswerDifference { path, stable, candidate });
        }
    }

    fn texts(&mut self, stable: &str, candidate: &str) {
        if stable != candidate {
            self.differs(Some(stable.to_owned()), Some(candidate.to_owned()));
        }
    }

    fn replies(&mut self, stable: &Result<Option<Content>, String>, candidate: &Result<Option<Content>, String>) {
        match (stable, candidate) {
            (Ok(Some(old)), Ok(Some(new))) => self.contents(old, new),
            (Ok(None), Ok(None)) => {}
            (Err(old), Err(new)) => self.at("failure", |found| found.texts(old, new)),
            (Ok(_), Ok(_)) => self.differs(reply(stable), reply(candidate)),
            // A failure of only one revision is too serious to be hidden by a pattern that was meant for something
            // else.
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => self.at("failure", |found| {
                if !found.ignore.names(&found.path) {
                    found.differ(reply(stable), reply(candidate));
                }
            }),
        }
    }

    fn heads(&mut self, stable: &BTreeMap<String, String>, candidate: &BTreeMap<String, String>) {
        let names: BTreeSet<&String> = stable.keys().chain(candidate.keys()).collect();
        for name in names {
            let (old, new) = (stable.get(name), candidate.get(name));
            if old != new {
                self.at(name, |found| found.differs(old.cloned(), new.cloned()));
            }
        }
    }

    fn contents(&mut self, stable: &Content, candidate: &Content) {
        if stable.content_type != candidate.content_type {
            self.at("content-type", |found| found.texts(&stable.content_type, &candidate.content_type));
        }
        // Covers `application/problem+json` and the like; media types ignore case.
        let json = |content: &Content| content.content_type.to_ascii_lowercase().contains("json");
        self.bytes(&stable.bytes, &candidate.bytes, json(stable) && json(candidate));
    }

    /// Compares bytes: as JSON if both parse, and either the media type says so or the value is an object or a list. A
    /// bare number or word may as well be text.
    fn bytes(&mut self, stable: &[u8], candidate: &[u8], said: bool) {
        if stable == candidate {
            return;
        }
        let parsed = |bytes: &[u8]| {
            let value: Option<Value> = serde_json::from_slice(bytes).ok();
            value.filter(|value| said || value.is_object() || value.is_array())
        };
        match (parsed(stable), parsed(candidate)) {
            (Some(old), Some(new)) => self.values(&old, &new),
            _ => self.differs(Some(shown(stable)), Some(shown(candidate))),
        }
    }

    fn values(&mut self, stable: &Value, candidate: &Value) {
        match (stable, candidate) {
            (Value::Object(old), Value::Object(new)) => {
                let added = new.keys().filter(|key| !old.contains_key(*key));
                for key in old.keys().chain(added) {
                    self.at(key, |found| found.maybe(old.get(key), new.get(key)));
                }
            }
            (Value::Array(old), Value::Array(new)) => {
                for at in 0..old.len().max(new.len()) {
                    self.within(PathPart::Index(at), |found| found.maybe(old.get(at), new.get(at)));
                }
            }
            // 1 and 1.0 are the same number.
            (Value::Number(old), Value::Number(new))
                if old == new || old.as_f64() == new.as_f64() && is_float(old, new) => {}
            (old, new) if old == new => {}
            (old, new) => self.differs(Some(old.to_string()), Some(new.to_string())),
        }
    }

    fn maybe(&mut self, stable: Option<&Value>, candidate: Option<&Value>) {
        match (stable, candidate) {
            (Some(old), Some(new)) => self.values(old, new),
            (old, new) => self.differs(old.map(Value::to_string), new.map(Value::to_string)),
        }
    }

    fn written(&mut self, stable: Option<&Written<'_>>, candidate: Option<&Written<'_>>) {
        // Two values may be equal as JSON although their bytes differ.
        if let (Some(old), Some(new)) = (stable, candidate)
            && let (Some(Some(before)), Some(Some(after))) = (old.value, new.value)
            && old.added == new.added
        {
            return self.bytes(before, after, false);
        }
        if stable != candidate {
            self.differs(stable.map(Written::told), candidate.map(Written::told));
        }
    }

    fn sent(&mut self, stable: Option<&Effect>, candidate: Option<&Effect>) {
        let (
            Some(Effect::Send { receiver, performative, content, after_ms }),
            Some(Effect::Send { receiver: to, performative: act, content: new, after_ms: after }),
        ) = (stable, candidate)
        else {
            return self.differs(stable.map(Effect::told), candidate.map(Effect::told));
        };
        self.at("receiver", |found| found.texts(receiver, to));
        self.at("performative", |found| found.texts(performative, act));
        self.at("content", |found| found.contents(content, new));
        if after_ms != after {
            let told = |after: &Option<u64>| after.map(|ms| format!("{ms}ms"));
            self.at("after", |found| found.differs(told(after_ms), told(after)));
        }
    }

    fn asked(&mut self, stable: Option<&Effect>, candidate: Option<&Effect>) {
        let (
            Some(Effect::Request { receiver, performative, content }),
            Some(Effect::Request { receiver: to, performative: act, content: new }),
        ) = (stable, candidate)
        else {
            return self.differs(stable.map(Effect::told), candidate.map(Effect::told));
        };
        self.at("receiver", |found| found.texts(receiver, to));
        self.at("performative", |found| found.texts(performative, act));
        self.at("content", |found| found.contents(content, new));
    }
}

impl Effect {
    /// Returns a text for people: the receiver and the content, or the key.
    fn told(&self) -> String {
        match self {
            Self::Send { receiver, content, .. } | Self::Request { receiver, content, .. } => {
                format!("to {receiver}: {}", shown(&content.bytes))
            }
            Self::Set { key, .. } | Self::Delete { key } | Self::Increment { key, .. } | Self::Expire { key, .. } => {
                key.clone()
            }
            Self::Cancel { timer } => timer.clone(),
            Self::Call { line, refused: false } => line.clone(),
            Self::Call { line, refused: true } => format!("{line}, refused: {}", refusal(line)),
        }
    }
}

/// Returns `true` if a comparison as floating-point numbers is meant: of two integers it would lose digits.
fn is_float(one: &serde_json::Number, other: &serde_json::Number) -> bool {
    one.is_f64() || other.is_f64()
}

impl Written<'_> {
    fn told(&self) -> String {
        let value = match self.value {
            None => None,
            Some(None) => Some("deleted".to_owned()),
            Some(Some(bytes)) => Some(shown(bytes)),
        };
        match (value, self.added) {
            (None, added) => format!("{added:+}"),
            (Some(value), 0) => value,
            (Some(value), added) => format!("{value} and {added:+}"),
        }
    }
}

/// Returns bytes as text if they are UTF-8, and otherwise their number and beginning.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            // Enough to show the signature of a file format.
            let first: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            format!("{} bytes, {first}…", bytes.len())
        }
    }
}

fn cut(text: String) -> String {
    // By characters: a cut inside one would panic.
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Returns a reply as it is shown.
fn reply(reply: &Result<Option<Content>, String>) -> Option<String> {
    match reply {
        Ok(content) => content.as_ref().map(|content| shown(&content.bytes)),
        Err(why) => Some(format!("failed: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Answer {
        let content_type = if text.starts_with(['{', '[']) { "application/json" } else { "text/plain" };
        let content = Content { content_type: content_type.to_owned(), bytes: text.into() };
        Answer { head: BTreeMap::new(), reply: Ok(Some(content)), effects: Vec::new() }
    }

    fn does(effects: &[Effect]) -> Answer {
        Answer { head: BTreeMap::new(), reply: Ok(None), effects: effects.to_vec() }
    }

    fn set(key: &str, value: &str) -> Effect {
        Effect::Set { key: key.to_owned(), value: value.into() }
    }

    fn add(key: &str, by: i64) -> Effect {
        Effect::Increment { key: key.to_owned(), by }
    }

    fn expire(key: &str, for_ms: u64) -> Effect {
        Effect::Expire { key: key.to_owned(), for_ms }
    }

    fn send(receiver: &str, text: &str) -> Effect {
        let content = reply(text).reply.unwrap().unwrap();
        Effect::Send { receiver: receiver.to_owned(), performative: "inform".to_owned(), content, after_ms: None }
    }

    fn ask(receiver: &str, text: &str) -> Effect {
        let content = reply(text).reply.unwrap().unwrap();
        Effect::Request { receiver: receiver.to_owned(), performative: "query-ref".to_owned(), content }
    }

    #[test]
    fn the_head_of_a_reply_is_compared() {
        let meant = |act: &str| Answer { head: [("performative".to_owned(), act.to_owned())].into(), ..reply("same") };
        assert_eq!(told(&meant("inform"), &meant("inform"), &[]), "");
        assert_eq!(told(&meant("inform"), &meant("failure"), &[]), "head.performative: inform | failure");
        assert_eq!(told(&meant("inform"), &meant("failure"), &["head"]), "");
    }

    /// Returns the differences as one line: `path: stable | candidate`.
    fn told(stable: &Answer, candidate: &Answer, ignore: &[&str]) -> String {
        let ignore = IgnoredPaths::new(ignore.iter().copied()).unwrap();
        let line = |difference: AnswerDifference| {
            let side = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            format!("{}: {} | {}", difference.path, side(difference.stable), side(difference.candidate))
        };
        compare(stable, candidate, &ignore).into_iter().map(line).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn replies_are_compared_by_structure_or_bytes() {
        for (stable, candidate, ignore, expected) in [
            ("same", "same", &[][..], ""),
            ("same", "other", &[], "reply: same | other"),
            (r#"{"a":1,"b":[1,2]}"#, r#"{ "b": [1, 2.0], "a": 1 }"#, &[], ""),
            (r#"{"a":1}"#, r#"{"a":2}"#, &[], "reply.a: 1 | 2"),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#, &[], "reply.b: - | null"),
            (r#"{"a":{"x y":"1"}}"#, r#"{"a":{"x y":1}}"#, &[], "reply.a[\"x y\"]: \"1\" | 1"),
            ("[1,2,3]", "[1,3]", &[], "reply[1]: 2 | 3; reply[2]: 3 | -"),
            (r#"{"at":1,"b":1}"#, r#"{"at":2,"b":2}"#, &["reply.at"], "reply.b: 1 | 2"),
            (r#"{"l":[{"at":1},{"at":2}]}"#, r#"{"l":[{"at":3},{"at":4}]}"#, &["reply.l[*].at"], ""),
            (r#"{"l":[{"at":1},{"x":2}]}"#, r#"{"l":[{"at":3},{"x":4}]}"#, &["**.at"], "reply.l[1].x: 2 | 4"),
            (r#"{"l":[{"at":1}]}"#, r#"{"l":[{"at":3}]}"#, &["reply.l"], ""),
            (
                r#"{"a":1}"#,
                "broken",
                &[],
                "reply.content-type: application/json | text/plain; reply: {\"a\":1} | broken",
            ),
            ("9007199254740993", "9007199254740992", &[], "reply: 9007199254740993 | 9007199254740992"),
        ] {
            assert_eq!(told(&reply(stable), &reply(candidate), ignore), expected, "{stable} {candidate}");
        }
        let failed = |why: &str| Answer { head: BTreeMap::new(), reply: Err(why.to_owned()), effects: Vec::new() };
        assert_eq!(told(&reply("same"), &failed("trap"), &[]), "reply.failure: same | failed: trap");
        assert_eq!(told(&reply("same"), &failed("trap"), &["**", "reply.**"]), "reply.failure: same | failed: trap");
        assert_eq!(told(&reply("same"), &failed("trap"), &["reply.failure"]), "");
        assert_eq!(told(&failed("one"), &failed("two"), &[]), "reply.failure: one | two");
        assert_eq!(told(&does(&[]), &reply("same"), &[]), "reply: - | same");
    }

    #[test]
    fn effects_are_compared_by_their_result() {
        for (name, stable, candidate, expected) in [
            ("the same", vec![set("a", "1"), add("n", 2)], vec![add("n", 2), set("a", "1")], ""),
            ("the last write counts", vec![set("a", "0"), set("a", "1")], vec![set("a", "1")], ""),
            ("so does the sum", vec![add("n", 1), add("n", 1)], vec![add("n", 2)], ""),
            ("another value", vec![set("a", "1")], vec![set("a", "2")], "state.a: 1 | 2"),
            ("by structure", vec![set("a", r#"{"x":1,"y":2}"#)], vec![set("a", r#"{"y":2,"x":1}"#)], ""),
            ("deleted", vec![set("a", "1")], vec![Effect::Delete { key: "a".to_owned() }], "state.a: 1 | deleted"),
            ("not written", vec![set("a", "1")], vec![], "state.a: 1 | -"),
            ("counted otherwise", vec![add("n", 1)], vec![add("n", 2)], "state.n: +1 | +2"),
            ("for as long", vec![set("a", "1"), expire("a", 5)], vec![set("a", "1"), expire("a", 5)], ""),
            (
                "for longer",
                vec![set("a", "1"), expire("a", 5)],
                vec![set("a", "1"), expire("a", 6)],
                "expires.a: 5ms | 6ms",
            ),
            ("for ever", vec![set("a", "1"), expire("a", 5)], vec![set("a", "1")], "expires.a: 5ms | -"),
            ("in the end", vec![set("a", "0"), expire("a", 5), set("a", "1")], vec![set("a", "1")], ""),
            ("sent to another", vec![send("bert", "x")], vec![send("cleo", "x")], "sends[0].receiver: bert | cleo"),
            ("not sent", vec![send("bert", "x")], vec![], "sends[0]: to bert: x | -"),
            (
                "in another order",
                vec![send("bert", "1"), send("bert", "2")],
                vec![send("bert", "2"), send("bert", "1")],
                "sends[0].content: 1 | 2; sends[1].content: 2 | 1",
            ),
            ("asked the same", vec![ask("bert", "x")], vec![ask("bert", "x")], ""),
            ("asked otherwise", vec![ask("bert", "x")], vec![ask("bert", "y")], "requests[0].content: x | y"),
            ("asked more", vec![], vec![ask("bert", "y")], "requests[0]: - | to bert: y"),
        ] {
            assert_eq!(told(&does(&stable), &does(&candidate), &[]), expected, "{name}");
        }
        let bytes = |bytes: &[u8]| does(&[Effect::Set { key: "b".to_owned(), value: bytes.to_vec() }]);
        assert_eq!(told(&bytes(&[0xff, 1]), &bytes(&[0xff]), &[]), "state.b: 2 bytes, ff01… | 1 bytes, ff…");
    }

    #[test]
    fn meaningless_differences_are_learned() {
        let one = reply(r#"{"id":"a","lines":[{"at":1,"price":5}]}"#);
        let again = reply(r#"{"id":"b","lines":[{"at":2,"price":5}]}"#);
        let mut ignore = IgnoredPaths::default();
        ignore.learn(&compare(&one, &again, &ignore));
        ignore.learn(&compare(&one, &again, &ignore));
        assert_eq!(ignore.paths(), ["reply.id", "reply.lines[*].at"]);
        let candidate = reply(r#"{"id":"c","lines":[{"at":3,"price":5},{"at":4,"price":6}]}"#);
        let more = reply(r#"{"id":"d","lines":[{"at":3,"price":5},{"at":4,"price":7}]}"#);
        let paths: Vec<String> = compare(&more, &candidate, &ignore).into_iter().map(|d| d.path).collect();
        assert_eq!(paths, ["reply.lines[1].price"]);
    }

    #[test]
    fn patterns_are_parsed_as_printed() {
        for text in ["reply", "reply.items[0].price", "sends[*].content", "state[\"a.b \\\"c\\\"\"].x", "**.at", "a.**"]
        {
            let pattern: PathPattern = text.parse().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(pattern.to_string(), text);
        }
        for text in ["", ".a", "a.", "a..b", "a[", "a[x]", "a[\"x]", "a[0]b"] {
            assert_eq!(text.parse::<PathPattern>(), Err(PathError), "{text}");
        }
        assert_eq!("a.*".parse::<PathPattern>().unwrap().to_string(), "a[*]");
    }

    #[test]
    fn listed_differences_are_bounded() {
        let many = |value: u32| {
            let list: Vec<u32> = (0..1_000).map(|_| value).collect();
            reply(&serde_json::to_string(&list).unwrap())
        };
        assert_eq!(compare(&many(1), &many(2), &IgnoredPaths::default()).len(), MAX_LISTED);
        let long = compare(&reply(&"x".repeat(10_000)), &reply("y"), &IgnoredPaths::default());
        assert_eq!(long[0].stable.as_ref().map(|text| text.chars().count()), Some(MAX_SHOWN + 1));
    }
}
