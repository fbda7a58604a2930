//! HTTP agents made with the SDK: their requests and responses, and which of their effects are committed.

use caxton_tests::Host;
use http::Method;
use serde_json::{Value, json};

use crate::{agent, host};

/// An HTTP agent at `/web/...`, and the agent that it sends to.
fn web(more: &str) -> Host {
    let web =
        agent("web", "web-agent", &format!("config = {{ peer = \"echo\" }}\nallow = {{ send = [\"echo\"] }}\n{more}"));
    host(&format!("{}{}", web.replace("\"/web\"", "\"/web/{*rest}\""), agent("echo", "echo", "")))
}

/// The requests that are counted, as they are kept.
fn counted(host: &Host) -> String {
    host.caxton(&["state", "get", "web", "count"]).1.trim().to_owned()
}

#[test]
fn an_agent_gets_the_request_and_the_client_its_response() {
    let host = web("");
    let client = host.client();
    let told = client.send(Method::PUT, "/web/a%20b/told?q=x+y&n=1", &[("x-mine", "1")], "said").json();
    assert_eq!((&told["method"], &told["path"]), (&json!("PUT"), &json!("/web/a%20b/told")));
    assert_eq!((&told["query"], &told["body"]), (&json!([["q", "x y"], ["n", "1"]]), &json!("said")));
    assert!(told["headers"].as_array().is_some_and(|all| all.contains(&json!(["x-mine", "1"]))), "{told}");
    // Of as many pieces as a task of the host takes in one turn, and more.
    for pieces in [16, 40, 48, 56, 64, 96] {
        let large = "x".repeat(pieces << 16);
        assert_eq!(client.post("/web/told", large.clone()).json()["body"], json!(large), "{pieces}");
    }
    let answer = client.get("/web/status?code=201");
    assert_eq!((answer.status.as_u16(), answer.text().as_str(), answer.header("x-count")), (201, "1\n", "1"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(client.get("/web/").status.as_u16(), 404);
    let answer = client.get("/web/header");
    assert_eq!((answer.status.as_u16(), answer.header("x-fine")), (200, "2"), "the rest is sent");
    assert_eq!(client.send(Method::HEAD, "/web/told", &[], "").body.len(), 0);
}

#[test]
fn an_http_agent_can_call_others_and_log() {
    let mut host = web("");
    let client = host.client();
    assert_eq!(client.post("/web/ask", "anybody there?").text(), "anybody there?");
    assert_eq!(client.post("/web/log", "a line of its own").status.as_u16(), 204);
    host.until("the line is in its log", |host| {
        host.caxton(&["logs", "web"]).1.contains("a line of its own").then_some(())
    });
}

#[test]
fn a_failure_has_the_status_of_its_cause_and_leaves_nothing_behind() {
    let host = web("");
    let client = host.client();
    assert_eq!(client.get("/web/status?code=200").text(), "1\n");
    for (cause, status, code, retry) in [
        ("rejected", 422, "rejected", ""),
        ("unavailable", 503, "agent-unavailable", "7"),
        ("fault", 500, "agent-fault", ""),
    ] {
        let answer = client.get(&format!("/web/fail?cause={cause}"));
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (status, &json!(code)));
        assert_eq!((answer.header("content-type"), answer.header("retry-after")), ("application/problem+json", retry));
        assert_eq!(counted(&host), "1", "{cause}, although {status} alone might commit");
    }
    let bad = client.post("/web/told", vec![0xff]);
    assert_eq!((bad.status.as_u16(), &bad.json()["code"]), (422, &json!("rejected")));
    assert_eq!(client.get("/web/status?code=99").status.as_u16(), 500, "no status of a response");
    assert_eq!(client.get("/web/trap").status.as_u16(), 500);
    assert_eq!(client.get("/web/status?code=500").status.as_u16(), 500);
    assert_eq!(counted(&host), "1");
    assert_eq!(client.get("/web/status?code=404").status.as_u16(), 404);
    assert_eq!(counted(&host), "2", "a status below 500 that it chose itself commits");
}

#[test]
fn an_explicit_commit_lasts_whatever_the_status_is() {
    let mut host = web("");
    let client = host.client();
    for (number, (then, status)) in
        [("status-500", 500), ("status-503", 503), ("fail", 500), ("trap", 500)].into_iter().enumerate()
    {
        assert_eq!(client.get(&format!("/web/commit?then={then}")).status.as_u16(), status, "{then}");
        assert_eq!(counted(&host), (number + 1).to_string(), "{then}: once, and not the second time");
    }
    assert_eq!(client.get("/web/commit?then=status-204").status.as_u16(), 204);
    assert_eq!(counted(&host), "6", "the second time commits with the head");
    assert_eq!(client.get("/web/discard").text(), "7", "what is dropped is not seen either");
    // A message for each count that lasted.
    host.until_agent("echo", "they came", |status| status["handled"] == 7);
    // Safe when the call goes on: also for a host that is killed.
    let host = host.kill().start();
    assert_eq!(counted(&host), "7");
    assert_eq!(host.agent("echo")["mailbox_depth"], 0);
}

#[test]
fn commits_count_together_against_the_limits_of_a_call() {
    for (limits, made) in [("writes = 5", "5"), ("sends = 3", "3")] {
        let host = web(&format!("limits = {{ {limits} }}"));
        assert_eq!(host.client().get("/web/commit-often?times=9").text(), made, "{limits}");
        let answer = host.client().get("/web/commit-often?times=2");
        assert_eq!(answer.text(), "2", "each call has them anew");
    }
}

#[test]
fn concurrent_calls_count_each_success_once() {
    const EACH: usize = 25;
    let host = web("");
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let address = host.http.clone();
            std::thread::spawn(move || {
                let client = caxton_tests::Client::new(&address, None);
                // A conflict is told, and nothing of that call lasts.
                let call = |_: &usize| client.get("/web/commit?then=status-500").status.as_u16() == 500;
                (0..EACH).filter(call).count()
            })
        })
        .collect();
    let well: usize = callers.into_iter().map(|caller| caller.join().expect("it ends")).sum();
    assert!(well >= EACH, "{well}");
    assert_eq!(counted(&host), well.to_string());
}

#[test]
fn a_call_in_conflict_runs_again_if_its_body_is_not_above_the_limit_of_a_message() {
    const LIMIT: usize = 2_048;
    let mut host = web(&format!("limits = {{ message = \"{LIMIT}B\", time = \"2m\" }}"));
    for (number, bytes, runs_again) in [(1, LIMIT, true), (2, LIMIT + 1, false)] {
        assert_eq!(host.caxton(&["mailbox", "pause", "echo"]).0, 0);
        let address = host.http.clone();
        let call = std::thread::spawn(move || {
            caxton_tests::Client::new(&address, None).post("/web/count-asking", "x".repeat(bytes))
        });
        // The question, and the place of the message that goes with the commit: the key is read by then, and an operator
        // writes it before the answer comes.
        host.until_agent("echo", "the question waits", |status| status["mailbox_depth"] == 2);
        assert_eq!(host.caxton(&["state", "set", "web", "count", "100"]).0, 0);
        assert_eq!(host.caxton(&["mailbox", "resume", "echo"]).0, 0);
        let answer = call.join().expect("it is answered");
        if runs_again {
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "101"));
        } else {
            let told = answer.json();
            assert_eq!((answer.status.as_u16(), &told["code"]), (503, &json!("conflict")), "{told}");
            assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("`count`")), "{told}");
            assert_eq!(counted(&host), "100", "nothing of it lasts");
        }
        host.until_agent("echo", "all has come", |status| status["mailbox_depth"] == 0 && status["in_flight"] == 0);
        assert_eq!(host.agent("web")["conflicts"], number);
    }
    // The run that came to something had the answer of the one before.
    assert_eq!((&host.agent("web")["runs"], &host.agent("echo")["handled"]), (&json!(3), &json!(3)));
}

#[test]
fn health_is_checked_before_the_first_request() {
    assert_eq!(web("").agent("web")["state"], "running");
    let sick = host_with_health("it misses its disk");
    let status = sick.agent("web");
    assert!(status.to_string().contains("it misses its disk"), "{status}");
    assert_eq!(sick.client().get("/web/told").status.as_u16(), 503);
}

fn host_with_health(why: &str) -> Host {
    let web = agent("web", "web-agent", &format!("config = {{ health = \"{why}\" }}"));
    host(&web.replace("\"/web\"", "\"/web/{*rest}\""))
}

#[test]
fn the_handler_of_a_message_commits_with_its_result_only() {
    let host = host(&agent("rogue", "rogue", ""));
    let told: Value = host.client().post("/rogue", r#"{"do":"commit"}"#).json();
    assert!(told.to_string().contains("when it returns ok"), "{told}");
}
