//! A stateful agent whose functions for its memory attack the host: `config.save` and `config.restore` say how.
//!
//! | value | attack |
//! |---|---|
//! | `loop` | never ends |
//! | `huge` | gives as many bytes as its memory holds (`save` only) |
//! | `grow` | takes memory until it is refused, and then traps |
//! | `hoard` | takes resources and drops none |
//! | `trap` | traps |
//! | `rant` | gives an error of a million characters, some of which control a terminal |
//!
//! `tests/tally` and `tests/fragile` have those that fail as an honest agent may.

use std::hint::black_box;

use caxton_sdk::config;
use caxton_sdk::prelude::*;
use wasip2::clocks::monotonic_clock::subscribe_duration;

/// A size that fits an instance with the default limits, and no saved memory that is bounded.
const HUGE: usize = 40 << 20;

#[derive(Default)]
struct ZooMemory {
    handled: u8,
}

/// Attacks in the way that the configuration names for this function.
fn attack(function: &str) -> Result<(), String> {
    match config::get(function).map_err(|failure| failure.reason)?.as_deref() {
        Some("loop") => loop {
            black_box(());
        },
        Some("grow") => {
            let mut taken = Vec::new();
            loop {
                taken.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        Some("hoard") => loop {
            std::mem::forget(subscribe_duration(u64::MAX));
        },
        Some("trap") => panic!("told to trap"),
        Some("rant") => Err("\u{1b}[2J\u{202e}\r\nrant".repeat(100_000)),
        _ => Ok(()),
    }
}

impl StatefulAgent for ZooMemory {
    fn handle(&mut self, _: Message) -> Handled {
        self.handled = self.handled.wrapping_add(1);
        Ok(Some(Reply::text(self.handled.to_string())))
    }

    fn save(&self) -> Result<Vec<u8>, String> {
        attack("save")?;
        let is_huge = config::get("save").map_err(|failure| failure.reason)?.as_deref() == Some("huge");
        Ok(vec![self.handled; if is_huge { HUGE } else { 1 }])
    }

    fn restore(saved: &[u8]) -> Result<Self, String> {
        attack("restore")?;
        Ok(Self { handled: saved.first().copied().unwrap_or_default() })
    }
}

caxton_sdk::stateful_agent!(ZooMemory);
