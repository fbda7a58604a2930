//! Calls that are recorded with their message, so that another attempt makes none of them again.

use std::fs;

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use super::server::Server;
use super::{act, caller, until_logged};
use crate::{BINARY, metric};

/// Returns a file with the agent, whose place has these settings and which takes messages at `/pay`.
fn payer(server: &Server, place: &str, outgoing: &str, more: &str) -> String {
    let place = format!("{{ url = \"http://{}/*\", private = true, {place} }}", server.address);
    let breaker =
        "breaker = { faults = 100 }\nmailbox = { attempts = 3, backoff = { first = \"100ms\", max = \"100ms\" } }";
    let more = if more.contains("mailbox") { more.to_owned() } else { format!("{breaker}\n{more}") };
    caller(&place, outgoing, &more) + "[[agents.caller.http]]\nroute = \"/pay\"\nmode = \"enqueue\"\n"
}

fn host(server: &Server, place: &str, outgoing: &str, more: &str) -> Host {
    Setup::new(BINARY, &payer(server, place, outgoing, more)).start()
}

/// Sends a message that is kept.
fn send(host: &Host, action: &Value) {
    assert_eq!(host.client().post("/pay", action.to_string()).status.as_u16(), 202);
}

fn payment(url: &str, id: &str, more: &Value) -> Value {
    let mut action = json!({ "do": "pay", "call": { "method": "POST", "url": url, "body": id }, "id": id });
    action.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    action
}

fn until_handled(host: &mut Host, count: u64) {
    host.until_agent("caller", "messages are handled", |status| status["handled"] == count);
}

/// Returns how often a payment is noted in the agent's state.
fn paid(host: &Host, id: &str) -> String {
    host.caxton(&["state", "get", "caller", &format!("paid/{id}")]).1.trim().to_owned()
}

/// Waits for a dead letter. Returns it in full.
fn until_dead(host: &mut Host) -> Value {
    let number = host
        .until("a dead letter", |host| host.api().get("/v1/dead-letters").json()["dead_letters"][0]["number"].as_u64());
    host.api().get(&format!("/v1/dead-letters/{number}")).json()
}

fn counted(host: &Host, server: &Server, result: &str) -> u64 {
    metric(
        host,
        &format!(
            "caxton_outgoing_journal_total{{agent=\"caller\",place=\"http://{}/*\",result=\"{result}\"}}",
            server.address
        ),
    )
}

/// Returns the idempotency keys that the server got.
fn keys(server: &Server) -> Vec<String> {
    let key = |request: &Value| {
        let headers = request["headers"].as_array().cloned().unwrap_or_default();
        let found = headers.into_iter().find(|header| header[0] == "idempotency-key");
        found.map(|header| header[1].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    server.requests().iter().map(key).collect()
}

#[test]
fn another_attempt_is_answered_from_the_record() {
    let server = Server::start();
    let mut host = host(&server, "journal = true", "", "");
    // Two equal requests, which are two calls.
    send(&host, &payment(&server.url("/status?code=201"), "one", &json!({ "trap-until": 3, "times": 2 })));
    until_handled(&mut host, 1);
    assert_eq!(server.requests().len(), 2, "each call was made once in three attempts");
    assert_eq!((paid(&host, "one").as_str(), counted(&host, &server, "answered")), ("1", 4));
    until_logged(&mut host, "was answered from the record of the same call before");
    host.until("the event", |host| {
        host.caxton(&["events", "-o", "json"]).1.contains("outgoing.answered").then_some(())
    });
    // A message of its own makes its own call.
    send(&host, &payment(&server.url("/status?code=201"), "one", &json!({})));
    until_handled(&mut host, 2);
    assert_eq!(server.requests().len(), 3);
    let (code, told, words) = host.caxton(&["store", "check", "-o", "json"]);
    assert!(code == 0, "the records have left with their messages: {told}{words}");
}

#[test]
fn a_handler_that_runs_again_after_a_conflict_is_answered_from_its_first_run() {
    for place in ["journal = false", "journal = true"] {
        let server = Server::start();
        let mut host = host(&server, place, "", "instances = { max = 4 }");
        for id in ["one", "two"] {
            send(&host, &payment(&server.url("/gate"), id, &json!({ "shared": "sum" })));
        }
        host.until("both have read the sum", |_| (server.waiting() == 2).then_some(()));
        server.open_gate();
        until_handled(&mut host, 2);
        assert_eq!(server.requests().len(), 2, "{place}: the gate was passed once by each");
        assert_eq!(host.caxton(&["state", "get", "caller", "sum"]).1.trim(), "2");
        assert_eq!(counted(&host, &server, "answered"), 1);
    }
}

#[test]
fn another_request_is_made_and_reported() {
    let server = Server::start();
    let mut host = host(&server, "journal = true", "", "");
    send(&host, &payment(&server.url("/status?code=201"), "one", &json!({ "trap-until": 2, "differs": true })));
    until_handled(&mut host, 1);
    assert_eq!((server.requests().len(), counted(&host, &server, "diverged")), (2, 1));
    until_logged(&mut host, "is made, although it is another than those that are recorded of an earlier run");
    host.until("the event", |host| {
        host.caxton(&["events", "-o", "json"]).1.contains("outgoing.diverged").then_some(())
    });
}

#[test]
fn what_exceeds_the_journal_is_an_error_and_not_asked_for_again() {
    let server = Server::start();
    let mut host = host(&server, "journal = true", "journal-max = \"1KiB\"", "");
    let large = server.url("/large?bytes=5000");
    assert_eq!(act(&host, &json!({ "do": "call", "call": { "url": large } }))["error"], "HTTP-response-body-size");
    let line = "the responses to the message's recorded calls have more than 1024 bytes (outgoing.journal-max) \
                (HTTP-response-body-size)";
    until_logged(&mut host, line);
    let upload = json!({ "method": "POST", "url": server.url("/echo"), "body": "x".repeat(2_000) });
    assert_eq!(act(&host, &json!({ "do": "call", "call": upload }))["error"], "HTTP-request-body-size");
    until_logged(&mut host, "which is the most of a request that is recorded (outgoing.journal-max)");
    assert_eq!(server.requests().len(), 1, "the request that is too large was not sent");
    send(&host, &payment(&large, "one", &json!({})));
    let dead = until_dead(&mut host);
    assert_eq!((&dead["reason"], &dead["tried"]), (&json!("attempts-exhausted"), &json!(3)), "{dead}");
    assert_eq!(server.requests().len(), 2, "three attempts have made one call");
    assert_eq!(dead["calls"][0]["outcome"], "answered with more than the journal holds");
    // The sum of a message's responses counts.
    let many = payment(&server.url("/large?bytes=400"), "two", &json!({ "times": 4 }));
    assert_eq!(host.client().post("/caller", many.to_string()).status.as_u16(), 500);
}

#[test]
fn redelivery_keeps_the_record() {
    let server = Server::start();
    let mut host = host(&server, "journal = true", "", "mailbox = { attempts = 1 }\nbreaker = { faults = 100 }");
    send(&host, &json!({ "do": "trap", "call": { "method": "POST", "url": server.url("/status?code=201") } }));
    let dead = until_dead(&mut host);
    assert_eq!(dead["calls"][0]["outcome"], "201", "{dead}");
    assert_eq!(dead["calls"][0]["call"], format!("POST http://{}", server.address));
    let (_, shown, _) = host.caxton(&["dead", "show", &dead["number"].to_string()]);
    assert!(shown.contains(&format!("call POST http://{} at ", server.address)), "{shown}");
    // Also after another start.
    let mut host = host.kill().start();
    for (arguments, requests) in [(&["--all"][..], 1), (&["--all", "--repeat-calls"], 1)] {
        let before = until_dead(&mut host)["number"].clone();
        let (code, _, words) = host.caxton(&[&["dead", "redeliver"], arguments].concat());
        assert_eq!(code, 0, "{words}");
        host.until("it is a dead letter again", |host| {
            let letters = host.api().get("/v1/dead-letters").json();
            letters["dead_letters"][0]["number"].as_u64().filter(|number| before != *number)
        });
        assert_eq!(server.requests().len(), requests, "a success on record is never repeated: {arguments:?}");
    }
    assert!(counted(&host, &server, "answered") >= 2);
    assert_eq!(host.caxton(&["dead", "drop", "--all"]).0, 0);
    assert_eq!(host.caxton(&["store", "check"]).0, 0, "the record leaves with the dead letter");
}

#[test]
fn a_call_of_unknown_outcome_is_for_a_person_to_settle() {
    let server = Server::start();
    let mut host = host(&server, "journal = true", "", "");
    send(&host, &payment(&server.url("/gate"), "one", &json!({})));
    host.until("the server has the request", |_| (server.waiting() == 1).then_some(()));
    let mut host = host.kill().start();
    let dead = until_dead(&mut host);
    assert_eq!((&dead["reason"], &dead["code"]), (&json!("unknown-outcome"), &json!("unknown-outcome")), "{dead}");
    assert!(dead["error"].as_str().is_some_and(|error| error.contains("began in an earlier attempt")), "{dead}");
    assert_eq!(dead["calls"][0]["outcome"], "not known");
    assert_eq!((server.requests().len(), counted(&host, &server, "unknown")), (1, 1));
    host.until("the event", |host| host.caxton(&["events", "-o", "json"]).1.contains("outgoing.unknown").then_some(()));
    // By itself redelivery repeats nothing.
    let number = dead["number"].to_string();
    assert_eq!(host.caxton(&["dead", "redeliver", &number]).0, 0);
    host.until("it is given up again", |host| {
        let letters = host.api().get("/v1/dead-letters").json();
        letters["dead_letters"][0]["number"].as_u64().filter(|found| found.to_string() != number)
    });
    assert_eq!(server.requests().len(), 1);
    server.open_gate();
    assert_eq!(host.caxton(&["dead", "redeliver", "--all", "--repeat-calls"]).0, 0);
    until_handled(&mut host, 1);
    assert_eq!((server.requests().len(), paid(&host, "one").as_str()), (2, "1"));
}

#[test]
fn what_does_no_harm_is_repeated_with_its_key() {
    for (place, method, expected) in [
        ("journal = true, idempotency = \"header\"", "POST", 2),
        ("journal = true, unknown = \"repeat\"", "POST", 2),
        ("journal = true", "GET", 2),
        ("idempotency = \"header\"", "POST", 2),
        ("journal = true, unknown = \"fail\", idempotency = \"header\"", "GET", 1),
    ] {
        let server = Server::start();
        let mut host = host(&server, place, "", "");
        let mut action = payment(&server.url("/gate"), "one", &json!({}));
        action["call"]["method"] = method.into();
        action["call"]["body"] = Value::Null;
        send(&host, &action);
        host.until("the server has the request", |_| (server.waiting() == 1).then_some(()));
        let setup = host.kill();
        server.open_gate();
        let mut host = setup.start();
        if expected == 2 {
            until_handled(&mut host, 1);
        } else {
            assert_eq!(until_dead(&mut host)["reason"], "unknown-outcome", "{place}");
        }
        let keys = keys(&server);
        assert_eq!(keys.len(), expected, "{place}");
        assert!(keys.iter().all(|key| *key == keys[0]), "the same key in each attempt: {keys:?}");
        assert_eq!(!keys[0].is_empty(), place.contains("idempotency"), "{keys:?}");
    }
}

#[test]
fn a_server_that_says_not_now_is_asked_again_where_that_does_no_harm() {
    for (place, requests) in [("journal = true, idempotency = \"header\"", 3), ("journal = true", 1)] {
        let server = Server::start();
        let mut host = host(&server, place, "", "");
        send(&host, &payment(&server.url("/status?code=503"), "one", &json!({ "trap-until": 3 })));
        until_handled(&mut host, 1);
        assert_eq!(server.requests().len(), requests, "{place}");
        let keys = keys(&server);
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }
}

#[test]
fn a_call_that_never_left_is_made_by_the_next_attempt() {
    let server = Server::start();
    let mut host = host(&server, "journal = true", "", "");
    // A port that nobody listens on, at first.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    host.edit(&payer(&server, "journal = true", "", "").replace(&server.address.to_string(), &address.to_string()));
    host.until_agent("caller", "the other place", |status| status["revision"] == "caller@2");
    send(&host, &payment(&format!("http://{address}/status"), "one", &json!({})));
    let dead = until_dead(&mut host);
    assert_eq!((&dead["reason"], &dead["tried"]), (&json!("attempts-exhausted"), &json!(3)), "{dead}");
    assert_eq!(dead["calls"], json!([]), "nothing was sent, so nothing is unknown: {dead}");
}

#[test]
fn a_request_that_is_waited_for_has_a_journal_for_as_long_as_it_lasts() {
    let server = Server::start();
    let host = host(&server, "journal = true", "", "");
    let trap = payment(&server.url("/status?code=201"), "one", &json!({ "trap-until": 9 }));
    for _ in 0..2 {
        assert_eq!(host.client().post("/caller", trap.to_string()).status.as_u16(), 500);
    }
    assert_eq!(server.requests().len(), 2);
    let setup = host.kill();
    let (code, told, words) = setup.caxton(&["check"]);
    assert_eq!(code, 0, "{told}{words}");
    assert!(words.contains("for a request that is waited for it lasts as long as that"), "{told}{words}");
}

#[test]
fn no_credential_is_in_the_data_folder() {
    let key = "hunter2-and-more";
    let server = Server::start();
    let place = "journal = true, headers = { authorization = \"Bearer ${secret:key}\" }";
    let toml = payer(&server, place, "", "mailbox = { attempts = 1 }\nrollback = { rehearse = 5 }")
        + "[secrets]\nkey = { env = \"GIVEN\" }\n";
    let mut host = Setup::new(BINARY, &toml).variable("GIVEN", key).start();
    // The server tells what it was sent, which is recorded: of a message that is handled, and of one that is given up.
    let call = json!({ "method": "POST", "url": server.url("/echo"), "body": "one" });
    send(&host, &json!({ "do": "trap", "call": call }));
    until_dead(&mut host);
    send(&host, &payment(&server.url("/echo"), "one", &json!({})));
    until_handled(&mut host, 1);
    assert!(server.requests().iter().all(|request| request["headers"].to_string().contains(key)));
    let folder = host.folder().join(".caxton");
    let (_, setup) = host.stop();
    let mut recorded = false;
    for file in fs::read_dir(&folder).expect("the folder").flatten().filter(|file| file.path().is_file()) {
        let content = fs::read(file.path()).expect("a file");
        let has = |text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!has(key), "{}", file.path().display());
        recorded |= has("Bearer [secret key]");
    }
    assert!(recorded, "the responses are there, without the key");
    drop(setup);
}
