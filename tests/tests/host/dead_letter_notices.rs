//! Notices to agents of messages that came to nothing (`mailbox.on-dead = "tell"`).

use caxton_tests::Host;
use serde_json::{Value, json};

use crate::{agent, file, host};

fn rogue(name: &str, on_dead: &str) -> String {
    let mailbox = format!("mailbox = {{ attempts = 1, on-dead = \"{on_dead}\" }}");
    agent(
        name,
        "rogue",
        &format!("allow = {{ send = [\"asks\", \"fails\"] }}\nbreaker = {{ faults = 100 }}\n{mailbox}"),
    )
}

/// The dead letters of an agent, as sender and act.
fn dead_letters(host: &Host, agent: &str) -> Vec<(String, String)> {
    let page = host.api().get(&format!("/v1/dead-letters?agent={agent}")).json();
    let text = |letter: &Value, key: &str| letter[key].as_str().unwrap_or_default().to_owned();
    let letters = page["dead_letters"].as_array().expect("a list");
    letters.iter().map(|letter| (text(letter, "sender"), text(letter, "performative"))).collect()
}

/// Returns a header of the notice from `host:dead` that an agent could not handle.
fn notice_header(host: &Host, agent: &str, header: &str) -> Option<String> {
    let page = host.api().get(&format!("/v1/dead-letters?agent={agent}")).json();
    let letter = page["dead_letters"].as_array()?.iter().find(|letter| letter["sender"] == "host:dead")?.clone();
    let shown = host.api().get(&format!("/v1/dead-letters/{}", letter["number"])).json();
    let headers = shown["headers"].as_array()?.clone();
    headers.iter().find(|pair| pair[0] == header).and_then(|pair| pair[1].as_str().map(str::to_owned))
}

fn pair(sender: &str, act: &str) -> (String, String) {
    (sender.to_owned(), act.to_owned())
}

fn fails() -> Value {
    json!({ "do": "fail", "cause": "rejected", "reason": "never" })
}

#[test]
fn sender_and_receiver_are_notified_of_a_dead_letter_but_not_of_a_notice() {
    let mut host = host(&(rogue("asks", "tell") + &rogue("fails", "tell") + &rogue("deaf", "keep")));
    let send = |act: &str| {
        let action = json!({ "do": "send", "to": "fails", "content": fails(), "with": { "performative": act } });
        let told = host.client().post("/asks", action.to_string()).json();
        assert_eq!(told["errors"], json!([]), "{told}");
    };
    send("inform");
    // Both are told what it was, and fail at that in turn, of which nobody is told.
    let notice = pair("host:dead", "failure");
    host.until("both are told", |host| {
        let of_receiver = [pair("asks", "inform"), notice.clone()];
        (dead_letters(host, "fails") == of_receiver && dead_letters(host, "asks") == [notice.clone()]).then_some(())
    });
    for (header, value) in [
        ("dead-reason", "invalid"),
        ("dead-sender", "asks"),
        ("dead-receiver", "fails"),
        ("dead-performative", "inform"),
        ("dead-attempts", "1"),
    ] {
        assert_eq!(notice_header(&host, "asks", header).as_deref(), Some(value), "{header}");
    }
    assert!(notice_header(&host, "asks", "dead-error").is_some_and(|error| error.contains("never")));
    // Who does not want to hear hears nothing, and redelivering tells nobody anew.
    assert_eq!(host.api().post("/v1/agents/deaf/messages", fails().to_string()).status.as_u16(), 202);
    host.until("it is given up", |host| (dead_letters(host, "deaf").len() == 1).then_some(()));
    assert_eq!(host.caxton(&["dead", "redeliver", "--all"]).0, 0);
    for (agent, failed) in [("asks", 2), ("fails", 4), ("deaf", 2)] {
        host.until_agent(agent, "all are given up again", |status| {
            status["failed"] == failed && status["in_flight"] == 0 && status["mailbox_depth"] == 0
        });
    }
    assert_eq!(
        (dead_letters(&host, "asks").len(), dead_letters(&host, "fails").len(), dead_letters(&host, "deaf").len()),
        (1, 2, 1)
    );
}

#[test]
fn an_agent_is_notified_of_a_reply_without_a_receiver() {
    let mailbox = "mailbox = { attempts = 1, on-dead = \"tell\" }";
    let stays = agent("stays", "rogue", mailbox);
    let mut host = host(&(agent("leaves", "rogue", "allow = { send = [\"stays\"] }") + &stays));
    assert_eq!(host.caxton(&["mailbox", "pause", "stays"]).0, 0);
    let asks = json!({ "do": "send", "to": "stays", "content": { "do": "reply", "text": "here" } });
    assert_eq!(host.client().post("/leaves", asks.to_string()).status.as_u16(), 200);
    host.until_agent("stays", "it waits", |status| status["mailbox_depth"] == 1);
    host.edit(&file(&stays));
    let gone = |host: &Host| host.api().get("/v1/agents/leaves").status.as_u16() == 404;
    host.until("the other is gone", |host| gone(host).then_some(()));
    assert_eq!(host.caxton(&["mailbox", "resume", "stays"]).0, 0);
    host.until("it is told", |host| {
        (notice_header(host, "stays", "dead-reason").as_deref() == Some("answer-in-vain")).then_some(())
    });
    assert_eq!(dead_letters(&host, "stays"), [pair("host:dead", "failure")]);
}

#[test]
fn an_agent_is_notified_once_of_a_chain_that_was_ended() {
    let mid = agent(
        "mid",
        "rogue",
        "allow = { send = [\"last\"] }\nlimits = { hops = 1 }\nbreaker = { faults = 100 }\n\
         mailbox = { attempts = 1, on-dead = \"tell\" }",
    );
    let mut host = host(&(rogue("asks", "keep").replace("\"fails\"", "\"mid\"") + &mid + &agent("last", "rogue", "")));
    // The question and the answer to its own one have two causes. What it is told of the question it does: it asks again.
    let again = json!({ "do": "send", "to": "last", "content": { "do": "none" } });
    let question = json!({ "do": "send", "to": "last", "content": again });
    let told_back = host.client().post("/asks", json!({ "do": "send", "to": "mid", "content": question }).to_string());
    assert_eq!(told_back.json()["errors"], json!([]));
    host.until_agent("mid", "both notices are handled", |status| {
        status["handled"] == 2 && status["failed"] == 1 && status["in_flight"] == 0 && status["mailbox_depth"] == 0
    });
    // With nothing under way, nobody was told of what the notice caused.
    assert_eq!(dead_letters(&host, "last"), [pair("mid", "request"), pair("mid", "request")]);
    assert_eq!(dead_letters(&host, "asks"), [pair("mid", "inform")]);
    // An answer is nothing that it can do.
    assert_eq!(dead_letters(&host, "mid"), [pair("host:dead", "failure")]);
    for (header, value) in [
        ("dead-reason", "too-many-hops"),
        ("dead-error", "the message has more than 1 hops (limits.hops)"),
        ("dead-sender", "mid"),
        ("dead-receiver", "asks"),
        ("dead-attempts", "0"),
    ] {
        assert_eq!(notice_header(&host, "mid", header).as_deref(), Some(value), "{header}");
    }
}
