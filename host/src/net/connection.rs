//! A connection: HTTP/1.1 or HTTP/2 on a socket, until it ends or is shut down.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::activity::{ConnectionActivity, Shutdown};
use super::limits::ConnectionLimits;
use super::socket::{Socket, wait_for_reset};
use super::tls;

/// The most concurrent requests of one HTTP/2 connection; the client has to queue more.
// Not below the 100 that RFC 9113 recommends as the least (section 6.5.2).
const MAX_STREAMS: u32 = 128;
/// The bytes of one HTTP/2 stream that may be buffered for sending. With [`MAX_STREAMS`] this is 8 MiB a connection.
const SEND_BUFFER: usize = 64 << 10;
/// The receive window of one HTTP/2 stream in bytes. It bounds what is buffered of a body that the agent reads slowly.
const RECEIVE_WINDOW: u32 = 256 << 10;
/// The receive window of an HTTP/2 connection in bytes, over all of its streams. More than one stream's window, so that
/// one stalled stream does not block the others.
const CONNECTION_WINDOW: u32 = 4 * RECEIVE_WINDOW;
/// Streams that a client has reset and that no request was made of yet. More of them end the connection (rapid reset,
/// CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that the host has reset for a client's errors. More of them end the connection.
const MAX_ERROR_RESETS: usize = 128;

/// Serves one connection until it ends, with TLS if there is a configuration for it.
pub(super) async fn serve_connection<S, B>(
    stream: TcpStream,
    activity: &Arc<ConnectionActivity>,
    service: S,
    limits: &ConnectionLimits,
    tls: Option<Arc<ServerConfig>>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let builder = builder(limits);
    // Shared, because a reset is awaited while hyper owns the socket.
    let stream = Arc::new(stream);
    let socket = Socket::new(Arc::clone(&stream), activity);
    let ended = match tls {
        None => serve_on(socket, &builder, stream, activity, service).await,
        // Boxed: the state of a handshake would make the future of every connection as large.
        Some(config) => Box::pin(serve_tls(config, socket, builder, stream, activity, service)).await,
    };
    if let Err(error) = ended {
        // Clients may disconnect at any time, which is no fault worth a warning.
        tracing::debug!(error, "a connection ended");
    }
}

/// Performs the handshake, and serves the protocol that it has chosen.
async fn serve_tls<S, B>(
    config: Arc<ServerConfig>,
    socket: Socket,
    builder: auto::Builder<TokioExecutor>,
    stream: Arc<TcpStream>,
    activity: &Arc<ConnectionActivity>,
    service: S,
) -> ConnectionEnd
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let encrypted = tls::accept(config, socket, &stream, activity).await?;
    let builder = match encrypted.get_ref().1.alpn_protocol() {
        Some(b"h2") => builder.http2_only(),
        Some(_) => builder.http1_only(),
        // A client without ALPN may still speak either.
        None => builder,
    };
    serve_on(encrypted, &builder, stream, activity, service).await
}

/// Serves HTTP on a stream of bytes until it ends. `stream` is the socket beneath it.
async fn serve_on<I, S, B>(
    io: I,
    builder: &auto::Builder<TokioExecutor>,
    stream: Arc<TcpStream>,
    activity: &Arc<ConnectionActivity>,
    service: S,
) -> ConnectionEnd
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let inner = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    Connection { inner, activity, is_finishing: false, stream, reset: None }.await
}

fn builder(limits: &ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let head = usize::try_from(limits.max_head_bytes).unwrap_or(usize::MAX);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The buffer's size bounds the head. A client may close its sending side after its request.
    builder.http1().max_buf_size(head).half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        // A client that vanished without closing would otherwise keep its streams.
        .keep_alive_interval(limits.stall_timeout)
        .keep_alive_timeout(limits.head_timeout);
    builder
}

/// The future of a connection, which obeys the shutdown that its activity is asked for and ends when the client is
/// gone.
struct Connection<'a, C> {
    /// The connection as hyper serves it.
    inner: Pin<&'a mut C>,
    activity: &'a ConnectionActivity,
    is_finishing: bool,
    stream: Arc<TcpStream>,
    /// The wait for a reset. Created when a request has to wait: most are answered at the first poll and save the
    /// allocation.
    reset: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<C: GracefulConnection> Connection<'_, C>
where
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Starts the graceful shutdown. A request whose head is not complete is not waited for.
    fn finish(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        let was_idle = self.activity.is_idle();
        self.inner.as_mut().graceful_shutdown();
        let polled = self.inner.as_mut().poll(cx).map_err(Into::into);
        // An HTTP/2 client may have to open its window before the last bytes can be sent.
        if polled.is_pending() && was_idle && self.activity.is_idle() && !self.activity.is_multiplexed() {
            return Poll::Ready(Ok(()));
        }
        polled
    }
}

type ConnectionEnd = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl<C: GracefulConnection> Future for Connection<'_, C>
where
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = ConnectionEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        let shutdown = self.activity.requested_shutdown(cx);
        if shutdown == Shutdown::Immediate {
            return Poll::Ready(Err("its client is too slow".into()));
        }
        // Polled before the shutdown, so that a request that has arrived by now is still answered.
        let mut polled = self.inner.as_mut().poll(cx).map_err(Into::into);
        if polled.is_pending() && shutdown == Shutdown::Graceful && !std::mem::replace(&mut self.is_finishing, true) {
            polled = self.finish(cx);
        }
        // While a request is answered, hyper reads nothing in HTTP/1.1 and would find a reset only at its next write.
        if polled.is_pending() && self.activity.has_requests() && !self.activity.is_multiplexed() {
            let Self { reset, stream, .. } = &mut *self;
            let reset = reset.get_or_insert_with(|| Box::pin(wait_for_reset(Arc::clone(stream))));
            if reset.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err("its client is gone".into()));
            }
        }
        polled
    }
}
