//! Calls of agents over HTTP: real components that call real servers.

mod addresses;
mod bounds;
mod calls;
mod copies;
mod credentials;
mod encryption;
mod journal;
mod proxy;
mod server;
mod services;
mod uploads;

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use crate::{BINARY, file};

/// Returns a file with the agent `caller`, which may call these places. `outgoing` are settings of `[outgoing]`, and `more`
/// those of the agent.
fn caller(places: &str, outgoing: &str, more: &str) -> String {
    file(&format!(
        "[outgoing]\n{outgoing}\n[agents.caller]\ncomponent = \"GUEST(caller)\"\nallow.http = [{places}]\n{more}\n\
         [[agents.caller.http]]\nroute = \"/caller\"\n"
    ))
}

/// Starts a host with such a file.
fn host(places: &str, outgoing: &str, more: &str) -> Host {
    Setup::new(BINARY, &caller(places, outgoing, more)).start()
}

/// Lets the agent do something. Returns its answer.
fn act(host: &Host, action: &Value) -> Value {
    let reply = host.client().post("/caller", action.to_string());
    serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("{}: {}", reply.status, reply.text()))
}

/// Lets the agent get a URL.
fn get(host: &Host, url: &str) -> Value {
    act(host, &json!({ "do": "call", "call": { "url": url } }))
}

/// Returns the log of the agent.
fn log(host: &Host) -> String {
    host.caxton(&["logs", "caller", "--tail", "1000"]).1
}

/// Waits until the agent's log has a text.
fn until_logged(host: &mut Host, text: &str) {
    host.until(&format!("the line {text:?}"), |host| log(host).contains(text).then_some(()));
}
