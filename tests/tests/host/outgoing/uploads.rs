//! Requests that agents send to servers that do not take them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use caxton_tests::PATIENCE;
use serde_json::{Value, json};

use super::{act, host, until_logged};

/// A server that accepts connections and reads nothing.
struct DeafServer {
    address: SocketAddr,
    accepted: Arc<Mutex<Vec<TcpStream>>>,
}

impl DeafServer {
    /// Starts a server that writes these bytes to each connection once a request begins to come.
    fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::<Mutex<Vec<TcpStream>>>::default();
        let streams = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if !answer.is_empty() {
                    let _ = stream.read(&mut [0; 64]);
                    let _ = stream.write_all(answer);
                }
                streams.lock().expect("no test panics with it").push(stream);
            }
        });
        Self { address, accepted }
    }

    fn place(&self) -> String {
        format!("\"http://{}\"", self.address)
    }

    /// Asserts that the client has closed its connections, by reading what it had sent until then.
    fn assert_closed(&self) {
        for mut stream in self.accepted.lock().expect("no test panics with it").drain(..) {
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let mut part = vec![0; 1 << 20];
            loop {
                match stream.read(&mut part) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the connection is still open");
                        break;
                    }
                }
            }
        }
    }
}

/// The upload of far more than all buffers on the way hold.
fn upload(server: &DeafServer) -> Value {
    let call = json!({ "method": "POST", "url": format!("http://{}/", server.address) });
    json!({ "do": "upload", "call": call, "parts": 1_024, "bytes": 64 << 10 })
}

#[test]
fn an_upload_that_a_server_does_not_take_ends_with_the_stall_time() {
    let server = DeafServer::start(b"");
    // The message has far more time than any test.
    let limits = "limits = { time = \"1h\", cpu = \"1m\" }";
    let mut host = host(&server.place(), "stall-timeout = \"300ms\"", limits);
    for _ in 0..2 {
        assert_eq!(act(&host, &upload(&server))["error"], "connection-write-timeout");
    }
    until_logged(&mut host, "the server took nothing in time (outgoing.stall-timeout) (connection-write-timeout)");
    server.assert_closed();
}

#[test]
fn an_upload_that_a_server_does_not_take_ends_with_its_message() {
    let server = DeafServer::start(b"");
    let limits = "limits = { time = \"500ms\", cpu = \"1m\" }\nmailbox.attempts = 1";
    let host = host(&server.place(), "stall-timeout = \"1h\"", limits);
    let reply = host.client().post("/caller", upload(&server).to_string());
    assert!(reply.status.as_u16() == 504 || reply.text().contains("HTTP-response-timeout"), "{}", reply.text());
    server.assert_closed();
}

#[test]
fn an_upload_that_was_answered_before_it_was_taken_ends_with_its_message() {
    let server = DeafServer::start(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig");
    let limits = "limits = { time = \"1s\", cpu = \"1m\" }\nmailbox.attempts = 1";
    let host = host(&server.place(), "", limits);
    let reply = host.client().post("/caller", upload(&server).to_string());
    // The agent is told of it, or has no time left for that.
    assert!(reply.status.as_u16() == 504 || reply.text().contains("413"), "{}", reply.text());
    server.assert_closed();
}
