//! `caxton events verify`: the check of the audit log.

use std::path::PathBuf;

use caxton_control::access::chain::ChainHead;
use clap::Subcommand;
use serde_json::json;

use super::options::Format;
use super::output::{CliError, Exit, Out, Style, count, count_of, printable, say};
use crate::access::{CheckedAudit, audit_path, verify_file};

/// The subcommands of `caxton events`.
#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// Check the chain of the audit log for lines that were changed, taken out or exchanged
    #[command(after_help = "\
The audit log is the file audit.jsonl of the data folder. Each line has the hash of the one before it, so that a line \
that was changed, taken out or exchanged is found, and named. A log that was cut off at its end, or written anew as a \
whole, verifies by itself: its head goes to the host's log every hour and at a stop, and --head says whether the file \
has it. No host has to run. Exit code 1 if there is a defect.

Examples:
  caxton events verify
  caxton events verify --head 12:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9
  caxton events verify --file copies/audit.jsonl -o json")]
    Verify {
        /// A head that the log has to have, as the host's log tells it: NUMBER:HASH
        #[arg(long, value_name = "HEAD")]
        head: Option<ChainHead>,
        /// The file, in place of the one in the data folder
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The data folder
        #[arg(long, env = "CAXTON_DATA", hide_env_values = true, default_value = ".caxton", value_name = "DIR")]
        data: PathBuf,
    },
}

/// Runs a subcommand.
pub(super) fn run(command: &EventsCommand, out: &mut Out) -> Result<(), CliError> {
    let EventsCommand::Verify { head, file, data } = command;
    let file = file.clone().or_else(|| audit_path(data)).ok_or_else(|| {
        let message = format!("there is no audit log in {}; a host makes it at its start", data.display());
        CliError::new(Exit::NotFound, message)
    })?;
    let checked = verify_file(&file, *head)
        .map_err(|error| CliError::new(Exit::Failed, format!("reading {}: {error}", file.display())))?;
    let CheckedAudit { verified, torn } = &checked;
    match out.format() {
        Format::Json => {
            let mut result = json!(verified);
            result["file"] = file.to_string_lossy().into();
            result["torn_bytes"] = (*torn).into();
            result["findings"] = verified
                .findings
                .iter()
                .map(|finding| {
                    let mut shown = json!(finding);
                    shown["what"] = finding.to_string().into();
                    shown
                })
                .collect();
            out.json(&result)?;
        }
        Format::Text => print(&checked, out)?,
    }
    // Quiet, since the findings were printed already.
    if verified.ok { Ok(()) } else { Err(CliError::quiet(Exit::Failed)) }
}

fn print(CheckedAudit { verified, torn }: &CheckedAudit, out: &mut Out) -> Result<(), CliError> {
    for finding in &verified.findings {
        let text = out.paint(&printable(&finding.to_string()), Style::Bad);
        out.line(&text)?;
    }
    if let Some(removed) = verified.removed {
        say(&format!("entries up to {} were removed by admin.audit-max", removed.number));
    }
    if *torn > 0 {
        say(&format!("the last line is not finished ({torn} bytes): a host writes it, or the next start takes it out"));
    }
    let entries = count_of(verified.entries, "entry", "entries");
    match (verified.ok, verified.head) {
        (true, None) => out.line("the audit log is empty"),
        (true, Some(head)) => out.line(&format!("the audit log is whole: {entries}, and its head is {head}")),
        (false, _) => {
            let defects = count(verified.findings.len(), "defect");
            say(&format!("the audit log is not what was written: {defects} in {entries}"));
            Ok(())
        }
    }
}
