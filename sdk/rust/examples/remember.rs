//! Keeps state in its own memory: the host saves it before an instance stops, and restores it in the next one.

use caxton_sdk::prelude::*;
use caxton_sdk::snapshot;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Remember {
    lines: Vec<String>,
    /// The sender of the last message. Snapshots of earlier revisions have no such field.
    #[serde(default)]
    last_sender: Option<String>,
}

impl StatefulAgent for Remember {
    fn handle(&mut self, message: Message) -> Handled {
        self.lines.push(message.text()?.to_owned());
        self.last_sender = Some(message.sender);
        Ok(Some(Reply::json(&self.lines)?))
    }

    fn save(&self) -> Result<Vec<u8>, String> {
        snapshot::to_json(self)
    }

    fn restore(saved: &[u8]) -> Result<Self, String> {
        snapshot::from_json(saved)
    }

    fn check(&self) -> Result<(), String> {
        match config::get("language") {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(String::from("config.language is missing")),
            Err(failure) => Err(failure.reason),
        }
    }
}

caxton_sdk::stateful_agent!(Remember);
