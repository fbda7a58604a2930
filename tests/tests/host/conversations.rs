//! Conversations between agents over their mailboxes: addressing, protocol rules, and the record of messages.

use std::collections::BTreeMap;

use caxton_tests::Host;
use http::Method;
use serde_json::{Value, json};

use crate::{agent, file, host, in_hand};

const NET: &str = "fipa-contract-net";

/// The instruction to a rogue to do nothing and send no reply.
fn no_reply() -> Value {
    json!({ "do": "none" })
}

/// The instruction to a rogue to reply with this act, and to ignore the answer to it.
fn reply_with(act: &str) -> Value {
    json!({ "do": "reply", "text": no_reply().to_string(), "with": { "performative": act } })
}

/// Makes an agent carry out an action. Returns the result.
fn act(host: &Host, agent: &str, action: &Value) -> Value {
    let reply = host.client().post(&format!("/{agent}"), action.to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    reply.json()
}

/// Makes `from` send a message in a conversation; `with` has its further fields.
fn send(host: &Host, from: &str, to: &str, conversation: &str, content: &Value, with: &Value) {
    let mut with = with.clone();
    with["conversation"] = conversation.into();
    let told = act(host, from, &json!({ "do": "send", "to": to, "content": content, "with": with }));
    assert_eq!(told["errors"], json!([]), "{told}");
}

/// Returns the fields of an act without a protocol.
fn speech_act(act: &str) -> Value {
    json!({ "performative": act })
}

/// Returns the fields of an act of a contract net, in reply to a message.
fn contract_net_act(act: &str, answers: Option<&Value>) -> Value {
    let mut with = json!({ "performative": act, "protocol": NET });
    if let Some(answers) = answers {
        with["in-reply-to"] = answers.clone();
    }
    with
}

fn thread(host: &Host, conversation: &str) -> Value {
    host.api().get(&format!("/v1/conversations/{conversation}")).json()
}

/// Waits until a conversation has this many messages, all handled. Returns sender, receiver and act of each.
fn until_messages(host: &mut Host, conversation: &str, count: usize) -> Vec<(String, String, String)> {
    host.until(&format!("{count} messages in {conversation}"), |host| {
        let found = thread(host, conversation);
        let messages = found["messages"].as_array()?;
        if messages.len() != count || messages.iter().any(|message| message["state"] == "waiting") {
            return None;
        }
        let text = |message: &Value, part: &str| message[part].as_str().unwrap_or_default().to_owned();
        let parts = |message| (text(message, "sender"), text(message, "receiver"), text(message, "performative"));
        Some(messages.iter().map(parts).collect())
    })
}

/// Returns the value of a counter of the host.
fn metric(host: &Host, name: &str) -> u64 {
    let text = host.api().get("/metrics").text().to_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0)
}

/// A call for proposals of the manager to both desks, with all that follows from it.
fn contract_net(host: &mut Host) -> Vec<(String, String, String)> {
    for desk in ["desk-a", "desk-b"] {
        send(host, "manager", desk, "net-1", &reply_with("propose"), &contract_net_act("cfp", None));
    }
    until_messages(host, "net-1", 4);
    let found = thread(host, "net-1");
    let proposal = |desk: &str| {
        let messages = found["messages"].as_array().expect("a list");
        messages.iter().find(|message| message["sender"] == desk).map(|message| &message["id"])
    };
    let (accept, reject) = (
        contract_net_act("accept-proposal", proposal("desk-a")),
        contract_net_act("reject-proposal", proposal("desk-b")),
    );
    send(host, "manager", "desk-a", "net-1", &reply_with("inform"), &accept);
    send(host, "manager", "desk-b", "net-1", &no_reply(), &reject);
    until_messages(host, "net-1", 7)
}

fn agents_of_the_office() -> String {
    let allow = "allow = { send = [\"desk-a\", \"desk-b\"] }";
    agent("manager", "rogue", allow) + &agent("desk-a", "rogue", "") + &agent("desk-b", "rogue", "")
}

#[test]
fn a_contract_net_runs_over_mailboxes_and_illegal_acts_are_rejected() {
    let mut host = host(&agents_of_the_office());
    let mut found = contract_net(&mut host);
    found.sort();
    let expected = [
        ("desk-a", "manager", "inform"),
        ("desk-a", "manager", "propose"),
        ("desk-b", "manager", "propose"),
        ("manager", "desk-a", "accept-proposal"),
        ("manager", "desk-a", "cfp"),
        ("manager", "desk-b", "cfp"),
        ("manager", "desk-b", "reject-proposal"),
    ];
    let expected = expected.map(|(from, to, act)| (from.to_owned(), to.to_owned(), act.to_owned()));
    assert_eq!(found, expected);
    assert_eq!(metric(&host, "caxton_messages_illegal_total"), 0);
    // What was rejected cannot be accepted any more.
    send(&host, "manager", "desk-b", "net-1", &no_reply(), &contract_net_act("accept-proposal", None));
    let found = until_messages(&mut host, "net-1", 8);
    assert_eq!(found[7], ("desk-b".to_owned(), "manager".to_owned(), "not-understood".to_owned()));
    let text = thread(&host, "net-1")["messages"][7]["text"].to_string();
    assert!(text.contains("`accept-proposal` from `manager` is not legal here in fipa-contract-net"), "{text}");
    assert_eq!(metric(&host, "caxton_messages_illegal_total"), 1);
    assert_eq!(host.agent("desk-b")["handled"], 2, "it never came to the desk");
}

#[test]
fn a_conversation_can_be_listed_and_shown_after_kill_9() {
    let mut host = host(&agents_of_the_office());
    contract_net(&mut host);
    let request = json!({ "performative": "request", "protocol": "fipa-request" });
    send(&host, "manager", "desk-a", "other", &no_reply(), &request);
    until_messages(&mut host, "other", 1);
    let listed = |host: &Host, arguments: &[&str]| -> Vec<Value> {
        let (code, stdout, stderr) = host.caxton(&[&["conversation", "ls", "-o", "json"], arguments].concat());
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).expect("a list")
    };
    let before = listed(&host, &[]);
    let ids: Vec<&Value> = before.iter().map(|found| &found["id"]).collect();
    assert_eq!(ids, ["other", "net-1"], "the latest activity first");
    let net = &before[1];
    assert_eq!(net["participants"], json!(["desk-a", "desk-b", "manager"]));
    let shown = (&net["messages"], &net["protocol"], &net["initiator"], &net["unanswered"], &net["state"]);
    assert_eq!(shown, (&json!(7), &json!(NET), &json!("manager"), &json!([]), &json!("open")));
    assert_eq!(before[0]["unanswered"][0]["to"], "desk-a", "the request has no answer");
    let host = host.kill().start();
    assert_eq!(listed(&host, &[]), before, "all of it is there after a restart");
    assert_eq!(listed(&host, &["--agent", "desk-b"]).len(), 1);
    assert_eq!(listed(&host, &["--agent", "nobody"]).len(), 0);
    assert_eq!(listed(&host, &["--limit", "1"]).len(), 1);
    let (code, stdout, stderr) = host.caxton(&["conversation", "show", "net-1"]);
    assert_eq!(code, 0, "{stderr}");
    let lines = ["-> desk-a  cfp  handled by desk-a@1", "desk-b -> manager  propose  handled by manager@1"];
    let order = ["-> desk-a  accept-proposal  handled", "desk-a -> manager  inform  handled by manager@1"];
    let places: Vec<Option<usize>> = lines.iter().chain(&order).map(|line| stdout.find(line)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in:\n{stdout}");
    assert!(stdout.contains("participants  desk-a, desk-b, manager"), "{stdout}");
    assert!(stdout.contains(r#"    {"do":"none"}"#), "{stdout}");
    assert!(stderr.starts_with("7 messages of 7 said"), "{stderr}");
    let (code, _, stderr) = host.caxton(&["conversation", "show", "nothing"]);
    assert_eq!((code, stderr.contains("no conversation `nothing` is known")), (3, true), "{stderr}");
    let (code, stdout, _) = host.caxton(&["conversation", "ls"]);
    assert!(code == 0 && stdout.contains("desk-a, desk-b, manager"), "{stdout}");
}

#[test]
fn a_reply_after_kill_9_is_matched_to_its_question() {
    let mut host = host(&agents_of_the_office());
    let slow = json!({ "do": "sleep", "ms": 1_500 });
    let request = json!({ "performative": "request", "protocol": "fipa-request" });
    send(&host, "manager", "desk-a", "asked", &slow, &request);
    host.until_agent("desk-a", "it works", in_hand);
    let mut host = host.kill().start();
    let found = until_messages(&mut host, "asked", 2);
    assert_eq!(found[1], ("desk-a".to_owned(), "manager".to_owned(), "inform".to_owned()));
    assert_eq!(metric(&host, "caxton_messages_illegal_total"), 0);
    assert_eq!(thread(&host, "asked")["conversation"]["initiator"], "manager");
}

#[test]
fn a_draining_agent_receives_the_replies_to_its_questions() {
    let limits = "limits = { time = \"60s\" }\nallow = { send = [\"desk\"] }";
    let desk = agent("desk", "rogue", "");
    let mut host = host(&(agent("leaver", "rogue", limits) + &desk));
    assert_eq!(host.caxton(&["mailbox", "pause", "desk"]).0, 0);
    send(&host, "leaver", "desk", "asked", &reply_with("inform"), &speech_act("request"));
    // Something in hand, so that it does not leave at once.
    let sent = host.api().post("/v1/agents/leaver/messages", r#"{"do":"sleep","ms":50000}"#);
    assert_eq!(sent.status.as_u16(), 202, "{}", sent.text());
    host.until_agent("leaver", "it works", |status| status["in_flight"] == 1);
    host.edit(&file(&desk));
    host.until_agent("leaver", "it leaves", |status| status["state"] == "leaving");
    assert_eq!(host.caxton(&["mailbox", "resume", "desk"]).0, 0);
    let answer = |host: &Host| thread(host, "asked")["messages"][1].clone();
    host.until("the answer is handled", |host| (answer(host)["state"] == "handled").then_some(()));
    assert_eq!((&answer(&host)["sender"], &answer(&host)["revision"]), (&json!("desk"), &json!("leaver@1")));
    let sent = host.api().post("/v1/agents/leaver/messages", r#"{"do":"none"}"#);
    assert_ne!(sent.status.as_u16(), 202, "a new conversation: {}", sent.text());
}

#[test]
fn a_conversation_by_capability_stays_with_its_first_receiver() {
    let desk = |name: &str| agent(name, "rogue", "capabilities = [\"desk\"]");
    let manager = agent("manager", "rogue", "allow = { send = [\"cap:desk\"] }");
    let two = manager + &desk("desk-a") + &desk("desk-b");
    let three = two.clone() + &desk("desk-c");
    let mut host = host(&two);
    let names: Vec<String> = (0..12).map(|number| format!("c-{number}")).collect();
    let ask = |host: &Host, name: &String| send(host, "manager", "cap:desk", name, &no_reply(), &speech_act("inform"));
    // Who got the messages of each; one entry for each conversation if all stayed.
    let taken = |host: &mut Host, count: usize, names: &[String]| -> BTreeMap<String, Vec<String>> {
        let mut taken = BTreeMap::new();
        for name in names {
            let mut receivers: Vec<String> =
                until_messages(host, name, count).into_iter().map(|(_, to, _)| to).collect();
            receivers.dedup();
            taken.insert(name.clone(), receivers);
        }
        taken
    };
    names.iter().for_each(|name| ask(&host, name));
    let first = taken(&mut host, 1, &names);
    assert!(["desk-a", "desk-b"].iter().all(|desk| first.values().any(|taken| taken == &[*desk])), "{first:?}");
    host.edit(&file(&three));
    host.until_agent("desk-c", "it runs", |status| status["state"] == "running");
    // Half of them say only one thing before the host ends.
    let (early, late) = names.split_at(6);
    early.iter().for_each(|name| ask(&host, name));
    taken(&mut host, 2, early);
    let mut host = host.kill().start();
    names.iter().for_each(|name| ask(&host, name));
    let mut all = taken(&mut host, 3, early);
    all.extend(taken(&mut host, 2, late));
    assert_eq!(all, first, "each stayed");
    let new: Vec<String> = (0..12).map(|number| format!("n-{number}")).collect();
    new.iter().for_each(|name| ask(&host, name));
    let taken = taken(&mut host, 1, &new);
    assert!(taken.values().any(|taken| taken == &["desk-c"]), "new ones come to the new desk as well: {taken:?}");
}

#[test]
fn a_conversation_has_a_limited_number_of_participants() {
    let mut host = host(&("[conversations]\nparticipants = 2\n".to_owned() + &agents_of_the_office()));
    send(&host, "manager", "desk-a", "small", &no_reply(), &speech_act("inform"));
    send(&host, "manager", "desk-b", "small", &no_reply(), &speech_act("inform"));
    send(&host, "manager", "desk-a", "small", &no_reply(), &speech_act("inform"));
    let mut found = until_messages(&mut host, "small", 3);
    found.sort();
    let back = ("desk-b".to_owned(), "manager".to_owned(), "not-understood".to_owned());
    assert_eq!(found[0], back);
    assert_eq!(thread(&host, "small")["conversation"]["participants"], json!(["desk-a", "manager"]));
    let text = thread(&host, "small").to_string();
    assert!(text.contains("the conversation would have more than 2 participants"), "{text}");
    assert_eq!(host.agent("desk-b")["accepted"], 0);
}

#[test]
fn mutual_calls_within_a_conversation_fail_with_deadlock() {
    let to = |name: &str| format!("allow = {{ send = [\"{name}\"] }}");
    let agents = [("one", "two"), ("two", "three"), ("three", "one")];
    let host = host(&agents.map(|(name, next)| agent(name, "rogue", &to(next))).concat());
    let with = json!({ "conversation": "circle", "protocol": "fipa-request" });
    let ask = |to: &str, content: Value| json!({ "do": "request", "to": to, "content": content, "with": with });
    let asks = ask("two", ask("three", ask("one", no_reply()))).to_string();
    let told = host.client().send(Method::POST, "/one", &[("caxton-conversation", "circle")], asks).json();
    let last = &told["reply"]["reply"];
    assert_eq!((&last["error"], &last["detail"]), (&json!("deadlock"), &json!(["one", "two", "three", "one"])));
    let circle = thread(&host, "circle");
    assert_eq!(
        (&circle["conversation"]["messages"], &circle["messages"]),
        (&json!(6), &json!([])),
        "calls are counted"
    );
}

#[test]
fn a_broadcast_reaches_each_other_agent_once_or_none() {
    let desk = |name: &str, more: &str| agent(name, "rogue", &format!("capabilities = [\"desk\"]\n{more}"));
    let toml = desk("desk-a", "allow = { send = [\"cap:desk\", \"desk-c\"] }")
        + &desk("desk-b", "")
        + &desk("desk-c", "mailbox = { depth = 1 }")
        + &agent("stranger", "rogue", "allow = { send = [\"desk-a\", \"desk-b\", \"desk-c\"] }");
    let mut host = host(&toml);
    let broadcast = |host: &Host, from: &str, conversation: &str, after: u64| {
        let with = json!({ "conversation": conversation, "performative": "inform", "after-ms": after });
        act(host, from, &json!({ "do": "broadcast", "to": "cap:desk", "content": no_reply(), "with": with }))
    };
    let told = broadcast(&host, "desk-a", "all", 0);
    let mut receivers: Vec<String> = until_messages(&mut host, "all", 2).into_iter().map(|(_, to, _)| to).collect();
    receivers.sort();
    assert_eq!(receivers, ["desk-b", "desk-c"], "the sender itself gets none");
    let messages = thread(&host, "all")["messages"].clone();
    let id = |receiver: &str| {
        let found = messages.as_array()?.iter().find(|message| message["receiver"] == receiver)?;
        Some(found["id"].clone())
    };
    assert_eq!(Some(&told["sent"]), Some(&json!([id("desk-b"), id("desk-c")])), "in order of name");
    assert_eq!(broadcast(&host, "stranger", "not", 0), json!({ "error": "not-allowed", "detail": "cap:desk" }));
    // A timer is seen in its conversation, and takes no place.
    let with = json!({ "conversation": "place", "after-ms": 600_000 });
    act(&host, "desk-a", &json!({ "do": "send", "to": "desk-c", "content": no_reply(), "with": with }));
    host.until_agent("desk-c", "it waits", |status| status["timers"] == 1 && status["mailbox_depth"] == 0);
    // Its only place is taken for a while.
    assert_eq!(host.caxton(&["mailbox", "pause", "desk-c"]).0, 0);
    act(&host, "desk-a", &json!({ "do": "send", "to": "desk-c", "content": no_reply() }));
    host.until_agent("desk-c", "its mailbox is full", |status| status["mailbox_depth"] == 1);
    assert_eq!(broadcast(&host, "desk-a", "not", 0), json!({ "error": "mailbox-full", "detail": 1 }));
    assert_eq!(host.api().get("/v1/conversations/not").status.as_u16(), 404, "nobody got anything");
    assert_eq!(host.agent("desk-b")["mailbox_depth"], 0);
    let waiting = thread(&host, "place")["messages"][0].clone();
    assert_eq!(waiting["state"], "waiting");
    assert!(waiting["due_at"].as_u64() > waiting["sent_at"].as_u64(), "{waiting}");
}

#[test]
fn schedules_are_listed_with_their_times() {
    let schedule = |cron: &str| {
        format!(
            "[[agents.clock.schedule]]\ncron = \"{cron}\"\ncontent = '{{\"do\":\"none\"}}'\ntimezone = \"Europe/Berlin\"\n"
        )
    };
    let toml =
        agent("clock", "rogue", "") + &schedule("* * * * * *") + &schedule("0 0 1 1 *") + &agent("other", "rogue", "");
    let mut host = host(&toml);
    let listed = |host: &Host| -> Vec<Value> {
        let (code, stdout, stderr) = host.caxton(&["schedule", "ls", "clock", "-o", "json"]);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).expect("a list")
    };
    let found = host.until("it fired", |host| Some(listed(host)).filter(|found| found[0]["last_at"].is_u64()));
    let time = |of: &Value| of.as_u64().expect("a time");
    let (last, next) = (time(&found[0]["last_at"]), time(&found[0]["next_at"]));
    assert!(last % 1_000 == 0 && next % 1_000 == 0 && last < next, "{found:?}");
    assert_eq!((&found[1]["last_at"], &found[1]["cron"]), (&Value::Null, &json!("0 0 1 1 *")), "it never fired");
    assert_eq!((&found[1]["missed"], &found[1]["timezone"]), (&json!("latest"), &json!("Europe/Berlin")));
    let (code, stdout, _) = host.caxton(&["schedule", "ls"]);
    assert!(code == 0 && stdout.lines().count() == 3 && stdout.contains("0 0 1 1 *"), "{stdout}");
    let (code, _, stderr) = host.caxton(&["schedule", "ls", "clocks"]);
    assert!(code == 3 && stderr.contains("did you mean `clock`?"), "{stderr}");
    let (code, _, stderr) = host.caxton(&["schedule", "ls", "other"]);
    assert_eq!((code, stderr.as_str()), (0, "no schedule is declared\n"));
}
