//! The command line.
//!
//! ```text
//! args (clap) -> mod: which command -> up: the host itself
//!                                      check, sign, doctor, wit, version: files and this machine
//!                                      all others: client -> management API -> print
//! ```
//! Results go to stdout as text or JSON, and all messages to stderr. Scripts can tell failures apart by the
//! [exit code](Exit).

mod args;
mod audit;
mod budget;
mod change;
mod check;
mod check_notes;
mod client;
mod content;
mod conversation;
mod dead;
mod doctor;
mod follow;
mod formats;
mod invoke;
mod machine;
mod mailbox;
mod options;
mod output;
mod ps;
mod rehearse;
mod rollout;
mod rollout_text;
mod rollout_view;
mod rollout_watch;
mod schedule;
mod sign;
mod sse;
mod state;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod time;
mod tls;
mod token;
mod up;
mod wit;

use std::future::Future;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command, CompileComponentArgs};
use options::Format;
use output::{CliError, Exit, Out};

/// The entry point of the program: parses the arguments, runs the command, and returns its exit code.
pub(crate) fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` are results, and go to stdout.
            if !error.use_stderr() {
                return match error.print() {
                    // Errors of printing the help: a closed pipe is fine, a full disk is not.
                    Err(failed) => CliError::from(failed).report(&mut Out::new(Format::Text)),
                    Ok(()) => ExitCode::SUCCESS,
                };
            }
            // An error of stderr cannot be reported anywhere.
            let _ = error.print();
            let format = if asks_for_json(std::env::args_os().skip(1)) { Format::Json } else { Format::Text };
            // Printed by clap already, so that only programs still need the text.
            let details = serde_json::json!({ "text": error.render().to_string() });
            return CliError::quiet(Exit::Usage).with_details(details).report(&mut Out::new(format));
        }
    };
    let mut out = Out::new(cli.output.format);
    match run(cli.command, &mut out) {
        Ok(code) => code,
        Err(error) => error.report(&mut out),
    }
}

/// Returns `true` if arguments that do not parse ask for JSON.
fn asks_for_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let arguments: Vec<_> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    // Searched by hand: arguments that do not parse have no parsed format.
    let joined = ["-ojson", "-o=json", "--output=json"];
    arguments.iter().any(|argument| joined.contains(&argument.as_str()))
        || arguments.windows(2).any(|pair| ["-o", "--output"].contains(&pair[0].as_str()) && pair[1] == "json")
}

/// Parses the arguments and the variables in place of them.
fn parse() -> Result<Cli, clap::Error> {
    let mut command = without_empty(Cli::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Makes empty variables count as not set: environment files of containers often have a name without a value.
fn without_empty(command: clap::Command) -> clap::Command {
    let is_empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty)
}

fn run(command: Command, out: &mut Out) -> Result<ExitCode, CliError> {
    match command {
        Command::Up(up) => return up::run(up, out),
        Command::CompileComponent(compile) => return Ok(compile_component(&compile)),
        Command::Check(check) => return check::run(&check, out),
        Command::Doctor(doctor) => return doctor::run(&doctor, out),
        Command::Diff(diff) => wait(change::diff(&diff, out))?,
        Command::Apply(apply) => return wait(change::apply(&apply, out)),
        Command::Ps(ps) => wait(ps::run(&ps, out))?,
        Command::Invoke(invoke) => return wait(invoke::invoke(&invoke, out)),
        Command::Send(send) => wait(invoke::send(&send, out))?,
        Command::Logs(logs) => wait(follow::logs(&logs, out))?,
        Command::Events(events) => match &events.command {
            Some(command) => audit::run(command, out)?,
            None => wait(follow::events(&events, out))?,
        },
        Command::Conversation(conversation) => wait(conversation::run(conversation.command, out))?,
        Command::Budget(budget) => wait(budget::run(budget.command, out))?,
        Command::Schedule(schedule) => wait(schedule::run(schedule.command, out))?,
        Command::State(state) => wait(state::run(state.command, out))?,
        Command::Dead(dead) => wait(dead::run(dead.command, out))?,
        Command::Mailbox(mailbox) => wait(mailbox::run(mailbox.command, out))?,
        Command::Rollout(rollout) => wait(rollout::run(rollout.command, out))?,
        Command::Rehearse(rehearse) => wait(rehearse::run(&rehearse, out))?,
        Command::Store(store) => wait(store::run(store.command, out))?,
        Command::Sign(sign) => sign::run(&sign, out)?,
        Command::Token(token) => wait(token::run(token.command, out))?,
        Command::Stats(stats) => wait(stats::run(&stats, out))?,
        Command::Wit(wit) => wit::run(&wit, out)?,
        Command::Completion(completion) => {
            let mut script = Vec::new();
            clap_complete::generate(completion.shell, &mut Cli::command(), "caxton", &mut script);
            out.bytes(&script)?;
        }
        Command::Version => version(out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that talks to a host. Ctrl-C ends it without a message.
fn wait<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    // A command makes few requests, and worker threads would only delay its start.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            _ = tokio::signal::ctrl_c() => Err(CliError::quiet(Exit::Interrupted)),
        }
    })
}

fn version(out: &mut Out) -> Result<(), CliError> {
    let (version, (engine, engine_version)) = (env!("CARGO_PKG_VERSION"), crate::wasm::ENGINE);
    match out.format() {
        Format::Text => out.line(&format!("caxton {version} ({engine} {engine_version})")),
        Format::Json => out.json(&serde_json::json!({ "version": version, (engine): engine_version })),
    }
}

fn compile_component(compile: &CompileComponentArgs) -> ExitCode {
    // This process is the child of a host: a crash, or too much memory, ends only the one compilation.
    match crate::wasm::compile_child(&compile.input, &compile.output, &compile.engine, compile.features.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::say(&why.to_string());
            ExitCode::FAILURE
        }
    }
}
