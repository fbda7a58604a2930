//! Forwards a limited number of requests of each client in a window of time to another agent, and answers the others
//! with 429.
//!
//! | request | answer |
//! |---|---|
//! | within the limit | what the agent `config.backend` answers to the body; 503 if it does not |
//! | beyond it | 429, with `retry-after` |
//!
//! A client is named by its header `x-api-key`. Every response has `x-remaining`: the requests that are left in the window.
//! `config.limit` is how many each client has (default 10) in `config.window` seconds (default 60), counted from its first.
//!
//! A request that was let through counts, whatever becomes of it: its count is committed before the other agent is asked. One
//! that was refused does not.

use std::time::Duration;

use caxton_sdk::prelude::*;

/// Requests of one client that come at the same moment change the same count: one of them counts anew.
const TRIES: u32 = 20;
/// The time that the other agent has.
const PATIENCE: Duration = Duration::from_secs(5);

struct Limiter;

impl HttpAgent for Limiter {
    fn handle(request: Request) -> Result<Response, Failure> {
        let limit = config::parse("limit")?.unwrap_or(10);
        let window = config::parse("window")?.unwrap_or(60);
        let client = request.header("x-api-key").unwrap_or("nobody");
        let count = count(client, limit, Duration::from_secs(window))?;
        if count > limit {
            let refusal = Response::text("too many requests\n").status(429);
            return Ok(refusal.header("retry-after", window.to_string()).header("x-remaining", "0"));
        }
        let backend = config::get("backend")?.ok_or_else(|| Failure::fault("config.backend is missing"))?;
        let question = Draft::to(backend).performative(Performative::Request).text(request.text()?);
        let answer = question.request(PATIENCE)?;
        Ok(Response::bytes(answer.content, answer.content_type).header("x-remaining", (limit - count).to_string()))
    }
}

/// Counts a request of a client, and commits that. More than the limit is not kept.
fn count(client: &str, limit: i64, window: Duration) -> Result<i64, Failure> {
    let key = format!("count/{client}");
    let mut tries = 0;
    loop {
        let count = state::increment_for(&key, 1, window)?;
        if count > limit {
            effects::discard()?;
            return Ok(count);
        }
        tries += 1;
        match effects::commit() {
            Ok(()) => return Ok(count),
            Err(failure) if tries == TRIES => return Err(failure),
            Err(_) => {}
        }
    }
}

caxton_sdk::http_agent!(Limiter);
