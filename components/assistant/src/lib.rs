//! Answers questions with a language model, which may ask other agents: each tool of the model is an agent.
//!
//! `POST /assistant` with a question, as text or as `{"question": "…"}`, is answered with server-sent events:
//!
//! | event | data |
//! |---|---|
//! | `text` | `{"text": …}`: the next part of the answer |
//! | `tool-call` | `{"tool": …, "message": …}`: what the model asks an agent |
//! | `tool-result` | `{"tool": …, "content": …}`, or `{"tool": …, "error": …}` |
//! | `refusal` | `{"text": …}`: the model declines to answer |
//! | `usage` | `{"prompt_tokens": …, "completion_tokens": …, "total_tokens": …}` of all rounds |
//! | `error` | `{"code": …, "detail": …}`: why there is no more; the last event |
//! | `done` | `{"rounds": …, "finish": …}`: the last event of an answer |
//!
//! What goes wrong before the first event is an error of HTTP (problem details) with the same `code`.
//!
//! | config | meaning |
//! |---|---|
//! | `api` | where the API is, such as `https://api.openai.com/v1`; `allow.http` has to cover `…/chat/completions` |
//! | `model` | the name of the model |
//! | `tool-NAME` | `AGENT: DESCRIPTION`: an agent that the model may ask, and for what; `allow.send` has to name it |
//! | `instructions` | the first message of each chat |
//! | `rounds` | how often the model is asked for one question, at most (default 6) |
//! | `tool-timeout` | the seconds that agents have for an answer (default 20) |

mod chat;
mod completion;
mod output;
mod problem;
mod tools;

use std::time::Duration;

use caxton_sdk::http::{IncomingRequest, Responder};
use caxton_sdk::prelude::*;
use serde::Deserialize;

use chat::Chat;
use completion::Usage;
use output::Output;
use problem::{Ended, Problem};
use tools::Tools;

/// The largest question, in bytes.
const MAX_QUESTION: usize = 16 << 10;
const INSTRUCTIONS: &str = "You are the assistant of a help desk. Answer in a few sentences. Ask the tools for all that you \
                            do not know for sure, and pass on what they answer.";

struct Assistant;

/// The settings of the agent.
struct Settings {
    api: String,
    model: String,
    instructions: String,
    rounds: u32,
    tools: Tools,
}

/// A question as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    question: String,
}

impl HttpStreamAgent for Assistant {
    fn handle(request: IncomingRequest, responder: Responder) -> Result<(), Failure> {
        let question = read_question(&request.into_whole()?)?;
        let settings = Settings::read()?;
        let mut output = Output::new(responder);
        match converse(&settings, &question, &mut output) {
            Ok(()) => output.finish(),
            Err(Ended::Client(failure)) => Err(failure),
            Err(Ended::Problem(problem)) => {
                log::warn!("{}: {}", problem.code, problem.detail);
                output.fail(&problem)
            }
        }
    }

    fn check() -> Result<(), String> {
        Settings::read().map(drop).map_err(|failure| failure.reason)
    }
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let needed = |key: &str| config::get(key)?.ok_or_else(|| Failure::fault(format!("config.{key} is missing")));
        let seconds = config::parse("tool-timeout")?.unwrap_or(20);
        Ok(Self {
            api: needed("api")?.trim_end_matches('/').to_owned(),
            model: needed("model")?,
            instructions: config::get("instructions")?.unwrap_or_else(|| INSTRUCTIONS.to_owned()),
            rounds: config::parse("rounds")?.unwrap_or(6),
            tools: Tools::read(&config::all()?, Duration::from_secs(seconds))?,
        })
    }
}

fn read_question(request: &Request) -> Result<String, Failure> {
    let text = request.text()?.trim();
    let is_json = request.header("content-type").is_some_and(|kind| kind.trim().starts_with(caxton_sdk::JSON));
    // Also without the header, which a command line rarely sets.
    let question = match serde_json::from_str::<Question>(text) {
        Ok(read) => read.question.trim().to_owned(),
        Err(error) if is_json => {
            return Err(Failure::rejected(format!("a question is {{\"question\": \"…\"}}: {error}")));
        }
        Err(_) => text.to_owned(),
    };
    match question.len() {
        0 => Err(Failure::rejected("the question is empty")),
        1..=MAX_QUESTION => Ok(question),
        _ => Err(Failure::rejected(format!("the question is longer than {MAX_QUESTION} bytes"))),
    }
}

/// Asks the model, and agents for it, until it has answered.
fn converse(settings: &Settings, question: &str, output: &mut Output) -> Result<(), Ended> {
    let mut chat = Chat::new(&settings.instructions, question);
    let mut used = Usage::default();
    for round in 1..=settings.rounds {
        let turn = completion::ask(settings, &chat, output)?;
        used.add(turn.usage.as_ref());
        if turn.calls.is_empty() {
            if used != Usage::default() {
                output.send("usage", &used)?;
            }
            return output.done(round, &turn.finish);
        }
        for call in &turn.calls {
            output.send("tool-call", &settings.tools.describe(call))?;
        }
        let results = settings.tools.ask(&turn.calls);
        for (call, result) in turn.calls.iter().zip(&results) {
            output.send("tool-result", &result.describe(&call.name))?;
        }
        chat.add(&turn, &results);
    }
    let detail = format!("the model was asked {} times and has not answered (config.rounds)", settings.rounds);
    Err(Problem::new(502, "too-many-rounds", detail).into())
}

caxton_sdk::http_stream_agent!(Assistant);
