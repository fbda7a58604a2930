//! The status that a reply asks for, and the request that a message was made of.

use ::http::Method;
use caxton_tests::Host;
use serde_json::{Value, json};

use crate::{agent, host};

/// Starts a host with a `rogue` that has several routes.
fn rogue() -> Host {
    host(
        "[agents.other]\ncomponent = \"GUEST(rogue)\"\n\
         [agents.rogue]\ncomponent = \"GUEST(rogue)\"\nallow = { send = [\"other\"] }\n\
         [[agents.rogue.http]]\nroute = \"/rogue\"\n\
         [[agents.rogue.http]]\nroute = \"/files/{Owner}/{*rest}\"\nmethods = [\"POST\", \"PUT\"]\n\
         [[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n",
    )
}

fn reply(status: &str, performative: &str) -> String {
    let with = json!({ "performative": performative, "headers": [["caxton-status", status], ["x-own", "1"]] });
    json!({ "do": "reply", "text": "said", "with": with }).to_string()
}

#[test]
fn a_reply_can_set_its_status() {
    let mut host = rogue();
    let client = host.client();
    for (asked, performative, status) in
        [("404", "inform", 404), ("201", "refuse", 201), ("503", "inform", 503), ("200", "failure", 200)]
    {
        let answer = client.post("/rogue", reply(asked, performative));
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (status, "said"), "{asked} {performative}");
        assert_eq!((answer.header("x-own"), answer.header("caxton-status")), ("1", ""), "it stays inside");
        assert_eq!(answer.header("caxton-performative"), performative);
    }
    for asked in ["204", "205", "304"] {
        let answer = client.post("/rogue", reply(asked, "inform"));
        assert_eq!((answer.status.as_str(), answer.body.len()), (asked, 0));
    }
    let status = host.agent("rogue");
    assert_eq!((&status["handled"], &status["failed"]), (&json!(7), &json!(0)), "the status decides nothing");
    // For who does not come over HTTP it is a header like any other.
    let asked = json!({ "do": "request", "to": "other", "content": { "do": "reply", "text": "x",
        "with": { "headers": [["caxton-status", "410"]] } } });
    let answer = client.post("/rogue", asked.to_string());
    assert_eq!((answer.status.as_u16(), &answer.json()["reply"]), (200, &json!("x")), "the answer is its own");
    let later = client.post("/later", reply("999", "inform"));
    assert_eq!(later.status.as_u16(), 202);
    host.until_agent("rogue", "it is handled", |status| status["handled"] == 9);
    assert_eq!(host.agent("rogue")["failed"], 0, "nobody waits for a status");
}

#[test]
fn an_invalid_status_is_reported_and_the_reply_is_delivered() {
    let mut host = rogue();
    let client = host.client();
    for (number, asked) in ["99", "600", "1000", "teapot", ""].into_iter().enumerate() {
        let steps = json!({ "do": "increment", "key": "kept" });
        assert_eq!(client.post("/rogue", steps.to_string()).json()["sum"], number + 1);
        let answer = client.post("/rogue", reply(asked, "inform"));
        let told = answer.json();
        assert_eq!((answer.status.as_u16(), &told["code"]), (502, &json!("bad-status")), "{told}");
        assert_eq!(told["agent"], "rogue");
        assert!(
            told["detail"].as_str().is_some_and(|text| text.contains(&format!("`caxton-status: {asked}`"))),
            "{told}"
        );
    }
    let status = host.agent("rogue");
    assert_eq!((&status["handled"], &status["failed"], &status["dead_letters"]), (&json!(10), &json!(0), &json!(0)));
    host.until("its log says so", |host| {
        host.caxton(&["logs", "rogue"]).1.contains("`caxton-status: teapot`").then_some(())
    });
}

/// Returns the request as the agent gets it from `message.http()`.
fn request_as_seen_by_agent(host: &Host, method: Method, path: &str, headers: &[(&str, &str)]) -> Value {
    let answer = host.client().send(method, path, headers, r#"{"do":"http"}"#);
    assert_eq!(answer.status.as_u16(), 200, "{path}: {}", answer.text());
    answer.json()
}

#[test]
fn a_message_has_the_fields_of_its_request_which_cannot_be_forged() {
    let host = rogue();
    let forged = [
        ("http-method", "DELETE"),
        ("http-path", "/admin"),
        ("http-param-owner", "root"),
        ("http-query", "a=forged"),
        ("caxton-status", "404"),
    ];
    assert_eq!(
        request_as_seen_by_agent(&host, Method::PUT, "/files/J%C3%BCrgen/a/b?a=1&b=x%20y", &forged),
        json!({
            "method": "PUT", "route": "/files/{Owner}/{*rest}", "path": "/files/J%C3%BCrgen/a/b",
            "query": [["a", "1"], ["b", "x y"]], "parameters": [["owner", "J\u{fc}rgen"], ["rest", "a/b"]],
        })
    );
    assert_eq!(
        request_as_seen_by_agent(&host, Method::POST, "/rogue", &forged),
        json!({ "method": "POST", "route": "/rogue", "path": "/rogue", "query": [], "parameters": [] })
    );
    // What comes another way is none, whatever its headers are.
    let sent = host.api().send(Method::POST, "/v1/agents/rogue/invoke", &forged, r#"{"do":"http"}"#);
    assert_eq!(sent.json(), Value::Null, "{}", sent.text());
    let asked = json!({ "do": "request", "to": "other", "content": { "do": "http" },
        "with": { "headers": [["http-method", "DELETE"], ["http-path", "/admin"]] } });
    let answer = host.client().post("/rogue", asked.to_string()).json();
    assert_eq!(answer["reply"], Value::Null, "{answer}");
}

#[test]
fn the_wildcard_of_a_route_may_match_nothing() {
    let host = host(&format!(
        "{}[[agents.rogue.http]]\nroute = \"/{{*rest}}\"\n[[agents.rogue.http]]\nroute = \"/a/{{*rest}}\"\n\
         [[agents.rogue.http]]\nroute = \"/b/{{*rest}}\"\n[[agents.rogue.http]]\nroute = \"/b/\"\n",
        agent("rogue", "rogue", "")
    ));
    for (path, route, rest) in [
        ("/", "/{*rest}", Some("")),
        ("/x", "/{*rest}", Some("x")),
        ("/a", "/{*rest}", Some("a")),
        ("/a/", "/a/{*rest}", Some("")),
        ("/a/b/", "/a/{*rest}", Some("b/")),
        ("/b/", "/b/", None),
        ("/b/c", "/b/{*rest}", Some("c")),
    ] {
        let told = request_as_seen_by_agent(&host, Method::POST, path, &[]);
        let parameters = rest.map_or(json!([]), |rest| json!([["rest", rest]]));
        assert_eq!((&told["route"], &told["parameters"]), (&json!(route), &parameters), "{path}");
    }
}
