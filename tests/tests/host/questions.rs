//! Questions between agents: which messages count as open questions, and how each is closed.

use caxton_tests::Host;
use serde_json::{Value, json};

use crate::{agent, host};

/// An agent of `rogue` that may send to all others here, and is tried once.
fn rogue(name: &str) -> String {
    let more =
        "allow = { send = [\"asks\", \"answers\", \"knows\"] }\nmailbox = { attempts = 1 }\nbreaker = { faults = 100 }";
    agent(name, "rogue", more)
}

fn three_agents() -> String {
    rogue("asks") + &rogue("answers") + &rogue("knows")
}

/// Makes an agent send a message in a conversation, as a `request` unless `with` has another act.
fn send(host: &Host, from: &str, to: &str, content: &Value, with: &Value) {
    let action = json!({ "do": "send", "to": to, "content": content, "with": with });
    let told = host.client().post(&format!("/{from}"), action.to_string()).json();
    assert_eq!(told["errors"], json!([]), "{told}");
}

fn open_questions(host: &Host, conversation: &str) -> Value {
    host.api().get(&format!("/v1/conversations/{conversation}")).json()["conversation"]["unanswered"].clone()
}

fn until_handled(host: &mut Host, agent: &str, count: u64) {
    host.until_agent(agent, "it is handled", |status| {
        status["handled"].as_u64() >= Some(count) && status["in_flight"] == 0 && status["mailbox_depth"] == 0
    });
}

#[test]
fn a_question_that_was_handled_without_an_answer_is_closed() {
    let mut host = host(&three_agents());
    let silent = json!({ "do": "none" });
    send(&host, "asks", "answers", &silent, &json!({ "conversation": "silent" }));
    send(&host, "asks", "asks", &silent, &json!({ "conversation": "oneself" }));
    // Who asks another may still answer.
    let asks = json!({ "do": "steps", "steps": [
        { "do": "send", "to": "knows", "content": silent, "with": { "conversation": "passed-on" } },
    ] });
    send(&host, "asks", "answers", &asks, &json!({ "conversation": "passed-on" }));
    until_handled(&mut host, "answers", 2);
    until_handled(&mut host, "knows", 1);
    // That it is handled and that it is closed is one commit, which a crash does not part.
    let host = host.kill().start();
    for conversation in ["silent", "oneself"] {
        assert_eq!(open_questions(&host, conversation), json!([]), "{conversation}");
    }
    let (code, told, _) = host.caxton(&["conversation", "show", "silent"]);
    assert!(code == 0 && !told.contains("unanswered"), "{told}");
}

/// Returns the numbers of dead letters of `answers` and of `asks`.
fn count_dead_letters(host: &Host) -> (usize, usize) {
    let count = |agent: &str| {
        let page = host.api().get(&format!("/v1/dead-letters?agent={agent}")).json();
        page["dead_letters"].as_array().map_or(0, Vec::len)
    };
    (count("answers"), count("asks"))
}

#[test]
fn repeated_redelivery_creates_no_further_dead_letters() {
    let mut host = host(&three_agents());
    let fails = json!({ "do": "fail", "cause": "rejected", "reason": "never" });
    send(&host, "asks", "answers", &fails, &json!({}));
    // What `failure` says is no action, so that it cannot be handled either.
    host.until("both are dead letters", |host| (count_dead_letters(host) == (1, 1)).then_some(()));
    for round in 1..=3_u64 {
        let (code, said, words) = host.caxton(&["dead", "redeliver", "--all"]);
        assert_eq!(code, 0, "{said} {words}");
        for agent in ["answers", "asks"] {
            host.until_agent(agent, "it is given up again", |status| {
                status["failed"].as_u64() >= Some(round + 1) && status["in_flight"] == 0 && status["mailbox_depth"] == 0
            });
        }
        assert_eq!(count_dead_letters(&host), (1, 1), "round {round}");
    }
    // It outlasts a restart that it was told.
    assert_eq!(host.caxton(&["mailbox", "pause", "answers"]).0, 0);
    assert_eq!(host.caxton(&["dead", "redeliver", "--agent", "answers"]).0, 0);
    let mut host = host.kill().start();
    assert_eq!(host.caxton(&["mailbox", "resume", "answers"]).0, 0);
    host.until("it is given up once more", |host| (count_dead_letters(host).0 == 1).then_some(()));
    host.until_agent("asks", "nothing came", |status| status["mailbox_depth"] == 0 && status["in_flight"] == 0);
    assert_eq!(count_dead_letters(&host), (1, 1));
}
