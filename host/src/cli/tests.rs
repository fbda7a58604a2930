//! Tests of the command line. `docs/cli.md` is generated from the help texts.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{CommandFactory, Parser};
use http::Method;
use serde_json::{Value, json};

use super::args::Cli;
use super::client::Client;
use super::options::HostArgs;
use super::output::Exit;
use crate::admin::tests::{Bench, File};
use crate::api_types::AgentStatus;
use crate::pages;

/// The introduction of the page.
const INTRO: &str = "\
# The command line

This page is generated from the help texts; a test compares the two (`UPDATE_GOLDEN=1 cargo test -p caxton`
writes it again).

Results go to standard output, messages to standard error; `-o json` prints results for programs. Commands that talk to
a host find it through its data folder (`--data`), or by `--admin` and `--token-file`. Colours appear on terminals only,
and not with `NO_COLOR`.

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed: the agent, the host, or something that a host needs |
| 2 | wrong usage, or a configuration with errors |
| 3 | not found: the agent, message or other object does not exist |
| 4 | conflict: the state of the object does not allow it |
| 5 | timeout |
| 6 | a rollout was rolled back |
| 130 | Ctrl-C |
| 141 | the reader closed the output (`| head`) before the end of what is followed (`rollout watch`) |
";

/// Writes the help of a command and of its subcommands.
fn write_help(page: &mut String, command: &mut clap::Command, level: usize) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.render_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    let _ = write!(page, "\n{} `{name}`\n\n```text\n{}\n```\n", "#".repeat(level), help.join("\n"));
    let below: Vec<String> = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set() && below.get_name() != "help")
        .map(|below| below.get_name().to_owned())
        .collect();
    for name in below {
        if let Some(below) = command.find_subcommand_mut(&name) {
            write_help(page, below, level + 1);
        }
    }
}

fn page() -> String {
    // Fixed, so that the page does not depend on the terminal's width.
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut page = INTRO.to_owned();
    write_help(&mut page, &mut command, 2);
    page
}

#[test]
fn commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn the_page_of_commands_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = page();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/cli.md is not up to date: write it with UPDATE_GOLDEN=1 cargo test -p caxton");
}

#[test]
fn commands_have_help_and_examples() {
    let mut command = Cli::command();
    command.build();
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let name = below.get_name();
        assert!(below.get_about().is_some(), "{name} does not say what it is for");
        let examples = below.get_after_help().map(ToString::to_string).unwrap_or_default();
        let plain = ["version", "compile-component"].contains(&name);
        assert!(plain || examples.contains(&format!("  caxton {name}")), "{name} has no example");
        for argument in below.get_arguments() {
            assert!(argument.get_help().is_some(), "{name}: {} is not explained", argument.get_id());
        }
    }
}

/// Checks that every command in the documentation and in examples of the help parses.
#[test]
fn commands_on_the_pages_are_taken() {
    let (mut wrong, mut taken) = (Vec::new(), 0);
    for page in &pages::pages() {
        for (line, command) in page.blocks().iter().flat_map(pages::Block::commands) {
            for words in pages::words(&command) {
                let Some(arguments) = pages::arguments_of_caxton(&words) else { continue };
                taken += 1;
                let error =
                    Cli::try_parse_from(std::iter::once("caxton").chain(arguments.iter().map(String::as_str))).err();
                if let Some(error) = error.filter(clap::Error::use_stderr) {
                    let why = error.to_string();
                    wrong.push(format!("{}:{line}: {command}: {}", page.path, why.lines().next().unwrap_or_default()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "commands that the program does not take:\n{}", wrong.join("\n"));
    assert!(taken > 80, "the pages have {taken} commands, or they are not found");
}

fn host_args(data: PathBuf) -> HostArgs {
    HostArgs { data, ..HostArgs::default() }
}

#[tokio::test]
async fn a_host_is_found_by_its_data_folder() {
    let bench = Bench::new(File::Bad);
    let data = bench.serve().await;
    let client = Client::find(&host_args(data.clone())).unwrap();
    let agent: AgentStatus = client.get("/v1/agents/echo").await.unwrap();
    assert_eq!(agent.name, "echo");

    let error = client.get::<Value>("/v1/agents/ecko").await.unwrap_err();
    assert_eq!(error.exit, Exit::NotFound);
    assert_eq!(error.message.as_deref(), Some("there is no agent `ecko`; did you mean `echo`?"));
    let error = client.json::<Value>(Method::POST, "/v1/config/apply").await.unwrap_err();
    assert_eq!(error.exit, Exit::Usage, "the configuration has errors");
    assert_eq!(
        error.message.as_deref(),
        Some(
            "the file has an error; nothing was changed; fix the file\n  caxton.toml:2:1: agnts: unknown key\n    did you mean `agents`?"
        )
    );

    let text = std::fs::read_to_string(data.join("host.json")).unwrap();
    let admin = serde_json::from_str::<Value>(&text).unwrap()["admin"].as_str().unwrap().to_owned();
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "f".repeat(64)).unwrap();
    let other = HostArgs {
        data: "/nowhere".into(),
        admin: Some(admin),
        token_file: Some(token.path().to_owned()),
        ..HostArgs::default()
    };
    let error = Client::find(&other).unwrap().get::<Value>("/v1/host").await.unwrap_err();
    assert!(error.message.unwrap().starts_with("the token is missing or wrong; "));
}

#[tokio::test]
async fn a_missing_host_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.json");
    let find = || Client::find(&host_args(folder.path().to_owned()));
    let error = find().err().unwrap();
    assert_eq!(error.exit, Exit::Failed);
    assert_eq!(
        error.message.unwrap(),
        format!(
            "no host runs here ({} is not there); start one with `caxton up`, or say where it is with `--data DIR` or `--admin URL`",
            file.display()
        )
    );
    // A host that was killed leaves its file behind.
    let bench = Bench::new(File::Good);
    let data = bench.serve().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    std::fs::write(&file, json!({ "admin": address, "pid": 7 }).to_string()).unwrap();
    std::fs::copy(data.join("token"), folder.path().join("token")).unwrap();
    let error = find().unwrap().get::<Value>("/v1/host").await.unwrap_err();
    let message = error.message.unwrap();
    assert!(message.starts_with(&format!("the host at http://{address} does not answer (")), "{message}");
    assert!(message.ends_with("); if process 7 has ended, start a host with `caxton up`; else say where it is with `--data DIR` or `--admin URL`"), "{message}");
}

#[tokio::test]
async fn streams_end_with_the_host() {
    let bench = Bench::new(File::Good);
    let client = Client::find(&host_args(bench.serve().await)).unwrap();
    let key = "/v1/agents/echo/state/a";
    client.send(Method::PUT, key, Some("text/plain"), Bytes::from_static(b"1")).await.unwrap();
    bench.context.store.flush().await.unwrap();
    let error = client.follow("/v1/logs?follow=maybe", |_| Ok(())).await.unwrap_err();
    assert_eq!(error.exit, Exit::Usage);
    let mut kinds = Vec::new();
    let followed = client.follow("/v1/events?follow=true", |frame| {
        let event: Value = serde_json::from_str(&frame.data).unwrap();
        kinds.push(event["kind"].as_str().unwrap().to_owned());
        match kinds.len() {
            1 => bench.context.events.emit(None, "test", json!({})),
            _ => bench.stop.cancel(),
        }
        Ok(())
    });
    followed.await.unwrap();
    assert_eq!(kinds, ["state.set", "test"]);
}
