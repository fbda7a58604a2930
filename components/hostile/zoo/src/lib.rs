//! An agent that attacks its host and its neighbours. A message names the attack; the answer is what came of it, for
//! the host's tests to compare.
//!
//! The guest `rogue` has all that an agent may do badly by mistake. This one has what takes intent.
//!
//! | content | attack |
//! |---|---|
//! | `pollables N`, `streams N` | takes so many resources of WASI and drops none |
//! | `read N` | reads one key so many times |
//! | `read-others N BYTES` | reads so many keys, with names of so many bytes |
//! | `rewrite N BYTES` | writes a value of so many bytes to one key so many times |
//! | `list N BYTES` | lists keys so many times, from a cursor of so many bytes |
//! | `find N BYTES` | looks so many times for a capability of so many bytes |
//! | `log N BYTES` | logs so many lines of so many bytes |
//! | `drafts N BYTES` | sends so many drafts of so many bytes, whatever comes of each |
//! | `fork N` | sends this message to itself so many times, each in a conversation of its own |
//! | `forge` | sends drafts whose receivers are no agents: the host itself, HTTP, paths |
//! | `pose TO` | asks an agent for the message that it got, with headers that name another sender |
//! | `betray VICTIM ACCOMPLICE` | has the accomplice send the victim an answer to this question, and then answers it |
//! | `answer VICTIM ID CONVERSATION` | is that accomplice |
//! | `cancel N` | cancels so many timers by ids that it makes up |
//! | `cancel-one ID` | cancels a timer of another agent |
//! | `questions N TO` | asks an agent so many questions at once |

use std::time::Duration;

use caxton_sdk::Performative;
use caxton_sdk::bindings::caxton::agent::state::list_keys;
use caxton_sdk::log::{Level, log};
use caxton_sdk::prelude::*;
use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::subscribe_duration;

const A_WHILE: Duration = Duration::from_secs(5);

struct Zoo;

impl Agent for Zoo {
    fn handle(message: Message) -> Handled {
        // Another agent of the tests sends its words as JSON.
        let text = message.text()?.trim_matches('"').to_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let number = |at: usize| word(at).parse::<usize>().unwrap_or(0);
        let outcome = match word(0) {
            "pollables" => hoard(number(1), || subscribe_duration(u64::MAX)),
            "streams" => hoard(number(1), get_stdout),
            "read" => until_refused(number(1), |_| state::get("one").map(drop)),
            "read-others" => until_refused(number(1), |at| state::get(&key(at, number(2))).map(drop)),
            "rewrite" => {
                let value = vec![7; number(2)];
                until_refused(number(1), |_| state::set("one", &value))
            }
            "list" => {
                let cursor = "z".repeat(number(2));
                until_refused(number(1), |_| list_keys("", Some(&cursor), u32::MAX).map(drop))
            }
            "find" => {
                let capability = "z".repeat(number(2));
                let found = (0..number(1)).map(|_| messaging::find(&capability).len()).sum::<usize>();
                format!("{found} found")
            }
            "log" => {
                let line = "l".repeat(number(2));
                (0..number(1)).for_each(|_| log(Level::Info, "zoo", &line));
                "logged".to_owned()
            }
            "drafts" => drafts(number(1), number(2)),
            "fork" => fork(&text, number(1)),
            "forge" => forge(),
            "pose" => pose(word(1)),
            "betray" => betray(&message, word(1), word(2)),
            "answer" => return answer(word(1), word(2), word(3)),
            "cancel" => until_refused(number(1), |at| messaging::cancel(&format!("{:036}", at)).map(drop)),
            "cancel-one" => messaging::cancel(word(1)).map_or_else(|error| brief(&error), |there| there.to_string()),
            "questions" => questions(number(1), word(2)),
            other => return Err(Failure::rejected(format!("there is no attack `{other}`"))),
        };
        Ok(Some(Reply::text(outcome)))
    }
}

/// Takes resources and never drops them.
fn hoard<T>(count: usize, take: impl Fn() -> T) -> String {
    for _ in 0..count {
        std::mem::forget(take());
    }
    format!("{count} taken")
}

/// Does something again and again until it is refused.
fn until_refused<E: std::fmt::Debug>(count: usize, step: impl Fn(usize) -> Result<(), E>) -> String {
    for done in 0..count {
        if let Err(error) = step(done) {
            return format!("{done} done, then {}", brief(&error));
        }
    }
    format!("{count} done")
}

fn key(at: usize, bytes: usize) -> String {
    format!("{at:0bytes$}")
}

/// An error, without what it may quote.
fn brief(error: &impl std::fmt::Debug) -> String {
    format!("{error:?}").chars().take(160).collect()
}

fn drafts(count: usize, bytes: usize) -> String {
    let draft = Draft::to("").bytes(vec![b's'; bytes], "text/plain");
    let mut refused = Vec::new();
    for _ in 0..count {
        refused.extend(draft.send().err().map(|error| brief(&error)));
    }
    format!("{} sent, {} refused: {}", count - refused.len(), refused.len(), refused.pop().unwrap_or_default())
}

fn fork(text: &str, count: usize) -> String {
    let sent = (0..count).filter(|_| Draft::to("").text(text).new_conversation().send().is_ok()).count();
    format!("{sent} sent")
}

fn forge() -> String {
    let receivers = [
        "http:POST /neighbour",
        "host:start",
        "cli:root",
        "cap:",
        "cap:../neighbour",
        "zoo/../neighbour",
        "neighbour\0",
        "neighbour\r\nreceiver: zoo",
        "NEIGHBOUR",
        "\u{202e}ruobhgien",
        "*",
    ];
    let accepted = receivers.into_iter().filter(|to| Draft::to(*to).text("x").send().is_ok());
    format!("accepted: {:?}", accepted.collect::<Vec<_>>())
}

fn pose(to: &str) -> String {
    let draft = Draft::to(to)
        .text(r#"{"do":"message"}"#)
        .performative(Performative::Request)
        .header("sender", "host:admin")
        .header("caxton-caller", "jwt:somebody");
    match draft.request(A_WHILE) {
        Ok(answer) => String::from_utf8_lossy(&answer.content).into_owned(),
        Err(error) => brief(&error),
    }
}

fn betray(message: &Message, victim: &str, accomplice: &str) -> String {
    let told = format!("answer {victim} {} {}", message.id, message.conversation_id);
    // At once, and not with the commit: the forged answer is there before the true one.
    match Draft::to(accomplice).text(told).new_conversation().request(A_WHILE) {
        Ok(_) => "the true answer".to_owned(),
        Err(error) => brief(&error),
    }
}

fn answer(victim: &str, id: &str, conversation: &str) -> Handled {
    let mut draft = Draft::to(victim).text("a forged answer").performative(Performative::Inform);
    draft.conversation_id = Some(conversation.to_owned());
    draft.in_reply_to = Some(id.to_owned());
    draft.send()?;
    Ok(Some(Reply::text("forged")))
}

fn questions(count: usize, to: &str) -> String {
    let drafts = vec![Draft::to(to).text("?").new_conversation(); count];
    let answers = messaging::request_all(&drafts, Duration::from_millis(200));
    let failed: Vec<String> = answers.iter().filter_map(|answer| answer.as_ref().err().map(brief)).collect();
    format!(
        "{} answered, {} not: {}",
        answers.len() - failed.len(),
        failed.len(),
        failed.last().map_or("", |last| last)
    )
}

caxton_sdk::agent!(Zoo);
