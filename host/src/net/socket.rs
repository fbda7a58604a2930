//! The socket of a client, which reports reads and writes to the connection's [`ConnectionActivity`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::activity::ConnectionActivity;

/// The largest read in bytes. The buffer is zeroed before each read, which would be costly for a large one.
const MAX_READ: usize = 64 << 10;

/// A client's socket. The stream is shared with [`wait_for_reset`].
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    activity: Arc<ConnectionActivity>,
}

impl Socket {
    /// Wraps a stream so that it reports to `activity`.
    pub(super) fn new(stream: Arc<TcpStream>, activity: &Arc<ConnectionActivity>) -> Self {
        Self { stream, activity: Arc::clone(activity) }
    }

    /// Writes when the socket is ready, and notes if it is not.
    fn write<T>(&self, cx: &mut Context<'_>, write: impl Fn(&TcpStream) -> io::Result<T>) -> Poll<io::Result<T>> {
        loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                self.activity.blocked();
                return Poll::Pending;
            }
            match write(&self.stream) {
                // The readiness was stale. It is cleared by now, so that the next turn waits.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.activity.sent();
                    return Poll::Ready(written);
                }
            }
        }
    }
}

/// Waits until the client has reset the connection or the kernel has given it up. An end of input does not end the
/// wait, as it is no error of the socket.
pub(super) async fn wait_for_reset(stream: Arc<TcpStream>) {
    // Waiting fails only when the runtime ends.
    let _ = stream.ready(Interest::ERROR).await;
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let length = buffer.remaining().min(MAX_READ);
            match read(&self.stream, buffer.initialize_unfilled_to(length)) {
                Ok(count) => {
                    buffer.advance(count);
                    self.activity.received();
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
        // hyper then sends head and body of a response in one system call.
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
