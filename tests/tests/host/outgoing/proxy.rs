//! Calls over a proxy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use caxton_tests::Setup;

use super::server::Server;
use super::{caller, get};
use crate::BINARY;
use crate::authority::Authority;

/// A proxy that takes every name for one address. Returns its own, and the first lines of the requests that it got.
fn proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, lines) = (listener.local_addr().expect("an address"), Arc::<Mutex<Vec<String>>>::default());
    let seen = Arc::clone(&lines);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || forward(stream, to, &seen));
        }
    });
    (address, lines)
}

fn forward(mut client: TcpStream, to: SocketAddr, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(client.try_clone().expect("a socket"));
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    seen.lock().expect("no test panics with it").push(first.trim().to_owned());
    let mut server = TcpStream::connect(to).expect("the server listens");
    if first.starts_with("CONNECT ") {
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            line.clear();
        }
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    } else {
        // A server of HTTP takes the absolute form, too.
        let _ = server.write_all(first.as_bytes());
    }
    let (mut back, mut answers) = (server.try_clone().expect("a socket"), client);
    std::thread::spawn(move || std::io::copy(&mut back, &mut answers));
    let mut part = [0; 4_096];
    while let Ok(read @ 1..) = reader.read(&mut part) {
        if server.write_all(&part[..read]).is_err() {
            return;
        }
    }
}

/// A proxy that asks for credentials, with the header that has to come, and that takes every name for one address. Returns
/// its address, and the headers that came with the credentials.
fn guarded_proxy(to: SocketAddr, expected: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, heads) = (listener.local_addr().expect("an address"), Arc::<Mutex<Vec<String>>>::default());
    let seen = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || forward_if_known(stream, to, expected, &seen));
        }
    });
    (address, heads)
}

fn forward_if_known(mut client: TcpStream, to: SocketAddr, expected: &str, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(client.try_clone().expect("a socket"));
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap_or(0) > 2 {}
    seen.lock().expect("no test panics with it").push(head.clone());
    let is_known = head.lines().any(|line| line.eq_ignore_ascii_case(&format!("proxy-authorization: {expected}")));
    if !is_known {
        let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    let mut server = TcpStream::connect(to).expect("the server listens");
    if head.starts_with("CONNECT ") {
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    } else {
        // As a proxy does, without what is for itself.
        let kept = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("proxy-authorization:"));
        let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
        let _ = server.write_all(kept.as_bytes());
    }
    let (mut back, mut answers) = (server.try_clone().expect("a socket"), client);
    std::thread::spawn(move || std::io::copy(&mut back, &mut answers));
    let _ = std::io::copy(&mut reader, &mut server);
}

#[test]
fn a_proxy_is_given_its_credentials_and_nobody_else_is() {
    // `me:open sesame` in base64.
    let expected = "Basic bWU6b3BlbiBzZXNhbWU=";
    let authority = Authority::new("the issuer");
    let (plain, encrypted) = (Server::start(), Server::with_tls(&authority.issue(&["far.example"]), &["http/1.1"]));
    let (to_plain, plain_heads) = guarded_proxy(plain.address, expected);
    let (to_encrypted, encrypted_heads) = guarded_proxy(encrypted.address, expected);
    let start = |proxy: SocketAddr, password: &str| {
        let outgoing = format!("proxy = \"http://me:${{secret:proxy}}@{proxy}\"\nca = [\"ca.pem\"]");
        let places = "\"http://far.example\", \"https://far.example:8443\"";
        let toml = caller(places, &outgoing, "") + "[secrets]\nproxy = { file = \"proxy.key\" }\n";
        let setup = Setup::new(BINARY, &toml);
        std::fs::write(setup.folder().join("ca.pem"), authority.pem()).expect("the folder can be written to");
        std::fs::write(setup.folder().join("proxy.key"), password).expect("the folder can be written to");
        setup.start()
    };
    let host = start(to_plain, "open sesame");
    let answer = get(&host, "http://far.example/echo");
    assert_eq!(answer["status"], 200, "{answer}");
    assert!(!plain.requests()[0].to_string().contains("authorization"), "{:?}", plain.requests());
    assert!(!answer.to_string().contains("sesame") && !answer.to_string().contains("bWU6"), "{answer}");
    // A header of the agent's own does not take its place.
    let call =
        serde_json::json!({ "url": "http://far.example/echo", "headers": [["proxy-authorization", "Basic bm8="]] });
    let answer = super::act(&host, &serde_json::json!({ "do": "call", "call": call }));
    let own = plain_heads.lock().expect("no test panics with it").iter().any(|head| head.contains("bm8="));
    assert!(!own, "{answer}");
    let host = start(to_encrypted, "open sesame");
    assert_eq!(get(&host, "https://far.example:8443/echo")["status"], 200);
    let heads = encrypted_heads.lock().expect("no test panics with it").clone();
    assert!(heads[0].starts_with("CONNECT far.example:8443 HTTP/1.1"), "{heads:?}");
    assert!(!encrypted.requests()[0].to_string().contains("bWU6"), "{:?}", encrypted.requests());
    // Wrong ones, and no word of them anywhere.
    let mut host = start(to_encrypted, "wrong horse");
    assert_eq!(get(&host, "https://far.example:8443/echo")["error"], "destination-unavailable");
    super::until_logged(&mut host, "the proxy: ");
    let (_, events, _) = host.caxton(&["events", "-o", "json"]);
    let (_, checked, words) = host.caxton(&["check", "-o", "json"]);
    let diff = host.api().get("/v1/config/diff").text();
    for told in [super::log(&host), host.output(), events, checked, words, diff] {
        assert!(!told.contains("wrong horse") && !told.contains("d3Jvbmcg"), "{told}");
    }
}

#[test]
fn a_password_of_a_proxy_does_not_stand_in_the_file() {
    let setup = Setup::new(BINARY, &caller("", "proxy = \"http://me:hunter2@127.0.0.1:1\"", ""));
    let (code, _, words) = setup.caxton(&["check", "--no-components"]);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("error[bad-place]: outgoing.proxy: a password cannot stand in this file"), "{words}");
    let setup = Setup::new(BINARY, &caller("", "proxy = \"http://me:${secret:none}@127.0.0.1:1\"", ""));
    let (_, _, words) = setup.caxton(&["check", "--no-components"]);
    assert!(words.contains("error[unknown-secret]: outgoing.proxy: there is no secret `none`"), "{words}");
}

#[test]
fn places_that_are_not_private_are_called_over_the_proxy() {
    let authority = Authority::new("the issuer");
    let (plain, encrypted) = (Server::start(), Server::with_tls(&authority.issue(&["far.example"]), &["http/1.1"]));
    let direct = Server::start();
    let (to_plain, plain_lines) = proxy(plain.address);
    let (to_encrypted, encrypted_lines) = proxy(encrypted.address);
    let places = format!(
        "\"http://far.example\", \"https://far.example:8443\", \"http://169.254.169.254\", \"http://127.0.0.1:{}\"",
        direct.port()
    );
    let start = |proxy: SocketAddr| {
        let outgoing = format!("proxy = \"http://{proxy}\"\nca = [\"ca.pem\"]");
        let setup = Setup::new(BINARY, &caller(&places, &outgoing, ""));
        std::fs::write(setup.folder().join("ca.pem"), authority.pem()).expect("the folder can be written to");
        setup.start()
    };
    let host = start(to_plain);
    let answer = get(&host, "http://far.example/echo");
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(plain_lines.lock().expect("no test panics with it")[0], "GET http://far.example/echo HTTP/1.1");
    // Past the proxy: an address that is granted by itself.
    assert_eq!(get(&host, &direct.url("/"))["status"], 200);
    assert_eq!(plain_lines.lock().expect("no test panics with it").len(), 1);
    // The checks of names hold.
    assert_eq!(get(&host, "http://other.example/")["error"], "HTTP-request-denied");
    let host = start(to_encrypted);
    let answer = get(&host, "https://far.example:8443/echo");
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(encrypted_lines.lock().expect("no test panics with it")[0], "CONNECT far.example:8443 HTTP/1.1");
    assert_eq!(encrypted.requests()[0]["uri"], "/echo");
}
