//! Asking a host that is measured.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::{Server, guest};

/// An agent of a guest, called at `/NAME`, with further settings.
pub fn agent(name: &str, component: &str, more: &str) -> String {
    let path = guest(component);
    format!(
        "[agents.{name}]\ncomponent = \"{}\"\n{more}\n[[agents.{name}.http]]\nroute = \"/{name}\"\n",
        path.display()
    )
}

/// What the management API says at a path.
pub fn asked(server: &Server, path: &str) -> serde_json::Value {
    let head = format!("authorization: Bearer {}\r\n", server.token());
    serde_json::from_str(&exchange(&server.admin, "GET", path, &head, &[])).unwrap_or_default()
}

/// Messages that were handled since the host started, as the management API counts them.
pub fn handled(server: &Server) -> u64 {
    asked(server, "/v1/stats")["messages"]["handled"].as_u64().unwrap_or(0)
}

/// Lets an agent's mailbox wait, or go on.
pub fn pause(server: &Server, agent: &str, paused: bool) {
    command(server, &format!("/v1/mailboxes/{agent}/{}", if paused { "pause" } else { "resume" }));
}

/// Asks the management API to do something.
pub fn command(server: &Server, path: &str) {
    exchange(&server.admin, "POST", path, &format!("authorization: Bearer {}\r\n", server.token()), &[]);
}

/// The time within which 99 of a hundred messages were delivered, from their commit to that of what their handler
/// did, in milliseconds.
pub fn delivery_p99(server: &Server) -> f64 {
    asked(server, "/v1/stats")["delivery"]["since_start"]["p99_us"].as_f64().unwrap_or(f64::NAN) / 1e3
}

/// One call of a path.
pub fn call(address: &str, path: &str, body: &[u8]) {
    exchange(address, "POST", path, "", body);
}

/// One request on a connection of its own; gives the body.
///
/// # Panics
/// There is no successful response: then there is nothing to measure.
pub fn exchange(address: &str, method: &str, path: &str, head: &str, body: &[u8]) -> String {
    let text = response(address, method, path, head, body);
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// One request on a connection of its own; gives the whole response.
///
/// # Panics
/// There is no successful response: then there is nothing to measure.
pub fn response(address: &str, method: &str, path: &str, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{head}connection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(&[request.as_bytes(), body].concat()).expect("the server reads");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("the server answers");
    let text = String::from_utf8_lossy(&response).into_owned();
    assert!(text.starts_with("HTTP/1.1 2"), "{method} {path}: {text}");
    text
}
