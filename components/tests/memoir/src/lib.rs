//! A `diary` that also remembers, in its memory, how many messages it handled.

#[path = "../../diary/src/page.rs"]
mod page;

use caxton_sdk::prelude::*;
use caxton_sdk::snapshot;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Memoir {
    total: u64,
}

impl StatefulAgent for Memoir {
    fn handle(&mut self, message: Message) -> Handled {
        page::write(&message, Some(&mut self.total))
    }

    fn save(&self) -> Result<Vec<u8>, String> {
        snapshot::to_json(self)
    }

    fn restore(saved: &[u8]) -> Result<Self, String> {
        if page::like() == "forgets" { Err("it is told to forget".to_owned()) } else { snapshot::from_json(saved) }
    }

    fn check(&self) -> Result<(), String> {
        page::check()
    }
}

caxton_sdk::stateful_agent!(Memoir);
