//! Candidates that are tried on copies: of live messages while they wait, of the last ones before.

use std::path::Path;

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use crate::rollout_matrix::bytes;
use crate::rollouts::{Load, install};
use crate::{agent, file};

/// Declares `rogue` with the component `agent.wasm`, and `other`, to which it may send.
fn rogue(more: &str) -> String {
    let own = "[agents.rogue]\ncomponent = \"agent.wasm\"\nallow = { send = [\"other\"] }\n";
    format!("{own}{more}\n[[agents.rogue.http]]\nroute = \"/rogue\"\n{}", agent("other", "rogue", ""))
}

fn parallel(more: &str) -> String {
    rogue(&format!("reload = {{ strategy = \"parallel\", for = \"1h\", {more} }}"))
}

/// A host whose agent's file holds this guest.
fn start(guest: &str, toml: &str) -> Host {
    let setup = Setup::new(crate::BINARY, &file(toml));
    install(setup.folder(), guest);
    setup.start()
}

/// The guest with other bytes that do the same.
pub(crate) fn install_equal_component(folder: &Path, name: &str) {
    install_with_note(folder, &std::fs::read(caxton_tests::guest(name)).expect("the guest is there"), b"alike");
}

/// Installs a component with a custom section, which makes it a new revision of the same behaviour.
fn install_with_note(folder: &Path, bytes: &[u8], note: &[u8]) {
    let mut bytes = bytes.to_vec();
    bytes.extend([0, u8::try_from(note.len() + 2).expect("a short note"), 1, b'n']);
    bytes.extend(note);
    let temporary = folder.join("new.wasm");
    std::fs::write(&temporary, bytes).expect("the folder can be written to");
    std::fs::rename(temporary, folder.join("agent.wasm")).expect("the folder can be written to");
}

fn newest_rollout(host: &Host) -> Value {
    host.api().get("/v1/rollouts/rogue").json()[0].clone()
}

fn until_shadowed(host: &mut Host) {
    host.until("copies are made", |host| {
        newest_rollout(host)["why"].as_str().is_some_and(|why| why.contains("copies to judge by")).then_some(())
    });
}

fn act(host: &Host, action: &Value) -> Value {
    let reply =
        host.client().send(http::Method::POST, "/rogue", &[("content-type", "application/json")], action.to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    reply.json()
}

fn until_ended(host: &mut Host, status: &str) -> Value {
    let ended = until_rollout_over(host);
    assert_eq!(ended["status"], status, "{ended}");
    ended
}

#[test]
fn a_candidate_with_equal_replies_is_promoted_and_its_copies_have_no_effects() {
    let mut host = start("rogue", &parallel("min-messages = 10"));
    install_equal_component(host.folder(), "rogue");
    until_shadowed(&mut host);
    for nth in 0..10 {
        let write = json!({ "do": "set", "key": format!("k{nth}"), "value": "v" });
        let send = json!({ "do": "send", "to": "other", "content": { "do": "increment", "key": "heard" } });
        let ask = json!({ "do": "request", "to": "other", "content": { "do": "increment", "key": "asked" } });
        let count = json!({ "do": "increment", "key": "count" });
        let keys = json!({ "do": "keys", "prefix": "k" });
        let told = act(&host, &json!({ "do": "steps", "steps": [write, send, ask, count, keys] }));
        assert_eq!(told[3]["sum"], nth + 1, "{told}");
        let keys = told[4]["keys"].as_array().map(Vec::len);
        assert_eq!(keys, Some(nth + 1), "{told}");
    }
    let ended = until_ended(&mut host, "completed");
    assert_eq!((&ended["copies"], &ended["copies_alike"]), (&json!(10), &json!(10)), "{ended}");
    host.until_agent("other", "it has heard all", |status| status["handled"] == 20);
    let state = |agent: &str, key: &str| host.api().get(&format!("/v1/agents/{agent}/state/{key}")).text();
    assert_eq!(
        (state("rogue", "count"), state("other", "heard"), state("other", "asked")),
        ("10".into(), "10".into(), "10".into())
    );
    assert_eq!(host.agent("rogue")["revision"], "rogue@2");
    assert_eq!(host.agent("rogue")["handled"], 10);
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    assert_eq!(found["messages"], json!([]), "{found}");
}

/// Checks that no caller notices the candidate.
fn check_calls(host: &Host, calls: usize, action: &Value) {
    (0..calls).for_each(|_| drop(act(host, action)));
}

#[test]
fn a_candidate_with_other_replies_is_rolled_back_and_the_differences_are_kept() {
    // `echo` gives the message back, `rogue` what comes of it.
    let mut host = start("rogue", &parallel("min-messages = 5"));
    install(host.folder(), "echo");
    until_shadowed(&mut host);
    let action = json!({ "do": "increment", "key": "n", "by": 3 });
    assert_eq!(act(&host, &action), json!({ "sum": 3 }));
    let ended = until_ended(&mut host, "rolled-back");
    assert!(ended["why"].as_str().is_some_and(|why| why.starts_with("match: 1 of 1 copies")), "{ended}");
    assert_eq!((&ended["copies"], &ended["copies_alike"]), (&json!(1), &json!(0)), "{ended}");
    assert_eq!(act(&host, &action), json!({ "sum": 6 }), "by the one that ran");
    // Also after the host started again.
    let host = host.kill().start();
    assert_eq!(host.agent("rogue")["revision"], "rogue@1", "it is not tried again");
    let (code, told, said) = host.caxton(&["rollout", "differences", "rogue", "-o", "json"]);
    assert_eq!(code, 0, "{said}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let found = |path: &str| {
        let differences = told["messages"][0]["differences"].as_array().cloned().unwrap_or_default();
        let found = differences.into_iter().find(|found| found["path"] == path);
        found.map(|found| (found["stable"].clone(), found["candidate"].clone()))
    };
    assert_eq!(found("reply.sum"), Some((json!("3"), json!(null))), "{told}");
    assert_eq!(found("reply.by"), Some((json!(null), json!("3"))), "{told}");
    assert_eq!(found("state.n"), Some((json!("3"), json!(null))), "{told}");
    let (code, table, said) = host.caxton(&["rollout", "differences", "rogue"]);
    assert_eq!(code, 0, "{said}");
    let id = told["messages"][0]["message"].as_str().expect("an id");
    assert!(table.contains(id) && table.contains("CANDIDATE") && table.contains("reply.sum"), "{table}");
}

#[test]
fn nondeterministic_fields_are_learned() {
    let mut host = start("rogue", &parallel("min-messages = 3"));
    install_equal_component(host.folder(), "rogue");
    until_shadowed(&mut host);
    let steps =
        [json!({ "do": "random", "bytes": 16 }), json!({ "do": "clock" }), json!({ "do": "increment", "key": "n" })];
    check_calls(&host, 3, &json!({ "do": "steps", "steps": steps }));
    until_ended(&mut host, "completed");
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    let learned: Vec<&str> = found["by_nature"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(learned.iter().any(|path| path.starts_with("reply[*].")), "{found}");
    assert!(!learned.contains(&"state.n"), "{found}");
    assert_eq!(found["messages"], json!([]), "{found}");
}

#[test]
fn ignored_fields_are_not_compared() {
    let ignore = "min-messages = 2, ignore = [\"reply\", \"head\", \"state.n\"]";
    let mut host = start("rogue", &parallel(ignore));
    install(host.folder(), "echo");
    until_shadowed(&mut host);
    check_calls(&host, 2, &json!({ "do": "increment", "key": "n" }));
    until_ended(&mut host, "completed");
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    assert_eq!((&found["by_nature"], &found["messages"]), (&json!([]), &json!([])));
}

#[test]
fn a_candidate_that_traps_on_copies_is_rolled_back_unnoticed() {
    let mut host = start("echo", &parallel("min-messages = 5"));
    install(host.folder(), "rogue");
    until_shadowed(&mut host);
    let action = json!({ "do": "trap" });
    let load = 20;
    for _ in 0..load {
        assert_eq!(act(&host, &action), action);
    }
    let ended = until_ended(&mut host, "rolled-back");
    assert!(ended["why"].as_str().is_some_and(|why| why.starts_with("match:")), "{ended}");
    assert_eq!(act(&host, &action), action);
    let status = host.agent("rogue");
    assert_eq!(
        (&status["handled"], &status["failed"], &status["revision"]),
        (&json!(load + 1), &json!(0), &json!("rogue@1"))
    );
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    assert_eq!(found["messages"][0]["differences"][0]["candidate"], "failed: trap", "{found}");
}

#[test]
fn a_slow_candidate_delays_no_caller() {
    let mut host = start("echo", &parallel("min-messages = 1000000"));
    install(host.folder(), "rogue");
    until_shadowed(&mut host);
    let action = json!({ "do": "sleep", "ms": 9_000 });
    let (began, calls) = (std::time::Instant::now(), 600);
    check_calls(&host, calls, &action);
    let took = began.elapsed();
    // As many as wait, and one or two in hand.
    let told = host.until("what does not wait is counted", |host| {
        let newest = newest_rollout(host);
        (newest["copies_set_aside"].as_u64() >= Some(300)).then_some(newest)
    });
    assert_eq!(told["stable_messages"], calls, "{told}");
    assert!(took.as_secs() < 60, "{calls} calls took {took:?}, and each copy takes 9 s");
    // Nobody waits for the copy in hand.
    let (code, _, said) = host.caxton(&["rollout", "abort", "rogue"]);
    assert_eq!(code, 0, "{said}");
    until_ended(&mut host, "cancelled");
    host.until_agent("rogue", "only the old one is left", |status| {
        status["revisions"].as_array().is_some_and(|revisions| revisions.len() == 1)
    });
}

#[test]
fn concurrent_writes_are_compared_on_equal_state() {
    let mut host = start("rogue", &parallel("min-messages = 200"));
    install_equal_component(host.folder(), "rogue");
    until_shadowed(&mut host);
    let load = Load::new(&host, "/rogue", 4, |nth| {
        let own = json!({ "do": "set", "key": format!("own{}", nth % 7), "value": format!("{nth}") });
        let steps = [
            json!({ "do": "increment", "key": "n" }),
            own,
            json!({ "do": "keys" }),
            json!({ "do": "get", "key": "own3" }),
        ];
        json!({ "do": "steps", "steps": steps }).to_string()
    });
    let ended = until_ended(&mut host, "completed");
    let calls = load.end();
    assert_eq!(calls.wrong, Vec::<String>::new());
    assert_eq!(ended["copies"], ended["copies_alike"], "{ended}");
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    assert_eq!(found["by_nature"], json!([]), "what is replayed is what was seen");
    let answered: usize = calls.answered.values().sum();
    assert_eq!(host.api().get("/v1/agents/rogue/state/n").text(), answered.to_string(), "none was counted twice");
}

#[test]
fn a_comparison_continues_after_kill_9() {
    let mut host = start("rogue", &parallel("min-messages = 4"));
    install_equal_component(host.folder(), "rogue");
    until_shadowed(&mut host);
    let action = json!({ "do": "increment", "key": "n" });
    check_calls(&host, 2, &action);
    host.until("they are compared", |host| (newest_rollout(host)["copies"] == 2).then_some(()));
    let mut host = host.kill().start();
    host.until_output("the host started again: it goes on with step");
    host.until("copies are made again", |host| {
        host.output().contains("rogue@2 handles copies of what rogue@1 handles").then_some(())
    });
    until_shadowed(&mut host);
    assert_eq!(newest_rollout(&host)["status"], "in-progress");
    check_calls(&host, 4, &action);
    until_ended(&mut host, "completed");
    assert_eq!(host.api().get("/v1/agents/rogue/state/n").text(), "6");
}

/// Waits until the newest rollout is over. One that has all the traffic is not watched any longer.
fn until_rollout_over(host: &mut Host) -> Value {
    until_rollout_over_after(host, 0)
}

/// Messages that were handled, one of which makes `rogue` trap but `echo` not.
fn messages_of_which_one_traps(host: &Host) -> String {
    check_calls(host, 3, &json!({ "do": "increment", "key": "n" }));
    let bad = host.client().send(http::Method::POST, "/rogue", &[], r#"{"do":"trap"}"#);
    assert_eq!(bad.status.as_u16(), 200, "{}", bad.text());
    check_calls(host, 2, &json!({ "do": "reply", "text": "\"well\"" }));
    bad.header("caxton-message-id").to_owned()
}

#[test]
fn a_candidate_that_fails_a_rehearsed_message_is_refused() {
    let mut host = start("echo", &rogue("rollback = { rehearse = 5 }"));
    let id = messages_of_which_one_traps(&host);
    install(host.folder(), "rogue");
    let ended = until_rollout_over(&mut host);
    assert_eq!(ended["status"], "failed", "{ended}");
    let why = ended["why"].as_str().expect("a reason");
    let expected = format!("the rehearsal failed: message {id}: trapped");
    assert!(!id.is_empty() && why.starts_with(&expected), "{why}; {expected}");
    assert_eq!(host.agent("rogue")["revision"], "rogue@1");
    host.until_agent("rogue", "it is told of", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("trapped") && why.contains("not tried again"))
    });
    // Only the last five are kept: the one that traps leaves, also after the host started again.
    let mut host = host.kill().start();
    check_calls(&host, 4, &json!({ "do": "increment", "key": "n" }));
    install_equal_component(host.folder(), "rogue");
    let ended = until_rollout_over_after(&mut host, 1);
    assert_eq!(ended["status"], "completed", "{ended}");
    host.until_output("rogue@3 handled 5 of the last 5 messages on a copy");
    // What was rehearsed is on a copy: the state is the one that `echo` left, which writes none.
    assert_eq!(host.api().get("/v1/agents/rogue/state/n").status.as_u16(), 404);
}

fn until_rollout_over_after(host: &mut Host, rollout: u64) -> Value {
    host.until("the end", |host| {
        let newest = newest_rollout(host);
        if newest["rollout"].as_u64() <= Some(rollout) {
            return None;
        }
        if newest["why"].as_str().is_some_and(|why| why.contains("has all traffic and is watched")) {
            // It may end by itself meanwhile.
            host.caxton(&["rollout", "promote", "rogue"]);
        }
        (newest["ended"] == true).then_some(newest)
    })
}

#[test]
fn messages_that_stable_fails_too_do_not_count_against_a_candidate() {
    let settings = "rollback = { rehearse = 10 }\nmailbox = { backoff = { first = \"100ms\" } }";
    let mut host = start("rogue", &rogue(settings));
    let fails_first = r#"{"do":"fail-until","attempt":2}"#;
    let (code, _, said) = host.caxton(&["send", "rogue", fails_first]);
    assert_eq!(code, 0, "{said}");
    host.until_agent("rogue", "the second attempt is done", |status| status["handled"] == 1);
    act(&host, &json!({ "do": "increment", "key": "n" }));
    install_equal_component(host.folder(), "rogue");
    let ended = until_rollout_over(&mut host);
    assert_eq!(ended["status"], "completed", "{ended}");
    host.until_output("rogue@2 handled 1 of the last 2 messages on a copy");
    assert_eq!(host.api().get("/v1/agents/rogue/state/n").text(), "1");
}

#[test]
fn a_stateful_candidate_restores_the_live_memory_first() {
    let own = "[agents.rogue]\ncomponent = \"agent.wasm\"\nrollback = { rehearse = 10 }\n[[agents.rogue.http]]\nroute = \"/rogue\"\n";
    let mut host = start("session", own);
    let remember = |host: &Host, text: &str| {
        let reply = host.client().send(http::Method::POST, "/rogue", &[("caxton-conversation", "c")], text.to_owned());
        reply.json()["remembered"].clone()
    };
    assert_eq!((remember(&host, "one"), remember(&host, "two")), (json!(1), json!(2)));
    install_equal_component(host.folder(), "session");
    let ended = until_rollout_over(&mut host);
    assert_eq!(ended["status"], "completed", "{ended}");
    host.until_output("rogue@2 handled 2 of the last 2 messages on a copy");
    assert_eq!(remember(&host, "three"), json!(3), "as if it had never been rehearsed");
    // One that cannot read the memory.
    install(host.folder(), "counter");
    let ended = until_rollout_over_after(&mut host, 1);
    assert_eq!(ended["status"], "failed", "{ended}");
    assert!(ended["why"].as_str().is_some_and(|why| why.contains("the rehearsal failed: message ")), "{ended}");
    assert_eq!(remember(&host, "four"), json!(4));
}

#[test]
fn a_candidate_that_cannot_restore_the_live_memory_is_refused() {
    let fragile = |config: &str| file(&agent("rogue", "fragile", &format!("rollback = {{ rehearse = 10 }}\n{config}")));
    let mut host = Host::start(crate::BINARY, &fragile(""));
    let remember = |host: &Host, text: &str| host.client().post("/rogue", text.to_owned()).text();
    assert_eq!((remember(&host, "one"), remember(&host, "two")), (String::new(), "one".to_owned()));
    host.edit(&fragile("config = { restore = \"it is not mine\" }"));
    let ended = until_rollout_over(&mut host);
    assert_eq!(ended["status"], "failed", "{ended}");
    let why = "the rehearsal failed: the saved state was refused: it is not mine";
    assert!(ended["why"].as_str().is_some_and(|told| told.starts_with(why)), "{ended}");
    assert_eq!(remember(&host, "three"), "two");
    // One that is content with it.
    host.edit(&fragile("config = { n = \"2\" }"));
    let ended = until_rollout_over_after(&mut host, 1);
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(remember(&host, "four"), "three");
}

#[test]
fn a_component_is_rehearsed_by_hand() {
    let mut host = start("echo", &rogue("rollback = { rehearse = 5 }"));
    let good = caxton_tests::guest("echo").display().to_string();
    let (code, _, said) = host.caxton(&["rehearse", "rogue", "--component", &good]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("no message to rehearse with"), "{said}");
    messages_of_which_one_traps(&host);
    let (code, told, said) = host.caxton(&["rehearse", "rogue", "--component", &good]);
    assert_eq!((code, told.as_str()), (0, ""), "{said}");
    assert!(said.contains("it handled 5 of the last 5 messages of rogue"), "{said}");
    let bad = caxton_tests::guest("rogue").display().to_string();
    let (code, told, said) = host.caxton(&["rehearse", "rogue", "--component", &bad, "--messages", "3", "-o", "json"]);
    assert_eq!(code, 1, "{told}{said}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["passed"], &told["messages"], &told["handled"]), (&json!(false), &json!(3), &json!(2)), "{told}");
    assert!(told["failed"][0]["why"].as_str().is_some_and(|why| why.contains("trapped")), "{told}");
    let (code, table, said) = host.caxton(&["rehearse", "rogue", "--component", &bad]);
    assert_eq!(code, 1, "{said}");
    assert!(table.contains(told["failed"][0]["message"].as_str().expect("an id")), "{table}");
    for (arguments, code) in [
        (&["rehearse", "rogue", "--component", "nothing.wasm"][..], 2),
        (&["rehearse", "rogue", "--component", "caxton.toml"], 2),
        (&["rehearse", "nobody", "--component", &good], 3),
        (&["rehearse", "rogue", "--component", &good, "--messages", "10001"], 2),
    ] {
        let (ended, told, said) = host.caxton(arguments);
        assert_eq!(ended, code, "{arguments:?}: {told}{said}");
    }
    // Nothing of it stays.
    assert_eq!(host.agent("rogue")["revision"], "rogue@1");
    let left = std::fs::read_dir(host.folder().join(".caxton")).expect("the data folder").flatten();
    let names: Vec<String> = left.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|name| name.starts_with("rehearse-")), "{names:?}");
    host.until_agent("rogue", "it goes on", |status| status["handled"] == 6);
}

#[test]
fn impossible_settings_are_refused_by_the_check() {
    let parallel = "reload = { strategy = \"parallel\" }";
    let rehearse = "rollback = { rehearse = 10 }";
    for (guest, settings, part) in [
        ("session", parallel, "with `rehearse = 100`"),
        ("web-echo", rehearse, "set it to 0"),
        ("echo", "reload = { strategy = \"parallel\", ignore = [\"a..b\"] }", "a path is written as"),
        ("echo", "rollback = { rehearse = 10001 }", "10000"),
    ] {
        let setup = Setup::new(crate::BINARY, &file(&agent("one", guest, settings)));
        let (code, told, said) = setup.caxton(&["check"]);
        assert_eq!(code, 2, "{guest} {settings}: {told}{said}");
        assert!((told.clone() + &said).contains(part), "{guest} {settings}: {told}{said}");
    }
    for (guest, settings) in [("counter", parallel), ("counter", rehearse), ("web-echo", parallel)] {
        let setup = Setup::new(crate::BINARY, &file(&agent("one", guest, settings)));
        let (code, told, said) = setup.caxton(&["check"]);
        assert_eq!(code, 0, "{settings}: {told}{said}");
    }
}

/// An HTTP agent `rogue` of its own file that sends to `other`, and compares.
fn web(more: &str) -> String {
    let own =
        "[agents.rogue]\ncomponent = \"agent.wasm\"\nconfig = { peer = \"other\" }\nallow = { send = [\"other\"] }\n";
    let reload = format!("reload = {{ strategy = \"parallel\", for = \"1h\", {more} }}\n");
    format!("{own}{reload}[[agents.rogue.http]]\nroute = \"/{{*rest}}\"\n{}", agent("other", "echo", ""))
}

#[test]
fn calls_of_an_http_agent_are_compared_too() {
    let mut host = start("web-effects", &web("min-messages = 8"));
    install_equal_component(host.folder(), "web-effects");
    until_shadowed(&mut host);
    let paths = ["/visit", "/status-404", "/status-500", "/trap", "/late", "/ask", "/nothing", "/visit"];
    let statuses: Vec<u16> = paths.iter().map(|path| host.client().get(path).status.as_u16()).collect();
    assert_eq!(statuses, [200, 404, 500, 500, 200, 200, 400, 200]);
    let ended = until_ended(&mut host, "completed");
    assert_eq!((&ended["copies"], &ended["copies_alike"]), (&json!(8), &json!(8)), "{ended}");
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    assert_eq!((&found["by_nature"], &found["messages"]), (&json!([]), &json!([])), "{found}");
    assert_eq!(host.api().get("/v1/agents/rogue/state/visits").text(), "6");
    // One message for each of the six that lasted, one of the second commit of `/late`, and one request: none of a copy.
    host.until_agent("other", "it has heard all", |status| status["handled"] == 8);
    assert_eq!(host.agent("other")["accepted"], 8);
}

#[test]
fn an_http_candidate_with_other_responses_is_rolled_back() {
    let mut host = start("web-effects", &web("min-messages = 8"));
    install(host.folder(), "web-echo");
    until_shadowed(&mut host);
    let reply = host.client().send(http::Method::POST, "/status-404", &[], "a body");
    assert_eq!((reply.status.as_u16(), reply.text()), (404, "1".to_owned()));
    until_ended(&mut host, "rolled-back");
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    let message = &found["messages"][0];
    assert_eq!(message["sender"], "http:POST /status-404", "{found}");
    let paths: Vec<&str> =
        message["differences"].as_array().into_iter().flatten().filter_map(|found| found["path"].as_str()).collect();
    assert_eq!(paths, ["reply.content-type", "reply", "head.status", "state.visits", "sends[0]"], "{found}");
    assert_eq!(
        (&message["differences"][2]["stable"], &message["differences"][2]["candidate"]),
        (&json!("404"), &json!("200"))
    );
}

#[test]
fn streamed_bodies_are_compared_once_they_are_sent() {
    let own = "[agents.rogue]\ncomponent = \"agent.wasm\"\nlimits = { time = \"2m\", cpu = \"1m\" }\nreload = { strategy = \"parallel\", for = \"1h\", min-messages = 3 }\n";
    let mut host = start("web", &format!("{own}[[agents.rogue.http]]\nroute = \"/{{*rest}}\"\n"));
    install_equal_component(host.folder(), "web");
    until_shadowed(&mut host);
    let client = host.client();
    assert_eq!(client.get("/stream?bytes=300000").text().len(), 300_000);
    assert_eq!(client.post("/upper", "x".repeat(200_000)).text().len(), 200_000);
    assert_eq!(client.get("/stream?bytes=3000000").text().len(), 3_000_000, "more than is compared");
    assert_eq!(client.post("/sum", "abc").json()["bytes"], 3);
    let ended = until_ended(&mut host, "completed");
    let counts = [&ended["copies"], &ended["copies_alike"], &ended["copies_set_aside"]];
    assert_eq!(counts, [&json!(3), &json!(3), &json!(1)], "{ended}");
}

/// Starts a parallel run of a diary that ignores the handler's name; the candidate fails one message in twenty.
fn start_with_one_reply_in_twenty_differing(match_percent: &str, hold: &str, least: u32) -> Host {
    let ignore = "ignore = [\"reply.by\", \"state\"]";
    let reload = format!(
        "reload = {{ strategy = \"parallel\", for = \"{hold}\", min-messages = {least}, match = \"{match_percent}\", {ignore} }}"
    );
    let mut host = start("diary", &rogue(&reload));
    install_with_note(host.folder(), &bytes("diary", "traps"), b"traps");
    until_shadowed(&mut host);
    host
}

fn record_ids(host: &Host, ids: std::ops::Range<u64>) {
    for id in ids {
        let told = act(host, &json!({ "conversation": format!("c{id}"), "n": 0, "id": id }));
        assert_eq!(told["by"], "old", "copies answer nobody");
    }
}

#[test]
fn a_candidate_that_reaches_the_match_percentage_is_promoted() {
    let mut host = start_with_one_reply_in_twenty_differing("90%", "1h", 20);
    record_ids(&host, 0..20);
    let ended = until_ended(&mut host, "completed");
    assert_eq!((&ended["copies"], &ended["copies_alike"]), (&json!(20), &json!(19)), "{ended}");
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    assert_eq!(found["messages"].as_array().map(Vec::len), Some(1), "what differed is kept all the same: {found}");
}

#[test]
fn a_candidate_below_the_match_percentage_is_rolled_back() {
    let mut host = start_with_one_reply_in_twenty_differing("96%", "1h", 20);
    record_ids(&host, 0..7);
    host.until("they are compared", |host| (newest_rollout(host)["copies"] == 7).then_some(()));
    assert_eq!(newest_rollout(&host)["ended"], false, "so far all agree");
    record_ids(&host, 7..8);
    let ended = until_ended(&mut host, "rolled-back");
    // Certain before there are twenty: no further copy could make it good.
    assert!(ended["why"].as_str().is_some_and(|why| why.starts_with("match: 1 of 8 copies")), "{ended}");
    assert!(ended["why"].as_str().is_some_and(|why| why.contains("96% have to agree")), "{ended}");
    assert_eq!(host.agent("rogue")["revision"], "rogue@1");
}

#[test]
fn after_the_hold_fewer_matching_copies_suffice_but_not_none() {
    let mut host = start_with_one_reply_in_twenty_differing("90%", "1s", 1_000);
    host.until("it says what it waits for", |host| {
        let newest = newest_rollout(host);
        let why = newest["why"].as_str().unwrap_or_default();
        (newest["took_ms"].as_u64() > Some(3_000) && why.contains("0 of 1000 copies to judge by")).then_some(())
    });
    assert_eq!(newest_rollout(&host)["weight"], 0, "no copy is no good copy");
    record_ids(&host, 0..1);
    let ended = until_ended(&mut host, "completed");
    assert_eq!((&ended["copies"], &ended["copies_alike"]), (&json!(1), &json!(1)), "{ended}");
}

#[test]
fn after_the_hold_few_differing_copies_suffice_to_refuse() {
    let mut host = start_with_one_reply_in_twenty_differing("90%", "1s", 1_000);
    record_ids(&host, 7..8);
    let ended = until_ended(&mut host, "rolled-back");
    assert!(ended["why"].as_str().is_some_and(|why| why.starts_with("match: 1 of 1 copies")), "{ended}");
}

#[test]
fn recorded_messages_are_removed_when_rehearsals_are_switched_off_offline() {
    let host = start("rogue", &rogue("rollback = { rehearse = 5 }"));
    check_calls(&host, 5, &json!({ "do": "increment", "key": "n" }));
    let kept = |folder: &Path| -> u32 {
        let database = rusqlite::Connection::open(folder.join(".caxton/caxton.db")).expect("the store is there");
        database.query_row("SELECT count(*) FROM recent", [], |row| row.get(0)).expect("it has the table")
    };
    let (code, setup) = host.stop();
    assert_eq!((code, kept(setup.folder())), (0, 5));
    // As before: they stay over a start.
    let (code, setup) = setup.start().stop();
    assert_eq!((code, kept(setup.folder())), (0, 5));
    setup.edit(&file(&rogue("rollback = { rehearse = 0 }")));
    let (code, setup) = setup.start().stop();
    assert_eq!((code, kept(setup.folder())), (0, 0), "nobody asks for them any more");
    // With the agent taken out of the file they go as well, also while a host runs.
    setup.edit(&file(&rogue("rollback = { rehearse = 5 }")));
    let mut host = setup.start();
    check_calls(&host, 3, &json!({ "do": "increment", "key": "n" }));
    host.edit(&file(&agent("other", "rogue", "")));
    host.until("the agent is gone", |host| (host.api().get("/v1/agents/rogue").status.as_u16() == 404).then_some(()));
    let (code, setup) = host.stop();
    assert_eq!((code, kept(setup.folder())), (0, 0), "their agent is gone");
    setup.edit(&file(&rogue("rollback = { rehearse = 5 }")));
    let host = setup.start();
    check_calls(&host, 3, &json!({ "do": "increment", "key": "n" }));
    let (code, setup) = host.stop();
    assert_eq!((code, kept(setup.folder())), (0, 3));
    setup.edit(&file(&agent("other", "rogue", "")));
    let (code, setup) = setup.start().stop();
    assert_eq!((code, kept(setup.folder())), (0, 0), "their agent has gone meanwhile");
}
