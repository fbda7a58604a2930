//! Agents that speak HTTP themselves, made for any host.

use std::io::{Read, Write};
use std::net::TcpStream;

use caxton_tests::{Host, PATIENCE};

use crate::{agent, host};

const WEB: &str = "[[agents.web.http]]\nroute = \"/{*path}\"\n";

fn web() -> Host {
    host(
        &agent("web", "web", "limits = { time = \"2m\", cpu = \"1m\" }")
            .replace("[[agents.web.http]]\nroute = \"/web\"\n", WEB),
    )
}

/// The size of the body in tests of streams: far more than an instance may hold.
const LARGE: usize = 200 << 20;

#[test]
fn a_wasi_http_component_answers_as_on_other_hosts() {
    let host = web();
    let client = host.client();
    let reply = client.post("/upper", "hello");
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "HELLO"));
    assert_eq!(reply.header("caxton-revision"), "web@1");
    assert_eq!(client.get("/status?code=404").status.as_u16(), 404);
    let told = client.send(http::Method::GET, "/headers?a=b", &[("x-mine", "1")], "").json();
    assert!(told.to_string().contains("x-mine"), "{told}");
    assert_eq!(client.send(http::Method::HEAD, "/upper", &[], "").body.len(), 0);
}

#[test]
fn bodies_stream_both_ways_in_constant_memory() {
    let host = web();
    let before = resident(&host);
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    let mut reader = stream.try_clone().expect("a TCP socket");
    write!(stream, "POST /upper HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {LARGE}\r\n\r\n")
        .expect("it reads");
    let writer = std::thread::spawn(move || {
        // No letter of a head, and no digit of a chunk's size.
        let piece = vec![b'z'; 1 << 20];
        for _ in 0..LARGE >> 20 {
            stream.write_all(&piece).expect("it reads on");
        }
        stream
    });
    // What comes back while it is still being sent.
    let (mut letters, mut buffer, mut peak) = (0usize, vec![0; 1 << 20], 0);
    loop {
        let read = reader.read(&mut buffer).expect("it answers");
        if read == 0 {
            break;
        }
        letters += buffer[..read].iter().filter(|byte| **byte == b'Z').count();
        peak = peak.max(resident(&host));
    }
    drop(writer.join().expect("all was sent"));
    assert_eq!(letters, LARGE, "letters came back");
    assert!(peak < before + (64 << 20), "from {before} to {peak} bytes for {LARGE} bytes");
}

#[test]
fn an_instance_keeps_its_slot_until_the_last_byte() {
    let mut host = web();
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream.write_all(b"GET /stream?bytes=50000000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut first = [0; 1_000];
    stream.read_exact(&mut first).expect("it answers");
    assert_eq!(host.agent("web")["in_flight"], 1, "the client reads slowly, so it is still being answered");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("it answers to the end");
    host.until_agent("web", "nothing is in hand any more", |status| status["in_flight"] == 0);
    // One that leaves in the middle takes nothing with it.
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.write_all(b"GET /stream?bytes=50000000 HTTP/1.1\r\nhost: x\r\n\r\n").expect("it reads");
    stream.read_exact(&mut first).expect("it answers");
    drop(stream);
    host.until_agent("web", "nothing is in hand any more", |status| status["in_flight"] == 0);
    assert_eq!(host.client().post("/upper", "still here").text(), "STILL HERE");
}

#[test]
fn a_body_above_the_bound_is_cut() {
    let toml = agent("web", "web", "").replace("[[agents.web.http]]\nroute = \"/web\"\n", WEB);
    let host = host(&format!("[http]\nmax-body = \"1MiB\"\n{toml}"));
    let client = host.client();
    assert_eq!(client.post("/upper", vec![b'x'; 1 << 20]).status.as_u16(), 200);
    assert_eq!(client.post("/upper", vec![b'x'; (1 << 20) + 1]).status.as_u16(), 413);
}

#[test]
fn a_misbehaving_instance_is_cut_and_the_next_call_is_served() {
    let toml = agent("rogue", "rogue-web", "limits = { time = \"4s\", cpu = \"300ms\" }")
        .replace("[[agents.rogue.http]]\nroute = \"/rogue\"\n", "[[agents.rogue.http]]\nroute = \"/{*path}\"\n");
    let host = host(&toml);
    let client = host.client();
    for (path, status) in [
        ("/trap", 500),
        ("/nothing", 500),
        ("/error", 500),
        ("/loop", 500),
        ("/sleep", 504),
        ("/grow", 500),
        ("/status-0", 500),
        ("/unread", 200),
    ] {
        let reply = client.post(path, "x");
        assert_eq!(reply.status.as_u16(), status, "{path}: {}", reply.text());
        assert_eq!(client.get("/ok").text(), "ok", "after {path}");
    }
    // Once the head is out there is only one way to tell: the body breaks off. Before that the client hears why.
    for path in ["/trap-midway", "/end-midway", "/sleep-midway"] {
        let reply = client.try_send(http::Method::GET, path, &[], "");
        let told = reply.as_ref().is_ok_and(|reply| reply.status.as_u16() == 500 && path != "/sleep-midway");
        assert!(told || reply.is_err(), "{path}: {reply:?}");
        assert_eq!(client.get("/ok").text(), "ok", "after {path}");
    }
}

#[test]
fn effects_commit_with_the_response_head_and_not_with_an_error() {
    let web = agent("web", "web-effects", "config = { peer = \"echo\" }\nallow = { send = [\"echo\"] }")
        .replace("[[agents.web.http]]\nroute = \"/web\"\n", WEB);
    let mut host = host(&format!("{web}{}", agent("echo", "echo", "")));
    let client = host.client();
    let visits = |host: &Host| host.caxton(&["state", "get", "web", "visits"]).1.trim().to_owned();
    assert_eq!(client.get("/visit").text(), "1");
    assert_eq!(visits(&host), "1", "committed before the response went out");
    assert_eq!(client.get("/status-404").text(), "2", "a status below 500 is a success");
    for path in ["/status-500", "/trap"] {
        assert_eq!(client.get(path).status.as_u16(), 500, "{path}");
        assert_eq!(visits(&host), "2", "{path} leaves nothing behind");
    }
    // What comes after the head is in `late_effects`.
    assert_eq!(client.get("/nothing").status.as_u16(), 400);
    assert_eq!(visits(&host), "3");
    assert_eq!(client.get("/ask").text(), "Ok(\"asked\")");
    assert_eq!(visits(&host), "4");
    // One message for each of the four that lasted, and one request.
    host.until_agent("echo", "handled all", |status| status["handled"] == 5);
    assert_eq!(host.agent("echo")["accepted"], 5);
    // A trap after the head: the client is told as long as nothing went out, and then nothing lasts either.
    let told = client.try_send(http::Method::GET, "/trap-later", &[], "").is_ok_and(|reply| {
        assert_eq!(reply.status.as_u16(), 500, "a response that was begun breaks off");
        true
    });
    assert_eq!(visits(&host), if told { "4" } else { "5" });
}

/// Returns the resident memory of the host, in bytes.
pub(crate) fn resident(host: &Host) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid().as_raw_nonzero())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}
