//! Arguments of the commands for dead letters, mailboxes, the store and statistics.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::HostArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
A message becomes a dead letter when every attempt at it failed (mailbox.attempts), when it waited too long, when its \
agent rejected it, or when its agent was removed. Nothing is lost: fix the cause and redeliver it. Exit code 3 \
if there is no such dead letter, 4 if its agent cannot take it now.

Examples:
  caxton dead ls --agent triage
  caxton dead show 1207                        its content and all attempts
  caxton dead redeliver 1207
  caxton dead redeliver --agent triage --revision triage@8
  caxton dead drop --reason expired
  caxton dead ls -o json | jq -r '.dead_letters[].number'")]
pub(super) struct Dead {
    #[command(subcommand)]
    pub(super) command: DeadCommand,
}

/// The subcommands of `caxton dead`.
#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// List dead letters in the order in which they were given up
    Ls {
        /// Only those of this agent
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// Only those with this reason, such as attempts-exhausted, expired, invalid, agent-removed
        #[arg(long, value_name = "REASON")]
        reason: Option<String>,
        /// Only those after this number
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
        /// The most to list
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show one with its content and all attempts with their errors
    Show {
        /// The dead letter's number
        number: u64,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Put dead letters back into their agents' mailboxes
    Redeliver {
        #[command(flatten)]
        which: Which,
        /// Only if this revision runs, such as triage@8
        #[arg(long, value_name = "REVISION")]
        revision: Option<String>,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Drop dead letters for good
    Drop {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        host: HostArgs,
    },
}

/// The choice of dead letters. At least one is required, so that a forgotten argument never means all of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Which {
    /// The numbers
    #[arg(value_name = "NUMBER", conflicts_with_all = ["agent", "reason", "all"])]
    pub(super) numbers: Vec<u64>,
    /// Those of this agent
    #[arg(long, value_name = "AGENT")]
    pub(super) agent: Option<String>,
    /// Those with this reason
    #[arg(long, value_name = "REASON")]
    pub(super) reason: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["agent", "reason"])]
    pub(super) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A paused mailbox accepts messages up to mailbox.depth and keeps them, also over a restart; none is handled \
until it is resumed. A caller that waits for an answer waits until its timeout.

A timer is a message that waits for its time. One that is cancelled is not delivered, and nobody is told.

Examples:
  caxton mailbox ls
  caxton mailbox pause triage
  caxton mailbox resume triage
  caxton mailbox timers triage
  caxton mailbox cancel triage nightly
  caxton mailbox ls -o json | jq -r '.[] | select(.held) | .agent'")]
pub(super) struct Mailbox {
    #[command(subcommand)]
    pub(super) command: MailboxCommand,
}

/// The subcommands of `caxton mailbox`.
#[derive(Debug, Subcommand)]
pub(super) enum MailboxCommand {
    /// List the mailboxes
    Ls {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Hold an agent's messages
    Pause {
        /// The agent
        agent: String,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Release an agent's messages
    Resume {
        /// The agent
        agent: String,
        #[command(flatten)]
        host: HostArgs,
    },
    /// List an agent's timers: messages to it that wait for their due time, the next first
    Timers {
        /// The agent
        agent: String,
        /// Only timers after this position, as printed with the previous page
        #[arg(long, value_name = "PLACE")]
        after: Option<String>,
        /// The most to list
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Cancel a timer
    Cancel {
        /// The agent that it waits for
        agent: String,
        /// The id of its message, or its name
        #[arg(value_name = "ID|NAME")]
        timer: String,
        #[command(flatten)]
        host: HostArgs,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
A backup has the state of one moment; a running host goes on meanwhile. It needs as much free space as the store \
in the data folder while it is made. Without a host on the data folder these commands open the store \
directly; restore and compact only work so.

Examples:
  caxton store show
  caxton store backup backups/monday.db
  caxton store check                            exit code 1 if it has defects
  caxton store restore backups/monday.db --force
  caxton store compact")]
pub(super) struct Store {
    #[command(subcommand)]
    pub(super) command: StoreCommand,
}

/// The subcommands of `caxton store`.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Show the size of the store and of its parts
    Show {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Copy the whole store into a file
    Backup {
        /// The file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Replace the store by a backup; no host may run on the data folder
    Restore {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Keep an existing store as caxton.db.old, in place of an earlier one
        #[arg(long)]
        force: bool,
        /// The data folder
        #[arg(long, env = "CAXTON_DATA", hide_env_values = true, default_value = ".caxton", value_name = "DIR")]
        data: PathBuf,
    },
    /// Check the whole store for damage and inconsistencies
    Check {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Return unused space of the store to the system; no host may run on the data folder
    Compact {
        /// The data folder
        #[arg(long, env = "CAXTON_DATA", hide_env_values = true, default_value = ".caxton", value_name = "DIR")]
        data: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
All figures are measured; `-` stands for one that was not. Rates are over the last five seconds. A delivery is from the \
acceptance of a message to the end of its handling, its commit included.

Examples:
  caxton stats
  caxton stats -o json | jq .messages.per_second")]
pub(super) struct Stats {
    #[command(flatten)]
    pub(super) host: HostArgs,
}
