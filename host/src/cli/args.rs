//! The commands with their arguments and what their help says.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::telemetry::DEFAULT_FILTER;

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
  caxton doctor             what this machine has and lacks
  caxton check              what caxton.toml declares, or what is wrong with it
  caxton up                 run it
  caxton ps                 (in another terminal) what runs"
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) output: Output,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Output {
    /// How to print: text for people, JSON for programs
    #[arg(short = 'o', long = "output", value_enum, default_value = "text", global = true, value_name = "FORMAT")]
    pub(super) format: Format,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    // For people.
    Text,
    // For programs.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a host
    Up(Up),
    /// Check the file and the components that it names
    Check(Check),
    /// Say what the file would change in the running host
    Diff(Diff),
    /// Make the running host do what the file says, and wait for it
    Apply(Apply),
    /// List the agents, or show one
    Ps(Ps),
    /// Send a message to an agent and print its reply
    Invoke(Invoke),
    /// Send a message to an agent and do not wait
    Send(Send),
    /// Show what agents say
    Logs(Logs),
    /// Show what happened in the host
    Events(Events),
    /// Look at conversations and what was said in them
    Conversation(super::conversation::Args),
    /// Look at what agents get by the clock
    Schedule(super::schedule::Args),
    /// Look at what an agent keeps, and mend it
    State(super::state::State),
    /// Look at messages that were given up, redeliver or drop them
    Dead(super::operate::Dead),
    /// Look at mailboxes, let messages wait or go on
    Mailbox(super::operate::Mailbox),
    /// Look at rollouts, let them wait, go on or go back
    Rollout(super::rollout::Rollout),
    /// Let a component handle an agent's last messages on a copy
    Rehearse(super::rehearse::Rehearse),
    /// Look at the store, copy it, check it
    Store(super::operate::Store),
    /// Show what is measured of the host: rates, times, depths, memory
    Stats(super::operate::Stats),
    /// Print the contract between host and agents
    Wit(Wit),
    /// Check this machine for what a host and builds of agents need
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Print the version
    Version,
    /// Compile a component: what a host runs in a process of its own
    #[command(hide = true)]
    CompileComponent(CompileComponent),
}

/// Where the file is.
#[derive(Debug, Clone, Args)]
pub(super) struct FileArgs {
    /// The file that declares the agents
    #[arg(
        short = 'f',
        long = "file",
        env = "CAXTON_FILE",
        hide_env_values = true,
        default_value = "caxton.toml",
        value_name = "FILE"
    )]
    pub(super) file: PathBuf,
}

/// Where the host is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which host")]
pub(super) struct HostArgs {
    /// The data folder of a host on this machine
    #[arg(long, env = "CAXTON_DATA", hide_env_values = true, default_value = ".caxton", value_name = "DIR")]
    pub(super) data: PathBuf,
    /// The management API, such as http://127.0.0.1:8081, in place of what the data folder says
    #[arg(long, env = "CAXTON_ADMIN", hide_env_values = true, value_name = "URL")]
    pub(super) admin: Option<String>,
    /// The token's file, in place of the one in the data folder
    #[arg(long, env = "CAXTON_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
It runs until SIGTERM or Ctrl-C, then lets what is in hand finish; a second one ends it at once. It follows the \
file: save it, and what changed takes effect. SIGHUP makes it read everything again, also the one that comes when its \
terminal is lost: a host ends by nothing but SIGTERM and SIGINT. Nobody has to read what it says; lines that stderr does \
not take are dropped and counted. Under systemd it takes part in `Type=notify-reload` and `WatchdogSec=`. Exit code 1 when \
the memory of a stateful agent could not be saved at the end.

Compiled components are kept in the data folder as long as a revision needs them. With CAXTON_CACHE=DIR they are in \
DIR, which hosts of one user may share: there what no host has used for 30 days is removed, and nothing else.

Examples:
  caxton up
  caxton up --build --watch         build components first, and again when their sources change
  caxton up --listen 127.0.0.1:0 --admin 127.0.0.1:0 --ports-file ports.json")]
pub(super) struct Up {
    #[command(flatten)]
    pub(super) file: FileArgs,
    /// Where agents are called, in place of http.listen; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", overrides_with = "listen")]
    pub(super) listen: Option<String>,
    /// Where the management API is, in place of admin.listen
    #[arg(long, value_name = "ADDR", overrides_with = "admin")]
    pub(super) admin: Option<String>,
    /// Where probes and metrics alone are, in place of probes.listen
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
    /// Write where it listens to this file once the agents are ready: {"http":"…","admin":"…"}, and "probes" if there is one
    #[arg(long, value_name = "FILE", overrides_with = "ports_file")]
    pub(super) ports_file: Option<PathBuf>,
    /// What to say: off, error, warn, info, debug, trace, also for parts (info,caxton::store=debug)
    #[arg(long, env = "CAXTON_LOG", hide_env_values = true, default_value = DEFAULT_FILTER, value_name = "FILTER")]
    pub(super) log: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
All errors come at once, each with its line and what would be right. Exit code 2 when there are any.

Examples:
  caxton check
  caxton check --no-components           only the file, before anything is built
  caxton check --schema > caxton.schema.json")]
pub(super) struct Check {
    #[command(flatten)]
    pub(super) file: FileArgs,
    /// Leave the components alone
    #[arg(long)]
    pub(super) no_components: bool,
    /// Print a JSON schema of the file, for editors
    #[arg(long, conflicts_with = "no_components")]
    pub(super) schema: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The host reads its own file and compares it with what runs; nothing is changed. What the file already said and does \
not run is told too: `under-way` while the host is at it, or `missing` (its component), `failed` or `refused` until it \
is mended. Exit code 2 when the file has errors.

Examples:
  caxton diff
  caxton diff -o json | jq '.changes[] | select(.change == \"remove\")'")]
pub(super) struct Diff {
    #[command(flatten)]
    pub(super) host: HostArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A host follows its file by itself; this makes it look now, try again what failed, and waits until the rollouts that \
come of it have ended, wait for a person, or have all traffic and did well with it for 5 s; `caxton rollout watch` \
follows one to its end. Exit code 0 when everything is as declared, or, with --no-wait, on its way, 1 when something is not, 2 when the file has errors \
(nothing is changed then), 5 when it takes too long (the host goes on), 6 when a rollout was taken back or failed.

Examples:
  caxton apply
  caxton apply --timeout 30s
  caxton apply --no-wait")]
pub(super) struct Apply {
    /// How long to wait
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
pub(super) struct Ps {
    /// Show this agent in full
    #[arg(value_name = "AGENT")]
    pub(super) agent: Option<String>,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

/// A message.
#[derive(Debug, Clone, Args)]
pub(super) struct Message {
    /// Whom to send to
    #[arg(value_name = "AGENT")]
    pub(super) agent: String,
    /// The content: text, @FILE, or - for standard input; nothing when left out
    #[arg(value_name = "BODY")]
    pub(super) body: Option<String>,
    /// What the message means to do: one of the 22 acts of FIPA ACL
    #[arg(short, long, default_value = "request", value_name = "ACT")]
    pub(super) performative: String,
    /// The conversation it belongs to; left out begins one
    #[arg(short, long, value_name = "ID")]
    pub(super) conversation: Option<String>,
    /// The content's media type; left out: JSON if it is that, else text, else bytes
    #[arg(short = 't', long, value_name = "TYPE")]
    pub(super) content_type: Option<String>,
    /// The protocol it is part of
    #[arg(long, value_name = "NAME")]
    pub(super) protocol: Option<String>,
    /// The vocabulary of the content
    #[arg(long, value_name = "NAME")]
    pub(super) ontology: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The reply's content goes to standard output as it is; with -o json it comes with what else is known. Exit code 1 \
when the agent failed or refused, 3 when there is no such agent, 5 when it did not answer in time.

Examples:
  caxton invoke echo hello
  caxton invoke triage @ticket.json
  date | caxton invoke echo - --content-type text/plain
  caxton invoke counter -p query-ref -c visits -o json")]
pub(super) struct Invoke {
    #[command(flatten)]
    pub(super) message: Message,
    /// How long to wait for the reply
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
pub(super) struct Send {
    #[command(flatten)]
    pub(super) message: Message,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What an agent writes to standard output and error, logs, and what the host notes of its failures. All of it is \
also in the files logs/AGENT.log of the data folder; those of an agent that is gone are removed seven days after its \
last line.

Examples:
  caxton logs
  caxton logs triage -f
  caxton logs -f --tail 0 -o json        a line of JSON for each from now on")]
pub(super) struct Logs {
    /// Only what this agent says
    #[arg(value_name = "AGENT")]
    pub(super) agent: Option<String>,
    /// Go on with what comes, until Ctrl-C
    #[arg(short = 'f', long)]
    pub(super) follow: bool,
    /// The newest so many lines first
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(super) tail: u32,
    #[command(flatten)]
    pub(super) host: HostArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  caxton events
  caxton events triage -f
  caxton events --after 1200 -o json")]
pub(super) struct Events {
    /// Only this agent's
    #[arg(value_name = "AGENT")]
    pub(super) agent: Option<String>,
    /// Go on with what comes, until Ctrl-C
    #[arg(short = 'f', long)]
    pub(super) follow: bool,
    /// Those after this id, in place of the newest
    #[arg(long, value_name = "ID")]
    pub(super) after: Option<u64>,
    /// At most so many
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
pub(super) struct Wit {
    /// Print the packages that it uses, too
    #[arg(long, conflicts_with = "out")]
    pub(super) deps: bool,
    /// Write all of it as a folder for generators of bindings
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What is marked `warn` is needed only for some things, such as building agents in a certain language. Exit code 1 \
when something fails that a host needs.

Examples:
  caxton doctor
  caxton doctor -o json")]
pub(super) struct Doctor {
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
pub(super) struct Completion {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct CompileComponent {
    /// The component
    pub(super) input: PathBuf,
    /// The file to make
    pub(super) output: PathBuf,
    /// `fuel` to count instructions, else `plain`
    #[arg(value_parser = ["plain", "fuel"])]
    pub(super) engine: String,
}
