//! The operator's policy: ceilings, rules for components, signatures, and the file that `caxton.toml` cannot override.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use caxton_tests::{Host, Setup, guest};
use serde_json::{Value, json};

use crate::{BINARY, agent, file};

/// Replaces a file in one step.
fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let temporary = folder.join(format!("{name}.new"));
    fs::write(&temporary, bytes).expect("the folder can be written to");
    fs::rename(temporary, folder.join(name)).expect("the folder can be written to");
}

/// Returns the declaration of an agent whose component is `agent.wasm` in the folder.
fn own_component(settings: &str) -> String {
    let text = "[[agents.echo.http]]\nroute = \"/echo\"\nmethods = [\"POST\"]\n";
    format!("[agents.echo]\ncomponent = \"agent.wasm\"\n{settings}\n{text}")
}

/// Returns the bytes of a guest with a custom section more for each number: other bytes of the same program.
fn edited(name: &str, times: u8) -> Vec<u8> {
    let mut bytes = fs::read(guest(name)).expect("the guest is built");
    (0..times).for_each(|_| bytes.extend_from_slice(&[0, 2, 1, b'x']));
    bytes
}

/// Makes a key in the folder. Returns its public part.
fn key(setup: &Setup, name: &str) -> String {
    let (code, out, words) = setup.caxton(&["sign", "--new-key", name]);
    assert_eq!(code, 0, "{words}");
    out.trim().to_owned()
}

/// Returns the text of a policy.
fn policy(rules: &str) -> String {
    format!("caxton = 1\n[policy]\n{rules}\n")
}

fn waits_for(host: &mut Host, what: &str) {
    host.until_agent("echo", what, |status| status["waiting"].as_str().is_some_and(|why| why.contains(what)));
}

fn runs(host: &mut Host, revision: &str) {
    host.until_agent("echo", revision, |status| status["revision"] == revision);
}

/// Returns the data of the events of a kind, the oldest first.
fn events(host: &Host, kind: &str) -> Vec<Value> {
    let all = host.api().get("/v1/events?limit=1000").json();
    let all = all["events"].as_array().or(all.as_array()).cloned().expect("a list of events");
    let mut found: Vec<Value> = all.into_iter().filter(|event| event["kind"] == kind).collect();
    found.sort_by_key(|event| event["id"].as_u64());
    found.into_iter().map(|event| event["data"].clone()).collect()
}

/// Waits for an event of a kind, and returns the data of the last. What it tells of may be seen before it is stored.
fn event(host: &mut Host, kind: &str) -> Value {
    host.until(kind, |host| events(host, kind).pop())
}

#[test]
fn only_signed_components_run() {
    let setup = Setup::new(BINARY, &file(&own_component("rollback = { min-messages = 0 }")));
    let folder = setup.folder().to_owned();
    write(&folder, "agent.wasm", edited("echo", 0));
    let ours = key(&setup, "ours.key");
    let theirs = key(&setup, "theirs.key");
    write(&folder, "policy.toml", policy(&format!("signatures = \"required\"\nkeys = [\"{ours}\"]")));
    let sign = |host: &Host, arguments: &[&str]| {
        let (code, _, words) = host.caxton(&[&["sign", "agent.wasm"], arguments].concat());
        assert_eq!(code, 0, "{words}");
    };
    let mut host = setup.argument("--policy").argument("policy.toml").start();
    waits_for(&mut host, "(unsigned)");
    sign(&host, &["--key", "ours.key"]);
    runs(&mut host, "echo@1");
    assert_eq!(host.client().post("/echo", "x").text(), "x");
    // Other bytes: what runs stays until they are signed.
    write(&folder, "agent.wasm", edited("echo", 1));
    waits_for(&mut host, "(signature-mismatch)");
    assert_eq!(host.agent("echo")["revision"], "echo@1");
    assert_eq!(host.client().post("/echo", "x").text(), "x");
    let last = event(&mut host, "component.refused");
    assert_eq!(last["findings"][0]["code"], "signature-mismatch", "{last}");
    assert_eq!(last["findings"][0]["stage"], "policy", "{last}");
    sign(&host, &["--key", "ours.key"]);
    runs(&mut host, "echo@2");
    // A key that the policy does not name, and then both.
    write(&folder, "agent.wasm", edited("echo", 2));
    sign(&host, &["--key", "theirs.key"]);
    waits_for(&mut host, "(signature-untrusted)");
    assert!(host.agent("echo")["waiting"].as_str().is_some_and(|why| why.contains(&theirs)));
    sign(&host, &["--key", "ours.key", "--add"]);
    runs(&mut host, "echo@3");
    // The signature of the bytes before is kept with them, for an undo.
    let (code, _, words) = host.caxton(&["rollout", "undo", "echo", "--no-rehearse"]);
    assert_eq!(code, 0, "{words}");
    host.until_agent("echo", "the revision before", |status| {
        status["digest"].as_str().is_some_and(|digest| digest == digest_of(&edited("echo", 1)))
    });
}

fn digest_of(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_new_rule_stops_nothing_and_holds_at_the_next_start() {
    let setup = Setup::new(BINARY, &file(&agent("echo", "echo", "")));
    write(setup.folder(), "policy.toml", policy("max-component = \"50MiB\""));
    let mut host = setup.variable("CAXTON_POLICY", "policy.toml").start();
    runs(&mut host, "echo@1");
    write(host.folder(), "policy.toml", policy("imports = [\"nothing:*\"]\nmax-component = \"1KiB\""));
    waits_for(&mut host, "what runs violates the policy");
    assert_eq!(host.client().post("/echo", "x").text(), "x");
    assert_eq!(host.api().get("/v1/host").json()["in_sync"], false);
    let violated = event(&mut host, "policy.violated");
    let codes: Vec<&str> =
        violated["findings"].as_array().into_iter().flatten().filter_map(|one| one["code"].as_str()).collect();
    assert!(codes.contains(&"over-size") && codes.contains(&"import-not-allowed"), "{codes:?}");
    // A file with errors changes nothing, and is told of.
    write(host.folder(), "policy.toml", policy("imports = []"));
    host.until("the errors of the policy", |host| {
        let status = host.api().get("/v1/host").json();
        let place = status["file_errors"][0]["place"].as_str().unwrap_or_default().to_owned();
        place.starts_with("policy.toml:3:").then_some(())
    });
    event(&mut host, "policy.refused");
    assert!(host.agent("echo")["waiting"].as_str().is_some_and(|why| why.contains("violates the policy")));
    // It is refused when it is started again, with everything that is wrong.
    write(host.folder(), "policy.toml", policy("imports = [\"nothing:*\"]\nfeatures = [\"simd\"]"));
    host.until("the policy is taken", |host| (events(host, "policy.taken").len() == 2).then_some(()));
    let (_, again) = host.stop();
    let mut host = again.variable("CAXTON_POLICY", "policy.toml").start();
    waits_for(&mut host, "(import-not-allowed)");
    // A reason is cut, and the event has all findings.
    let last = event(&mut host, "component.refused");
    let codes: Vec<&str> =
        last["findings"].as_array().into_iter().flatten().filter_map(|one| one["code"].as_str()).collect();
    for code in ["import-not-allowed", "feature-not-allowed"] {
        assert!(codes.contains(&code), "{code} is missing: {codes:?}");
    }
    assert_eq!(host.client().post("/echo", "x").status.as_u16(), 503);
    // And runs as soon as it may.
    write(host.folder(), "policy.toml", policy("imports = [\"caxton:*\", \"wasi:*\"]"));
    host.until_agent("echo", "it runs", |status| status["state"] == "running" && status["waiting"].is_null());
    assert_eq!(host.client().post("/echo", "x").text(), "x");
    assert_eq!(host.api().get("/v1/host").json()["in_sync"], true);
}

#[test]
fn ceilings_bound_the_file() {
    let ceilings = |memory: &str| format!("caxton = 1\n[ceilings]\nlimits.memory = \"{memory}\"\n");
    let text = |settings: &str| file(&agent("rogue", "rogue", settings));
    let setup = Setup::new(BINARY, &text("limits = { memory = \"64MiB\" }"));
    write(setup.folder(), "policy.toml", ceilings("32MiB"));
    let again = setup.again();
    let (code, words) = setup.argument("--policy").argument("policy.toml").refused();
    assert_eq!(code, 2);
    assert!(words.contains("above-ceiling") && words.contains("policy.toml:3:17"), "{words}");
    // A default is lowered, and acts in the guest.
    again.edit(&text(""));
    let mut host = again.argument("--policy").argument("policy.toml").start();
    let grown = |host: &Host| host.client().post("/rogue", r#"{"do":"grow","mib":60}"#).json()["grown"].clone();
    assert!(grown(&host).as_u64() < Some(32), "{}", grown(&host));
    // An edit of the ceiling is an edit of the agent.
    write(host.folder(), "policy.toml", ceilings("128MiB"));
    host.until_agent("rogue", "with the default", |status| status["revision"] == "rogue@2");
    assert!(grown(&host).as_u64() > Some(32), "{}", grown(&host));
    // One below what the file has makes the file wrong, and stops nothing.
    host.edit(&text("limits = { memory = \"100MiB\" }"));
    host.until_agent("rogue", "its own limit", |status| status["revision"] == "rogue@3");
    write(host.folder(), "policy.toml", ceilings("16MiB"));
    host.until("the error of the file", |host| {
        let status = host.api().get("/v1/host").json();
        (status["file_errors"][0]["code"] == "above-ceiling").then_some(())
    });
    assert_eq!(host.agent("rogue")["revision"], "rogue@3");
    assert!(grown(&host).as_u64() > Some(32), "{}", grown(&host));
    host.edit(&text("limits = { memory = \"16MiB\" }"));
    host.until_agent("rogue", "within the ceiling", |status| status["revision"] == "rogue@4");
}

#[test]
fn check_tells_what_is_refused_granted_and_in_vain() {
    let settings = "allow = { env = [\"LANG\"], clock = \"none\" }\nconfig = { mood = \"calm\" }";
    let echo = agent("echo", "echo", settings);
    let digest = "11".repeat(32);
    let rules = format!(
        "imports = [\"wasi:*\"]\nforbidden-exports = [\"caxton:agent/handler\"]\nmax-component = \"1KiB\"\n\
         digests = [\"sha256:{digest}\"]\nsignatures = \"required\"\nkeys = [\"ed25519:{digest}\"]\nfeatures = [\"simd\"]"
    );
    let setup = Setup::new(BINARY, &file(&echo));
    let (code, out, words) = setup.caxton(&["check", "-o", "json"]);
    assert_eq!(code, 0, "{words}");
    let checked: Value = serde_json::from_str(&out).expect("JSON");
    let report = &checked["agents"][0];
    let granted = |import: &str| -> Vec<Value> {
        let all = report["granted"].as_array().into_iter().flatten();
        all.filter(|one| one["import"].as_str().is_some_and(|name| name.starts_with(import))).cloned().collect()
    };
    assert!(!granted("caxton:agent/").is_empty() || !granted("wasi:").is_empty(), "{report}");
    let denied = report["denied"].as_array().into_iter().flatten();
    let by: Vec<&str> = denied.filter_map(|one| one["by"].as_str()).collect();
    assert!(by.iter().all(|by| !by.is_empty()), "{report}");
    assert!(report["in_vain"].as_array().into_iter().flatten().any(|one| one == "config.mood"), "{report}");
    let (_, out, _) = setup.caxton(&["check"]);
    for head in ["GRANTED", "DENIED", "IN VAIN", "config.mood"] {
        assert!(out.contains(head), "{head} is missing in:\n{out}");
    }
    write(setup.folder(), "policy.toml", policy(&rules));
    let (code, out, words) = setup.caxton(&["check", "--policy", "policy.toml", "-o", "json"]);
    assert_eq!(code, 2, "{words}");
    let checked: Value = serde_json::from_str(&out).expect("JSON");
    let findings = checked["agents"][0]["findings"].as_array().cloned().unwrap_or_default();
    for code in
        ["feature-not-allowed", "import-not-allowed", "export-forbidden", "over-size", "digest-not-allowed", "unsigned"]
    {
        let finding = findings.iter().find(|finding| finding["code"] == code);
        let finding = finding.unwrap_or_else(|| panic!("{code} is missing: {findings:?}"));
        assert_eq!(finding["stage"], "policy", "{finding}");
        assert!(finding["at"].as_str().is_some_and(|at| !at.is_empty()), "{finding}");
    }
}

#[test]
fn keys_are_made_once_and_for_their_owner() {
    let setup = Setup::new(BINARY, &file(""));
    let public = key(&setup, "release.key");
    assert!(public.starts_with("ed25519:") && public.len() == "ed25519:".len() + 64, "{public}");
    let mode = fs::metadata(setup.folder().join("release.key")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, _, words) = setup.caxton(&["sign", "--new-key", "release.key"]);
    assert_eq!(code, 1, "an existing key is kept: {words}");
    let component = "\0asm\x0d\0\x01\0some bytes";
    write(setup.folder(), "a.wasm", component);
    let (code, out, words) = setup.caxton(&["sign", "a.wasm", "--key", "release.key", "-o", "json"]);
    assert_eq!(code, 0, "{words}");
    let signed: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(signed["key"], public.as_str(), "{signed}");
    assert_eq!(signed["digest"], digest_of(component.as_bytes()), "{signed}");
    let text = fs::read_to_string(setup.folder().join("a.wasm.sig")).expect("it is there");
    assert!(text.starts_with(&public) && text.lines().count() == 1, "{text}");
    write(setup.folder(), "wrong.key", "no key at all");
    let (code, _, words) = setup.caxton(&["sign", "a.wasm", "--key", "wrong.key"]);
    assert!(code == 1 && words.contains("wrong.key"), "{words}");
    // Nothing that no host would look at, and nothing without an end.
    for (component, key, expected) in [
        ("caxton.toml", "release.key", "it is not a component"),
        ("/dev/zero", "release.key", "it is not a file"),
        ("a.wasm", "/dev/zero", "it is not a file"),
        ("none.wasm", "release.key", "No such file"),
    ] {
        let (code, _, words) = setup.caxton(&["sign", component, "--key", key]);
        assert!(code == 1 && words.contains(expected), "{component} {key}: {words}");
    }
    assert!(!setup.folder().join("caxton.toml.sig").exists());
}

/// Returns what the agent `repeatable` has logged of a message, by attempt.
fn logged(host: &Host) -> Vec<Value> {
    let (_, out, _) = host.caxton(&["logs", "repeatable", "-n", "1000", "-o", "json"]);
    let lines = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let own = lines.filter(|line| line["context"] == "repeatable");
    own.filter_map(|line| serde_json::from_str(line["text"].as_str()?).ok()).collect()
}

#[test]
fn attempts_see_the_same_clocks_and_random_numbers() {
    let settings = "allow = { clock = \"message\", random = \"message\" }\ninstances = { reuse = 1 }\n\
                    mailbox = { backoff = { first = \"100ms\" } }";
    let mut host = crate::host(&agent("repeatable", "repeatable", settings));
    let content = json!({ "until": 3, "what": "all" }).to_string();
    let (code, _, words) = host.caxton(&["send", "repeatable", &content]);
    assert_eq!(code, 0, "{words}");
    host.until_agent("repeatable", "its third attempt is good", |status| status["handled"] == 1);
    let attempts = host.until("three lines", |host| Some(logged(host)).filter(|lines| lines.len() == 3));
    assert_eq!(attempts[0], attempts[1]);
    assert_eq!(attempts[0], attempts[2]);
    // The clocks stand still while it waits, at a time of today; later numbers differ from earlier ones.
    let seen = &attempts[0];
    assert_eq!(seen[0], seen[2], "{seen}");
    assert!(seen[0][0].as_u64() > Some(1_700_000_000), "{seen}");
    assert_ne!(seen[3], seen[6], "{seen}");
    // Another message sees others.
    let other = host.client().post("/repeatable", json!({ "until": 1, "what": "all" }).to_string()).json();
    for part in 3..=5 {
        assert_ne!(other[part], seen[part], "{other}");
    }
}

#[test]
fn clocks_and_random_numbers_can_be_denied() {
    let settings =
        "allow = { clock = \"none\", random = \"none\" }\nmailbox = { attempts = 1 }\nbreaker = { faults = 100 }";
    let host = crate::host(&agent("repeatable", "repeatable", settings));
    for (what, setting) in [
        ("clock", "allow.clock"),
        ("timer", "allow.clock"),
        ("random", "allow.random"),
        ("insecure", "allow.random"),
        ("seed", "allow.random"),
    ] {
        let answer = host.client().post("/repeatable", json!({ "until": 1, "what": what }).to_string());
        assert_eq!(answer.json()["code"], "trap", "{what}: {}", answer.text());
        assert!(answer.text().contains(setting), "{what}: {}", answer.text());
    }
}

#[test]
fn a_request_of_an_http_agent_has_a_time_and_numbers_of_its_own() {
    let web = |settings: &str| agent("web", "web-agent", settings) + "[[agents.web.http]]\nroute = \"/web/{*rest}\"\n";
    let seen = |host: &Host| host.client().get("/web/seen").json();
    let host = crate::host(&web("allow = { clock = \"message\", random = \"message\" }"));
    let [one, two] = [seen(&host), seen(&host)];
    assert_eq!(one["from"], one["to"], "{one}");
    assert!(one["from"].as_u64() > Some(1_700_000_000_000_000_000), "{one}");
    assert_ne!(one["random"], two["random"], "{two}");
    let host = crate::host(&web(""));
    let real = seen(&host);
    assert!(real["from"].as_u64() < real["to"].as_u64(), "{real}");
}
