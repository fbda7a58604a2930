//! Goes through folders and connects over TCP as its message says, in allowed ways and others, and answers with what came
//! of it.

mod files;
mod sockets;

use caxton_sdk::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// The action that a message asks for.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
enum Action {
    /// An action on files.
    File(files::FileAction),
    /// An action on sockets.
    Socket(sockets::SocketAction),
    /// A list of actions, one after the other.
    Steps { steps: Vec<Action> },
}

fn act(action: Action) -> Value {
    match action {
        Action::File(action) => files::act(action),
        Action::Socket(action) => sockets::act(action),
        Action::Steps { steps } => steps.into_iter().map(act).collect(),
    }
}

/// Returns the outcome of an action: `{"ok": ...}`, or the name of the error.
fn told<T: Into<Value>, E: ToString>(result: Result<T, E>) -> Value {
    match result {
        Ok(value) => json!({ "ok": value.into() }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

struct Visitor;

impl Agent for Visitor {
    fn handle(message: Message) -> Handled {
        Ok(Some(Reply::json(&act(message.json()?))?))
    }
}

caxton_sdk::agent!(Visitor);
