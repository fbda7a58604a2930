//! The tools of the model: agents, which are asked with a message in words.

use std::time::Duration;

use caxton_sdk::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::completion::ToolCall;
use crate::problem::cut;

/// The bytes of an agent's answer that the model gets.
const MAX_RESULT: usize = 16 << 10;

/// The agents that the model may ask.
pub(crate) struct Tools {
    list: Vec<Tool>,
    timeout: Duration,
}

/// An agent that the model may ask.
struct Tool {
    name: String,
    agent: String,
    description: String,
}

/// The arguments of a tool.
#[derive(Deserialize)]
struct Arguments {
    message: String,
}

/// The outcome of a tool: the answer of the agent, or why there is none.
pub(crate) struct ToolResult(Result<String, String>);

impl Tools {
    /// Reads the tools of the configuration.
    pub(crate) fn read(config: &[(String, String)], timeout: Duration) -> Result<Self, Failure> {
        let mut list = Vec::new();
        for (key, value) in config {
            let Some(name) = key.strip_prefix("tool-").filter(|name| *name != "timeout") else { continue };
            let Some((agent, description)) = value.split_once(':') else {
                return Err(Failure::fault(format!("config.{key} is {value:?}, and not `AGENT: DESCRIPTION`")));
            };
            let (agent, description) = (agent.trim().to_owned(), description.trim().to_owned());
            list.push(Tool { name: name.to_owned(), agent, description });
        }
        Ok(Self { list, timeout })
    }

    /// Returns the tools in the form of the API.
    pub(crate) fn schema(&self) -> Vec<Value> {
        let parameters = json!({
            "type": "object",
            "properties": { "message": { "type": "string", "description": "What to ask or to tell, in words." } },
            "required": ["message"],
            "additionalProperties": false,
        });
        let function =
            |tool: &Tool| json!({ "name": tool.name, "description": tool.description, "parameters": parameters });
        self.list.iter().map(|tool| json!({ "type": "function", "function": function(tool) })).collect()
    }

    /// Describes a call to the client.
    pub(crate) fn describe(&self, call: &ToolCall) -> Value {
        let message = serde_json::from_str::<Arguments>(&call.arguments).map(|arguments| arguments.message);
        json!({ "tool": call.name, "message": message.as_deref().unwrap_or(&call.arguments) })
    }

    /// Asks the agents of these calls, all at once. What fails is a result as well, for the model to go on from.
    pub(crate) fn ask(&self, calls: &[ToolCall]) -> Vec<ToolResult> {
        let drafts: Vec<Result<Draft, String>> = calls.iter().map(|call| self.draft(call)).collect();
        let sent: Vec<Draft> = drafts.iter().filter_map(|draft| draft.as_ref().ok()).cloned().collect();
        let mut answers = match sent.is_empty() {
            true => Vec::new(),
            false => messaging::request_all(&sent, self.timeout),
        }
        .into_iter();
        let mut answered = |draft: Result<Draft, String>| {
            draft?;
            let answer = answers.next().ok_or_else(|| String::from("it was not asked"))?;
            read(answer.map_err(|error| Failure::from(error).reason)?)
        };
        drafts.into_iter().map(|draft| ToolResult(answered(draft))).collect()
    }

    fn draft(&self, call: &ToolCall) -> Result<Draft, String> {
        let Some(tool) = self.list.iter().find(|tool| tool.name == call.name) else {
            let names: Vec<&str> = self.list.iter().map(|tool| tool.name.as_str()).collect();
            return Err(format!("there is no tool {}; there are: {}", call.name, names.join(", ")));
        };
        let arguments: Arguments = serde_json::from_str(&call.arguments)
            .map_err(|error| format!("the arguments are not {{\"message\": \"…\"}}: {error}"))?;
        Ok(Draft::to(&tool.agent).performative(Performative::Request).text(arguments.message))
    }
}

/// Reads the answer of an agent.
fn read(answer: Message) -> Result<String, String> {
    let text = answer.text().map_err(|failure| failure.reason)?;
    match answer.performative {
        Performative::Refuse | Performative::NotUnderstood | Performative::Failure => {
            Err(cut(text, MAX_RESULT).to_owned())
        }
        _ => Ok(cut(text, MAX_RESULT).to_owned()),
    }
}

impl ToolResult {
    /// Returns the text for the model.
    pub(crate) fn content(&self) -> String {
        match &self.0 {
            Ok(text) => text.clone(),
            Err(error) => json!({ "error": error }).to_string(),
        }
    }

    /// Describes it to the client.
    pub(crate) fn describe(&self, tool: &str) -> Value {
        match &self.0 {
            Ok(text) => json!({ "tool": tool, "content": text }),
            Err(error) => json!({ "tool": tool, "error": error }),
        }
    }
}
