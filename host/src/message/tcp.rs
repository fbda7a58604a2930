//! The TCP connections that guests make: what the engine passes to the host, and what it gets back.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::http_call::{CallScope, OpenResponse};

/// A connection that a guest asks for.
pub(crate) struct GuestConnect {
    /// The address.
    pub(crate) address: SocketAddr,
    /// The names that the guest has looked up and that led to the address.
    pub(crate) names: Vec<String>,
    /// The connections of the same message.
    pub(crate) scope: Arc<CallScope>,
}

/// A name that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LookedUp {
    /// The name in normal form.
    pub(crate) name: String,
    /// The addresses of it that the agent may have.
    pub(crate) addresses: Vec<IpAddr>,
}

/// The reason why a connection or a look-up fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TcpError {
    /// A connection or a look-up that no grant covers.
    #[error("it is not allowed")]
    Denied,
    /// The name has no address.
    #[error("the name has no address: {0}")]
    Unresolvable(String),
    /// The server refuses connections.
    #[error("the connection was refused")]
    Refused,
    /// A connection that was not made in time.
    #[error("no connection was made in time")]
    Timeout,
    /// A server to which there is no way.
    #[error("no connection was made: {0}")]
    Unreachable(String),
    /// A bound on connections is reached.
    #[error("there are too many connections")]
    TooMany,
    /// The message ended, or its time did.
    #[error("the time of the message is over")]
    TimeOver,
}

impl TcpError {
    /// Returns the code of the standard (`wasi:sockets/network.error-code`), by which logs, events and metrics name it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Denied => "access-denied",
            Self::Unresolvable(_) => "name-unresolvable",
            Self::Refused => "connection-refused",
            Self::Timeout | Self::TimeOver => "timeout",
            Self::Unreachable(_) => "remote-unreachable",
            Self::TooMany => "new-socket-limit",
        }
    }

    /// Returns `true` if the host refused it, and `false` if it was tried and failed.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Denied | Self::TooMany)
    }
}

/// Gets the bytes that were sent and received when a connection ends.
pub(crate) type OnConnectionEnd = Box<dyn FnOnce(u64, u64) + Send>;

/// A connection of a guest. It ends when the guest has dropped it, or with its message.
pub(crate) struct TcpConnection {
    /// The socket while it is open.
    // Locked for a moment by each read and write, and never across a wait.
    open: Mutex<Option<OpenSocket>>,
    sent: AtomicU64,
    received: AtomicU64,
    /// The address of this end.
    pub(crate) local: SocketAddr,
    /// The address of the server.
    pub(crate) peer: SocketAddr,
}

struct OpenSocket {
    stream: Arc<TcpStream>,
    outbox: Outbox,
    on_end: OnConnectionEnd,
}

/// The bytes that the guest has written and the system has not taken yet.
#[derive(Default)]
struct Outbox {
    bytes: Bytes,
    /// Set once the guest has shut its end: what is left is sent, and nothing more.
    is_shut: bool,
}

/// The state of what a guest has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpWritten {
    /// The system has taken all of it.
    All,
    /// A part of it waits for the server to take more.
    Waits,
    /// The connection takes no more.
    Closed,
}

impl TcpConnection {
    /// Wraps a socket, which is closed with the message of `scope`.
    ///
    /// # Errors
    /// The socket was closed meanwhile.
    pub(crate) fn new(stream: TcpStream, scope: &CallScope, on_end: OnConnectionEnd) -> io::Result<Arc<Self>> {
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let open = OpenSocket { stream: Arc::new(stream), outbox: Outbox::default(), on_end };
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let connection = Arc::new(Self { open: Mutex::new(Some(open)), sent, received, local, peer });
        let weak = Arc::downgrade(&connection);
        scope.add(weak);
        Ok(connection)
    }

    /// Returns the socket, unless it was closed.
    pub(crate) fn stream(&self) -> Option<Arc<TcpStream>> {
        self.open.lock().as_ref().map(|open| Arc::clone(&open.stream))
    }

    /// Reads what is there, up to the size of a buffer. Returns `None` if the connection was closed.
    pub(crate) fn read(&self, into: &mut [u8]) -> Option<io::Result<usize>> {
        let read = self.stream()?.try_read(into);
        if let Ok(bytes) = &read {
            self.received.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        Some(read)
    }

    /// Writes bytes, or keeps what the system does not take at once. Called only after [`write_more`](Self::write_more)
    /// has returned [`TcpWritten::All`].
    pub(crate) fn write(&self, bytes: Bytes) -> io::Result<TcpWritten> {
        if let Some(open) = &mut *self.open.lock() {
            open.outbox.bytes = bytes;
        }
        self.write_more()
    }

    /// Writes of what is left as much as the system takes.
    pub(crate) fn write_more(&self) -> io::Result<TcpWritten> {
        let mut guard = self.open.lock();
        let Some(open) = guard.as_mut() else { return Ok(TcpWritten::Closed) };
        while !open.outbox.bytes.is_empty() {
            match open.stream.try_write(&open.outbox.bytes) {
                Ok(0) => return Ok(TcpWritten::Closed),
                Ok(taken) => {
                    open.outbox.bytes.advance(taken);
                    self.sent.fetch_add(taken as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(TcpWritten::Waits),
                Err(error) => {
                    open.outbox.bytes = Bytes::new();
                    return Err(error);
                }
            }
        }
        if open.outbox.is_shut {
            return Ok(TcpWritten::Closed);
        }
        Ok(TcpWritten::All)
    }

    /// Waits until all is written, or no more can be.
    pub(crate) async fn flushed(&self) {
        // An error is told by the next write.
        while let Ok(TcpWritten::Waits) = self.write_more() {
            let Some(stream) = self.stream() else { return };
            if stream.writable().await.is_err() {
                return;
            }
        }
        self.shut_if_asked();
    }

    /// Shuts one direction or both. What was written before is sent.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if matches!(how, Shutdown::Read | Shutdown::Both)
            && let Some(stream) = self.stream()
        {
            rustix::net::shutdown(&*stream, rustix::net::Shutdown::Read)?;
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            if let Some(open) = &mut *self.open.lock() {
                open.outbox.is_shut = true;
            }
            self.write_more()?;
            self.shut_if_asked();
        }
        Ok(())
    }

    /// Tells the server that no more comes, once all was sent and the guest has said so.
    fn shut_if_asked(&self) {
        let guard = self.open.lock();
        let is_done = |open: &&OpenSocket| open.outbox.is_shut && open.outbox.bytes.is_empty();
        if let Some(open) = guard.as_ref().filter(is_done) {
            // The server may have closed the connection before, which is as well.
            let _ = rustix::net::shutdown(&*open.stream, rustix::net::Shutdown::Write);
        }
    }
}

impl OpenResponse for TcpConnection {
    fn close(&self) {
        // The last bytes, as far as the system takes them at once.
        let _ = self.write_more();
        let open = self.open.lock().take();
        if let Some(open) = open {
            (open.on_end)(self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed));
        }
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn connected(scope: &CallScope, ended: &Arc<AtomicBool>) -> (Arc<TcpConnection>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let ended = Arc::clone(ended);
        let on_end = Box::new(move |_, _| ended.store(true, Ordering::SeqCst));
        (TcpConnection::new(stream, scope, on_end).unwrap(), server)
    }

    #[tokio::test]
    async fn connections_close_with_their_message_though_a_guest_holds_them() {
        let (scope, ended) = (CallScope::default(), Arc::<AtomicBool>::default());
        let (connection, mut server) = connected(&scope, &ended).await;
        assert_eq!(connection.write(Bytes::from_static(b"last")).unwrap(), TcpWritten::All);
        scope.end();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), ended.load(Ordering::SeqCst)), ("last", true));
        assert!(connection.read(&mut [0; 8]).is_none());
        assert_eq!(connection.write(Bytes::from_static(b"more")).unwrap(), TcpWritten::Closed);
    }

    #[tokio::test]
    async fn what_a_server_does_not_take_waits_and_is_sent_before_the_end() {
        let (scope, ended) = (CallScope::default(), Arc::<AtomicBool>::default());
        let (connection, mut server) = connected(&scope, &ended).await;
        let part = Bytes::from(vec![7; 64 << 10]);
        let mut parts = 0;
        while connection.write(part.clone()).unwrap() == TcpWritten::All {
            parts += 1;
            connection.stream().unwrap().writable().await.unwrap();
        }
        assert_eq!(connection.write_more().unwrap(), TcpWritten::Waits);
        connection.shutdown(Shutdown::Write).unwrap();
        let reading = tokio::spawn(async move {
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).await.unwrap();
            server.write_all(b"taken").await.unwrap();
            bytes.len()
        });
        connection.flushed().await;
        assert_eq!(reading.await.unwrap(), (parts + 1) * part.len());
        let mut answer = [0; 8];
        connection.stream().unwrap().readable().await.unwrap();
        assert_eq!(connection.read(&mut answer).unwrap().unwrap(), 5);
        drop(connection);
        assert!(ended.load(Ordering::SeqCst));
    }
}
