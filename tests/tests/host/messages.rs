//! Messages that are kept: across `kill -9`, in their order, in their time, in their protocol.

use caxton_tests::Host;
use http::Method;
use serde_json::json;

use crate::{agent, host};

const LATER: &str = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";

/// Starts a host with one agent `rogue` with these settings, which answers at `/rogue`, and enqueues at `/later`.
fn rogue(settings: &str) -> Host {
    host(&(agent("rogue", "rogue", settings) + LATER))
}

/// Enqueues an action in a conversation. Returns the path of its receipt.
fn enqueue(host: &Host, conversation: &str, action: &serde_json::Value) -> String {
    let reply =
        host.client().send(Method::POST, "/later", &[("caxton-conversation", conversation)], action.to_string());
    assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
    reply.header("location").to_owned()
}

/// Returns the records of a conversation by `record`.
fn recorded(host: &Host, conversation: &str) -> String {
    host.caxton(&["state", "get", "rogue", &format!("record/{conversation}")]).1
}

fn until_handled(host: &mut Host, count: u64) {
    host.until_agent("rogue", "all is handled", |status| {
        status["handled"].as_u64() >= Some(count) && status["mailbox_depth"] == 0 && status["in_flight"] == 0
    });
}

#[test]
fn accepted_messages_are_handled_once_and_in_order_after_kill_9() {
    let host = rogue("instances = { max = 2 }");
    // Two hold both instances, so that the others wait when the host ends.
    for conversation in ["x", "y"] {
        enqueue(&host, conversation, &json!({ "do": "sleep", "ms": 3_000 }));
    }
    let letters: Vec<String> = ('a'..='j').map(String::from).collect();
    for letter in &letters {
        for conversation in ["x", "y", "z"] {
            enqueue(&host, conversation, &json!({ "do": "record", "text": letter }));
        }
    }
    let last = enqueue(&host, "z", &json!({ "do": "record", "text": "end" }));
    let mut host = host.kill().start();
    // On a busy machine some, or all, may have been handled before the kill.
    let known = host.client().get(&last).json()["state"].clone();
    assert!(known == "pending" || known == "handled", "it is known after the restart: {known}");
    until_handled(&mut host, 0);
    for conversation in ["x", "y", "z"] {
        let expected = if conversation == "z" { "abcdefghijend" } else { "abcdefghij" };
        let found: String = recorded(&host, conversation).chars().filter(char::is_ascii_alphabetic).collect();
        assert_eq!(found, expected, "{conversation}");
    }
    let told = host.client().get(&last).json();
    assert_eq!((&told["state"], &told["revision"]), (&json!("handled"), &json!("rogue@1")));
    // Nothing of it comes again.
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    let host = setup.start();
    let status = host.agent("rogue");
    assert_eq!((&status["mailbox_depth"], &status["handled"]), (&json!(0), &json!(0)), "{status}");
    assert_eq!(host.client().get(&last).json()["state"], "handled");
}

#[test]
fn a_delayed_message_is_delivered_once_even_if_the_host_was_down() {
    let settings = "allow = { send = [\"rogue\"] }";
    let host = rogue(settings);
    let send = |host: &Host, name: &str, with: serde_json::Value| {
        let content = json!({ "do": "increment", "key": name });
        let action = json!({ "do": "send", "to": "rogue", "content": content, "with": with });
        let told = host.client().post("/rogue", action.to_string()).json();
        assert_eq!(told["errors"], json!([]), "{told}");
    };
    send(&host, "soon", json!({ "after-ms": 400 }));
    send(&host, "past", json!({ "at-ms": 1_000 }));
    send(&host, "later", json!({ "after-ms": 1_500 }));
    let mut host = host.kill().start();
    let count = |host: &Host, name: &str| host.caxton(&["state", "get", "rogue", name]).1.trim().to_owned();
    host.until("all have come", |host| (count(host, "later") == "1").then_some(()));
    for name in ["soon", "past", "later"] {
        assert_eq!(count(&host, name), "1", "{name}");
    }
    let mut host = host.kill().start();
    until_handled(&mut host, 0);
    for name in ["soon", "past", "later"] {
        assert_eq!(count(&host, name), "1", "{name} came once");
    }
}

#[test]
fn a_failed_attempt_has_no_effect_and_its_retry_delays_no_other_message() {
    let mut host = rogue("mailbox = { backoff = { first = \"300ms\", jitter = 0 } }\ninstances = { max = 1 }");
    let failing = json!({ "do": "steps", "steps": [
        { "do": "increment", "key": "tries" },
        { "do": "fail-until", "attempt": 3, "cause": "unavailable" },
        { "do": "record", "text": "a" },
    ] });
    enqueue(&host, "x", &failing);
    enqueue(&host, "x", &json!({ "do": "record", "text": "b" }));
    enqueue(&host, "y", &json!({ "do": "record", "text": "c" }));
    until_handled(&mut host, 3);
    // By the order of the commits, which the versions tell at any speed.
    let version = |conversation: &str| {
        let reply = host.api().get(&format!("/v1/agents/rogue/state/record/{conversation}"));
        reply.header("etag").trim_matches('"').parse::<u64>().expect("a version")
    };
    assert!(version("y") < version("x"), "the other conversation goes on; this one waits for what is tried again");
    let found: String = recorded(&host, "x").chars().filter(char::is_ascii_alphabetic).collect();
    assert_eq!(found, "ab");
    assert_eq!(host.caxton(&["state", "get", "rogue", "tries"]).1.trim(), "1", "failed attempts left nothing");
}

#[test]
fn repeated_requests_with_one_idempotency_key_are_one_message() {
    let host = rogue("");
    let send = |host: &Host, key: &str, body: &str| {
        host.client().send(Method::POST, "/later", &[("idempotency-key", key)], body.to_owned())
    };
    let body = r#"{"do":"increment","key":"n"}"#;
    let first = send(&host, "k-1", body);
    let again = send(&host, "k-1", body);
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 202), "{}", again.text());
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = send(&host, "k-1", r#"{"do":"increment","key":"m"}"#);
    assert_eq!((other.status.as_u16(), &other.json()["code"]), (422, &json!("key-reused")));
    let mut host = host.kill().start();
    assert_eq!(send(&host, "k-1", body).json()["id"], first.json()["id"], "also after a restart");
    send(&host, "k-2", body);
    host.until("both keys' messages are handled", |host| {
        (host.caxton(&["state", "get", "rogue", "n"]).1.trim() == "2").then_some(())
    });
}

#[test]
fn urgent_messages_are_served_first() {
    let mut host = rogue("mailbox = { order = \"none\" }\ninstances = { max = 1 }\nallow = { send = [\"rogue\"] }");
    let send = |rank: &str, content: serde_json::Value| {
        let with = json!({ "priority": rank, "conversation": "all", "performative": "inform" });
        json!({ "do": "send", "to": "rogue", "content": content, "with": with })
    };
    // All in one commit; the first holds the only instance until the others wait.
    let ranks = ["low", "normal", "high", "critical"];
    let sends = ranks.map(|rank| send(rank, json!({ "do": "record", "text": rank })));
    let first = send("critical", json!({ "do": "sleep", "ms": 2_000 }));
    let steps: Vec<serde_json::Value> = std::iter::once(first).chain(sends).collect();
    let told = host.client().post("/rogue", json!({ "do": "steps", "steps": steps }).to_string());
    assert_eq!(told.status.as_u16(), 200, "{}", told.text());
    host.until("all are recorded", |host| recorded(host, "all").contains("low").then_some(()));
    let found: serde_json::Value = serde_json::from_str(&recorded(&host, "all")).expect("a list");
    assert_eq!(found, json!(["critical", "high", "normal", "low"]));
}

#[test]
fn an_illegal_act_is_answered_with_not_understood() {
    let host = rogue("allow = { send = [\"rogue\"] }");
    let said = |act: &str, conversation: &str| {
        let headers =
            [("caxton-protocol", "fipa-request"), ("caxton-performative", act), ("caxton-conversation", conversation)];
        host.client().send(Method::POST, "/rogue", &headers, r#"{"do":"reply","text":"done"}"#)
    };
    let illegal = said("propose", "c-1");
    assert_eq!((illegal.status.as_u16(), &illegal.json()["code"]), (422, &json!("not-understood")));
    let detail = illegal.json()["detail"].to_string();
    assert!(detail.contains("fipa-request") && detail.contains("request"), "{detail}");
    assert_eq!(said("request", "c-1").status.as_u16(), 200, "what was refused changed nothing");
    assert_eq!(said("request", "c-1").status.as_u16(), 200, "a new request begins anew");
    // Between agents.
    let with = json!({ "protocol": "fipa-query", "performative": "agree", "conversation": "c-2" });
    let ask = json!({ "do": "request", "to": "rogue", "content": { "do": "none" }, "with": with });
    let told = host.client().post("/rogue", ask.to_string()).json();
    assert_eq!(told["performative"], "not-understood", "{told}");
}

#[test]
fn schedules_fire_at_their_times_and_never_twice() {
    let schedule = "[[agents.rogue.schedule]]\ncron = \"* * * * * *\"\ncontent = '{\"do\":\"increment\",\"key\":\"ticks\"}'\nmissed = \"all\"\n";
    let host = host(&(agent("rogue", "rogue", "") + schedule));
    let ticks = |host: &Host| host.caxton(&["state", "get", "rogue", "ticks"]).1.trim().parse::<u64>().unwrap_or(0);
    let mut host = host;
    let began = std::time::SystemTime::now();
    host.until("it fired twice", |host| (ticks(host) >= 2).then_some(()));
    let setup = host.kill();
    let mut host = setup.start();
    host.until("it fired again", |host| (ticks(host) >= 5).then_some(()));
    // One for each second, those without a host included, and none twice.
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    let host = setup.start();
    let seconds = began.elapsed().expect("the clock goes on").as_secs();
    let fired = ticks(&host);
    assert!(fired <= seconds + 2, "{fired} in {seconds} s");
}

#[test]
fn an_agent_sets_the_delay_of_its_next_attempt() {
    let mut host = rogue("mailbox = { attempts = 2, backoff = { first = \"100ms\", jitter = 0 } }");
    enqueue(&host, "x", &json!({ "do": "fail", "cause": "unavailable", "reason": "not yet", "retry-after-ms": 900 }));
    let dead = host.until("it is given up", |host| {
        let number = host.api().get("/v1/dead-letters").json()["dead_letters"][0]["number"].as_u64()?;
        Some(host.api().get(&format!("/v1/dead-letters/{number}")).json())
    });
    let at = |attempt: usize| dead["attempts"][attempt]["at"].as_u64().unwrap_or_else(|| panic!("{dead}"));
    assert!(at(1) - at(0) >= 900, "{dead}");
}

#[test]
fn a_reply_is_accepted_by_a_full_mailbox() {
    let asker = agent("asker", "rogue", "mailbox = { depth = 1 }\nallow = { send = [\"answerer\"] }");
    let strict = "mailbox = { attempts = 1 }\nbreaker = { faults = 1 }";
    let mut host = host(&(asker + &agent("answerer", "rogue", strict)));
    let send = |host: &Host, action: &serde_json::Value| {
        let reply = host.api().post("/v1/agents/asker/messages", action.to_string());
        assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
    };
    let told = |host: &Host, what: &str, agent: &str| assert_eq!(host.caxton(&["mailbox", what, agent]).0, 0);
    told(&host, "pause", "answerer");
    let question = json!({ "do": "reply", "text": r#"{"do":"none"}"# });
    send(&host, &json!({ "do": "send", "to": "answerer", "content": question }));
    host.until_agent("asker", "it asks", |status| status["handled"] == 1);
    told(&host, "pause", "asker");
    send(&host, &json!({ "do": "none" }));
    told(&host, "resume", "answerer");
    // Otherwise two agents with full mailboxes could not answer each other for ever.
    host.until_agent("asker", "the answer is there", |status| status["mailbox_depth"] == 2);
    let order = host.api().post("/v1/agents/asker/messages", json!({ "do": "none" }).to_string());
    assert_eq!((order.status.as_u16(), order.header("retry-after").is_empty()), (503, false), "others have none");
    told(&host, "resume", "asker");
    host.until_agent("asker", "the answer comes", |status| status["handled"] == 3);
    let status = host.agent("answerer");
    assert_eq!(
        (&status["handled"], &status["failed"], &status["dead_letters"], &status["breaker"]),
        (&json!(1), &json!(0), &json!(0), &json!("closed")),
        "{status}"
    );
}
