//! The way of lines to stderr: best effort, and nobody waits for it.
//!
//! A thread of its own writes what others hand over. A line is dropped and counted where the queue is full (the reader of a
//! pipe has stopped) or the write fails (closed pipe, full disk, lost terminal).

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use rustix::termios::LocalModes;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for a slow reader. At some hundred bytes each they take a megabyte at most times.
const WAITING: usize = 4_096;
/// The longest wait for the last lines to be written when the program ends: a reader that has stopped gets no longer.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Lines that were dropped since the program started.
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// Times that the writing thread had to begin again after a panic.
static RESTARTS: AtomicU64 = AtomicU64::new(0);
static SINK: OnceLock<Sink> = OnceLock::new();

/// An item of the thread's queue.
enum Item {
    /// A line, with its end.
    Line(Vec<u8>),
    /// Everything before is written when this is answered.
    Mark(SyncSender<()>),
}

/// Hands lines to the thread that writes them. Never blocks and never fails.
#[derive(Clone)]
pub(super) struct Sink(SyncSender<Item>);

impl Sink {
    /// Returns the sink of this process; the first call starts its thread.
    pub(super) fn of_process() -> io::Result<Self> {
        if let Some(sink) = SINK.get() {
            return Ok(sink.clone());
        }
        let (sender, queue) = mpsc::sync_channel(WAITING);
        std::thread::Builder::new().name("caxton-stderr".to_owned()).spawn(move || write_all(&queue))?;
        Ok(SINK.get_or_init(|| Self(sender)).clone())
    }

    fn line(&self, line: Vec<u8>) {
        if self.0.try_send(Item::Line(line)).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything before is written, for `limit` at most.
    fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let (done, written) = mpsc::sync_channel(1);
        let mut mark = Item::Mark(done);
        while let Err(TrySendError::Full(unsent)) = self.0.try_send(mark) {
            if Instant::now() >= until {
                return;
            }
            mark = unsent;
            std::thread::sleep(Duration::from_millis(5));
        }
        // A reader that has stopped is not waited for.
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Returns how many lines were dropped since the program started.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Returns how often the thread that writes lines had to begin again.
pub(crate) fn restarts() -> u64 {
    RESTARTS.load(Ordering::Relaxed)
}

/// Hands a line to the thread that writes; false where none was started, as in commands.
pub(crate) fn say(text: &str) -> bool {
    let Some(sink) = SINK.get() else { return false };
    sink.line(format!("{text}\n").into_bytes());
    true
}

/// Gives the last lines a moment to be written, before the program ends.
pub(crate) fn flush() {
    if let Some(sink) = SINK.get() {
        sink.flush(LAST_WORDS);
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// Takes one event, which is formatted whole before it is written.
pub(super) struct LineWriter<'a>(&'a Sink);

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until nobody can hand over any more, which is the end of the program.
fn write_all(queue: &Receiver<Item>) {
    let run = || write_until_closed(queue, &mut io::stderr(), is_allowed);
    while std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
        RESTARTS.fetch_add(1, Ordering::Relaxed);
    }
}

fn write_until_closed(queue: &Receiver<Item>, out: &mut impl Write, is_allowed: impl Fn() -> bool) {
    crate::seam::point("log-writer");
    let mut told = DROPPED.load(Ordering::Relaxed);
    while let Ok(item) = queue.recv() {
        crate::seam::point("log-writer");
        match item {
            Item::Line(line) => {
                if !is_allowed() || out.write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let dropped = DROPPED.load(Ordering::Relaxed);
                if dropped > told {
                    // Comes after what waits already, and only where somebody reads again.
                    tracing::warn!(lines = dropped - told, "lines were dropped: stderr could not take them");
                    told = DROPPED.load(Ordering::Relaxed).max(dropped);
                }
            }
            Item::Mark(done) => drop(done.send(())),
        }
    }
}

/// False while a write would stop the process: it is in the background of a terminal with `stty tostop`.
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

    /// A writer that fails as long as it is told to.
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
    fn who_says_something_never_waits_and_what_is_dropped_is_counted() {
        let (sender, queue) = mpsc::sync_channel(2);
        let sink = Sink(sender);
        let before = dropped();
        // Nobody writes: two wait, one more is dropped. None of them blocks.
        for line in ["one\n", "two\n", "three\n"] {
            assert_eq!(LineWriter(&sink).write(line.as_bytes()).unwrap(), line.len());
        }
        assert!(dropped() > before);
        let began = Instant::now();
        sink.flush(Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20), "nobody writes");
        drop(sink);
        let mut disk = Disk { full: false, text: Vec::new() };
        write_until_closed(&queue, &mut disk, || true);
        assert_eq!(String::from_utf8(disk.text).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_write_that_fails_costs_the_line_and_nothing_else() {
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
