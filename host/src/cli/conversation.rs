//! `caxton conversation`.

use std::fmt::Write;
use std::time::Duration;

use clap::Subcommand;

use super::budget;
use super::client::{Client, encode, query};
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Out, Style, Table, count, printable, say};
use super::time::{ago, rfc3339, size};
use crate::api_types::{ConversationStatus, ConversationThread, ThreadMessage};
use crate::clock;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Kept are the messages that wait, and the newest handled ones of all conversations (store.history). Calls, whose \
senders waited for the answer, are counted and not kept. Exit code 3 if the conversation is unknown.

Examples:
  caxton conversation ls
  caxton conversation ls --agent billing --limit 10
  caxton conversation show 01a1fd70-ceca-7763-ac17-b399c5b071a6")]
pub(super) struct ConversationArgs {
    #[command(subcommand)]
    pub(super) command: ConversationCommand,
}

/// The subcommands of `caxton conversation`.
#[derive(Debug, Subcommand)]
pub(super) enum ConversationCommand {
    /// List conversations, the latest activity first: open ones, and ended ones that are kept
    Ls {
        /// Only those with this participant: an agent, or a sender outside
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// The most to list
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show a conversation and its messages that are kept, in order
    Show {
        /// The conversation id
        id: String,
        #[command(flatten)]
        host: HostArgs,
    },
}

/// Runs a subcommand.
pub(super) async fn run(command: ConversationCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        ConversationCommand::Ls { agent, limit, host } => {
            let query = query(&[("participant", agent.as_deref()), ("limit", Some(&limit.to_string()))]);
            let found: Vec<ConversationStatus> = Client::find(&host)?.get(&format!("/v1/conversations{query}")).await?;
            match out.format() {
                Format::Json => out.json(&found),
                Format::Text if found.is_empty() => {
                    say("no conversation is known");
                    Ok(())
                }
                Format::Text => out.line(&table(&found, clock::now_ms()).render(out.is_terminal())),
            }
        }
        ConversationCommand::Show { id, host } => {
            let thread: ConversationThread =
                Client::find(&host)?.get(&format!("/v1/conversations/{}", encode(&id))).await?;
            match out.format() {
                Format::Json => out.json(&thread),
                Format::Text => {
                    out.line(render_thread(&thread, clock::now_ms()).trim_end())?;
                    say(&retention_note(&thread));
                    Ok(())
                }
            }
        }
    }
}

fn since(at: u64, now: u64) -> String {
    ago(Duration::from_millis(now.saturating_sub(at)))
}

fn table(found: &[ConversationStatus], now: u64) -> Table {
    let mut table = Table::new(&[
        "CONVERSATION",
        "STATE",
        "PARTICIPANTS",
        "PROTOCOL",
        ">MESSAGES",
        ">UNANSWERED",
        "FIRST",
        "LAST",
        ">AGE",
    ]);
    for conversation in found {
        let unanswered = conversation.unanswered.len().to_string();
        table.row(vec![
            Cell::new(escaped_line(&conversation.id)),
            if conversation.state == "open" {
                Cell::styled(&conversation.state, Style::Good)
            } else {
                Cell::styled(&conversation.state, Style::Dim)
            },
            Cell::new(escaped_line(&conversation.participants.join(", "))),
            Cell::new(conversation.protocol.as_deref().map_or_else(|| "-".to_owned(), escaped_line)),
            Cell::new(conversation.messages.to_string()),
            if conversation.unanswered.is_empty() {
                Cell::new(unanswered)
            } else {
                Cell::styled(unanswered, Style::Warn)
            },
            Cell::new(rfc3339(conversation.first_at)),
            Cell::new(rfc3339(conversation.last_at)),
            Cell::new(since(conversation.first_at, now)),
        ]);
    }
    table
}

/// Renders text of agents and callers in one line.
fn escaped_line(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

/// Renders a conversation with its messages.
fn render_thread(thread: &ConversationThread, now: u64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<13} {value}");
    };
    line("conversation", &escaped_line(&thread.id));
    if let Some(known) = &thread.conversation {
        let time = |at: u64| format!("{} ({} ago)", rfc3339(at), since(at, now));
        line("state", &known.ended_at.map_or_else(|| known.state.clone(), |at| format!("ended {}", time(at))));
        line("initiator", &escaped_line(&known.initiator));
        line("participants", &escaped_line(&known.participants.join(", ")));
        line("protocol", &known.protocol.as_deref().map_or_else(|| "-".to_owned(), escaped_line));
        line("messages", &known.messages.to_string());
        line("first", &time(known.first_at));
        line("last", &time(known.last_at));
        for left in &known.unanswered {
            let asked = format!("{} -> {} ({})", left.from, left.to, left.key);
            line("unanswered", &escaped_line(&asked));
        }
    } else {
        line("state", "only messages of it are kept");
    }
    for message in &thread.messages {
        text.push('\n');
        text.push_str(&render_message(message));
    }
    for tree in &thread.budgets {
        text.push('\n');
        text.push_str(&budget::render(tree, false));
    }
    text
}

fn conflicts(count: u32) -> String {
    if count == 1 { "1 conflict".to_owned() } else { format!("{count} conflicts") }
}

fn render_message(message: &ThreadMessage) -> String {
    let route = escaped_line(&format!("{} -> {}", message.sender, message.receiver));
    let state = match (&message.revision, message.dead_letter, message.due_at) {
        (Some(revision), _, _) => match message.runs {
            Some(runs) if runs > 1 => format!("handled by {revision} in {runs} runs ({})", conflicts(runs - 1)),
            Some(_) | None => format!("handled by {revision}"),
        },
        (None, Some(number), _) => format!("dead letter {number}"),
        (None, None, Some(due)) => format!("waiting, due {}", rfc3339(due)),
        (None, None, None) => message.state.clone(),
    };
    let mut text = format!("{}  {route}  {}  {state}\n", rfc3339(message.sent_at), message.performative);
    match &message.text {
        Some(content) if content.is_empty() => {}
        Some(content) => {
            for line in printable(content).lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
        None => {
            let _ = writeln!(text, "    {} of {}", size(message.bytes), escaped_line(&message.content_type));
        }
    }
    text
}

/// Returns a line about the messages that are kept.
fn retention_note(thread: &ConversationThread) -> String {
    let here = count(thread.messages.len(), "message");
    let of = thread.conversation.as_ref().map(|known| format!(" of {} said", known.messages)).unwrap_or_default();
    let older = if thread.more { "; older ones are kept and not shown" } else { "" };
    format!(
        "{here}{of}{older}; kept are those that wait and the newest handled ones (store.history), and no calls, whose senders waited"
    )
}

#[cfg(test)]
mod tests {
    use caxton_control::Performative;
    use caxton_control::conversation::SpeechAct;

    use super::*;
    use crate::admin::tests::{Bench, File};
    use crate::api_types::OpenQuestion;
    use crate::cli::output::Exit;

    fn conversation() -> ConversationStatus {
        ConversationStatus {
            id: "c-1".to_owned(),
            state: "open".to_owned(),
            initiator: "triage".to_owned(),
            participants: vec!["billing".to_owned(), "triage".to_owned()],
            protocol: Some("fipa-contract-net".to_owned()),
            messages: 7,
            first_at: 1_709_251_200_000,
            last_at: 1_709_251_260_000,
            ended_at: None,
            unanswered: vec![OpenQuestion { from: "triage".to_owned(), to: "billing".to_owned(), key: "k".to_owned() }],
        }
    }

    fn message(state: &str) -> ThreadMessage {
        ThreadMessage {
            id: "m".to_owned(),
            sent_at: 1_709_251_200_000,
            sender: "triage".to_owned(),
            receiver: "billing".to_owned(),
            performative: "cfp".to_owned(),
            protocol: None,
            reply_with: None,
            in_reply_to: None,
            state: state.to_owned(),
            due_at: None,
            done_at: None,
            revision: None,
            runs: None,
            dead_letter: None,
            content_type: "text/plain".to_owned(),
            bytes: 2,
            text: Some("a\n\x1b[2J".to_owned()),
        }
    }

    #[test]
    fn conversations_are_listed() {
        let mut ended = conversation();
        (ended.state, ended.protocol, ended.unanswered) = ("ended".to_owned(), None, Vec::new());
        let expected = "\
CONVERSATION  STATE  PARTICIPANTS     PROTOCOL           MESSAGES  UNANSWERED  FIRST                     LAST                      AGE
c-1           open   billing, triage  fipa-contract-net         7           1  2024-03-01T00:00:00.000Z  2024-03-01T00:01:00.000Z   2m
c-1           ended  billing, triage  -                         7           0  2024-03-01T00:00:00.000Z  2024-03-01T00:01:00.000Z   2m";
        assert_eq!(table(&[conversation(), ended], 1_709_251_320_000).render(false), expected);
    }

    #[test]
    fn threads_are_rendered_in_order() {
        let handled = ThreadMessage { revision: Some("billing@2".to_owned()), ..message("handled") };
        let twice = ThreadMessage { runs: Some(2), ..handled.clone() };
        let dead = ThreadMessage { dead_letter: Some(9), text: None, bytes: 2_048, ..message("dead-letter") };
        let due = ThreadMessage { due_at: Some(1_709_251_300_000), text: Some(String::new()), ..message("waiting") };
        let thread = ConversationThread {
            id: "c-1".to_owned(),
            conversation: Some(conversation()),
            messages: vec![handled, twice, dead, due, message("waiting")],
            more: false,
            budgets: Vec::new(),
        };
        let expected = "\
conversation  c-1
state         open
initiator     triage
participants  billing, triage
protocol      fipa-contract-net
messages      7
first         2024-03-01T00:00:00.000Z (2m ago)
last          2024-03-01T00:01:00.000Z (1m ago)
unanswered    triage -> billing (k)

2024-03-01T00:00:00.000Z  triage -> billing  cfp  handled by billing@2
    a
    \\u{1b}[2J

2024-03-01T00:00:00.000Z  triage -> billing  cfp  handled by billing@2 in 2 runs (1 conflict)
    a
    \\u{1b}[2J

2024-03-01T00:00:00.000Z  triage -> billing  cfp  dead letter 9
    2.0 KiB of text/plain

2024-03-01T00:00:00.000Z  triage -> billing  cfp  waiting, due 2024-03-01T00:01:40.000Z

2024-03-01T00:00:00.000Z  triage -> billing  cfp  waiting
    a
    \\u{1b}[2J
";
        assert_eq!(render_thread(&thread, 1_709_251_320_000), expected);
        let with_budget = ConversationThread { budgets: vec![budget::tests::tree()], ..thread.clone() };
        let expected = format!("{expected}\n{}", budget::render(&budget::tests::tree(), false));
        assert_eq!(render_thread(&with_budget, 1_709_251_320_000), expected);
        assert!(retention_note(&thread).starts_with("5 messages of 7 said; kept are"), "{}", retention_note(&thread));
    }

    #[tokio::test]
    async fn ended_conversations_are_listed() {
        let bench = Bench::new(File::Good);
        let host = HostArgs { data: bench.serve().await, ..HostArgs::default() };
        let client = Client::find(&host).unwrap();
        let (context, now) = (&bench.context, clock::now_ms());
        for (name, ago) in [("old", 31 * 60_000), ("new", 60_000)] {
            let speech = |from, to, act| SpeechAct {
                from,
                to,
                act,
                protocol: None,
                id: "m-1",
                reply_with: None,
                in_reply_to: None,
                at: now - ago,
                is_call: false,
            };
            let all = &context.conversations;
            all.admit(name, &speech("triage", "desk", Performative::Inform)).unwrap();
            all.admit(name, &speech("desk", "triage", Performative::Request)).unwrap();
        }
        crate::directory::expire_conversations(&bench.directory);
        context.store.flush().await.unwrap();
        let list = |query: &'static str| client.get::<Vec<ConversationStatus>>(query);
        let found = list("/v1/conversations").await.unwrap();
        let states: Vec<_> = found.iter().map(|found| (found.id.as_str(), found.state.as_str())).collect();
        assert_eq!(states, [("new", "open"), ("old", "ended")]);
        assert_eq!((found[1].messages, found[1].unanswered.len()), (2, 1));
        assert_eq!(list("/v1/conversations?limit=1").await.unwrap(), found[..1]);
        assert_eq!(list("/v1/conversations?participant=desk").await.unwrap(), found);
        assert_eq!(list("/v1/conversations?participant=ledger").await.unwrap(), []);
        let thread: ConversationThread = client.get("/v1/conversations/old").await.unwrap();
        assert_eq!((thread.conversation.as_ref(), thread.messages.len()), (Some(&found[1]), 0));
        let error = client.get::<ConversationThread>("/v1/conversations/other").await.unwrap_err();
        assert_eq!(error.exit, Exit::NotFound);
        let message = "no conversation `other` is known; `caxton conversation ls` lists those that are";
        assert_eq!(error.message.as_deref(), Some(message));
    }
}
