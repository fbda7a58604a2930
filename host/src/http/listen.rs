//! Accepting connections, and ending them.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use caxton_control::desired::Http;
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pulse::{Order, Pulse};
use super::socket::Socket;
use super::stack;
use crate::agent::{Agent, HttpMetrics};
use crate::commons::Commons;

/// After the system had no more file handles: until then some connection may have ended.
const PAUSE: Duration = Duration::from_millis(100);
/// While all connections are taken: how often to look whether the bound was raised.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often slow clients are looked for: no more and no less often than this, whatever the timeouts.
const MIN_WATCH: Duration = Duration::from_millis(20);
const MAX_WATCH: Duration = Duration::from_secs(1);
/// Requests of one HTTP/2 connection at once; a client that wants more waits.
const MAX_STREAMS: u32 = 128;
/// Bytes of one stream of HTTP/2 that may wait to be sent.
const BUFFER: usize = 128 << 10;
/// Bytes that one stream of HTTP/2 may have on their way to the agent: what is taken no faster than this
/// must not fill the memory.
const WINDOW: u32 = 256 << 10;

/// The listener and its connections.
pub(super) struct Server {
    pub(super) commons: Arc<Commons>,
    /// What the listener bears; may change at any time.
    pub(super) settings: Arc<ArcSwap<Http>>,
    /// The listener's own, for requests that name no host.
    pub(super) address: String,
    /// Where the times of all pulses begin.
    origin: Instant,
    /// The metrics of requests that come to no agent.
    nobody: HttpMetrics,
    open: Mutex<Open>,
    /// A connection has ended.
    left: Notify,
}

/// One connection, as its requests see it.
pub(super) struct Line {
    pub(super) server: Arc<Server>,
    pub(super) pulse: Arc<Pulse>,
    /// Whether its client is on this machine.
    pub(super) local: bool,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Arc<Pulse>>,
    next: u64,
    stopping: bool,
}

/// Serves calls until `stop`, then finishes those that are under way, and returns when all connections have
/// ended. Dropping the future cuts none of them.
pub(crate) async fn serve(
    listener: TcpListener,
    settings: Arc<ArcSwap<Http>>,
    commons: Arc<Commons>,
    stop: CancellationToken,
) {
    let address = listener.local_addr().map_or_else(|_| "localhost".to_owned(), |address| address.to_string());
    let server = Arc::new(Server {
        commons,
        settings,
        address,
        origin: Instant::now(),
        nobody: HttpMetrics::of("none"),
        open: Mutex::default(),
        left: Notify::new(),
    });
    let stopped = async {
        stop.cancelled().await;
        server.stop();
        server.until_empty().await;
    };
    tokio::select! {
        () = stopped => {}
        () = server.watch() => {}
        () = server.accept_until(listener, &stop) => {}
    }
}

impl Server {
    /// Accepts connections until `stop`; never returns, so that those it has accepted can end.
    async fn accept_until(self: &Arc<Self>, listener: TcpListener, stop: &CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.accept(&listener) => {}
        }
        drop(listener);
        std::future::pending::<()>().await;
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut short = false;
        loop {
            self.until_free().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    short = false;
                    self.open(stream);
                }
                // The client was gone before it was accepted.
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut short, true) {
                        tracing::warn!(%error, "no connection can be accepted; trying again as others end");
                    }
                    self.until_left(PAUSE).await;
                }
            }
        }
    }

    /// Waits until one more connection may be open.
    async fn until_free(&self) {
        while self.open.lock().connections.len() >= self.settings.load().max_connections as usize {
            self.until_left(LOOK_AGAIN).await;
        }
    }

    async fn until_left(&self, longest: Duration) {
        // That the time is over is no error.
        let _ = tokio::time::timeout(longest, self.left.notified()).await;
    }

    async fn until_empty(&self) {
        loop {
            let left = self.left.notified();
            if self.open.lock().connections.is_empty() {
                return;
            }
            left.await;
        }
    }

    fn open(self: &Arc<Self>, stream: TcpStream) {
        // Answers are written in one piece; waiting for more would only delay them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let pulse = Pulse::new(self.origin);
        let number = {
            let mut open = self.open.lock();
            if open.stopping {
                return;
            }
            open.next += 1;
            let number = open.next;
            open.connections.insert(number, Arc::clone(&pulse));
            number
        };
        let guard = Guard { server: Arc::clone(self), number };
        tokio::spawn(async move {
            guard.server.converse(stream, pulse).await;
            drop(guard);
        });
    }

    /// Serves one connection to its end.
    async fn converse(self: &Arc<Self>, stream: TcpStream, pulse: Arc<Pulse>) {
        let builder = self.builder();
        let local = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        let service = stack::stack(&Arc::new(Line { server: Arc::clone(self), pulse: Arc::clone(&pulse), local }));
        let connection = builder.serve_connection(Socket::new(stream, &pulse), service);
        let watched = Watched { connection: std::pin::pin!(connection), pulse: &pulse, finishing: false };
        if let Err(error) = watched.await {
            // Clients leave as they like; that is not worth more.
            tracing::debug!(error, "a connection ended");
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let settings = self.settings.load();
        let head = usize::try_from(settings.max_head_bytes).unwrap_or(usize::MAX);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // The largest head is what fits into the buffer.
        builder.http1().max_buf_size(head);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(settings.stall_timeout)
            .keep_alive_timeout(settings.head_timeout);
        builder
    }

    /// Looks at all connections now and then; never returns.
    async fn watch(&self) {
        loop {
            let settings = self.settings.load_full();
            let shortest = settings.head_timeout.min(settings.stall_timeout);
            tokio::time::sleep((shortest / 8).clamp(MIN_WATCH, MAX_WATCH)).await;
            let now = Instant::now();
            for pulse in self.open.lock().connections.values() {
                pulse.look(&settings, now);
            }
        }
    }

    /// Lets all connections finish what they have.
    fn stop(&self) {
        let mut open = self.open.lock();
        open.stopping = true;
        for pulse in open.connections.values() {
            pulse.tell(Order::Finish);
        }
    }
}

impl Server {
    /// Counts a request that was answered.
    pub(super) fn answered(&self, agent: Option<&Agent>, status: StatusCode, took: Duration) {
        let metrics = agent.map_or(&self.nobody, |agent| agent.stats().http(agent.name().as_str()));
        metrics.count(status.as_u16(), took);
    }
}

/// Whether accepting failed because of the connection itself.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Counts a connection as open until it is dropped.
struct Guard {
    server: Arc<Server>,
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.server.open.lock().connections.remove(&self.number);
        // One waits for all and one for any, never both.
        self.server.left.notify_one();
    }
}

/// A connection that does what its pulse is told.
struct Watched<'a, C> {
    connection: Pin<&'a mut C>,
    pulse: &'a Pulse,
    finishing: bool,
}

impl<C: GracefulConnection> Future for Watched<'_, C>
where
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = Result<(), Box<dyn std::error::Error + Send + Sync>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.pulse.order(cx) {
            Order::GoOn => {}
            Order::Finish => {
                if !std::mem::replace(&mut self.finishing, true) {
                    self.connection.as_mut().graceful_shutdown();
                }
            }
            Order::Cut => return Poll::Ready(Err("its client is too slow".into())),
        }
        self.connection.as_mut().poll(cx).map_err(Into::into)
    }
}
