//! The arguments of the commands that operate what waits and what is kept.

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
