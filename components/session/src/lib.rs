//! Remembers the messages of each conversation in its own memory, and keeps them through a restart by `snapshot`.
//!
//! | performative | does | answers |
//! |---|---|---|
//! | `query-ref`, `query-if` | nothing | `{"notes": [{"from", "at", "text"}...]}` of the conversation |
//! | `cancel` | forgets the conversation | `{"forgotten": NOTES}` |
//! | any other | remembers the text | `{"remembered": NOTES, "conversations": ALL, "total": NOTES_OF_ALL}` |
//!
//! `config.keep` is how many notes of a conversation are kept, the latest ones (default 1000).

use std::collections::{BTreeMap, VecDeque};

use caxton_sdk::prelude::*;
use caxton_sdk::snapshot;
use serde::{Deserialize, Serialize};

const KEEP: usize = 1_000;

#[derive(Default, Serialize, Deserialize)]
struct Session {
    conversations: BTreeMap<String, VecDeque<Note>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Note {
    from: String,
    /// Milliseconds since 1970.
    at: u64,
    text: String,
}

#[derive(Serialize)]
struct Notes<'a> {
    notes: &'a VecDeque<Note>,
}

#[derive(Serialize)]
struct Remembered {
    remembered: usize,
    conversations: usize,
    total: usize,
}

#[derive(Serialize)]
struct Forgotten {
    forgotten: usize,
}

impl Session {
    fn remember(&mut self, conversation: String, note: Note, keep: usize) -> Remembered {
        let notes = self.conversations.entry(conversation).or_default();
        notes.push_back(note);
        while notes.len() > keep {
            notes.pop_front();
        }
        Remembered {
            remembered: notes.len(),
            conversations: self.conversations.len(),
            total: self.conversations.values().map(VecDeque::len).sum(),
        }
    }
}

impl StatefulAgent for Session {
    fn handle(&mut self, message: Message) -> Handled {
        match message.performative {
            Performative::QueryRef | Performative::QueryIf => {
                let nothing = VecDeque::new();
                let notes = self.conversations.get(&message.conversation_id).unwrap_or(&nothing);
                Ok(Some(Reply::json(&Notes { notes })?))
            }
            Performative::Cancel => {
                let forgotten = self.conversations.remove(&message.conversation_id).map_or(0, |notes| notes.len());
                Ok(Some(Reply::json(&Forgotten { forgotten })?))
            }
            _ => {
                let keep = config::parse("keep")?.unwrap_or(KEEP).max(1);
                let text = message.text()?.to_owned();
                let note = Note { from: message.sender, at: message.sent_at, text };
                Ok(Some(Reply::json(&self.remember(message.conversation_id, note, keep))?))
            }
        }
    }

    fn save(&self) -> Result<Vec<u8>, String> {
        snapshot::to_json(self)
    }

    fn restore(saved: &[u8]) -> Result<Self, String> {
        snapshot::from_json(saved)
    }
}

caxton_sdk::stateful_agent!(Session);
