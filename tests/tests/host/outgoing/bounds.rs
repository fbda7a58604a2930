//! Servers that are slow, large, broken or gone, and agents that ask for too much.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::server::{Server, raw};
use super::{act, get, host, until_logged};

fn error_of(host: &caxton_tests::Host, url: &str) -> Value {
    get(host, url)["error"].clone()
}

#[test]
fn bodies_are_bounded_both_ways() {
    let server = Server::start();
    let outgoing = "max-request-body = \"100KB\"\nmax-response-body = \"1MB\"";
    let mut host = host(&server.place(), outgoing, "limits = { time = \"2m\", cpu = \"1m\" }");
    let ten_gigabytes = 10_u64 << 30;
    let call = json!({ "do": "download", "call": { "url": server.url(&format!("/large?bytes={ten_gigabytes}")) } });
    let answer = act(&host, &call);
    assert_eq!((&answer["error"], &answer["detail"]), (&json!("HTTP-response-body-size"), &json!("1000000")));
    assert!(answer["bytes"].as_u64().is_some_and(|bytes| bytes <= 1_000_000), "{answer}");
    // By its head, before anything of it is read.
    let url = server.url(&format!("/large?length=1&bytes={ten_gigabytes}"));
    assert_eq!(error_of(&host, &url), "HTTP-response-body-size");
    let call = json!({ "do": "download", "call": { "url": server.url("/large?bytes=1000000") } });
    assert_eq!(act(&host, &call)["bytes"], 1_000_000);
    until_logged(&mut host, "the response has more than 1000000 bytes (outgoing.max-response-body)");
    let upload = |parts: u32| {
        let call = json!({ "method": "POST", "url": server.url("/echo") });
        act(&host, &json!({ "do": "upload", "call": call, "parts": parts, "bytes": 10_000 }))
    };
    assert_eq!(upload(10)["status"], 200);
    assert_eq!(upload(11)["error"], "HTTP-request-body-size");
    let call = json!({ "method": "POST", "url": server.url("/echo"), "body": "x".repeat(100_001) });
    assert_eq!(act(&host, &json!({ "do": "call", "call": call }))["error"], "HTTP-request-body-size");
    host.until("no connection is left of those", |_| (server.open() <= 1).then_some(()));
}

#[test]
fn servers_that_keep_a_call_waiting_are_given_up() {
    let server = Server::start();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_at = silent.local_addr().expect("an address");
    let places = format!("{}, \"http://{silent_at}\", \"https://{silent_at}\"", server.place());
    let outgoing = "connect-timeout = \"300ms\"\nfirst-byte-timeout = \"300ms\"\nstall-timeout = \"300ms\"";
    let mut host = host(&places, outgoing, "limits = { time = \"1m\" }");
    // It takes the request, and never answers; the other does not even take the handshake of TLS.
    assert_eq!(error_of(&host, &server.url("/never")), "connection-read-timeout");
    assert_eq!(error_of(&host, &format!("http://{silent_at}/")), "connection-read-timeout");
    assert_eq!(error_of(&host, &format!("https://{silent_at}/")), "connection-timeout");
    let trickle = act(&host, &json!({ "do": "download", "call": { "url": server.url("/trickle") } }));
    assert_eq!((&trickle["error"], &trickle["bytes"]), (&json!("connection-read-timeout"), &json!(2)), "{trickle}");
    until_logged(&mut host, "(outgoing.first-byte-timeout, outgoing.stall-timeout, or what the agent asks for)");
    until_logged(&mut host, "(outgoing.connect-timeout, or what the agent asks for)");
    host.until("the connections end", |_| (server.open() == 0).then_some(()));
}

#[test]
fn a_server_that_trickles_for_ever_ends_with_the_message() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // An answer to nothing is none.
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            // A byte whenever the last was taken: no pause is ever long enough to be one.
            while stream.write_all(b".").is_ok() {
                caxton_tests::pause();
            }
        }
    });
    let host = host(&format!("\"http://{address}\""), "", "limits = { time = \"500ms\" }\nmailbox.attempts = 1");
    let call = json!({ "do": "download", "call": { "url": format!("http://{address}/") } });
    let reply = host.client().post("/caller", call.to_string());
    assert!(reply.status.as_u16() == 504 || reply.text().contains("HTTP-response-timeout"), "{}", reply.text());
}

#[test]
fn an_agent_may_ask_for_shorter_times() {
    let server = Server::start();
    let host = host(&server.place(), "", "limits = { time = \"1m\" }");
    let call = json!({ "url": server.url("/never"), "first-byte-ms": 100 });
    assert_eq!(act(&host, &json!({ "do": "call", "call": call }))["error"], "connection-read-timeout");
    let call = json!({ "url": server.url("/trickle"), "between-bytes-ms": 100 });
    assert_eq!(act(&host, &json!({ "do": "download", "call": call }))["error"], "connection-read-timeout");
}

#[test]
fn broken_responses_have_the_codes_of_the_standard() {
    let table = [
        ("", "HTTP-response-incomplete"),
        ("HTTP/1.1 200 OK\r\ncontent-le", "HTTP-response-incomplete"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "HTTP-response-incomplete"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "HTTP-response-incomplete"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", "HTTP-protocol-error"),
        ("nothing that is HTTP\r\n\r\n", "HTTP-protocol-error"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "HTTP-protocol-error"),
    ];
    let servers: Vec<_> = table.iter().map(|(answer, _)| raw(answer)).collect();
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let places: Vec<String> = servers.iter().chain([&closed]).map(|address| format!("\"http://{address}\"")).collect();
    let host = host(&places.join(", "), "", "");
    for ((answer, code), address) in table.iter().zip(&servers) {
        let told = get(&host, &format!("http://{address}/"));
        // Some servers close with a reset, where what the client has sent is not read.
        let broken = *code == "HTTP-response-incomplete" && told["error"] == "connection-terminated";
        assert!(told["error"] == *code || broken, "{answer:?}: {told}");
    }
    assert_eq!(error_of(&host, &format!("http://{closed}/")), "connection-refused");
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let address = raw(Box::leak(head.into_boxed_str()));
    let host = host(&format!("\"http://{address}\""), "", "");
    let error = error_of(&host, &format!("http://{address}/"));
    assert!(error == "HTTP-response-header-section-size" || error == "HTTP-protocol-error", "{error}");
}

#[test]
fn the_time_of_the_message_ends_its_calls() {
    let server = Server::start();
    let mut host = host(&server.place(), "first-byte-timeout = \"1m\"", "limits = { time = \"300ms\" }");
    let reply =
        host.client().post("/caller", json!({ "do": "call", "call": { "url": server.url("/never") } }).to_string());
    assert!(reply.status.as_u16() == 504 || reply.text().contains("HTTP-response-timeout"), "{}", reply.text());
    host.until("the connection ends", |_| (server.open() == 0).then_some(()));
}

#[test]
fn calls_at_once_are_bounded_and_those_left_open_end_with_their_message() {
    let server = Server::start();
    let outgoing = "calls = 8\ncalls-per-message = 500\nconnect-timeout = \"5s\"";
    let mut host = host(&server.place(), outgoing, "limits = { time = \"1m\", cpu = \"30s\" }");
    // More at once than there are permits: each has its turn.
    let at_once = |path: &str, count: usize| {
        act(&host, &json!({ "do": "at-once", "call": { "url": server.url(path) }, "count": count }))
    };
    assert_eq!(at_once("/status", 20), json!({ "200": 20 }));
    // Responses that are neither read nor dropped hold theirs until the message ends, and no longer.
    for _ in 0..3 {
        let left = act(&host, &json!({ "do": "leave", "call": { "url": server.url("/trickle") }, "count": 8 }));
        assert_eq!(left["left"], 8);
        assert_eq!(get(&host, &server.url("/status"))["status"], 200);
    }
    host.until("their connections end", |_| (server.open() <= 8).then_some(()));
}

#[test]
fn ten_thousand_calls_at_once_are_no_danger() {
    let server = Server::start();
    let outgoing = "calls = 8\ncalls-per-message = 100\nconnect-timeout = \"5s\"";
    let mut host = host(&server.place(), outgoing, "limits = { time = \"1m\", cpu = \"30s\", memory = \"256MiB\" }");
    let action = json!({ "do": "at-once", "call": { "url": server.url("/status") }, "count": 10_000 });
    let reply = host.client().post("/caller", action.to_string());
    // It holds more handles than a guest may.
    assert!(reply.status.is_server_error(), "{}", reply.text());
    let action = json!({ "do": "at-once", "call": { "url": server.url("/status") }, "count": 200 });
    let told = host.client().post("/caller", action.to_string()).json();
    assert_eq!(told["connection-limit-reached"], 100, "{told}");
    assert_eq!(told["200"], 100, "{told}");
    until_logged(
        &mut host,
        "handling one message may make 100 calls (outgoing.calls-per-message) (connection-limit-reached)",
    );
    assert_eq!(get(&host, &server.url("/status"))["status"], 200, "the host is well");
}
