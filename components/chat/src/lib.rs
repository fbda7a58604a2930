//! A chat that keeps its messages, by room.
//!
//! | request | answer |
//! |---|---|
//! | `POST /rooms/{room}` with a text | its number in the room |
//! | `GET /rooms/{room}` | `[{"n", "text"}]`, the newest 200 |

use caxton_sdk::prelude::*;
use serde::{Deserialize, Serialize};

const KEPT: usize = 200;

/// A room, kept under `room/NAME`.
#[derive(Default, Serialize, Deserialize)]
struct Room {
    /// The number of messages in all.
    count: u64,
    said: Vec<Said>,
}

#[derive(Serialize, Deserialize)]
struct Said {
    n: u64,
    text: String,
}

struct Chat;

impl Agent for Chat {
    fn handle(message: Message) -> Handled {
        let Some(call) = message.http() else { return Ok(Some(Reply::not_understood("the chat takes requests"))) };
        let key = format!("room/{}", call.parameter("room").unwrap_or_default());
        if call.method == "GET" {
            let room: Room = state::get_json(&key)?.unwrap_or_default();
            return Ok(Some(Reply::json(&room.said)?));
        }
        let text = message.text()?.to_owned();
        let n = state::update(&key, |room: &mut Room| {
            room.count += 1;
            room.said.push(Said { n: room.count, text });
            let oldest = room.said.len().saturating_sub(KEPT);
            room.said.drain(..oldest);
            room.count
        })?;
        Ok(Some(Reply::json(&n)?))
    }
}

caxton_sdk::agent!(Chat);
