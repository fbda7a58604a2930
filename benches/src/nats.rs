//! A comparison with NATS JetStream: publish, consume and acknowledge over its own protocol (documents "Client
//! Protocol" and "JetStream wire API" of NATS).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The number of messages in flight, of the publisher and of the consumer: more do not raise its rate.
const WINDOW: usize = 256;

struct Nats {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nats {
    fn start(synced: bool) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        // By default a server syncs every two minutes only.
        let sync = if synced { ", sync_interval: always" } else { "" };
        let config = format!("port: {port}\njetstream {{ store_dir: \"{}\"{sync} }}\n", folder.path().display());
        let path = folder.path().join("nats.conf");
        std::fs::write(&path, config).map_err(|error| error.to_string())?;
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|_| {
                "no `nats-server`; `go install github.com/nats-io/nats-server/v2@v2.10.25` gets one".to_owned()
            })?;
        let mut nats = Self { child, port, _folder: folder };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Ok(Some(status)) = nats.child.try_wait() {
                return Err(format!(
                    "`nats-server` ended with {status}; one of version 2.10 or newer is needed (`go install github.com/nats-io/nats-server/v2@v2.10.25`)"
                ));
            }
            if began.elapsed() > Duration::from_secs(10) {
                return Err("`nats-server` does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(nats)
    }

    fn connect(&self) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut connection =
            Connection { reader: BufReader::with_capacity(64 << 10, stream.try_clone().expect("a socket")), stream };
        connection.line();
        connection.write(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB inbox.* 1\r\n");
        connection
    }
}

struct Connection {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Connection {
    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the server writes");
        line
    }

    /// Reads the next message: the subject for an answer, and the payload.
    fn message(&mut self) -> (String, Vec<u8>) {
        loop {
            let line = self.line();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["MSG", _, _, size] => return (String::new(), self.payload(0, size)),
                ["MSG", _, _, reply, size] => return (reply.to_owned(), self.payload(0, size)),
                ["HMSG", _, _, head, size] => return (String::new(), self.payload(head.parse().unwrap_or(0), size)),
                ["HMSG", _, _, reply, head, size] => {
                    return (reply.to_owned(), self.payload(head.parse().unwrap_or(0), size));
                }
                ["PING"] => self.write(b"PONG\r\n"),
                _ => assert!(!line.starts_with("-ERR") && !line.is_empty(), "the server says {line:?}"),
            }
        }
    }

    fn payload(&mut self, head: usize, size: &str) -> Vec<u8> {
        let size: usize = size.parse().expect("a size");
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes).expect("the server writes");
        bytes[head..size].to_vec()
    }

    fn ask(&mut self, subject: &str, body: &str) -> String {
        self.write(format!("PUB {subject} inbox.api {}\r\n{body}\r\n", body.len()).as_bytes());
        let (_, answer) = self.message();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains("\"error\""), "{subject}: {answer}");
        answer
    }
}

/// Returns the rate of messages of 256 bytes that are published, stored in a file, consumed and acknowledged, with one
/// publisher and one consumer. With `synced`, every message is on the disk before it is accepted.
///
/// # Errors
/// The server cannot be started; the text says how to install it.
pub fn jetstream(synced: bool, time: Duration) -> Result<f64, String> {
    let nats = Nats::start(synced)?;
    let mut admin = nats.connect();
    admin.ask(
        "$JS.API.STREAM.CREATE.bench",
        r#"{"name":"bench","subjects":["bench"],"storage":"file","retention":"workqueue","num_replicas":1}"#,
    );
    admin.ask(
        "$JS.API.CONSUMER.DURABLE.CREATE.bench.one",
        r#"{"stream_name":"bench","config":{"durable_name":"one","ack_policy":"explicit","max_ack_pending":100000}}"#,
    );
    let (mut publisher, mut consumer) = (nats.connect(), nats.connect());
    let until = Instant::now() + time;
    let publishing = std::thread::spawn(move || {
        let one = [b"PUB bench inbox.p 256\r\n".as_slice(), &[b'x'; 256], b"\r\n"].concat();
        // One write for all of them, since the system calls would limit the rate.
        let window = one.repeat(WINDOW);
        let mut sent = 0usize;
        while Instant::now() < until {
            publisher.write(&window);
            for _ in 0..WINDOW {
                publisher.message();
            }
            sent += WINDOW;
        }
        sent
    });
    let began = Instant::now();
    let pull = format!("{{\"batch\":{WINDOW},\"expires\":200000000}}");
    let mut done = 0usize;
    while Instant::now() < until {
        let request = format!("PUB $JS.API.CONSUMER.MSG.NEXT.bench.one inbox.c {}\r\n{pull}\r\n", pull.len());
        consumer.write(request.as_bytes());
        let mut acknowledged = Vec::with_capacity(WINDOW * 64);
        for _ in 0..WINDOW {
            let (reply, _) = consumer.message();
            // A status in place of a message: the pull request expired.
            if !reply.starts_with("$JS.ACK") {
                break;
            }
            acknowledged.extend_from_slice(format!("PUB {reply} 4\r\n+ACK\r\n").as_bytes());
            done += 1;
        }
        consumer.write(&acknowledged);
    }
    let rate = done as f64 / began.elapsed().as_secs_f64();
    publishing.join().expect("the publisher works");
    Ok(rate)
}
