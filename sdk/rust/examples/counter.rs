//! Counts words in its state, which is committed together with the answer when `handle` returns `Ok`.

use std::collections::BTreeMap;

use caxton_sdk::prelude::*;

struct Counter;

impl Agent for Counter {
    fn handle(message: Message) -> Handled {
        if message.performative == Performative::QueryRef {
            return Ok(Some(Reply::json(&counts()?)?));
        }
        for word in message.text()?.split_whitespace() {
            state::increment(&format!("word/{word}"), 1)?;
        }
        let messages = state::update("messages", |messages: &mut u64| {
            *messages += 1;
            *messages
        })?;
        log::info!("{messages} messages by now");
        Ok(Some(Reply::json(&messages)?))
    }
}

fn counts() -> Result<BTreeMap<String, String>, Failure> {
    let mut counts = BTreeMap::new();
    for key in state::keys("word/") {
        let key = key?;
        let count = state::get(&key)?.unwrap_or_default();
        counts.insert(key, String::from_utf8_lossy(&count).into_owned());
    }
    Ok(counts)
}

caxton_sdk::agent!(Counter);
