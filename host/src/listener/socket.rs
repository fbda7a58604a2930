//! A client's socket, which notes in its connection's pulse when bytes come and whether they are taken.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pulse::Pulse;

/// The most that is read at once: the memory that is read into is cleared first.
const PIECE: usize = 64 << 10;

/// A client's socket. Shared with whoever waits for the client to leave.
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    pulse: Arc<Pulse>,
}

impl Socket {
    /// A socket whose pulse is `pulse`.
    pub(super) fn new(stream: Arc<TcpStream>, pulse: &Arc<Pulse>) -> Self {
        Self { stream, pulse: Arc::clone(pulse) }
    }

    /// Writes as soon as the socket takes bytes.
    fn write<T>(&self, cx: &mut Context<'_>, write: impl Fn(&TcpStream) -> io::Result<T>) -> Poll<io::Result<T>> {
        loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                self.pulse.blocked();
                return Poll::Pending;
            }
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.pulse.sent();
                    return Poll::Ready(written);
                }
            }
        }
    }
}

/// Waits until the client has reset the connection or the system has given it up. An end of input is neither: it is
/// no error of the socket.
pub(super) async fn until_gone(stream: Arc<TcpStream>) {
    // A socket that cannot be waited for is of a runtime that ends.
    let _ = stream.ready(Interest::ERROR).await;
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let piece = buffer.remaining().min(PIECE);
            match read(&self.stream, buffer.initialize_unfilled_to(piece)) {
                Ok(count) => {
                    buffer.advance(count);
                    self.pulse.received();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Reads what there is. Fewer bytes than there is room for are all there are, so that the next read waits for more
/// before it asks the system.
fn read(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let mut some = None;
    let all = stream.try_io(Interest::READABLE, || {
        let count = rustix::io::read(stream, &mut *into)?;
        if count == 0 || count == into.len() {
            return Ok(count);
        }
        some = Some(count);
        Err(io::ErrorKind::WouldBlock.into())
    });
    some.map_or(all, Ok)
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has nothing of its own to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match rustix::net::shutdown(&*self.stream, Shutdown::Write) {
            // The client was faster.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write_vectored(buffers))
    }
}
