//! Keeps notes as JSON: version 2 of the state of `shapes-old`, which it converts.
//!
//! It converts `config.step` notes in a step (400), and leaves those that are JSON already. `config.fail-at` is the number of
//! the note, in the order of keys and from 1, at which it fails instead. `config.like` is how else it is bad:
//!
//! | like | does |
//! |---|---|
//! | `traps` | traps after its first step |
//! | `loops` | never ends after its first step |
//! | `sends` | sends a message to `peer` first, and fails if it cannot |

#[path = "../../shapes-old/src/note.rs"]
mod note;

use std::hint::black_box;

use caxton_sdk::prelude::*;
use note::{Form, Note, Text};

struct Shapes;

impl Agent for Shapes {
    fn handle(message: Message) -> Handled {
        note::handle::<Json>(&message)
    }
}

impl Migrate for Shapes {
    fn migrate(from: u32) -> Result<(), Failure> {
        if from != 1 {
            return Err(Failure::fault(format!("version {from} is not known")));
        }
        let like = config::get("like")?.unwrap_or_default();
        let step = config::parse::<u64>("step")?.unwrap_or(400);
        let fail_at = config::parse::<u64>("fail-at")?;
        if like == "sends" {
            Draft::to("peer").text("it migrates").send()?;
        }
        let mut written = 0;
        for (before, key) in (0_u64..).zip(state::keys("note/")) {
            let key = key?;
            if fail_at == Some(before + 1) {
                return Err(Failure::fault(format!("{key} is the one to fail at")));
            }
            let value = state::get(&key)?.unwrap_or_default();
            let Some(note) = Text::read(&value) else { continue };
            state::set(&key, &Json::write(&note))?;
            written += 1;
            if written % step == 0 {
                effects::commit()?;
                match like.as_str() {
                    "traps" => panic!("told to trap"),
                    "loops" => loop {
                        black_box(&like);
                    },
                    _ => {}
                }
            }
        }
        log::info!("{written} notes are JSON now");
        Ok(())
    }
}

/// The form of version 2.
struct Json;

impl Form for Json {
    fn read(value: &[u8]) -> Option<Note> {
        serde_json::from_slice(value).ok()
    }

    fn write(note: &Note) -> Vec<u8> {
        serde_json::to_vec(note).expect("a note has a form in JSON")
    }
}

caxton_sdk::agent!(Shapes);
caxton_sdk::migration!(Shapes);
