//! Calls that may be made and those that may not, their way to the server, and their traces in logs and metrics.

use caxton_tests::Setup;
use serde_json::{Value, json};

use super::server::Server;
use super::{act, caller, get, host, log, until_logged};
use crate::{BINARY, agent, file, metric};

#[test]
fn a_granted_call_reaches_its_server() {
    let server = Server::start();
    let host = host(&server.place(), "", "");
    let call = json!({
        "method": "POST", "url": server.url("/a/../echo?q=/../x"), "body": "hello",
        "headers": [["x-mine", "1"], ["x-mine", "2"]],
    });
    let reply = host.client().send(
        http::Method::POST,
        "/caller",
        &[("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")],
        json!({ "do": "call", "call": call }).to_string(),
    );
    let answer = reply.json();
    assert_eq!(answer["status"], 200, "{answer}");
    let told: Value = serde_json::from_str(answer["body"].as_str().expect("a body")).expect("JSON");
    assert_eq!((&told["method"], &told["body"]), (&json!("POST"), &json!("hello")));
    assert_eq!(told["uri"], "/echo?q=/../x", "the path is sent in the form that was decided on, the query as it is");
    let sent = told["headers"].to_string();
    assert!(sent.contains(r#"["x-mine","1"],["x-mine","2"]"#), "{sent}");
    assert!(sent.contains(&format!("[\"host\",\"{}\"]", server.address)), "{sent}");
    assert!(sent.contains("00-4bf92f3577b34da6a3ce929d0e0e4736-") && !sent.contains("00f067aa0ba902b7"), "{sent}");
    // One connection for both calls.
    assert_eq!(get(&host, &server.url("/status?code=404"))["status"], 404);
    assert_eq!(server.connections(), 1);
}

#[test]
fn what_no_place_covers_is_refused() {
    let server = Server::start();
    let places = format!("{{ url = \"http://{}/v1/*\", methods = [\"GET\", \"POST\"] }}", server.address);
    let mut host = host(&places, "", "");
    for (method, url, code) in [
        ("GET", server.url("/v2/a"), "HTTP-request-denied"),
        ("GET", server.url("/v1/..%2fv2/a"), "HTTP-request-denied"),
        ("PUT", server.url("/v1/a"), "HTTP-request-denied"),
        ("GET", format!("http://localhost:{}/v1/a", server.port()), "HTTP-request-denied"),
        ("GET", format!("https://{}/v1/a", server.address), "HTTP-request-denied"),
        ("GET", format!("http://user:hunter2@{}/v1/a", server.address), "HTTP-request-URI-invalid"),
        ("TRACE", server.url("/v1/a"), "HTTP-request-method-invalid"),
        ("CONNECT", server.url("/v1/a"), "HTTP-request-method-invalid"),
    ] {
        let answer = act(&host, &json!({ "do": "call", "call": { "method": method, "url": url } }));
        assert_eq!(answer["error"], code, "{method} {url}: {answer}");
    }
    assert!(server.requests().is_empty(), "{:?}", server.requests());
    let own = format!("http://{}", server.address);
    for line in [
        format!(
            "its call `GET {own}` was refused: `allow.http` has `{own}/v1/*`, which does not cover the path (HTTP-request-denied)"
        ),
        format!(
            "its call `PUT {own}` was refused: `allow.http` has `{own}/v1/*` for other methods (HTTP-request-denied)"
        ),
        format!(
            "no place of `allow.http` has this host; it needs one such as \"http://localhost:{}/*\"",
            server.port()
        ),
        "it has a user or a password in front of its host (HTTP-request-URI-invalid)".to_owned(),
    ] {
        until_logged(&mut host, &line);
    }
    let told = log(&host);
    assert!(!told.contains("hunter2") && !told.contains("v2"), "neither a password nor a path: {told}");
    let refused = "caxton_outgoing_calls_total{agent=\"caller\",place=\"none\",result=\"HTTP-request-denied\"}";
    assert_eq!(metric(&host, refused), 5);
    host.until("the event", |host| {
        let (_, events, _) = host.caxton(&["events", "-o", "json"]);
        (events.contains("outgoing.refused") && events.contains("HTTP-request-denied")).then_some(())
    });
    // Odd spellings of the address and the path lead to the place that is granted.
    let odd = format!("http://0x7f.1:{}/x/../v1/%65cho", server.port());
    assert_eq!(get(&host, &odd)["status"], 200);
    assert_eq!(server.requests()[0]["uri"], "/v1/echo");
}

#[test]
fn an_agent_without_places_is_denied_as_ever() {
    let server = Server::start();
    let mut host = Setup::new(BINARY, &file(&agent("caller", "caller", ""))).start();
    assert_eq!(get(&host, &server.url("/secret"))["error"], "HTTP-request-denied");
    let line = format!(
        "it called `GET http://{}`, which was denied: `allow.http` lists the places that it may call, and has none",
        server.address
    );
    until_logged(&mut host, &line);
    get(&host, &server.url("/again"));
    assert_eq!(log(&host).matches("which was denied").count(), 1);
    assert!(server.requests().is_empty() && !log(&host).contains("secret"));
}

#[test]
fn a_grant_is_taken_up_and_back_with_the_file() {
    let server = Server::start();
    let mut host = Setup::new(BINARY, &caller("", "", "")).start();
    assert_eq!(get(&host, &server.url("/"))["error"], "HTTP-request-denied");
    host.edit(&caller(&server.place(), "", ""));
    host.until("the grant", |host| (get(host, &server.url("/"))["status"] == 200).then_some(()));
    host.edit(&caller("\"https://other.example\"", "", ""));
    host.until("its end", |host| (get(host, &server.url("/"))["error"] == "HTTP-request-denied").then_some(()));
    let (code, told, words) = host.caxton(&["ps", "caller", "-o", "json"]);
    assert!(code == 0 && told.contains("caller@3"), "each is a revision: {told}{words}");
}

#[test]
fn bodies_stream_both_ways_with_trailers() {
    let server = Server::start();
    let limits = "limits = { time = \"2m\", cpu = \"1m\", memory = \"16MiB\" }";
    let host = host(&server.place(), "", limits);
    // More than the agent may hold, in both directions.
    let upload = json!({
        "do": "upload", "call": { "method": "POST", "url": server.url("/echo"), "headers": [["trailer", "x-sum"]] },
        "parts": 640, "bytes": 64 << 10, "trailers": [["x-sum", "7"]],
    });
    let answer = act(&host, &upload);
    let told: Value = serde_json::from_str(answer["body"].as_str().expect("a body")).expect("JSON");
    assert_eq!(told["bytes"], 640 * (64 << 10), "{told}");
    assert!(told["trailers"].as_str().is_some_and(|trailers| trailers.contains("x-sum")), "{told}");
    let download = json!({ "do": "download", "call": { "url": server.url("/large?bytes=41943040") } });
    assert_eq!(act(&host, &download)["bytes"], 40 << 20);
    let trailers =
        json!({ "do": "trailers", "call": { "url": server.url("/trailers"), "headers": [["te", "trailers"]] } });
    assert_eq!(act(&host, &trailers), json!([["x-sum", "7"]]));
    let lines = json!({ "do": "lines", "call": { "url": server.url("/events") } });
    assert_eq!(act(&host, &lines), json!(["data: one", "", "data: two", ""]));
    let bytes = |direction: &str| {
        metric(
            &host,
            &format!(
                "caxton_outgoing_bytes_total{{agent=\"caller\",place=\"http://{}/*\",direction=\"{direction}\"}}",
                server.address
            ),
        )
    };
    assert!(bytes("sent") == 40 << 20 && bytes("received") > 40 << 20);
    let counted =
        format!("caxton_outgoing_calls_total{{agent=\"caller\",place=\"http://{}/*\",result=\"2xx\"}}", server.address);
    assert_eq!(metric(&host, &counted), 4);
}

#[test]
fn a_call_that_waits_holds_no_thread_and_costs_no_time_on_a_core() {
    let server = Server::start();
    let more = "instances.max = 40\nlimits = { cpu = \"100ms\", time = \"2m\" }";
    let toml = caller(&server.place(), "first-byte-timeout = \"2m\"", more) + &agent("echo", "echo", "");
    let mut host = Setup::new(BINARY, &toml).start();
    // Far more than there are threads.
    let callers: Vec<_> = (0..40)
        .map(|_| {
            let (address, url) = (host.http.clone(), server.url("/gate"));
            std::thread::spawn(move || {
                let action = json!({ "do": "call", "call": { "url": url } });
                caxton_tests::Client::new(&address, None).post("/caller", action.to_string()).json()["status"].clone()
            })
        })
        .collect();
    host.until("all of them wait", |_| (server.waiting() == 40).then_some(()));
    assert_eq!(host.client().post("/echo", "still here").text(), "still here");
    assert_eq!(host.agent("caller")["in_flight"], 40);
    server.open_gate();
    for caller in callers {
        assert_eq!(caller.join().expect("no caller panics"), 200);
    }
}

#[test]
fn a_message_may_make_more_calls_than_a_guest_may_hold_handles() {
    let server = Server::start();
    let limits = "limits = { time = \"2m\", cpu = \"1m\" }";
    let host = host(&server.place(), "calls-per-message = 2000", limits);
    // With timeouts, which are a handle of their own.
    let call = json!({ "url": server.url("/status"), "connect-ms": 60_000, "first-byte-ms": 60_000 });
    let times = act(&host, &json!({ "do": "many", "call": call, "count": 1_100 }));
    assert_eq!(times.as_array().map(Vec::len), Some(1_100), "{times}");
    act(&host, &json!({ "do": "many", "call": call, "count": 1 }));
    assert_eq!(host.agent("caller")["started_instances"], 1, "nothing is left that keeps the instance from being used");
}

#[test]
fn a_handler_that_is_tried_again_calls_again() {
    let server = Server::start();
    let more = "mailbox = { attempts = 2, backoff.first = \"100ms\" }";
    let toml =
        caller(&server.place(), "", more).replace("route = \"/caller\"", "route = \"/caller\"\nmode = \"enqueue\"");
    let mut host = Setup::new(BINARY, &toml).start();
    let trap = json!({ "do": "trap", "call": { "url": server.url("/trickle") } });
    host.client().post("/caller", trap.to_string());
    host.until("the second attempt", |_| (server.requests().len() == 2).then_some(()));
    host.until("the connections of the traps end", |_| (server.open() == 0).then_some(()));
    host.until_agent("caller", "it is given up", |status| status["dead_letters"] == 1);
}

#[test]
fn a_request_that_breaks_off_is_not_taken_for_whole() {
    let server = Server::start();
    let more = "mailbox = { attempts = 1 }\nlimits = { memory = \"256MiB\", cpu = \"30s\", time = \"1m\" }";
    let mut host = host(&server.place(), "", more);
    let action = json!({ "do": "trap-upload", "call": { "method": "POST", "url": server.url("/echo") } });
    for _ in 0..5 {
        let reply = host.client().post("/caller", action.to_string());
        assert!(reply.status.is_server_error(), "{}", reply.text());
    }
    host.until("the end of all of them", |_| (server.uploads().len() == 5).then_some(()));
    assert!(!server.uploads().contains(&true), "{:?}", server.uploads());
    host.until("their connections end", |_| (server.open() == 0).then_some(()));
}

#[test]
fn check_says_what_is_granted_and_imported() {
    let places = "\"https://api.example.com/v1/*\"";
    let toml = caller(places, "", "")
        + &agent("echo", "echo", "allow.http = [\"https://other.example\"]")
        + &agent("denied", "caller", "");
    let setup = Setup::new(BINARY, &toml);
    let (code, told, words) = setup.caxton(&["check", "-o", "json"]);
    assert_eq!(code, 0, "{words}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let handler = |name: &str, list: &str| {
        let agents = told["agents"].as_array().expect("a list");
        let agent = agents.iter().find(|agent| agent["agent"] == name).expect("the agent");
        let imports = agent[list].as_array().expect("a list").clone();
        imports
            .into_iter()
            .find(|import| import["import"].as_str().is_some_and(|name| name.contains("/outgoing-handler@")))
    };
    let by = |import: Option<Value>| import.map(|import| import["by"].clone());
    assert_eq!(by(handler("caller", "granted")), Some(json!("allow.http = https://api.example.com/v1/*")));
    assert_eq!(by(handler("denied", "denied")), Some(json!("allow.http is empty")));
    let echo = told["agents"].as_array().expect("a list").iter().find(|agent| agent["agent"] == "echo").expect("it");
    assert_eq!(echo["in_vain"], json!(["allow.http https://other.example/*"]));
}
