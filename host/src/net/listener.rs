//! The accept loop of a listener, and the task that checks all of its connections.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::activity::{ConnectionActivity, Shutdown};
use super::bind::BoundListener;
use super::connection::serve_connection;
use super::limits::ConnectionLimits;
use super::tls::ListenerTls;

/// The interval at which a listener without room checks for some: connections become idle, files are closed elsewhere,
/// and a reload may raise `max_connections`. The end of a connection is noticed at once.
const ROOM_CHECK: Duration = Duration::from_millis(100);
/// Connections that never had a request, of which one is closed at a time. With one in this many, a flood of them does
/// not make the listener look through all connections for each new one.
const SILENT_SHARE: usize = 16;
/// The milliseconds without a request after which a connection may be closed for another: the request of one that was just
/// opened or used may be on its way.
const MIN_IDLE_MS: u64 = 500;
/// The interval between two warnings of the same shortage.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// The bounds of the interval at which connections are checked, which follows from the timeouts.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(20);
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which connections are checked during a stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A listener and its connections.
struct Listener<M> {
    /// Returns the current limits; a reload may change them at any time.
    limits: Box<dyn Fn() -> ConnectionLimits + Send + Sync>,
    /// Creates the service of a connection.
    make_service: M,
    /// TLS; `None` for plain HTTP.
    tls: Option<Arc<ListenerTls>>,
    /// The start of time for the timestamps of all connections.
    origin: Instant,
    // Locked for single insertions, removals and checks, never across a wait.
    connections: Mutex<Connections>,
    /// Signals that a connection has ended.
    closed: Notify,
    /// Signals that all connections have to finish.
    stopping: Notify,
}

#[derive(Default)]
struct Connections {
    open: HashMap<u64, Arc<ConnectionActivity>>,
    /// The number of the newest connection.
    last: u64,
    /// Set when no more are taken in.
    stopping: bool,
}

/// Serves connections until `stop`, each with a service of `make_service`, which has to register its requests as
/// [`track_requests`](super::track_requests()) does. Then finishes the requests under way, and returns when all
/// connections have ended. Dropping the future leaves them open.
pub(crate) async fn serve<M, S, B>(
    BoundListener { socket, tls }: BoundListener,
    limits: impl Fn() -> ConnectionLimits + Send + Sync + 'static,
    make_service: M,
    stop: CancellationToken,
) where
    M: Fn(Arc<ConnectionActivity>) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = Arc::new(Listener {
        limits: Box::new(limits),
        make_service,
        tls,
        origin: Instant::now(),
        connections: Mutex::default(),
        closed: Notify::new(),
        stopping: Notify::new(),
    });
    let stopped = async {
        stop.cancelled().await;
        listener.stop();
        listener.wait_until_empty().await;
    };
    tokio::select! {
        () = stopped => {}
        () = listener.check_timeouts() => {}
        () = listener.accept_until(socket, &stop) => {}
    }
}

impl<M, S, B> Listener<M>
where
    M: Fn(Arc<ConnectionActivity>) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Accepts connections until `stop`, and closes the listener. Never returns: the caller waits for the connections.
    async fn accept_until(self: &Arc<Self>, socket: TcpListener, stop: &CancellationToken) {
        tokio::select! {
            // Biased: no connection is accepted once the stop is ordered.
            biased;
            () = stop.cancelled() => {}
            () = self.accept(&socket) => {}
        }
        // Closed at once: clients are then refused instead of waiting in the backlog.
        drop(socket);
        std::future::pending::<()>().await;
    }

    async fn accept(self: &Arc<Self>, socket: &TcpListener) {
        let mut shortage = Shortage::default();
        loop {
            match socket.accept().await {
                Ok((stream, _)) => {
                    // After it was accepted: without a client that waits, idle connections may stay.
                    self.wait_for_room(&stream, &mut shortage).await;
                    self.serve(stream);
                }
                // The client has closed the connection before it was accepted.
                Err(error) if is_client_error(&error) => {}
                Err(error) => {
                    shortage.warn(&format!("no connection can be accepted ({error}); trying again as others end"));
                    self.close_idle();
                    self.wait_for_close(ROOM_CHECK).await;
                }
            }
        }
    }

    /// Waits until there is room for a connection that was accepted. Idle ones are closed meanwhile.
    async fn wait_for_room(&self, accepted: &TcpStream, shortage: &mut Shortage) {
        loop {
            let (limits, open) = ((self.limits)(), self.connections.lock().open.len());
            // Its own number stays, so that the next one tells whether others have ended.
            let is_tight = limits.reserve.keeps(accepted) && limits.reserve.is_reached(accepted);
            // One connection is always served: the files may be those of other parts of the host.
            if open == 0 || (open < limits.max_connections as usize && !is_tight) {
                return;
            }
            let closing = self.close_idle();
            shortage.warn(&if is_tight {
                format!("{open} connections are open, and the other files are kept back for the host (`ulimit -n`); {closing} idle ones are closed for new ones")
            } else {
                format!("{open} connections are open, which is all that may be; {closing} idle ones are closed for new ones")
            });
            self.wait_for_close(ROOM_CHECK).await;
        }
    }

    /// Closes connections that have waited for longest without a request. Returns their number.
    fn close_idle(&self) -> usize {
        let (connections, now) = (self.connections.lock(), Instant::now());
        let open = connections.open.iter();
        let idle = open.filter_map(|(number, activity)| {
            let (had_request, waited) = activity.idle_for(now)?;
            Some((had_request, Reverse(waited), number, activity))
        });
        let mut idle: Vec<_> = idle.collect();
        // By number among those of one moment, so that the newest is closed last.
        idle.sort_unstable_by_key(|(had_request, waited, number, _)| (*had_request, *waited, **number));
        let silent = idle.iter().take_while(|(had_request, ..)| !had_request).count();
        // While there are silent ones, those that were used stay: a flood must not take the places of clients.
        let (from, most) = if silent > 0 { (&idle[..silent], silent.div_ceil(SILENT_SHARE)) } else { (&idle[..], 1) };
        let old = from.iter().take(most).take_while(|(_, Reverse(waited), ..)| *waited >= MIN_IDLE_MS);
        old.inspect(|(.., activity)| activity.make_way()).count()
    }

    async fn wait_for_close(&self, longest: Duration) {
        // A timeout is the normal case.
        let _ = tokio::time::timeout(longest, self.closed.notified()).await;
    }

    async fn wait_until_empty(&self) {
        loop {
            // Created before the check, so that a connection that ends in between is not missed.
            let closed = self.closed.notified();
            if self.connections.lock().open.is_empty() {
                return;
            }
            closed.await;
        }
    }

    /// Starts the task of a connection.
    fn serve(self: &Arc<Self>, stream: TcpStream) {
        // Responses are written as a whole, so that Nagle's algorithm would only delay them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let activity = ConnectionActivity::new(self.origin, stream.peer_addr().ok().map(|peer| peer.ip()));
        // Registered under the lock that a stop takes, so that a connection is either refused or told to finish.
        let number = {
            let mut connections = self.connections.lock();
            if connections.stopping {
                return;
            }
            connections.last += 1;
            let number = connections.last;
            connections.open.insert(number, Arc::clone(&activity));
            number
        };
        let entry = ConnectionEntry { listener: Arc::clone(self), number };
        tokio::spawn(async move {
            let service = (entry.listener.make_service)(Arc::clone(&activity));
            let tls = entry.listener.tls.as_ref().map(|tls| Arc::clone(&tls.current().config));
            serve_connection(stream, &activity, service, &(entry.listener.limits)(), tls).await;
            // Owned by the task, so that the entry is removed even if the connection panics.
            drop(entry);
        });
    }

    /// Checks all connections at intervals. Never returns.
    async fn check_timeouts(&self) {
        let mut stopping = false;
        loop {
            let limits = (self.limits)();
            let shortest = limits.head_timeout.min(limits.stall_timeout);
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
            // Held for comparisons of atomics only, so that the accept loop is not delayed.
            for activity in self.connections.lock().open.values() {
                activity.check_timeouts(&limits, now);
            }
        }
    }

    /// Asks all connections to finish, and refuses new ones.
    fn stop(&self) {
        let mut connections = self.connections.lock();
        connections.stopping = true;
        for activity in connections.open.values() {
            activity.request_shutdown(Shutdown::Graceful);
        }
        // Kept for a check that is not waiting at the moment.
        self.stopping.notify_one();
    }
}

/// The time of the last warning of a listener without room.
#[derive(Debug, Default)]
struct Shortage(Option<Instant>);

impl Shortage {
    /// Logs a warning, unless one was logged a moment ago: a flood of connections must not be one of lines.
    fn warn(&mut self, text: &str) {
        if self.0.is_none_or(|last| last.elapsed() >= WARN_INTERVAL) {
            self.0 = Some(Instant::now());
            tracing::warn!("{text}");
        }
    }
}

/// Returns `true` if accepting failed because of the one connection.
fn is_client_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// The entry of an open connection, removed on drop.
struct ConnectionEntry<M> {
    listener: Arc<Listener<M>>,
    number: u64,
}

impl<M> Drop for ConnectionEntry<M> {
    fn drop(&mut self) {
        self.listener.connections.lock().open.remove(&self.number);
        // `notify_one` suffices: the accept loop and the stop never wait at the same time.
        self.listener.closed.notify_one();
    }
}
