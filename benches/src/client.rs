//! Requests to a host under measurement.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::{Server, guest};

/// Returns the declaration of an agent with a guest, called at `/NAME`, with further settings.
pub fn agent(name: &str, component: &str, more: &str) -> String {
    let path = guest(component);
    format!(
        "[agents.{name}]\ncomponent = \"{}\"\n{more}\n[[agents.{name}.http]]\nroute = \"/{name}\"\n",
        path.display()
    )
}

/// Returns the response of the management API at a path; null if it is not JSON.
pub fn get_json(server: &Server, path: &str) -> serde_json::Value {
    let head = format!("authorization: Bearer {}\r\n", server.token());
    // Null and not a panic: while a host starts, some parts of the API are not there yet.
    serde_json::from_str(&exchange(&server.admin, "GET", path, &head, &[])).unwrap_or_default()
}

/// Returns the number of messages handled since the host started.
pub fn handled(server: &Server) -> u64 {
    get_json(server, "/v1/stats")["messages"]["handled"].as_u64().unwrap_or(0)
}

/// Pauses or resumes an agent's mailbox.
pub fn pause(server: &Server, agent: &str, paused: bool) {
    command(server, &format!("/v1/mailboxes/{agent}/{}", if paused { "pause" } else { "resume" }));
}

/// Posts a command to the management API.
pub fn command(server: &Server, path: &str) {
    exchange(&server.admin, "POST", path, &format!("authorization: Bearer {}\r\n", server.token()), &[]);
}

/// Returns the 99th percentile of delivery, in milliseconds: the time from the commit of a message to the commit of its
/// handler's effects.
pub fn delivery_p99(server: &Server) -> f64 {
    get_json(server, "/v1/stats")["delivery"]["since_start"]["p99_us"].as_f64().unwrap_or(f64::NAN) / 1e3
}

/// Posts a body to a path.
pub fn call(address: &str, path: &str, body: &[u8]) {
    exchange(address, "POST", path, "", body);
}

/// Sends one request on a connection of its own and returns the response's body.
///
/// # Panics
/// The response is not a success: the figure would mean nothing.
pub fn exchange(address: &str, method: &str, path: &str, head: &str, body: &[u8]) -> String {
    let text = response(address, method, path, head, body);
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// Sends one request on a connection of its own and returns the whole response.
///
/// # Panics
/// The response is not a success: the figure would mean nothing.
pub fn response(address: &str, method: &str, path: &str, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let length = body.len();
    // `connection: close` marks the end of the response, so that no parser is needed.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{head}connection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(&[request.as_bytes(), body].concat()).expect("the server reads");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("the server answers");
    let text = String::from_utf8_lossy(&response).into_owned();
    // A refusal is fast, so it would pass for a good figure.
    assert!(text.starts_with("HTTP/1.1 2"), "{method} {path}: {text}");
    text
}
