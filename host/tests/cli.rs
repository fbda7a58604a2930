//! The command line: standard output, standard error and exit codes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program, in a folder and without settings of the surroundings.
fn caxton(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caxton"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"CAXTON_") {
            command.env_remove(name);
        }
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
fn exit_codes_distinguish_wrong_usage_from_failure() {
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
        (&["ps", "--admin", "ftp://a"], 2, "it is no http address"),
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
fn errors_of_a_file_are_reported_as_text_and_as_json() {
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
fn components_that_cannot_run_are_reported_with_their_reasons() {
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
agents.none: it exports nothing, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`), wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.0
agents.text: the file is not WebAssembly (not-wasm); build it again, for the target wasm32-wasip2
agents.unknown: it imports wasi:nn/graph@0.2.0, which this host does not have (import-unknown); leave that import out, or satisfy it with another component (`wac plug`) before it comes here
agents.unknown: it exports nothing, which makes no agent (no-world); export caxton:agent/handler@0.1.0 (the contract: `caxton wit`), wasi:http/incoming-handler@0.2.x or wasi:http/handler@0.3.0
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
fn offline_commands_work_without_a_host() {
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
fn doctor_finds_the_obstacles_of_a_host() {
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
fn a_closed_pipe_is_not_a_failure() {
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

#[test]
fn no_environment_argument_or_path_makes_a_command_panic() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let latin = OsStr::from_bytes(b"caf\xe9");
    let outer = tempfile::tempdir().unwrap();
    let odd = outer.path().join(latin);
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join("caxton.toml"), "caxton = 1\n").unwrap();
    let run = |arguments: &[&OsStr], env: &[(&OsStr, &OsStr)]| {
        let found = caxton(&odd, &[]).env("PWD", &odd).args(arguments).envs(env.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&found.stderr).into_owned();
        assert!(!said.contains("panicked"), "{arguments:?} {env:?}: {said}");
        (found.status.code().unwrap(), said)
    };
    let os = OsStr::new;
    let in_odd = odd.join("caxton.toml");
    for (arguments, env, code, part) in [
        (&[os("check")][..], &[(latin, latin)][..], 0, "is valid"),
        (&[os("check"), os("-f"), in_odd.as_os_str()], &[], 0, "is valid"),
        (&[os("check"), os("-o"), os("json"), os("-f"), in_odd.as_os_str()], &[(os("OLDNAME"), latin)], 0, ""),
        (&[os("doctor"), os("--data"), latin], &[(latin, latin)], 0, ""),
        (&[os("doctor")], &[(os("CAXTON_DATA"), latin)], 0, ""),
        (&[os("wit"), os("--out"), latin, os("-o"), os("json")], &[], 0, ""),
        (&[os("ps"), os("--data"), latin], &[], 1, "no host runs here"),
        (&[os("invoke"), latin], &[], 2, "invalid UTF-8"),
        (&[latin], &[], 2, ""),
        (&[os("check")], &[(os("CAXTON_ADMIN_PORT"), os("tcp://10.43.0.8:8081"))], 0, "a service of the cluster"),
        (&[os("check")], &[(os("CAXTON_ADMN"), os("x"))], 0, "did you mean `CAXTON_ADMIN`?"),
        (&[os("check")], &[(os("CAXTON_HTTP__LISTN"), os("x"))], 2, "did you mean `listen`?"),
        (&[os("check")], &[(os("CAXTON_HTTP__LISTEN"), latin)], 2, "expected text in UTF-8, found other bytes"),
        (&[os("check")], &[(os("CAXTON_FILE"), os("")), (os("CAXTON_LOG"), os(""))], 0, "is valid"),
        (&[os("ps")], &[(os("CAXTON_ADMIN"), os("")), (os("CAXTON_TOKEN_FILE"), os(""))], 1, "no host runs here"),
        (&[os("ps")], &[(os("CAXTON_ADMIN"), latin)], 2, "invalid UTF-8"),
    ] {
        let (found, said) = run(arguments, env);
        // A machine may lack what a host needs, which doctor then says.
        if arguments[0] != os("doctor") {
            assert_eq!(found, code, "{arguments:?} {env:?}: {said}");
        }
        assert!(said.contains(part), "{arguments:?} {env:?}: {said}");
    }
}
