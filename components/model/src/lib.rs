//! A stand-in for a language model, for the demo: answers `POST /v1/chat/completions` as an OpenAI-compatible service does,
//! by a script instead of a model. The same question always has the same answer.
//!
//! | the last message | answer |
//! |---|---|
//! | of a user, with words of a tool's name or description | a call of that tool, with the message as its argument |
//! | of a user, without | a text that names the tools |
//! | of tools | a text with their results |
//!
//! With `stream = true` the answer comes in parts, as server-sent events. `usage` counts words as tokens.

mod script;

use caxton_sdk::http::{Event, IncomingRequest, Responder};
use caxton_sdk::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use script::{Answer, answer, words};

struct Model;

/// A request for a completion, as far as the script reads it.
#[derive(Deserialize)]
struct Completion {
    model: String,
    messages: Vec<ChatMessage>,
    #[serde(default)]
    tools: Vec<ToolEntry>,
    #[serde(default)]
    stream: bool,
}

/// A message of the chat.
#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    #[serde(default)]
    content: Option<String>,
}

/// An entry of the list of tools.
#[derive(Deserialize)]
struct ToolEntry {
    function: Function,
}

/// The function of a tool.
#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    description: String,
}

impl HttpStreamAgent for Model {
    fn handle(request: IncomingRequest, responder: Responder) -> Result<(), Failure> {
        let request = request.into_whole()?;
        let asked: Completion = match serde_json::from_slice(&request.body) {
            Ok(asked) => asked,
            Err(error) => return responder.send(&refusal(&format!("the request is not as expected: {error}"))?),
        };
        let Some(last) = asked.messages.last() else {
            return responder.send(&refusal("`messages` is empty")?);
        };
        let answer = answer(&asked, last);
        let usage = usage(&asked, &answer);
        if asked.stream {
            return stream(&asked.model, &answer, &usage, responder);
        }
        responder.send(&Response::json(&json!({
            "object": "chat.completion",
            "model": asked.model,
            "choices": [{ "index": 0, "message": whole(&answer), "finish_reason": reason(&answer) }],
            "usage": usage,
        }))?)
    }
}

/// Returns the error of such services for a request that they do not understand.
fn refusal(reason: &str) -> Result<Response, Failure> {
    let error = json!({ "error": { "message": reason, "type": "invalid_request_error", "code": null } });
    Ok(Response::json(&error)?.status(400))
}

/// Sends the answer in parts: each word of a text, and a call with its arguments in two.
fn stream(model: &str, answer: &Answer, usage: &Value, responder: Responder) -> Result<(), Failure> {
    let mut stream = responder.events()?;
    let mut send = |choices: Value, usage: &Value| {
        let chunk = json!({ "object": "chat.completion.chunk", "model": model, "choices": choices, "usage": usage });
        stream.event(&Event::json(&chunk)?)
    };
    for delta in deltas(answer) {
        send(json!([{ "index": 0, "delta": delta, "finish_reason": null }]), &Value::Null)?;
    }
    send(json!([{ "index": 0, "delta": {}, "finish_reason": reason(answer) }]), &Value::Null)?;
    send(json!([]), usage)?;
    stream.event(&Event::text("[DONE]"))?;
    stream.finish()
}

/// Returns the parts of an answer.
fn deltas(answer: &Answer) -> Vec<Value> {
    match answer {
        Answer::Text(text) => {
            text.split_inclusive(' ').map(|word| json!({ "role": "assistant", "content": word })).collect()
        }
        Answer::Call { tool, arguments } => {
            let middle = (0..=arguments.len() / 2).rev().find(|at| arguments.is_char_boundary(*at)).unwrap_or(0);
            let (first, rest) = arguments.split_at(middle);
            let begin = json!({
                "index": 0, "id": "call_1", "type": "function", "function": { "name": tool, "arguments": first },
            });
            let end = json!({ "index": 0, "function": { "arguments": rest } });
            vec![json!({ "role": "assistant", "tool_calls": [begin] }), json!({ "tool_calls": [end] })]
        }
    }
}

/// Returns the answer as one message.
fn whole(answer: &Answer) -> Value {
    match answer {
        Answer::Text(text) => json!({ "role": "assistant", "content": text }),
        Answer::Call { tool, arguments } => {
            let call = json!({
                "id": "call_1", "type": "function", "function": { "name": tool, "arguments": arguments },
            });
            json!({ "role": "assistant", "content": null, "tool_calls": [call] })
        }
    }
}

fn reason(answer: &Answer) -> &'static str {
    match answer {
        Answer::Text(_) => "stop",
        Answer::Call { .. } => "tool_calls",
    }
}

/// Counts words as tokens.
fn usage(asked: &Completion, answer: &Answer) -> Value {
    let count = |text: &str| words(text).count();
    let prompt: usize = asked.messages.iter().filter_map(|message| message.content.as_deref()).map(count).sum();
    let completion = match answer {
        Answer::Text(text) => count(text),
        Answer::Call { arguments, .. } => count(arguments),
    };
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

caxton_sdk::http_stream_agent!(Model);
