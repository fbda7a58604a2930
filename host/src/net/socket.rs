//! The socket of a client, which reports reads and writes to the connection's [`Pulse`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pulse::Pulse;

/// The largest read. The buffer is zeroed before each read, which would be costly for a large one.
const PIECE: usize = 64 << 10;

/// A client's socket. The stream is shared with [`until_gone`].
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    pulse: Arc<Pulse>,
}

impl Socket {
    /// Wraps a stream so that it reports to `pulse`.
    pub(super) fn new(stream: Arc<TcpStream>, pulse: &Arc<Pulse>) -> Self {
        Self { stream, pulse: Arc::clone(pulse) }
    }

    /// Writes when the socket is ready, and notes if it is not.
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

/// Waits until the client has reset the connection or the kernel has given it up. An end of input does not end the
/// wait, as it is no error of the socket.
pub(super) async fn until_gone(stream: Arc<TcpStream>) {
    // Waiting fails only when the runtime ends.
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

/// Reads into the buffer. A short read has emptied the socket, so that the readiness is cleared with `WouldBlock`: the
/// next read waits for an event instead of making a system call in vain.
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
        // A TCP socket buffers nothing in this process.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match rustix::net::shutdown(&*self.stream, Shutdown::Write) {
            // The client has closed the connection already.
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
