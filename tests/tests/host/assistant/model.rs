//! A language model by a script: a server whose answers a test chooses, part by part.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use caxton_tests::PATIENCE;
use serde_json::{Value, json};

/// A part of an answer.
pub(super) enum Part {
    Send(String),
    /// Waits until the test lets it go on.
    Hold,
    /// Waits until the caller has left, and tells the test.
    UntilGone,
}

/// An answer, with its head.
pub(super) struct Answer {
    head: String,
    parts: Vec<Part>,
}

impl Answer {
    /// Makes an answer of any kind. The end of the connection is its end.
    pub(super) fn raw(status: &str, headers: &str, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n");
        Self { head, parts: vec![Part::Send(body.to_owned())] }
    }

    /// Makes an answer that never begins.
    pub(super) fn silent() -> Self {
        Self { head: String::new(), parts: vec![Part::UntilGone] }
    }

    /// Makes an answer of server-sent events.
    pub(super) fn stream(parts: Vec<Part>) -> Self {
        Self { parts, ..Self::raw("200 OK", "content-type: text/event-stream\r\n", "") }
    }

    /// Makes an answer of these chunks, with an end.
    pub(super) fn chunks(chunks: &[Value]) -> Self {
        let mut parts: Vec<Part> = chunks.iter().map(send).collect();
        parts.push(Part::Send(String::from("data: [DONE]\n\n")));
        Self::stream(parts)
    }
}

/// Returns the event of a chunk.
pub(super) fn send(chunk: &Value) -> Part {
    Part::Send(format!("data: {chunk}\n\n"))
}

/// Returns a chunk with a part of the text.
pub(super) fn text(part: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": { "content": part }, "finish_reason": null }] })
}

/// Returns a chunk with a part of a call of a tool.
pub(super) fn call(index: u32, id: Option<&str>, name: Option<&str>, arguments: &str) -> Value {
    let call = json!({ "index": index, "id": id, "function": { "name": name, "arguments": arguments } });
    json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [call] } }] })
}

/// Returns the last chunk of a turn.
pub(super) fn finish(reason: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
}

/// Returns a chunk with the tokens that were used.
pub(super) fn usage(prompt: u64, completion: u64) -> Value {
    let used = json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion });
    json!({ "choices": [], "usage": used })
}

/// A request that the model got.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) head: String,
    pub(super) body: Value,
}

/// A server with a script.
pub(super) struct Model {
    pub(super) address: SocketAddr,
    script: Arc<Script>,
    release: Sender<()>,
    gone: Receiver<()>,
}

struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
    held: Mutex<Receiver<()>>,
    gone: Sender<()>,
}

impl Model {
    /// Starts a server that gives these answers, one for each request.
    pub(super) fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let ((release, held), (left, gone)) = (channel(), channel());
        let script = Arc::new(Script {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: Mutex::default(),
            held: Mutex::new(held),
            gone: left,
        });
        let served = Arc::clone(&script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&served);
                std::thread::spawn(move || script.serve(stream));
            }
        });
        Self { address, script, release, gone }
    }

    /// Returns the requests so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.script.asked.lock().expect("no server panics").clone()
    }

    /// Adds an answer.
    pub(super) fn add(&self, answer: Answer) {
        self.script.answers.lock().expect("no server panics").push_back(answer);
    }

    /// Lets an answer go on that is held.
    pub(super) fn release(&self) {
        self.release.send(()).expect("the server is there");
    }

    /// Waits until a caller has left in the middle of its answer.
    pub(super) fn until_gone(&self) {
        self.gone.recv_timeout(PATIENCE).expect("the caller leaves");
    }
}

impl Script {
    fn serve(&self, mut stream: TcpStream) {
        let Some(asked) = read(&stream) else { return };
        self.asked.lock().expect("no server panics").push(asked);
        // Without an answer the connection just ends.
        let Some(answer) = self.answers.lock().expect("no server panics").pop_front() else { return };
        let _ = stream.write_all(answer.head.as_bytes());
        for part in answer.parts {
            match part {
                Part::Send(text) => drop(stream.write_all(text.as_bytes())),
                Part::Hold => drop(self.held.lock().expect("no server panics").recv()),
                Part::UntilGone => {
                    // Ends with the connection: the caller sends nothing more.
                    let _ = stream.read(&mut [0]);
                    let _ = self.gone.send(());
                }
            }
        }
    }
}

/// Reads a request with a body of a known length.
fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { head, body: serde_json::from_slice(&body).ok()? })
}
