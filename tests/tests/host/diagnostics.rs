//! The diagnostics of a failing guest: its last words on stderr, the backtrace, and the imports that it was denied.

use caxton_tests::{Client, Host, Setup};
use http::Method;
use serde_json::{Value, json};

use crate::{BINARY, agent, file, host};

/// Returns the lines that the host wrote into an agent's log.
fn host_log_lines(host: &Host, name: &str) -> Vec<String> {
    let (code, log, stderr) = host.caxton(&["logs", name, "--tail", "1000", "-o", "json"]);
    assert_eq!(code, 0, "{stderr}");
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let of_host = lines.filter(|line| line["context"] == "caxton");
    of_host.map(|line| line["text"].as_str().expect("a text").to_owned()).collect()
}

const TRAP: &str = r#"{"do":"trap"}"#;

#[test]
fn invoke_shows_stderr_the_message_and_the_log() {
    let host = host(&agent("rogue", "rogue", ""));
    let (code, stdout, stderr) = host.caxton(&["invoke", "rogue", TRAP]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    for part in ["trapped: ", "it said on stderr", "panicked at", "`caxton logs rogue`"] {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
    let (code, stdout, _) = host.caxton(&["invoke", "rogue", TRAP, "-o", "json"]);
    let error: Value = serde_json::from_str(&stdout).expect("JSON on failure too");
    let error = &error["error"];
    assert_eq!((code, &error["code"], &error["exit"]), (1, &json!("trap"), &json!(1)), "{error}");
    let details = &error["details"];
    assert!(details["stderr"].as_str().is_some_and(|words| words.contains("panicked at")), "{details}");
    assert!(details["backtrace"].as_str().is_some_and(|frames| frames.starts_with("0: ")), "{details}");
    assert_eq!(details["agent"], "rogue");
    let id = details["message_id"].as_str().expect("the message").to_owned();
    // The words of one call are not told of the next.
    let (_, stdout, _) =
        host.caxton(&["invoke", "rogue", r#"{"do":"fail","cause":"fault","reason":"mine"}"#, "-o", "json"]);
    let error: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(error["error"]["details"]["stderr"], Value::Null, "{error}");
    // Both logs name whom and what it is about.
    host.until_output(&id);
    let said = host.output();
    let line = said.lines().find(|line| line.contains(&id)).expect("a line of the host");
    assert!(line.contains("rogue"), "{line}");
    assert!(host_log_lines(&host, "rogue").iter().any(|text| text.contains(&id) && text.contains("trapped: ")));
}

#[test]
fn a_backtrace_has_names_as_their_source_has_them() {
    let host = host(&agent("rogue", "rogue", ""));
    host.caxton(&["invoke", "rogue", TRAP]);
    let (_, log, _) = host.caxton(&["logs", "rogue"]);
    assert!(log.contains("core::panicking::") || log.contains("std::panicking::"), "{log}");
    assert!(!log.contains("_ZN") && !log.contains("!_R"), "{log}");
}

#[test]
fn failures_are_json_for_clients_that_accept_json() {
    let host = host(&agent("rogue", "rogue", ""));
    for (arguments, code, name) in [
        (&["ps", "nobody"][..], 3, "no-agent"),
        (&["invoke", "nobody", "x"], 3, "no-agent"),
        (&["send", "nobody", "x"], 3, "no-agent"),
        (&["invoke", "rogue", r#"{"do":"sleep","ms":60000}"#, "--timeout", "10ms"], 5, "deadline-exceeded"),
        (&["invoke", "rogue", "x", "--performative", "sing"], 2, "bad-request"),
        (&["dead", "show", "1"], 3, ""),
        (&["conversation", "show", "none"], 3, ""),
        (&["rollout", "status", "nobody"], 3, ""),
        (&["rollout", "abort", "rogue"], 4, ""),
        (&["mailbox", "pause", "nobody"], 3, ""),
        (&["state", "get", "nobody", "key"], 3, ""),
        (&["rehearse", "rogue", "--component", "nothing.wasm"], 2, "usage"),
        (&["logs", "--tail", "1001"], 2, "usage"),
        (&["chekc"], 2, "usage"),
        (&["ps", "--data", "nowhere"], 1, "failed"),
        (&["up", "-f", "nothing.toml"], 2, "usage"),
    ] {
        let (found, stdout, stderr) = host.caxton(&[arguments, &["-o", "json"]].concat());
        let told: Value =
            serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout:?}"));
        let error = &told["error"];
        assert_eq!((found, &error["exit"]), (code, &json!(code)), "{arguments:?}: {told}");
        assert!(error["message"].as_str().is_some_and(|words| !words.is_empty()), "{arguments:?}: {told}");
        assert!(name.is_empty() || error["code"] == name, "{arguments:?}: {told}");
        assert!(!stderr.is_empty(), "{arguments:?}: words are for people, on stderr");
    }
    // What has a result prints that and nothing else.
    let unhappy = r#"{"do":"reply","text":"no","with":{"performative":"refuse"}}"#;
    let (code, stdout, _) = host.caxton(&["invoke", "rogue", unhappy, "-o", "json"]);
    let reply: Value = serde_json::from_str(&stdout).expect("one document");
    assert_eq!((code, &reply["performative"]), (1, &json!("refuse")));
}

/// Returns the problem document of a call to an agent that traps, requested with these headers.
fn problem(client: &Client, path: &str, headers: &[(&str, &str)], body: &'static str) -> Value {
    let reply = client.send(Method::POST, path, headers, body);
    assert_eq!(reply.status.as_u16(), 500, "{}", reply.text());
    reply.json()
}

#[test]
fn failure_details_are_shown_to_permitted_clients_only() {
    let web = agent("web", "once", "").replace("\"/web\"", "\"/web/{*rest}\"");
    let agents = agent("rogue", "rogue", "") + &web;
    let forwarded = [("x-forwarded-for", "203.0.113.7")];
    for (details, local, behind_a_proxy) in [("loopback", true, false), ("always", true, true), ("never", false, false)]
    {
        let host = host(&format!("[http]\ndetails = \"{details}\"\n{agents}"));
        let client = host.client();
        for (path, name) in [("/rogue", "rogue"), ("/web/trap", "web")] {
            for (headers, seen) in [(&[][..], local), (&forwarded, behind_a_proxy)] {
                let told = problem(&client, path, headers, TRAP);
                assert_eq!((&told["code"], &told["agent"]), (&json!("trap"), &json!(name)));
                let shows = |field: &str, part: &str| told[field].as_str().is_some_and(|text| text.contains(part));
                let log = format!("caxton logs {name}");
                let inside = [("stderr", "panicked at"), ("error", "trapped: "), ("log", log.as_str())];
                for (field, part) in inside {
                    assert_eq!(shows(field, part), seen, "{details}, {headers:?}: {field} of {told}");
                    assert_eq!(told[field].is_null(), !seen, "{details}, {headers:?}: {field} of {told}");
                }
            }
        }
        let told = problem(&client, "/rogue", &[], TRAP);
        assert!(told["message_id"].is_string() && told["trace_id"].is_string(), "{told}");
    }
}

#[test]
fn faults_name_the_refused_memory_that_caused_them() {
    let limits = |more: &str| format!("limits = {{ memory = \"16MiB\", {more} }}");
    let plain = limits("cpu = \"300ms\", time = \"3s\"");
    // An agent for each: after a fault its next instance waits a while.
    let table = [
        ("traps", &plain, json!({"do": "trap"})),
        ("exits", &plain, json!({"do": "exit", "code": 1})),
        ("loops", &plain, json!({"do": "loop"})),
        ("sleeps", &plain, json!({"do": "sleep", "ms": 60_000})),
        ("fails", &plain, json!({"do": "fail", "cause": "fault", "reason": "nothing more fits"})),
        ("burns", &limits("fuel = 100_000_000"), json!({"do": "loop"})),
    ];
    let host = host(&table.iter().map(|(name, limits, _)| agent(name, "rogue", limits)).collect::<String>());
    for (name, _, then) in table {
        let grow = json!({"do": "steps", "steps": [{"do": "grow", "mib": 64}, then.clone()]});
        let (code, _, stderr) = host.caxton(&["invoke", name, &grow.to_string()]);
        assert!(code != 0, "{name}: {stderr}");
        let part = "memory above limits.memory, 16777216 bytes, was refused before";
        assert!(stderr.contains(part), "{name}: {stderr}");
    }
    // Of a fresh instance nothing of the kind is told.
    let (_, _, stderr) = host.caxton(&["invoke", "traps", TRAP]);
    assert!(stderr.contains("trapped: ") && !stderr.contains("refused before"), "{stderr}");
}

#[test]
fn a_denied_import_is_reported_once_with_the_setting_that_allows_it() {
    let web = agent("web", "once", "").replace("\"/web\"", "\"/web/{*rest}\"");
    let mut host = host(&(agent("rogue", "rogue", "") + &web));
    let client = host.client();
    // Nothing is denied to who asks for nothing, whatever its language does on its own.
    client.post("/rogue", r#"{"do":"reply","text":"fine"}"#);
    client.get("/web/again");
    assert_eq!((host_log_lines(&host, "rogue"), host_log_lines(&host, "web")), (vec![], vec![]));
    for _ in 0..3 {
        client.post("/rogue", r#"{"do":"env"}"#);
        client.post("/rogue", r#"{"do":"read","path":"/etc/passwd"}"#);
        client.post("/rogue", r#"{"do":"write","path":"out.txt"}"#);
        client.post("/rogue", r#"{"do":"connect","address":"127.0.0.1:1"}"#);
        client.post("/rogue", r#"{"do":"connect","address":"example.com:80"}"#);
        assert_eq!(client.get("/web/fetch").text(), "ErrorCode::HttpRequestDenied");
    }
    let rogue = host_log_lines(&host, "rogue");
    for (part, setting) in [
        ("environment variables", "allow.env"),
        ("files", "allow.files"),
        ("TCP socket", "allow.tcp"),
        ("`example.com`", "allow.tcp"),
    ] {
        let lines: Vec<&String> = rogue.iter().filter(|line| line.contains(part)).collect();
        assert!(lines.len() == 1 && lines[0].contains(setting), "{part}: {rogue:?}");
    }
    assert_eq!(rogue.len(), 4, "{rogue:?}");
    let web = host_log_lines(&host, "web");
    assert!(web.len() == 1 && web[0].contains("https://example.com") && web[0].contains("allow.http"), "{web:?}");
    assert!(!web[0].contains("secret"), "what is behind the host may be nobody's business: {web:?}");
    // What is granted is not told as denied.
    host.edit(&file(&agent("rogue", "rogue", "allow = { env = [\"PATH\"] }")));
    host.until_agent("rogue", "the new revision", |agent| agent["revision"] == "rogue@2");
    let seen = client.post("/rogue", r#"{"do":"env"}"#).text();
    assert!(seen.contains("PATH"), "{seen}");
    let lines = host_log_lines(&host, "rogue");
    assert!(lines.last().is_some_and(|line| line.contains("sees PATH")), "{lines:?}");
}

#[test]
fn a_missing_environment_variable_is_reported() {
    let toml = agent("rogue", "rogue", "allow = { env = [\"FOR_THIS_TEST\", \"NOT_THERE\"] }");
    let host = Setup::new(BINARY, &file(&toml)).variable("FOR_THIS_TEST", "1").start();
    host.client().post("/rogue", r#"{"do":"env"}"#);
    let lines = host_log_lines(&host, "rogue");
    assert!(lines.len() == 1 && lines[0].contains("NOT_THERE") && !lines[0].contains("FOR_THIS_TEST"), "{lines:?}");
}

#[test]
fn dead_letters_include_the_last_lines_of_stderr() {
    let mut host = host(&agent("rogue", "rogue", "mailbox = { attempts = 1 }"));
    assert_eq!(host.caxton(&["send", "rogue", TRAP]).0, 0);
    let dead = host.until("a dead letter", |host| {
        let (_, stdout, _) = host.caxton(&["dead", "ls", "-o", "json"]);
        stdout.contains("attempts-exhausted").then_some(stdout)
    });
    let dead: Value = serde_json::from_str(&dead).expect("JSON");
    let number = dead["dead_letters"][0]["number"].to_string();
    let (_, shown, _) = host.caxton(&["dead", "show", &number, "-o", "json"]);
    assert!(shown.contains("panicked at") && shown.contains("trapped: "), "{shown}");
}
