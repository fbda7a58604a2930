//! An order that several agents carry out, step by step. When one of them refuses, the steps before it are undone, the last
//! one first.
//!
//! `config.role` says which part an agent has:
//!
//! | role | message | what follows |
//! |---|---|---|
//! | `orders` | `POST /orders/{id}` with `{"amount": 30}` | the order begins; a repeated request changes nothing |
//! | `orders` | `GET /orders/{id}/status` | `{"status", "amount", "held", "why"}`, or 404 |
//! | `step` | `request` with `{"order", "act": "do", "amount"}` | `inform`, or `refuse` above `config.most` |
//! | `step` | `request` with `{"order", "act": "undo", "amount"}` | `inform`; what was never done is undone already |
//!
//! Each message is handled in one commit: the new state of the order, the question to the next agent and the end of the
//! message take effect together or not at all. So a trap or a crash at any point only repeats the message at hand, and an
//! order is never between two steps.

use caxton_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// The agents that carry out an order, in their order.
const STEPS: [&str; 3] = ["stock", "till", "carrier"];

/// An order, kept under `order/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    status: Status,
    amount: u64,
    /// The number of steps that hold.
    held: usize,
    /// The reason why it is undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Running,
    Undoing,
    Done,
    Undone,
    /// A step could not be undone. A person has to look.
    Stuck,
}

/// A question to the agent of a step.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    order: String,
    act: Act,
    amount: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Act {
    Do,
    Undo,
}

impl Act {
    fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

/// Handles a message by the agent's role.
pub(crate) fn handle(message: &Message) -> Handled {
    match config::get("role").or_fault()?.as_deref() {
        Some("orders") => orders(message),
        Some("step") => step(message),
        _ => Err(Failure::fault("config.role is neither `orders` nor `step`")),
    }
}

fn orders(message: &Message) -> Handled {
    let Some(call) = message.http() else { return answered(message) };
    let id = call.parameter("id").unwrap_or_default();
    let known = state::get_json::<Order>(&key(id))?;
    match (call.method, known) {
        ("GET", Some(order)) => Ok(Some(Reply::json(&order)?)),
        ("GET", None) => Ok(Some(Reply::text(format!("there is no order {id}")).status(404))),
        // A client that is not sure whether its request arrived repeats it.
        (_, Some(_)) => Ok(None),
        (_, None) => {
            #[derive(Deserialize)]
            struct New {
                amount: u64,
            }
            let New { amount } = message.json()?;
            let order = Order { status: Status::Running, amount, held: 0, why: None };
            go_on(id, &order)
        }
    }
}

/// Takes in the answer of a step.
fn answered(message: &Message) -> Handled {
    let parts = message.in_reply_to.as_deref().and_then(|reference| {
        let mut parts = reference.splitn(3, '/');
        Some((parts.next()?, parts.next()?.parse::<usize>().ok()?, parts.next()?))
    });
    let Some((act, step, id)) = parts else { return Ok(Some(Reply::not_understood("no answer of a step"))) };
    let Some(mut order) = state::get_json::<Order>(&key(id))? else { return Ok(None) };
    // Only the answer that the order waits for moves it: an answer may come twice, or after its question was given up.
    let (waits_for, at) = match order.status {
        Status::Running => (Act::Do, Some(order.held)),
        Status::Undoing => (Act::Undo, order.held.checked_sub(1)),
        Status::Done | Status::Undone | Status::Stuck => return Ok(None),
    };
    if act != waits_for.as_str() || at != Some(step) {
        return Ok(None);
    }
    let went_well = message.performative == Performative::Inform;
    match (waits_for, went_well) {
        (Act::Do, true) => order.held += 1,
        (Act::Do, false) => {
            order.status = Status::Undoing;
            order.why = Some(format!("{}: {}", STEPS[step], message.text()?));
            // Who refuses did nothing. Of a step that failed nobody knows how far it came: it is undone as well.
            order.held += usize::from(message.performative == Performative::Failure);
        }
        (Act::Undo, true) => order.held -= 1,
        (Act::Undo, false) => {
            order.status = Status::Stuck;
            log::error!("order {id}: {} cannot be undone: {}", STEPS[step], message.text()?);
        }
    }
    match (order.status, order.held) {
        (Status::Running, held) if held == STEPS.len() => order.status = Status::Done,
        (Status::Undoing, 0) => order.status = Status::Undone,
        _ => {}
    }
    go_on(id, &order)
}

/// Keeps an order and asks the agent of its next step.
fn go_on(id: &str, order: &Order) -> Handled {
    state::set_json(&key(id), order)?;
    let (act, step) = match order.status {
        Status::Running => (Act::Do, order.held),
        Status::Undoing => (Act::Undo, order.held - 1),
        Status::Done | Status::Undone | Status::Stuck => return Ok(None),
    };
    Draft::to(STEPS[step])
        .performative(Performative::Request)
        .json(&Work { order: id.to_owned(), act, amount: order.amount })?
        .reply_with(format!("{}/{step}/{id}", act.as_str()))
        .send()?;
    Ok(None)
}

fn step(message: &Message) -> Handled {
    let Work { order, act, amount } = message.json()?;
    let key = format!("held/{order}");
    let most = config::get("most").or_fault()?.and_then(|most| most.parse().ok()).unwrap_or(u64::MAX);
    match act {
        Act::Do if amount > most => return Ok(Some(Reply::refuse(format!("{amount} is more than {most}")))),
        Act::Do => state::set_json(&key, &amount)?,
        Act::Undo => state::remove(&key)?,
    }
    // Counts what was really done, however often a message was tried.
    state::increment(act.as_str(), 1)?;
    Ok(Some(Reply::text("done")))
}

fn key(id: &str) -> String {
    format!("order/{id}")
}
