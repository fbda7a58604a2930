//! Budgets along the tree: what all agents use together is counted as one, and never passes a limit.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use caxton_tests::{Host, Setup};
use http::Method;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{BINARY, file, metric};

/// The tokens that the server says each call has used.
const TOKENS: u64 = 7;

/// A server that tells of the tokens that a call has used: as JSON, as server-sent events (`/events`), or not at all
/// (`/silent`).
struct MeteredServer {
    address: SocketAddr,
    /// The calls by query.
    calls: Arc<Mutex<BTreeMap<String, u64>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl MeteredServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let calls = Arc::<Mutex<BTreeMap<String, u64>>>::default();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (counts, seen) = (Arc::clone(&calls), Arc::clone(&heads));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counts, seen) = (Arc::clone(&counts), Arc::clone(&seen));
                std::thread::spawn(move || while serve(&stream, &counts, &seen).is_some() {});
            }
        });
        Self { address, calls, heads }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the calls with a query.
    fn calls(&self, query: &str) -> u64 {
        self.calls.lock().expect("no test panics with it").get(query).copied().unwrap_or(0)
    }
}

/// Answers one request of a connection; `None` at its end.
fn serve(stream: &TcpStream, calls: &Mutex<BTreeMap<String, u64>>, heads: &Mutex<Vec<String>>) -> Option<()> {
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let mut chunk = String::new();
    // The last chunk is empty, and an empty line follows it.
    while head.to_ascii_lowercase().contains("transfer-encoding: chunked") && chunk != "0\r\n" {
        chunk.clear();
        // The caller may be killed in the middle.
        if reader.read_line(&mut chunk).ok()? == 0 {
            return None;
        }
    }
    if !chunk.is_empty() {
        reader.read_line(&mut chunk).ok()?;
    }
    let target = head.split(' ').nth(1)?.to_owned();
    let (path, query) = target.split_once('?').unwrap_or((target.as_str(), ""));
    *calls.lock().ok()?.entry(query.to_owned()).or_default() += 1;
    heads.lock().ok()?.push(head.to_ascii_lowercase());
    let (kind, body) = match path {
        "/events" => (
            "text/event-stream",
            format!(
                "data: {{\"usage\":null}}\n\ndata: {{\"usage\":{{\"total_tokens\":{TOKENS}}}}}\n\ndata: [DONE]\n\n"
            ),
        ),
        "/silent" => ("application/json", "{}".to_owned()),
        "/large" => ("application/octet-stream", ".".repeat(1 << 20)),
        _ => ("application/json", format!("{{\"id\":\"x\",\"usage\":{{\"total_tokens\":{TOKENS}}}}}")),
    };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = stream;
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()
}

/// Three agents that send to each other in turn; the first is called at `/one`, within the budget `demo`.
fn three(meter: &MeteredServer, budget: &str, at_most: u64) -> String {
    let place = format!(
        "{{ url = \"http://{}\", meter = {{ tokens = \"/usage/total_tokens\" }}, at-most = {{ tokens = {at_most} }} }}",
        meter.address
    );
    let agent = |name: &str, next: &str| {
        format!(
            "[agents.{name}]\ncomponent = \"GUEST(spender)\"\nconfig = {{ next = \"{next}\" }}\n\
             allow = {{ send = [\"{next}\"], http = [{place}] }}\nlimits = {{ state = \"1MiB\" }}\n"
        )
    };
    let agents = [agent("one", "two"), agent("two", "three"), agent("three", "one")].concat();
    file(&format!(
        "[budgets.demo]\n{budget}\n{agents}\
         [[agents.one.http]]\nroute = \"/one\"\nbudget = \"demo\"\nmode = \"enqueue\"\n\
         [[agents.one.http]]\nroute = \"/now\"\nbudget = \"demo\"\n"
    ))
}

/// Sends the first message of a tree. Returns its id.
fn begin(host: &Host, order: &Value) -> String {
    let reply = host.client().post("/one", order.to_string());
    assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
    reply.json()["id"].as_str().expect("an id").to_owned()
}

/// Returns the use of a tree.
fn used(host: &Host, tree: &str) -> Value {
    host.api().get(&format!("/v1/budgets/{tree}")).json()
}

/// Waits until no message waits or is being handled.
fn until_idle(host: &mut Host) {
    host.until("idle agents", |host| {
        let agents = host.api().get("/v1/agents").json();
        let agents = agents.as_array().expect("agents").clone();
        let is_idle = |agent: &Value| agent["mailbox_depth"] == 0 && agent["in_flight"] == 0;
        agents.iter().all(is_idle).then_some(())
    });
}

fn state(host: &Host, agent: &str, key: &str) -> String {
    let found = host.api().get(&format!("/v1/agents/{agent}/state/{key}"));
    if found.status.is_success() { found.text() } else { String::new() }
}

#[test]
fn a_tree_of_three_agents_never_sends_more_than_its_budget() {
    let meter = MeteredServer::start();
    let mut host = Setup::new(BINARY, &three(&meter, "messages = 200\ncalls = 30", 10)).start();
    // Far more than may be: 3 + 9 + 27 + 81 + 243.
    let order = json!({ "depth": 5, "fan": 3, "url": meter.url("/json?all") });
    let trees: Vec<String> = (0..8).map(|_| begin(&host, &order)).collect();
    until_idle(&mut host);
    for tree in &trees {
        let found = used(&host, tree);
        assert_eq!((&found["used"]["messages"], &found["used"]["calls"]), (&json!(200), &json!(30)), "{found}");
        assert_eq!((&found["exceeded"], &found["used"]["units"]["tokens"]), (&json!(true), &json!(30 * TOKENS)));
        let of = |agent: &str| found["agents"][agent]["messages"].as_u64().expect("a number");
        assert_eq!(of("one") + of("two") + of("three"), 200, "{found}");
        assert!(found["agents"]["two"]["cpu_us"].as_u64() > Some(0), "{found}");
        let status = host.client().get(&format!("/.caxton/messages/{tree}")).json();
        assert_eq!(status["budget"], json!({ "name": "demo", "exceeded": true }), "the root is told");
        let thread = host.api().get(&format!("/v1/conversations/{tree}")).json();
        assert_eq!(thread["budgets"][0]["used"], found["used"], "{thread}");
    }
    assert_eq!(meter.calls("all"), 8 * 30);
    let handled: u64 =
        ["one", "two", "three"].iter().filter_map(|agent| state(&host, agent, "handled").parse::<u64>().ok()).sum();
    assert_eq!(handled, 8 * 201, "each message was handled, the roots among them");
    let why = |measure: &str| {
        ["one", "two", "three"].iter().map(|agent| state(&host, agent, &format!("why/{measure}"))).collect::<String>()
    };
    assert!(why("messages").contains("budget-exceeded: budget `demo`, messages: "), "{}", why("messages"));
    let calls = why("calls");
    assert!(calls.contains("internal-error: budget-exceeded: budget `demo`, calls: 30 of 30 used"), "{calls}");
    assert_eq!(metric(&host, "caxton_budget_trees_total{budget=\"demo\"}"), 8);
    assert!(metric(&host, "caxton_budget_refusals_total{budget=\"demo\",measure=\"messages\"}") > 0);
    let (_, events, _) = host.caxton(&["events", "-o", "json", "-n", "1000"]);
    assert_eq!(events.matches("budget.exceeded").count(), 8, "once for each tree");
    let (code, listed, _) = host.caxton(&["budget", "ls", "--budget", "demo"]);
    assert!(code == 0 && listed.matches("exceeded").count() == 8, "{listed}");
    let (code, shown, _) = host.caxton(&["budget", "show", &trees[0]]);
    assert!(code == 0 && shown.contains("at most       200"), "{shown}");
    assert_eq!(host.caxton(&["budget", "show", "nothing"]).0, 3);
}

/// Kills the host again and again while eight trees spend, and lets them end.
#[test]
fn no_kill_lets_a_tree_pass_its_budget() {
    let meter = MeteredServer::start();
    let (messages, tokens) = (60, 200);
    let toml = three(&meter, &format!("messages = {messages}\nunits = {{ tokens = {tokens} }}"), 10);
    let mut host = Setup::new(BINARY, &toml).start();
    let mut chance = StdRng::seed_from_u64(7);
    let orders: Vec<(String, String)> = (0..8)
        .map(|at| {
            let query = format!("tree={at}");
            let order = json!({ "depth": 5, "fan": 3, "url": meter.url(&format!("/json?{query}")) });
            (begin(&host, &order), query)
        })
        .collect();
    let all = || orders.iter().map(|(_, query)| meter.calls(query)).sum::<u64>();
    for _ in 0..6 {
        // At another place each time: after so many calls of all trees, as long as there are more.
        let (before, more) = (all(), chance.random_range(1..20));
        host.until("more calls, or the end", |host| {
            let agents = host.api().get("/v1/agents").json();
            let is_idle = agents.as_array().is_some_and(|agents| {
                agents.iter().all(|agent| agent["mailbox_depth"] == 0 && agent["in_flight"] == 0)
            });
            (all() >= before + more || is_idle).then_some(())
        });
        host = host.kill().start();
    }
    until_idle(&mut host);
    for (tree, query) in &orders {
        let found = used(&host, tree);
        let number = |of: &Value| of.as_u64().unwrap_or_else(|| panic!("{found}"));
        let (sent, spent) = (number(&found["used"]["messages"]), number(&found["used"]["units"]["tokens"]));
        assert!(sent <= messages, "{found}");
        assert!(spent <= tokens, "{found}");
        // What the server has given is never more than what is counted, and so within the limit as well.
        assert!(meter.calls(query) * TOKENS <= spent, "{} calls: {found}", meter.calls(query));
        assert_eq!(found["reserved"], json!({}), "what was reserved at a kill counts as used: {found}");
        assert_eq!(sent, messages, "nothing but the budget ends the tree: {found}");
    }
}

#[test]
fn units_are_read_from_the_response_and_else_counted_as_reserved() {
    let meter = MeteredServer::start();
    let host = Setup::new(BINARY, &three(&meter, "units = { tokens = 100 }", 30)).start();
    let now = |path: &str| {
        let reply = host.client().post("/now", json!({ "url": meter.url(path) }).to_string());
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
        let tree = reply.header("caxton-message-id").to_owned();
        let shown = used(&host, &tree);
        (shown["used"]["units"]["tokens"].as_u64(), shown["reserved"].clone(), reply.json())
    };
    assert_eq!(now("/json").0, Some(TOKENS));
    assert_eq!(now("/events").0, Some(TOKENS), "the last event with the figure");
    let (silent, reserved, _) = now("/silent");
    assert_eq!((silent, reserved), (Some(30), json!({})), "an answer without the figure");
    let heads = meter.heads.lock().expect("no test panics with it");
    assert!(heads.iter().all(|head| head.contains("accept-encoding: identity")), "{heads:?}");
}

#[test]
fn a_budget_of_bytes_ends_a_stream_in_its_middle() {
    let meter = MeteredServer::start();
    let toml = file(&format!(
        "[budgets.small]\nbytes = \"100KiB\"\n[agents.caller]\ncomponent = \"GUEST(caller)\"\nbudget = \"small\"\n\
         allow.http = [\"http://{}\"]\n[[agents.caller.http]]\nroute = \"/caller\"\n",
        meter.address
    ));
    let mut host = Setup::new(BINARY, &toml).start();
    let order = json!({ "do": "download", "call": { "url": meter.url("/large") } });
    let reply = host.client().post("/caller", order.to_string());
    let told = reply.json();
    assert_eq!(told["error"], "internal-error", "{told}");
    let detail = told["detail"].as_str().unwrap_or_default();
    assert!(detail.starts_with("budget-exceeded: budget `small`, bytes: "), "{told}");
    let bytes = told["bytes"].as_u64().expect("a number");
    assert!(bytes > 0 && bytes <= 100 << 10, "{told}");
    assert_eq!(reply.header("caxton-budget-exceeded"), "small");
    let shown = used(&host, reply.header("caxton-message-id"));
    let counted = shown["used"]["bytes"].as_u64().expect("a number");
    assert!((bytes..=100 << 10).contains(&counted), "{shown}");
    host.until("the line in its log", |host| {
        host.caxton(&["logs", "caller"]).1.contains("(budget-exceeded)").then_some(())
    });
}

#[test]
fn only_callers_that_may_name_a_budget_do() {
    let digest = |token: &str| Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let toml = file(&format!(
        "[budgets.small]\nmessages = 1\n[budgets.large]\nmessages = 3\ncallers = [\"token:shop\"]\n\
         [agents.one]\ncomponent = \"GUEST(spender)\"\nconfig = {{ next = \"two\" }}\nallow = {{ send = [\"two\"] }}\n\
         [agents.two]\ncomponent = \"GUEST(spender)\"\n\
         [[agents.one.http]]\nroute = \"/one\"\nbudget = \"small\"\n\
         [[agents.one.http]]\nroute = \"/known\"\nbudget = \"small\"\n\
         auth = {{ tokens = [\"shop=sha256:{}\", \"bank=sha256:{}\"] }}\n",
        digest("of the shop"),
        digest("of the bank"),
    ));
    let host = Setup::new(BINARY, &toml).start();
    let order = json!({ "depth": 1, "fan": 2 }).to_string();
    let post = |path: &str, headers: &[(&str, &str)]| host.client().send(Method::POST, path, headers, order.clone());
    let plain = post("/one", &[]);
    assert_eq!((plain.status.as_u16(), plain.header("caxton-budget-exceeded")), (200, "small"), "{}", plain.text());
    assert_eq!(plain.json()["refused"][0], "budget-exceeded: budget `small`, messages: 0 of 1 used, 1 reserved");
    for (path, token, name) in [
        ("/one", "", "large"),
        ("/one", "", "nothing"),
        ("/one", "", "Not a name"),
        ("/known", "Bearer of the bank", "large"),
        ("/known", "Bearer of the shop", "small"),
    ] {
        let refused = post(path, &[("caxton-budget", name), ("authorization", token)]);
        assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (403, &json!("budget-not-allowed")), "{name}");
    }
    let named = post("/known", &[("caxton-budget", "large"), ("authorization", "Bearer of the shop")]);
    assert_eq!((named.status.as_u16(), named.header("caxton-budget-exceeded")), (200, ""), "{}", named.text());
    assert_eq!(used(&host, named.header("caxton-message-id"))["budget"], "large");
}

#[test]
fn a_message_whose_tree_has_no_time_left_is_a_dead_letter_and_goes_on_with_a_larger_budget() {
    let meter = MeteredServer::start();
    let toml = |cpu: &str| three(&meter, &format!("cpu = \"{cpu}\""), 10);
    let mut host = Setup::new(BINARY, &toml("20ms")).start();
    let tree = begin(&host, &json!({ "depth": 1, "fan": 2, "work-ms": 400 }));
    let dead = host.until("dead letters", |host| {
        let page = host.api().get("/v1/dead-letters?agent=two").json();
        page["dead_letters"].as_array().filter(|dead| !dead.is_empty()).cloned()
    });
    assert_eq!(dead[0]["reason"], "budget-exceeded", "{dead:?}");
    until_idle(&mut host);
    let before = used(&host, &tree);
    host.edit(&toml("10s"));
    host.until("the larger budget", |host| (used(host, &tree)["limits"]["cpu_us"] == 10_000_000).then_some(()));
    assert_eq!(host.caxton(&["dead", "redeliver", "--agent", "two"]).0, 0);
    until_idle(&mut host);
    let left = host.api().get("/v1/dead-letters?agent=two").json();
    assert_eq!(left["dead_letters"], json!([]), "it has time again");
    let after = used(&host, &tree);
    assert!(after["used"]["cpu_us"].as_u64() > before["used"]["cpu_us"].as_u64(), "it stays in its tree: {after}");
}

#[test]
fn an_agent_that_began_a_tree_is_told_once() {
    let toml = file(
        "[budgets.small]\nmessages = 1\n\
         [agents.asker]\ncomponent = \"GUEST(spender)\"\nconfig = { next = \"one\" }\nallow = { send = [\"one\"] }\n\
         [[agents.asker.http]]\nroute = \"/asker\"\nmode = \"enqueue\"\n\
         [agents.one]\ncomponent = \"GUEST(spender)\"\nconfig = { next = \"two\" }\nallow = { send = [\"two\"] }\n\
         budget = \"small\"\n\
         [agents.two]\ncomponent = \"GUEST(spender)\"\nconfig = { next = \"one\" }\nallow = { send = [\"one\"] }\n",
    );
    let mut host = Setup::new(BINARY, &toml).start();
    // The asker is in no tree; its one message begins one, in which the third is refused. All of them are timers.
    host.client().post("/asker", json!({ "depth": 3, "fan": 1, "after-ms": 1 }).to_string());
    host.until("the notice", |host| (state(host, "asker", "notices") == "1").then_some(()));
    until_idle(&mut host);
    assert_eq!(state(&host, "asker", "notices"), "1");
    let told = state(&host, "asker", "told");
    assert_eq!(told, "budget-exceeded: budget `small`, messages: 1 of 1 used");
}
