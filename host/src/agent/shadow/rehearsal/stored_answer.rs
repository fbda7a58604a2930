//! The encoding of an answer that is stored with its message for rehearsals.

use std::borrow::Cow;
use std::collections::BTreeMap;

use caxton_control::rollout::comparison::{Answer, Content, IgnoredPaths, compare};
use serde::{Deserialize, Serialize};

use super::super::handler_answer::{content, head};
use crate::message::Reply;
use crate::wasm::digest;

/// The most bytes of an answer that is stored whole. A longer one is stored as its hash: it is needed to recognise the
/// same answer, not to show it.
const MAX_BYTES: usize = 64 << 10;

/// An answer as it is stored. The order of the variants and fields is part of the format.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum StoredAnswer<'a> {
    Whole(StoredReply<'a>),
    /// The SHA-256 of the encoded answer.
    Hash([u8; 32]),
}

/// A reply with the parts of an [`Answer`].
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct StoredReply<'a> {
    head: Cow<'a, BTreeMap<String, String>>,
    content_type: Cow<'a, str>,
    content: Cow<'a, [u8]>,
}

impl StoredReply<'_> {
    fn encode(self) -> Vec<u8> {
        const WRITTEN: &str = "a vector takes whatever is written";
        let whole = postcard::to_allocvec(&StoredAnswer::Whole(self)).expect(WRITTEN);
        // Measured after encoding, because the head and the content type count as well.
        if whole.len() <= MAX_BYTES {
            return whole;
        }
        postcard::to_allocvec(&StoredAnswer::Hash(digest(&whole).0)).expect(WRITTEN)
    }
}

/// Encodes a reply to be stored.
pub(in crate::agent) fn encode_answer(reply: &Reply) -> Vec<u8> {
    let (content_type, content) = (Cow::Borrowed(reply.content_type.as_str()), Cow::Borrowed(reply.content.as_slice()));
    StoredReply { head: Cow::Owned(head(reply)), content_type, content }.encode()
}

/// Returns `true` if an answer equals a stored one, apart from ignored paths; `None` if this version of the host cannot
/// read the stored one.
pub(super) fn equals_stored(stored: &[u8], answer: &Answer, ignore: &IgnoredPaths) -> Option<bool> {
    let Ok(Some(reply)) = &answer.reply else { return Some(false) };
    match postcard::from_bytes(stored).ok()? {
        StoredAnswer::Whole(StoredReply { head, content_type, content }) => {
            let content = Content { content_type: content_type.into_owned(), bytes: content.into_owned() };
            let given = Answer { head: head.into_owned(), reply: Ok(Some(content)), effects: Vec::new() };
            Some(compare(&given, answer, ignore).is_empty())
        }
        StoredAnswer::Hash(_) => {
            let (content_type, content) = (Cow::Borrowed(reply.content_type.as_str()), Cow::Borrowed(&reply.bytes[..]));
            Some(StoredReply { head: Cow::Borrowed(&answer.head), content_type, content }.encode() == stored)
        }
    }
}

/// Returns the answer of a reply without effects: rehearsals compare replies only.
pub(super) fn reply_only(reply: Option<&Reply>) -> Answer {
    let head = reply.map(head).unwrap_or_default();
    let reply = Ok(reply.map(|reply| content(&reply.content, &reply.content_type)));
    Answer { head, reply, effects: Vec::new() }
}

#[cfg(test)]
mod tests {
    use caxton_control::Performative;

    use super::*;

    fn reply(text: &str) -> Reply {
        Reply {
            performative: Performative::Inform,
            content: text.into(),
            content_type: "application/json".to_owned(),
            ontology: None,
            reply_with: None,
            reply_by: None,
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_stored_answer_is_recognised_and_a_long_one_by_its_hash() {
        let ignore = IgnoredPaths::new(["reply.at"]).unwrap();
        let long = |last: &str| format!("[\"{}{last}\"]", "x".repeat(MAX_BYTES));
        for (given, other, like) in [
            (r#"{"n": 1}"#.to_owned(), r#"{"n":1}"#.to_owned(), true),
            (r#"{"n": 1, "at": 5}"#.to_owned(), r#"{"n":1, "at": 9}"#.to_owned(), true),
            (r#"{"n": 1}"#.to_owned(), r#"{"n":2}"#.to_owned(), false),
            (long("a"), long("a"), true),
            (long("a"), long("b"), false),
        ] {
            let stored = encode_answer(&reply(&given));
            assert!(stored.len() <= MAX_BYTES);
            let found = equals_stored(&stored, &reply_only(Some(&reply(&other))), &ignore);
            assert_eq!(found, Some(like), "{} bytes and {}", given.len(), other.len());
        }
        let stored = encode_answer(&reply("[]"));
        assert_eq!(equals_stored(&stored, &reply_only(None), &ignore), Some(false));
        assert_eq!(equals_stored(&[9, 9], &reply_only(Some(&reply("[]"))), &ignore), None, "of a later version");
    }
}
