//! The stickiness of conversations: the revision of each while traffic is split, and how they delay a rollout.
//!
//! The weight is 99 % mostly: a conversation that is free goes to the new revision then, but for one in a hundred names.

use caxton_tests::Host;
use http::Method;
use serde_json::{Value, json};

use crate::{agent, file, host};

/// The settings of a canary that gets 99 % of the traffic until it is promoted.
fn canary_at_99_percent(sticky: &str) -> String {
    format!(
        "deploy = {{ strategy = \"canary\", steps = [{{ weight = 99, for = \"0s\" }}, {{ pause = true }}] }}\n\
         rollback = {{ min-messages = 0, errors = \"100%\", slower = \"10000%\", sticky = \"{sticky}\" }}\n"
    )
}

/// Declares an agent; each `version` is a revision of its own.
fn agent_version(name: &str, guest: &str, version: u32, more: &str) -> String {
    let more = format!("config = {{ version = \"{version}\" }}\n{more}");
    let kept = format!("[[agents.{name}.http]]\nroute = \"/{name}/keep\"\nmode = \"enqueue\"\n");
    agent(name, guest, &more) + if guest == "web-echo" { "" } else { &kept }
}

fn newest_rollout(host: &Host, agent: &str) -> Value {
    host.api().get(&format!("/v1/rollouts/{agent}")).json()[0].clone()
}

/// Waits until the candidate has this weight.
fn until_weight(host: &mut Host, agent: &str, weight: u64) {
    host.until("the traffic is split", |host| {
        let status = host.agent(agent);
        let revisions = status["revisions"].as_array().cloned().unwrap_or_default();
        let running = revisions.iter().filter(|revision| revision["state"] == "running").count();
        (newest_rollout(host, agent)["weight"] == weight && running == 2).then_some(())
    });
}

/// Calls an agent in a conversation. Returns the number of the revision that answered.
fn call(host: &Host, agent: &str, conversation: &str, content: &Value) -> u64 {
    let headers = [("caxton-conversation", conversation)];
    let reply = host.client().send(Method::POST, &format!("/{agent}"), &headers, content.to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    let revision = reply.header("caxton-revision").to_owned();
    revision.split('@').nth(1).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("`{revision}`"))
}

/// Enqueues a message in a conversation.
fn enqueue(host: &Host, agent: &str, conversation: &str, content: &Value) {
    let headers = [("caxton-conversation", conversation)];
    let reply = host.client().send(Method::POST, &format!("/{agent}/keep"), &headers, content.to_string());
    assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
}

fn messages(host: &Host, conversation: &str) -> Vec<Value> {
    let thread = host.api().get(&format!("/v1/conversations/{conversation}")).json();
    thread["messages"].as_array().cloned().unwrap_or_default()
}

/// Waits until this many messages to an agent are handled. Returns the revisions that handled them, in order.
fn until_handled_by(host: &mut Host, agent: &str, conversation: &str, count: usize) -> Vec<String> {
    host.until(&format!("{count} messages to {agent} in {conversation}"), |host| {
        let own: Vec<Value> =
            messages(host, conversation).into_iter().filter(|message| message["receiver"] == agent).collect();
        let done = own.len() == count && own.iter().all(|message| message["state"] == "handled");
        let by = |message: &Value| message["revision"].as_str().unwrap_or_default().to_owned();
        done.then(|| own.iter().map(by).collect())
    })
}

/// Waits until the host's clock shows a later time. A message sent in the same tick as a bound one counts as sent with it.
fn until_clock_ticks(host: &mut Host) {
    // The kernel's coarse clock ticks every 10 ms at most.
    let began = std::time::Instant::now();
    host.until("the clock ticks", |_| (began.elapsed() > std::time::Duration::from_millis(20)).then_some(()));
}

/// The instruction to a rogue to send no reply.
fn no_reply() -> Value {
    json!({ "do": "none" })
}

/// The instruction to a rogue to reply, and to ignore the answer to it.
fn reply_ignoring_answer() -> Value {
    json!({ "do": "reply", "text": no_reply().to_string() })
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("{prefix}-{nth}")).collect()
}

#[test]
fn an_idle_conversation_moves_with_its_next_message() {
    check_move_when_idle("echo");
}

#[test]
fn an_idle_conversation_with_an_http_agent_moves_with_its_next_call() {
    check_move_when_idle("web-echo");
}

fn check_move_when_idle(guest: &str) {
    let settings = canary_at_99_percent("idle");
    let mut host = host(&agent_version("echo", guest, 1, &settings));
    let early = names("early", 8);
    assert!(early.iter().all(|name| call(&host, "echo", name, &json!("x")) == 1));
    host.edit(&file(&agent_version("echo", guest, 2, &settings)));
    until_weight(&mut host, "echo", 99);
    for _ in 0..2 {
        let by: Vec<u64> = early.iter().map(|name| call(&host, "echo", name, &json!("x"))).collect();
        assert_eq!(by, [2; 8]);
    }
    assert_eq!(newest_rollout(&host, "echo")["held_conversations"], 0);
}

#[test]
fn an_open_conversation_stays_on_its_revision_over_a_restart() {
    check_stay_over_restart("echo");
}

#[test]
fn an_open_conversation_with_an_http_agent_stays_on_its_revision_over_a_restart() {
    check_stay_over_restart("web-echo");
}

fn check_stay_over_restart(guest: &str) {
    let settings = canary_at_99_percent("conversation");
    let host = host(&agent_version("echo", guest, 1, &settings));
    let early = names("early", 4);
    assert!(early.iter().all(|name| call(&host, "echo", name, &json!("x")) == 1));
    // Nobody waits for it to be kept when a conversation began: whoever acknowledges something later has it safe.
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    let mut host = setup.start();
    host.edit(&file(&agent_version("echo", guest, 2, &settings)));
    until_weight(&mut host, "echo", 99);
    let said = |host: &Host| early.iter().map(|name| call(host, "echo", name, &json!("x"))).collect::<Vec<u64>>();
    assert_eq!(said(&host), [1; 4]);
    assert_eq!(newest_rollout(&host, "echo")["held_conversations"], 4);
    let mut host = host.kill().start();
    until_weight(&mut host, "echo", 99);
    assert_eq!(said(&host), [1; 4], "after a restart");
    let late = names("late", 4);
    assert!(late.iter().all(|name| call(&host, "echo", name, &json!("x")) == 2));
}

#[test]
fn without_stickiness_each_message_is_distributed_by_weight() {
    let settings = canary_at_99_percent("none").replace("weight = 99", "weight = 50");
    let mut host = host(&agent_version("echo", "echo", 1, &settings));
    host.edit(&file(&agent_version("echo", "echo", 2, &settings)));
    until_weight(&mut host, "echo", 50);
    let by: Vec<u64> = (0..20).map(|_| call(&host, "echo", "one", &json!("x"))).collect();
    assert_eq!(by.iter().filter(|number| **number == 2).count(), 10, "{by:?}");
}

#[test]
fn a_delayed_rollout_names_its_obstacle_and_the_setting_that_removes_it() {
    let toml = |number, sticky: &str| {
        let settings = canary_at_99_percent(sticky).replace("min-messages = 0", "min-messages = 10");
        file(&agent_version("echo", "echo", number, &settings))
    };
    let mut host = Host::start(crate::BINARY, &toml(1, "conversation"));
    let early = names("early", 3);
    let say = |host: &Host| {
        for name in &early {
            call(host, "echo", name, &json!("x"));
        }
    };
    say(&host);
    host.edit(&toml(2, "conversation"));
    until_weight(&mut host, "echo", 99);
    let told = host.until("it is told what holds it up", |host| {
        say(host);
        let newest = newest_rollout(host, "echo");
        (newest["held_conversations"] == 3)
            .then_some(newest["why"].as_str().unwrap_or_default().to_owned())
            .filter(|why| why.contains("3 conversations"))
    });
    let expected = "99%: 0 of 10 messages to judge by; 3 conversations that began before stay with echo@1: \
                    `rollback.sticky = \"idle\"` lets each go over when it is idle, `caxton rollout promote echo` goes on \
                    without them";
    assert!(told.contains(expected), "{told}");
    let (code, text, _) = host.caxton(&["rollout", "status", "echo"]);
    assert!(code == 0 && text.contains("3 conversations that began before stay with echo@1"), "{text}");
    // It acts on the rollout under way, which is not begun again.
    host.edit(&toml(2, "idle"));
    host.until("the new one is judged by what they say", |host| {
        say(host);
        (newest_rollout(host, "echo")["status"] == "paused").then_some(())
    });
    let by: Vec<u64> = early.iter().map(|name| call(&host, "echo", name, &json!("x"))).collect();
    assert_eq!((&newest_rollout(&host, "echo")["rollout"], by), (&json!(1), vec![2; 3]));
}

/// Declares two rogues that may send to each other; `desk` has this version.
fn two_rogues(desk: u32, more: &str) -> String {
    let settings = format!("allow = {{ send = [\"billing\"] }}\n{}{more}", canary_at_99_percent("idle"));
    let billing = agent_version("billing", "rogue", 1, "allow = { send = [\"desk\"] }\n");
    agent_version("desk", "rogue", desk, &settings) + &billing
}

/// The instruction to a rogue to ask another, with these fields of its question.
fn request(to: &str, content: &Value, with: &Value) -> Value {
    json!({ "do": "send", "to": to, "content": content, "with": with })
}

#[test]
fn a_conversation_stays_until_an_awaited_reply_is_handled() {
    let mut host = host(&two_rogues(1, ""));
    assert_eq!(host.caxton(&["mailbox", "pause", "billing"]).0, 0);
    let question = request("billing", &reply_ignoring_answer(), &json!({ "performative": "query-ref" }));
    assert_eq!(call(&host, "desk", "open", &question), 1);
    assert_eq!(call(&host, "desk", "idle", &reply_to_caller()), 1);
    host.edit(&file(&two_rogues(2, "")));
    until_weight(&mut host, "desk", 99);
    for again in [false, true] {
        if again {
            host = host.kill().start();
            until_weight(&mut host, "desk", 99);
        }
        assert_eq!(call(&host, "desk", "open", &reply_to_caller()), 1, "billing has not answered; again: {again}");
        assert_eq!(call(&host, "desk", "idle", &reply_to_caller()), 2, "nothing is open there; again: {again}");
        assert_eq!(newest_rollout(&host, "desk")["held_conversations"], 1);
    }
    assert_eq!(host.caxton(&["mailbox", "resume", "billing"]).0, 0);
    assert_eq!(until_handled_by(&mut host, "desk", "open", 1), ["desk@1"], "the answer belongs to the question");
    until_clock_ticks(&mut host);
    assert_eq!(call(&host, "desk", "open", &reply_to_caller()), 2, "and what comes after it to nobody");
    assert_eq!(newest_rollout(&host, "desk")["held_conversations"], 0);
}

/// The instruction to a rogue to reply to its caller.
fn reply_to_caller() -> Value {
    json!({ "do": "reply", "text": "\"well\"" })
}

#[test]
fn a_conversation_stays_until_an_owed_reply_is_sent() {
    let mut host = host(&two_rogues(1, ""));
    // Billing asks, and desk does not answer yet.
    let question = request("desk", &no_reply(), &json!({ "performative": "request", "reply-with": "q-1" }));
    assert_eq!(call(&host, "billing", "owed", &question), 1);
    assert_eq!(until_handled_by(&mut host, "desk", "owed", 1), ["desk@1"]);
    host.edit(&file(&two_rogues(2, "")));
    until_weight(&mut host, "desk", 99);
    enqueue(&host, "desk", "owed", &no_reply());
    assert_eq!(until_handled_by(&mut host, "desk", "owed", 2)[1], "desk@1");
    let late = request("billing", &no_reply(), &json!({ "performative": "inform", "in-reply-to": "q-1" }));
    assert_eq!(call(&host, "desk", "owed", &late), 1, "who owes it gives it");
    assert_eq!(until_handled_by(&mut host, "billing", "owed", 1), ["billing@1"]);
    until_clock_ticks(&mut host);
    enqueue(&host, "desk", "owed", &no_reply());
    assert_eq!(until_handled_by(&mut host, "desk", "owed", 3)[2], "desk@2");
}

#[test]
fn a_conversation_stays_until_its_protocol_ends() {
    let mut host = host(&two_rogues(1, ""));
    let net = |act: &str| json!({ "performative": act, "protocol": "fipa-contract-net", "conversation": "net" });
    let proposes = json!({ "do": "reply", "text": no_reply().to_string(), "with": { "performative": "propose" } });
    call(&host, "billing", "other", &request("desk", &proposes, &net("cfp")));
    assert_eq!(until_handled_by(&mut host, "billing", "net", 1), ["billing@1"], "the proposal has come");
    host.edit(&file(&two_rogues(2, "")));
    until_weight(&mut host, "desk", 99);
    let proposal = messages(&host, "net").into_iter().find(|message| message["sender"] == "desk").expect("a proposal");
    let mut accept = net("accept-proposal");
    accept["in-reply-to"] = proposal["id"].clone();
    let informs = json!({ "do": "reply", "text": no_reply().to_string(), "with": { "performative": "inform" } });
    call(&host, "billing", "other", &request("desk", &informs, &accept));
    assert_eq!(until_handled_by(&mut host, "billing", "net", 2).len(), 2, "the result has come");
    until_clock_ticks(&mut host);
    call(
        &host,
        "billing",
        "other",
        &request("desk", &no_reply(), &json!({ "performative": "inform", "conversation": "net" })),
    );
    assert_eq!(until_handled_by(&mut host, "desk", "net", 3), ["desk@1", "desk@1", "desk@2"]);
}

/// Attempts that follow each other soon.
const SOON: &str =
    "mailbox = { attempts = 9, backoff = { first = \"100ms\", factor = 1.1, max = \"100ms\", jitter = 0.0 } }\n";

#[test]
fn a_retry_on_the_old_revision_does_not_move_its_conversation() {
    let mut host = host(&two_rogues(1, SOON));
    host.edit(&file(&two_rogues(2, SOON)));
    until_weight(&mut host, "desk", 99);
    // It fails where it is first tried, and what waits behind it goes where its conversation is.
    enqueue(&host, "desk", "tried", &json!({ "do": "fail-until", "attempt": 2 }));
    enqueue(&host, "desk", "tried", &no_reply());
    assert_eq!(until_handled_by(&mut host, "desk", "tried", 2), ["desk@1", "desk@2"]);
    host.until_agent("desk", "nothing is in hand", |status| status["in_flight"] == 0);
    enqueue(&host, "desk", "tried", &no_reply());
    assert_eq!(until_handled_by(&mut host, "desk", "tried", 3)[2], "desk@2");
}

#[test]
fn messages_behind_a_retry_on_the_old_revision_stay_with_it_over_a_restart() {
    // Long enough for all that follows to come before the second attempt; if it does not, nothing else is expected.
    let slow = "mailbox = { attempts = 9, backoff = { first = \"20s\", factor = 1.1, max = \"20s\", jitter = 0.0 } }\n";
    let mut host = host(&two_rogues(1, slow));
    enqueue(&host, "desk", "waits", &json!({ "do": "fail-until", "attempt": 2 }));
    host.until_agent("desk", "it was tried", |status| status["retries"] == 1);
    enqueue(&host, "desk", "waits", &no_reply());
    host.edit(&file(&two_rogues(2, slow)));
    until_weight(&mut host, "desk", 99);
    let mut host = host.kill().start();
    until_weight(&mut host, "desk", 99);
    assert_eq!(until_handled_by(&mut host, "desk", "waits", 2), ["desk@1", "desk@1"]);
    // What is handled is still in hand for a moment, until its mailbox hears of the commit.
    host.until_agent("desk", "nothing is in hand", |status| status["in_flight"] == 0);
    enqueue(&host, "desk", "waits", &no_reply());
    assert_eq!(until_handled_by(&mut host, "desk", "waits", 3)[2], "desk@2", "it is idle now");
}

#[test]
fn messages_of_a_moving_conversation_are_handled_in_order() {
    let mut host = host(&two_rogues(1, ""));
    let record = |nth: usize| json!({ "do": "record", "text": format!("{nth}"), "ms": 1 });
    (0..20).for_each(|nth| enqueue(&host, "desk", "order", &record(nth)));
    host.edit(&file(&two_rogues(2, "")));
    (20..40).for_each(|nth| enqueue(&host, "desk", "order", &record(nth)));
    until_weight(&mut host, "desk", 99);
    (40..60).for_each(|nth| enqueue(&host, "desk", "order", &record(nth)));
    let by = until_handled_by(&mut host, "desk", "order", 60);
    let moved = by.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(moved <= 1, "it moves once, and not back: {by:?}");
    let headers = [("caxton-conversation", "order")];
    let told = host.client().send(Method::POST, "/desk", &headers, record(60).to_string()).json();
    let texts: Vec<String> = (0..61).map(|nth| nth.to_string()).collect();
    assert_eq!(told["texts"], json!(texts));
}
