//! Inputs of hostile callers and guests, and the neighbours that notice nothing of them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use caxton_tests::{Host, PATIENCE};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;

use crate::{agent, file, host};

#[test]
fn a_caller_whose_messages_trap_stops_no_other_caller() {
    let host = host(&agent("rogue", "rogue", "breaker = { faults = 100 }\ninstances = { max = 2 }"));
    let client = host.client();
    for _ in 0..30 {
        assert_eq!(client.post("/rogue", r#"{"do":"trap"}"#).json()["code"], "trap");
        let other = client.post("/rogue", r#"{"do":"reply","text":"fine"}"#);
        assert_eq!(other.text(), "fine");
    }
    for _ in 0..12 {
        client.post("/rogue", r#"{"do":"trap"}"#);
    }
    assert_eq!(client.post("/rogue", r#"{"do":"reply","text":"fine"}"#).text(), "fine", "at once");
    assert_eq!(host.agent("rogue")["restarts_in_ms"], json!(null));
}

#[test]
fn more_random_bytes_than_allowed_have_a_code_of_their_own() {
    let host = host(&agent("rogue", "rogue", ""));
    let reply = host.client().post("/rogue", json!({ "do": "random-at-once", "bytes": 1 << 20 }).to_string());
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (500, &json!("random-exceeded")), "{}", reply.text());
}

/// Returns a component that has a component in itself, and so on.
fn nested(depth: usize) -> Vec<u8> {
    let header = b"\0asm\x0d\0\x01\0";
    let leb = |mut number: usize| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
            number >>= 7;
        }
        bytes.push(u8::try_from(number).expect("seven bits"));
        bytes
    };
    let mut lengths = vec![header.len()];
    for level in 0..depth {
        let inner = lengths[level];
        lengths.push(header.len() + 1 + leb(inner).len() + inner);
    }
    let mut bytes = Vec::new();
    for level in (0..depth).rev() {
        bytes.extend_from_slice(header);
        bytes.push(4);
        bytes.extend(leb(lengths[level]));
    }
    bytes.extend_from_slice(header);
    bytes
}

#[test]
fn a_component_of_nested_components_is_refused_and_delays_no_other_agent() {
    let mut host = host(&agent("echo", "echo", ""));
    fs::write(host.folder().join("nest.wasm"), nested(40_000)).expect("it can be written");
    let nest = "[agents.nest]\ncomponent = \"nest.wasm\"\n";
    host.edit(&file(&(agent("echo", "echo", "config = { a = \"2\" }\n") + nest)));
    host.until_agent("echo", "the other change is in force", |status| status["revision"] == "echo@2");
    host.until_agent("nest", "it is refused", |status| {
        status["revisions"][0]["reason"].as_str().is_some_and(|why| why.contains("levels of components in components"))
    });
    host.edit(&file(&agent("echo", "echo", "config = { a = \"2\" }\n")));
    host.until("it is gone", |host| (host.api().get("/v1/agents/nest").status.as_u16() == 404).then_some(()));
}

/// Sends bytes and returns all that comes back until the host closes the connection.
fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn paths_and_line_ends_are_those_of_the_rfcs() {
    let open = "[[agents.open.http]]\nroute = \"/open/{*rest}\"\nmethods = []\n";
    let shut = "[[agents.shut.http]]\nroute = \"/shut/{*rest}\"\nmethods = []\n";
    let host = host(&(agent("open", "web", "") + open + &agent("shut", "web", "") + shut + &agent("echo", "echo", "")));
    for (path, agent) in [
        ("/open/a", "open"),
        ("/open/../shut/a", "shut"),
        ("/open/%2e%2E/shut/a", "shut"),
        ("/open/./a/../../shut/", "shut"),
        ("/../open/a", "open"),
    ] {
        let answer =
            exchange(&host.http, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close, host\r\n\r\n"));
        assert!(answer.contains(&format!("caxton-agent: {agent}")), "{path}: {answer}");
    }
    // RFC 9112, section 2.2: a line feed alone may end a line, and a carriage return alone never does.
    let answer = exchange(&host.http, "GET /open/a HTTP/1.1\nhost: x\nconnection: close\n\n");
    assert!(answer.contains("caxton-agent: open"), "{answer}");
    for request in [
        "GET /open/a HTTP/1.1\r\nhost: x\rconnection: close\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n1;a=\nb\r\nx\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n1\nx\r\n0\r\n\r\n",
    ] {
        let answer = exchange(&host.http, request);
        assert!(!answer.contains("HTTP/1.1 200"), "{request:?}: {answer}");
    }
}

/// Collects the files in a folder that others can use.
fn open_to_others(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        if mode & 0o077 != 0 {
            found.push(format!("{} {mode:o}", path.display()));
        }
        if path.is_dir() {
            open_to_others(&path, found);
        }
    }
}

#[test]
fn everything_in_the_data_folder_is_private_whatever_the_folder_is() {
    let setup = caxton_tests::Setup::new(crate::BINARY, &file(&agent("rogue", "rogue", "")));
    let data = setup.folder().join(".caxton");
    fs::create_dir(&data).expect("it can be made");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let mut host = setup.start();
    host.client().post("/rogue", r#"{"do":"log","text":"hello"}"#);
    host.until("the log is written", |_| data.join("logs/rogue.log").is_file().then_some(()));
    let mut found = Vec::new();
    open_to_others(&data, &mut found);
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_command_line_escapes_what_turns_a_text_around() {
    let host = host(&agent("rogue", "rogue", ""));
    host.client().post("/rogue", json!({ "do": "log", "text": "safe\u{202e}txt.exe" }).to_string());
    for arguments in [&["logs", "rogue"][..], &["logs", "rogue", "-o", "json"]] {
        let (_, out, _) = host.caxton(arguments);
        assert!(out.contains("202e") && !out.contains('\u{202e}'), "{arguments:?}: {out}");
    }
}

#[test]
fn what_the_host_says_of_a_text_does_not_turn_around() {
    let mut host = host(&agent("rogue", "rogue", ""));
    let turned = "safe\u{202e}txt.exe";
    let reason = json!({ "do": "fail", "cause": "rejected", "reason": turned }).to_string();
    let refused = host.client().post("/rogue", reason);
    assert_eq!(refused.status.as_u16(), 422);
    // The text after it was decoded: a raw character would be shown by whatever shows the response.
    assert_eq!(refused.json()["detail"], "safe\\u{202e}txt.exe");
    host.edit(&file(&format!("{}\n\"{turned}\" = 1\n", agent("rogue", "rogue", ""))));
    let errors = host.until("the file is refused", |host| {
        let status = host.api().get("/v1/host");
        status.text().contains("unknown-key").then(|| status.text())
    });
    assert!(errors.contains("202e") && !errors.contains('\u{202e}'), "{errors}");
    let events = host.until("the event is written", |host| {
        let events = host.api().get("/v1/events?limit=1000").text();
        events.contains("config.refused").then_some(events)
    });
    assert!(events.contains("202e") && !events.contains('\u{202e}'), "{events}");
}

#[test]
fn a_host_that_cannot_commit_is_not_ready() {
    let mut host = host(&agent("counter", "counter", ""));
    let is_ready = |host: &mut Host, status: u16| {
        let reply = host.api().get("/readyz");
        (reply.status.as_u16() == status).then(|| reply.text())
    };
    host.until("it is ready", |host| is_ready(host, 200));
    // A bound on the size of files stands for a full disk.
    let bound = |host: &Host, current| {
        prlimit(Some(host.pid()), Resource::Fsize, Rlimit { current, maximum: None }).expect("the limit can be set");
    };
    bound(&host, Some(0));
    let began = Instant::now();
    let said = host.until("it is not ready", |host| is_ready(host, 503));
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
    assert!(said.contains("nothing can be committed"), "{said}");
    bound(&host, None);
    host.until("it is ready again", |host| is_ready(host, 200));
}
