//! A load generator for HTTP/1.1 over kept connections, on one thread.
//!
//! It shares the machine with the server, so it does as little as possible: it finds the end of the head and counts the
//! bytes of the body. Responses have to carry `content-length`, or be a single chunk.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The request that is repeated.
#[derive(Debug, Clone)]
pub struct Request {
    /// The server, as `127.0.0.1:PORT`.
    pub address: String,
    /// The path, with a leading `/`.
    pub path: String,
    /// The body; an empty one makes the request a GET.
    pub body: Vec<u8>,
}

/// The result of a load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests per second.
    pub rate: f64,
    /// The median time of a request, in microseconds.
    pub p50_us: f64,
    /// The 99th percentile of the time of a request, in microseconds.
    pub p99_us: f64,
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        let head = if self.body.is_empty() {
            format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", self.path, self.address)
        } else {
            format!(
                "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
                self.path,
                self.address,
                self.body.len()
            )
        };
        [head.as_bytes(), &self.body].concat()
    }
}

/// Sends requests over `connections` connections for `time`.
///
/// # Panics
/// A response is not a success: the figure would mean nothing.
pub fn drive(request: &Request, connections: usize, time: Duration) -> Load {
    // One thread leaves the other cores to the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(connection(request.clone(), began + time));
        }
        let mut times: Vec<u32> = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done.expect("a connection works"));
        }
        let took = began.elapsed().as_secs_f64();
        let rate = times.len() as f64 / took;
        // Exact percentiles and no histogram: the tail of a short run has few samples.
        times.sort_unstable();
        let at = |share: f64| {
            let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times.get(index).map_or(f64::NAN, |nanos| f64::from(*nanos) / 1_000.0)
        };
        Load { rate, p50_us: at(0.5), p99_us: at(0.99) }
    })
}

/// Sends requests on one connection and returns the nanoseconds of each.
async fn connection(request: Request, until: Instant) -> Vec<u32> {
    let mut stream = TcpStream::connect(&request.address).await.expect("the server listens");
    // Otherwise a small request may wait for the acknowledgement of the one before.
    stream.set_nodelay(true).expect("a TCP socket");
    let bytes = request.bytes();
    let mut buffer = Vec::with_capacity(16 << 10);
    // Allocated before the measurement: a million is more than one connection sends in a bench.
    let mut times = Vec::with_capacity(1 << 20);
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(&bytes).await.expect("the server reads");
        response(&mut stream, &mut buffer).await;
        times.push(u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    times
}

async fn response(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    // Kept between requests, so that the generator does not allocate while it measures.
    buffer.clear();
    let (head, length) = loop {
        assert!(stream.read_buf(buffer).await.expect("the server answers") > 0, "the server closed the connection");
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end]).expect("a head is ASCII");
            assert!(head.starts_with("HTTP/1.1 2"), "no success: {head}");
            let length = head
                .split("\r\n")
                .find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")))
                .and_then(|(_, value)| value.trim().parse::<usize>().ok());
            break (end + 4, length);
        }
    };
    match length {
        Some(length) => {
            while buffer.len() < head + length {
                assert!(stream.read_buf(buffer).await.expect("the server answers") > 0, "the body was cut");
            }
        }
        // Chunked: all measured servers send the body in one chunk, followed by the last one.
        None => {
            while !buffer.ends_with(b"0\r\n\r\n") {
                assert!(stream.read_buf(buffer).await.expect("the server answers") > 0, "the body was cut");
            }
        }
    }
}
