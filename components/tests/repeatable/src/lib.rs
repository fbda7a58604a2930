//! Answers with what it sees of clocks and random numbers, and logs it, so that attempts can be compared.
//!
//! The content is `{"until": ATTEMPT, "what": WHAT}`. It fails, as `unavailable`, while the attempt is a lower one, and
//! then answers with what it has logged in each: a line of JSON. WHAT is one of these:
//!
//! | what | effect |
//! |---|---|
//! | `all` | both clocks, before and after a wait of 20 ms, and random numbers of each kind |
//! | `clock`, `timer`, `random`, `insecure`, `seed` | one of them alone |

use std::time::{SystemTime, UNIX_EPOCH};

use caxton_sdk::log;
use caxton_sdk::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::random::{insecure, insecure_seed, random};

const WAIT_NS: u64 = 20_000_000;

#[derive(Deserialize)]
struct Content {
    until: u32,
    what: String,
}

fn clocks() -> Value {
    let wall = wall_clock::now();
    let std = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!([wall.seconds, wall.nanoseconds, monotonic_clock::now(), std.as_nanos() as u64])
}

fn seen(what: &str) -> Value {
    match what {
        "clock" => clocks(),
        "timer" => {
            monotonic_clock::subscribe_duration(WAIT_NS).block();
            monotonic_clock::subscribe_instant(monotonic_clock::now() + WAIT_NS).block();
            Value::Null
        }
        "random" => json!([random::get_random_u64(), random::get_random_bytes(16)]),
        "insecure" => json!([insecure::get_insecure_random_u64(), insecure::get_insecure_random_bytes(16)]),
        "seed" => json!(insecure_seed::insecure_seed()),
        _ => {
            let parts = ["clock", "timer", "clock", "random", "insecure", "seed", "random"];
            parts.into_iter().map(seen).collect()
        }
    }
}

struct Repeatable;

impl Agent for Repeatable {
    fn handle(message: Message) -> Handled {
        let content: Content = message.json()?;
        let seen = seen(&content.what);
        log::info!("{seen}");
        if message.attempt < content.until {
            return Err(Failure::unavailable("not yet"));
        }
        Ok(Some(Reply::json(&seen)?))
    }
}

caxton_sdk::agent!(Repeatable);
