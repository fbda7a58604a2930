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

/// Messages that an agent has handled, as the management API counts them.
pub fn count(server: &Server, agent: &str) -> u64 {
    let head = format!("authorization: Bearer {}\r\n", server.token());
    let text = exchange(&server.admin, "GET", &format!("/v1/agents/{agent}"), &head, &[]);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    status["handled"].as_u64().unwrap_or(0)
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
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}
