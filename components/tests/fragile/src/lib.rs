//! Remembers the last content, in its memory, and fails where its `config` says so:
//! `health`, `save` and `restore` give the error that the function of that name answers with; `trap` names the
//! function that traps instead, `dislikes` a memory that cannot be restored, and `lingers` is how many milliseconds a
//! restore takes.

use std::time::{Duration, Instant};

use caxton_sdk::config;
use caxton_sdk::prelude::*;

#[derive(Default)]
struct Fragile {
    last: Vec<u8>,
}

fn fail_if_told(function: &str) -> Result<(), String> {
    if config::get("trap").map_err(|failure| failure.reason)?.as_deref() == Some(function) {
        panic!("config.trap names {function}");
    }
    match config::get(function).map_err(|failure| failure.reason)? {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

impl StatefulAgent for Fragile {
    fn handle(&mut self, message: Message) -> Handled {
        let before = std::mem::replace(&mut self.last, message.content);
        Ok(Some(Reply::bytes(before, message.content_type)))
    }

    fn save(&self) -> Result<Vec<u8>, String> {
        fail_if_told("save")?;
        Ok(self.last.clone())
    }

    fn restore(saved: &[u8]) -> Result<Self, String> {
        fail_if_told("restore")?;
        if config::get("dislikes").map_err(|failure| failure.reason)?.is_some_and(|bad| bad.as_bytes() == saved) {
            return Err("config.dislikes names this memory".to_owned());
        }
        if let Some(lingers) = config::parse::<u64>("lingers").map_err(|failure| failure.reason)? {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(lingers) {}
        }
        Ok(Self { last: saved.to_vec() })
    }

    fn check(&self) -> Result<(), String> {
        fail_if_told("health")
    }
}

caxton_sdk::stateful_agent!(Fragile);
