//! Carries out the action in the content of a message, good or bad, for the host's tests.
//!
//! The content is one action as JSON, `{"do": NAME, ...}`; the answer is what came of it, as JSON. Where an
//! action is refused by the host the answer is `{"error": NAME, "detail": ...}` with the name of the contract.
//!
//! Ends badly:
//!
//! | action | effect |
//! |---|---|
//! | `trap` | panics |
//! | `overflow` | recurses until the stack ends |
//! | `exit {code}` | calls `wasi:cli/exit` |
//! | `loop` | never ends, and uses a core |
//! | `fail {cause, reason, retry-after-ms}` | returns a failure: `rejected`, `unavailable` or `fault` |
//! | `fail-until {attempt, cause}` | fails while the message's attempt is a lower one, then answers `{"attempt"}` |
//!
//! Takes too much:
//!
//! | action | effect |
//! |---|---|
//! | `sleep {ms}` | waits in `wasi:io/poll`, uses no core |
//! | `spin {ms}` | uses a core for so long, then answers `{"ms"}` |
//! | `grow {mib}` | takes memory, a MiB at a time, until so much is there or it is refused; `{"grown": MIB}` |
//! | `flood {to, bytes}` | writes lines of 80 bytes to `stdout`, `stderr` or `log` |
//! | `log {level, text}` | one line to the log |
//! | `print {stdout, stderr}` | a line to each that is given |
//!
//! Answers:
//!
//! | action | effect |
//! |---|---|
//! | `none` | gives no answer |
//! | `reply {text, bytes, with}` | answers with the text, or with so many dots |
//! | `message` | the whole message as JSON |
//! | `http` | what `message.http()` tells: `{"method", "route", "path", "query", "parameters"}`, or null |
//! | `env`, `config`, `clock`, `random {bytes}` | what the host shows of these |
//! | `random-at-once {bytes}` | how many bytes one call of `get-random-bytes` returns |
//! | `read {path}`, `write {path}`, `connect {address}` | `{"ok": ...}` or `{"error": "io", "detail"}` |
//!
//! Speaks to others, with `content` as JSON or so many dots:
//!
//! | action | effect |
//! |---|---|
//! | `send {to, content, bytes, count, with}` | sends it `count` times; `{"sent": [ID...], "errors": [{"error", "detail"}...]}` |
//! | `request {to, content, bytes, timeout-ms, with}` | asks and answers `{"from", "performative", "reply"}`; with `content` another `request`, a chain or a circle |
//! | `request-all {to: [NAME...], content, bytes, timeout-ms, with}` | asks all; a list of such answers |
//! | `broadcast {to, content, bytes, with}` | sends it to all with a capability; `{"sent": [ID...]}` |
//! | `cancel {timer}` | cancels a timer by id or name; `{"cancelled": BOOL}` |
//! | `find {capability}` | the names |
//!
//! `with` holds further fields of the draft or the reply: `performative`, `content-type`, `ontology`,
//! `protocol`, `conversation`, `reply-with`, `in-reply-to`, `reply-by`, `priority`, `after-ms`, `at-ms`, `headers`.
//! `to` may be empty for the agent itself. A draft is a `request` unless it says otherwise, and with `conversation` empty it begins one of its own.
//!
//! State:
//!
//! | action | effect |
//! |---|---|
//! | `set {key, value, bytes, count}` | writes; with `count` the keys `key0000`, `key0001`, ...; `{"written", "error", "detail"}` |
//! | `set-for {key, value, ms}` | writes for so many milliseconds; `{"written"}` |
//! | `get {key}` | `{"value": TEXT or null}` |
//! | `remove {key}`, `increment {key, by}`, `add {key, by}` | `{}`, `{"sum"}`, `{}` |
//! | `ask-of {to, key, content, timeout-ms}` | `request` with what the key holds in its content |
//! | `keys {prefix, limit, pages}` | follows the cursor over at most so many pages; `{"keys", "pages", "more"}` |
//! | `commit` | calls `effects.commit`, which only an HTTP agent may; `{"error"}` |
//! | `record {text, ms}` | waits, then adds the text to the conversation's list in state; `{"texts"}` |
//! | `unless {key}` | fails with `fault` if the key is there |
//!
//! `configured` does the action that `config.action` has as JSON, so that two revisions do different things with the same
//! message. `steps {steps: [ACTION...]}` does several, and answers with the list of what came of each. So
//! `{"do": "steps", "steps": [{"do": "set", "key": "a", "value": "1"}, {"do": "trap"}]}` tests that a trap
//! undoes a write.
//!
//! A text `repeat:COUNT:PART` anywhere in an action stands for so many times the part.
//!
//! `config.health` is an error that the health check answers with.

mod action;
mod outgoing;
mod values;
mod wasi;

use caxton_sdk::prelude::*;

/// Replaces each text `repeat:COUNT:PART` by so many times the part: a message that asks for a long text is short.
fn expand(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => {
            let asked = text.strip_prefix("repeat:").and_then(|rest| rest.split_once(':'));
            if let Some((Ok(count), part)) = asked.map(|(count, part)| (count.parse(), part)) {
                *text = part.repeat(count);
            }
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(expand),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(expand),
        _ => {}
    }
}

struct Rogue;

impl Agent for Rogue {
    fn handle(message: Message) -> Handled {
        let mut content: serde_json::Value = message.json()?;
        expand(&mut content);
        // As `Message::json` does: a content that is no action is the message's fault.
        let action = serde_json::from_value(content).map_err(|error| Failure::rejected(error.to_string()))?;
        action::act(action, &message)
    }

    fn check() -> Result<(), String> {
        match config::get("health") {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(reason),
            Err(failure) => Err(failure.reason),
        }
    }
}

caxton_sdk::agent!(Rogue);
