//! HTTP agents made with the SDK that answer in parts.

use std::io::{Read, Write};
use std::net::TcpStream;

use caxton_tests::{Host, PATIENCE};

use crate::{agent, host};

/// An agent at `/stream/...`. It is called at the head of a request.
fn web() -> Host {
    let web = agent("web", "web-stream", "limits = { time = \"2m\" }");
    host(&web.replace("route = \"/web\"", "route = \"/stream/{*rest}\"\nstream = true"))
}

fn counted(host: &Host) -> String {
    host.caxton(&["state", "get", "web", "count"]).1.trim().to_owned()
}

#[test]
fn bodies_go_both_ways_at_once() {
    let host = web();
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    write!(stream, "POST /stream/upper HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\r\nfirst")
        .expect("it reads");
    let (mut seen, mut part) = (Vec::new(), [0; 1_024]);
    // The rest of the request is sent once the first part of the response has come.
    while !String::from_utf8_lossy(&seen).contains("FIRST") {
        let read = stream.read(&mut part).expect("it answers");
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..read]);
    }
    stream.write_all(b"other").expect("it reads on");
    stream.read_to_end(&mut seen).expect("it answers to the end");
    assert!(String::from_utf8_lossy(&seen).contains("OTHER"), "{}", String::from_utf8_lossy(&seen));
    let large = "x".repeat(3 << 20);
    assert_eq!(host.client().post("/stream/upper", large.clone()).text(), large.to_uppercase());
}

#[test]
fn events_and_trailers_are_sent() {
    let host = web();
    let reply = host.client().get("/stream/events?count=2");
    assert_eq!((reply.header("content-type"), reply.header("cache-control")), ("text/event-stream", "no-store"));
    let event = |number: u32| format!(": the next one\n\nevent: number\nid: {number}\ndata: {number}\n\n");
    assert_eq!(reply.text(), event(1) + &event(2));
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream
        .write_all(b"GET /stream/trailers HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n")
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.contains("body") && answer.ends_with("0\r\nx-sum: 4\r\n\r\n"), "{answer}");
}

#[test]
fn effects_commit_with_the_head_and_failures_break_the_response_off() {
    let mut host = web();
    let client = host.client();
    assert_eq!(client.get("/stream/count").text(), "1");
    let failed = client.get("/stream/fail-before");
    assert_eq!((failed.status.as_u16(), &failed.json()["detail"]), (503, &"told to fail".into()));
    assert_eq!(counted(&host), "1", "nothing of it lasts");
    assert!(client.try_send(http::Method::GET, "/stream/fail-after", &[], "").is_err(), "half a response is none");
    assert_eq!(counted(&host), "2", "its head was sent");
    host.until("the reason in its log", |host| {
        host.caxton(&["logs", "web"]).1.contains("told to fail in the middle").then_some(())
    });
    // It ends before its head is sent, or after: half a response is none in both.
    let left = client.try_send(http::Method::GET, "/stream/leave", &[], "");
    assert!(left.as_ref().map_or(true, |reply| reply.status.as_u16() == 500), "{left:?}");
    let nothing = client.get("/stream/nothing");
    assert_eq!(nothing.status.as_u16(), 500);
    assert_eq!(nothing.json()["detail"], "the handler returned without a response");
    assert_eq!(client.get("/stream/status?code=99").status.as_u16(), 500, "no status of a response");
    assert_eq!(client.get("/stream/status?code=404").status.as_u16(), 404);
    assert_eq!(client.get("/stream/elsewhere").status.as_u16(), 404);
    assert_eq!(client.get("/stream/count").text(), "3");
}
