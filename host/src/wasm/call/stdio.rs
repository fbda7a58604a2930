//! The stdout and stderr of a guest, as lines of its log.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::message::{GuestHost, Identity, LogLevel};
use crate::secrets::AgentSecrets;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// The length in bytes at which a line is split.
const MAX_LINE: usize = 8_192;
/// The number of last lines kept for an error: a panic has two or three, an exception of a language runtime some more.
const LAST_LINES: usize = 30;
/// The bound of their bytes.
const LAST_BYTES: usize = 4_096;

/// Collects bytes into lines and writes each to the agent's log. Clones share the unfinished line.
#[derive(Clone)]
pub(in crate::wasm) struct LineLog {
    inner: Arc<Inner>,
}

struct Inner {
    who: Arc<Identity>,
    host: Arc<dyn GuestHost>,
    /// The secrets, whose values are masked.
    secrets: Option<Arc<AgentSecrets>>,
    level: LogLevel,
    context: &'static str,
    line: Mutex<Vec<u8>>,
    /// The last lines of the current call.
    last: Mutex<VecDeque<String>>,
}

impl LineLog {
    pub(in crate::wasm) fn new(
        who: &Arc<Identity>,
        host: &Arc<dyn GuestHost>,
        secrets: &Option<Arc<AgentSecrets>>,
        level: LogLevel,
        context: &'static str,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                who: Arc::clone(who),
                host: Arc::clone(host),
                secrets: secrets.clone(),
                level,
                context,
                line: Mutex::default(),
                last: Mutex::default(),
            }),
        }
    }

    /// Drops the lines of the previous call.
    pub(in crate::wasm) fn begin(&self) {
        self.inner.last.lock().clear();
    }

    /// Returns and drops the last lines of the current call, the unfinished one included.
    pub(in crate::wasm) fn last(&self) -> String {
        // Copied, because the line may go on in the next call of the same instance.
        let unfinished = self.inner.line.lock().clone();
        if !unfinished.is_empty() {
            self.inner.keep(&self.inner.shown(&unfinished));
        }
        let lines = std::mem::take(&mut *self.inner.last.lock());
        lines.into_iter().collect::<Vec<_>>().join("\n").trim().to_owned()
    }

    fn take(&self, mut bytes: &[u8]) {
        let inner = &self.inner;
        let mut line = inner.line.lock();
        while !bytes.is_empty() {
            let room = MAX_LINE - line.len();
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let (part, ends) = match end {
                Some(at) => (at, true),
                None => (bytes.len().min(room), bytes.len() >= room),
            };
            // Lines are split instead of cut: a guest that prints without line ends loses nothing, and takes no memory.
            line.extend_from_slice(&bytes[..part]);
            bytes = &bytes[part + usize::from(end.is_some())..];
            if ends {
                inner.write(&line);
                line.clear();
            }
        }
    }
}

impl Inner {
    fn write(&self, line: &[u8]) {
        let line = self.shown(line);
        self.keep(&line);
        self.host.log(&self.who, self.level, self.context, &line);
    }

    /// Returns a line as it is logged: as text, with secrets masked.
    fn shown(&self, line: &[u8]) -> String {
        let line = String::from_utf8_lossy(line);
        match &self.secrets {
            Some(secrets) => secrets.mask(&line).into_owned(),
            None => line.into_owned(),
        }
    }

    /// Keeps a line for the error of this call.
    fn keep(&self, line: &str) {
        let mut last = self.last.lock();
        // Of a long line the end is kept, which was written last before the failure.
        let from = line.len().saturating_sub(LAST_BYTES);
        last.push_back(line.get(line.ceil_char_boundary(from)..).unwrap_or_default().to_owned());
        while last.len() > LAST_LINES || last.iter().map(String::len).sum::<usize>() > LAST_BYTES {
            last.pop_front();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last output of a guest is logged even without a line end.
        let line = std::mem::take(&mut *self.line.lock());
        if !line.is_empty() {
            self.write(&line);
        }
    }
}

impl IsTerminal for LineLog {
    fn is_terminal(&self) -> bool {
        // Otherwise guests would colour their output, and the log would contain escape codes.
        false
    }
}

impl StdoutStream for LineLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for LineLog {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl OutputStream for LineLog {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        // Never less: the log takes every line at once, and drops what exceeds its rate.
        Ok(64 << 10)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LineLog {
    async fn ready(&mut self) {}
}
