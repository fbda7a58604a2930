//! The program as people and scripts call it: what it prints where, and the code it ends with.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program, in a folder and without settings of the surroundings.
fn caxton(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caxton"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAXTON_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = caxton(folder, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A folder with this `caxton.toml`.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("caxton.toml"), text).unwrap();
    folder
}

#[test]
fn codes_tell_wrong_usage_from_failure() {
    let empty = tempfile::tempdir().unwrap();
    for (arguments, code, on_stderr) in [
        (&["--version"][..], 0, ""),
        (&["help", "invoke"], 0, ""),
        (&["version", "-o", "json"], 0, ""),
        (&[], 2, "Usage: caxton"),
        (&["chekc"], 2, "similar subcommand exists: 'check'"),
        (&["check", "--shcema"], 2, "similar argument exists: '--schema'"),
        (&["check"], 2, "there is no such file"),
        (&["ps"], 1, "no host runs here"),
        (&["ps", "--admin", "https://a"], 2, "through an SSH tunnel"),
        (&["ps", "--admin", "http://127.0.0.1:1"], 1, "the token .caxton/token cannot be used"),
        (&["invoke", "echo", "@nothing"], 1, "no host runs here"),
        (&["logs", "--tail", "1001"], 2, "1001 is not in 0..=1000"),
        (&["up", "--log", "loud"], 2, "`loud` is no log level; take one of"),
        (&["up"], 2, "there is no such file"),
        (&["compile-component", "nothing.wasm", "out", "plain"], 1, "No such file"),
    ] {
        let (found, _, stderr) = run(empty.path(), arguments);
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        assert!(stderr.contains(on_stderr), "{arguments:?}: {stderr}");
        assert!(code != 0 || stderr.is_empty(), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_file_with_errors_is_told_in_words_and_in_json() {
    let folder = folder("caxton = 1\n[agents.echo]\ncompnent = \"echo.wasm\"\n");
    let (code, stdout, stderr) = run(folder.path(), &["check"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("caxton.toml:3:1") && stderr.contains("component"), "{stderr}");
    assert!(!stderr.contains('\x1b'), "colours are for terminals");
    let (code, stdout, stderr) = run(folder.path(), &["check", "-o", "json"]);
    assert_eq!((code, stderr.as_str()), (2, ""));
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["valid"], false);
    let errors = found["errors"].as_array().unwrap();
    let unknown = errors.iter().find(|error| error["code"] == "unknown-key").unwrap();
    assert_eq!((&unknown["line"], &unknown["column"]), (&3.into(), &1.into()));
}

/// A component that exports nothing.
const EMPTY_COMPONENT: &str = "(component)";

#[test]
fn components_that_cannot_run_are_told_each_with_its_reason() {
    let bytes = wat::parse_str(EMPTY_COMPONENT).unwrap();
    let core = wat::parse_str("(module)").unwrap();
    let unknown = wat::parse_str(r#"(component (import "wasi:nn/graph@0.2.0" (instance)))"#).unwrap();
    let file: String = ["core", "empty", "folder", "missing", "none", "text", "unknown"]
        .iter()
        .map(|name| format!("[agents.{name}]\ncomponent = \"{name}.wasm\"\n"))
        .collect();
    let folder = folder(&format!("caxton = 1\n{file}"));
    for (name, bytes) in
        [("core", &core[..]), ("empty", &[]), ("none", &bytes), ("text", b"hello"), ("unknown", &unknown)]
    {
        std::fs::write(folder.path().join(format!("{name}.wasm")), bytes).unwrap();
    }
    std::fs::create_dir(folder.path().join("folder.wasm")).unwrap();
    let (code, stdout, stderr) = run(folder.path(), &["check"]);
    assert_eq!(code, 2);
    assert_eq!(stdout.lines().count(), 8, "{stdout}");
    let expected = "\
agents.core: the file is a core module, not a component (core-module); build for wasm32-wasip2, or wrap it with `wasm-tools component new`
agents.empty: the file is empty (empty); build it again, for the target wasm32-wasip2
agents.folder: the component folder.wasm is not a file (missing); mend the path
agents.missing: the component missing.wasm is not there (missing); build it (`caxton up --build`) or mend the path
agents.none: it exports nothing, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`) or wasi:http/incoming-handler@0.2.x
agents.text: the file is not WebAssembly (not-wasm); build it again, for the target wasm32-wasip2
agents.unknown: it imports wasi:nn/graph@0.2.0, which this host does not have (import-unknown); leave that import out, or satisfy it with another component (`wac plug`) before it comes here
agents.unknown: it exports nothing, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`) or wasi:http/incoming-handler@0.2.x
caxton.toml is valid, but 7 of 7 agents cannot run
";
    assert_eq!(stderr, expected);
    let (code, stdout, _) = run(folder.path(), &["check", "-o", "json"]);
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &found["agents"][0]["findings"][0]["code"]), (2, &"core-module".into()));
    let (code, _, stderr) = run(folder.path(), &["check", "--no-components"]);
    assert_eq!((code, stderr.as_str()), (0, "caxton.toml is valid: 7 agents\n"));
}

#[test]
fn what_needs_no_host_works_without_one() {
    let empty = tempfile::tempdir().unwrap();
    let (code, stdout, _) = run(empty.path(), &["wit"]);
    assert_eq!((code, stdout.as_str()), (0, include_str!("../../wit/agent.wit")));
    let (code, stdout, _) = run(empty.path(), &["check", "--schema"]);
    assert_eq!(code, 0);
    let schema: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(schema["title"], "caxton.toml");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, stdout, stderr) = run(empty.path(), &["completion", shell]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(stdout.contains("invoke") && stdout.contains("doctor"), "{shell}");
    }
    let (code, stdout, _) = run(empty.path(), &["doctor", "-o", "json"]);
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code == 0, found["ok"] == true);
    assert_eq!(found["findings"][0]["what"], "file");
}

#[test]
fn the_doctor_finds_what_a_host_would_stumble_over() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = folder(&format!(
        "caxton = 1\n[http]\nlisten = \"{address}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"caxton.toml/data\"\n"
    ));
    let (code, stdout, _) = run(folder.path(), &["doctor"]);
    assert_eq!(code, 1);
    let failed: Vec<&str> = stdout.lines().filter(|line| line.starts_with("fail")).collect();
    assert_eq!(failed.len(), 2, "{stdout}");
    assert!(failed[0].contains("data folder") && failed[1].contains("is in use by another program"), "{stdout}");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let empty = tempfile::tempdir().unwrap();
    for arguments in [&["wit", "--deps"][..], &["completion", "bash"], &["check", "--schema"], &["--help"]] {
        let mut child = caxton(empty.path(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
    }
}
