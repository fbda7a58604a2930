//! Effects of HTTP agents after the head of their response: a second commit, at the end of the body.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;

use caxton_tests::{Client, Host, PATIENCE, Reply};
use http::Method;

use crate::{agent, host};

fn web() -> Host {
    let web = agent(
        "web",
        "web-effects",
        "config = { peer = \"echo\" }\nallow = { send = [\"echo\"] }\nlimits = { time = \"2m\" }",
    );
    host(&(web.replace("route = \"/web\"\n", "route = \"/{*path}\"\n") + &agent("echo", "echo", "")))
}

/// A value of the state; `None` if there is none.
fn value(host: &Host, key: &str) -> Option<String> {
    let (code, stdout, _) = host.caxton(&["state", "get", "web", key]);
    (code == 0).then(|| stdout.trim().to_owned())
}

/// Calls a path that asks the paused peer, and waits until the question is there.
fn asking(host: &mut Host, path: &'static str) -> JoinHandle<Result<Reply, String>> {
    assert_eq!(host.caxton(&["mailbox", "pause", "echo"]).0, 0);
    let address = host.http.clone();
    let call = std::thread::spawn(move || Client::new(&address, None).try_send(Method::GET, path, &[], ""));
    // The message that goes with the head, which is committed by then, and the question.
    host.until_agent("echo", "the question waits", |status| status["mailbox_depth"] == 2);
    call
}

#[test]
fn they_commit_at_the_end_of_the_body() {
    let mut host = web();
    let client = host.client();
    let told = client.get("/late").text();
    assert_eq!(told, "Ok(()) Ok(())");
    // Before the client has the end: also for a host that is killed now.
    assert_eq!((value(&host, "visits").as_deref(), value(&host, "late").as_deref()), (Some("1"), Some("1")));
    host.until_agent("echo", "the messages of both commits came", |status| status["handled"] == 2);
    for (path, expected) in [("/late-asking", "first, 2"), ("/late-asking-whole", "00003")] {
        assert_eq!(client.get(path).text(), expected);
    }
    assert_eq!((value(&host, "visits").as_deref(), value(&host, "late").as_deref()), (Some("3"), Some("3")));
    let host = host.kill().start();
    assert_eq!((value(&host, "visits").as_deref(), value(&host, "late").as_deref()), (Some("3"), Some("3")));
}

#[test]
fn a_response_that_says_that_the_call_failed_takes_none() {
    let host = web();
    let reply = host.client().get("/late-error");
    assert_eq!(reply.status.as_u16(), 500);
    let told = reply.text();
    assert!(told.contains("Unavailable") && told.contains("500 or more") && !told.contains("Ok("), "{told}");
    assert_eq!((value(&host, "visits"), value(&host, "late")), (None, None));
}

#[test]
fn a_handler_that_fails_leaves_nothing_of_the_second_commit() {
    let host = web();
    let client = host.client();
    let broken = client.try_send(Method::GET, "/late-trap", &[], "");
    assert!(!broken.is_ok_and(|reply| reply.status.is_success()), "the body breaks off, or its head is not sent");
    assert_eq!(value(&host, "late"), None);
    // An explicit commit lasts, and what follows does not.
    let _ = client.try_send(Method::GET, "/late-commit", &[], "");
    assert_eq!(value(&host, "late").as_deref(), Some("committed"));
}

#[test]
fn a_body_breaks_off_if_the_second_commit_is_refused() {
    let mut host = web();
    for (number, path) in [(1, "/late-asking"), (2, "/late-asking-whole")] {
        let call = asking(&mut host, path);
        // The handler has read the key, and cannot run again: its response has begun.
        assert_eq!(host.caxton(&["state", "set", "web", "late", &format!("{number}00")]).0, 0);
        assert_eq!(host.caxton(&["mailbox", "resume", "echo"]).0, 0);
        let told = call.join().expect("it ends");
        assert!(told.is_err(), "{path}: a client must not take it for whole: {told:?}");
        assert_eq!(value(&host, "late"), Some(format!("{number}00")), "{path}");
        assert_eq!(value(&host, "visits"), Some(number.to_string()), "{path}: the first commit lasts");
        host.until("the reason is in the agent's log", |host| {
            host.caxton(&["logs", "web"]).1.contains("conflict").then_some(())
        });
        host.until_agent("echo", "all has come", |status| status["mailbox_depth"] == 0 && status["in_flight"] == 0);
    }
    assert_eq!(host.client().get("/late-asking").text(), "first, 201");
}

#[test]
fn a_host_that_is_killed_between_the_commits_has_the_first() {
    let mut host = web();
    assert_eq!(host.caxton(&["mailbox", "pause", "echo"]).0, 0);
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream.write_all(b"GET /late-asking HTTP/1.1\r\nhost: x\r\n\r\n").expect("it reads");
    let (mut read, mut buffer) = (Vec::new(), [0; 1_000]);
    // A part of the body, which follows the first commit.
    while !String::from_utf8_lossy(&read).contains("first, ") {
        let bytes = stream.read(&mut buffer).expect("it answers");
        assert_ne!(bytes, 0, "{}", String::from_utf8_lossy(&read));
        read.extend(&buffer[..bytes]);
    }
    host.until_agent("echo", "the question waits", |status| status["mailbox_depth"] == 2);
    let host = host.kill().start();
    assert_eq!((value(&host, "visits").as_deref(), value(&host, "late")), (Some("1"), None));
}
