//! Handlers that read and write the same keys at the same time: each message happens once, whatever the others do.

use std::sync::Barrier;

use serde_json::{Value, json};

use caxton_tests::{Client, Host};

use crate::{agent, host, metric};

/// A rogue `race`, and a rogue `till` that it may ask.
fn shop(more: &str) -> String {
    agent("race", "rogue", &format!("allow = {{ send = [\"till\"] }}\n{more}"))
        + &agent("till", "rogue", "allow = { send = [\"race\"] }")
}

/// Reads a key, asks the till, and writes the key.
fn charge(key: &str) -> Value {
    let sold = json!({ "do": "increment", "key": "sold" });
    json!({ "do": "steps", "steps": [
        { "do": "get", "key": key },
        { "do": "request", "to": "till", "content": sold, "timeout-ms": 60_000 },
        { "do": "increment", "key": key },
    ] })
}

/// Posts each body at the same moment, and returns the statuses and answers.
fn all_at_once(host: &Host, path: &str, bodies: &[Value]) -> Vec<(u16, String)> {
    let barrier = Barrier::new(bodies.len());
    std::thread::scope(|scope| {
        let post = |body: &Value| {
            let (barrier, address, body) = (&barrier, &host.http, body.to_string());
            scope.spawn(move || {
                let client = Client::new(address, None);
                barrier.wait();
                let reply = client.post(path, body);
                (reply.status.as_u16(), reply.text())
            })
        };
        let posts: Vec<_> = bodies.iter().map(post).collect();
        posts.into_iter().map(|post| post.join().expect("a caller has an answer")).collect()
    })
}

fn all_well(answers: &[(u16, String)]) {
    for (status, text) in answers {
        assert!(*status == 200 && !text.contains("\"error\""), "{status} {text}");
    }
}

fn stored(host: &Host, agent: &str, key: &str) -> String {
    host.api().get(&format!("/v1/agents/{agent}/state/{key}")).text()
}

/// Runs are those that came to something and those in conflict, and a message had at most three.
fn runs_add_up(host: &Host, agent: &str, messages: u64) {
    let status = host.agent(agent);
    let count = |key: &str| status[key].as_u64().expect("a number");
    assert_eq!(count("handled"), messages, "{status}");
    assert_eq!(count("runs"), messages + count("conflicts"), "{status}");
    assert!(count("runs") <= 3 * messages, "{status}");
    assert_eq!(metric(host, &format!("caxton_conflicts_total{{agent=\"{agent}\"}}")), count("conflicts"));
    assert_eq!(metric(host, &format!("caxton_runs_total{{agent=\"{agent}\"}}")), count("runs"));
}

fn each_asks_once(callers: u64) {
    let host = host(&shop("limits = { time = \"2m\" }"));
    let bodies: Vec<Value> = (0..callers).map(|_| charge("n")).collect();
    all_well(&all_at_once(&host, "/race", &bodies));
    assert_eq!((stored(&host, "race", "n"), stored(&host, "till", "sold")), (callers.to_string(), callers.to_string()));
    runs_add_up(&host, "race", callers);
    let stats = host.api().get("/v1/stats").json();
    let messages = &stats["messages"];
    let total = |key: &str| messages[key].as_u64().expect("a number");
    assert_eq!(total("runs"), total("handled") + total("conflicts"), "{messages}");
}

#[test]
fn each_of_16_concurrent_calls_is_answered_and_sends_once() {
    each_asks_once(16);
}

#[test]
fn each_of_128_concurrent_calls_is_answered_and_sends_once() {
    each_asks_once(128);
}

#[test]
fn increments_without_a_read_conflict_with_nothing() {
    let host = host(&shop("limits = { time = \"2m\" }"));
    let add = json!({ "do": "steps", "steps": [
        { "do": "add", "key": "n", "by": 2 },
        { "do": "add", "key": "n", "by": 1 },
        { "do": "add", "key": "m", "by": -1 },
    ] });
    all_well(&all_at_once(&host, "/race", &vec![add.clone(); 64]));
    assert_eq!((stored(&host, "race", "n"), stored(&host, "race", "m")), ("192".to_owned(), "-64".to_owned()));
    assert_eq!(host.agent("race")["conflicts"], 0);
    // Beside those who read it.
    let mixed: Vec<Value> = (0..32).map(|at| if at % 2 == 0 { add.clone() } else { charge("n") }).collect();
    all_well(&all_at_once(&host, "/race", &mixed));
    assert_eq!((stored(&host, "race", "n"), stored(&host, "till", "sold")), ("256".to_owned(), "16".to_owned()));
    runs_add_up(&host, "race", 96);
    // What is added is seen by the one that adds, and what is no number is told of at once.
    let seen = json!({ "do": "steps", "steps": [
        { "do": "add", "key": "n", "by": 4 },
        { "do": "get", "key": "n" },
        { "do": "set", "key": "text", "value": "x" },
        { "do": "add", "key": "text" },
        { "do": "add", "key": "new" },
        { "do": "keys" },
    ] });
    let told = host.client().post("/race", seen.to_string()).json();
    assert_eq!((&told[1]["value"], &told[3]["error"]), (&json!("260"), &json!("not-a-number")), "{told}");
    assert_eq!(told[5]["keys"], json!(["m", "n", "new", "text"]));
}

/// Returns the action to request this action from `race`, in a conversation of its own.
fn request_through_till(action: &Value, conversation: &str) -> Value {
    json!({ "do": "request", "to": "race", "content": action, "timeout-ms": 60_000,
        "with": { "conversation": conversation } })
}

#[test]
fn a_handler_that_waits_for_a_writer_of_its_key_continues() {
    let mut host = host(&shop("limits = { time = \"2m\" }"));
    let inner = request_through_till(&json!({ "do": "increment", "key": "n" }), "inner");
    let body = json!({ "do": "steps", "steps": [
        { "do": "get", "key": "n" },
        { "do": "request", "to": "till", "content": inner, "timeout-ms": 60_000 },
        { "do": "increment", "key": "n" },
    ] });
    let outer = host.client().post("/race", body.to_string()).json();
    // The second run had the answer of the first, and read what the inner one wrote.
    assert_eq!((&outer[0]["value"], &outer[2]["sum"]), (&json!("1"), &json!(2)), "{outer}");
    host.until_agent("race", "both are handled", |status| status["handled"] == 2);
    assert_eq!((&host.agent("race")["runs"], &host.agent("race")["conflicts"]), (&json!(3), &json!(1)));
    assert_eq!(host.agent("till")["handled"], 1);
}

#[test]
fn a_message_runs_three_times_and_then_reports_the_conflict() {
    let mut host = host(&shop("limits = { time = \"2m\" }"));
    // Its question is another in each run, and each answer changes what it has read.
    let inner = request_through_till(&json!({ "do": "increment", "key": "n" }), "inner");
    let body = json!({ "do": "steps", "steps": [
        { "do": "ask-of", "to": "till", "key": "n", "content": inner, "timeout-ms": 60_000 },
        { "do": "increment", "key": "n" },
    ] });
    let reply = host.client().post("/race", body.to_string());
    let told = reply.json();
    assert_eq!((reply.status.as_u16(), &told["code"]), (503, &json!("conflict")), "{told}");
    let detail = told["detail"].as_str().expect("a text");
    assert!(detail.contains("`n`") && detail.contains("mailbox.order"), "{detail}");
    host.until_agent("race", "all are handled", |status| status["handled"] == 3 && status["failed"] == 1);
    assert_eq!((stored(&host, "race", "n"), &host.agent("race")["runs"]), ("3".to_owned(), &json!(6)));
}

#[test]
fn handlers_that_use_keys_in_opposite_orders_finish() {
    let host = host(&shop("limits = { time = \"2m\" }"));
    let body = |first: &str, last: &str| {
        let sold = json!({ "do": "increment", "key": "sold" });
        json!({ "do": "steps", "steps": [
            { "do": "increment", "key": first },
            { "do": "request", "to": "till", "content": sold, "timeout-ms": 60_000 },
            { "do": "increment", "key": last },
        ] })
    };
    let bodies: Vec<Value> = (0..24).map(|at| if at % 2 == 0 { body("a", "b") } else { body("b", "a") }).collect();
    all_well(&all_at_once(&host, "/race", &bodies));
    assert_eq!((stored(&host, "race", "a"), stored(&host, "race", "b")), ("24".to_owned(), "24".to_owned()));
    assert_eq!(stored(&host, "till", "sold"), "24");
    runs_add_up(&host, "race", 24);
}

#[test]
fn an_operator_writes_a_key_that_is_reserved() {
    let host = host(&shop("limits = { time = \"2m\" }"));
    std::thread::scope(|scope| {
        let posts = scope.spawn(|| all_at_once(&host, "/race", &vec![charge("n"); 16]));
        let (code, said, error) = host.caxton(&["state", "set", "race", "n", "1000"]);
        assert_eq!(code, 0, "{said}{error}");
        all_well(&posts.join().expect("all are answered"));
    });
    let sum: u64 = stored(&host, "race", "n").parse().expect("a number");
    assert!((1_000..=1_016).contains(&sum), "{sum}");
    assert_eq!(stored(&host, "till", "sold"), "16");
}

#[test]
fn conflicting_calls_of_an_http_agent_run_again() {
    let web = agent("web", "web-effects", "config = { peer = \"till\" }\nallow = { send = [\"till\"] }")
        .replace("route = \"/web\"", "route = \"/{*path}\"");
    let mut host = host(&(web + "[agents.till]\ncomponent = \"GUEST(echo)\"\n"));
    all_well(&all_at_once(&host, "/ask", &vec![Value::Null; 16]));
    assert_eq!(stored(&host, "web", "visits"), "16");
    // Each asked once, and told it of its visit once.
    host.until_agent("till", "all has come", |status| status["handled"] == 32);
    runs_add_up(&host, "web", 16);
}

#[test]
fn a_host_that_is_killed_in_the_middle_counts_each_message_once() {
    let toml = shop("limits = { time = \"2m\" }").replace("route = \"/race\"", "route = \"/race\"\nmode = \"enqueue\"");
    let mut host = host(&toml);
    for _ in 0..64 {
        let reply = host.client().post("/race", charge("n").to_string());
        assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
    }
    host.until_agent("race", "some are handled", |status| status["handled"].as_u64() > Some(3));
    let mut host = host.kill().start();
    host.until("all are handled", |host| (stored(host, "race", "n") == "64").then_some(()));
    host.until_agent("race", "nothing is left", |status| status["mailbox_depth"] == 0 && status["in_flight"] == 0);
    assert_eq!(stored(&host, "race", "n"), "64");
}

#[test]
fn a_conversation_shows_the_number_of_runs() {
    let toml = shop("limits = { time = \"2m\" }").replace("route = \"/race\"", "route = \"/race\"\nmode = \"enqueue\"");
    let mut host = host(&toml);
    let inner = request_through_till(&json!({ "do": "increment", "key": "n" }), "inner");
    let body = json!({ "do": "steps", "steps": [
        { "do": "get", "key": "n" },
        { "do": "request", "to": "till", "content": inner, "timeout-ms": 60_000 },
        { "do": "increment", "key": "n" },
    ] });
    let headers = [("caxton-conversation", "outer")];
    assert_eq!(host.client().send(http::Method::POST, "/race", &headers, body.to_string()).status.as_u16(), 202);
    host.until_agent("race", "both are handled", |status| status["handled"] == 2);
    let (_, said, _) = host.caxton(&["conversation", "show", "outer"]);
    assert!(said.contains("handled by race@1 in 2 runs (1 conflict)"), "{said}");
    let (_, said, _) = host.caxton(&["ps", "race"]);
    assert!(said.contains("runs          3\n") && said.contains("conflicts     1\n"), "{said}");
    let (_, said, _) = host.caxton(&["stats"]);
    assert!(said.contains("4 of handlers, 1 of them in conflict"), "{said}");
}

#[test]
fn calls_of_one_named_conversation_are_handled_in_order() {
    let toml = shop("")
        .replace("route = \"/race\"", "route = \"/orders/{id}\"\nconversation = \"order-{id}-{header:x-shop}\"");
    let host = host(&toml);
    let body = charge("n").to_string();
    let reply = host.client().send(http::Method::POST, "/orders/17", &[("x-shop", "north")], body.clone());
    assert_eq!(
        (reply.status.as_u16(), reply.header("caxton-conversation")),
        (200, "order-17-north"),
        "{}",
        reply.text()
    );
    let headers = [("x-shop", "south"), ("caxton-conversation", "other")];
    let reply = host.client().send(http::Method::POST, "/orders/17", &headers, body.clone());
    assert_eq!(reply.header("caxton-conversation"), "order-17-south", "the route goes before the caller");
    let reply = host.client().post("/orders/17", body.clone());
    assert_eq!(reply.status.as_u16(), 400);
    assert!(reply.text().contains("x-shop"), "{}", reply.text());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let reply = host.client().send(http::Method::POST, "/orders/4", &[("x-shop", "north")], body.clone());
                assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
            });
        }
    });
    assert_eq!((stored(&host, "race", "n"), &host.agent("race")["conflicts"]), ("18".to_owned(), &json!(0)));
}

#[test]
fn a_conflicting_call_runs_again_until_its_first_commit() {
    let web = agent("web", "web-agent", "config = { peer = \"echo\" }\nallow = { send = [\"echo\"] }")
        .replace("\"/web\"", "\"/web/{*rest}\"");
    let host = host(&(web + &agent("echo", "echo", "")));
    // Each counts and commits, counts again, and drops that with its status.
    let answers = all_at_once(&host, "/web/commit?then=status-500", &vec![Value::Null; 16]);
    assert!(answers.iter().all(|(status, _)| *status == 500), "{answers:?}");
    assert_eq!(stored(&host, "web", "count"), "16");
}
