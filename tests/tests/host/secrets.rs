//! Secrets: given to agents, changed in place, masked in what is logged, and never a part of a revision.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use crate::{BINARY, agent, file};

/// Replaces a file as a whole.
fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).expect("the folder can be written to");
    fs::rename(temporary, path).expect("the folder can be written to");
}

/// Lets the rogue agent do something. Returns its answer as text.
fn act(host: &Host, action: &Value) -> String {
    host.client().post("/rogue", action.to_string()).text()
}

/// Returns what the agent reads of its configuration under a key.
fn config(host: &Host, key: &str) -> String {
    let all: Vec<(String, String)> = serde_json::from_str(&act(host, &json!({ "do": "config" }))).expect("pairs");
    all.into_iter().find(|(name, _)| name == key).expect("the key").1
}

#[test]
fn a_secret_that_every_user_may_read_is_warned_of() {
    let toml = file(&format!("[secrets]\nkey = {{ file = \"own.key\" }}\n{}", agent("rogue", "rogue", "")));
    let setup = Setup::new(BINARY, &toml);
    write(setup.folder(), "own.key", "a key");
    for (mode, expected) in [(0o640, false), (0o644, true)] {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(setup.folder().join("own.key"), permissions).expect("it is ours");
        let (code, _, words) = setup.caxton(&["check", "--no-components"]);
        let warning = "warning: secrets.key.file: every user of this machine may read `own.key`; `chmod o-r` ends that";
        assert!(code == 0 && words.contains(warning) == expected, "{mode:o}: {words}");
    }
}

#[test]
fn agents_are_given_secrets_from_every_source() {
    let secrets = "[secrets]\nfolder = \"run\"\nvariable = { env = \"GIVEN\" }\nfile = { file = \"own.key\" }\n\
                   command = { command = \"cat own.key; printf more\" }\n";
    let config_text = "config = { all = \"${secret:variable} ${secret:file}, ${secret:command} ${secret:db_password}\", \
                       literal = \"$${secret:none}\" }";
    let setup = Setup::new(BINARY, &file(&format!("{secrets}{}", agent("rogue", "rogue", config_text))));
    write(setup.folder(), "own.key", "from a file\n");
    write(setup.folder(), "run/db_password", "from a folder");
    let host = setup.variable("GIVEN", "from outside").start();
    assert_eq!(config(&host, "all"), "from outside from a file, from a file\nmore from a folder");
    assert_eq!(config(&host, "literal"), "${secret:none}");
    // In no byte that the host keeps or shows.
    for (shown, text) in [
        ("ps", host.caxton(&["ps", "rogue", "-o", "json"]).1),
        ("events", host.caxton(&["events", "-o", "json"]).1),
        ("log", host.output()),
    ] {
        assert!(!text.contains("from a f") && !text.contains("from outside"), "{shown}: {text}");
    }
}

#[test]
fn a_new_value_is_for_the_next_call_and_no_rollout() {
    let toml = |text: &str| {
        file(&format!(
            "[secrets]\ntoken = {{ file = \"token\" }}\n{}",
            agent("rogue", "rogue", &format!("config = {{ token = \"{text}\" }}"))
        ))
    };
    let setup = Setup::new(BINARY, &toml("Bearer ${secret:token}"));
    write(setup.folder(), "token", "first");
    let mut host = setup.start();
    assert_eq!(config(&host, "token"), "Bearer first");
    write(host.folder(), "token", "second\n");
    host.until("the second value", |host| (config(host, "token") == "Bearer second").then_some(()));
    assert_eq!(host.agent("rogue")["revision"], "rogue@1", "a value makes no revision");
    // Guests may have kept the old text: no instance lives that was given it.
    host.until_agent("rogue", "its first instance has ended", |status| {
        status["started_instances"].as_u64() >= Some(2) || status["instances"] == 0
    });
    // An edit of the reference does make one, and an undo uses the value of today.
    host.edit(&toml("Basic ${secret:token}"));
    host.until_agent("rogue", "the edit runs", |status| status["revision"] == "rogue@2");
    assert_eq!(config(&host, "token"), "Basic second");
    write(host.folder(), "token", "third");
    host.until("the third value", |host| (config(host, "token") == "Basic third").then_some(()));
    let (code, _, words) = host.caxton(&["rollout", "undo", "rogue", "--no-rehearse"]);
    assert_eq!(code, 0, "{words}");
    host.until("the text of before with the value of today", |host| {
        (config(host, "token") == "Bearer third").then_some(())
    });
}

#[test]
fn what_cannot_be_read_keeps_its_value() {
    let toml = file(&format!(
        "[secrets]\ntoken = {{ file = \"token\" }}\n{}",
        agent("rogue", "rogue", "config = { token = \"${secret:token}\" }")
    ));
    let setup = Setup::new(BINARY, &toml);
    write(setup.folder(), "token", "hunter2");
    let mut host = setup.start();
    fs::remove_file(host.folder().join("token")).expect("it is there");
    host.until_output("caxton.toml:3:18: secrets.token.file: the secret `token` has no value: `token` is not there");
    assert_eq!(config(&host, "token"), "hunter2");
    let (code, _, words) = host.caxton(&["check"]);
    assert!(code == 2 && words.contains("error[unusable-secret]") && words.contains("caxton.toml:3:18"), "{words}");
    write(host.folder(), "token", "correct horse");
    host.until("the new value", |host| (config(host, "token") == "correct horse").then_some(()));
    // A declaration with a secret that has never had a value changes nothing.
    host.edit(
        &toml
            .replace("[secrets]\n", "[secrets]\nother = { env = \"NOT_SET_ANYWHERE\" }\n")
            .replace("${secret:token}", "${secret:other}"),
    );
    host.until_output("secrets.other.env: the secret `other` has no value: the variable NOT_SET_ANYWHERE is not set");
    assert_eq!(config(&host, "token"), "correct horse");
    let (code, _, words) = host.caxton(&["apply"]);
    assert!(code == 2 && words.contains("NOT_SET_ANYWHERE"), "{code}: {words}");
}

#[test]
fn a_missing_secret_stops_the_start() {
    let toml = |source: &str| {
        file(&format!(
            "[secrets]\ntoken = {source}\n{}",
            agent("rogue", "rogue", "config = { token = \"${secret:token}\" }")
        ))
    };
    for (source, code, told) in [
        ("{ env = \"NOT_SET_ANYWHERE\" }", 2, "the variable NOT_SET_ANYWHERE is not set"),
        ("{ file = \"missing\" }", 2, "`missing` is not there"),
        (
            "{ command = \"echo hunter2; echo no such vault >&2; exit 3\" }",
            1,
            "its command failed (exit status: 3): no such vault",
        ),
        (
            "{ command = \"head -c 100000 /dev/zero | tr '\\\\0' x\" }",
            1,
            "what its command prints is larger than 65536 bytes",
        ),
        ("{ command = \"true\" }", 1, "what its command prints is empty"),
    ] {
        let (found, words) = Setup::new(BINARY, &toml(source)).refused();
        assert!(found == code && words.contains(told) && !words.contains("hunter2"), "{source}: {found} {words}");
    }
}

#[test]
fn commands_run_again_at_a_reload() {
    let toml = file(&format!(
        "[secrets]\ntoken = {{ command = \"cat vault\" }}\n{}",
        agent("rogue", "rogue", "config = { token = \"${secret:token}\" }")
    ));
    let setup = Setup::new(BINARY, &toml);
    write(setup.folder(), "vault", "first");
    let mut host = setup.start();
    assert_eq!(config(&host, "token"), "first");
    write(host.folder(), "vault", "second");
    host.signal(rustix::process::Signal::HUP);
    host.until("the second value", |host| (config(host, "token") == "second").then_some(()));
    fs::remove_file(host.folder().join("vault")).expect("it is there");
    host.signal(rustix::process::Signal::HUP);
    host.until_output("its command failed (exit status: 1)");
    assert_eq!(config(&host, "token"), "second");
}

#[test]
fn secrets_are_masked_in_logs_and_faults() {
    let toml = file(&format!(
        "[http]\ndetails = \"always\"\n[secrets]\ntoken = {{ file = \"token\" }}\n{}",
        agent("rogue", "rogue", "config = { token = \"${secret:token}\" }\nmailbox = { attempts = 1 }")
    ));
    let setup = Setup::new(BINARY, &toml);
    write(setup.folder(), "token", "hunter2-and-more");
    let host = setup.start();
    let words = "the token is hunter2-and-more";
    let answers = [
        act(&host, &json!({ "do": "log", "level": "info", "text": words })),
        act(&host, &json!({ "do": "print", "stdout": words, "stderr": words })),
        act(&host, &json!({ "do": "fail", "cause": "fault", "reason": words })),
        act(&host, &json!({ "do": "steps", "steps": [{ "do": "print", "stderr": words }, { "do": "trap" }] })),
    ];
    assert!(answers[3].contains("[secret token]"), "the fault tells what the guest said: {}", answers[3]);
    let (code, logs, _) = host.caxton(&["logs", "rogue", "-o", "json"]);
    assert_eq!(code, 0);
    assert!(logs.matches("the token is [secret token]").count() >= 3, "{logs}");
    let dead = host.caxton(&["dead", "ls", "-o", "json"]).1;
    for text in answers.iter().chain([&logs, &host.output()]) {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(!dead.contains("the token is hunter2"), "{dead}");
}

#[test]
fn a_stateful_agent_is_saved_and_restored_for_a_new_value() {
    let toml = file(&format!(
        "[secrets]\nkeep = {{ file = \"keep\" }}\n{}",
        agent("session", "session", "config = { keep = \"${secret:keep}\" }")
    ));
    let setup = Setup::new(BINARY, &toml);
    write(setup.folder(), "keep", "2");
    let mut host = setup.start();
    let remember = |host: &Host| {
        let reply = host.client().send(http::Method::POST, "/session", &[("caxton-conversation", "c")], "text");
        reply.json()["remembered"].as_u64().expect("a number")
    };
    for expected in [1, 2, 2] {
        assert_eq!(remember(&host), expected);
    }
    write(host.folder(), "keep", "100");
    host.until_output("secrets with a new value, from the next call on: keep");
    host.until_agent("session", "its instance was saved and has ended", |status| status["instances"] == 0);
    assert_eq!(remember(&host), 3, "with its memory and the new value");
    assert_eq!(host.agent("session")["revision"], "session@1");
}
