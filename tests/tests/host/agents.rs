//! The behaviour of healthy agents, in every language.

use caxton_tests::{Client, Host, has_language};
use serde_json::json;

use crate::{agent, host};

#[test]
fn echo_and_counter_answer_the_same_in_every_language() {
    for (language, suffix) in [("rust", ""), ("javascript", "-js"), ("python", "-python")] {
        if !has_language(language) {
            continue;
        }
        let (echo, counter) = (format!("echo{suffix}"), format!("counter{suffix}"));
        let toml = agent("echo", &echo, "") + &agent("counter", &counter, "");
        let limits = "[defaults.limits]\nmemory = \"256MiB\"\ncpu = \"30s\"\ntime = \"60s\"\n";
        let host = host(&(limits.to_owned() + &toml));
        let client = host.client();
        let reply = client.send(http::Method::POST, "/echo", &[("content-type", "text/plain")], "Grüße");
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "Grüße"), "{language}");
        assert_eq!(reply.header("content-type"), "text/plain", "{language}");
        assert_eq!(reply.header("caxton-agent"), "echo", "{language}");
        assert_eq!(reply.header("caxton-revision"), "echo@1", "{language}");
        for (body, status, count) in [
            ("", 200, json!(1)),
            (r#"{"by": 4}"#, 200, json!(5)),
            (r#"{"by": -2}"#, 200, json!(3)),
            ("nonsense", 422, json!(null)),
            (r#"{"by": 0}"#, 200, json!(3)),
        ] {
            let reply = client.post("/counter", body);
            assert_eq!(reply.status.as_u16(), status, "{language}: {body}: {}", reply.text());
            if status == 200 {
                assert_eq!(reply.json()["count"], count, "{language}: {body}");
            }
        }
    }
}

#[test]
fn counters_match_the_handled_messages() {
    let host = host(&agent("rogue", "rogue", ""));
    let client = host.client();
    for action in [r#"{"do":"reply","text":"x"}"#, r#"{"do":"reply","text":"y"}"#, r#"{"do":"trap"}"#] {
        client.post("/rogue", action);
    }
    let status = host.agent("rogue");
    let counts = ["accepted", "handled", "failed", "refused", "mailbox_depth", "in_flight"].map(|key| &status[key]);
    assert_eq!(counts, [&json!(3), &json!(2), &json!(1), &json!(0), &json!(0), &json!(0)], "{status}");
    let metrics = caxton_tests::Client::new(&host.admin, None).get("/metrics").text();
    for line in [
        r#"caxton_messages_total{agent="rogue",outcome="handled"} 2"#,
        r#"caxton_messages_total{agent="rogue",outcome="failed"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn enqueued_messages_are_handled() {
    let later = "[[agents.counter.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let mut host = host(&(agent("counter", "counter", "") + later));
    let client = host.client();
    let reply = client.post("/later", r#"{"by": 7}"#);
    assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
    let id = reply.json()["id"].as_str().expect("the id is told").to_owned();
    assert_eq!(reply.header("caxton-message-id"), id);
    assert!(reply.header("location").contains(&id), "{:?}", reply.headers);
    host.until_agent("counter", "the message is handled", |status| status["handled"] == 1);
    assert_eq!(client.post("/counter", r#"{"by": 0}"#).json()["count"], 7);
}

#[test]
fn the_help_desk_gives_a_ticket_to_the_best_desk_and_the_ledger_counts() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let text = std::fs::read_to_string(format!("{root}/caxton.toml")).expect("the demo's file is there");
    // The demo itself, with its components where they are and ports of the system's choice.
    let text = text.replace("components/dist/", &format!("{root}/components/dist/"));
    caxton_tests::guest("triage");
    let mut host = caxton_tests::Host::start(crate::BINARY, &text);
    let client = host.client();
    for (ticket, desk) in [
        ("I was charged twice for the March invoice, 49.90 EUR each time. Please give me my money back.", "billing"),
        ("The internet is down: no connection since 8:00, the router blinks red.", "network"),
        ("I am locked out since the password reset, my address is ada@example.com", "accounts"),
    ] {
        let reply = client.post("/tickets", ticket);
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
        assert_eq!(reply.json()["taken_by"], desk, "{}", reply.text());
    }
    assert_eq!(client.post("/tickets", "").status.as_u16(), 422);
    // The ledger is told by messages of their own, after the answer.
    host.until_agent("ledger", "three decisions are counted", |status| status["handled"] == 3);
    let ledger = client.get("/ledger").json();
    assert_eq!(ledger["tickets"], 3, "{ledger}");
    assert_eq!(ledger["desks"], json!({"accounts": 1, "billing": 1, "network": 1}));
}

#[test]
fn messages_of_one_conversation_are_handled_in_order_one_at_a_time() {
    let route = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let mut host = host(&(agent("rogue", "rogue", "instances = { max = 8 }") + route));
    let client = host.client();
    for number in 0..20 {
        let conversation = format!("c{}", number % 2);
        // Earlier ones take longer, so that running two at once would turn them round.
        let action = format!(r#"{{"do":"record","text":"{number}","ms":{}}}"#, 20 - number);
        let sent = client.send(http::Method::POST, "/later", &[("caxton-conversation", &conversation)], action);
        assert_eq!(sent.status.as_u16(), 202);
    }
    host.until_agent("rogue", "all are handled", |status| status["handled"] == 20);
    for (conversation, parity) in [("c0", 0), ("c1", 1)] {
        let last = client.send(
            http::Method::POST,
            "/rogue",
            &[("caxton-conversation", conversation)],
            r#"{"do":"record","text":"end"}"#,
        );
        let texts: Vec<String> =
            (0..20).filter(|n| n % 2 == parity).map(|n| n.to_string()).chain(["end".into()]).collect();
        assert_eq!(last.json()["texts"], json!(texts));
    }
}

#[test]
fn mutual_calls_fail_with_deadlock_at_once() {
    let allow = |to: &str| format!("allow = {{ send = [\"{to}\"] }}\nlimits = {{ time = \"60s\" }}");
    let host = host(&(agent("one", "rogue", &allow("two")) + &agent("two", "rogue", &allow("one"))));
    let inner = json!({"do": "request", "to": "one", "content": {"do": "reply", "text": "never"}});
    let action = json!({"do": "request", "to": "two", "content": inner});
    let reply = host.client().post("/one", action.to_string());
    let text = reply.text();
    assert!(text.contains("deadlock") && text.contains("one") && text.contains("two"), "{text}");
}

#[test]
fn mutual_calls_from_two_sides_fail_with_deadlock_at_once() {
    let more =
        |to: &str| format!("allow = {{ send = [\"{to}\"] }}\nlimits = {{ time = \"60s\" }}\ninstances = {{ max = 1 }}");
    let mut host = host(&(agent("one", "rogue", &more("two")) + &agent("two", "rogue", &more("one"))));
    let call = |host: &Host, path: &str, to: &str| {
        let (address, path) = (host.http.clone(), path.to_owned());
        let action = json!({"do": "request", "to": to, "content": {"do": "reply", "text": "here"}}).to_string();
        std::thread::spawn(move || Client::new(&address, None).post(&path, action).text())
    };
    // What two is to ask waits before what one asks of it, so that both are at work before either is asked.
    assert_eq!(host.caxton(&["mailbox", "pause", "two"]).0, 0);
    let second = call(&host, "/two", "one");
    host.until_agent("two", "it is called", |status| status["mailbox_depth"] == 1);
    let first = call(&host, "/one", "two");
    host.until_agent("two", "it is asked", |status| status["mailbox_depth"] == 2);
    assert_eq!(host.caxton(&["mailbox", "resume", "two"]).0, 0);
    let told = second.join().unwrap();
    assert!(told.contains("deadlock") && told.contains(r#"["one","two","one"]"#), "{told}");
    let answer = first.join().unwrap();
    assert!(answer.contains("here") && !answer.contains("deadlock"), "{answer}");
}

#[test]
fn sending_needs_a_grant_and_a_known_receiver() {
    let allow = "allow = { send = [\"friend\", \"cap:desk\"] }";
    let toml = agent("rogue", "rogue", allow)
        + &agent("friend", "echo", "")
        + &agent("stranger", "echo", "")
        + &agent("desk", "echo", "capabilities = [\"desk\"]");
    let host = host(&toml);
    let client = host.client();
    for (to, error) in [
        ("friend", None),
        ("desk", None),
        ("cap:desk", None),
        ("stranger", Some("not-allowed")),
        ("nobody", Some("not-allowed")),
        ("cap:other", Some("not-allowed")),
    ] {
        let reply = client.post("/rogue", json!({"do": "send", "to": to, "bytes": 3}).to_string()).json();
        let found = reply["errors"][0]["error"].as_str();
        assert_eq!(found, error, "{to}: {reply}");
    }
    let found = client.post("/rogue", r#"{"do":"find","capability":"desk"}"#).json();
    assert_eq!(found, json!(["desk"]), "{found}");
}
