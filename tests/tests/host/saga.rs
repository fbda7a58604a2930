//! The saga of `components/saga`: an order is carried out or undone as a whole, whatever happens at whichever step.

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use crate::{BINARY, file};

const STEPS: [&str; 3] = ["stock", "till", "carrier"];
/// An amount above the capacity of the carrier.
const TOO_MUCH: u64 = 100;

/// An agent for the orders and one for each step; `trap` names an agent and where it traps.
fn declaration(guest: &str, trap: Option<(&str, &str)>) -> String {
    let agent = |name: &str, config: &str, more: &str| {
        let trap = match trap {
            Some((agent, at)) if agent == name => format!(", trap = \"{at}\""),
            _ => String::new(),
        };
        format!(
            "[agents.{name}]\ncomponent = \"GUEST({guest})\"\nconfig = {{ {config}{trap} }}\n{more}\
             mailbox = {{ backoff = {{ first = \"100ms\" }} }}\n"
        )
    };
    let orders = agent("orders", "role = \"orders\"", "allow = { send = [\"stock\", \"till\", \"carrier\"] }\n");
    let routes = "[[agents.orders.http]]\nroute = \"/orders/{id}\"\nmode = \"enqueue\"\nmethods = [\"POST\"]\n\
                  [[agents.orders.http]]\nroute = \"/orders/{id}/status\"\nmethods = [\"GET\"]\n";
    let steps = STEPS.map(|name| {
        let most = if name == "carrier" { ", most = \"50\"" } else { "" };
        agent(name, &format!("role = \"step\"{most}"), "")
    });
    file(&(orders + routes + &steps.concat()))
}

fn order(host: &Host, id: &str, amount: u64) {
    let reply = host.client().post(&format!("/orders/{id}"), json!({ "amount": amount }).to_string());
    assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
}

fn until_over(host: &mut Host, id: &str) -> Value {
    host.until(&format!("the order {id} is over"), |host| {
        let status = host.client().get(&format!("/orders/{id}/status"));
        let order = if status.status.as_u16() == 200 { status.json() } else { Value::Null };
        ["done", "undone", "stuck"].iter().any(|end| order["status"] == *end).then_some(order)
    })
}

fn stored(host: &Host, agent: &str, key: &str) -> String {
    host.caxton(&["state", "get", agent, key]).1.trim().to_owned()
}

/// Checks that an order was carried out, or undone, with each step exactly once.
fn check(host: &mut Host, id: &str, amount: u64, case: &str) {
    let over = until_over(host, id);
    let done = amount < TOO_MUCH;
    assert_eq!(over["status"], if done { "done" } else { "undone" }, "{case}: {over}");
    for name in STEPS {
        // The carrier refuses what is too much, and does nothing for it.
        let (held, undone) = match (done, name) {
            (true, _) => (amount.to_string(), ""),
            (false, "carrier") => (String::new(), ""),
            (false, _) => (String::new(), "1"),
        };
        let did = if done || name != "carrier" { "1" } else { "" };
        let found = [format!("held/{id}").as_str(), "do", "undo"].map(|key| stored(host, name, key));
        assert_eq!(found, [held.as_str(), did, undone], "{case}: {name}");
    }
    host.until("nothing is left", |host| {
        let agents = host.api().get("/v1/agents").json();
        let rests = |agent: &Value| agent["mailbox_depth"] == 0 && agent["in_flight"] == 0;
        agents.as_array().is_some_and(|agents| agents.iter().all(rests)).then_some(())
    });
    assert_eq!(host.api().get("/v1/dead-letters").json()["dead_letters"], json!([]), "{case}");
}

#[test]
fn an_order_is_carried_out_or_undone_and_a_repeated_request_changes_nothing() {
    for amount in [30, TOO_MUCH] {
        let mut host = Host::start(BINARY, &declaration("saga", None));
        assert_eq!(host.client().get("/orders/a/status").status.as_u16(), 404);
        order(&host, "a", amount);
        order(&host, "a", amount);
        check(&mut host, "a", amount, "");
        let why = until_over(&mut host, "a")["why"].clone();
        assert_eq!(why, if amount == TOO_MUCH { json!("carrier: 100 is more than 50") } else { Value::Null });
        order(&host, "a", amount);
        check(&mut host, "a", amount, "again");
    }
}

#[test]
fn a_trap_at_any_step_changes_nothing() {
    let carried_out = ["begin", "do/0", "do/1", "do/2"].map(|at| ("orders", at, 30));
    let undone = ["do/2", "undo/1", "undo/0"].map(|at| ("orders", at, TOO_MUCH));
    let steps = [
        ("stock", "do", 30),
        ("till", "do", 30),
        ("carrier", "do", 30),
        ("stock", "undo", TOO_MUCH),
        ("till", "undo", TOO_MUCH),
    ];
    for (agent, at, amount) in carried_out.into_iter().chain(undone).chain(steps) {
        let mut host = Host::start(BINARY, &declaration("saga-traps", Some((agent, at))));
        order(&host, "a", amount);
        let case = format!("{agent} traps at {at} of {amount}");
        check(&mut host, "a", amount, &case);
        host.until(&format!("{case}: it did"), |host| (host.agent(agent)["retries"] == 1).then_some(()));
    }
}

#[test]
fn orders_survive_kill_9() {
    let mut host = Setup::new(BINARY, &declaration("saga", None)).start();
    let amounts: Vec<u64> = (0..40).map(|n| if n % 4 == 0 { TOO_MUCH } else { 10 + n }).collect();
    for (n, amount) in amounts.iter().enumerate() {
        order(&host, &n.to_string(), *amount);
        if n % 16 == 15 {
            host = host.kill().start();
        }
    }
    for (n, amount) in amounts.iter().enumerate() {
        let over = until_over(&mut host, &n.to_string());
        assert_eq!(over["status"], if *amount == TOO_MUCH { "undone" } else { "done" }, "{n}: {over}");
    }
    let (all, good) = (amounts.len().to_string(), amounts.iter().filter(|amount| **amount < TOO_MUCH).count());
    let bad = (amounts.len() - good).to_string();
    for name in ["stock", "till"] {
        assert_eq!((stored(&host, name, "do"), stored(&host, name, "undo")), (all.clone(), bad.clone()), "{name}");
    }
    assert_eq!(stored(&host, "carrier", "do"), good.to_string());
}
