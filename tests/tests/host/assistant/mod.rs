//! The agent `assistant`: a language model's answer, streamed to the client, with agents as tools.

mod model;

use std::io::{Read, Write};
use std::net::TcpStream;

use caxton_tests::{Host, PATIENCE, Setup};
use http::Method;
use serde_json::{Value, json};

use crate::{BINARY, agent, demo, file};
use model::{Answer, Model, Part, call, finish, send, text, usage};

/// The secret of the tests.
const KEY: &str = "hunter2-and-more";

/// Returns a file with the assistant, which may call the places, and two agents that are its tools.
fn declaration(api: &str, places: &str, more: &str) -> String {
    let assistant = format!(
        "[agents.assistant]\ncomponent = \"GUEST(assistant)\"\nallow.send = [\"echo\", \"rogue\"]\n\
         allow.http = [{places}]\nlimits = {{ time = \"2m\", cpu = \"10s\" }}\nconfig.api = \"{api}\"\n\
         config.model = \"scripted\"\nconfig.tool-repeat = \"echo: Repeats what it is told.\"\n\
         config.tool-act = \"rogue: Does what it is told.\"\nconfig.tool-other = \"other: Is not granted.\"\n\
         config.rounds = \"3\"\n[[agents.assistant.http]]\nroute = \"/assistant\"\nmethods = [\"POST\"]\n"
    );
    file(&format!(
        "{more}\n{assistant}{}{}{}",
        agent("echo", "echo", ""),
        agent("rogue", "rogue", ""),
        agent("other", "echo", "")
    ))
}

/// Starts a host whose assistant calls this model.
fn host_of(model: &Model, more: &str) -> Host {
    let place = format!("\"http://{}/v1/*\"", model.address);
    Setup::new(BINARY, &declaration(&format!("http://{}/v1/", model.address), &place, more)).start()
}

/// Returns the events of an answer, as names and data.
fn events(text: &str) -> Vec<(String, Value)> {
    let event = |block: &str| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        let data = serde_json::from_str(&field("data: ")).unwrap_or_else(|error| panic!("{error}: {block}"));
        (field("event: "), data)
    };
    text.split("\n\n").filter(|block| !block.is_empty()).map(event).collect()
}

/// Asks the assistant. Returns the events of its answer.
fn ask(host: &Host, question: &str) -> Vec<(String, Value)> {
    let reply = host.client().post("/assistant", question.to_owned());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    assert_eq!((reply.header("content-type"), reply.header("cache-control")), ("text/event-stream", "no-store"));
    events(&reply.text())
}

/// Returns the names of events.
fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

/// Returns the text of an answer.
fn text_of(events: &[(String, Value)]) -> String {
    events.iter().filter(|(name, _)| name == "text").filter_map(|(_, data)| data["text"].as_str()).collect()
}

#[test]
fn the_demo_answers_with_its_stand_in_for_a_model() {
    let mut host = demo::start();
    let events = ask(&host, "My internet is down since this morning.");
    let told = |name: &str| &events.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("{events:?}")).1;
    assert_eq!(told("tool-call"), &json!({ "tool": "tickets", "message": "My internet is down since this morning." }));
    assert!(told("tool-result")["content"].as_str().is_some_and(|content| content.contains("network")), "{events:?}");
    assert!(text_of(&events).starts_with("The ticket went to network. We measure your line now."), "{events:?}");
    assert!(told("usage")["total_tokens"].as_u64().is_some_and(|total| total > 10), "{events:?}");
    assert_eq!(events.last(), Some(&(String::from("done"), json!({ "rounds": 2, "finish": "stop" }))));
    host.until_agent("ledger", "it is told of the ticket", |status| status["handled"] == 1);
    let question = json!({ "question": "How many tickets are there?" }).to_string();
    let reply = host.client().send(Method::POST, "/assistant", &[("content-type", "application/json")], question);
    let answered = self::events(&reply.text());
    assert!(text_of(&answered).starts_with("I was told: {\"tickets\":1,"), "{answered:?}");
    // Without a tool that fits there is one round.
    let answered = ask(&host, "Good morning!");
    assert_eq!(answered.last().map(|(_, data)| &data["rounds"]), Some(&json!(1)), "{answered:?}");
    for (question, kind) in [("", "text/plain"), (" ", "text/plain"), ("{\"q\": 1}", "application/json")] {
        let reply = host.client().send(Method::POST, "/assistant", &[("content-type", kind)], question);
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (422, &json!("rejected")), "{question}");
    }
    // The stand-in itself, as a client of such services calls it without streaming.
    let request = json!({ "model": "any", "messages": [{ "role": "user", "content": "Good morning!" }] });
    let reply = host.client().post("/v1/chat/completions", request.to_string());
    assert_eq!(reply.json()["choices"][0]["finish_reason"], "stop", "{}", reply.text());
    assert_eq!(host.client().post("/v1/chat/completions", "{}").status.as_u16(), 400);
}

/// Sends a question over a connection of its own.
fn open(host: &Host, question: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    let length = question.len();
    write!(
        stream,
        "POST /assistant HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{question}"
    )
    .expect("it reads");
    stream
}

/// Reads until the text has come. Returns all that has come.
fn read_until(stream: &mut TcpStream, expected: &str) -> String {
    let (mut seen, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut part).expect("it goes on");
        assert!(read > 0, "it ended with {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&seen);
        if text.contains(expected) {
            return text.into_owned();
        }
    }
}

#[test]
fn the_first_part_is_there_while_the_model_still_holds_back_the_rest() {
    let model = Model::start([Answer::stream(vec![
        send(&text("Good ")),
        Part::Hold,
        send(&text("morning.")),
        send(&finish("stop")),
        Part::Send(String::from("data: [DONE]\n\n")),
    ])]);
    let host = host_of(&model, "");
    let mut stream = open(&host, "Hello?");
    let first = read_until(&mut stream, "data: {\"text\":\"Good \"}\n\n");
    assert!(first.contains("text/event-stream") && !first.contains("morning"), "{first}");
    model.release();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("it goes on");
    assert!(rest.contains("data: {\"text\":\"morning.\"}\n\n") && rest.contains("event: done\n"), "{rest}");
}

#[test]
fn tools_are_asked_over_several_rounds_and_their_errors_are_the_models_to_judge() {
    let refused = json!({ "message": json!({ "do": "reply", "text": "not today", "with": { "performative": "refuse" } }).to_string() });
    let failed =
        json!({ "message": json!({ "do": "fail", "cause": "rejected", "reason": "no such thing" }).to_string() });
    let model = Model::start([
        Answer::chunks(&[
            text("Let me ask. "),
            call(0, Some("a"), Some("repeat"), "{\"mess"),
            call(0, None, None, "age\": \"again\"}"),
            call(1, Some("b"), Some("act"), &refused.to_string()),
            call(2, Some("c"), Some("act"), &failed.to_string()),
            finish("tool_calls"),
            usage(10, 2),
        ]),
        Answer::chunks(&[
            call(0, Some("d"), Some("nothing"), "{\"message\": \"x\"}"),
            call(1, Some("e"), Some("repeat"), "no JSON"),
            call(2, Some("f"), Some("other"), "{\"message\": \"x\"}"),
            finish("tool_calls"),
            usage(20, 3),
        ]),
        Answer::chunks(&[text("That is all."), finish("stop"), usage(30, 4)]),
    ]);
    let host = host_of(&model, "");
    let events = ask(&host, "Do all of it.");
    let calls = ["tool-call"; 3].into_iter().chain(["tool-result"; 3]);
    let expected = ["text"].into_iter().chain(calls.clone()).chain(calls).chain(["text", "usage", "done"]);
    assert_eq!(names(&events), expected.collect::<Vec<_>>(), "{events:?}");
    assert_eq!(events[4].1, json!({ "tool": "repeat", "content": "again" }));
    assert_eq!(events[5].1, json!({ "tool": "act", "error": "not today" }));
    for (event, part) in [
        (6, "no such thing"),
        (10, "there is no tool nothing; there are: "),
        (11, "the arguments are not"),
        (12, "allow.send"),
    ] {
        assert!(events[event].1["error"].as_str().is_some_and(|error| error.contains(part)), "{event}: {events:?}");
    }
    assert_eq!(events[14].1, json!({ "prompt_tokens": 60, "completion_tokens": 9, "total_tokens": 69 }));
    assert_eq!(events[15].1["rounds"], 3);
    // The model sees what it asked for and what came of it.
    let asked = model.asked();
    let body = &asked[0].body;
    assert_eq!((&body["model"], &body["stream"]), (&json!("scripted"), &json!(true)));
    assert_eq!(body["tools"].as_array().map(Vec::len), Some(3), "{body}");
    let messages = asked[2].body["messages"].as_array().expect("a list").clone();
    let roles: Vec<&str> = messages.iter().filter_map(|message| message["role"].as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool", "tool", "assistant", "tool", "tool", "tool"]);
    assert_eq!((&messages[2]["content"], &messages[2]["tool_calls"][0]["id"]), (&json!("Let me ask. "), &json!("a")));
    assert_eq!((&messages[3]["tool_call_id"], &messages[3]["content"]), (&json!("a"), &json!("again")));
    assert_eq!(messages[4]["content"], json!({ "error": "not today" }).to_string());
}

#[test]
fn a_model_that_never_answers_but_only_asks_is_given_up() {
    let turn = || Answer::chunks(&[call(0, Some("a"), Some("repeat"), "{\"message\": \"x\"}"), finish("tool_calls")]);
    let model = Model::start([turn(), turn(), turn(), turn()]);
    let host = host_of(&model, "");
    let events = ask(&host, "And again?");
    let (name, data) = events.last().expect("an event");
    assert_eq!((name.as_str(), &data["code"]), ("error", &json!("too-many-rounds")), "{events:?}");
    assert!(data["detail"].as_str().is_some_and(|detail| detail.contains("config.rounds")), "{data}");
    assert_eq!(model.asked().len(), 3);
}

#[test]
fn the_host_adds_the_key_and_the_agent_never_has_it() {
    let model = Model::start([Answer::chunks(&[text("Yes."), finish("stop")])]);
    let place = format!(
        "{{ url = \"http://{}/v1/*\", private = true, headers = {{ authorization = \"Bearer ${{secret:key}}\" }} }}",
        model.address
    );
    let secret = "[secrets]\nkey = { env = \"GIVEN\" }";
    let toml = declaration(&format!("http://{}/v1", model.address), &place, secret);
    let host = Setup::new(BINARY, &toml).variable("GIVEN", KEY).start();
    let events = ask(&host, "Are you there?");
    assert_eq!(text_of(&events), "Yes.");
    let asked = &model.asked()[0];
    assert!(asked.head.contains(&format!("\r\nauthorization: bearer {KEY}\r\n")), "{}", asked.head);
    assert!(asked.head.starts_with("post /v1/chat/completions "), "{}", asked.head);
    // Neither in what the agent sent itself, nor in what it told anybody.
    let (_, log, _) = host.caxton(&["logs", "assistant", "--tail", "1000"]);
    for told in [asked.body.to_string(), format!("{events:?}"), log, host.output(), host.api().get("/v1/events").text()]
    {
        assert!(!told.contains(KEY), "{told}");
    }
}

#[test]
fn errors_of_the_api_have_a_status_a_code_and_a_text() {
    let model = Model::start([]);
    let host = host_of(&model, "");
    let told = "{\"error\": {\"message\": \"says why\"}}";
    let json = "content-type: application/json\r\n";
    let stream = "content-type: text/event-stream\r\n";
    let cases = [
        (Answer::raw("429 Too Many Requests", "retry-after: 7\r\n", told), 503, "api-busy", "429 says why"),
        (Answer::raw("500 Internal Server Error", json, told), 503, "api-failed", "500 says why"),
        (Answer::raw("503 Service Unavailable", "", "plain words"), 503, "api-failed", "503 plain words"),
        (Answer::raw("401 Unauthorized", json, told), 502, "api-key-refused", "`allow.http`"),
        (Answer::raw("404 Not Found", json, told), 502, "api-not-found", "`config.model`"),
        (Answer::raw("400 Bad Request", json, told), 502, "api-refused", "400 says why"),
        (Answer::raw("200 OK", stream, "data: no JSON\n\n"), 502, "api-malformed", "no JSON"),
        (Answer::raw("200 OK", stream, &format!("data: {}\n\n", finish("stop"))), 502, "api-malformed", "neither text"),
        (Answer::raw("200 OK", json, "[]"), 502, "api-malformed", "not as expected"),
        (Answer::raw("200 OK", json, "{}"), 502, "api-broken-off", "broke off"),
        (Answer::raw("200 OK", stream, &format!("data: {told}\n\n")), 502, "api-failed", "says why"),
        (
            Answer::raw("200 OK", &format!("{stream}content-length: 99\r\n"), "data: {"),
            502,
            "api-unreachable",
            "incomplete",
        ),
        (
            Answer::chunks(&[call(4, Some("a"), Some("act"), ""), finish("tool_calls")]),
            502,
            "api-malformed",
            "follows 0",
        ),
        (
            Answer::chunks(&[call(0, None, Some("act"), ""), finish("tool_calls")]),
            502,
            "api-malformed",
            "without a name",
        ),
    ];
    for (answer, status, code, part) in cases {
        model.add(answer);
        let reply = host.client().post("/assistant", "Are you there?");
        let told = reply.json();
        assert_eq!((reply.status.as_u16(), &told["code"]), (status, &json!(code)), "{told}");
        assert!(told["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{part}: {told}");
        let wait = match code {
            "api-busy" => "7",
            _ if status == 503 => "1",
            _ => "",
        };
        assert_eq!((reply.header("content-type"), reply.header("retry-after")), ("application/problem+json", wait));
    }
    // A server that ends the connection without a word.
    assert_eq!(host.client().post("/assistant", "Are you there?").json()["code"], "api-unreachable");
    // After the first part only an event can tell, and the response is whole.
    for (rest, code) in [(vec![Part::Send(String::from("data: {\n\n"))], "api-malformed"), (vec![], "api-broken-off")] {
        model.add(Answer::stream([send(&text("So "))].into_iter().chain(rest).collect()));
        let events = ask(&host, "Are you there?");
        assert_eq!(names(&events), ["text", "error"], "{events:?}");
        assert_eq!(events[1].1["code"], code, "{events:?}");
    }
}

#[test]
fn a_model_that_takes_too_long_is_given_up_with_the_setting() {
    let model = Model::start([
        Answer::silent(),
        Answer::stream(vec![Part::UntilGone]),
        Answer::stream(vec![send(&text("So ")), Part::UntilGone]),
    ]);
    let host = host_of(&model, "[outgoing]\nfirst-byte-timeout = \"500ms\"\nstall-timeout = \"500ms\"");
    for setting in ["`outgoing.first-byte-timeout`", "`outgoing.stall-timeout`"] {
        let reply = host.client().post("/assistant", "Are you there?");
        let told = reply.json();
        assert_eq!((reply.status.as_u16(), &told["code"]), (504, &json!("api-timeout")), "{told}");
        assert!(told["detail"].as_str().is_some_and(|detail| detail.contains(setting)), "{told}");
        model.until_gone();
    }
    let events = ask(&host, "Are you there?");
    assert_eq!(names(&events), ["text", "error"], "{events:?}");
    assert_eq!(events[1].1["code"], "api-timeout", "{events:?}");
    model.until_gone();
}

#[test]
fn answers_as_a_whole_refusals_and_cut_answers_are_told() {
    let content = json!({ "role": "assistant", "content": "Whole." });
    let whole = json!({ "choices": [{ "message": content, "finish_reason": "stop" }], "usage": { "total_tokens": 5 } });
    let refusal = json!({ "choices": [{ "delta": { "refusal": "I do not say that." } }] });
    let model = Model::start([
        Answer::raw("200 OK", "content-type: application/json\r\n", &whole.to_string()),
        Answer::chunks(&[refusal, finish("stop")]),
        Answer::chunks(&[finish("content_filter")]),
        Answer::chunks(&[text("It is cut"), finish("length")]),
    ]);
    let host = host_of(&model, "");
    let events = ask(&host, "1?");
    assert_eq!((names(&events), text_of(&events).as_str()), (vec!["text", "usage", "done"], "Whole."), "{events:?}");
    for told in ["I do not say that.", "the service filtered the answer"] {
        let events = ask(&host, "2?");
        assert_eq!(names(&events), ["refusal", "done"], "{events:?}");
        assert_eq!((&events[0].1["text"], &events[1].1["finish"]), (&json!(told), &json!("refusal")));
    }
    assert_eq!(ask(&host, "3?").last().map(|(_, data)| &data["finish"]), Some(&json!("length")));
}

#[test]
fn a_client_that_leaves_in_the_middle_ends_the_call_of_the_model() {
    let model = Model::start([Answer::stream(vec![send(&text("It begins ")), Part::UntilGone])]);
    let mut host = host_of(&model, "[outgoing]\nstall-timeout = \"1h\"");
    let mut stream = open(&host, "Go on and on.");
    read_until(&mut stream, "It begins ");
    // Closing without lingering resets: the host need not write to find out.
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).expect("a TCP socket");
    drop(stream);
    model.until_gone();
    host.until_agent("assistant", "the call ended", |status| status["in_flight"] == 0);
    model.add(Answer::chunks(&[text("Still here."), finish("stop")]));
    assert_eq!(text_of(&ask(&host, "Are you there?")), "Still here.");
}

#[test]
fn a_place_that_is_not_granted_is_told_with_its_setting() {
    let model = Model::start([]);
    let api = format!("http://{}/v1", model.address);
    for (places, part) in [
        (String::from("\"https://api.example.com/v1/*\""), "`allow.http` of this agent does not cover it"),
        (String::new(), "`allow.http` of this agent does not cover it"),
        (format!("{{ url = \"{api}/*\", methods = [\"GET\"] }}"), "`allow.http` of this agent does not cover it"),
    ] {
        let mut host = Setup::new(BINARY, &declaration(&api, &places, "")).start();
        let reply = host.client().post("/assistant", "Are you there?");
        let told = reply.json();
        assert_eq!((reply.status.as_u16(), &told["code"]), (500, &json!("api-not-allowed")), "{told}");
        assert!(told["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{told}");
        // The log says more: the place that would cover it.
        host.until("the line in its log", |host| {
            let (_, log, _) = host.caxton(&["logs", "assistant", "--tail", "1000"]);
            (log.contains("allow.http") && log.contains(&model.address.to_string())).then_some(())
        });
    }
    assert!(model.asked().is_empty());
}

#[test]
fn settings_are_checked_before_the_first_question() {
    let toml = declaration("http://127.0.0.1:1/v1", "\"http://127.0.0.1:1\"", "");
    for (line, instead, expected) in [
        ("config.api = \"http://127.0.0.1:1/v1\"\n", "", "config.api is missing"),
        ("\"other: Is not granted.\"", "\"nobody\"", "config.tool-other is \\\"nobody\\\""),
        ("config.rounds = \"3\"", "config.rounds = \"many\"", "config.rounds is \\\"many\\\""),
    ] {
        let host = Setup::new(BINARY, &toml.replace(line, instead)).start();
        let status = host.agent("assistant").to_string();
        assert!(status.contains(expected), "{expected}: {status}");
    }
}
