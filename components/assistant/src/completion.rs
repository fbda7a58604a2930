//! A turn of the model: the call of the API, and its answer in parts or as a whole.

use std::io::Read;

use caxton_sdk::http::{self, EVENT_STREAM, IncomingResponse};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Settings;
use crate::chat::Chat;
use crate::output::Output;
use crate::problem::{Ended, Problem, cut};

/// The bounds of what a model says in one turn: bytes of text, calls, and bytes of the arguments of a call.
const MAX_TEXT: usize = 256 << 10;
const MAX_CALLS: usize = 16;
const MAX_ARGUMENTS: usize = 64 << 10;
/// The largest answer that comes as a whole, in bytes.
const MAX_WHOLE: u64 = 1 << 20;

/// A turn of the model.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
    /// The reason for its end, such as `stop`, `length` or `refusal`.
    pub(crate) finish: String,
    pub(crate) usage: Option<Usage>,
    refusal: String,
}

/// A call of a tool.
#[derive(Default)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// The tokens that were used.
#[derive(Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    total_tokens: u64,
}

/// An answer, or a part of one.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<ApiError>,
}

/// A choice: `delta` in a part, `message` in a whole answer.
#[derive(Deserialize)]
struct Choice {
    #[serde(alias = "message")]
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

/// The content of a choice.
#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<CallPart>>,
}

/// A call of a tool, or a part of one.
#[derive(Deserialize)]
struct CallPart {
    index: Option<usize>,
    id: Option<String>,
    function: Option<FunctionPart>,
}

/// The function of a call, or a part of it.
#[derive(Deserialize)]
struct FunctionPart {
    name: Option<String>,
    arguments: Option<String>,
}

/// An error of the API.
#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    message: String,
}

/// Has the model take its next turn. What it says goes to the client at once.
pub(crate) fn ask(settings: &Settings, chat: &Chat, output: &mut Output) -> Result<Turn, Ended> {
    let tools = settings.tools.schema();
    let mut body = json!({
        "model": settings.model,
        "messages": chat.messages(),
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    if !tools.is_empty() {
        body["tools"] = tools.into();
    }
    let request =
        http::post(format!("{}/chat/completions", settings.api)).header("accept", EVENT_STREAM).json(&body)?;
    let response = request.send().map_err(|error| Problem::of_call(&error))?;
    if !(200..300).contains(&response.status) {
        return Err(Problem::of_status(response).into());
    }
    let is_stream = response.header("content-type").is_some_and(|kind| kind.trim().starts_with(EVENT_STREAM));
    let turn = if is_stream { read_stream(response, output)? } else { read_whole(response, output)? };
    turn.check(output)
}

/// Reads an answer that comes in parts.
fn read_stream(response: IncomingResponse, output: &mut Output) -> Result<Turn, Ended> {
    let mut turn = Turn::default();
    for event in response.events() {
        let event = event.map_err(|error| Problem::of_call(&error))?;
        if event.data.trim() == "[DONE]" {
            break;
        }
        turn.take(&event.data, output)?;
    }
    Ok(turn)
}

/// Reads an answer that comes as a whole, of a service that does not stream.
fn read_whole(response: IncomingResponse, output: &mut Output) -> Result<Turn, Ended> {
    let mut body = Vec::new();
    if let Err(error) = response.take(MAX_WHOLE + 1).read_to_end(&mut body) {
        return Err(Problem::malformed(error).into());
    }
    if body.len() as u64 > MAX_WHOLE {
        return Err(Problem::malformed(format!("it has more than {MAX_WHOLE} bytes")).into());
    }
    let mut turn = Turn::default();
    turn.take(&String::from_utf8_lossy(&body), output)?;
    Ok(turn)
}

impl Turn {
    /// Takes a part of the answer.
    fn take(&mut self, data: &str, output: &mut Output) -> Result<(), Ended> {
        let chunk: Chunk = serde_json::from_str(data)
            .map_err(|error| Problem::malformed(format!("{error} in {:?}", cut(data, 200))))?;
        if let Some(error) = chunk.error {
            let detail = format!("the API failed: {}", cut(&error.message, 500));
            return Err(Problem::new(502, "api-failed", detail).into());
        }
        self.usage = chunk.usage.or(self.usage.take());
        // One choice was asked for.
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(()) };
        if let Some(delta) = choice.delta {
            self.take_delta(delta, output)?;
        }
        if let Some(finish) = choice.finish_reason {
            self.finish = finish;
        }
        Ok(())
    }

    fn take_delta(&mut self, delta: Delta, output: &mut Output) -> Result<(), Ended> {
        if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
            self.text.push_str(&text);
            if self.text.len() > MAX_TEXT {
                return Err(Problem::malformed(format!("a text has more than {MAX_TEXT} bytes")).into());
            }
            output.send("text", &json!({ "text": text }))?;
        }
        if let Some(refusal) = delta.refusal {
            self.refusal.push_str(&refusal);
            if self.refusal.len() > MAX_TEXT {
                return Err(Problem::malformed(format!("a refusal has more than {MAX_TEXT} bytes")).into());
            }
        }
        for (position, part) in delta.tool_calls.unwrap_or_default().into_iter().enumerate() {
            self.take_call(part.index.unwrap_or(position), part)?;
        }
        Ok(())
    }

    fn take_call(&mut self, index: usize, part: CallPart) -> Result<(), Problem> {
        // In order, as services send them: a gap would be a call without a name.
        if index > self.calls.len() || index >= MAX_CALLS {
            return Err(Problem::malformed(format!("the call {index} of a tool follows {} of them", self.calls.len())));
        }
        if index == self.calls.len() {
            self.calls.push(ToolCall::default());
        }
        let call = &mut self.calls[index];
        if let Some(id) = part.id {
            call.id = id;
        }
        if let Some(function) = part.function {
            call.name.push_str(function.name.as_deref().unwrap_or_default());
            call.arguments.push_str(function.arguments.as_deref().unwrap_or_default());
        }
        if call.name.len() + call.arguments.len() > MAX_ARGUMENTS {
            return Err(Problem::malformed(format!("a call of a tool has more than {MAX_ARGUMENTS} bytes")));
        }
        Ok(())
    }

    /// Checks that the turn is whole, and tells of a refusal.
    fn check(mut self, output: &mut Output) -> Result<Self, Ended> {
        if self.finish.is_empty() {
            return Err(Problem::new(502, "api-broken-off", "the answer of the API broke off before its end").into());
        }
        if let Some(call) = self.calls.iter().find(|call| call.name.is_empty() || call.id.is_empty()) {
            let what = format!("a call of a tool without a name or an id: {:?}", cut(&call.arguments, 200));
            return Err(Problem::malformed(what).into());
        }
        if self.finish == "content_filter" && self.refusal.is_empty() {
            self.refusal.push_str("the service filtered the answer");
        }
        if !self.refusal.is_empty() {
            output.send("refusal", &json!({ "text": self.refusal }))?;
            // What it wanted of tools is not done for an answer that is not given.
            self.calls.clear();
            self.finish = String::from("refusal");
            return Ok(self);
        }
        if self.text.is_empty() && self.calls.is_empty() {
            return Err(Problem::malformed("it has neither text nor a call of a tool").into());
        }
        Ok(self)
    }
}

impl Usage {
    /// Adds what another turn used.
    pub(crate) fn add(&mut self, other: Option<&Self>) {
        let Some(other) = other else { return };
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
        self.total_tokens = self.total_tokens.saturating_add(other.total_tokens);
    }
}
