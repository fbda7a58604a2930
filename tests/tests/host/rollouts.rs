//! Rollouts of a new revision under load, step by step, and their undo.

use std::collections::BTreeMap;
use std::sync::mpsc;

use caxton_tests::{Client, Host, Setup, guest};
use serde_json::{Value, json};

use crate::{agent, file, host};

/// The outcome of calls: the number that each revision answered, and the failures.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) answered: BTreeMap<String, usize>,
    pub(crate) wrong: Vec<String>,
}

/// A load of calls without pause over several connections; `body` makes the nth call of a connection.
pub(crate) struct Load {
    stop: Vec<mpsc::Sender<()>>,
    callers: Vec<std::thread::JoinHandle<Calls>>,
}

impl Load {
    pub(crate) fn new(host: &Host, path: &'static str, connections: usize, body: fn(usize) -> String) -> Self {
        let (stop, stopped): (Vec<_>, Vec<_>) = (0..connections).map(|_| mpsc::channel::<()>()).unzip();
        let call = |stopped: mpsc::Receiver<()>| {
            let address = host.http.clone();
            std::thread::spawn(move || {
                let (client, mut calls) = (Client::new(&address, None), Calls::default());
                for nth in 0.. {
                    if stopped.try_recv() != Err(mpsc::TryRecvError::Empty) {
                        break;
                    }
                    match client.try_send(http::Method::POST, path, &[], body(nth)) {
                        Ok(reply) if reply.status.as_u16() == 200 => {
                            *calls.answered.entry(reply.header("caxton-revision").to_owned()).or_default() += 1;
                        }
                        Ok(reply) => calls.wrong.push(format!("{} {}", reply.status, reply.text())),
                        Err(error) => calls.wrong.push(error),
                    }
                }
                calls
            })
        };
        Self { stop, callers: stopped.into_iter().map(call).collect() }
    }

    pub(crate) fn end(self) -> Calls {
        drop(self.stop);
        let mut all = Calls::default();
        for caller in self.callers {
            let calls = caller.join().expect("a caller ends well");
            all.wrong.extend(calls.wrong);
            for (revision, count) in calls.answered {
                *all.answered.entry(revision).or_default() += count;
            }
        }
        all
    }
}

fn states(status: &Value) -> Vec<(u64, String)> {
    let revisions = status["revisions"].as_array().into_iter().flatten();
    revisions
        .map(|revision| {
            (revision["number"].as_u64().unwrap_or_default(), revision["state"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

fn states_are(status: &Value, wanted: &[(u64, &str)]) -> bool {
    let states = states(status);
    states.iter().map(|(number, state)| (*number, state.as_str())).eq(wanted.iter().copied())
}

/// The component `agent.wasm` of a host's folder becomes another.
pub(crate) fn install(setup: &std::path::Path, name: &str) {
    let temporary = setup.join("new.wasm");
    std::fs::copy(guest(name), &temporary).expect("the guest can be copied");
    std::fs::rename(temporary, setup.join("agent.wasm")).expect("the folder can be written to");
}

const OWN: &str = "[agents.echo]\ncomponent = \"agent.wasm\"\n[[agents.echo.http]]\nroute = \"/echo\"\n";

#[test]
fn a_canary_has_its_share_at_each_step_and_no_call_fails() {
    let steps =
        "deploy = { strategy = \"canary\", steps = [{ weight = 20, for = \"3s\" }, { weight = 60, for = \"1s\" }] }\n";
    let settings = format!("{steps}rollback = {{ min-messages = 20, slower = \"10000%\" }}\n");
    let mut host = host(&agent("echo", "echo", &settings));
    let load = Load::new(&host, "/echo", 3, |_| "ping".to_owned());
    host.edit(&file(&agent("echo", "echo", &format!("{settings}config = {{ n = \"2\" }}\n"))));
    host.until_agent("echo", "both run", |status| states_are(status, &[(1, "running"), (2, "running")]));
    // From here to the next step the shares are those of the first.
    let sample = Load::new(&host, "/echo", 1, |_| "ping".to_owned());
    host.until_agent("echo", "the step is half over", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("20% for 1s more"))
    });
    let sample = sample.end();
    let counts = ["echo@1", "echo@2"].map(|name| sample.answered.get(name).copied().unwrap_or_default());
    let share = counts[1] as f64 / (counts[0] + counts[1]) as f64;
    assert!((0.1..0.3).contains(&share), "{share} of {counts:?}");
    host.until_agent("echo", "all is with the new one", |status| states_are(status, &[(2, "running")]));
    let calls = load.end();
    assert_eq!(calls.wrong, Vec::<String>::new(), "of {:?}", calls.answered);
    host.until_output("echo@2 runs; echo@1 drains");
}

#[test]
fn a_rolling_deployment_replaces_instances_in_batches() {
    let settings = "instances = { min = 4, max = 4 }\ndeploy = { strategy = \"rolling\", batch = 2 }\n";
    let mut host = host(&agent("echo", "echo", settings));
    let load = Load::new(&host, "/echo", 2, |_| "ping".to_owned());
    host.edit(&file(&agent("echo", "echo", &format!("{settings}config = {{ n = \"2\" }}\n"))));
    host.until_agent("echo", "all is with the new one", |status| states_are(status, &[(2, "running")]));
    let calls = load.end();
    assert_eq!(calls.wrong, Vec::<String>::new(), "of {:?}", calls.answered);
    host.until_output("echo@1 has 50%; echo@2 has 50%");
    // It is still watched, but what is declared runs.
    host.until("it is watched", |host| {
        let why = host.agent("echo")["waiting"].as_str().unwrap_or_default().to_owned();
        why.contains("is watched").then_some(())
    });
    assert_eq!(host.api().get("/v1/host").json()["in_sync"], true);
    host.until_agent("echo", "all instances stand", |status| status["instances"] == 4);
}

#[test]
fn blue_green_keeps_the_old_set_warm() {
    let settings = "deploy = { strategy = \"blue-green\", keep-warm = \"1h\" }\n";
    let mut host = host(&agent("echo", "echo", settings));
    host.edit(&file(&agent("echo", "echo", &format!("{settings}config = {{ n = \"2\" }}\n"))));
    host.until_agent("echo", "the old one stays", |status| states_are(status, &[(1, "draining"), (2, "running")]));
    host.until_agent("echo", "it is told of", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("echo@1 stays warm"))
    });
    let (code, _, said) = host.caxton(&["rollout", "undo", "echo", "--no-rehearse"]);
    assert_eq!(code, 0, "{said}");
    host.until_agent("echo", "the old one has all again", |status| {
        states(status).contains(&(1, "running".to_owned())) && status["revision"] == "echo@1"
    });
    let (code, told, _) = host.caxton(&["rollout", "status", "echo"]);
    assert_eq!(code, 6, "{told}");
    assert!(told.contains("undone by"), "{told}");
    // Nobody waits for it: a newer change goes on at once.
    host.edit(&file(&agent("echo", "echo", &format!("{settings}config = {{ n = \"3\" }}\n"))));
    host.until_agent("echo", "the newest runs", |status| status["revision"] == "echo@3");
}

/// Returns an action that `echo` answers as it is, and `rogue` carries out; every tenth traps.
fn action_that_traps_once_in_ten(nth: usize) -> String {
    if nth % 10 == 9 { r#"{"do":"trap"}"#.to_owned() } else { r#"{"do":"reply","text":"well"}"#.to_owned() }
}

#[test]
fn a_trapping_candidate_is_rolled_back_and_not_retried_until_it_changes() {
    let rules = "reload = { strategy = \"traffic-splitting\", steps = [50, 100], every = \"1h\" }\nrollback = { min-messages = 20, slower = \"10000%\" }\nbreaker = { faults = 100 }\n";
    let toml = file(&OWN.replace("[[", &format!("{rules}[[")));
    let setup = Setup::new(crate::BINARY, &toml);
    install(setup.folder(), "echo");
    let mut host = setup.start();
    let load = Load::new(&host, "/echo", 2, action_that_traps_once_in_ten);
    install(host.folder(), "rogue");
    host.until_agent("echo", "it is refused", |status| {
        status["waiting"].as_str().is_some_and(|why| why.starts_with("errors:") && why.contains("not tried again"))
    });
    let calls = load.end();
    assert!(calls.wrong.iter().all(|wrong| wrong.starts_with("500")), "{:?}", calls.wrong.first());
    host.until_agent("echo", "the old one has all again", |status| states_are(status, &[(1, "running")]));
    assert_eq!(host.agent("echo")["revision"], "echo@1");
    // Also not when somebody asks for all to be as declared, and not by another host on the same folder.
    host.caxton(&["apply"]);
    assert_eq!(host.agent("echo")["revision"], "echo@1");
    let mut host = host.kill().start();
    assert_eq!(host.agent("echo")["revision"], "echo@1");
    assert_eq!(host.client().post("/echo", "still").text(), "still", "by the bytes that ran");
    install(host.folder(), "session");
    host.until_agent("echo", "other bytes are tried", |status| states(status).iter().any(|(number, _)| *number == 3));
}

#[test]
fn a_rollout_continues_after_kill_9() {
    let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"1h\" }] }\n";
    let mut host = host(&agent("echo", "echo", steps));
    host.edit(&file(&agent("echo", "echo", &format!("{steps}config = {{ n = \"2\" }}\n"))));
    host.until_agent("echo", "both run", |status| states_are(status, &[(1, "running"), (2, "running")]));
    let mut host = host.kill().start();
    host.until_output("the host started again: it goes on with step");
    host.until_agent("echo", "both run again", |status| states_are(status, &[(1, "running"), (2, "running")]));
    let client = host.client();
    let answered: Vec<String> =
        (0..4).map(|_| client.post("/echo", "x").header("caxton-revision").to_owned()).collect();
    assert_eq!(answered.iter().filter(|revision| *revision == "echo@2").count(), 2, "{answered:?}");
    // What is declared again is what ran.
    host.edit(&file(&agent("echo", "echo", steps)));
    host.until_agent("echo", "it goes back", |status| states_are(status, &[(1, "running")]));
}

#[test]
fn a_conversation_stays_where_it_began() {
    check_stickiness("echo");
}

#[test]
fn a_conversation_with_an_http_agent_stays_where_it_began() {
    check_stickiness("web-echo");
}

fn check_stickiness(guest: &str) {
    let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"0s\" }, { pause = true }, { weight = 90, for = \"0s\" }, { pause = true }] }\nrollback = { min-messages = 0, sticky = \"conversation\" }\n";
    let mut host = host(&agent("echo", guest, steps));
    let call = |host: &Host, name: &str| {
        let headers = [("caxton-conversation", name)];
        let reply = host.client().send(http::Method::POST, "/echo", &headers, "x");
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
        reply.header("caxton-revision").to_owned()
    };
    let early: Vec<String> = (0..8).map(|nth| format!("early-{nth}")).collect();
    assert!(early.iter().all(|name| call(&host, name) == "echo@1"));
    host.edit(&file(&agent("echo", guest, &format!("{steps}config = {{ n = \"2\" }}\n"))));
    let weight = |wanted: u64| {
        move |host: &mut Host| (host.api().get("/v1/rollouts/echo").json()[0]["weight"] == wanted).then_some(())
    };
    host.until("half of it goes to the new one", weight(50));
    assert!(early.iter().all(|name| call(&host, name) == "echo@1"), "they began before");
    let late: Vec<String> = (0..32).map(|nth| format!("late-{nth}")).collect();
    let first: Vec<String> = late.iter().map(|name| call(&host, name)).collect();
    assert!(first.iter().any(|revision| revision == "echo@2") && first.iter().any(|revision| revision == "echo@1"));
    let again = |host: &Host| -> Vec<String> { late.iter().map(|name| call(host, name)).collect() };
    assert_eq!(first, again(&host));
    assert_eq!(host.caxton(&["rollout", "promote", "echo"]).0, 0);
    host.until("most of it goes to the new one", weight(90));
    assert!(early.iter().all(|name| call(&host, name) == "echo@1"), "they began before");
    assert_eq!(first, again(&host), "also while weights rise");
}

#[test]
fn a_pause_lasts_until_a_promote() {
    let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 10, for = \"0s\" }, { pause = true }] }\nrollback = { min-messages = 0 }\n";
    let mut host = host(&agent("echo", "echo", steps));
    let (code, _, said) = host.caxton(&["rollout", "status", "echo"]);
    assert_eq!(code, 3, "{said}");
    host.edit(&file(&agent("echo", "echo", &format!("{steps}config = {{ n = \"2\" }}\n"))));
    host.until_agent("echo", "it is paused", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("until somebody promotes"))
    });
    let (code, _, said) = host.caxton(&["rollout", "resume", "echo"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("waits for `promote`"), "{said}");
    let (code, _, said) = host.caxton(&["rollout", "promote", "echo"]);
    assert_eq!(code, 0, "{said}");
    host.until_agent("echo", "all is with the new one", |status| states_are(status, &[(2, "running")]));
    host.until("it was watched enough", |host| {
        (host.api().get("/v1/rollouts/echo").json()[0]["status"] == "completed").then_some(())
    });
    let (code, told, said) = host.caxton(&["rollout", "history", "echo", "-o", "json"]);
    assert_eq!(code, 0, "{said}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told[0]["status"], &told[0]["to"]), (&json!("completed"), &json!("echo@2")), "{told}");
    // By the bytes and settings that ran.
    host.caxton(&["rollout", "undo", "echo"]);
    host.until_agent("echo", "the first one runs again", |status| states_are(status, &[(1, "running")]));
    host.until_agent("echo", "the file does not undo it", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("undone by"))
    });
    host.caxton(&["rollout", "retry", "echo"]);
}

#[test]
fn an_undo_gives_a_stateful_agent_the_memory_that_it_handed_over() {
    let mut host = host(&agent("session", "session", ""));
    assert_eq!((remember(&host, "one"), remember(&host, "two")), (json!(1), json!(2)));
    host.edit(&file(&agent("session", "session", "config = { n = \"2\" }")));
    host.until_agent("session", "it is handed over", |status| states_are(status, &[(2, "running")]));
    assert_eq!(remember(&host, "three"), 3);
    let (code, _, said) = host.caxton(&["rollout", "undo", "session"]);
    assert_eq!(code, 0, "{said}");
    host.until_agent("session", "the first one runs again", |status| states_are(status, &[(1, "running")]));
    assert_eq!(remember(&host, "again three"), 3);
}

fn remember(host: &Host, text: &str) -> Value {
    let headers = [("caxton-conversation", "c")];
    host.client().send(http::Method::POST, "/session", &headers, text.to_owned()).json()["remembered"].clone()
}

#[test]
fn memory_that_is_discarded_is_there_again_after_an_undo() {
    let discards = "reload = { state = \"discard\" }\n";
    let mut host = host(&agent("session", "session", discards));
    assert_eq!((remember(&host, "one"), remember(&host, "two")), (json!(1), json!(2)));
    host.edit(&file(&agent("session", "session", &format!("{discards}config = {{ n = \"2\" }}"))));
    host.until_agent("session", "the new one runs", |status| states_are(status, &[(2, "running")]));
    assert_eq!(remember(&host, "another one"), 1);
    // Also for the next host: what is there now is what the new one remembers.
    let (_, setup) = host.stop();
    let mut host = setup.start();
    assert_eq!(remember(&host, "another two"), 2);
    let (code, _, said) = host.caxton(&["rollout", "undo", "session"]);
    assert_eq!(code, 0, "{said}");
    host.until_agent("session", "the first one runs again", |status| states_are(status, &[(1, "running")]));
    assert_eq!(remember(&host, "three"), 3);
}

#[test]
fn memory_that_was_saved_when_idle_is_there_again_after_an_undo() {
    let idle = "instances = { min = 0, idle = \"1s\" }\n";
    let mut host = host(&agent("session", "session", idle));
    assert_eq!((remember(&host, "one"), remember(&host, "two")), (json!(1), json!(2)));
    host.until_agent("session", "its memory is saved", |status| status["instances"] == 0);
    host.edit(&file(&agent("session", "session", &format!("{idle}config = {{ n = \"2\" }}"))));
    host.until_agent("session", "it is handed over", |status| states_are(status, &[(2, "running")]));
    assert_eq!(remember(&host, "three"), 3);
    let (code, _, said) = host.caxton(&["rollout", "undo", "session"]);
    assert_eq!(code, 0, "{said}");
    host.until_agent("session", "the first one runs again", |status| states_are(status, &[(1, "running")]));
    assert_eq!(remember(&host, "three again"), 3);
}

#[test]
fn messages_that_fail_on_the_candidate_are_retried_on_stable() {
    let settings = |like: &str| {
        let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"1h\" }] }";
        let rules = "rollback = { min-messages = 10_000 }\nmailbox = { backoff = { first = \"100ms\" } }";
        let route = "[[agents.diary.http]]\nroute = \"/keep\"\nmode = \"enqueue\"\n";
        let toml = agent("diary", "diary", &format!("config = {{ like = \"{like}\" }}\n{steps}\n{rules}"));
        file(&(toml + route))
    };
    let mut host = Host::start(crate::BINARY, &settings("old"));
    host.edit(&settings("traps"));
    host.until_agent("diary", "both run", |status| states_are(status, &[(1, "running"), (2, "running")]));
    let client = host.client();
    for nth in 0..40 {
        // Each of these ids is one that the candidate traps at.
        let body = json!({ "conversation": format!("c{nth}"), "n": 0, "id": 7 });
        let sent = client.post("/keep", body.to_string());
        assert_eq!(sent.status.as_u16(), 202, "{}", sent.text());
    }
    host.until_agent("diary", "all are handled", |status| status["handled"] == 40);
    let rollout = host.api().get("/v1/rollouts/diary").json()[0].clone();
    assert_eq!((&rollout["stable_messages"], &rollout["weight"]), (&json!(40), &json!(50)), "{rollout}");
    // Half was meant for it. Who traps twice in a row has pauses between its instances, and stable handles what comes in
    // them.
    let tried = rollout["candidate_messages"].as_u64().unwrap_or_default();
    assert!((2..=20).contains(&tried), "{rollout}");
    host.caxton(&["rollout", "abort", "diary"]);
    host.until_agent("diary", "the old one has all", |status| states_are(status, &[(1, "running")]));
    let page = client.post("/diary", json!({ "audit": null, "limit": 100 }).to_string()).json();
    let did: BTreeMap<String, Vec<(String, u32)>> = serde_json::from_value(page["did"].clone()).expect("a page");
    let by = |attempt| did.values().filter(|list| **list == [("old".to_owned(), attempt)]).count();
    assert_eq!((did.len(), by(1) + by(2)), (40, 40), "{did:?}");
    assert_eq!(by(2) as u64, tried, "what failed on the candidate, and nothing else, had a second attempt: {did:?}");
}

#[test]
fn a_failing_candidate_is_rolled_back_and_leaves_no_breaker_open() {
    // It opens long before there are messages enough to judge by.
    let breaker = "breaker = { faults = 3 }\n";
    let settings = |like: &str| file(&agent("diary", "diary", &format!("config = {{ like = \"{like}\" }}\n{breaker}")));
    let mut host = Host::start(crate::BINARY, &settings("old"));
    host.edit(&settings("traps"));
    host.until_agent("diary", "it has all traffic", |status| states_are(status, &[(2, "running")]));
    let client = host.client();
    let ask = |nth: u64| {
        let body = json!({ "conversation": format!("c{nth}"), "n": 0, "id": 7 });
        client.post("/diary", body.to_string()).status.as_u16()
    };
    assert!((0..3).all(|nth| ask(nth) == 500), "it traps at each of them");
    host.until_output("its breaker opens");
    host.until_agent("diary", "the old one runs again", |status| states_are(status, &[(1, "running")]));
    assert_eq!((ask(3), &host.agent("diary")["breaker"]), (200, &json!("closed")));
    let (code, told, _) = host.caxton(&["rollout", "status", "diary"]);
    assert_eq!(code, 6, "{told}");
    assert!(
        told.contains("rolled-back") && told.contains("errors: 3 of 3 messages failed, and its breaker opened"),
        "{told}"
    );
    let (_, told, _) = host.caxton(&["ps"]);
    assert!(told.contains("errors: 3 of 3 messages failed"), "{told}");
}

#[test]
fn a_rollout_is_watched_to_its_end() {
    let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"1s\" }] }\n";
    let settings = |like: &str| {
        let rules = "rollback = { min-messages = 20, slower = \"10000%\" }";
        file(&agent("diary", "diary", &format!("config = {{ like = \"{like}\" }}\n{steps}{rules}\n")))
    };
    let mut host = Host::start(crate::BINARY, &settings("old"));
    let (code, _, said) = host.caxton(&["rollout", "watch", "diary"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("has had no rollout"), "{said}");
    let load =
        Load::new(&host, "/diary", 2, |nth| json!({ "conversation": "c", "n": nth, "id": 20 * nth }).to_string());
    host.edit(&settings("good"));
    host.until_agent("diary", "it began", |status| states(status).len() == 2);
    let (code, told, said) = host.caxton(&["rollout", "watch", "diary"]);
    assert_eq!(code, 0, "{told}{said}");
    let lines: Vec<&str> = told.lines().collect();
    let at = |part: &str| lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {told}"));
    assert!(at("in-progress 50%: ") < at("completed 100%: diary@2 runs"), "{told}");
    assert!(told.contains("probes passed, 0 failed"), "{told}");
    let (code, told, _) = host.caxton(&["rollout", "watch", "diary", "-o", "json"]);
    assert_eq!(code, 0, "what is over is told as well");
    let last: Value = serde_json::from_str(told.trim()).expect("one rollout on a line");
    assert_eq!(
        (&last["status"], &last["failed_instances"], &last["measured"]),
        (&json!("completed"), &json!(0), &Value::Null)
    );
    assert!(
        last["peak_memory_bytes"].as_u64() > Some(1 << 20) && last["started_instances"].as_u64() > Some(0),
        "{last}"
    );
    load.end();
    // One that comes to nothing, seen by who applies it and by who watches.
    host.edit(&settings("unready"));
    let (code, told, said) = host.caxton(&["apply"]);
    assert_eq!(code, 6, "{told}{said}");
    assert!(said.contains("told not to be ready"), "{said}");
    let (code, told, _) = host.caxton(&["rollout", "watch", "diary", "-o", "json"]);
    let last: Value = serde_json::from_str(told.trim()).expect("one rollout on a line");
    assert_eq!((code, &last["status"], &last["failed_instances"]), (6, &json!("failed"), &json!(1)), "{last}");
    let (code, _, said) = host.caxton(&["apply"]);
    assert_eq!(code, 6, "{said}");
    host.edit(&settings("good"));
    let (code, _, said) = host.caxton(&["apply", "--no-wait"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn the_statistics_of_a_rollout_survive_kill_9() {
    let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"1h\" }] }\n";
    let mut host = host(&agent("echo", "echo", steps));
    host.edit(&file(&agent("echo", "echo", &format!("{steps}config = {{ n = \"2\" }}\n"))));
    host.until_agent("echo", "both run", |status| states_are(status, &[(1, "running"), (2, "running")]));
    let client = host.client();
    (0..40).for_each(|_| assert_eq!(client.post("/echo", "ping").status.as_u16(), 200));
    let kept = host.folder().join(".caxton/caxton.db");
    let database = rusqlite::Connection::open(kept).expect("the store is there");
    host.until("they are kept", |_| {
        let record: String = database.query_row("SELECT record FROM ledger", [], |row| row.get(0)).ok()?;
        let ledger: Value = serde_json::from_str(&record).ok()?;
        let figures = &ledger["rollouts"][0]["figures"];
        (figures["stable-messages"] == 20 && figures["candidate-messages"] == 20).then_some(())
    });
    drop(database);
    let host = host.kill().start();
    let newest = host.api().get("/v1/rollouts/echo").json()[0].clone();
    assert_eq!((&newest["stable_messages"], &newest["candidate_messages"]), (&json!(20), &json!(20)), "{newest}");
    (0..10).for_each(|_| assert_eq!(host.client().post("/echo", "ping").status.as_u16(), 200));
    let newest = host.api().get("/v1/rollouts/echo").json()[0].clone();
    assert_eq!((&newest["stable_messages"], &newest["candidate_messages"]), (&json!(25), &json!(25)), "{newest}");
}

#[test]
fn a_stateful_agent_is_not_split() {
    let mut host = host(&agent("session", "session", ""));
    let canary = "deploy = { strategy = \"canary\" }\nconfig = { n = \"2\" }\n";
    host.edit(&file(&agent("session", "session", canary)));
    host.until_agent("session", "it is refused with the way out", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("blue-green"))
    });
    assert_eq!(host.agent("session")["revision"], json!("session@1"));
    let (code, told, said) = host.caxton(&["check"]);
    assert_eq!(code, 2, "{told}{said}");
    assert!((told + &said).contains("blue-green"));
}

#[test]
fn status_shows_the_replies_of_both_revisions_during_and_after_a_rollout() {
    let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"1s\" }, { pause = true }] }\n";
    let settings = format!("{steps}rollback = {{ min-messages = 0, slower = \"10000%\" }}\n");
    let mut host = host(&agent("echo", "echo", &settings));
    assert_eq!(host.client().post("/echo", "before").status.as_u16(), 200);
    host.edit(&file(&agent("echo", "echo", &format!("{settings}config = {{ n = \"2\" }}\n"))));
    let newest = |host: &Host| host.api().get("/v1/rollouts/echo").json()[0].clone();
    host.until("a person is waited for", |host| (newest(host)["status"] == "paused").then_some(()));
    let client = host.client();
    (0..20).for_each(|_| assert_eq!(client.post("/echo", "ping").status.as_u16(), 200));
    let answered = |rollout: &Value| (rollout["stable_messages"].clone(), rollout["candidate_messages"].clone());
    assert_eq!(answered(&newest(&host)), (json!(10), json!(10)));
    let (code, _, said) = host.caxton(&["rollout", "promote", "echo"]);
    assert_eq!(code, 0, "{said}");
    host.until("it is over", |host| (newest(host)["status"] == "completed").then_some(()));
    // The old revision has ended, and what it did is known.
    host.until_agent("echo", "the old one has ended", |status| states_are(status, &[(2, "running")]));
    assert_eq!(answered(&newest(&host)), (json!(10), json!(10)));
    let (_, told, _) = host.caxton(&["rollout", "status", "echo"]);
    assert!(told.contains("completed, took ") && told.contains("echo@1 answered 10, echo@2 10"), "{told}");
}
