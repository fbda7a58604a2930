//! The connector of the client: from a URL to a connection that speaks HTTP, over TLS if the scheme says so.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use caxton_control::outgoing::OutgoingSpec;
use caxton_control::outgoing::ProxySpec;
use caxton_control::reach::Reach;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

use super::dial::{dial, literal};
use super::failure;
use super::proxy::authorization;
use crate::message::HttpCallError;
use crate::secrets::Secrets;

/// A connector that checks addresses, speaks TLS and has a time limit.
#[derive(Clone)]
pub(super) struct CheckedConnector {
    inner: HttpsConnector<AddressConnector>,
    timeout: Duration,
}

impl CheckedConnector {
    /// Creates a connector to addresses of `reach`, over `proxy` if there is one.
    pub(super) fn new(
        tls: ClientConfig,
        spec: &OutgoingSpec,
        reach: Reach,
        proxy: Option<(ProxySpec, Arc<Secrets>)>,
    ) -> Self {
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            // HTTP/2 where the server offers it in ALPN, else HTTP/1.1.
            .enable_all_versions()
            .wrap_connector(AddressConnector { reach, proxy });
        Self { inner, timeout: spec.connect_timeout }
    }
}

impl Service<Uri> for CheckedConnector {
    type Response = MaybeHttpsStream<CallStream>;
    type Error = HttpCallError;
    type Future = BoxFuture<'static, Result<Self::Response, HttpCallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HttpCallError>> {
        // The inner connector is always ready: what a call waits for is in its future.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, timeout) = (self.inner.call(uri), self.timeout);
        Box::pin(async move {
            // Here as well as in the call, because a connection that no call waits for any more is still made, for the
            // next one.
            match tokio::time::timeout(timeout, connecting).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(failure::of_call(&*error)),
                Err(_) => Err(HttpCallError::ConnectionTimeout),
            }
        })
    }
}

/// A connector to the addresses that a place may have.
#[derive(Debug, Clone)]
struct AddressConnector {
    reach: Reach,
    proxy: Option<(ProxySpec, Arc<Secrets>)>,
}

impl Service<Uri> for AddressConnector {
    type Response = CallStream;
    type Error = HttpCallError;
    type Future = BoxFuture<'static, Result<CallStream, HttpCallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HttpCallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { reach, proxy } = self.clone();
        Box::pin(async move {
            let host = uri.host().ok_or(HttpCallError::UriInvalid)?;
            let is_https = uri.scheme() == Some(&Scheme::HTTPS);
            let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
            let Some((proxy, secrets)) = proxy else {
                return Ok(CallStream::new(dial(host, port, reach).await?, false));
            };
            // Of a name only the proxy knows the addresses.
            if literal(host).is_some_and(|address| !reach.admits(address)) {
                return Err(HttpCallError::AddressProhibited);
            }
            if !is_https {
                return ProxyConnector(proxy, true).connect().await;
            }
            let at = Uri::try_from(proxy.origin()).map_err(|_| HttpCallError::UriInvalid)?;
            // With the port, which the tunnel takes from the URI.
            let target = Uri::try_from(format!("https://{host}:{port}/")).map_err(|_| HttpCallError::UriInvalid)?;
            let credentials = authorization(&proxy, &secrets)?;
            let mut tunnel = Tunnel::new(at, ProxyConnector(proxy, false));
            if let Some(value) = credentials {
                tunnel = tunnel.with_auth(value);
            }
            let tunnel = tunnel.call(target).await;
            tunnel.map_err(|error| match failure::of_call(&error) {
                // What the proxy answered, such as that it needs credentials.
                HttpCallError::Protocol(why) => HttpCallError::Unreachable(format!("the proxy: {why}")),
                other => other,
            })
        })
    }
}

/// A connector to a proxy. The flag says that requests are sent to it in absolute form.
#[derive(Debug, Clone)]
struct ProxyConnector(ProxySpec, bool);

impl ProxyConnector {
    async fn connect(self) -> Result<CallStream, HttpCallError> {
        let Self(proxy, is_proxied) = self;
        // Any address: the operator chose it, and not the agent.
        let stream = dial(&proxy.host().to_string(), proxy.port(), Reach::Any).await?;
        Ok(CallStream::new(stream, is_proxied))
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = CallStream;
    type Error = HttpCallError;
    type Future = BoxFuture<'static, Result<CallStream, HttpCallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HttpCallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// A connection before TLS.
pub(super) struct CallStream {
    io: TokioIo<TcpStream>,
    /// Set if requests are sent in absolute form, to a proxy.
    is_proxied: bool,
    breaker: ConnectionBreaker,
}

/// The means to break a connection whose request the server does not take: nothing else ends a write that waits.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionBreaker(Arc<Break>);

#[derive(Debug, Default)]
struct Break {
    is_broken: AtomicBool,
    /// The task of the connection, while it waits for the server to take more.
    writer: AtomicWaker,
}

impl ConnectionBreaker {
    /// Has the next write fail, and the one that waits.
    pub(super) fn break_off(&self) {
        self.0.is_broken.store(true, Ordering::Release);
        self.0.writer.wake();
    }

    /// Passes the result of a write on, unless the connection was broken.
    fn check<T>(&self, cx: &Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            // Before the flag is read: one that is set in between wakes the task.
            self.0.writer.register(cx.waker());
            if self.0.is_broken.load(Ordering::Acquire) {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
        }
        polled
    }
}

impl CallStream {
    fn new(stream: TcpStream, is_proxied: bool) -> Self {
        Self { io: TokioIo::new(stream), is_proxied, breaker: ConnectionBreaker::default() }
    }
}

impl Connection for CallStream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxied).extra(self.breaker.clone())
    }
}

impl Read for CallStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl Write for CallStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, from);
        self.breaker.check(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.breaker.check(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, from);
        self.breaker.check(cx, written)
    }
}
