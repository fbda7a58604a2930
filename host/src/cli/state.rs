//! `caxton state`.

use bytes::Bytes;
use caxton_control::units::parse_duration;
use clap::{Args, Subcommand};
use http::{Method, Response};
use serde_json::json;

use super::client::{Client, encode, query};
use super::content::read_content;
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Exit, Out, Table, count, printable, say};
use super::time::{rfc3339, size};
use crate::api_types::{StateKey, StatePage};

#[derive(Debug, Args)]
#[command(after_help = "\
Every change is recorded as an event.

Examples:
  caxton state ls counter
  caxton state ls ledger --prefix 2026/
  caxton state get counter total
  caxton state set counter total 0
  caxton state set desk greeting 'Closed today' --ttl 8h
  caxton state rm counter total")]
pub(super) struct StateArgs {
    #[command(subcommand)]
    pub(super) command: StateCommand,
}

/// The subcommands of `caxton state`.
#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// List the keys with the sizes of their values
    Ls {
        /// The agent
        agent: String,
        /// Only keys with this prefix
        #[arg(long, default_value = "")]
        prefix: String,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Print the value of a key
    Get {
        /// The agent
        agent: String,
        /// The key
        key: String,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Set a key
    Set {
        /// The agent
        agent: String,
        /// The key
        key: String,
        /// The value: text, @FILE, or - for standard input
        value: String,
        /// The time to live, such as 10m; without it the key does not expire
        #[arg(long, value_name = "TIME")]
        ttl: Option<String>,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Remove a key
    Rm {
        /// The agent
        agent: String,
        /// The key
        key: String,
        #[command(flatten)]
        host: HostArgs,
    },
}

/// Runs a subcommand.
pub(super) async fn run(command: StateCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        StateCommand::Ls { agent, prefix, host } => list(&agent, &prefix, &host, out).await,
        StateCommand::Get { agent, key, host } => {
            let path = path(&agent, &key);
            let response = Client::find(&host)?.send(Method::GET, &path, None, Bytes::new()).await?;
            show(&key, response, out)
        }
        StateCommand::Set { agent, key, value, ttl, host } => {
            // Checked here, so that the message names the flag.
            if let Some(ttl) = &ttl {
                parse_duration(ttl).map_err(|error| CliError::new(Exit::Usage, format!("--ttl: {error}")))?;
            }
            let value = read_content(Some(&value))?;
            let bytes = value.len();
            let client = Client::find(&host)?;
            let path = path(&agent, &key) + &query(&[("ttl", ttl.as_deref())]);
            client.send(Method::PUT, &path, Some("application/octet-stream"), value.into()).await?;
            let gone = ttl.map(|ttl| format!(", gone in {ttl}")).unwrap_or_default();
            done(&agent, &key, &format!("set ({}){gone}", size(bytes as u64)), out)
        }
        StateCommand::Rm { agent, key, host } => {
            Client::find(&host)?.send(Method::DELETE, &path(&agent, &key), None, Bytes::new()).await?;
            done(&agent, &key, "removed", out)
        }
    }
}

/// Prints a value, with its expiry as a message.
fn show(key: &str, response: Response<Bytes>, out: &mut Out) -> Result<(), CliError> {
    let expires_at = response.headers().get("caxton-expires-at").and_then(|at| at.to_str().ok()?.parse::<u64>().ok());
    let value = response.into_body();
    if out.format() == Format::Text {
        out.bytes(&value)?;
        // Only on a terminal: a pipe gets the bytes of the value and nothing else.
        if out.is_terminal() && !value.ends_with(b"\n") {
            out.bytes(b"\n")?;
        }
        if let Some(at) = expires_at {
            say(&format!("{} is gone at {}", printable(key), rfc3339(at)));
        }
        return Ok(());
    }
    let mut shown = json!({ "key": key, "bytes": value.len() });
    match std::str::from_utf8(&value) {
        Ok(text) => shown["value"] = text.into(),
        // JSON has no bytes.
        Err(_) => shown["value_hex"] = value.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
    if let Some(at) = expires_at {
        shown["expires_at"] = at.into();
    }
    out.json(&shown)
}

fn path(agent: &str, key: &str) -> String {
    format!("/v1/agents/{}/state/{}", encode(agent), encode(key))
}

fn done(agent: &str, key: &str, what: &str, out: &mut Out) -> Result<(), CliError> {
    match out.format() {
        Format::Json => out.json(&json!({ "agent": agent, "key": key })),
        Format::Text => {
            say(&format!("{agent}: {} {what}", printable(key)));
            Ok(())
        }
    }
}

/// Lists all keys, one page at a time.
async fn list(agent: &str, prefix: &str, host: &HostArgs, out: &mut Out) -> Result<(), CliError> {
    let client = Client::find(host)?;
    let mut keys: Vec<StateKey> = Vec::new();
    let mut after = None;
    let bytes = loop {
        let query = query(&[("prefix", Some(prefix)), ("after", after.as_deref()), ("limit", Some("1000"))]);
        let page: StatePage = client.get(&format!("/v1/agents/{}/state{query}", encode(agent))).await?;
        keys.extend(page.keys);
        // All pages are read, because the total and a table need every key.
        after = page.next;
        if after.is_none() {
            break page.bytes;
        }
    };
    if out.format() == Format::Json {
        return out.json(&json!({ "agent": agent, "keys": keys, "bytes": bytes }));
    }
    let mut table = Table::new(&["KEY", ">SIZE", "EXPIRES"]);
    for key in &keys {
        table.row(vec![
            Cell::new(printable(&key.key).replace('\n', "\\n")),
            Cell::new(size(key.bytes)),
            Cell::new(key.expires_at.map(rfc3339).unwrap_or_default()),
        ]);
    }
    if !keys.is_empty() {
        out.line(&table.render(out.is_terminal()))?;
    }
    say(&format!("{}; {agent} keeps {} in all", count(keys.len(), "key"), size(bytes)));
    Ok(())
}
