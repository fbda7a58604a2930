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
