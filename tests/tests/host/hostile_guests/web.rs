//! Attacks by HTTP agents.

use std::io::{Read, Write};
use std::net::TcpStream;

use caxton_tests::{Host, PATIENCE};
use http::Method;

use super::{ATTACKER, Street};
use crate::agent;

fn attacker(name: &str, guest: &str, route: &str) -> String {
    let limits = "limits = { cpu = \"300ms\", time = \"3s\", memory = \"32MiB\" }\n";
    agent(name, guest, &format!("{ATTACKER}{limits}")).replace(&format!("\"/{name}\""), &format!("\"{route}\""))
}

/// Gets a path. Returns what came: the status with the code or the beginning of the body, or `broken`.
fn get(host: &Host, path: &str) -> String {
    match host.client().try_send(Method::GET, path, &[], "") {
        Err(_) => "broken".to_owned(),
        Ok(reply) if reply.header("content-type") == "application/problem+json" => {
            format!("{} {}", reply.status.as_u16(), reply.json()["code"].as_str().unwrap_or_default())
        }
        Ok(reply) => format!("{} {}", reply.status.as_u16(), reply.text().chars().take(100).collect::<String>()),
    }
}

#[test]
fn attacks_by_responses_end_as_the_attackers_own() {
    let mut street = Street::start(&attacker("zoo", "zoo-web", "/zoo/{*rest}"));
    for (path, expected) in [
        ("/zoo/ok", &["200 ten bytes!"][..]),
        // Beyond the bound of a set of fields the engine has no error for a guest, which ends.
        ("/zoo/fields/1000000/1000", &["500 handles-exceeded", "500 copies-exceeded", "500 trap"]),
        ("/zoo/pollables/1000000", &["500 handles-exceeded"]),
        ("/zoo/responses/1000000", &["500 handles-exceeded"]),
        ("/zoo/requests/1000000", &["500 handles-exceeded"]),
        ("/zoo/header/20000000", &["200 refused", "500 "]),
        ("/zoo/split", &["200 [\"caxton-agent\"]"]),
        ("/zoo/longer", &["broken", "500 "]),
        ("/zoo/shorter", &["broken", "500 "]),
        ("/zoo/twice", &["200 ten bytes!"]),
        ("/zoo/unfinished", &["broken", "500 "]),
        ("/zoo/after", &["200 ten bytes!", "broken", "500 cpu-exceeded"]),
        ("/zoo/trailers/100000", &["200 ", "500 ", "broken"]),
        ("/zoo/unchecked/10000000", &["500 trap", "broken"]),
        ("/zoo/many-polls/1000000", &["500 "]),
    ] {
        let found = street.during(|host| get(host, path));
        assert!(expected.iter().any(|expected| found.starts_with(expected)), "{path}: {found}");
        assert_eq!(get(&street.host, "/zoo/ok"), "200 ten bytes!", "after {path}");
    }
    // What it said in its own name is replaced by what is true.
    let lengths = street.host.client().get("/zoo/twice").headers.get_all("content-length").iter().count();
    assert_eq!(lengths, 1, "a response has one length");
    let reply = street.host.client().get("/zoo/split");
    let agents: Vec<_> = reply.headers.get_all("caxton-agent").iter().collect();
    assert_eq!(agents, ["zoo"]);
    street.until_at_rest();
}

#[test]
fn a_caller_that_leaves_an_attacker_leaves_nothing_behind() {
    // It is called at the head: the body of the request never comes.
    let attack = attacker("rogue", "rogue-web", "/{*rest}").replace("route = ", "stream = true\nroute = ");
    let mut street = Street::start(&attack);
    for path in ["/endless", "/stream", "/sleep-midway", "/loop", "/sleep", "/collect"] {
        street.during(|host| {
            let mut stream = TcpStream::connect(&host.http).expect("the host listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
            write!(stream, "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nsome of it")
                .expect("it reads");
            if path == "/endless" || path == "/stream" {
                stream.read_exact(&mut [0; 100_000]).expect("a body that does not end");
            }
        });
    }
    street.until_at_rest();
}
