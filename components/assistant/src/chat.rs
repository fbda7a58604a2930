//! The messages between the assistant and the model.

use serde_json::{Value, json};

use crate::completion::Turn;
use crate::tools::ToolResult;

/// A chat, in the form in which the API takes it.
pub(crate) struct Chat(Vec<Value>);

impl Chat {
    /// Begins a chat with a question.
    pub(crate) fn new(instructions: &str, question: &str) -> Self {
        Self(vec![json!({ "role": "system", "content": instructions }), json!({ "role": "user", "content": question })])
    }

    /// Adds a turn of the model that calls tools, and what they answered.
    pub(crate) fn add(&mut self, turn: &Turn, results: &[ToolResult]) {
        let calls: Vec<Value> = turn
            .calls
            .iter()
            .map(|call| {
                let function = json!({ "name": call.name, "arguments": call.arguments });
                json!({ "id": call.id, "type": "function", "function": function })
            })
            .collect();
        let text = Some(&turn.text).filter(|text| !text.is_empty());
        self.0.push(json!({ "role": "assistant", "content": text, "tool_calls": calls }));
        for (call, result) in turn.calls.iter().zip(results) {
            self.0.push(json!({ "role": "tool", "tool_call_id": call.id, "content": result.content() }));
        }
    }

    /// Returns the messages.
    pub(crate) fn messages(&self) -> &[Value] {
        &self.0
    }
}
