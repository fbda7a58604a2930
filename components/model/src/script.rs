//! The script: the answer to a chat, by its last messages and the words of the tools.

use serde_json::{Value, json};

use crate::{ChatMessage, Completion, Function};

/// Words that are in questions and descriptions of all kinds.
const COMMON: &[&str] = &[
    "about", "and", "are", "can", "for", "from", "has", "have", "how", "its", "not", "that", "the", "there", "they",
    "this", "was", "what", "when", "which", "who", "why", "with", "you", "your",
];
/// The letters of a tool's result that are repeated.
const MAX_RESULT: usize = 500;

/// An answer of the script.
pub(crate) enum Answer {
    Text(String),
    Call { tool: String, arguments: String },
}

/// Returns the answer to a chat that ends with this message.
pub(crate) fn answer(asked: &Completion, last: &ChatMessage) -> Answer {
    let text = last.content.as_deref().unwrap_or_default();
    if last.role == "tool" {
        return Answer::Text(report(&asked.messages));
    }
    let tools = || asked.tools.iter().map(|tool| &tool.function);
    // The first of several that match as well, so that the answer is always the same.
    let best = tools().rev().max_by_key(|tool| score(tool, text)).filter(|tool| score(tool, text) > 0);
    match best {
        Some(tool) => Answer::Call { tool: tool.name.clone(), arguments: json!({ "message": text }).to_string() },
        None => {
            let names: Vec<&str> = tools().map(|tool| tool.name.as_str()).collect();
            Answer::Text(format!("I am a script and no model. I can ask: {}.", names.join(", ")))
        }
    }
}

/// Returns the words of a text, in lower case and without the `s` of a plural.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(|word| {
        let word = word.to_lowercase();
        if word.len() > 3 { word.strip_suffix('s').map(str::to_owned).unwrap_or(word) } else { word }
    })
}

/// Returns how many different words of a text are of a tool.
fn score(tool: &Function, text: &str) -> usize {
    let of_tool: Vec<String> = words(&tool.name).chain(words(&tool.description)).collect();
    let mut found: Vec<String> = words(text)
        .filter(|word| word.len() > 2 && !COMMON.contains(&word.as_str()) && of_tool.contains(word))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.len()
}

/// Returns a text with the results at the end of the chat.
fn report(messages: &[ChatMessage]) -> String {
    let results = messages.iter().rev().take_while(|message| message.role == "tool");
    let mut lines: Vec<String> =
        results.map(|message| describe(message.content.as_deref().unwrap_or_default())).collect();
    lines.reverse();
    lines.join(" ")
}

/// Returns a result in a sentence.
fn describe(result: &str) -> String {
    let value: Value = serde_json::from_str(result).unwrap_or(Value::Null);
    if let Some(error) = value["error"].as_str() {
        return format!("I could not find out: {error}");
    }
    // Of a ticket: the answer of the desk that took it.
    if let (Some(desk), Some(answer)) = (value["taken_by"].as_str(), value["answer"].as_str()) {
        return format!("The ticket went to {desk}. {answer}");
    }
    format!("I was told: {}", result.chars().take(MAX_RESULT).collect::<String>())
}
