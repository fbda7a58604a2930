//! Tokens and roles, over real sockets and with the real commands.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use caxton_tests::{Client, Host, Setup};
use http::Method;

use crate::{BINARY, agent, file, host};

/// Makes a token with the command of the running host, and returns its text.
fn token(host: &Host, name: &str, role: &str) -> String {
    let (code, out, err) = host.caxton(&["token", "make", name, "--role", role]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains(&format!("the token {name} ({role})")), "{err}");
    out.trim().to_owned()
}

#[test]
fn tokens_are_handed_out_by_role_and_taken_back() {
    let mut host = host(&agent("echo", "echo", ""));
    let (code, _, err) = host.caxton(&["token", "make", "dashboard", "--role", "read", "--out", "read.token"]);
    assert_eq!(code, 0, "{err}");
    let path = host.folder().join("read.token");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let with = |host: &Host, arguments: &[&str]| host.caxton(&[arguments, &["--token-file", "read.token"]].concat());
    assert_eq!(with(&host, &["ps"]).0, 0);
    // What the role does not have is refused, with the role that has it.
    for (command, role) in [
        (&["invoke", "echo", "hello"][..], "operate"),
        (&["logs"], "operate"),
        (&["state", "ls", "echo"], "operate"),
        (&["dead", "ls"], "operate"),
        (&["apply"], "admin"),
        (&["token", "ls"], "admin"),
    ] {
        let (code, _, err) = with(&host, command);
        assert_eq!(code, 1, "{command:?}: {err}");
        let needed = format!("needs a token with the role `{role}`; `dashboard` has `read`");
        assert!(err.contains(&needed), "{command:?}: {err}");
    }
    let operate = token(&host, "ci", "operate");
    let ci = Client::new(&host.admin, Some(&operate));
    assert_eq!(ci.post("/v1/agents/echo/invoke", "hello").text(), "hello");
    assert_eq!(ci.post("/v1/config/apply", "").json()["code"], "role-needed");
    // Events tell who it was.
    let (code, _, err) = host.caxton(&["state", "set", "echo", "key", "value"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(ci.send(Method::PUT, "/v1/agents/echo/state/key", &[], "x").status, 204);
    // An event is told once it is durable, which may be after the answer.
    host.until("both events", |_| {
        let events = ci.get("/v1/events?agent=echo").json();
        let by: Vec<&str> =
            events.as_array().unwrap().iter().filter_map(|event| event["data"]["by"].as_str()).collect();
        (by == ["cli:local", "api:ci"]).then_some(())
    });

    let (code, out, _) = host.caxton(&["token", "ls", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap()).collect();
    assert_eq!((code, names), (0, vec!["ci", "dashboard", "local"]));
    let (code, out, err) = host.caxton(&["token", "rotate", "ci"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(ci.get("/v1/agents").status, 401);
    let ci = Client::new(&host.admin, Some(out.trim()));
    assert_eq!(ci.get("/v1/agents").status, 200);
    assert_eq!(host.caxton(&["token", "end", "dashboard"]).0, 0);
    assert_eq!(with(&host, &["ps"]).0, 1);
    assert_eq!(host.caxton(&["token", "end", "dashboard"]).0, 3, "not found");
    assert_eq!(host.caxton(&["token", "end", "local"]).0, 4, "a conflict");

    // They are as they were after a crash.
    let text = out.trim().to_owned();
    let host = host.kill().start();
    assert_eq!(Client::new(&host.admin, Some(&text)).get("/v1/agents").status, 200);
    let kept = fs::read_to_string(host.folder().join(".caxton/tokens.json")).unwrap();
    assert!(!kept.contains(&text), "the text of a token is kept nowhere");
    let mode = fs::metadata(host.folder().join(".caxton/tokens.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn tokens_are_made_and_ended_without_a_host() {
    let setup = Setup::new(BINARY, &file(&agent("echo", "echo", "")));
    assert_eq!(setup.caxton(&["token", "ls"]).0, 3, "a look makes no data folder");
    assert!(!setup.folder().join(".caxton").exists());
    let (code, out, err) = setup.caxton(&["token", "make", "ci", "--role", "operate", "--expires", "1h"]);
    assert_eq!(code, 0, "{err}");
    let host = setup.start();
    let ci = Client::new(&host.admin, Some(out.trim()));
    assert_eq!(ci.post("/v1/agents/echo/invoke", "hello").text(), "hello");
    let (_, setup) = host.stop();
    assert_eq!(setup.caxton(&["token", "end", "ci"]).0, 0);
    let (_, local, _) = setup.caxton(&["token", "rotate", "local"]);
    let host = setup.start();
    assert_eq!(Client::new(&host.admin, Some(out.trim())).get("/v1/agents").status, 401);
    assert_eq!(Client::new(&host.admin, Some(local.trim())).get("/v1/tokens").status, 200);
    assert_eq!(host.caxton(&["ps"]).0, 0, "the commands find the new one in its file");
    for (arguments, expected) in [
        (&["token", "make", "CI", "--role", "read"][..], "lower-case letters"),
        (&["token", "make", "ci", "--role", "root"], "there is no role `root`"),
        (&["token", "make", "ci", "--role", "read", "--expires", "1d"], "there is no unit `d`"),
        (&["token", "make", "ci", "--role", "read", "--expires", "0s"], "a token lives from 1ms to"),
    ] {
        let (code, _, err) = host.caxton(arguments);
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}

#[test]
fn wrong_tokens_are_held_back_and_right_ones_are_not() {
    let host = host(&agent("echo", "echo", ""));
    let wrong = Client::new(&host.admin, Some(&"0".repeat(64)));
    let first = (0..).map(|_| wrong.get("/v1/agents")).find(|reply| reply.status != 401).unwrap();
    assert_eq!(first.status, 429);
    assert_eq!(first.json()["code"], "too-many-requests");
    let wait: u64 = first.header("retry-after").parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    assert_eq!(host.api().get("/v1/agents").status, 200, "a right token from the same address");
}

/// Returns the entries of the audit log.
fn entries(host: &Host) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(host.folder().join(".caxton/audit.jsonl")).expect("the host has made it");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The head of the audit log that the host's log told last.
fn told_head(output: &str) -> String {
    let (_, head) = output.rsplit_once("the head of the audit log is ").expect("the head was told");
    head.split(|c: char| !c.is_ascii_hexdigit() && c != ':').next().expect("a text has a first part").to_owned()
}

#[test]
fn changes_are_recorded_before_they_act_and_with_their_result() {
    let host = host(&agent("echo", "echo", ""));
    let read = token(&host, "dashboard", "read");
    assert_eq!(host.api().send(Method::PUT, "/v1/agents/echo/state/a%2Fb", &[], "1").status, 204);
    assert_eq!(host.api().post("/v1/mailboxes/nobody/pause", "").status, 404);
    assert_eq!(Client::new(&host.admin, Some(&read)).post("/v1/config/apply", "").status, 403);
    assert_eq!(Client::new(&host.admin, Some("wrong")).post("/v1/config/apply", "").status, 401);
    assert_eq!(host.api().get("/v1/agents").status, 200, "a look is not recorded");
    let entries = entries(&host);
    let shown: Vec<String> = entries
        .iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
            let status = entry["status"].as_u64().map_or_else(String::new, |status| status.to_string());
            let of = entry["of"].as_u64().map_or_else(String::new, |of| of.to_string());
            format!("{} {} {} {} {of}{status}", text("kind"), text("by"), text("method"), text("target"))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "asked local POST /v1/tokens/dashboard?role=read ",
            "answered - - - 1201",
            "asked local PUT /v1/agents/echo/state/a%2Fb ",
            "answered - - - 3204",
            "asked local POST /v1/mailboxes/nobody/pause ",
            "answered - - - 5404",
            "refused dashboard POST /v1/config/apply 403",
            "refused - POST /v1/config/apply 401",
        ]
    );
    assert_eq!(
        (&entries[2]["route"], &entries[2]["from"]),
        (&"/v1/agents/{name}/state/{key}".into(), &"127.0.0.1".into())
    );
    let path = host.folder().join(".caxton/audit.jsonl");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_audit_log_tells_what_was_done_to_it() {
    let host = host(&agent("echo", "echo", ""));
    for key in ["a", "b", "c"] {
        assert_eq!(host.caxton(&["state", "set", "echo", key, "1"]).0, 0);
    }
    let (code, out, err) = host.caxton(&["events", "verify"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("the audit log is whole: 6 entries, and its head is 6:"), "{out}");
    let mut host = host;
    host.signal(rustix::process::Signal::TERM);
    host.ended();
    let head = told_head(&host.output());
    assert!(head.starts_with("6:"), "{head}");
    let path = host.folder().join(".caxton/audit.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        host.caxton(&["events", "verify", "--head", &head])
    };
    assert_eq!(changed(&|_| {}).0, 0);
    for (change, expected) in [
        (
            (&|lines: &mut Vec<String>| lines[2] = lines[2].replace("local", "other")) as &dyn Fn(&mut Vec<String>),
            "line 3 was changed",
        ),
        (&|lines| drop(lines.remove(3)), "entry 4 is missing before line 4"),
        (&|lines| lines.swap(1, 4), "line 2 was exchanged: entry 5 stands there"),
        (&|lines| lines.truncate(4), "the log ends with entry 4"),
    ] {
        let (code, out, err) = changed(change);
        assert_eq!(code, 1, "{expected}: {out}{err}");
        assert!(out.contains(expected), "{expected}: {out}{err}");
    }
    // A host that was killed in the middle of a line takes it out, and says so.
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    let host = host.again().start();
    host.until_output("the last line was torn");
    let (code, out, err) = host.caxton(&["events", "verify", "-o", "json"]);
    let verified: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &verified["ok"], &verified["entries"]), (0, &true.into(), &6.into()), "{out}{err}");
    assert_eq!(entries(&host)[5]["kind"], "repaired");
    assert_eq!(host.caxton(&["events", "verify", "--head", "nonsense"]).0, 2);
}

#[test]
fn requests_without_a_record_are_refused() {
    // Without the signal that a file beyond its limit raises, the write fails as on a full disk.
    let host = Setup::new(BINARY, &file(&agent("echo", "echo", ""))).within("trap '' XFSZ").start();
    assert_eq!(host.api().post("/v1/mailboxes/echo/pause", "").status, 200);
    // A limit of the file's size is what a full disk is to one file.
    let limit = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::prlimit(Some(host.pid()), rustix::process::Resource::Fsize, limit).unwrap();
    let refused = host.api().post("/v1/mailboxes/echo/resume", "");
    assert_eq!((refused.status.as_u16(), refused.json()["code"].as_str()), (503, Some("not-audited")));
    assert_eq!(host.api().get("/v1/mailboxes").json()[0]["held"], true, "nothing was done");
    let (code, out, err) = host.caxton(&["events", "verify"]);
    assert_eq!(code, 0, "{out}{err}");
}
