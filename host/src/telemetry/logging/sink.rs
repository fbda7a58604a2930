//! The writer of log lines to stderr, which never makes the caller wait.
//!
//! A thread of its own writes the lines. A line is dropped and counted if the queue is full, because the reader of a
//! pipe has stopped, or if the write fails: a closed pipe, a full disk, a lost terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use rustix::termios::LocalModes;
use tracing_subscriber::fmt::MakeWriter;

/// Lines queued for a slow reader. With a few hundred bytes each they take about a megabyte.
const QUEUE_LINES: usize = 4_096;
/// The longest wait for queued lines when the program ends, in case the reader has stopped.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// Lines dropped since the program started.
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// Restarts of the writing thread after a panic.
static RESTARTS: AtomicU64 = AtomicU64::new(0);
static SINK: OnceLock<Sink> = OnceLock::new();

/// An item of the thread's queue.
enum Item {
    /// A line with its line end.
    Line(Vec<u8>),
    /// A mark that is answered when all items before it are written.
    Mark(SyncSender<()>),
}

/// A handle that queues lines for the writing thread. Never blocks and never fails.
#[derive(Clone)]
pub(super) struct Sink(SyncSender<Item>);

impl Sink {
    /// Returns the sink of this process. The first call starts its thread.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn of_process() -> io::Result<Self> {
        if let Some(sink) = SINK.get() {
            return Ok(sink.clone());
        }
        let (sender, queue) = mpsc::sync_channel(QUEUE_LINES);
        std::thread::Builder::new().name("caxton-stderr".to_owned()).spawn(move || write_all(&queue))?;
        // Of two first calls at once one loses, and its thread ends with its sender.
        Ok(SINK.get_or_init(|| Self(sender)).clone())
    }

    fn line(&self, line: Vec<u8>) {
        // A full queue means that the reader has stopped, which must not stop the host.
        if self.0.try_send(Item::Line(line)).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines queued before are written, at most for `limit`.
    fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let (done, written) = mpsc::sync_channel(1);
        let mut mark = Item::Mark(done);
        while let Err(TrySendError::Full(unsent)) = self.0.try_send(mark) {
            if Instant::now() >= until {
                return;
            }
            mark = unsent;
            // The standard channel has no send with a timeout.
            std::thread::sleep(Duration::from_millis(5));
        }
        // A timeout means that the reader has stopped; the rest is given up.
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Returns the number of lines dropped since the program started.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Returns the number of restarts of the writing thread.
pub(crate) fn restarts() -> u64 {
    RESTARTS.load(Ordering::Relaxed)
}

/// Queues a line. Returns `false` if no thread was started, as in commands other than `up`.
pub(crate) fn say(text: &str) -> bool {
    let Some(sink) = SINK.get() else { return false };
    sink.line(format!("{text}\n").into_bytes());
    true
}

/// Waits a moment for the last lines, before the program ends.
pub(crate) fn flush() {
    if let Some(sink) = SINK.get() {
        sink.flush(FLUSH_LIMIT);
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// Queues one event for each write: the subscriber formats an event as a whole.
pub(super) struct LineWriter<'a>(&'a Sink);

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Waiting for the thread could block the caller for as long as the reader stops.
        Ok(())
    }
}

/// Writes until all senders are dropped, which happens at the end of the program. Starts again after a panic.
fn write_all(queue: &Receiver<Item>) {
    let run = || write_until_closed(queue, &mut io::stderr(), is_allowed);
    while std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
        RESTARTS.fetch_add(1, Ordering::Relaxed);
    }
}

fn write_until_closed(queue: &Receiver<Item>, out: &mut impl Write, is_allowed: impl Fn() -> bool) {
    crate::test_hooks::point("log-writer");
    let mut reported = DROPPED.load(Ordering::Relaxed);
    while let Ok(item) = queue.recv() {
        crate::test_hooks::point("log-writer");
        match item {
            Item::Line(line) => {
                if !is_allowed() || out.write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let dropped = DROPPED.load(Ordering::Relaxed);
                if dropped > reported {
                    // Queued behind the waiting lines, so that it appears only once a reader is there again.
                    tracing::warn!(lines = dropped - reported, "lines were dropped: stderr could not take them");
                    reported = DROPPED.load(Ordering::Relaxed).max(dropped);
                }
            }
            // The waiter may have given up.
            Item::Mark(done) => drop(done.send(())),
        }
    }
}

/// Returns `false` while a write would stop the process with `SIGTTOU`: it runs in the background of a terminal with
/// `stty tostop`.
fn is_allowed() -> bool {
    let stderr = io::stderr();
    if !stderr.is_terminal() {
        return true;
    }
    let stops = rustix::termios::tcgetattr(&stderr).is_ok_and(|modes| modes.local_modes.contains(LocalModes::TOSTOP));
    let in_front = rustix::termios::tcgetpgrp(&stderr).is_ok_and(|group| group == rustix::process::getpgrp());
    !stops || in_front
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that fails while `full` is set.
    struct Disk {
        full: bool,
        text: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_lines_without_blocking() {
        let (sender, queue) = mpsc::sync_channel(2);
        let sink = Sink(sender);
        let before = dropped();
        // No thread writes: two lines are queued and the third is dropped, without blocking.
        for line in ["one\n", "two\n", "three\n"] {
            assert_eq!(LineWriter(&sink).write(line.as_bytes()).unwrap(), line.len());
        }
        assert!(dropped() > before);
        let began = Instant::now();
        sink.flush(Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20), "no thread writes");
        drop(sink);
        let mut disk = Disk { full: false, text: Vec::new() };
        write_until_closed(&queue, &mut disk, || true);
        assert_eq!(String::from_utf8(disk.text).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn failed_writes_drop_only_their_line() {
        for (full, is_allowed) in [(true, true), (false, false)] {
            let (sender, queue) = mpsc::sync_channel(8);
            let sink = Sink(sender);
            let before = dropped();
            for _ in 0..3 {
                sink.line(b"lost\n".to_vec());
            }
            let (done, written) = mpsc::sync_channel(1);
            sink.0.send(Item::Mark(done)).unwrap();
            drop(sink);
            let mut disk = Disk { full, text: Vec::new() };
            write_until_closed(&queue, &mut disk, || is_allowed);
            assert!(disk.text.is_empty() && dropped() >= before + 3, "{full} {is_allowed}");
            written.recv().unwrap();
        }
    }
}
