//! Remembers things, in one of two formats, and answers how many it has.
//!
//! The content is `{"remember": THING}`, the answer `{"have": N}`. In state, `things` is a list in the first format and
//! `{"things": {THING: true...}}` in the second, which `config.format = "2"` names. The second reads both; the first
//! finds nothing in what the second has written. With `config.more` the answer has a count of the messages (`seen`) and
//! the time (`at`, in nanoseconds, and `on`, in seconds) as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use caxton_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Deserialize)]
struct Content {
    remember: String,
}

/// The second format.
#[derive(Serialize, Deserialize)]
struct Second {
    things: BTreeMap<String, bool>,
}

struct Formats;

impl Agent for Formats {
    fn handle(message: Message) -> Handled {
        let content: Content = message.json()?;
        let second = config::get("format").ok().flatten().as_deref() == Some("2");
        let found = state::get("things")?.unwrap_or_default();
        let mut things: BTreeSet<String> = serde_json::from_slice(&found).unwrap_or_default();
        if second && let Ok(Second { things: kept }) = serde_json::from_slice(&found) {
            things.extend(kept.into_keys());
        }
        things.insert(content.remember);
        let have = things.len();
        if second {
            let things = things.into_iter().map(|thing| (thing, true)).collect();
            state::set_json("things", &Second { things })?;
        } else {
            state::set_json("things", &things)?;
        }
        if config::get("more").ok().flatten().is_none() {
            return Ok(Some(Reply::json(&json!({ "have": have }))?));
        }
        let seen = state::increment("seen", 1)?;
        // In nanoseconds: two revisions may handle a message within the same millisecond.
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let answer = json!({ "have": have, "seen": seen, "at": at.as_nanos() as u64, "on": at.as_secs() });
        Ok(Some(Reply::json(&answer)?))
    }
}

caxton_sdk::agent!(Formats);
