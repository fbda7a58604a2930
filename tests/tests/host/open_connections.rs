//! A stop waits for requests that have begun, and for no connection beside.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use caxton_tests::{Client, Host, PATIENCE};
use rustix::process::Signal;

use crate::{agent, file};

/// The time limit of a stop without requests: far longer than it takes on a slow machine, and far shorter than [`DRAIN`].
const SOON: Duration = Duration::from_secs(25);
const DRAIN: &str = "[host]\ndrain = \"90s\"\n";

fn start() -> Host {
    let web = agent("web", "web", "limits = { time = \"2m\" }")
        .replace("[[agents.web.http]]\nroute = \"/web\"\n", "[[agents.web.http]]\nroute = \"/{*path}\"\n");
    Host::start(crate::BINARY, &file(&format!("{DRAIN}{web}{}", agent("rogue", "rogue", ""))))
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream
}

/// Stops the host. Returns the time that it took.
fn stop(host: Host) -> Duration {
    let began = Instant::now();
    let (code, _) = host.stop();
    assert_eq!(code, 0);
    began.elapsed()
}

#[test]
fn idle_connections_do_not_delay_a_stop() {
    let host = start();
    let mut held = Vec::new();
    for address in [&host.http, &host.admin] {
        // One that said nothing, one that waits for its client's next request, half a head, half a later head, and one
        // of HTTP/2 without requests.
        held.push(connect(address));
        let mut kept = connect(address);
        kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it reads");
        kept.read_exact(&mut [0; 12]).expect("it answers");
        let mut later = connect(address);
        later.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it reads");
        later.read_exact(&mut [0; 12]).expect("it answers");
        later.write_all(b"GET /health").expect("it reads");
        let mut half = connect(address);
        half.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").expect("it reads");
        let mut preface = connect(address);
        preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").expect("it reads");
        preface.read_exact(&mut [0; 9]).expect("it answers");
        held.extend([kept, later, half, preface]);
    }
    let used = Client::http2(&host.http);
    assert_eq!(used.get("/status?code=200").status.as_u16(), 200);
    let took = stop(host);
    assert!(took < SOON, "{took:?}");
    drop(held);
}

#[test]
fn event_streams_do_not_delay_a_stop() {
    let host = start();
    let token = std::fs::read_to_string(host.folder().join(".caxton/token")).expect("the host wrote its token");
    let follow = |path: &str| {
        let mut stream = connect(&host.admin);
        let token = token.trim();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n")
            .expect("it reads");
        stream.read_exact(&mut [0; 12]).expect("it answers");
        stream
    };
    let followers = [follow("/v1/events?follow=true"), follow("/v1/logs?follow=true")];
    let took = stop(host);
    assert!(took < SOON, "{took:?}");
    drop(followers);
}

#[test]
fn requests_in_progress_are_answered_before_a_stop() {
    let mut host = start();
    // Its head is there, its body is not.
    let mut begun = connect(&host.http);
    let head = b"POST /sum HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 6\r\n\r\n";
    begun.write_all(head).expect("it reads");
    begun.read_exact(&mut [0; "HTTP/1.1 100 Continue\r\n\r\n".len()]).expect("it reads the body");
    begun.write_all(b"foo").expect("it reads");
    let mut waiting = connect(&host.http);
    waiting.write_all(b"GET /wait?ms=1500 HTTP/1.1\r\nhost: x\r\n\r\n").expect("it reads");
    // The other is handed over once its body is whole.
    host.until_agent("web", "one is in hand", |status| status["in_flight"] == 1);
    host.signal(Signal::TERM);
    host.until_output("stopping");
    begun.write_all(b"bar").expect("it reads on");
    for stream in [begun, waiting] {
        let mut answer = String::new();
        (&stream).read_to_string(&mut answer).expect("it answers and closes");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(host.ended(), 0);
}
