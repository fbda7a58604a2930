//! A server that agents call.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::authority::Issued;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server. It ends when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
    gate: watch::Sender<bool>,
    // Dropped last: its tasks end with it.
    _runtime: Runtime,
}

/// The record of what the server has seen.
#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Value>>,
    /// Connections accepted.
    connections: AtomicU64,
    /// Connections that are open.
    open: AtomicU64,
    /// Requests that wait at the gate.
    waiting: AtomicU64,
    /// The bodies of requests: set if one came as a whole.
    uploads: Mutex<Vec<bool>>,
}

/// The body of a request, noted when its connection ends at the latest.
struct Upload<'a> {
    seen: &'a Seen,
    is_whole: bool,
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.seen.uploads.lock().expect("no test panics with it").push(self.is_whole);
    }
}

/// Subtracts one from a count when it is dropped.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    /// Starts a server in plain text.
    pub(super) fn start() -> Self {
        Self::begin(None)
    }

    /// Starts a server with TLS, which offers these protocols.
    pub(super) fn with_tls(issued: &Issued, protocols: &[&str]) -> Self {
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
        let chain = CertificateDer::pem_slice_iter(issued.cert.as_bytes()).map(|found| found.expect("PEM")).collect();
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self::begin(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn begin(tls: Option<TlsAcceptor>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, (gate, opened)) = (Arc::<Seen>::default(), watch::channel(false));
        let accepted = Arc::clone(&seen);
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (seen, tls, opened) = (Arc::clone(&accepted), tls.clone(), opened.clone());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let _open = Counted::new(&seen.open);
                    let service = |request| {
                        let (seen, opened) = (Arc::clone(&seen), opened.clone());
                        async move { Ok::<_, Infallible>(answer(request, &seen, opened).await) }
                    };
                    let server = Builder::new(TokioExecutor::new());
                    match tls {
                        None => drop(server.serve_connection(TokioIo::new(stream), service_fn(service)).await),
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            drop(server.serve_connection(TokioIo::new(stream), service_fn(service)).await);
                        }
                    }
                });
            }
        });
        Self { address, seen, gate, _runtime: runtime }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns a URL of the server by its address.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns a place with all of the server, as it is written in the file.
    pub(super) fn place(&self) -> String {
        format!("\"http://{}\"", self.address)
    }

    /// Returns the requests so far.
    pub(super) fn requests(&self) -> Vec<Value> {
        self.seen.requests.lock().expect("no test panics with it").clone()
    }

    /// Returns for each request with a body that has ended if it came as a whole.
    pub(super) fn uploads(&self) -> Vec<bool> {
        self.seen.uploads.lock().expect("no test panics with it").clone()
    }

    pub(super) fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub(super) fn open(&self) -> u64 {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// Returns the number of requests that wait at the gate.
    pub(super) fn waiting(&self) -> u64 {
        self.seen.waiting.load(Ordering::SeqCst)
    }

    /// Lets the requests at the gate pass.
    pub(super) fn open_gate(&self) {
        self.gate.send_replace(true);
    }
}

/// Answers a request by its path.
async fn answer(request: Request<Incoming>, seen: &Seen, mut opened: watch::Receiver<bool>) -> Response<Body> {
    let query: HashMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
    let path = request.uri().path().to_owned();
    let headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let told = json!({
        "method": request.method().as_str(),
        "uri": request.uri().to_string(),
        "version": format!("{:?}", request.version()),
        "headers": headers,
    });
    seen.requests.lock().expect("no test panics with it").push(told.clone());
    match path.as_str() {
        "/gate" | "/never" => {
            let _waits = Counted::new(&seen.waiting);
            if path == "/never" {
                std::future::pending::<()>().await;
            }
            // Fails only if the server is gone.
            let _ = opened.wait_for(|open| *open).await;
            Response::new(empty())
        }
        "/status" => {
            let code = number("code").and_then(|code| u16::try_from(code).ok()).unwrap_or(200);
            Response::builder().status(code).body(full("told")).expect("a response")
        }
        "/redirect" => {
            let to = query.get("to").map(String::as_str).unwrap_or_default().replace("%2F", "/");
            Response::builder().status(302).header("location", to).body(empty()).expect("a response")
        }
        "/large" => large(number("bytes").unwrap_or(0), query.contains_key("length")),
        "/trickle" => Response::new(parts(vec!["a", "b"], None, true)),
        "/events" => Response::builder()
            .header("content-type", "text/event-stream")
            .body(parts(vec!["data: one\n\n", "data: two\n\n"], None, false))
            .expect("a response"),
        "/trailers" => {
            let trailers = HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("7"))]);
            Response::builder()
                .header("trailer", "x-sum")
                .body(parts(vec!["body"], Some(trailers), false))
                .expect("a response")
        }
        _ => {
            let mut upload = Upload { seen, is_whole: false };
            let (mut bytes, mut trailers, mut body) = (0, None, request.into_body());
            let mut text = Vec::new();
            loop {
                let frame = match body.frame().await {
                    Some(Ok(frame)) => frame,
                    Some(Err(_)) => break,
                    None => {
                        upload.is_whole = true;
                        break;
                    }
                };
                match frame.into_data() {
                    Ok(data) => {
                        bytes += data.len();
                        if text.len() < 1_000 {
                            text.extend_from_slice(&data);
                        }
                    }
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            let mut told = told;
            told["bytes"] = bytes.into();
            told["body"] = if bytes < 1_000 { String::from_utf8_lossy(&text).into() } else { Value::Null };
            told["trailers"] = trailers.map_or(Value::Null, |trailers| format!("{trailers:?}").into());
            Response::new(full(&told.to_string()))
        }
    }
}

fn empty() -> Body {
    Empty::new().boxed_unsync()
}

fn full(text: &str) -> Body {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed_unsync()
}

/// Returns a body of parts, with trailers or without an end.
fn parts(parts: Vec<&'static str>, trailers: Option<HeaderMap>, never_ends: bool) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Frame<Bytes>>(1);
    tokio::spawn(async move {
        for part in parts {
            if sender.send(Frame::data(Bytes::from_static(part.as_bytes()))).await.is_err() {
                return;
            }
        }
        if let Some(trailers) = trailers {
            let _ = sender.send(Frame::trailers(trailers)).await;
        }
        if never_ends {
            // Until the client goes.
            sender.closed().await;
        }
    });
    stream(receiver)
}

/// Returns a body of so many bytes, as long as it is read.
fn large(bytes: u64, with_length: bool) -> Response<Body> {
    const PART: u64 = 64 << 10;
    static ZEROS: [u8; PART as usize] = [0; PART as usize];
    let (sender, receiver) = tokio::sync::mpsc::channel::<Frame<Bytes>>(1);
    tokio::spawn(async move {
        let mut left = bytes;
        while left > 0 {
            let part = left.min(PART);
            let data = Bytes::from_static(&ZEROS[..usize::try_from(part).expect("a small number")]);
            if sender.send(Frame::data(data)).await.is_err() {
                return;
            }
            left -= part;
        }
    });
    let mut response = Response::new(stream(receiver));
    if with_length {
        response.headers_mut().insert("content-length", bytes.into());
    }
    response
}

fn stream(receiver: tokio::sync::mpsc::Receiver<Frame<Bytes>>) -> Body {
    let frames = futures::stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((Ok::<_, Infallible>(frame), receiver))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Starts a server that reads the head of each request and writes these bytes, then ends the connection. Returns its
/// address.
pub(super) fn raw(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut head, mut part) = (Vec::new(), [0; 4_096]);
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(read @ 1..) => head.extend_from_slice(&part[..read]),
                        Ok(0) | Err(_) => return,
                    }
                }
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    address
}
