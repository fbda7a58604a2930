//! The HTTP listener of agents: routing, headers, statuses and the protocol.

use std::io::{Read, Write};
use std::net::TcpStream;

use ::http::Method;
use caxton_tests::{Client, Host, PATIENCE};
use serde_json::json;

use crate::{agent, host};

/// Starts a host with `echo` at several routes.
fn host_with_echo() -> Host {
    host(
        "[agents.echo]\ncomponent = \"GUEST(echo)\"\n\
         [[agents.echo.http]]\nroute = \"/echo\"\n\
         [[agents.echo.http]]\nroute = \"/t%C3%BCr/{id}\"\nmethods = [\"GET\"]\n\
         [[agents.echo.http]]\nroute = \"/later\"\nmethods = [\"POST\"]\nmode = \"enqueue\"\n\
         [[agents.echo.http]]\nroute = \"/traced\"\nmethods = [\"TRACE\"]\n",
    )
}

#[test]
fn requests_are_routed_or_refused_with_a_reason() {
    let host = host_with_echo();
    let client = host.client();
    for (method, path, status, code) in [
        (Method::POST, "/echo", 200, ""),
        (Method::PUT, "/echo?a=b", 200, ""),
        (Method::GET, "/t%C3%BCr/7", 200, ""),
        (Method::GET, "/t%c3%bc%72/7", 200, ""),
        (Method::HEAD, "/t%C3%BCr/7", 200, ""),
        (Method::OPTIONS, "/later", 204, ""),
        (Method::TRACE, "/traced", 200, ""),
        (Method::TRACE, "/echo", 405, "wrong-method"),
        (Method::TRACE, "/later", 405, "wrong-method"),
        (Method::POST, "/t%C3%BCr/7", 405, "wrong-method"),
        (Method::GET, "/later", 405, "wrong-method"),
        (Method::GET, "/t%C3%BCr", 404, "no-route"),
        (Method::GET, "/echo/", 404, "no-route"),
        (Method::GET, "/.caxton/other", 404, "no-route"),
        (Method::GET, "/.caxton/messages/none", 404, "unknown-message"),
        (Method::GET, "/t%C3%BCr/%00", 400, "bad-request"),
    ] {
        let reply = client.send(method.clone(), path, &[], "");
        assert_eq!(reply.status.as_u16(), status, "{method} {path}: {}", reply.text());
        if !code.is_empty() {
            assert_eq!(reply.header("content-type"), "application/problem+json", "{method} {path}");
            assert_eq!(reply.json()["code"], code, "{method} {path}");
        }
    }
    assert_eq!(client.get("/later").header("allow"), "POST, OPTIONS");
    let traced = client.send(Method::TRACE, "/echo", &[("cookie", "secret")], "");
    assert_eq!(traced.header("allow"), "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS");
    assert!(!traced.text().contains("secret"), "{}", traced.text());
    assert_eq!(client.send(Method::OPTIONS, "/t%C3%BCr/7", &[], "").header("allow"), "GET, HEAD, OPTIONS");
}

#[test]
fn request_and_response_headers_map_to_the_message() {
    let host = host_with_echo();
    let client = host.client();
    let headers = [
        ("content-type", "text/plain"),
        ("caxton-performative", "query-ref"),
        ("caxton-conversation", "c-1"),
        ("caxton-ontology", "tickets"),
        ("caxton-deadline", "5s"),
    ];
    let reply = client.send(Method::POST, "/echo", &headers, "hello");
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "hello"));
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-length", "5"),
        ("caxton-agent", "echo"),
        ("caxton-revision", "echo@1"),
        ("caxton-performative", "inform"),
        ("caxton-conversation", "c-1"),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    assert_eq!(reply.header("caxton-message-id").len(), 36);
    assert!(!reply.header("date").is_empty());
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (name, value, part) in [
        ("caxton-performative", "ask", "no performative"),
        ("caxton-deadline", "soon", "`soon`"),
        ("caxton-protocol", "", "`protocol`"),
        ("caxton-conversation", &"c".repeat(300), "300"),
        ("content-type", &"t".repeat(101), "101"),
    ] {
        let reply = client.send(Method::POST, "/echo", &[(name, value), ("traceparent", parent)], "");
        let problem = reply.json();
        assert_eq!(reply.status.as_u16(), 400, "{name}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{name}: {problem}");
        assert_eq!(problem["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{name}");
        assert_eq!(problem["agent"], "echo", "{name}");
    }
}

#[test]
fn replies_have_the_status_of_their_performative() {
    let host = host(&agent("rogue", "rogue", ""));
    let client = host.client();
    for (performative, status) in
        [("inform", 200), ("propose", 200), ("agree", 202), ("refuse", 403), ("not-understood", 422), ("failure", 500)]
    {
        let action = json!({ "do": "reply", "text": "x", "with": { "performative": performative } });
        let reply = client.post("/rogue", action.to_string());
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (status, "x"), "{performative}");
        assert_eq!(reply.header("caxton-performative"), performative);
    }
    let reply = client.post("/rogue", r#"{"do":"none"}"#);
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (204, ""));
}

#[test]
fn an_enqueued_message_can_be_looked_up() {
    let later = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let mut host = host(&(agent("rogue", "rogue", "instances = { max = 1 }") + later));
    let client = host.client();
    assert_eq!(host.caxton(&["mailbox", "pause", "rogue"]).0, 0);
    let handled = client.post("/later", r#"{"do":"sleep","ms":300}"#);
    let failed = client.post("/later", r#"{"do":"fail","cause":"rejected","reason":"no such customer"}"#);
    let waits = client.get(failed.header("location")).json();
    assert_eq!((&waits["state"], &waits["agent"]), (&json!("pending"), &json!("rogue")));
    assert_eq!(host.caxton(&["mailbox", "resume", "rogue"]).0, 0);
    host.until_agent("rogue", "both have ended", |status| {
        status["handled"].as_u64().unwrap_or(0) + status["failed"].as_u64().unwrap_or(0) == 2
    });
    let told = client.get(handled.header("location")).json();
    assert_eq!((&told["state"], &told["revision"]), (&json!("handled"), &json!("rogue@1")), "{told}");
    let told = client.get(failed.header("location")).json();
    assert_eq!((&told["state"], &told["code"]), (&json!("failed"), &json!("rejected")), "{told}");
    assert!(told["reason"].as_str().is_some_and(|reason| reason.contains("no such customer")), "{told}");
}

/// Sends bytes as they are and reads until the host closes the connection.
fn exchange_raw(host: &Host, parts: &[&str]) -> String {
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    for part in parts {
        stream.write_all(part.as_bytes()).expect("it reads");
    }
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("it answers and closes");
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn requests_follow_http_1_1() {
    let host = host_with_echo();
    for (request, status, part) in [
        ("GET /echo HTTP/1.1\r\nconnection: close\r\n\r\n", "HTTP/1.1 400", "host is missing"),
        ("GET /echo HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", "HTTP/1.1 400", "there twice"),
        ("GET /echo HTTP/1.0\r\n\r\n", "HTTP/1.0 200", "caxton-agent: echo"),
        (
            "GET http://a.example/echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 200",
            "caxton-agent: echo",
        ),
        ("OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "HTTP/1.1 204", "date: "),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\nconnection: close\r\n\r\n", "HTTP/1.1 501", "unsupported"),
        ("TRACE /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "HTTP/1.1 405", "allow: GET, POST, "),
        ("hello\r\n\r\n", "HTTP/1.1 400", ""),
        ("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400", "body-broken"),
    ] {
        let text = exchange_raw(&host, &[request]);
        assert!(text.starts_with(status) && text.contains(part), "{request:?} was answered with {text:?}");
    }
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let host = host_with_echo();
    let ask = |body: &str, more: &str| {
        format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n{more}\r\n{body}", body.len())
    };
    let text = exchange_raw(&host, &[&ask("first", ""), &ask("second", ""), &ask("third", "connection: close\r\n")]);
    let places: Vec<_> =
        ["first", "second", "third"].iter().map(|body| text.find(&format!("\r\n\r\n{body}"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
}

#[test]
fn expect_continue_is_answered_before_the_body() {
    let host = host_with_echo();
    let head = |length: usize| {
        format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let refused = exchange_raw(&host, &[&head(10 << 20)]);
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    let taken = exchange_raw(&host, &[&head(5), "hello"]);
    assert!(taken.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ") && taken.ends_with("hello"), "{taken}");
}

#[test]
fn http_2_is_spoken_on_the_same_port() {
    let host = host_with_echo();
    let client = Client::http2(&host.http);
    let reply = client.post("/echo", "hello");
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "hello"));
    // In pieces, as the client takes them.
    let large = "x".repeat(200 << 10);
    assert_eq!(client.post("/echo", large.clone()).text(), large);
    let reply = client.post("/echo", vec![b'x'; 300 << 10]);
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (413, &json!("too-large")));
    assert_eq!(client.send(Method::HEAD, "/t%C3%BCr/7", &[], "").status.as_u16(), 200);
    assert_eq!(client.post("/echo", "still here").text(), "still here");
}

#[test]
fn connections_above_the_bound_wait_until_one_ends() {
    let host = host(&("[http]\nmax-connections = 2\n".to_owned() + &agent("echo", "echo", "")));
    let held: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(&host.http).expect("the host listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
            // A request that goes on: an idle connection would make way.
            let head = b"POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
            stream.write_all(head).expect("it reads");
            stream.read_exact(&mut [0; 12]).expect("it answers");
            stream
        })
        .collect();
    let mut third = TcpStream::connect(&host.http).expect("the system holds it");
    third.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a TCP socket");
    third.write_all(b"GET /echo HTTP/1.1\r\nhost: a\r\n\r\n").expect("the system takes it");
    third.read_exact(&mut [0; 12]).expect_err("there are two already");
    drop(held);
    third.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    third.read_exact(&mut [0; 12]).expect("it is served now");
}
