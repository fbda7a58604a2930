//! The pages that the diary writes, and the ways in which a new revision of it can be bad.
//!
//! The content is `{"conversation", "n", "id"}`: the nth message of a conversation, and a number of its own. In state,
//! `did/CONVERSATION/N` lists who handled it, as `[[WHO, ATTEMPT]...]`, so that what has two effects shows; `disorder`
//! counts messages that came before an earlier one of their conversation. `{"audit": AFTER, "limit": N}` answers
//! a page of it: `{"did": {KEY: LIST}, "next", "disorder", "total"}`.
//!
//! The kind of a revision is `config.like`, or else the mark in its bytes, which a test may overwrite:
//!
//! | like | does |
//! |---|---|
//! | `traps` | traps at each message whose id is 7 beyond a multiple of 20 |
//! | `fails` | traps at every fifth message |
//! | `slow` | takes 600 ms for a message |
//! | `leaks` | keeps 8 MiB of each message |
//! | `unready` | is never healthy |
//! | `faints` | is healthy until it has handled a message |
//! | `forgets` | refuses what was saved, if it keeps its state in memory |
//!
//! Any other kind behaves well, and is only a name.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caxton_sdk::bindings::caxton::agent::state::list_keys;
use caxton_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// `LIKE=`, and a word with dots after it.
static MARK: [u8; 32] = *b"LIKE=old........................";

/// The memory that a leaking revision keeps.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static HANDLED: AtomicBool = AtomicBool::new(false);

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Entry { conversation: String, n: u64, id: u64 },
    Audit { audit: Option<String>, limit: u32 },
}

#[derive(Serialize)]
struct Page {
    did: BTreeMap<String, Vec<(String, u32)>>,
    next: Option<String>,
    disorder: u64,
    total: Option<u64>,
}

/// Returns the kind of this revision.
pub(crate) fn like() -> String {
    if let Ok(Some(like)) = config::get("like") {
        return like;
    }
    let word = &black_box(&MARK)[5..];
    String::from_utf8_lossy(word).trim_end_matches('.').to_owned()
}

/// Writes a message down; `total` is how many the agent remembers, if it does.
pub(crate) fn write(message: &Message, total: Option<&mut u64>) -> Handled {
    let (conversation, n, id) = match message.json()? {
        Content::Entry { conversation, n, id } => (conversation, n, id),
        Content::Audit { audit, limit } => return page(audit.as_deref(), limit, total.map(|total| *total)),
    };
    let like = like();
    state::update(&format!("did/{conversation}/{n:06}"), |did: &mut Vec<(String, u32)>| {
        did.push((like.clone(), message.attempt));
    })?;
    let key = format!("order/{conversation}");
    if state::get_json::<u64>(&key)?.is_some_and(|last| last >= n) {
        state::increment("disorder", 1)?;
    }
    state::set_json(&key, &n)?;
    match like.as_str() {
        "traps" if id % 20 == 7 => panic!("as it is told"),
        "fails" if id % 5 == 1 => panic!("as it is told"),
        "slow" => std::thread::sleep(Duration::from_millis(600)),
        "leaks" => {
            if let Ok(mut kept) = KEPT.lock() {
                kept.push(vec![1; 8 << 20]);
            }
        }
        _ => {}
    }
    HANDLED.store(true, Ordering::Relaxed);
    if let Some(total) = total {
        *total += 1;
    }
    Ok(Some(Reply::json(&json!({ "by": like }))?))
}

/// Answers the health check.
pub(crate) fn check() -> Result<(), String> {
    match like().as_str() {
        "unready" => Err("it is told not to be ready".to_owned()),
        "faints" if HANDLED.load(Ordering::Relaxed) => Err("it is told to faint".to_owned()),
        _ => Ok(()),
    }
}

fn page(after: Option<&str>, limit: u32, total: Option<u64>) -> Handled {
    let found = list_keys("did/", after, limit)?;
    let mut did = BTreeMap::new();
    for key in found.keys {
        let list = state::get_json(&key)?.unwrap_or_default();
        did.insert(key, list);
    }
    let disorder = state::get_json("disorder")?.unwrap_or(0);
    Ok(Some(Reply::json(&Page { did, next: found.cursor, disorder, total })?))
}
