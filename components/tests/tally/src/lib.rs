//! Counts messages in its memory, and does to it what their content says.
//!
//! | content | effect |
//! |---|---|
//! | `add` | counts, and writes the count under `did/ID` of the message |
//! | `count` | counts, and writes nothing |
//! | `read` | nothing; the answer is the count, as after the others |
//! | `pad BYTES` | counts, and has so many bytes more to save from now on |
//! | `fail`, `unavailable`, `trap`, `bad-reply` | counts, and then fails in that way |
//! | `linger MS` | reads the key `shared`, counts, works for so long, and writes `shared` and `did/ID` |
//!
//! `config.save` says what happens in `save`: `tries` asks the host for what it refuses there, `slow` takes longer than
//! a message may, `fail` and `trap` fail when the count is `config.at`.

use std::time::{Duration, Instant};

use caxton_sdk::config;
use caxton_sdk::prelude::*;

/// Longer than a save in a commit may take on a core.
const SLOW: Duration = Duration::from_secs(6);

#[derive(Default)]
struct Tally {
    count: u64,
    pad: usize,
}

fn work_for(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {}
}

impl Tally {
    fn note(&self, id: &str) -> Result<(), Failure> {
        state::set(&format!("did/{id}"), self.count.to_string().as_bytes())?;
        Ok(())
    }
}

impl StatefulAgent for Tally {
    fn handle(&mut self, message: Message) -> Handled {
        let text = message.text()?.to_owned();
        let (word, number) = text.split_once(' ').unwrap_or((&text, "0"));
        let number: u64 = number.parse().map_err(|_| Failure::rejected("a number has to follow"))?;
        // First, so that whatever follows leaves it in the memory.
        self.count += u64::from(word != "read");
        let mut reply = Reply::text(self.count.to_string());
        match word {
            "read" | "count" => {}
            "add" => self.note(&message.id)?,
            "pad" => self.pad = usize::try_from(number).unwrap_or(usize::MAX),
            "fail" => return Err(Failure::fault("it is told to fail")),
            "unavailable" => return Err(Failure::unavailable("it is told to fail")),
            "trap" => panic!("it is told to trap"),
            "bad-reply" => reply.content_type = "x".repeat(200),
            "linger" => {
                let shared = state::get("shared")?;
                work_for(Duration::from_millis(number));
                state::set("shared", &shared.unwrap_or_default())?;
                self.note(&message.id)?;
            }
            other => return Err(Failure::rejected(format!("`{other}` is no word that it knows"))),
        }
        Ok(Some(reply))
    }

    fn save(&self) -> Result<Vec<u8>, String> {
        let words = |failure: Failure| failure.reason;
        let is_time = config::parse::<u64>("at").map_err(words)?.is_none_or(|at| at == self.count);
        match config::get("save").map_err(words)?.as_deref() {
            Some("tries") => {
                if state::set("saved", b"x").is_ok() || state::increment("saved-times", 1).is_ok() {
                    return Err("it could write".to_owned());
                }
                if Draft::to("").text("x").send().is_ok() {
                    return Err("it could send".to_owned());
                }
                if Draft::to("").text("x").request(Duration::from_secs(1)).is_ok() {
                    return Err("it could ask".to_owned());
                }
            }
            Some("slow") if is_time => work_for(SLOW),
            Some("fail") if is_time => return Err("it is told not to save".to_owned()),
            Some("trap") if is_time => panic!("it is told to trap in save"),
            _ => {}
        }
        let mut saved = self.count.to_le_bytes().to_vec();
        // Of another content with each count, as most memories are.
        saved.resize(saved.len() + self.pad, self.count as u8);
        Ok(saved)
    }

    fn restore(saved: &[u8]) -> Result<Self, String> {
        let (count, pad) = saved.split_first_chunk::<8>().ok_or("it saved at least 8 bytes")?;
        Ok(Self { count: u64::from_le_bytes(*count), pad: pad.len() })
    }
}

caxton_sdk::stateful_agent!(Tally);
