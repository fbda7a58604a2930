//! The output of the host and of commands without readers: neither the host nor a command needs a process that reads its output.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;

use caxton_tests::{Client, Host, PATIENCE, Setup};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use crate::{BINARY, agent, file, metric};

const DROPPED: &str = "caxton_host_lines_dropped_total";

fn rogue(version: &str) -> String {
    file(&agent("rogue", "rogue", &format!("config = {{ version = \"{version}\" }}")))
}

/// Prepares a host whose stdout and stderr are redirected by a shell.
fn setup_with_output_to(redirection: &str) -> Setup {
    Setup::new(BINARY, &rogue("1")).within(redirection)
}

/// A pipe of that name in the folder, with a reader that reads nothing.
fn pipe(setup: &Setup) -> File {
    let path = setup.folder().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe can be made");
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("it is small");
    OpenOptions::new().read(true).custom_flags(flags).open(path).expect("it can be opened")
}

/// Makes the host say much, and shows that it does all else as before.
fn check_responsive(host: &mut Host) {
    let client = host.client();
    for _ in 0..300 {
        assert_eq!(client.post("/rogue", r#"{"do":"print","stderr":"hello"}"#).status.as_u16(), 200);
    }
    client.post("/rogue", r#"{"do":"trap"}"#);
    for version in ["2", "3"] {
        host.edit(&rogue(version));
        let wanted = json!(format!("rogue@{version}"));
        host.until_agent("rogue", "the edit is followed", |status| status["revision"] == wanted);
        host.edit("caxton = 1\nx = 1\n");
        host.until("the error is seen", |host| (host.api().get("/v1/host").json()["in_sync"] == false).then_some(()));
        host.edit(&rogue(version));
        host.until("it is mended", |host| (host.api().get("/v1/host").json()["in_sync"] == true).then_some(()));
    }
    assert_eq!(host.client().post("/rogue", r#"{"do":"reply","text":"x"}"#).text(), "x");
}

fn stops(host: Host) {
    let (code, _) = host.stop();
    assert_eq!(code, 0);
}

#[test]
fn a_host_runs_without_a_reader_of_its_output() {
    // A disk that is full.
    let mut host = setup_with_output_to("exec >/dev/full 2>&1").start();
    check_responsive(&mut host);
    assert!(metric(&host, DROPPED) > 0, "what could not be written is counted");
    stops(host);
    // Nothing at all.
    let mut host = setup_with_output_to("exec >&- 2>&-").start();
    check_responsive(&mut host);
    stops(host);
}

#[test]
fn a_closed_pipe_does_not_end_the_host() {
    let setup = setup_with_output_to("exec >pipe 2>&1");
    let reader = pipe(&setup);
    let mut host = setup.start();
    drop(reader);
    check_responsive(&mut host);
    assert!(metric(&host, DROPPED) > 0, "what could not be written is counted");
    stops(host);
    // Before it is up, as of `caxton up 2>&1 | head -1`.
    let setup = setup_with_output_to("exec >pipe 2>&1");
    let reader = pipe(&setup);
    let host = setup.spawn();
    let flags = rustix::fs::fcntl_getfl(&reader).expect("it is open");
    rustix::fs::fcntl_setfl(&reader, flags - OFlags::NONBLOCK).expect("it is open");
    let mut line = String::new();
    let mut reader = BufReader::new(reader);
    let mut host = host;
    // A pipe that nobody has opened for writing yet is at its end.
    host.until("a line", |_| {
        reader.read_line(&mut line).expect("it can be read");
        (!line.is_empty()).then_some(())
    });
    drop(reader);
    host.until_ready();
    check_responsive(&mut host);
    stops(host);
}

#[test]
fn a_blocked_pipe_does_not_block_the_host() {
    // More than the pipe and the queue before it hold.
    let setup = setup_with_output_to("exec >pipe 2>&1").argument("--log").argument("trace");
    let _reader = pipe(&setup);
    let mut host = setup.start();
    host.until("lines are dropped", |host| {
        host.client().post("/rogue", r#"{"do":"print","stderr":"hello"}"#);
        (metric(host, DROPPED) > 0).then_some(())
    });
    check_responsive(&mut host);
    // Also the end of it waits for nobody.
    stops(host);
}

#[test]
fn a_lost_terminal_does_not_end_the_host() {
    let setup = Setup::new(BINARY, &rogue("1"));
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("the system has terminals");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("a terminal can be had");
    let name = ptsname(&terminal, Vec::new()).expect("it has a name");
    let path = std::ffi::OsStr::from_bytes(name.as_bytes());
    let open = || Stdio::from(OpenOptions::new().read(true).write(true).open(path).expect("it can be opened"));
    let folder = setup.folder().to_owned();
    let started = setup.command();
    // A session of its own, whose terminal this is: the system tells it of the loss with SIGHUP.
    let mut command = std::process::Command::new("setsid");
    command.arg("--ctty").arg(started.get_program()).args(started.get_args()).current_dir(&folder);
    for (name, value) in started.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.stdin(open()).stdout(open()).stderr(open()).spawn().expect("the host starts");
    drop(command);
    let ports = folder.join("ports.json");
    rustix::fs::fcntl_setfl(&terminal, OFlags::RDWR | OFlags::NONBLOCK).expect("it is open");
    let (mut terminal, mut said) = (File::from(terminal), [0; 1_000]);
    // Someone reads it until the host is up.
    let began = std::time::Instant::now();
    while !ports.exists() {
        assert!(began.elapsed() < PATIENCE, "the host starts");
        if terminal.read(&mut said).is_err() {
            caxton_tests::pause();
        }
    }
    let ports: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(ports).expect("it is written whole")).expect("it is JSON");
    drop(terminal);
    let client = Client::new(ports["http"].as_str().expect("an address"), None);
    let text = fs::read_to_string(folder.join("caxton.toml")).expect("it is there");
    fs::write(folder.join("new"), text.replace("version = \"1\"", "version = \"2\"")).expect("it can be written");
    fs::rename(folder.join("new"), folder.join("caxton.toml")).expect("it can be renamed");
    let began = std::time::Instant::now();
    while client.post("/rogue", r#"{"do":"none"}"#).header("caxton-revision") != "rogue@2" {
        assert!(began.elapsed() < PATIENCE && child.try_wait().expect("it can be asked").is_none(), "it goes on");
        caxton_tests::pause();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    assert_eq!(child.wait().expect("it can be waited for").code(), Some(0));
}

#[test]
fn a_command_with_a_closed_pipe_ends_quietly_with_its_exit_code() {
    let host = Setup::new(BINARY, &rogue("1")).start();
    for _ in 0..100 {
        host.client().post("/rogue", r#"{"do":"print","stderr":"a line of some length, to fill what a pipe holds"}"#);
    }
    fs::write(host.folder().join("bad.toml"), "caxton = 1\n[agents.a]\ncomponent = \"none.wasm\"\n").expect("a file");
    for (arguments, code) in [
        (&["logs", "--tail", "1000"][..], 0),
        (&["logs", "--tail", "1000", "-o", "json"], 0),
        (&["events", "--limit", "1000"], 0),
        (&["ps"], 0),
        (&["completion", "bash"], 0),
        (&["wit", "--deps"], 0),
        (&["check", "--schema"], 0),
        (&["apply", "-o", "json"], 0),
        (&["help"], 0),
        (&["check", "-f", "bad.toml", "-o", "json"], 2),
    ] {
        let mut child =
            host.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        // Nobody reads a byte.
        drop(child.stdout.take());
        let ended = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("writing the output"), "{arguments:?}: {said}");
    }
    for arguments in [
        &["ps"][..],
        &["logs"],
        &["events", "-o", "json"],
        &["wit"],
        &["completion", "zsh"],
        &["check", "--schema"],
        &["version"],
    ] {
        let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").expect("the system has it"));
        if arguments == ["logs"] {
            assert_eq!(
                host.command(arguments).stdout(full()).stderr(full()).status().expect("it ends").code(),
                Some(1)
            );
        }
        let ended = host.command(arguments).stdout(full()).output().expect("it ends");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("writing the output: No space left") && !said.contains("panicked"),
            "{arguments:?}: {said}"
        );
    }
}
