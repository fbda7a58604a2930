//! The handshake of a connection.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::activity::{ConnectionActivity, Shutdown};
use crate::net::socket::Socket;

/// The first byte of every handshake: the type of its record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// The answer to HTTP without TLS.
const PLAIN_ANSWER: &str = "HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 35\r\n\
    connection: close\r\n\r\n\
    this port speaks TLS; use https://\n";
/// The bytes of a request without TLS that are read and dropped, so that its client reads the answer before it learns
/// that nobody reads on.
const MAX_PLAIN: u64 = 64 << 10;

/// Performs the handshake. The checks of `activity` bound its time, as that of the first head.
///
/// # Errors
/// The client speaks no TLS or shows no valid certificate, does not trust the listener's, is too slow, or is gone.
pub(in crate::net) async fn accept(
    config: Arc<ServerConfig>,
    socket: Socket,
    stream: &TcpStream,
    activity: &ConnectionActivity,
) -> io::Result<TlsStream<Socket>> {
    let mut handshake = pin!(handshake(config, socket, stream));
    poll_fn(|cx| match activity.requested_shutdown(cx) {
        Shutdown::None => handshake.as_mut().poll(cx),
        // No request has arrived, so that nothing is lost when the listener stops.
        Shutdown::Graceful | Shutdown::Immediate => {
            Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake was not complete in time")))
        }
    })
    .await
}

async fn handshake(config: Arc<ServerConfig>, socket: Socket, stream: &TcpStream) -> io::Result<TlsStream<Socket>> {
    let mut first = [0];
    // Left in the socket: rustls reads it as a part of the handshake.
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != HANDSHAKE {
        refuse(socket, first[0]).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client speaks no TLS"));
    }
    TlsAcceptor::from(config).accept(socket).await
}

/// Answers a client without TLS, if it seems to speak HTTP.
async fn refuse(mut socket: Socket, first: u8) -> io::Result<()> {
    // Methods begin with a letter. To another protocol the answer would mean nothing.
    if !first.is_ascii_alphabetic() {
        return Ok(());
    }
    socket.write_all(PLAIN_ANSWER.as_bytes()).await?;
    socket.shutdown().await?;
    // A socket that is closed with bytes unread resets the connection, and the client may lose the answer.
    tokio::io::copy(&mut socket.take(MAX_PLAIN), &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::PLAIN_ANSWER;

    #[test]
    fn the_answer_has_the_length_that_it_tells() {
        let (head, body) = PLAIN_ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
