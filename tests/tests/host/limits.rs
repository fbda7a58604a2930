//! The limits of guests and clients: what exceeds them fails, and affects no other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use caxton_tests::PATIENCE;
use serde_json::json;

use crate::{agent, host, in_hand};

#[test]
fn a_misbehaving_handler_is_reported_and_the_next_call_is_served() {
    let limits = "limits = { cpu = \"200ms\", time = \"60s\", memory = \"16MiB\", message = \"64KiB\", sends = 5, writes = 5, state = \"64KiB\" }\nallow = { send = [\"rogue\"] }";
    let brief = agent("brief", "rogue", "limits = { time = \"3s\" }");
    let host = host(&(agent("rogue", "rogue", limits) + &brief));
    let client = host.client();
    for (action, status, code, part) in [
        (json!({"do": "trap"}), 500, "trap", "stopped itself"),
        (json!({"do": "overflow"}), 500, "trap", "stopped itself"),
        (json!({"do": "loop"}), 500, "cpu-exceeded", "more time on a core"),
        (json!({"do": "sleep", "ms": 60_000}), 504, "deadline-exceeded", "3000 ms"),
        (json!({"do": "fail", "cause": "rejected", "reason": "no such customer"}), 422, "rejected", "no such customer"),
        (json!({"do": "fail", "cause": "unavailable", "reason": "later"}), 503, "agent-unavailable", "later"),
        (json!({"do": "fail", "cause": "fault", "reason": "my bad"}), 500, "agent-fault", "my bad"),
        (json!({"do": "reply", "bytes": 100_000}), 500, "bad-reply", "65536"),
        (json!({"do": "reply", "text": "x", "with": {"content-type": "a\nb"}}), 500, "bad-reply", "content-type"),
    ] {
        // Time on a core is exceeded long before a minute, on a busy machine too.
        let path = if code == "deadline-exceeded" { "/brief" } else { "/rogue" };
        let reply = client.post(path, action.to_string());
        let problem = reply.json();
        assert_eq!(reply.status.as_u16(), status, "{action}: {problem}");
        assert_eq!(reply.header("content-type"), "application/problem+json", "{action}");
        assert_eq!(problem["code"], code, "{action}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{action}: {problem}");
        assert_eq!(client.post(path, r#"{"do":"reply","text":"fine"}"#).text(), "fine", "after {action}");
    }
    let (_, log, _) = host.caxton(&["logs", "rogue"]);
    assert!(log.contains("trapped") && log.contains("rogue"), "a trap is in the agent's log: {log}");
}

#[test]
fn refused_imports_return_an_error_value() {
    let limits = "limits = { memory = \"16MiB\", message = \"64KiB\", sends = 5, writes = 5, state = \"64KiB\" }\nallow = { send = [\"rogue\", \"small\"] }";
    let small = agent("small", "echo", "limits = { message = \"1KiB\" }");
    let host = host(&(agent("rogue", "rogue", limits) + &small));
    let client = host.client();
    let ask = |action: serde_json::Value| client.post("/rogue", action.to_string()).json();
    let grown = ask(json!({"do": "grow", "mib": 64}))["grown"].as_u64().expect("a number");
    assert!((1..16).contains(&grown), "{grown} MiB of 16");
    for (action, error) in [
        (json!({"do": "send", "to": "small", "bytes": 2_000}), "too-large"),
        (json!({"do": "send", "to": "small", "bytes": 70_000}), "too-large"),
        (json!({"do": "send", "to": "rogue", "bytes": 1, "count": 6}), "too-many-sends"),
        (json!({"do": "send", "to": "rogue", "bytes": 1, "with": {"after-ms": 400_000_000_000u64}}), "invalid"),
        (json!({"do": "send", "to": "rogue", "bytes": 1, "with": {"content-type": ""}}), "invalid"),
    ] {
        let reply = ask(action.clone());
        let found = reply["errors"].as_array().and_then(|errors| errors.last()).map(|error| &error["error"]);
        assert_eq!(found, Some(&json!(error)), "{action}: {reply}");
    }
    for (action, error) in [
        (json!({"do": "set", "key": "k", "bytes": 1, "count": 6}), "too-many-writes"),
        (json!({"do": "set", "key": "k", "bytes": 70_000}), "too-large"),
        (json!({"do": "set", "key": "k", "bytes": 20_000, "count": 4}), "quota"),
        (json!({"do": "set", "key": "", "bytes": 1}), "invalid-key"),
    ] {
        let reply = ask(action.clone());
        assert_eq!(reply["error"], error, "{action}: {reply}");
    }
}

#[test]
fn a_full_mailbox_refuses() {
    let settings = "mailbox = { depth = 3 }\ninstances = { max = 1 }\n";
    let later = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let mut host = host(&(agent("rogue", "rogue", settings) + later));
    let client = host.client();
    // Nothing is handled until all is sent, however slow this machine is.
    assert_eq!(host.caxton(&["mailbox", "pause", "rogue"]).0, 0);
    for _ in 0..3 {
        assert_eq!(client.post("/later", r#"{"do":"none"}"#).status.as_u16(), 202);
    }
    let refused = client.post("/later", r#"{"do":"none"}"#);
    assert_eq!(refused.status.as_u16(), 503, "{}", refused.text());
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(refused.json()["code"], "mailbox-full");
    assert_eq!(host.caxton(&["mailbox", "resume", "rogue"]).0, 0);
    host.until_agent("rogue", "what was accepted is handled", |status| status["handled"] == 3);
    let status = host.agent("rogue");
    assert_eq!((&status["refused"], &status["accepted"]), (&json!(1), &json!(3)), "{status}");
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let host = host(&agent("echo", "echo", "limits = { message = \"1KiB\" }"));
    let client = host.client();
    assert_eq!(client.post("/echo", vec![b'x'; 1_024]).status.as_u16(), 200);
    let reply = client.post("/echo", vec![b'x'; 1_025]);
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (413, &json!("too-large")));
    assert!(reply.text().contains("1024"), "{}", reply.text());
    // Without a length it is found out while it comes.
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").expect("it reads");
    let chunk = [b"400\r\n".as_slice(), &[b'x'; 1_024], b"\r\n"].concat();
    stream.write_all(&[chunk.clone(), chunk].concat()).expect("it reads");
    assert!(head(&mut stream).starts_with("HTTP/1.1 413 "));
}

#[test]
fn slow_clients_are_cut_and_closed_connections_released() {
    let http = "[http]\nhead-timeout = \"1s\"\nstall-timeout = \"1s\"\n";
    let mut host = host(&(http.to_owned() + &agent("rogue", "rogue", "limits = { time = \"30s\" }")));
    for start in ["POST /rogue HT", "POST /rogue HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{"] {
        let mut stream = TcpStream::connect(&host.http).expect("the host listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        stream.write_all(start.as_bytes()).expect("it reads");
        let began = Instant::now();
        let mut rest = Vec::new();
        // Whether it says why (408) or only closes: it does not wait for ever.
        let _ = stream.read_to_end(&mut rest);
        assert!(began.elapsed() < Duration::from_secs(20), "{start:?} was cut after {:?}", began.elapsed());
    }
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    let body = r#"{"do":"sleep","ms":500}"#;
    write!(stream, "POST /rogue HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .expect("it reads");
    host.until_agent("rogue", "its message is in hand", in_hand);
    drop(stream);
    host.until_agent("rogue", "its message is handled all the same", |status| status["handled"] == 1);
    assert_eq!(host.agent("rogue")["in_flight"], 0);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let host = host(&("[http]\nmax-head = \"8KiB\"\n".to_owned() + &agent("echo", "echo", "")));
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    let head_text = format!("GET /echo HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "y".repeat(20_000));
    let _ = stream.write_all(head_text.as_bytes());
    assert!(head(&mut stream).starts_with("HTTP/1.1 431 "));
    assert_eq!(host.client().post("/echo", "x").status.as_u16(), 200);
}

#[test]
fn an_agent_at_its_limits_slows_no_other() {
    let limits = "instances = { max = 8 }\nlimits = { cpu = \"2s\", time = \"110s\" }";
    let host = host(&(agent("rogue", "rogue", limits) + &agent("echo", "echo", "")));
    let spinners: Vec<_> = (0..8)
        .map(|_| {
            let address = host.http.clone();
            std::thread::spawn(move || caxton_tests::Client::new(&address, None).post("/rogue", r#"{"do":"loop"}"#))
        })
        .collect();
    let client = host.client();
    // More loops than cores: each gives way at every tick, so that all of these calls are served meanwhile.
    for _ in 0..20 {
        assert_eq!(client.post("/echo", "x").status.as_u16(), 200);
    }
    assert!(spinners.iter().any(|spinner| !spinner.is_finished()), "the loops were over too soon to show anything");
    for spinner in spinners {
        assert_eq!(spinner.join().expect("it is answered").json()["code"], "cpu-exceeded");
    }
}

#[test]
fn fuel_is_exact_and_repeatable() {
    let host = host(&agent("rogue", "rogue", "limits = { fuel = 3000000 }"));
    let client = host.client();
    assert_eq!(client.post("/rogue", r#"{"do":"reply","text":"x"}"#).status.as_u16(), 200);
    for _ in 0..3 {
        let reply = client.post("/rogue", r#"{"do":"loop"}"#);
        assert_eq!(reply.json()["code"], "fuel-exceeded", "{}", reply.text());
    }
}

#[test]
fn an_endless_chain_of_messages_ends() {
    let settings = "allow = { send = [\"relay\"] }\nlimits = { hops = 10 }\n";
    let mut host = host(&agent("relay", "relay", settings));
    let content = [b"s".as_slice(), &1u32.to_le_bytes(), &1_000u32.to_le_bytes()].concat();
    assert_eq!(host.client().post("/relay", content).status.as_u16(), 204);
    // What the last one sends is a dead letter, and it is content.
    host.until_agent("relay", "the chain ends", |status| status["handled"] == 11);
    host.until("the dead letter", |host| {
        let page = host.api().get("/v1/dead-letters").json();
        (page["dead_letters"][0]["reason"] == "too-many-hops").then_some(())
    });
    assert_eq!(host.agent("relay")["handled"], 11);
}

#[test]
fn imports_that_are_not_granted_are_denied_when_called() {
    let setup = caxton_tests::Setup::new(
        crate::BINARY,
        &crate::file(&agent("rogue", "rogue", "allow = { env = [\"SHOWN\"] }")),
    );
    let host = setup.variable("SHOWN", "yes").variable("HIDDEN", "no").start();
    let client = host.client();
    let env = client.post("/rogue", r#"{"do":"env"}"#).text();
    assert!(env.contains("SHOWN") && !env.contains("HIDDEN") && !env.contains("PATH"), "{env}");
    for action in [
        json!({"do": "read", "path": "/etc/hostname"}),
        json!({"do": "write", "path": "/tmp/x"}),
        json!({"do": "connect", "address": host.http}),
    ] {
        let reply = client.post("/rogue", action.to_string()).json();
        assert_eq!(reply["error"], "io", "{action}: {reply}");
    }
}

#[test]
fn a_flood_of_log_lines_is_limited() {
    let host = host(&agent("rogue", "rogue", "limits = { log-lines = 50 }"));
    host.client().post("/rogue", r#"{"do":"flood","to":"stdout","bytes":80000}"#);
    let (_, out, _) = host.caxton(&["logs", "rogue", "--tail", "1000", "-o", "json"]);
    let lines = out.matches("\"context\"").count();
    assert!((50..=150).contains(&lines), "{lines} lines of 1000");
}

/// The head of a response.
fn head(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            Ok(_) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
