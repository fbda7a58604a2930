//! The two streams of a connection.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use crate::message::{TcpConnection, TcpWritten};

/// The most bytes that are read or written at once.
const PART: usize = 64 << 10;

/// The stream of what the server sends.
pub(super) struct SocketReader {
    pub(super) connection: Arc<TcpConnection>,
    /// Set once the server has said that no more comes.
    pub(super) is_over: bool,
}

#[wasmtime_wasi::async_trait]
impl Pollable for SocketReader {
    async fn ready(&mut self) {
        // A connection that is closed has its end to be read.
        if let Some(stream) = self.connection.stream().filter(|_| !self.is_over) {
            let _ = stream.readable().await;
        }
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for SocketReader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if self.is_over {
            return Err(StreamError::Closed);
        }
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut buffer = BytesMut::zeroed(size.min(PART));
        match self.connection.read(&mut buffer) {
            None | Some(Ok(0)) => {
                self.is_over = true;
                Err(StreamError::Closed)
            }
            Some(Ok(read)) => {
                buffer.truncate(read);
                Ok(buffer.freeze())
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(Bytes::new()),
            Some(Err(error)) => {
                self.is_over = true;
                Err(StreamError::LastOperationFailed(error.into()))
            }
        }
    }
}

/// The stream of what the guest sends.
pub(super) struct SocketWriter {
    connection: Arc<TcpConnection>,
    /// Set once it takes no more.
    is_over: bool,
    /// The task that writes what the system has not taken at once, while the guest waits for something else: for an answer
    /// that comes only after all of it.
    flushing: Option<AbortOnDropJoinHandle<()>>,
}

impl SocketWriter {
    pub(super) fn new(connection: Arc<TcpConnection>) -> Self {
        Self { connection, is_over: false, flushing: None }
    }

    /// Returns the bytes that may be written now.
    fn room(&mut self, written: io::Result<TcpWritten>) -> StreamResult<usize> {
        match written {
            Ok(TcpWritten::All) => Ok(PART),
            Ok(TcpWritten::Waits) => Ok(0),
            Ok(TcpWritten::Closed) => {
                self.is_over = true;
                Err(StreamError::Closed)
            }
            Err(error) => {
                self.is_over = true;
                Err(StreamError::LastOperationFailed(error.into()))
            }
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for SocketWriter {
    async fn ready(&mut self) {
        if !self.is_over {
            self.connection.flushed().await;
        }
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for SocketWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.is_over {
            return Err(StreamError::Closed);
        }
        let before = self.connection.write_more();
        if bytes.len() > self.room(before)? {
            return Err(StreamError::trap("a guest may write as much as `check-write` has told it"));
        }
        let written = self.connection.write(bytes);
        if matches!(written, Ok(TcpWritten::Waits)) {
            let connection = Arc::clone(&self.connection);
            self.flushing = Some(spawn(async move { connection.flushed().await }));
        }
        self.room(written).map(drop)
    }

    fn flush(&mut self) -> StreamResult<()> {
        // What is left goes out by itself as soon as the server takes it: `ready` waits for that.
        if self.is_over { Err(StreamError::Closed) } else { Ok(()) }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if self.is_over {
            return Err(StreamError::Closed);
        }
        let written = self.connection.write_more();
        self.room(written)
    }

    async fn cancel(&mut self) {
        // What the guest has written is sent before the stream is gone.
        self.ready().await;
    }
}
