//! Accounts that money moves between, with a count of every effect: a message that happens twice, or in part, shows.
//!
//! The content is one order as JSON, `{"do": NAME, ...}`:
//!
//! | order | effect |
//! |---|---|
//! | `open {account, amount}` | money comes into being |
//! | `transfer {id, from, amount, path, laps, order, fail, told}` | takes the amount from an account and sends it on its path |
//! | `deposit {id, amount, path, at, laps, told}` | what a transfer sends: the amount comes to the stop `at`, and goes on |
//! | `sum` | answers `{"sum", "accounts"}` |
//! | `audit {after, limit}` | answers a page of effect counts, `{"seen": {KEY: COUNT}, "next"}` |
//!
//! A stop of a path is `{agent, account, after-ms, priority, fail}`. With `laps` the path is gone along again as often.
//! With `told` nobody is asked to take the money: it is told, and no answer is waited for.
//! `fail` makes a handler end badly after it has written and sent: `twice`, `trap-once` (both by the message's
//! attempt), `always`, `reject`.
//!
//! In state: `account/NAME`; `seen/ID/KIND`, where the kind is `transfer`, `deposit-AT`, or `deposit-AT-returned` for
//! a deposit that was given up; `order/CONVERSATION`, the last `order`, and `disorder`, how often one was not greater
//! than the one before.

use std::collections::BTreeMap;
use std::time::Duration;

use caxton_sdk::Priority;
use caxton_sdk::bindings::caxton::agent::state::list_keys;
use caxton_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

struct Bank;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Order {
    Open { account: String, amount: i64 },
    Transfer(Transfer),
    Deposit(Deposit),
    Sum,
    Audit { after: Option<String>, limit: u32 },
}

#[derive(Deserialize)]
struct Transfer {
    id: String,
    from: String,
    amount: i64,
    path: Vec<Stop>,
    #[serde(default)]
    laps: u32,
    order: Option<i64>,
    fail: Option<Fail>,
    #[serde(default)]
    told: bool,
}

#[derive(Serialize, Deserialize)]
struct Deposit {
    id: String,
    amount: i64,
    path: Vec<Stop>,
    at: usize,
    laps: u32,
    #[serde(default)]
    told: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Stop {
    agent: String,
    account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<Urgency>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fail: Option<Fail>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Urgency {
    Low,
    High,
    Critical,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Fail {
    Twice,
    TrapOnce,
    Always,
    Reject,
}

impl Agent for Bank {
    fn handle(message: Message) -> Handled {
        if message.performative == Performative::Failure {
            // A deposit that this bank sent was given up; its reference says which.
            let what = message.in_reply_to.as_deref().unwrap_or("unknown");
            state::increment(&format!("seen/{what}-returned"), 1)?;
            return Ok(None);
        }
        match message.json()? {
            Order::Open { account, amount } => {
                state::increment(&format!("account/{account}"), amount)?;
                Ok(Some(Reply::json(&json!({}))?))
            }
            Order::Transfer(transfer) => transfer.begin(&message),
            Order::Deposit(deposit) => deposit.arrive(&message),
            Order::Sum => sum(),
            Order::Audit { after, limit } => audit(after.as_deref(), limit),
        }
    }
}

impl Transfer {
    fn begin(self, message: &Message) -> Handled {
        if let Some(order) = self.order {
            check_order(&message.conversation_id, order)?;
        }
        state::increment(&format!("account/{}", self.from), -self.amount)?;
        state::increment(&format!("seen/{}/transfer", self.id), 1)?;
        let Self { id, amount, path, laps, fail, told, .. } = self;
        Deposit { id, amount, path, at: 0, laps, told }.send()?;
        end(fail, message.attempt)
    }
}

impl Deposit {
    fn send(&self) -> Result<(), Failure> {
        let stop = &self.path[self.at];
        let mut order = serde_json::to_value(self)?;
        order["do"] = json!("deposit");
        let reference = format!("{}/deposit-{}", self.id, self.at);
        let act = if self.told { Performative::Inform } else { Performative::Request };
        let mut draft = Draft::to(&stop.agent).performative(act).reply_with(reference).json(&order)?;
        if let Some(after) = stop.after_ms {
            draft = draft.after(Duration::from_millis(after));
        }
        draft = match stop.priority {
            None => draft,
            Some(Urgency::Low) => draft.priority(Priority::Low),
            Some(Urgency::High) => draft.priority(Priority::High),
            Some(Urgency::Critical) => draft.priority(Priority::Critical),
        };
        draft.send()?;
        Ok(())
    }

    fn arrive(mut self, message: &Message) -> Handled {
        let account = format!("account/{}", self.path[self.at].account);
        let fail = self.path[self.at].fail;
        state::increment(&account, self.amount)?;
        state::increment(&format!("seen/{}/deposit-{}", self.id, self.at), 1)?;
        self.at += 1;
        if self.at == self.path.len() && self.laps > 0 {
            (self.at, self.laps) = (0, self.laps - 1);
        }
        if self.at < self.path.len() {
            state::increment(&account, -self.amount)?;
            self.send()?;
        }
        end(fail, message.attempt)
    }
}

/// Messages of a conversation come in the order in which they were sent.
fn check_order(conversation: &str, order: i64) -> Result<(), Failure> {
    let key = format!("order/{conversation}");
    let last: Option<i64> = state::get_json(&key)?;
    if last.is_some_and(|last| order <= last) {
        state::increment("disorder", 1)?;
    }
    state::set_json(&key, &order)
}

fn end(fail: Option<Fail>, attempt: u32) -> Handled {
    match (fail, attempt) {
        (Some(Fail::Twice), 1 | 2) | (Some(Fail::Always), _) => Err(Failure::unavailable("on purpose")),
        (Some(Fail::TrapOnce), 1) => panic!("on purpose"),
        (Some(Fail::Reject), _) => Err(Failure::rejected("on purpose")),
        (Some(Fail::Twice | Fail::TrapOnce) | None, _) => Ok(None),
    }
}

fn number(key: &str) -> Result<i64, Failure> {
    Ok(state::get_json(key)?.unwrap_or(0))
}

fn sum() -> Handled {
    let mut accounts = BTreeMap::new();
    for key in state::keys("account/") {
        let key = key?;
        accounts.insert(key.clone(), number(&key)?);
    }
    let sum: i64 = accounts.values().sum();
    Ok(Some(Reply::json(&json!({ "sum": sum, "accounts": accounts }))?))
}

fn audit(after: Option<&str>, limit: u32) -> Handled {
    let page = list_keys("seen/", after, limit)?;
    let mut seen = BTreeMap::new();
    for key in page.keys {
        seen.insert(key.clone(), number(&key)?);
    }
    Ok(Some(Reply::json(&json!({ "seen": seen, "next": page.cursor }))?))
}

caxton_sdk::agent!(Bank);
