//! The accept loop, and the tasks that serve, check and close connections.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pulse::{Order, Pulse};
use super::socket::{Socket, until_gone};

/// The pause after accepting failed for want of file descriptors: others may close meanwhile.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);
/// The interval at which a full listener checks whether a reload has raised `max_connections`.
const CAPACITY_CHECK: Duration = Duration::from_secs(1);
/// The bounds of the interval at which connections are checked, which follows from the timeouts.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(20);
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which connections are checked during a stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Concurrent requests of one HTTP/2 connection; the client has to queue more.
const MAX_STREAMS: u32 = 128;
/// Bytes of one HTTP/2 stream that may be buffered for sending.
const SEND_BUFFER: usize = 128 << 10;
/// The receive window of one HTTP/2 stream in bytes. It bounds what is buffered of a body that the agent reads slowly.
const RECEIVE_WINDOW: u32 = 256 << 10;

/// The bounds that a listener sets for its clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections open at once. More wait in the kernel's backlog.
    pub(crate) max_connections: u32,
    /// The largest request head, in bytes.
    pub(crate) max_head_bytes: u64,
    /// The time that a client has to send the head of a request.
    pub(crate) head_timeout: Duration,
    /// The time for which a client may accept no bytes of a response.
    pub(crate) stall_timeout: Duration,
}

/// A listener and its connections.
struct Server<M> {
    /// Returns the current bounds; a reload may change them at any time.
    bounds: Box<dyn Fn() -> Bounds + Send + Sync>,
    /// Creates the service of a connection.
    make: M,
    /// The start of time for the timestamps of all connections.
    origin: Instant,
    open: Mutex<Open>,
    /// Notified when a connection has ended.
    closed: Notify,
    /// Notified when all connections have to finish.
    stopping: Notify,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Arc<Pulse>>,
    next: u64,
    stopping: bool,
}

/// Serves connections until `stop`, each with a service of `make`, which has to register its requests as
/// [visited](super::visited()) does. Then finishes the requests under way, and returns when all connections have ended.
/// Dropping the future leaves them open.
pub(crate) async fn serve<M, S, B>(
    listener: TcpListener,
    bounds: impl Fn() -> Bounds + Send + Sync + 'static,
    make: M,
    stop: CancellationToken,
) where
    M: Fn(Arc<Pulse>) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let server = Arc::new(Server {
        bounds: Box::new(bounds),
        make,
        origin: Instant::now(),
        open: Mutex::default(),
        closed: Notify::new(),
        stopping: Notify::new(),
    });
    let stopped = async {
        stop.cancelled().await;
        server.stop();
        server.wait_until_empty().await;
    };
    tokio::select! {
        () = stopped => {}
        () = server.watch() => {}
        () = server.accept_until(listener, &stop) => {}
    }
}

impl<M, S, B> Server<M>
where
    M: Fn(Arc<Pulse>) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Accepts connections until `stop`, and closes the listener. Never returns: the caller waits for the connections.
    async fn accept_until(self: &Arc<Self>, listener: TcpListener, stop: &CancellationToken) {
        tokio::select! {
            // Biased: no connection is accepted once the stop is ordered.
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
            self.wait_for_capacity().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    short = false;
                    self.open(stream);
                }
                // The client has closed the connection before it was accepted.
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut short, true) {
                        tracing::warn!(%error, "no connection can be accepted; trying again as others end");
                    }
                    self.wait_for_close(OUT_OF_FILES_PAUSE).await;
                }
            }
        }
    }

    /// Waits until one more connection may be open.
    async fn wait_for_capacity(&self) {
        while self.open.lock().connections.len() >= (self.bounds)().max_connections as usize {
            self.wait_for_close(CAPACITY_CHECK).await;
        }
    }

    async fn wait_for_close(&self, longest: Duration) {
        // A timeout is the normal case.
        let _ = tokio::time::timeout(longest, self.closed.notified()).await;
    }

    async fn wait_until_empty(&self) {
        loop {
            // Created before the check, so that a connection that ends in between is not missed.
            let closed = self.closed.notified();
            if self.open.lock().connections.is_empty() {
                return;
            }
            closed.await;
        }
    }

    fn open(self: &Arc<Self>, stream: TcpStream) {
        // Responses are written as a whole, so that Nagle's algorithm would only delay them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let pulse = Pulse::new(self.origin);
        if stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()) {
            pulse.come_from_here();
        }
        // Registered under the lock that a stop takes, so that a connection is either refused or told to finish.
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
            guard.server.serve_connection(stream, pulse).await;
            drop(guard);
        });
    }

    /// Serves one connection until it ends.
    async fn serve_connection(&self, stream: TcpStream, pulse: Arc<Pulse>) {
        let builder = self.builder();
        let service = (self.make)(Arc::clone(&pulse));
        let stream = Arc::new(stream);
        let connection = builder.serve_connection(TokioIo::new(Socket::new(Arc::clone(&stream), &pulse)), service);
        let connection = std::pin::pin!(connection);
        let watched = Watched { connection, pulse: &pulse, finishing: false, stream, gone: None };
        if let Err(error) = watched.await {
            // Clients may disconnect at any time, which is no fault worth a warning.
            tracing::debug!(error, "a connection ended");
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let bounds = (self.bounds)();
        let head = usize::try_from(bounds.max_head_bytes).unwrap_or(usize::MAX);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // The buffer's size bounds the head. A client may close its sending side after its request.
        builder.http1().max_buf_size(head).half_close(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(RECEIVE_WINDOW)
            // More than one stream's window, so that one stalled stream does not block the others.
            .initial_connection_window_size(4 * RECEIVE_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(bounds.stall_timeout)
            .keep_alive_timeout(bounds.head_timeout);
        builder
    }

    /// Checks all connections at intervals. Never returns.
    async fn watch(&self) {
        let mut stopping = false;
        loop {
            let bounds = (self.bounds)();
            let shortest = bounds.head_timeout.min(bounds.stall_timeout);
            // An eighth of the shortest timeout bounds the delay by which a timeout is noticed.
            let pause = if stopping {
                STOP_CHECK_INTERVAL
            } else {
                (shortest / 8).clamp(MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL)
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stopping.notified() => stopping = true,
            }
            let now = Instant::now();
            for pulse in self.open.lock().connections.values() {
                pulse.look(&bounds, now);
            }
        }
    }

    /// Orders all connections to finish, and refuses new ones.
    fn stop(&self) {
        let mut open = self.open.lock();
        open.stopping = true;
        for pulse in open.connections.values() {
            pulse.tell(Order::Finish);
        }
        self.stopping.notify_one();
    }
}

/// Returns `true` if accepting failed because of the one connection.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// The entry of an open connection, removed on drop.
struct Guard<M> {
    server: Arc<Server<M>>,
    number: u64,
}

impl<M> Drop for Guard<M> {
    fn drop(&mut self) {
        self.server.open.lock().connections.remove(&self.number);
        // `notify_one` suffices: the accept loop and the stop never wait at the same time.
        self.server.closed.notify_one();
    }
}

/// The future of a connection, which obeys the orders of its pulse and ends when the client is gone.
struct Watched<'a, C> {
    connection: Pin<&'a mut C>,
    pulse: &'a Pulse,
    finishing: bool,
    stream: Arc<TcpStream>,
    /// Created when a request has to wait. Most are answered at the first poll and save the allocation.
    gone: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<C: GracefulConnection> Watched<'_, C>
where
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Starts the graceful shutdown. A request whose head is not complete is not waited for.
    fn finish(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let at_rest = self.pulse.is_at_rest();
        self.connection.as_mut().graceful_shutdown();
        let polled = self.connection.as_mut().poll(cx).map_err(Into::into);
        // An HTTP/2 client may have to open its window before the last bytes can be sent.
        if polled.is_pending() && at_rest && self.pulse.is_at_rest() && !self.pulse.is_multiplexed() {
            return Poll::Ready(Ok(()));
        }
        polled
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl<C: GracefulConnection> Future for Watched<'_, C>
where
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let order = self.pulse.order(cx);
        if order == Order::Cut {
            return Poll::Ready(Err("its client is too slow".into()));
        }
        // Polled before the shutdown, so that a request that has arrived by now is still answered.
        let mut polled = self.connection.as_mut().poll(cx).map_err(Into::into);
        if polled.is_pending() && order == Order::Finish && !std::mem::replace(&mut self.finishing, true) {
            polled = self.finish(cx);
        }
        // While a request is answered, hyper reads nothing in HTTP/1.1 and would find a reset only at its next write.
        if polled.is_pending() && self.pulse.is_visited() && !self.pulse.is_multiplexed() {
            let Self { gone, stream, .. } = &mut *self;
            let gone = gone.get_or_insert_with(|| Box::pin(until_gone(Arc::clone(stream))));
            if gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err("its client is gone".into()));
            }
        }
        polled
    }
}
