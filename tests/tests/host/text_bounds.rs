//! The texts that guests and callers name: each is sent far too long, and nothing that the host keeps or answers has
//! more of it than its bound.

use std::fs;
use std::path::Path;

use caxton_tests::{Client, Host, Reply};
use http::Method;
use serde_json::{Value, json};

use crate::{agent, host};

/// The length in characters to which each text is sent, or would be if HTTP allowed it.
const LONG: usize = 200_000;
/// The same within the head of a request, which `http.max-head` bounds as a whole.
const LONG_IN_HEAD: usize = 40_000;

/// A way in which a text comes into the host.
enum Way {
    /// A guest names it in an action; `TEXT` stands for it.
    Action(Value),
    /// The same, for a message that nobody waits for.
    Queued(Value),
    /// A caller names it in a request.
    Request(fn(&Client, &str) -> Result<Reply, String>),
    /// A guest returns it from a function that the host calls on its own.
    Config,
}

/// A text with its bound in characters.
struct Field {
    name: &'static str,
    bound: usize,
    way: Way,
}

fn action(name: &'static str, bound: usize, action: Value) -> Field {
    Field { name, bound, way: Way::Action(action) }
}

fn queued(name: &'static str, bound: usize, action: Value) -> Field {
    Field { name, bound, way: Way::Queued(action) }
}

fn request(name: &'static str, bound: usize, send: fn(&Client, &str) -> Result<Reply, String>) -> Field {
    Field { name, bound, way: Way::Request(send) }
}

fn post(client: &Client, path: &str, headers: &[(&str, &str)]) -> Result<Reply, String> {
    client.try_send(Method::POST, path, headers, r#"{"do":"none"}"#)
}

/// All texts of the contract and of HTTP that the host keeps, logs, compares or answers with.
fn fields() -> Vec<Field> {
    let send = |with: Value| json!({ "do": "send", "to": "rogue", "bytes": 1, "with": with });
    let reply = |with: Value| json!({ "do": "reply", "text": "x", "with": with });
    vec![
        action("failure.reason", 1_000, json!({ "do": "fail", "cause": "fault", "reason": "TEXT" })),
        queued(
            "failure.reason of a dead letter",
            1_000,
            json!({ "do": "fail", "cause": "rejected", "reason": "TEXT" }),
        ),
        queued(
            "failure.reason of an attempt",
            1_000,
            json!({ "do": "fail", "cause": "unavailable", "reason": "TEXT" }),
        ),
        action("draft.receiver", 200, json!({ "do": "send", "to": "TEXT", "bytes": 1 })),
        action("draft.receiver of a request", 200, json!({ "do": "request", "to": "TEXT", "bytes": 1 })),
        action("draft.receiver of a broadcast", 200, json!({ "do": "broadcast", "to": "cap:TEXT", "bytes": 1 })),
        action("draft.content-type", 100, send(json!({ "content-type": "TEXT" }))),
        action("draft.ontology", 100, send(json!({ "ontology": "TEXT" }))),
        action("draft.protocol", 100, send(json!({ "protocol": "TEXT" }))),
        action("draft.conversation-id", 256, send(json!({ "conversation": "TEXT" }))),
        action("draft.reply-with", 256, send(json!({ "reply-with": "TEXT" }))),
        action("draft.in-reply-to", 256, send(json!({ "in-reply-to": "TEXT" }))),
        action("draft.headers name", 200, send(json!({ "headers": [["TEXT", "x"]] }))),
        action("draft.headers value", 200, send(json!({ "headers": [["x", "TEXT"]] }))),
        action("draft.headers timer", 100, send(json!({ "after-ms": 600_000, "headers": [["timer", "TEXT"]] }))),
        action("reply.content-type", 100, reply(json!({ "content-type": "TEXT" }))),
        action("reply.ontology", 100, reply(json!({ "ontology": "TEXT" }))),
        action("reply.reply-with", 256, reply(json!({ "reply-with": "TEXT" }))),
        action("reply.headers name", 200, reply(json!({ "headers": [["TEXT", "x"]] }))),
        action("reply.headers value", 200, reply(json!({ "headers": [["x", "TEXT"]] }))),
        action("reply.headers status", 40, reply(json!({ "headers": [["caxton-status", "TEXT"]] }))),
        queued("reply.reply-with of a queued message", 256, reply(json!({ "reply-with": "TEXT" }))),
        action("cancel", 100, json!({ "do": "cancel", "timer": "TEXT" })),
        action("find", 100, json!({ "do": "find", "capability": "TEXT" })),
        action("state key", 1_024, json!({ "do": "get", "key": "TEXT" })),
        action("state key written", 1_024, json!({ "do": "set", "key": "TEXT", "value": "x" })),
        action("log text", 8_192, json!({ "do": "log", "level": "info", "text": "TEXT" })),
        action("stdout", 8_192, json!({ "do": "print", "stdout": "TEXT" })),
        action("stderr", 8_192, json!({ "do": "print", "stderr": "TEXT" })),
        action(
            "stderr of a trap",
            8_192,
            json!({ "do": "steps", "steps": [{ "do": "print", "stderr": "TEXT" }, { "do": "trap" }] }),
        ),
        request("method", 32, |client, text| {
            client.try_send(Method::from_bytes(text.as_bytes()).expect("a token"), "/rogue", &[], "")
        }),
        request("path", LONG_IN_HEAD, |client, text| post(client, &format!("/rogue/{text}"), &[])),
        request("query", LONG_IN_HEAD, |client, text| post(client, &format!("/rogue?{text}"), &[])),
        request("accept", LONG_IN_HEAD, |client, text| post(client, "/rogue", &[("accept", text)])),
        request("content-type", 100, |client, text| post(client, "/rogue", &[("content-type", text)])),
        request("caxton-performative", 8_192, |client, text| post(client, "/rogue", &[("caxton-performative", text)])),
        request("caxton-conversation", 256, |client, text| post(client, "/rogue", &[("caxton-conversation", text)])),
        request("caxton-conversation of an HTTP agent", 256, |client, text| {
            post(client, "/web/ok", &[("caxton-conversation", text)])
        }),
        request("caxton-protocol", 100, |client, text| post(client, "/rogue", &[("caxton-protocol", text)])),
        request("caxton-ontology", 100, |client, text| post(client, "/rogue", &[("caxton-ontology", text)])),
        request("caxton-deadline", 200, |client, text| post(client, "/rogue", &[("caxton-deadline", text)])),
        request("idempotency-key", 256, |client, text| post(client, "/queue", &[("idempotency-key", text)])),
        request("tracestate", LONG_IN_HEAD, |client, text| {
            let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            post(client, "/queue", &[("traceparent", parent), ("tracestate", text)])
        }),
        request("host", 200, |client, text| post(client, "/rogue", &[("host", text)])),
        Field { name: "health", bound: 1_000, way: Way::Config },
        Field { name: "save", bound: 1_000, way: Way::Config },
    ]
}

/// A short text that stands for one field: a token of HTTP, an id and a name of a header.
fn unit(number: usize) -> String {
    format!("q{number:02}-")
}

/// Returns the length of the longest run of a unit in a text.
fn longest_run(text: &str, unit: &str) -> usize {
    let (mut longest, mut rest) = (0, text);
    while let Some(found) = rest.find(unit) {
        let run = &rest[found..];
        rest = run.trim_start_matches(unit);
        longest = longest.max(run.len() - rest.len());
    }
    longest
}

/// Returns the response of a field's text, if there is one.
fn name(host: &Host, field: &Field, number: usize) -> Option<String> {
    let unit = unit(number);
    let client = host.client();
    let asked = |action: &Value| {
        let text = format!("repeat:{}:{unit}", LONG / unit.len());
        action.to_string().replace("TEXT", &text)
    };
    let reply = match &field.way {
        // A prefix before the text keeps it from being expanded.
        Way::Action(action) => client.post("/rogue", asked(action).replace("cap:repeat", "repeat")),
        Way::Queued(action) => client.post("/queue", asked(action)),
        Way::Request(send) => match send(&client, &unit.repeat(LONG_IN_HEAD / unit.len())) {
            Ok(reply) => reply,
            // A connection that the host cut has no answer to look at.
            Err(_) => return None,
        },
        Way::Config => return None,
    };
    Some(format!("{}\n{:?}", reply.text(), reply.headers))
}

/// Returns all that the host tells and keeps, each with its name.
fn told(host: &Host) -> Vec<(String, String)> {
    let api = host.api();
    let mut paths: Vec<String> = [
        "/v1/host",
        "/v1/agents",
        "/v1/agents/rogue",
        "/v1/agents/rogue/state",
        "/v1/mailboxes",
        "/v1/mailboxes/rogue/timers",
        "/v1/dead-letters?limit=1000",
        "/v1/conversations?limit=1000",
        "/v1/rollouts",
        "/v1/events?limit=1000",
        "/v1/logs?tail=1000",
        "/v1/schedules",
        "/v1/stats",
        "/metrics",
        "/readyz",
    ]
    .map(str::to_owned)
    .into();
    let dead = api.get("/v1/dead-letters?limit=1000").json();
    let numbers = dead["dead_letters"].as_array().expect("a list").iter().map(|dead| dead["number"].to_string());
    paths.extend(numbers.map(|number| format!("/v1/dead-letters/{number}")));
    let conversations = api.get("/v1/conversations?limit=1000").json();
    let ids = conversations.as_array().expect("a list").iter().filter_map(|known| known["id"].as_str());
    paths.extend(ids.map(|id| format!("/v1/conversations/{id}")));
    let mut told: Vec<(String, String)> = paths.into_iter().map(|path| (path.clone(), api.get(&path).text())).collect();
    for (path, text) in &told {
        assert!(text.len() <= 5 << 20, "{path} answers with {} bytes", text.len());
    }
    told.push(("stderr of the host".to_owned(), host.output()));
    files(&host.folder().join(".caxton"), &mut told);
    told
}

fn files(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("the data folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            // A file may be removed in between.
            let bytes = fs::read(&path).unwrap_or_default();
            found.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

#[test]
fn no_text_is_kept_or_told_beyond_its_bound() {
    let fields = fields();
    let number = |name: &str| fields.iter().position(|field| field.name == name).expect("it is in the list");
    let long = |name: &str| unit(number(name)).repeat(15_000);
    let more = "limits = { message = \"1MiB\", memory = \"64MiB\", state = \"16MiB\" }\nallow = { send = [\"rogue\"] }\n\
                mailbox = { attempts = 2, backoff = { first = \"100ms\" } }\nbreaker = { faults = 100 }\n\
                [[agents.rogue.http]]\nroute = \"/rogue/{rest}\"\n[[agents.rogue.http]]\nroute = \"/queue\"\nmode = \"enqueue\"";
    let ill = format!("config = {{ health = \"{}\" }}", long("health"));
    let stubborn = format!("instances = {{ idle = \"1s\" }}\nconfig = {{ save = \"{}\" }}", long("save"));
    let web = "[agents.web]\ncomponent = \"GUEST(rogue-web)\"\n[[agents.web.http]]\nroute = \"/web/{*rest}\"\n";
    let mut host = host(
        &(agent("rogue", "rogue", more)
            + &agent("ill", "fragile", &ill)
            + &agent("stubborn", "fragile", &stubborn)
            + web),
    );
    host.client().post("/stubborn", "x");
    for (at, field) in fields.iter().enumerate() {
        if let Some(text) = name(&host, field, at) {
            let run = longest_run(&text, &unit(at));
            assert!(run <= field.bound, "{}: the answer has {run} characters of it", field.name);
        }
    }
    host.until("the queued messages to be given up", |host| {
        let mailbox = host.agent("rogue");
        (mailbox["in_flight"] == 0 && mailbox["mailbox_depth"] == 0).then_some(())
    });
    host.until("the save to be refused", |host| {
        host.api().get("/v1/events?agent=stubborn&limit=1000").text().contains("snapshot.not-saved").then_some(())
    });
    for (place, text) in told(&host) {
        for (at, field) in fields.iter().enumerate() {
            // The file of the declaration's settings is the operator's own.
            if matches!(field.way, Way::Config) && place.contains(".caxton") {
                continue;
            }
            let run = longest_run(&text, &unit(at));
            assert!(run <= field.bound, "{}: {place} has {run} characters of it", field.name);
        }
    }
}

#[test]
fn a_page_of_the_api_is_bounded_in_bytes() {
    let more = "limits = { log-lines = 100_000 }";
    let host = host(&agent("rogue", "rogue", more));
    let client = host.client();
    for _ in 0..700 {
        let text = format!("repeat:{}:x", 8_192);
        client.post("/rogue", json!({ "do": "log", "level": "info", "text": text }).to_string());
    }
    let lines = host.api().get("/v1/logs?agent=rogue&tail=1000");
    assert!(lines.body.len() <= 5 << 20, "{} bytes", lines.body.len());
    let lines = lines.json();
    let lines = lines.as_array().expect("a list");
    assert!(lines.len() > 400, "{} lines: as many as fit", lines.len());
}

#[test]
fn lists_come_in_pages_and_the_command_line_reads_all() {
    let names = ["a1", "b2", "c3", "d4", "e5"];
    let host = host(&names.map(|name| agent(name, "echo", "")).concat());
    let api = host.api();
    let (mut path, mut found) = ("/v1/agents?limit=2".to_owned(), Vec::new());
    loop {
        let page = api.get(&path);
        let agents = page.json();
        let agents = agents.as_array().expect("a list").clone();
        assert!(agents.len() <= 2, "{agents:?}");
        found.extend(agents.iter().map(|agent| agent["name"].as_str().expect("a name").to_owned()));
        let link = page.header("link");
        if link.is_empty() {
            break;
        }
        path = link.trim_start_matches('<').split('>').next().expect("a path").to_owned();
    }
    assert_eq!(found, names);
    let page = api.get("/v1/mailboxes?after=b2&limit=1");
    assert_eq!(page.json()[0]["agent"], "c3");
    assert_eq!(page.header("link"), "</v1/mailboxes?after=c3&limit=1>; rel=\"next\"");
    let (_, out, _) = host.caxton(&["ps"]);
    assert!(names.iter().all(|name| out.contains(name)), "{out}");
}
