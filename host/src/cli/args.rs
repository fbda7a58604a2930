//! The commands, their arguments and help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::audit::EventsCommand;
use super::budget::BudgetArgs;
use super::conversation::ConversationArgs;
use super::dead::DeadArgs;
use super::mailbox::MailboxArgs;
use super::options::{FileArgs, HostArgs, OutputArgs};
use super::rehearse::RehearseArgs;
use super::rollout::RolloutArgs;
use super::schedule::ScheduleArgs;
use super::sign::SignArgs;
use super::state::StateArgs;
use super::stats::StatsArgs;
use super::store::StoreArgs;
use super::token::TokenArgs;
use crate::telemetry::logging::DEFAULT_FILTER;

/// A host for agents: WebAssembly components with a mailbox and state, declared in one file
#[derive(Debug, Parser)]
#[command(
    name = "caxton",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found, 4 conflict, 5 timeout, 6 rolled back.
With `-o json` a failure is JSON too, on stdout, unless there is a result: {\"error\": {\"code\", \"message\", \"exit\", \"details\"}}.

Begin with:
  caxton doctor             check this machine
  caxton check              check caxton.toml
  caxton up                 run it
  caxton ps                 (in another terminal) list what runs"
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a host
    Up(UpArgs),
    /// Check the declaration and the components that it names
    Check(CheckArgs),
    /// Show what the declaration would change in the running host
    Diff(DiffArgs),
    /// Apply the declaration to the running host, and wait for it
    Apply(ApplyArgs),
    /// List the agents, or show one
    Ps(PsArgs),
    /// Send a message to an agent and print its reply
    Invoke(InvokeArgs),
    /// Send a message to an agent without waiting
    Send(SendArgs),
    /// Show agents' logs
    Logs(LogsArgs),
    /// Show events of the host
    Events(EventsArgs),
    /// Show conversations and their messages
    Conversation(ConversationArgs),
    /// Show what messages and calls have used of their budgets
    Budget(BudgetArgs),
    /// Show agents' schedules
    Schedule(ScheduleArgs),
    /// Show and change an agent's state
    State(StateArgs),
    /// Show, redeliver and drop dead letters
    Dead(DeadArgs),
    /// Show mailboxes and timers, hold and release their messages
    Mailbox(MailboxArgs),
    /// Show rollouts; pause, resume, promote, abort or undo them
    Rollout(RolloutArgs),
    /// Let a component handle copies of an agent's latest messages
    Rehearse(RehearseArgs),
    /// Show, back up, restore and check the store
    Store(StoreArgs),
    /// List, make, rotate and end the tokens of the management API
    Token(TokenArgs),
    /// Sign a component, or make a key for that
    Sign(SignArgs),
    /// Show statistics of the host: rates, times, depths, memory
    Stats(StatsArgs),
    /// Print the contract between host and agents
    Wit(WitArgs),
    /// Check this machine for what a host and builds of agents need
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Print the version
    Version,
    /// Compile a component; run by a host in a process of its own
    #[command(hide = true)]
    CompileComponent(CompileComponentArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Runs until SIGTERM or Ctrl-C, then finishes what is in flight; a second one ends it at once. It follows the \
file: save it, and the changes take effect. SIGHUP makes it read everything again, also when it comes because the \
terminal was closed: only SIGTERM and SIGINT end a host. Its log needs no reader; lines that stderr does \
not accept are dropped and counted. Under systemd it supports `Type=notify-reload` and `WatchdogSec=`. Exit code 1 if \
the memory of a stateful agent could not be saved at the end.

Compiled components are kept in the data folder as long as a revision needs them, or with CAXTON_CACHE=DIR in \
DIR, which hosts of one user may share: there only those are removed that no host has used for 30 days.

Examples:
  caxton up
  caxton up --build --watch         build components first, and again when their sources change
  caxton up --listen 127.0.0.1:0 --admin 127.0.0.1:0 --ports-file ports.json")]
pub(super) struct UpArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,
    /// The address for calls of agents, in place of http.listen; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", overrides_with = "listen")]
    pub(super) listen: Option<String>,
    /// The address of the management API, in place of admin.listen
    #[arg(long, value_name = "ADDR", overrides_with = "admin")]
    pub(super) admin: Option<String>,
    /// The address of a listener for probes and metrics alone, in place of probes.listen
    #[arg(long, value_name = "ADDR", overrides_with = "probes")]
    pub(super) probes: Option<String>,
    /// The data folder, in place of store.path
    #[arg(long, env = "CAXTON_DATA", hide_env_values = true, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Run the build commands of the agents first
    #[arg(long)]
    pub(super) build: bool,
    /// Run a build command again when its sources change
    #[arg(long)]
    pub(super) watch: bool,
    /// Write the addresses to this file once the agents are ready: {"http":"…","admin":"…"}, and "probes" if there is
    /// one
    #[arg(long, value_name = "FILE", overrides_with = "ports_file")]
    pub(super) ports_file: Option<PathBuf>,
    /// The log filter: off, error, warn, info, debug, trace, also for parts (info,caxton::store=debug)
    #[arg(long, env = "CAXTON_LOG", hide_env_values = true, default_value = DEFAULT_FILTER, value_name = "FILTER")]
    pub(super) log: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints all errors at once, each with its line and a suggestion. Exit code 2 if there are any.

Examples:
  caxton check
  caxton check --no-components           only the file, before anything is built
  caxton check --schema > caxton.schema.json")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,
    /// Do not check the components
    #[arg(long)]
    pub(super) no_components: bool,
    /// Print a JSON schema of the file, for editors
    #[arg(long, conflicts_with = "no_components")]
    pub(super) schema: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The host reads its own file and compares it with what runs; nothing is changed. A declared agent that does \
not run is listed too: as `under-way` while it starts, or as `missing` (its component), `failed` or `refused` until it \
is fixed. Exit code 2 if the file has errors.

Examples:
  caxton diff
  caxton diff -o json | jq '.changes[] | select(.change == \"remove\")'")]
pub(super) struct DiffArgs {
    #[command(flatten)]
    pub(super) host: HostArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A host follows its file by itself; this makes it read the file now, try again what failed, and waits until the rollouts that \
it starts have ended, wait for a person, or have had all traffic without failures for 5 s; `caxton rollout watch` \
follows one to its end. Exit code 0 if everything is as declared, or, with --no-wait, on its way, 1 if something is not, 2 if the file has errors \
(nothing is changed then), 5 after the timeout (the host goes on), 6 if a rollout was rolled back or failed.

Examples:
  caxton apply
  caxton apply --timeout 30s
  caxton apply --no-wait")]
pub(super) struct ApplyArgs {
    /// The longest time to wait
    #[arg(long, default_value = "5m", value_name = "TIME")]
    pub(super) timeout: String,
    /// Do not wait for rollouts that go on by time or messages
    #[arg(long)]
    pub(super) no_wait: bool,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  caxton ps
  caxton ps triage                       one agent, with its revisions
  caxton ps -o json | jq -r '.agents[] | select(.state != \"running\") | .name'")]
pub(super) struct PsArgs {
    /// Show this agent in full
    #[arg(value_name = "AGENT")]
    pub(super) agent: Option<String>,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

/// The arguments of a message.
#[derive(Debug, Clone, Args)]
pub(super) struct MessageArgs {
    /// The receiver
    #[arg(value_name = "AGENT")]
    pub(super) agent: String,
    /// The content: text, @FILE, or - for standard input; empty by default
    #[arg(value_name = "BODY")]
    pub(super) body: Option<String>,
    /// The communicative act, one of the 22 of FIPA ACL
    #[arg(short, long, default_value = "request", value_name = "ACT")]
    pub(super) performative: String,
    /// The conversation it belongs to; a new one by default
    #[arg(short, long, value_name = "ID")]
    pub(super) conversation: Option<String>,
    /// The content's media type; by default JSON, text or bytes, by the content
    #[arg(short = 't', long, value_name = "TYPE")]
    pub(super) content_type: Option<String>,
    /// The interaction protocol it is part of
    #[arg(long, value_name = "NAME")]
    pub(super) protocol: Option<String>,
    /// The vocabulary of the content
    #[arg(long, value_name = "NAME")]
    pub(super) ontology: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the content of the reply unchanged; with -o json all fields of the reply. Exit code 1 \
if the agent failed or refused, 3 if there is no such agent, 5 if it did not answer in time.

Examples:
  caxton invoke echo hello
  caxton invoke triage @ticket.json
  date | caxton invoke echo - --content-type text/plain
  caxton invoke counter -p query-ref -c visits -o json")]
pub(super) struct InvokeArgs {
    #[command(flatten)]
    pub(super) message: MessageArgs,
    /// The longest time to wait for the reply
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub(super) timeout: String,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the message's id once it is in the mailbox.

Examples:
  caxton send ledger '{\"entry\": 7}'
  caxton send archive @report.pdf -t application/pdf -p inform")]
pub(super) struct SendArgs {
    #[command(flatten)]
    pub(super) message: MessageArgs,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints what agents write to standard output and error, what they log, and the host's notes on their failures. All of it is \
also in the files logs/AGENT.log of the data folder; those of a removed agent are deleted seven days after its \
last line.

Examples:
  caxton logs
  caxton logs triage -f
  caxton logs -f --tail 0 -o json        each new line as JSON")]
pub(super) struct LogsArgs {
    /// Only lines of this agent
    #[arg(value_name = "AGENT")]
    pub(super) agent: Option<String>,
    /// Go on with new lines, until Ctrl-C
    #[arg(short = 'f', long)]
    pub(super) follow: bool,
    /// Start with this many of the newest lines
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(super) tail: u32,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  caxton events
  caxton events triage -f
  caxton events --after 1200 -o json
  caxton events verify                  the audit log, in which every change by a token is recorded"
)]
pub(super) struct EventsArgs {
    #[command(subcommand)]
    pub(super) command: Option<EventsCommand>,
    /// Only events of this agent
    #[arg(value_name = "AGENT")]
    pub(super) agent: Option<String>,
    /// Go on with new events, until Ctrl-C
    #[arg(short = 'f', long)]
    pub(super) follow: bool,
    /// Start after this id instead of with the newest
    #[arg(long, value_name = "ID")]
    pub(super) after: Option<u64>,
    /// The most to list
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  caxton wit
  caxton wit --out wit              a folder to give to wit-bindgen, componentize-py and others")]
pub(super) struct WitArgs {
    /// Print the packages that it uses, too
    #[arg(long, conflicts_with = "out")]
    pub(super) deps: bool,
    /// Write it as a folder for binding generators
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Findings marked `warn` matter only for some purposes, such as building agents in a certain language. Exit code 1 \
if something is missing that a host needs.

Examples:
  caxton doctor
  caxton doctor -o json")]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,
    /// The data folder, in place of store.path
    #[arg(long, env = "CAXTON_DATA", hide_env_values = true, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  caxton completion bash > /etc/bash_completion.d/caxton
  caxton completion zsh > \"${fpath[1]}/_caxton\"
  caxton completion fish > ~/.config/fish/completions/caxton.fish")]
pub(super) struct CompletionArgs {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct CompileComponentArgs {
    /// The component
    pub(super) input: PathBuf,
    /// The file to write
    pub(super) output: PathBuf,
    /// The engine that is to run it: `plain`, `fuel` to count instructions, `async` for components of WASI 0.3, or
    /// `async-fuel`; `inspect` to compile nothing
    #[arg(value_parser = ["plain", "fuel", "async", "async-fuel", "inspect"])]
    pub(super) engine: String,
    /// For `inspect`: the proposals of WebAssembly that it may use
    pub(super) features: Option<String>,
}
