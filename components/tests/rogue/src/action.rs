//! The actions; those that end badly or take too much are done here.

use std::hint::black_box;
use std::time::{Duration, Instant};

use caxton_sdk::Cause;
use caxton_sdk::log::{Level, log};
use caxton_sdk::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::outgoing::Fields;
use crate::{outgoing, values, wasi};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub(crate) enum Action {
    Trap,
    Overflow,
    Exit {
        #[serde(default)]
        code: i32,
    },
    Loop,
    Fail {
        #[serde(default = "fault")]
        cause: String,
        #[serde(default)]
        reason: String,
        retry_after_ms: Option<u64>,
    },
    FailUntil {
        attempt: u32,
        #[serde(default = "fault")]
        cause: String,
    },
    Sleep {
        ms: u64,
    },
    Spin {
        ms: u64,
    },
    Grow {
        mib: usize,
    },
    Flood {
        to: String,
        bytes: usize,
    },
    Log {
        #[serde(default)]
        level: String,
        text: String,
    },
    Print {
        stdout: Option<String>,
        stderr: Option<String>,
    },
    None,
    Reply {
        text: Option<String>,
        bytes: Option<usize>,
        #[serde(default)]
        with: Fields,
    },
    Message,
    Http,
    Steps {
        steps: Vec<Action>,
    },
    Configured,

    Env,
    Config,
    Clock,
    Random {
        bytes: usize,
    },
    RandomAtOnce {
        bytes: u64,
    },
    Read {
        path: String,
    },
    Write {
        path: String,
    },
    Connect {
        address: String,
    },

    Send {
        to: String,
        content: Option<Value>,
        bytes: Option<usize>,
        #[serde(default = "once")]
        count: u32,
        #[serde(default)]
        with: Fields,
    },
    Request {
        to: String,
        content: Option<Value>,
        bytes: Option<usize>,
        #[serde(default = "a_second")]
        timeout_ms: u64,
        #[serde(default)]
        with: Fields,
    },
    RequestAll {
        to: Vec<String>,
        content: Option<Value>,
        bytes: Option<usize>,
        #[serde(default = "a_second")]
        timeout_ms: u64,
        #[serde(default)]
        with: Fields,
    },
    Broadcast {
        to: String,
        content: Option<Value>,
        bytes: Option<usize>,
        #[serde(default)]
        with: Fields,
    },
    Find {
        capability: String,
    },
    Cancel {
        timer: String,
    },

    Set {
        key: String,
        value: Option<String>,
        bytes: Option<usize>,
        count: Option<u32>,
    },
    SetFor {
        key: String,
        value: String,
        ms: u64,
    },
    Get {
        key: String,
    },
    Remove {
        key: String,
    },
    Increment {
        key: String,
        #[serde(default = "one")]
        by: i64,
    },
    Add {
        key: String,
        #[serde(default = "one")]
        by: i64,
    },
    AskOf {
        to: String,
        key: String,
        content: Value,
        #[serde(default = "a_second")]
        timeout_ms: u64,
    },
    Keys {
        #[serde(default)]
        prefix: String,
        #[serde(default = "a_hundred")]
        limit: u32,
        #[serde(default = "a_hundred")]
        pages: u32,
    },
    Commit,
    Unless {
        key: String,
    },
    Record {
        text: String,
        #[serde(default)]
        ms: u64,
    },
}

fn once() -> u32 {
    1
}

fn one() -> i64 {
    1
}

fn a_hundred() -> u32 {
    100
}

fn a_second() -> u64 {
    1_000
}

fn fault() -> String {
    String::from("fault")
}

/// Carries out an action and returns the result.
pub(crate) fn act(action: Action, message: &Message) -> Handled {
    match action {
        Action::None => Ok(None),
        Action::Reply { text, bytes, with } => {
            let content = text.map_or_else(|| dots(bytes.unwrap_or(0)), String::into_bytes);
            Ok(Some(with.into_reply(content)?))
        }
        action => Ok(Some(Reply::json(&outcome(action, message)?)?)),
    }
}

/// Does one action.
fn outcome(action: Action, message: &Message) -> Result<Value, Failure> {
    match action {
        Action::Trap => panic!("told to trap"),
        Action::Overflow => Ok(json!(recurse(1))),
        Action::Exit { code } => std::process::exit(code),
        Action::Loop => loop {
            black_box(());
        },
        Action::Fail { cause, reason, retry_after_ms } => {
            Err(Failure { cause: cause_named(&cause)?, reason, retry_after_ms })
        }
        Action::FailUntil { attempt, cause } => fail_until(attempt, &cause, message),
        Action::Sleep { ms } => {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(json!({ "ms": ms }))
        }
        Action::Spin { ms } => {
            spin(Duration::from_millis(ms));
            Ok(json!({ "ms": ms }))
        }
        Action::Grow { mib } => Ok(json!({ "grown": grow(mib) })),
        Action::Flood { to, bytes } => flood(&to, bytes),
        Action::Log { level, text } => {
            log(level_named(&level), "rogue", &text);
            Ok(json!({}))
        }
        Action::Print { stdout, stderr } => {
            if let Some(line) = stdout {
                println!("{line}");
            }
            if let Some(line) = stderr {
                eprintln!("{line}");
            }
            Ok(json!({}))
        }
        Action::None | Action::Reply { .. } => Err(Failure::rejected("none and reply cannot be steps")),
        Action::Message => Ok(outgoing::describe(message)),
        Action::Http => Ok(outgoing::describe_call(message)),
        Action::Configured => {
            let action = config::get("action")?.unwrap_or_default();
            outcome(serde_json::from_str(&action)?, message)
        }
        Action::Steps { steps } => steps.into_iter().map(|step| outcome(step, message)).collect(),

        Action::Env => Ok(wasi::environment()),
        Action::Config => Ok(json!(config::all()?)),
        Action::Clock => wasi::clock(),
        Action::Random { bytes } => Ok(wasi::random(bytes)),
        Action::RandomAtOnce { bytes } => Ok(json!({ "bytes": wasi::random_at_once(bytes) })),
        Action::Read { path } => Ok(wasi::read(&path)),
        Action::Write { path } => Ok(wasi::write(&path)),
        Action::Connect { address } => Ok(wasi::connect(&address)),

        Action::Send { to, content, bytes, count, with } => {
            Ok(outgoing::send(&with.into_draft(to, content, bytes)?, count))
        }
        Action::Request { to, content, bytes, timeout_ms, with } => {
            Ok(outgoing::request(&with.into_draft(to, content, bytes)?, Duration::from_millis(timeout_ms)))
        }
        Action::RequestAll { to, content, bytes, timeout_ms, with } => {
            let drafts = to.into_iter().map(|to| with.clone().into_draft(to, content.clone(), bytes));
            Ok(outgoing::request_all(&drafts.collect::<Result<Vec<_>, _>>()?, Duration::from_millis(timeout_ms)))
        }
        Action::Broadcast { to, content, bytes, with } => {
            Ok(outgoing::broadcast(&with.into_draft(to, content, bytes)?))
        }
        Action::Cancel { timer } => Ok(outgoing::cancel(&timer)),
        Action::Find { capability } => Ok(json!(messaging::find(&capability))),

        Action::Set { key, value, bytes, count } => {
            let value = value.map_or_else(|| dots(bytes.unwrap_or(0)), String::into_bytes);
            Ok(values::set(&key, &value, count))
        }
        Action::SetFor { key, value, ms } => Ok(values::set_for(&key, &value, Duration::from_millis(ms))),
        Action::Get { key } => Ok(values::get(&key)),
        Action::Remove { key } => Ok(values::remove(&key)),
        Action::Increment { key, by } => Ok(values::increment(&key, by)),
        Action::Add { key, by } => Ok(values::add(&key, by)),
        Action::AskOf { to, key, content, timeout_ms } => {
            let steps = json!([{ "do": "log", "text": values::get(&key).to_string() }, content]);
            let draft = Fields::default().into_draft(to, Some(json!({ "do": "steps", "steps": steps })), None)?;
            Ok(outgoing::request(&draft, Duration::from_millis(timeout_ms)))
        }
        Action::Keys { prefix, limit, pages } => Ok(values::keys(&prefix, limit, pages)),
        Action::Commit => Ok(json!({ "error": effects::commit().err().map(|failure| failure.reason) })),
        Action::Unless { key } => match state::get(&key)? {
            None => Ok(json!({})),
            Some(_) => Err(Failure::fault(format!("`{key}` is there"))),
        },
        Action::Record { text, ms } => {
            std::thread::sleep(Duration::from_millis(ms));
            values::record(text, &message.conversation_id)
        }
    }
}

fn fail_until(attempt: u32, cause: &str, message: &Message) -> Result<Value, Failure> {
    if message.attempt >= attempt {
        return Ok(json!({ "attempt": message.attempt }));
    }
    let reason = format!("attempt {}", message.attempt);
    Err(Failure { cause: cause_named(cause)?, reason, retry_after_ms: None })
}

#[expect(unconditional_recursion, reason = "it is there to end in a trap")]
fn recurse(depth: u64) -> u64 {
    // The array keeps a frame in memory, and what follows the call keeps it from becoming a loop.
    let frame = black_box([depth; 64]);
    recurse(depth + 1).wrapping_add(frame[black_box(7)])
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        for step in 0..10_000 {
            black_box(step);
        }
    }
}

fn grow(mib: usize) -> usize {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while taken.len() < mib {
        let mut piece: Vec<u8> = Vec::new();
        if piece.try_reserve_exact(1 << 20).is_err() {
            break;
        }
        // Memory counts when it is written.
        piece.resize(1 << 20, 1);
        taken.push(black_box(piece));
    }
    taken.len()
}

fn flood(to: &str, bytes: usize) -> Result<Value, Failure> {
    let line = ".".repeat(79);
    let lines = bytes.div_ceil(80);
    for _ in 0..lines {
        match to {
            "stdout" => println!("{line}"),
            "stderr" => eprintln!("{line}"),
            "log" => log(Level::Info, "rogue", &line),
            other => return Err(Failure::rejected(format!("no such place to flood: {other}"))),
        }
    }
    Ok(json!({ "lines": lines }))
}

fn level_named(name: &str) -> Level {
    match name {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "critical" => Level::Critical,
        _ => Level::Info,
    }
}

fn cause_named(name: &str) -> Result<Cause, Failure> {
    match name {
        "rejected" => Ok(Cause::Rejected),
        "unavailable" => Ok(Cause::Unavailable),
        "fault" => Ok(Cause::Fault),
        other => Err(Failure::rejected(format!("no such cause: {other}"))),
    }
}

pub(crate) fn dots(bytes: usize) -> Vec<u8> {
    vec![b'.'; bytes]
}
