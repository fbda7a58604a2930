//! `caxton diff` and `caxton apply`.

use std::process::ExitCode;

use http::Method;

use super::args::{Apply, Diff, Format};
use super::client::{Client, query};
use super::output::{CliError, Exit, Out, Style, printable, say};
use crate::status::{self, Applied, Change, Waiting};

/// Says what the file would change.
pub(super) async fn diff(diff: &Diff, out: &mut Out) -> Result<(), CliError> {
    let found: status::Diff = Client::find(&diff.host)?.get("/v1/config/diff").await?;
    match out.format() {
        Format::Json => out.json(&found),
        Format::Text if found.changes.is_empty() => {
            say("nothing would change: what runs is what the file says");
            Ok(())
        }
        Format::Text => print(&found.changes, out),
    }
}

/// Makes what runs what the file says.
pub(super) async fn apply(apply: &Apply, out: &mut Out) -> Result<ExitCode, CliError> {
    let client = Client::find(&apply.host)?;
    if out.format() == Format::Text && out.is_terminal() {
        say("waiting until everything is as declared ...");
    }
    let path = format!("/v1/config/apply{}", query(&[("timeout", Some(&apply.timeout))]));
    let applied: Applied = client.json(Method::POST, &path).await?;
    match out.format() {
        Format::Json => out.json(&applied)?,
        Format::Text => {
            print(&applied.changes, out)?;
            waiting(&applied.waiting);
            match (applied.settled, applied.changes.is_empty()) {
                (true, true) => say("nothing changed: what runs is what the file says"),
                (true, false) => say("everything is as declared"),
                (false, _) => say("not everything is as declared; `caxton ps` and `caxton logs` say more"),
            }
        }
    }
    if applied.settled { Ok(ExitCode::SUCCESS) } else { Err(CliError::quiet(Exit::Failed)) }
}

fn print(changes: &[Change], out: &mut Out) -> Result<(), CliError> {
    for change in changes {
        let (sign, style) = match change.change.as_str() {
            "add" => ("+", Style::Good),
            "remove" => ("-", Style::Bad),
            "restart-needed" => ("!", Style::Bad),
            _ => ("~", Style::Warn),
        };
        let whose = change.agent.as_deref().unwrap_or("host");
        out.line(&out.paint(&format!("{sign} {whose} ({})", change.change), style))?;
        for detail in &change.details {
            out.line(&format!("    {}", printable(detail)))?;
        }
    }
    Ok(())
}

/// Says what is not as declared.
pub(super) fn waiting(waiting: &[Waiting]) {
    for waiting in waiting {
        say(&format!("{}: {}", waiting.agent, printable(&waiting.why)));
    }
}
