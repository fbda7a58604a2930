//! What clients can hold: slow ones hold no instance, silent ones no place, and none of them the management API.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use caxton_tests::{Client, Host, PATIENCE, Setup};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};

use crate::{agent, file, host};

/// The connections of a flood, as in a report.
const FLOOD: usize = 1_100;

/// An HTTP agent with these lines in its route, which takes all paths that no other agent has.
fn web(name: &str, guest: &str, more: &str, of_route: &str) -> String {
    let toml = agent(name, guest, more).replace(&format!("route = \"/{name}\""), "route = \"/{*path}\"");
    format!("{toml}{of_route}\n")
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream
}

/// Connects with a small buffer for what comes, so that the host notices soon that nothing is read.
fn connect_narrow(address: &str) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    set_socket_recv_buffer_size(&socket, 4_096).expect("a TCP socket");
    let address: SocketAddr = address.parse().expect("an address");
    rustix::net::connect(&socket, &address).expect("the host listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream
}

/// Sends a byte whenever nothing has come for a moment, until there is an answer. Returns the answer to its end.
fn trickle(address: &str, head: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).expect("it reads");
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a TCP socket");
    let mut answer = vec![0; 1];
    loop {
        match stream.read(&mut answer) {
            Ok(count) => {
                answer.truncate(count);
                break;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                stream.write_all(b"x").expect("it reads on");
            }
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    // The end may be a reset, as the last byte was not read.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_body_that_comes_byte_by_byte_is_given_up() {
    let host = host(&format!(
        "[http]\nstall-timeout = \"500ms\"\n{}{}",
        agent("echo", "echo", "limits = { time = \"2s\" }"),
        web("web", "web", "limits = { time = \"2s\" }", ""),
    ));
    let token = std::fs::read_to_string(host.folder().join(".caxton/token")).expect("the host wrote its token");
    let authorised = format!("authorization: Bearer {}\r\n", token.trim());
    for (address, path, more, bound) in [
        (&host.http, "/echo", "", "2000 ms (limits.time)"),
        (&host.http, "/sum", "", "2000 ms (limits.time)"),
        (&host.admin, "/v1/agents/echo/invoke", authorised.as_str(), "5000 ms (ten times http.stall-timeout)"),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{more}content-length: 100000\r\n\r\n");
        let answer = trickle(address, &head);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
        for part in ["connection: close", "application/problem+json", "\"body-late\"", bound] {
            assert!(answer.contains(part), "{path}: {part} is not in {answer}");
        }
    }
    // Silence ends it sooner.
    let mut silent = connect(&host.http);
    silent.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf").expect("it reads");
    let mut answer = String::new();
    silent.read_to_string(&mut answer).expect("it answers and closes");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"body-stalled\""), "{answer}");
    assert_eq!(host.client().post("/echo", "x").text(), "x");
}

#[test]
fn clients_that_do_not_read_hold_no_instance() {
    // More than the sockets hold, and less than the host does.
    const BYTES: usize = 24 << 20;
    let more = "limits = { time = \"2m\", cpu = \"1m\" }\ninstances = { max = 4 }";
    let mut host =
        host(&format!("[http]\nbuffer = \"32MiB\"\nstall-timeout = \"5m\"\n{}", web("web", "web", more, "")));
    let mut slow: Vec<TcpStream> = (0..4).map(|_| connect_narrow(&host.http)).collect();
    for stream in &mut slow {
        write!(stream, "GET /stream?bytes={BYTES} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it reads");
    }
    for stream in &mut slow {
        stream.read_exact(&mut [0; 12]).expect("it answers");
    }
    host.until_agent("web", "all instances are free", |status| status["in_flight"] == 0);
    for stream in &mut slow {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("it is whole");
        assert!(rest.len() > BYTES, "{} bytes came", rest.len());
    }
}

#[test]
fn an_instance_waits_for_a_client_within_bounds() {
    let http = "[http]\nbuffer = \"4KiB\"\nstall-timeout = \"1s\"\n";
    let more = |time: &str| format!("limits = {{ time = \"{time}\" }}\ninstances = {{ max = 1 }}");
    let (get, post) = ("methods = [\"GET\"]", "methods = [\"POST\"]");
    let long = web("long", "rogue-web", &more("2m"), get);
    let mut host = host(&format!("{http}{long}{}", web("short", "rogue-web", &more("3s"), post)));
    // Nothing is read at all: the time without progress.
    let mut silent = connect_narrow(&host.http);
    silent.write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").expect("it reads");
    silent.read_exact(&mut [0; 12]).expect("it answers");
    host.until_agent("long", "its instance is free", |status| status["in_flight"] == 0);
    // A little is read all the time: the time of the call.
    let mut slow = connect_narrow(&host.http);
    slow.write_all(b"POST /stream HTTP/1.1\r\nhost: x\r\n\r\n").expect("it reads");
    slow.read_exact(&mut [0; 12]).expect("it answers");
    host.until("its instance is free", |host| {
        let _ = slow.read(&mut [0; 64]);
        (host.agent("short")["in_flight"] == 0).then_some(())
    });
    assert_eq!(host.client().get("/ok").text(), "ok");
}

#[test]
fn clients_that_send_slowly_hold_no_instance() {
    let more = "limits = { time = \"2m\" }\ninstances = { max = 2 }";
    let mut host = host(&format!("[http]\nstall-timeout = \"5m\"\n{}", web("web", "web", more, "")));
    let mut slow: Vec<TcpStream> = (0..8).map(|_| connect(&host.http)).collect();
    for stream in &mut slow {
        stream
            .write_all(b"POST /upper HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 8\r\n\r\nhalf")
            .expect("it reads");
    }
    for _ in 0..8 {
        assert_eq!(host.client().post("/upper", "at once").text(), "AT ONCE");
    }
    host.until_agent("web", "nothing is in hand", |status| status["in_flight"] == 0);
    for mut stream in slow {
        stream.write_all(b"rest").expect("it reads on");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("HALFREST"), "{answer}");
    }
}

#[test]
fn a_route_that_streams_answers_before_the_body_is_whole() {
    let mut host = host(&web("web", "web", "limits = { time = \"2m\" }", "stream = true"));
    let mut stream = connect(&host.http);
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 8\r\n\r\nhalf")
        .expect("it reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"half\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("it answers with what came");
        answer.extend(byte);
    }
    assert_eq!(host.agent("web")["in_flight"], 1);
    stream.write_all(b"rest").expect("it reads on");
    stream.read_to_end(&mut answer).expect("it answers");
    assert!(String::from_utf8_lossy(&answer).contains("rest"), "{}", String::from_utf8_lossy(&answer));
    host.until_agent("web", "nothing is in hand", |status| status["in_flight"] == 0);
}

#[test]
fn connections_without_a_request_are_closed_in_time_at_every_listener() {
    let http = "[http]\nhead-timeout = \"1s\"\nidle-timeout = \"1s\"\n[probes]\nlisten = \"127.0.0.1:0\"\n";
    let host = host(&format!("{http}{}", agent("echo", "echo", "")));
    let ports = std::fs::read_to_string(host.folder().join("ports.json")).expect("the host wrote it");
    let ports: serde_json::Value = serde_json::from_str(&ports).expect("it is JSON");
    for listener in ["http", "admin", "probes"] {
        let address = ports[listener].as_str().expect("an address");
        for request in ["", "GET /healthz HTTP/1.1\r\nhost: lo", "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
            let mut stream = connect(address);
            stream.write_all(request.as_bytes()).expect("it reads");
            let mut answer = String::new();
            // Ends when the host closes the connection.
            let _ = stream.read_to_string(&mut answer);
            assert_eq!(answer.starts_with("HTTP/1.1 "), request.ends_with("\r\n\r\n"), "{listener}: {answer}");
        }
    }
}

/// Starts a host with this many files, whose connections may be silent for longer than any test.
fn with_files(files: u32, http: &str) -> Host {
    let text = format!("[http]\nhead-timeout = \"5m\"\nstall-timeout = \"5m\"\n{http}{}", agent("echo", "echo", ""));
    Setup::new(crate::BINARY, &file(&text)).within(&format!("ulimit -n {files}")).start()
}

fn works(host: &Host, when: &str) {
    assert_eq!(host.client().post("/echo", "hello").text(), "hello", "{when}");
    assert_eq!(Client::new(&host.admin, None).get("/healthz").status.as_u16(), 200, "{when}");
    assert_eq!(host.api().get("/v1/agents").status.as_u16(), 200, "{when}");
}

#[test]
fn silent_connections_make_way_for_others() {
    for (files, http) in [(400, ""), (4_096, "max-connections = 50\n")] {
        let host = with_files(files, http);
        for address in [&host.http, &host.admin] {
            let flood: Vec<TcpStream> = (0..FLOOD).map(|_| connect(address)).collect();
            works(&host, "during the flood");
            drop(flood);
            works(&host, "after the flood");
        }
    }
}

#[test]
fn a_connection_that_was_used_makes_way_after_silent_ones() {
    let host = with_files(4_096, "max-connections = 8\n");
    let ask = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi";
    let answer = |stream: &mut TcpStream| {
        stream.write_all(ask).expect("it reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nhi") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it answers");
            answer.extend(byte);
        }
    };
    let mut used = connect(&host.http);
    answer(&mut used);
    let silent: Vec<TcpStream> = (0..50).map(|_| connect(&host.http)).collect();
    works(&host, "beside silent connections");
    answer(&mut used);
    drop(silent);
}

#[test]
fn the_management_api_answers_when_requests_take_all_files() {
    let mut host = with_files(400, "");
    let head = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhell";
    // All of them wait for the rest of a body, so that none is idle.
    let mut held: Vec<TcpStream> = (0..400)
        .map(|_| {
            let mut stream = connect(&host.http);
            stream.write_all(head).expect("it is connected");
            stream
        })
        .collect();
    host.until_output("kept back for the host");
    assert_eq!(host.api().get("/v1/agents").status.as_u16(), 200);
    assert_eq!(host.api().send(http::Method::PUT, "/v1/agents/echo/state/a", &[], "b").status.as_u16(), 204);
    // Those that had to wait are served as others end.
    for mut stream in held.drain(..) {
        stream.write_all(b"o").expect("it is connected");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("it answers");
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    host.until("it works as before", |host| (host.client().post("/echo", "x").text() == "x").then_some(()));
}

#[test]
fn the_limit_of_open_files_is_raised() {
    let text = file(&agent("echo", "echo", ""));
    let host = Setup::new(crate::BINARY, &text).within("ulimit -Sn 256 && ulimit -Hn 4096").start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", host.pid().as_raw_nonzero())).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("Linux tells");
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["4096", "4096"], "{line}");
}
