//! The saga of `components/saga`, which traps after its work and before its commit: at the first attempt at the message that
//! `config.trap` names. That is `begin` or the `in-reply-to` of an answer (`do/1`) for the agent of the orders, and the act of
//! a question (`do`, `undo`) for the agent of a step.

#[path = "../../../saga/src/saga.rs"]
mod saga;

use caxton_sdk::prelude::*;

struct Trapping;

impl Agent for Trapping {
    fn handle(message: Message) -> Handled {
        let handled = saga::handle(&message)?;
        let at = match (&message.in_reply_to, message.http()) {
            (Some(reference), _) => reference.rsplit_once('/').map_or("", |(at, _)| at).to_owned(),
            (None, Some(call)) => if call.method == "POST" { "begin" } else { "read" }.to_owned(),
            (None, None) if message.text()?.contains("\"do\"") => "do".to_owned(),
            (None, None) => "undo".to_owned(),
        };
        let trap = config::get("trap").or_fault()?;
        assert!(message.attempt > 1 || trap.as_ref() != Some(&at), "told to trap at {at}");
        Ok(handled)
    }
}

caxton_sdk::agent!(Trapping);
