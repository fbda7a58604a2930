//! Logs of agents: the newest lines in memory, all lines in files of bounded size, and a stream to follow.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use caxton_control::memory::MemoryPriority;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::clock;
use crate::memory_budget::{MemoryBudget, MemoryKind, Reservation};
use crate::tasks::Tasks;

/// Lines of one agent kept in memory.
const LINES_IN_MEMORY: usize = 1_000;
/// The size at which a log file is renamed to `.log.1`. One older file is kept.
const MAX_FILE: u64 = 10 << 20;
/// The time for which the log of a removed agent is kept after its last line.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Lines that a follower may be behind before it misses some.
const FOLLOW: usize = 4_096;
/// Lines of the host in one agent's log per second. They have a bound of their own, so that a verbose agent cannot
/// displace them.
const HOST_LINES: u32 = 1_000;
/// The bytes of one agent's lines in memory: room for a thousand of the longest plain ones. A line has up to 32 KiB.
const BYTES_IN_MEMORY: u64 = 8 << 20;
/// The approximate size of a line in memory beside its texts.
const LINE: usize = 128;
/// Lines queued for the disk, and their bytes. Beyond that, lines are kept in memory only.
const QUEUE: usize = 65_536;
const QUEUE_BYTES: u64 = 16 << 20;

/// A line in the log of an agent.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) agent: Arc<str>,
    /// The number of the revision that wrote it.
    pub(crate) revision: u64,
    /// `trace`, `debug`, `info`, `warn`, `error` or `critical`.
    pub(crate) level: &'static str,
    /// `stdout`, `stderr`, or the context that the agent passed to `wasi:logging`.
    pub(crate) context: String,
    pub(crate) text: String,
}

impl Line {
    /// Returns the approximate size in memory.
    fn bytes(&self) -> u64 {
        (LINE + self.context.len() + self.text.len()) as u64
    }
}

/// The logs of all agents.
pub(crate) struct Logs {
    folder: PathBuf,
    agents: Mutex<HashMap<Arc<str>, Arc<Mutex<Log>>>>,
    follow: broadcast::Sender<Arc<Line>>,
    files: Option<mpsc::SyncSender<Arc<Line>>>,
    thread: Option<JoinHandle<()>>,
    /// The bytes of the lines that are queued for the disk.
    queued_bytes: Arc<AtomicU64>,
    memory: MemoryBudget,
}

/// The log of one agent.
struct Log {
    lines: VecDeque<Arc<Line>>,
    /// The memory of the lines.
    held: Reservation,
    /// The rate of the agent's own lines.
    agent_rate: LineRate,
    /// The rate of the host's lines about it.
    host_rate: LineRate,
}

/// The lines counted in one second.
struct LineRate {
    /// The start of the second.
    second_start: Instant,
    lines: u32,
    dropped: u64,
}

impl LineRate {
    fn new() -> Self {
        Self { second_start: Instant::now(), lines: 0, dropped: 0 }
    }

    /// Starts a new second if this one is over. Returns the lines dropped in the old one.
    fn start_second(&mut self) -> u64 {
        if self.second_start.elapsed() < Duration::from_secs(1) {
            return 0;
        }
        std::mem::replace(self, Self::new()).dropped
    }

    /// Counts a line. Returns `false` if the second is full.
    fn count_line(&mut self, per_second: u32) -> bool {
        let fits = self.lines < per_second;
        self.lines += u32::from(fits);
        self.dropped += u64::from(!fits);
        fits
    }
}

impl Logs {
    /// Creates the logs in `folder`, and starts the thread that writes the files.
    pub(crate) fn new(folder: PathBuf, tasks: Arc<Tasks>, memory: &MemoryBudget) -> Self {
        let (files, queue) = mpsc::sync_channel(QUEUE);
        let (into, queued_bytes) = (folder.clone(), Arc::<AtomicU64>::default());
        let written = Arc::clone(&queued_bytes);
        let thread = std::thread::Builder::new()
            .name("caxton-logs".to_owned())
            .spawn(move || tasks.until_done("agents-logs", || write_files(&into, &queue, &written)))
            .expect("the system can start a thread");
        Self {
            folder,
            agents: Mutex::default(),
            follow: broadcast::channel(FOLLOW).0,
            files: Some(files),
            thread: Some(thread),
            queued_bytes,
            memory: memory.clone(),
        }
    }

    /// Writes a line of an agent, unless it has written `per_second` lines in this second.
    pub(crate) fn write(&self, line: Line, per_second: u32) {
        let log = self.of(&line.agent);
        let mut log = log.lock();
        // Reported once a second at most: a report of each line would be a flood of its own.
        let dropped = log.agent_rate.start_second();
        if dropped > 0 {
            let text =
                format!("{dropped} further lines were dropped: more than {per_second} in a second (limits.log-lines)");
            let note = Line { level: "warn", context: "caxton".to_owned(), text, at: clock::now_ms(), ..line.clone() };
            self.keep(&mut log, note);
        }
        if log.agent_rate.count_line(per_second) {
            self.keep(&mut log, line);
        } else {
            metrics::counter!("caxton_log_lines_dropped_total", "agent" => line.agent.to_string()).increment(1);
        }
    }

    /// Writes a line of the host about an agent. Its bound is separate, so that an agent that is verbose or has a bound
    /// of 0 does not hide it.
    pub(crate) fn note(&self, line: Line) {
        let log = self.of(&line.agent);
        let mut log = log.lock();
        let dropped = log.host_rate.start_second();
        if dropped > 0 {
            let text = format!("{dropped} further lines of the host were dropped: more than {HOST_LINES} in a second");
            let note = Line { text, at: clock::now_ms(), ..line.clone() };
            self.keep(&mut log, note);
        }
        if log.host_rate.count_line(HOST_LINES) {
            self.keep(&mut log, line);
        }
    }

    fn of(&self, agent: &Arc<str>) -> Arc<Mutex<Log>> {
        let log = || Log {
            lines: VecDeque::new(),
            held: self.memory.empty(MemoryKind::Logs),
            agent_rate: LineRate::new(),
            host_rate: LineRate::new(),
        };
        Arc::clone(self.agents.lock().entry(Arc::clone(agent)).or_insert_with(|| Arc::new(Mutex::new(log()))))
    }

    fn keep(&self, log: &mut Log, line: Line) {
        let line = Arc::new(line);
        let mut bytes = log.held.bytes() + line.bytes();
        // All lines are in the files, so that memory which others wait for is worth more than old ones.
        let most = if self.memory.is_below(MemoryPriority::Work) { BYTES_IN_MEMORY } else { 0 };
        while log.lines.len() >= LINES_IN_MEMORY || bytes > most {
            let Some(oldest) = log.lines.pop_front() else { break };
            bytes -= oldest.bytes();
        }
        log.held.hold(bytes);
        log.lines.push_back(Arc::clone(&line));
        // An error only means that there are no followers.
        let _ = self.follow.send(Arc::clone(&line));
        if let Some(files) = &self.files {
            // If the disk cannot keep up, lines are missing in the file; the agent is never slowed down.
            let bytes = line.bytes();
            let fits = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) < QUEUE_BYTES;
            if !fits || files.try_send(line).is_err() {
                self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Returns the newest lines of one agent or of all, in order of time.
    pub(crate) fn newest(&self, agent: Option<&str>, count: usize) -> Vec<Arc<Line>> {
        // Cloned out of the map, so that its lock is not held while the lines of all agents are copied.
        let logs: Vec<_> = {
            let agents = self.agents.lock();
            agents
                .iter()
                .filter(|(name, _)| agent.is_none_or(|agent| agent == &***name))
                .map(|(_, log)| Arc::clone(log))
                .collect()
        };
        let mut lines: Vec<Arc<Line>> = logs.iter().flat_map(|log| log.lock().lines.clone()).collect();
        lines.sort_by_key(|line| line.at);
        lines.split_off(lines.len().saturating_sub(count))
    }

    /// Removes the logs of agents that are not `present` and have written nothing for [`RETENTION`]. Blocks on the file
    /// system.
    pub(crate) fn forget_gone(&self, present: impl Fn(&str) -> bool, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(RETENTION);
        let since = clock::millis(since);
        self.agents
            .lock()
            .retain(|name, log| present(name) || log.lock().lines.back().is_some_and(|last| last.at > since));
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let Some(agent) = [".log", ".log.1"].iter().find_map(|suffix| name.strip_suffix(suffix)) else { continue };
            let written = file.metadata().and_then(|metadata| metadata.modified());
            // A file whose age cannot be read is kept.
            let old = written.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > RETENTION));
            if old && !present(agent) {
                tracing::info!(agent, file = name, "the log of an agent that is gone is removed");
                // One that cannot be removed now is found again next time.
                let _ = fs::remove_file(file.path());
            }
        }
    }

    /// Returns the bytes of the lines that are queued for the disk.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Subscribes to all lines from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Line>> {
        self.follow.subscribe()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        // Closes the queue, which ends the thread once it has written the rest.
        self.files = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Appends lines to `AGENT.log` until the sender is dropped.
fn write_files(folder: &std::path::Path, queue: &mpsc::Receiver<Arc<Line>>, queued_bytes: &AtomicU64) {
    let mut open: HashMap<Arc<str>, (BufWriter<File>, u64)> = HashMap::new();
    while let Ok(first) = queue.recv() {
        crate::test_hooks::point("agents-logs");
        let mut next = Some(first);
        // All that is queued is written before the flush, which is a system call for each file.
        while let Some(line) = next {
            queued_bytes.fetch_sub(line.bytes(), Ordering::Relaxed);
            if let Err(error) = append(folder, &mut open, &line) {
                tracing::warn!(agent = &*line.agent, %error, "an agent's log cannot be written to its file");
            }
            next = queue.try_recv().ok();
        }
        // The queue is empty: flush so that the lines can be read, and close so that silent agents hold no files open.
        for (_, (mut file, _)) in open.drain() {
            let _ = file.flush();
        }
    }
}

fn append(
    folder: &std::path::Path,
    open: &mut HashMap<Arc<str>, (BufWriter<File>, u64)>,
    line: &Line,
) -> std::io::Result<()> {
    let path = folder.join(format!("{}.log", line.agent));
    if !open.contains_key(&line.agent) {
        // Only the last folder is created: a data folder that was removed must not reappear with nothing but a log in
        // it.
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        open.insert(Arc::clone(&line.agent), (BufWriter::new(file), size));
    }
    let Some((file, size)) = open.get_mut(&line.agent) else { return Ok(()) };
    let text = serde_json::to_string(line)?;
    writeln!(file, "{text}")?;
    *size += text.len() as u64 + 1;
    if *size > MAX_FILE {
        file.flush()?;
        // Closed before the rename, so that later lines open a new file.
        open.remove(&line.agent);
        fs::rename(&path, path.with_extension("log.1"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line { at: 1, agent: "echo".into(), revision: 1, level: "info", context: "stdout".into(), text: text.into() }
    }

    fn logs_in(folder: &std::path::Path) -> Logs {
        Logs::new(folder.to_owned(), Arc::default(), &MemoryBudget::new(u64::MAX))
    }

    #[test]
    fn lines_in_memory_are_bounded_in_bytes_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let budget = MemoryBudget::new(u64::MAX);
        let logs = Logs::new(folder.path().to_owned(), Arc::default(), &budget);
        for _ in 0..600 {
            logs.write(line(&"x".repeat(20_000)), 1_000);
        }
        let (kept, held) = (logs.newest(Some("echo"), 1_000).len() as u64, budget.used_by(MemoryKind::Logs));
        assert!(
            (400..425).contains(&kept) && held <= BYTES_IN_MEMORY && held > kept * 20_000,
            "{kept} lines, {held} bytes"
        );
        // A line is kept where there is no memory, and it alone.
        budget.set_limit(1);
        logs.write(line("last"), 1_000);
        assert_eq!(logs.newest(Some("echo"), 10).len(), 1);
        drop(logs);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn floods_are_cut_and_the_rest_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let logs = logs_in(&folder.path().join("logs"));
        for number in 0..50 {
            logs.write(line(&number.to_string()), 10);
        }
        assert_eq!(logs.newest(Some("echo"), 100).len(), 10);
        assert_eq!(logs.newest(Some("echo"), 3).last().unwrap().text, "9");
        assert_eq!(logs.newest(Some("other"), 3).len(), 0);
        drop(logs);
        let text = fs::read_to_string(folder.path().join("logs/echo.log")).unwrap();
        assert_eq!(text.lines().count(), 10);
    }

    #[test]
    fn logs_of_removed_agents_expire() {
        let folder = tempfile::tempdir().unwrap();
        let logs = logs_in(folder.path());
        let day = Duration::from_secs(24 * 3_600);
        let now = SystemTime::now();
        for (name, days) in [("gone.log", 8), ("gone.log.1", 9), ("late.log", 6), ("here.log", 400), ("notes", 400)] {
            File::create(folder.path().join(name)).unwrap().set_modified(now - day * days).unwrap();
        }
        // The only line of `echo` is from 1970.
        logs.write(line("bye"), 10);
        logs.forget_gone(|agent| agent == "here" || agent == "echo", now);
        assert_eq!(logs.newest(Some("echo"), 5).len(), 1);
        logs.forget_gone(|agent| agent == "here", now);
        assert_eq!(logs.newest(Some("echo"), 5).len(), 0);
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        left.retain(|name| name != "echo.log");
        left.sort();
        assert_eq!(left, ["here.log", "late.log", "notes"]);
    }

    #[test]
    fn lines_of_the_host_have_their_own_bound() {
        let folder = tempfile::tempdir().unwrap();
        let logs = logs_in(&folder.path().join("logs"));
        // An agent that may write nothing and writes much.
        for number in 0..50 {
            logs.write(line(&number.to_string()), 0);
        }
        logs.note(line("it failed"));
        let texts: Vec<String> = logs.newest(Some("echo"), 100).iter().map(|line| line.text.clone()).collect();
        assert_eq!(texts, ["it failed"]);
        let notes = 2 * HOST_LINES as usize;
        (0..notes).for_each(|_| logs.note(line("again")));
        let kept = logs.newest(Some("echo"), notes).len();
        assert!((1..=HOST_LINES as usize).contains(&kept), "{kept}");
    }
}
