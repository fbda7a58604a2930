//! The behaviour of HTTP clients: responses without a body, half-closed and reset connections, and which of them opens
//! a breaker.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use caxton_tests::{Client, Host, PATIENCE};
use http::Method;

use crate::{agent, host};

/// A number of calls that exceeds the threshold of a breaker (`breaker.faults`).
const OFTEN: usize = 12;
/// The action that makes an agent wait for a minute.
const MINUTE: &str = r#"{"do":"sleep","ms":60000}"#;

fn rogue(more: &str) -> Host {
    let toml = agent("rogue", "rogue-web", more)
        .replace("[[agents.rogue.http]]\nroute = \"/rogue\"\n", "[[agents.rogue.http]]\nroute = \"/{*path}\"\n");
    host(&toml)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream
}

/// Sends raw text and reads the response to its end.
fn exchange(address: &str, text: &str, half_close: bool) -> String {
    let mut stream = connect(address);
    stream.write_all(text.as_bytes()).expect("it reads");
    if half_close {
        stream.shutdown(Shutdown::Write).expect("it is connected");
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_trusted(host: &mut Host, name: &str) {
    // What is to be counted of a call is counted when it has ended.
    host.until_agent(name, "nothing is in hand", |status| status["in_flight"] == 0);
    let metrics = Client::new(&host.admin, None).get("/metrics").text();
    let open = format!("caxton_breaker_open{{agent=\"{name}\"}} 1");
    assert!(!metrics.contains(&open), "its breaker is open; the host said:\n{}", host.output());
}

#[test]
fn a_response_without_a_body_may_have_a_content_length() {
    let mut host = rogue("");
    for client in [host.client(), Client::http2(&host.http)] {
        for _ in 0..OFTEN {
            for (method, path, status, length) in [
                (Method::HEAD, "/length", 200, "1234"),
                (Method::GET, "/not-modified", 304, "1234"),
                (Method::GET, "/not-modified-late", 304, "1234"),
                (Method::HEAD, "/not-modified", 304, "1234"),
                (Method::GET, "/no-content", 204, ""),
                (Method::HEAD, "/no-content", 204, ""),
            ] {
                let reply = client.send(method.clone(), path, &[], "");
                let found = (reply.status.as_u16(), reply.header("content-length"), reply.body.len());
                assert_eq!(found, (status, length, 0), "{method} {path}");
            }
        }
        let whole = client.get("/length");
        assert_eq!((whole.status.as_u16(), whole.header("content-length"), whole.body.len()), (200, "1234", 1_234));
    }
    is_trusted(&mut host, "rogue");
}

#[test]
fn client_errors_open_no_breaker() {
    let mut host = rogue("limits = { time = \"4s\", cpu = \"2s\", memory = \"16MiB\" }");
    let client = host.client();
    let head = |method: &str, path: &str, more: &str| format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    for _ in 0..OFTEN {
        // A body that breaks off, by its end and by a reset.
        let broken = exchange(&host.http, &(head("POST", "/upload", "content-length: 10\r\n") + "half"), true);
        assert!(broken.starts_with("HTTP/1.1 400"), "{broken}");
        let garbage = head("POST", "/upload", "transfer-encoding: chunked\r\n") + "5\r\nhello\r\nzz\r\n";
        let broken = exchange(&host.http, &garbage, false);
        assert!(broken.starts_with("HTTP/1.1 400"), "{broken}");
        // A response that nobody reads to its end.
        let mut left = connect(&host.http);
        left.write_all(head("GET", "/stream", "").as_bytes()).expect("it reads");
        left.read_exact(&mut [0; 5_000]).expect("it answers");
        drop(left);
        // More than the agent has room for. On a connection of its own, which ends with the refused upload.
        assert!(host.client().post("/collect", vec![b'x'; 24 << 20]).status.is_server_error());
        // One of which nobody wants the body.
        assert_eq!(client.send(Method::HEAD, "/stream", &[], "").status.as_u16(), 200);
    }
    // The answer reaches a client that has most of its body still to send.
    assert!(host.client().post("/collect", vec![b'x'; 60 << 20]).status.is_server_error());
    is_trusted(&mut host, "rogue");
    // Bodies that come too slowly for the agent's time, all at once.
    let slow: Vec<TcpStream> = (0..OFTEN)
        .map(|_| {
            let mut stream = connect(&host.http);
            let text = head("POST", "/upload", "content-length: 10\r\nconnection: close\r\n") + "half";
            stream.write_all(text.as_bytes()).expect("it reads");
            stream
        })
        .collect();
    for mut stream in slow {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    // And responses that are taken too slowly.
    let slow: Vec<TcpStream> = (0..OFTEN)
        .map(|_| {
            let mut stream = connect(&host.http);
            stream.write_all(head("GET", "/stream", "").as_bytes()).expect("it reads");
            stream
        })
        .collect();
    is_trusted(&mut host, "rogue");
    drop(slow);
    assert_eq!(client.get("/ok").text(), "ok");
    // What the agent does wrong counts as ever.
    for _ in 0..OFTEN {
        client.get("/trap");
    }
    assert_eq!(client.get("/ok").status.as_u16(), 503);
}

#[test]
fn client_timeouts_open_no_breaker() {
    let mut host = host(&agent("slow", "rogue", "limits = { time = \"5m\" }\ninstances = { max = 16 }"));
    let (client, api) = (host.client(), host.api());
    // On a busy machine no instance may have been started in so short a time, which says nothing.
    let (mut cut, mut calls) = (0, 0);
    while cut < 2 * OFTEN {
        assert!(calls < 200, "{cut} of {calls} calls were cut");
        calls += 1;
        let reply = match calls % 2 {
            0 => client.send(Method::POST, "/slow", &[("caxton-deadline", "200ms")], MINUTE),
            _ => api.post("/v1/agents/slow/invoke?timeout=200ms", MINUTE),
        };
        match reply.status.as_u16() {
            504 => cut += 1,
            status => assert_eq!((status, &reply.json()["code"]), (503, &"overloaded".into())),
        }
    }
    is_trusted(&mut host, "slow");
}

#[test]
fn a_half_closed_connection_gets_its_response() {
    let host = host(&format!(
        "{}{}",
        agent("web", "web", "")
            .replace("[[agents.web.http]]\nroute = \"/web\"\n", "[[agents.web.http]]\nroute = \"/{*path}\"\n"),
        agent("echo", "echo", "")
    ));
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let answer = exchange(&host.http, &ask("/wait?ms=700"), true);
    assert!(answer.contains("waited 700 ms"), "{answer}");
    let answer = exchange(&host.http, "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", true);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    // A stream that is far longer than what the sockets hold.
    let answer = exchange(&host.http, &ask("/stream?bytes=30000000"), true);
    assert!(answer.len() > 30_000_000 && answer.ends_with("0\r\n\r\n"), "{} bytes came", answer.len());
    // Every request that was sent before the end is answered, in its order.
    let both = ask("/wait?ms=300") + &ask("/wait?ms=1") + &ask("/status?code=404");
    let answer = exchange(&host.http, &both, true);
    let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("no {text}: {answer}"));
    assert!(at("waited 300 ms") < at("waited 1 ms") && at("waited 1 ms") < at("HTTP/1.1 404"), "{answer}");
    // So it is with the management API.
    let token = std::fs::read_to_string(host.folder().join(".caxton/token")).expect("the host wrote its token");
    let head = format!("host: localhost\r\nauthorization: Bearer {}\r\n", token.trim());
    let invoke = format!("POST /v1/agents/echo/invoke HTTP/1.1\r\n{head}content-length: 2\r\n\r\nhi");
    let answer = exchange(&host.admin, &invoke, true);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi"), "{answer}");
}

#[test]
fn a_reset_ends_a_call_before_and_after_the_end_of_input() {
    let mut host = rogue("limits = { time = \"10m\" }");
    for half_close in [false, true] {
        for path in ["/sleep", "/sleep-midway"] {
            let mut stream = connect(&host.http);
            write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("it reads");
            if half_close {
                stream.shutdown(Shutdown::Write).expect("it is connected");
            }
            host.until_agent("rogue", "it has the call in hand", |status| status["in_flight"] == 1);
            // Closing without lingering resets.
            rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).expect("a TCP socket");
            drop(stream);
            // Far sooner than the minute that the agent waits.
            let began = std::time::Instant::now();
            host.until_agent("rogue", "the call ended", |status| status["in_flight"] == 0);
            assert!(began.elapsed() < std::time::Duration::from_secs(40), "{path}: {:?}", began.elapsed());
        }
    }
    is_trusted(&mut host, "rogue");
}
