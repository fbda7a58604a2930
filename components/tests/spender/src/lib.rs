//! Spreads messages over agents and calls a server for each, within whatever budget it has.
//!
//! The agent `config.next` gets the messages that it sends. What was refused stands in its state: `refused` counts,
//! `why/MEASURE` has the last reason, `told` what `host:budget` has told it.

use std::time::Duration;

use caxton_sdk::prelude::*;
use caxton_sdk::{SendError, config, http};
use serde::{Deserialize, Serialize};
use serde_json::json;

struct Spender;

/// The order that a message has.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Order {
    /// The number of generations that follow.
    #[serde(default)]
    depth: u32,
    /// The messages that each sends to the next agent.
    #[serde(default)]
    fan: u32,
    /// The URL that each calls.
    url: Option<String>,
    /// The time after which its messages are delivered.
    after_ms: Option<u64>,
    /// Set to ask the next agent and wait.
    #[serde(default)]
    ask: bool,
    /// Set to fail when something is refused.
    #[serde(default)]
    strict: bool,
    /// The time to compute for in the last generation, about.
    #[serde(default)]
    work_ms: u64,
}

fn refused(why: &str) -> Result<(), Failure> {
    state::add("refused", 1)?;
    // By measure, as the last word on one would hide that on another.
    let measure = ["messages", "calls", "tokens", "bytes", "cpu", "time"];
    let of = measure.into_iter().find(|measure| why.contains(&format!(", {measure}: "))).unwrap_or("other");
    state::set(&format!("why/{of}"), why.as_bytes())?;
    Ok(())
}

fn text(error: &SendError) -> String {
    match error {
        SendError::Unavailable(why) => why.clone(),
        other => format!("{other:?}"),
    }
}

fn work_for(time: Duration) {
    let began = std::time::Instant::now();
    while began.elapsed() < time {}
}

impl Agent for Spender {
    fn handle(message: Message) -> Handled {
        if message.sender == "host:budget" {
            state::add("notices", 1)?;
            state::set("told", &message.content)?;
            return Ok(None);
        }
        let order: Order = message.json()?;
        if order.depth == 0 {
            work_for(Duration::from_millis(order.work_ms));
        }
        let mut told = Vec::new();
        if let Some(url) = &order.url {
            match http::post(url).text("{}").send().and_then(http::IncomingResponse::into_text) {
                Ok(_) => state::add("calls", 1)?,
                Err(error) => told.push(format!("{}: {}", error.code, error.detail.unwrap_or_default())),
            }
        }
        let next: String = config::get("next")?.unwrap_or_default();
        let fewer = Order { depth: order.depth.saturating_sub(1), ..order.clone() };
        for _ in 0..if order.depth > 0 { order.fan } else { 0 } {
            let mut draft = Draft::to(next.clone()).json(&fewer)?;
            if let Some(after) = order.after_ms {
                draft = draft.after(Duration::from_millis(after));
            }
            if order.ask {
                let draft = draft.performative(Performative::Request);
                if let Err(error) = draft.request(Duration::from_secs(5)) {
                    told.push(format!("{error:?}"));
                }
            } else if let Err(error) = draft.new_conversation().send() {
                told.push(text(&error));
            }
        }
        for why in &told {
            refused(why)?;
        }
        if let Some(why) = told.first().filter(|_| order.strict) {
            return Err(Failure::rejected(why.clone()));
        }
        state::add("handled", 1)?;
        let waits = message.sender.contains(':') || message.performative == Performative::Request;
        Ok(if waits { Some(Reply::json(&json!({ "refused": told }))?) } else { None })
    }
}

caxton_sdk::agent!(Spender);
