//! The operator's view of dead letters, paused mailboxes and open breakers.

use caxton_tests::Host;
use http::Method;
use serde_json::{Value, json};

use crate::{agent, file, host};

/// An agent that is tried three times, in quick succession.
fn agent_with_attempts(name: &str, guest: &str, more: &str) -> String {
    let breaker = if more.contains("breaker") { "" } else { "breaker = { faults = 100 }\n" };
    agent(name, guest, &format!("mailbox = {{ attempts = 3, backoff = {{ first = \"100ms\" }} }}\n{breaker}{more}"))
}

/// Enqueues a message. Returns its id.
fn send(host: &Host, agent: &str, action: &Value) -> String {
    let reply = host.api().post(&format!("/v1/agents/{agent}/messages"), action.to_string());
    assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
    reply.json()["id"].as_str().expect("an id").to_owned()
}

fn fail(cause: &str, reason: &str) -> Value {
    json!({"do": "fail", "cause": cause, "reason": reason})
}

fn list_dead_letters(host: &Host, query: &str) -> Vec<Value> {
    let page = host.api().get(&format!("/v1/dead-letters{query}")).json();
    page["dead_letters"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
}

/// Waits until an agent has this many dead letters.
fn until_dead_letters(host: &mut Host, agent: &str, count: usize) -> Vec<Value> {
    host.until(&format!("{count} dead letters of {agent}"), |host| {
        Some(list_dead_letters(host, &format!("?agent={agent}"))).filter(|dead| dead.len() == count)
    })
}

/// A problem's status and code.
fn problem_of(host: &Host, method: Method, path: &str) -> (u16, String, String) {
    let problem = host.api().send(method, path, &[], "");
    let json = problem.json();
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    (problem.status.as_u16(), text("code"), text("detail"))
}

#[test]
fn a_message_whose_handling_always_fails_is_kept_with_every_attempt() {
    let mut host = host(&agent_with_attempts("rogue", "rogue", ""));
    let id = send(&host, "rogue", &json!({"do": "trap"}));
    let found = until_dead_letters(&mut host, "rogue", 1).remove(0);
    assert_eq!((&found["id"], &found["reason"]), (&json!(id), &json!("attempts-exhausted")), "{found}");
    assert_eq!((&found["tried"], &found["revision"]), (&json!(3), &json!("rogue@1")), "{found}");
    // Neither a power cut nor a restart takes it.
    let host = host.kill().start();
    let shown = host.api().get(&format!("/v1/dead-letters/{}", found["number"])).json();
    assert_eq!(shown["text"], r#"{"do":"trap"}"#);
    assert_eq!(shown["content_base64"], "eyJkbyI6InRyYXAifQ==");
    let attempts = shown["attempts"].as_array().expect("attempts");
    let numbers: Vec<u64> = attempts.iter().filter_map(|attempt| attempt["number"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3], "{shown}");
    for attempt in attempts {
        assert_eq!((&attempt["code"], &attempt["revision"]), (&json!("trap"), &json!("rogue@1")), "{attempt}");
        let error = attempt["error"].as_str().expect("an error");
        assert!(error.contains("trap") && error.contains("rogue"), "the backtrace is there: {error}");
        assert!(attempt["took_us"].as_u64() > Some(0) && attempt["at"].as_u64() > Some(0), "{attempt}");
    }
    let times: Vec<u64> = attempts.iter().filter_map(|attempt| attempt["at"].as_u64()).collect();
    assert!(times[1] >= times[0] + 80 && times[2] >= times[1] + 160, "the backoff grows: {times:?}");
    let (code, text, _) = host.caxton(&["dead", "show", &found["number"].to_string()]);
    assert!(code == 0 && text.contains("attempt 3 at") && text.ends_with("{\"do\":\"trap\"}\n"), "{text}");
    let receipt = host.client().get(&format!("/.caxton/messages/{id}")).json();
    assert_eq!((&receipt["state"], &receipt["code"]), (&json!("failed"), &json!("attempts-exhausted")), "{receipt}");
    let (_, table, _) = host.caxton(&["dead", "ls"]);
    assert!(table.contains("rogue") && table.contains("attempts-exhausted"), "{table}");
    assert_eq!(host.agent("rogue")["dead_letters"], 1);
}

#[test]
fn a_transient_failure_is_retried_and_a_rejected_message_is_not() {
    let mut host = host(&agent_with_attempts("rogue", "rogue", ""));
    send(&host, "rogue", &json!({"do": "fail-until", "attempt": 3}));
    host.until_agent("rogue", "it is handled", |status| status["handled"] == 1);
    let status = host.agent("rogue");
    assert_eq!(
        (&status["retries"], &status["failed"], &status["later"]),
        (&json!(2), &json!(0), &json!(0)),
        "{status}"
    );
    assert!(list_dead_letters(&host, "").is_empty());
    send(&host, "rogue", &fail("rejected", "no such customer"));
    let found = until_dead_letters(&mut host, "rogue", 1).remove(0);
    assert_eq!((&found["reason"], &found["tried"]), (&json!("invalid"), &json!(1)), "{found}");
    assert!(found["error"].as_str().is_some_and(|error| error.contains("no such customer")), "{found}");
    let metrics = caxton_tests::Client::new(&host.admin, None).get("/metrics").text();
    for line in [
        r#"caxton_messages_retried_total{agent="rogue"} 2"#,
        r#"caxton_failures_total{agent="rogue",code="agent-fault"} 2"#,
        r#"caxton_failures_total{agent="rogue",code="rejected"} 1"#,
        r#"caxton_dead_letters_total{agent="rogue",reason="invalid"} 1"#,
        r#"caxton_dead_letters{agent="rogue"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn dead_letters_are_redelivered_one_some_or_all_after_a_fix() {
    let toml = |guest: &str| agent_with_attempts("one", guest, "") + &agent_with_attempts("two", guest, "");
    let mut host = host(&toml("rogue"));
    for number in 0..3 {
        send(&host, "one", &fail("fault", &format!("on purpose {number}")));
    }
    send(&host, "one", &fail("rejected", "never"));
    send(&host, "two", &fail("fault", "on purpose"));
    let numbers: Vec<u64> =
        until_dead_letters(&mut host, "one", 4).iter().filter_map(|dead| dead["number"].as_u64()).collect();
    until_dead_letters(&mut host, "two", 1);

    // A revision that does not run is refused, and nothing is lost.
    let path = format!("/v1/dead-letters/{}/redeliver?revision=one@2", numbers[0]);
    let (status, code, detail) = problem_of(&host, Method::POST, &path);
    assert_eq!((status, code.as_str()), (409, "other-revision"));
    assert!(detail.contains("one@1 runs"), "{detail}");
    assert_eq!(list_dead_letters(&host, "").len(), 5);

    host.edit(&file(&toml("echo")));
    for agent in ["one", "two"] {
        let wanted = json!(format!("{agent}@2"));
        host.until_agent(agent, "it is mended", |status| status["revision"] == wanted);
    }
    let reply = host.api().post(&path, "").json();
    assert_eq!(reply, json!({"redelivered": 1, "left": []}));
    host.until_agent("one", "one is handled", |status| status["handled"] == 1);
    let receipt = |host: &Host, id: &str| host.client().get(&format!("/.caxton/messages/{id}")).json();
    let (code, stdout, stderr) =
        host.caxton(&["dead", "redeliver", "--agent", "one", "--reason", "attempts-exhausted", "-o", "json"]);
    assert_eq!(
        (code, serde_json::from_str::<Value>(&stdout).expect("JSON")["redelivered"].as_u64()),
        (0, Some(2)),
        "{stderr}"
    );
    host.until_agent("one", "three are handled", |status| status["handled"] == 3);
    let left = list_dead_letters(&host, "");
    assert_eq!(left.iter().map(|dead| &dead["agent"]).collect::<Vec<_>>(), ["one", "two"]);
    let (code, _, stderr) = host.caxton(&["dead", "redeliver", "--all"]);
    assert_eq!((code, stderr.trim()), (0, "2 dead letters redelivered"));
    host.until_agent("two", "the last is handled", |status| status["handled"] == 1);
    host.until_agent("one", "all are handled", |status| status["handled"] == 4);
    assert!(list_dead_letters(&host, "").is_empty());
    // As a message of before a restart, too.
    for found in left {
        let id = found["id"].as_str().expect("an id");
        assert_eq!(receipt(&host, id)["state"], "handled");
    }
    let events = host.api().get("/v1/events?agent=one&limit=1000").json();
    let events: Vec<&Value> = events.as_array().expect("events").iter().collect();
    let told = |event: &&&Value| event["kind"] == "dead-letter.redelivered";
    let by: Vec<&str> = events.iter().filter(told).filter_map(|event| event["data"]["by"].as_str()).collect();
    assert!(by.len() == 3 && by[0].starts_with("api:") && by[2].starts_with("cli:"), "{by:?}");
}

#[test]
fn redelivered_messages_survive_a_power_cut_and_have_all_attempts_again() {
    let mut host = host(&agent_with_attempts("rogue", "rogue", ""));
    let id = send(&host, "rogue", &fail("fault", "on purpose"));
    until_dead_letters(&mut host, "rogue", 1);
    assert_eq!(host.caxton(&["mailbox", "pause", "rogue"]).0, 0);
    assert_eq!(host.caxton(&["dead", "redeliver", "--all"]).0, 0);
    assert_eq!(host.agent("rogue")["mailbox_depth"], 1);
    let mut host = host.kill().start();
    let status = host.agent("rogue");
    assert_eq!(
        (&status["mailbox_depth"], &status["held"], &status["dead_letters"]),
        (&json!(1), &json!(true), &json!(0))
    );
    assert_eq!(host.caxton(&["mailbox", "resume", "rogue"]).0, 0);
    let found = until_dead_letters(&mut host, "rogue", 1).remove(0);
    assert_eq!((&found["id"], &found["tried"]), (&json!(id), &json!(3)), "{found}");
}

#[test]
fn dead_letters_of_a_removed_agent_are_kept_until_it_returns() {
    let rogue = agent_with_attempts("rogue", "rogue", "");
    let other = agent("other", "echo", "");
    let mut host = host(&(rogue.clone() + &other));
    send(&host, "rogue", &fail("rejected", "never"));
    let number = until_dead_letters(&mut host, "rogue", 1)[0]["number"].to_string();
    host.edit(&file(&other));
    host.until("rogue is gone", |host| (host.api().get("/v1/agents/rogue").status.as_u16() == 404).then_some(()));
    for path in [format!("/v1/dead-letters/{number}/redeliver"), "/v1/dead-letters/redeliver?agent=rogue".to_owned()] {
        let (status, code, detail) = problem_of(&host, Method::POST, &path);
        assert_eq!((status, code.as_str()), (409, "not-declared"), "{path}");
        assert!(detail.contains("`rogue` is not declared"), "{detail}");
    }
    let (code, _, stderr) = host.caxton(&["dead", "redeliver", "--all"]);
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("1 dead letter of rogue left as they are: the agent `rogue` is not declared"), "{stderr}");
    host.edit(&file(&(agent_with_attempts("rogue", "echo", "") + &other)));
    host.until_agent("rogue", "it is back", |status| status["state"] == "running");
    assert_eq!(host.caxton(&["dead", "redeliver", &number]).0, 0);
    host.until_agent("rogue", "it is handled", |status| status["handled"] == 1);
}

#[test]
fn dead_letters_are_dropped_only_when_selected() {
    let mut host = host(&(agent_with_attempts("one", "rogue", "") + &agent_with_attempts("two", "rogue", "")));
    for agent in ["one", "one", "two", "two"] {
        send(&host, agent, &fail("rejected", "never"));
    }
    let number = until_dead_letters(&mut host, "one", 2)[0]["number"].to_string();
    until_dead_letters(&mut host, "two", 2);
    for (method, path, status, code, part) in [
        (Method::DELETE, "/v1/dead-letters", 409, "unclear", "`all=true`"),
        (Method::POST, "/v1/dead-letters/redeliver", 409, "unclear", "`all=true`"),
        (Method::DELETE, "/v1/dead-letters?all=true&agent=one", 409, "unclear", "leave out"),
        (Method::DELETE, "/v1/dead-letters?agnt=one", 400, "bad-request", "agnt"),
        (Method::POST, "/v1/dead-letters/redeliver?all=true&revision=one", 400, "bad-request", "AGENT@NUMBER"),
        (Method::POST, "/v1/dead-letters/redeliver?agent=one&revision=two@1", 409, "unclear", "no revision of `one`"),
        (Method::GET, "/v1/dead-letters?limit=1001", 400, "bad-request", "between 1 and 1000"),
        (Method::GET, "/v1/dead-letters/999999", 404, "no-dead-letter", "caxton dead ls"),
        (Method::GET, "/v1/dead-letters/x", 400, "bad-request", "no number"),
        (Method::DELETE, "/v1/dead-letters/999999", 404, "no-dead-letter", "999999"),
        (Method::POST, "/v1/dead-letters/999999/redeliver", 404, "no-dead-letter", "999999"),
        (Method::POST, "/v1/mailboxes/three/pause", 404, "no-agent", "three"),
    ] {
        let (found, found_code, detail) = problem_of(&host, method, path);
        assert_eq!((found, found_code.as_str()), (status, code), "{path}: {detail}");
        assert!(detail.contains(part), "{path}: {detail}");
    }
    for (arguments, code) in [
        (&["dead", "drop"][..], 2),
        (&["dead", "redeliver"], 2),
        (&["dead", "drop", "--all", "--agent", "one"], 2),
        (&["dead", "drop", "999999"], 3),
        (&["dead", "show", "999999"], 3),
        (&["mailbox", "pause", "three"], 3),
    ] {
        assert_eq!(host.caxton(arguments).0, code, "{arguments:?}");
    }
    assert_eq!(list_dead_letters(&host, "").len(), 4);
    let page = host.api().get("/v1/dead-letters?limit=3").json();
    assert_eq!(list_dead_letters(&host, &format!("?after={}", page["next"])).len(), 1, "a page at a time");

    assert_eq!(host.caxton(&["dead", "drop", &number]).0, 0);
    assert_eq!(list_dead_letters(&host, "?agent=one").len(), 1);
    let reply = host.api().send(Method::DELETE, "/v1/dead-letters?agent=two&reason=invalid", &[], "").json();
    assert_eq!(reply["dropped"], 2);
    assert_eq!(host.caxton(&["dead", "drop", "--all"]).0, 0);
    assert!(list_dead_letters(&host, "").is_empty());
    assert!(list_dead_letters(&host.kill().start(), "").is_empty(), "for good");
}

#[test]
fn the_sender_of_a_dead_question_gets_a_failure() {
    let allow = "allow = { send = [\"failing\"] }";
    let mut host = host(&(agent_with_attempts("asker", "rogue", allow) + &agent_with_attempts("failing", "rogue", "")));
    let question =
        json!({"do": "send", "to": "failing", "content": fail("fault", "on purpose"), "with": {"conversation": "c-7"}});
    send(&host, "asker", &question);
    // The guest takes a failure for no action of its own and rejects it, so it can be looked at.
    let found = until_dead_letters(&mut host, "asker", 1).remove(0);
    assert_eq!(
        (&found["performative"], &found["sender"], &found["conversation"]),
        (&json!("failure"), &json!("failing"), &json!("c-7")),
        "{found}"
    );
    let shown = host.api().get(&format!("/v1/dead-letters/{}", found["number"])).json();
    assert!(shown["text"].as_str().is_some_and(|text| text.contains("on purpose")), "{shown}");
    let failed = until_dead_letters(&mut host, "failing", 1).remove(0);
    assert_eq!(failed["reason"], "attempts-exhausted");
}

#[test]
fn a_paused_mailbox_takes_messages_and_keeps_them_also_over_a_restart() {
    let mut host = host(&(agent("counter", "counter", "mailbox = { depth = 3 }") + &agent("web", "web-echo", "")));
    assert_eq!(host.caxton(&["mailbox", "pause", "counter"]).0, 0);
    for _ in 0..3 {
        send(&host, "counter", &json!({"by": 2}));
    }
    let (status, code, _) = problem_of(&host, Method::POST, "/v1/agents/counter/messages");
    assert_eq!((status, code.as_str()), (503, "mailbox-full"));
    let (_, table, _) = host.caxton(&["ps"]);
    assert!(table.contains("running (paused)"), "{table}");
    let (status, code, _) = problem_of(&host, Method::POST, "/v1/mailboxes/web/pause");
    assert_eq!((status, code.as_str()), (409, "http-agent"));
    host = host.kill().start();
    let mailbox = host.api().get("/v1/mailboxes").json()[0].clone();
    assert_eq!(
        (&mailbox["agent"], &mailbox["depth"], &mailbox["held"]),
        (&json!("counter"), &json!(3), &json!(true)),
        "{mailbox}"
    );
    assert!(mailbox["oldest_ms"].is_u64(), "{mailbox}");
    assert_eq!(host.agent("counter")["handled"], 0);
    // An agent that is declared anew is paused as well, for its name is.
    host.edit(&file(""));
    host.until("counter is gone", |host| (host.api().get("/v1/agents/counter").status.as_u16() == 404).then_some(()));
    host.edit(&file(&agent("counter", "counter", "")));
    host.until_agent("counter", "it is back", |status| status["state"] == "running");
    assert_eq!(host.agent("counter")["held"], true);
    assert_eq!(host.caxton(&["dead", "redeliver", "--agent", "counter"]).0, 0);
    let (code, stdout, _) = host.caxton(&["mailbox", "resume", "counter", "-o", "json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&stdout).expect("JSON")["held"].as_bool()), (0, Some(false)));
    host.until_agent("counter", "all are handled", |status| status["handled"] == 3);
    assert_eq!(host.client().post("/counter", r#"{"by": 0}"#).json()["count"], 6);
    let events = host.api().get("/v1/events?agent=counter&limit=1000").json();
    let kinds: Vec<&str> =
        events.as_array().expect("events").iter().filter_map(|event| event["kind"].as_str()).collect();
    let paused = kinds.iter().filter(|kind| kind.starts_with("mailbox.")).collect::<Vec<_>>();
    assert_eq!(paused, [&"mailbox.paused", &"mailbox.resumed"]);
}

#[test]
fn a_message_expires_in_a_paused_mailbox() {
    let mut host = host(&agent("counter", "counter", "mailbox = { timeout = \"1s\" }"));
    assert_eq!(host.caxton(&["mailbox", "pause", "counter"]).0, 0);
    let id = send(&host, "counter", &json!({"by": 2}));
    let found = until_dead_letters(&mut host, "counter", 1).remove(0);
    assert_eq!(
        (&found["id"], &found["reason"], &found["tried"]),
        (&json!(id), &json!("expired"), &json!(0)),
        "{found}"
    );
    let status = host.agent("counter");
    assert_eq!((&status["mailbox_depth"], &status["failed"]), (&json!(0), &json!(1)), "{status}");
    let receipt = host.client().get(&format!("/.caxton/messages/{id}")).json();
    assert_eq!((&receipt["state"], &receipt["code"]), (&json!("failed"), &json!("expired")), "{receipt}");
}

#[test]
fn repeated_failures_open_the_breaker_for_a_while() {
    let mut host = host(&agent_with_attempts("rogue", "rogue", "breaker = { faults = 3, reset = \"5s\" }"));
    let client = host.client();
    for _ in 0..3 {
        assert_eq!(client.post("/rogue", fail("fault", "on purpose").to_string()).status.as_u16(), 500);
    }
    let reply = client.post("/rogue", r#"{"do":"reply","text":"fine"}"#);
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (503, &json!("breaker-open")), "{}", reply.text());
    let after: u64 = reply.header("retry-after").parse().expect("a number of seconds");
    assert!((1..=5).contains(&after), "{after}");
    let asked = host.api().post("/v1/agents/rogue/invoke", r#"{"do":"none"}"#);
    assert_eq!((asked.status.as_u16(), &asked.json()["code"]), (503, &json!("breaker-open")));
    // What nobody waits for is taken, and waits.
    send(&host, "rogue", &json!({"do": "none"}));
    let status = host.agent("rogue");
    assert_eq!(
        (&status["breaker"], &status["mailbox_depth"], &status["handled"]),
        (&json!("open"), &json!(1), &json!(0)),
        "{status}"
    );
    let (_, table, _) = host.caxton(&["ps"]);
    assert!(table.contains("running (breaker open)"), "{table}");
    let metrics = caxton_tests::Client::new(&host.admin, None).get("/metrics").text();
    assert!(metrics.contains("caxton_breaker_open{agent=\"rogue\"} 1\n"), "{metrics}");
    // The message that waits is the trial, and goes well.
    host.until_agent("rogue", "the breaker closes", |status| status["breaker"] == "closed");
    assert_eq!(host.agent("rogue")["handled"], 1);
    assert_eq!(client.post("/rogue", r#"{"do":"reply","text":"fine"}"#).text(), "fine");
    let (_, events, _) = host.caxton(&["events", "rogue"]);
    assert!(events.contains("breaker.opened") && events.contains("breaker.closed"), "{events}");
}
