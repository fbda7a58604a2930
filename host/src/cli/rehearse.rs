//! `caxton rehearse`.

use std::path::PathBuf;

use clap::Args;
use http::Method;

use super::client::{Client, encode, query};
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Exit, Out, Table, count, say};
use super::rollout_text::differences_table;
use crate::api_types::RehearsalResult;
use crate::wasm::MAX_COMPONENT;

#[derive(Debug, Args)]
#[command(after_help = "\
The component handles the messages with the agent's settings, on a copy of its current state and memory; \
its effects are dropped, and nothing is changed. `rollback.rehearse = N` keeps the last N messages of an agent \
for this, and rehearses each new revision with them before any traffic moves; without it, what the store has of the \
messages that were not calls is used. A message at which the running revision fails in the same way says nothing about \
the component and is set aside.

Its answers are compared with those of the running revision, which handles the same messages on another copy, where it is \
known what was answered then; what differs between two runs of the running revision is left out. Answers that differ are \
told, and are a failure where `rollback.match` is declared and fewer are alike.

Exit code 0 when no message failed, 1 when one did or too few were answered alike, 2 when the component cannot be used, 3 when there is no such agent \
or no message to rehearse with, 4 when another rehearsal is under way.

Examples:
  caxton rehearse triage --component components/dist/triage.wasm
  caxton rehearse triage --component new.wasm --messages 1000 -o json | jq '.failed[].message'
  caxton rehearse triage --component new.wasm -o json | jq '.differences[].differences'")]
pub(super) struct RehearseArgs {
    /// The agent whose messages are used
    #[arg(value_name = "AGENT")]
    agent: String,
    /// The component to rehearse
    #[arg(long, value_name = "FILE")]
    component: PathBuf,
    /// The number of latest messages, up to 10000; by default the number that the agent declares, or else 100
    #[arg(long, value_name = "NUMBER")]
    messages: Option<u32>,
    #[command(flatten)]
    host: HostArgs,
}

/// Rehearses a component and prints the result.
pub(super) async fn run(rehearse: &RehearseArgs, out: &mut Out) -> Result<(), CliError> {
    let file = rehearse.component.display();
    let unusable = |why: String| CliError::new(Exit::Usage, format!("the component {file}: {why}"));
    let size = std::fs::metadata(&rehearse.component).map_err(|error| unusable(error.to_string()))?.len();
    // Checked before the file is read, so that a huge one is not loaded.
    if size > MAX_COMPONENT {
        return Err(unusable(format!("it has {size} bytes, more than {MAX_COMPONENT}")));
    }
    let component = std::fs::read(&rehearse.component).map_err(|error| unusable(error.to_string()))?;
    let messages = rehearse.messages.map(|messages| messages.to_string());
    let path =
        format!("/v1/agents/{}/rehearse{}", encode(&rehearse.agent), query(&[("messages", messages.as_deref())]));
    let client = Client::find(&rehearse.host)?;
    let response = client.send(Method::POST, &path, Some("application/wasm"), component.into()).await?;
    let done: RehearsalResult = serde_json::from_slice(response.body()).map_err(anyhow::Error::from)?;
    match out.format() {
        Format::Json => out.json(&done)?,
        Format::Text => print(&done, out)?,
    }
    match (done.passed, done.messages, &done.unready) {
        // Success would look like a component that was tried.
        (true, 0, None) => {
            let why = format!(
                "there is no message to rehearse with; `agents.{}.rollback.rehearse = 100` keeps the last 100",
                done.agent
            );
            Err(CliError::new(Exit::NotFound, why))
        }
        (true, ..) => Ok(()),
        // Quiet, because the failures were printed above.
        (false, ..) => Err(CliError::quiet(Exit::Failed)),
    }
}

fn print(done: &RehearsalResult, out: &mut Out) -> Result<(), CliError> {
    if !done.failed.is_empty() {
        let mut table = Table::new(&["MESSAGE", "FAILED"]);
        done.failed.iter().for_each(|failed| table.row(vec![Cell::new(&failed.message), Cell::new(&failed.why)]));
        out.line(&table.render(out.is_terminal()))?;
    }
    if !done.differences.is_empty() {
        out.line(&differences_table(&done.differences).render(out.is_terminal()))?;
    }
    // A component that did not start has handled nothing that could be counted.
    if let Some(why) = &done.unready {
        say(&format!("it did not start: {why}"));
        return Ok(());
    }
    let messages = count(done.messages as usize, "message");
    let aside = match done.set_aside {
        0 => String::new(),
        aside => format!("; {aside} were set aside, because {} fails at them as well", done.stable),
    };
    say(&format!("it handled {} of the last {messages} of {}{aside}", done.handled, done.agent));
    if done.handled > 0 {
        let (compared, more) = (done.alike + done.otherwise, done.not_compared);
        let more = if more == 0 { String::new() } else { format!("; {more} could not be compared") };
        say(&format!("it answered {} of {compared} as {} does{more}", done.alike, done.stable));
    }
    if !done.by_nature.is_empty() {
        say(&format!("not compared, since it differs by nature: {}", done.by_nature.join(", ")));
    }
    if let Some(why) = &done.refused {
        say(&format!("it would be refused: {why}"));
    }
    Ok(())
}
