//! The independence of limits: a value within its own limit is not refused by another.

use serde_json::json;

use crate::{agent, host};

const MIB: usize = 1 << 20;

#[test]
fn a_state_value_may_exceed_the_message_limit() {
    let host = host(&agent(
        "rogue",
        "rogue",
        "limits = { state = \"40MiB\", effects = \"64MiB\", memory = \"256MiB\", cpu = \"30s\", time = \"60s\" }\n",
    ));
    let client = host.client();
    let set =
        |bytes: usize| client.post("/rogue", json!({ "do": "set", "key": "k", "bytes": bytes }).to_string()).json();
    assert_eq!(set(30 * MIB)["written"], 1);
    let refused = set(50 * MIB);
    assert_eq!((&refused["error"], &refused["detail"]), (&json!("too-large"), &json!(40 * MIB)), "{refused}");
    let kept = host.api().get("/v1/agents/rogue/state/k");
    assert_eq!(kept.body.len(), 30 * MIB);
    // By hand too.
    let api = host.api();
    let put = |bytes: usize| api.send(http::Method::PUT, "/v1/agents/rogue/state/k", &[], vec![b'x'; bytes]);
    assert_eq!(put(35 * MIB).status.as_u16(), 204);
    let refused = put(41 * MIB);
    assert_eq!((refused.json()["code"].as_str(), &refused.json()["limit"]), (Some("quota"), &json!(40 * MIB)));
}

#[test]
fn what_a_handling_sends_and_writes_has_a_bound_of_its_own() {
    let settings = "allow = { send = [\"rogue\"] }\nlimits = { effects = \"1MiB\" }\n";
    let host = host(&agent("rogue", "rogue", settings));
    let act = |action: serde_json::Value| host.client().post("/rogue", action.to_string()).json();
    // Five times 200 KiB fit; the sixth does not.
    let sent = act(json!({ "do": "send", "to": "rogue", "bytes": 200 << 10, "count": 6 }));
    assert_eq!(sent["errors"].as_array().map(Vec::len), Some(1), "{sent}");
    assert_eq!(
        (&sent["errors"][0]["error"], &sent["errors"][0]["detail"]),
        (&json!("too-large"), &json!(MIB)),
        "{sent}"
    );
    let written = act(json!({ "do": "set", "key": "k", "bytes": 600 << 10, "count": 2 }));
    assert_eq!((&written["written"], &written["error"]), (&json!(1), &json!("too-large")), "{written}");
    // The next handling has all of it again.
    assert_eq!(act(json!({ "do": "set", "key": "k", "bytes": 600 << 10 }))["written"], 1);
}

#[test]
fn an_oversized_reply_or_message_is_refused_without_a_trap() {
    let settings = "allow = { send = [\"rogue\"] }\nlimits = { memory = \"256MiB\", cpu = \"30s\", time = \"60s\" }\n";
    let host = host(&agent("rogue", "rogue", settings));
    let act = |action: serde_json::Value| host.client().post("/rogue", action.to_string());
    let reply = act(json!({ "do": "reply", "bytes": 20 * MIB }));
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (500, &json!("bad-reply")), "{}", reply.text());
    let sent = act(json!({ "do": "send", "to": "rogue", "bytes": 20 * MIB })).json();
    assert_eq!(sent["errors"][0]["error"], "too-large", "{sent}");
}

/// Sends questions that are each within the bound, and together far above the bound of one.
#[test]
fn many_large_questions_may_be_asked_at_once() {
    let settings = "allow = { send = [\"echo\"] }\nlimits = { memory = \"256MiB\", cpu = \"30s\", time = \"60s\" }\n";
    let host = host(&(agent("rogue", "rogue", settings) + &agent("echo", "echo", "")));
    let to: Vec<&str> = std::iter::repeat_n("echo", 60).collect();
    let all = json!({ "do": "request-all", "to": to, "bytes": 250_000, "timeout-ms": 30_000 });
    let answers = host.client().post("/rogue", all.to_string());
    // What they answer is more than one reply may hold; that none trapped is what counts.
    assert_eq!(answers.json()["code"], "bad-reply", "{}", answers.text());
}

#[test]
fn host_log_lines_do_not_count_against_an_agents_log_rate() {
    let host = host(&agent("rogue", "rogue", "limits = { log-lines = 0 }\n"));
    let client = host.client();
    client.post("/rogue", json!({ "do": "log", "level": "info", "text": "mine" }).to_string());
    assert_eq!(client.post("/rogue", json!({ "do": "trap" }).to_string()).status.as_u16(), 500);
    let (_, said, _) = host.caxton(&["logs", "rogue"]);
    assert!(said.contains("failed: trapped") && !said.contains("mine"), "{said}");
}

#[test]
fn a_request_within_the_header_limit_reaches_a_message_agent() {
    let host = host(&agent("rogue", "rogue", ""));
    let query = "q".repeat(40_000);
    let reply = host.client().post(&format!("/rogue?{query}"), json!({ "do": "message" }).to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    assert!(reply.text().contains(&query));
}
