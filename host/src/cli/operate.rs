//! The arguments of the commands that operate what waits and what is kept.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::HostArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
A message becomes a dead letter when every attempt at it failed (mailbox.attempts), when it waited too long, when its \
agent rejected it, or when its agent was removed. Nothing is lost: mend what was wrong, and redeliver it. Exit code 3 \
when there is no such dead letter, 4 when its agent cannot take it now.

Examples:
  caxton dead ls --agent triage
  caxton dead show 1207                        what it says, and every attempt
  caxton dead redeliver 1207
  caxton dead redeliver --agent triage --revision triage@8
  caxton dead drop --reason expired
  caxton dead ls -o json | jq -r '.dead_letters[].number'")]
pub(super) struct Dead {
    #[command(subcommand)]
    pub(super) command: DeadCommand,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// List dead letters, those given up first first
    Ls {
        /// Only this agent's
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// Only those given up for this reason, such as attempts-exhausted, expired, invalid, agent-removed
        #[arg(long, value_name = "REASON")]
        reason: Option<String>,
        /// Only those after this number
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
        /// At most so many
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show one: what the message says, and every attempt with its error
    Show {
        /// Its number
        number: u64,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Let dead letters wait in their agents' mailboxes again
    Redeliver {
        #[command(flatten)]
        which: Which,
        /// Only if this revision runs, such as triage@8
        #[arg(long, value_name = "REVISION")]
        revision: Option<String>,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Drop dead letters, for good
    Drop {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        host: HostArgs,
    },
}

/// Which dead letters are meant: never all of them by accident.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Which {
    /// Their numbers
    #[arg(value_name = "NUMBER", conflicts_with_all = ["agent", "reason", "all"])]
    pub(super) numbers: Vec<u64>,
    /// Those of this agent
    #[arg(long, value_name = "AGENT")]
    pub(super) agent: Option<String>,
    /// Those given up for this reason
    #[arg(long, value_name = "REASON")]
    pub(super) reason: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["agent", "reason"])]
    pub(super) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A paused mailbox takes messages up to mailbox.depth and keeps them, also over a restart; nothing of it is handled \
until it is resumed. Who waits for an answer waits until the time is over.

Examples:
  caxton mailbox ls
  caxton mailbox pause triage
  caxton mailbox resume triage
  caxton mailbox ls -o json | jq -r '.[] | select(.held) | .agent'")]
pub(super) struct Mailbox {
    #[command(subcommand)]
    pub(super) command: MailboxCommand,
}

/// What to do with mailboxes.
#[derive(Debug, Subcommand)]
pub(super) enum MailboxCommand {
    /// List the mailboxes
    Ls {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Let an agent's messages wait
    Pause {
        /// Whose
        agent: String,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Let an agent's messages go on
    Resume {
        /// Whose
        agent: String,
        #[command(flatten)]
        host: HostArgs,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
A backup is what was committed at one moment; a host that runs goes on meanwhile. It needs as much room as the store \
in the data folder, for as long as it is made. With no host on the data folder these commands look at the store \
themselves; restore and compact need that.

Examples:
  caxton store show
  caxton store backup backups/monday.db
  caxton store check                            exit code 1 with what is wrong
  caxton store restore backups/monday.db --force
  caxton store compact")]
pub(super) struct Store {
    #[command(subcommand)]
    pub(super) command: StoreCommand,
}

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Say how large the store is, and of what
    Show {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Copy the whole store into a file
    Backup {
        /// The file to make
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Take the place of a file that is there
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Put a backup in the place of the store; no host may run on the data folder
    Restore {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Keep a store that is there as caxton.db.old, in place of an earlier one
        #[arg(long)]
        force: bool,
        /// The data folder
        #[arg(long, env = "CAXTON_DATA", hide_env_values = true, default_value = ".caxton", value_name = "DIR")]
        data: PathBuf,
    },
    /// Look through the whole store for damage, and for what does not agree
    Check {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Give room that the store does not use back to the system; no host may run on the data folder
    Compact {
        /// The data folder
        #[arg(long, env = "CAXTON_DATA", hide_env_values = true, default_value = ".caxton", value_name = "DIR")]
        data: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
All of it is measured; `-` stands for what was not. Rates are over the last five seconds, a delivery is from the \
acceptance of a message to the end of its handling, its commit included.

Examples:
  caxton stats
  caxton stats -o json | jq .messages.per_second")]
pub(super) struct Stats {
    #[command(flatten)]
    pub(super) host: HostArgs,
}
