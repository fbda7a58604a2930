//! Notes, whatever their form is: `note/N` in state.
//!
//! | content | effect |
//! |---|---|
//! | `{"do":"put","n":N,"text":TEXT}` | keeps a note |
//! | `{"do":"fill","from":N,"count":COUNT}` | keeps so many, with the text `note N` |
//! | `{"do":"get","n":N}` | replies with `{"text","at"}`; a failure if there is none, or one in another form |
//! | `{"do":"audit"}` | replies with the numbers of notes in its own form and in another: `{"own","other"}` |

use caxton_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A note.
#[derive(Serialize, Deserialize)]
pub struct Note {
    pub text: String,
    /// The time of writing, in milliseconds since 1970; 0 if unknown.
    pub at: u64,
}

/// The form in which notes are kept.
pub trait Form {
    /// Reads a note; `None` if it has another format.
    fn read(value: &[u8]) -> Option<Note>;
    fn write(note: &Note) -> Vec<u8>;
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Content {
    Put { n: u64, text: String },
    Fill { from: u64, count: u64 },
    Get { n: u64 },
    Audit,
}

pub fn handle<F: Form>(message: &Message) -> Handled {
    let keep = |n: u64, text: String| state::set(&key(n), &F::write(&Note { text, at: message.sent_at }));
    match message.json()? {
        Content::Put { n, text } => keep(n, text)?,
        Content::Fill { from, count } => (from..from + count).try_for_each(|n| keep(n, format!("note {n}")))?,
        Content::Get { n } => {
            let value = state::get(&key(n))?.ok_or_else(|| Failure::rejected("there is none"))?;
            let note = F::read(&value).ok_or_else(|| Failure::fault(format!("note/{n} has another form")))?;
            return Ok(Some(Reply::json(&note)?));
        }
        Content::Audit => {
            let (mut own, mut other) = (0, 0);
            for key in state::keys("note/") {
                let value = state::get(&key?)?.unwrap_or_default();
                *if F::read(&value).is_some() { &mut own } else { &mut other } += 1;
            }
            return Ok(Some(Reply::json(&json!({ "own": own, "other": other }))?));
        }
    }
    Ok(Some(Reply::text("kept")))
}

fn key(n: u64) -> String {
    format!("note/{n}")
}

/// The form of version 1: its text, which does not begin with a brace.
pub struct Text;

impl Form for Text {
    fn read(value: &[u8]) -> Option<Note> {
        let text = std::str::from_utf8(value).ok().filter(|text| !text.starts_with('{'))?;
        Some(Note { text: text.to_owned(), at: 0 })
    }

    fn write(note: &Note) -> Vec<u8> {
        note.text.clone().into_bytes()
    }
}
