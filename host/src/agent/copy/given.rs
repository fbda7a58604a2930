//! The answer that was given to a message, as it is kept with the message for rehearsals.

use std::borrow::Cow;
use std::collections::BTreeMap;

use caxton_control::rollout::compare::{Answer, Content, Ignore, compare};
use serde::{Deserialize, Serialize};

use super::answer::{content, head};
use crate::wasm::{digest, wit};

/// The most bytes of an answer that is kept whole. A longer one is kept as its hash, which identifies the same answer too.
const MAX_BYTES: usize = 64 << 10;

/// An answer that was given.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Kept<'a> {
    Whole(Said<'a>),
    /// The SHA-256 of the encoded answer.
    Hash([u8; 32]),
}

/// A reply as [`Answer`] has it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Said<'a> {
    head: Cow<'a, BTreeMap<String, String>>,
    content_type: Cow<'a, str>,
    content: Cow<'a, [u8]>,
}

impl Said<'_> {
    fn encode(self) -> Vec<u8> {
        const WRITTEN: &str = "a vector takes whatever is written";
        let whole = postcard::to_allocvec(&Kept::Whole(self)).expect(WRITTEN);
        if whole.len() <= MAX_BYTES {
            return whole;
        }
        postcard::to_allocvec(&Kept::Hash(digest(&whole).0)).expect(WRITTEN)
    }
}

/// Encodes a reply to be kept.
pub(in crate::agent) fn encode(reply: &wit::Reply) -> Vec<u8> {
    let (content_type, content) = (Cow::Borrowed(reply.content_type.as_str()), Cow::Borrowed(reply.content.as_slice()));
    Said { head: Cow::Owned(head(reply)), content_type, content }.encode()
}

/// Returns true if an answer is the one that [`encode`] kept, apart from ignored paths; none if this version cannot read
/// what was kept.
pub(super) fn is_like(kept: &[u8], answer: &Answer, ignore: &Ignore) -> Option<bool> {
    let Ok(Some(said)) = &answer.reply else { return Some(false) };
    match postcard::from_bytes(kept).ok()? {
        Kept::Whole(Said { head, content_type, content }) => {
            let content = Content { content_type: content_type.into_owned(), bytes: content.into_owned() };
            let given = Answer { head: head.into_owned(), reply: Ok(Some(content)), effects: Vec::new() };
            Some(compare(&given, answer, ignore).is_empty())
        }
        Kept::Hash(_) => {
            let (content_type, content) = (Cow::Borrowed(said.content_type.as_str()), Cow::Borrowed(&said.bytes[..]));
            Some(Said { head: Cow::Borrowed(&answer.head), content_type, content }.encode() == kept)
        }
    }
}

/// Returns a reply without effects, for the comparison of answers alone.
pub(super) fn reply_only(reply: Option<&wit::Reply>) -> Answer {
    let head = reply.map(head).unwrap_or_default();
    let reply = Ok(reply.map(|reply| content(&reply.content, &reply.content_type)));
    Answer { head, reply, effects: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> wit::Reply {
        wit::Reply {
            performative: wit::Performative::Inform,
            content: text.into(),
            content_type: "application/json".to_owned(),
            ontology: None,
            reply_with: None,
            reply_by: None,
            headers: Vec::new(),
        }
    }

    #[test]
    fn an_answer_is_known_again_and_a_long_one_by_its_hash() {
        let ignore = Ignore::new(["reply.at"]).unwrap();
        let long = |last: &str| format!("[\"{}{last}\"]", "x".repeat(MAX_BYTES));
        for (given, other, like) in [
            (r#"{"n": 1}"#.to_owned(), r#"{"n":1}"#.to_owned(), true),
            (r#"{"n": 1, "at": 5}"#.to_owned(), r#"{"n":1, "at": 9}"#.to_owned(), true),
            (r#"{"n": 1}"#.to_owned(), r#"{"n":2}"#.to_owned(), false),
            (long("a"), long("a"), true),
            (long("a"), long("b"), false),
        ] {
            let kept = encode(&reply(&given));
            assert!(kept.len() <= MAX_BYTES);
            let found = is_like(&kept, &reply_only(Some(&reply(&other))), &ignore);
            assert_eq!(found, Some(like), "{} bytes and {}", given.len(), other.len());
        }
        let kept = encode(&reply("[]"));
        assert_eq!(is_like(&kept, &reply_only(None), &ignore), Some(false));
        assert_eq!(is_like(&[9, 9], &reply_only(Some(&reply("[]"))), &ignore), None, "of a later version");
    }
}
