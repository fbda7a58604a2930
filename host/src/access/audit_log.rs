//! The audit log of a running host: one thread writes what all requests give it, with one sync for all that waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use caxton_control::access::AuditEntry;
use caxton_control::access::chain::ChainHead;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::audit_file::AuditFile;

/// Entries that wait to be written; further requests wait for room.
const QUEUE: usize = 1_024;
/// The interval at which the head goes to the host's log, where whoever changes the file does not reach it.
const HEAD_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// An entry on its way to the file.
struct Waiting {
    entry: AuditEntry,
    /// Set if the entry has to be on the disk before its sender goes on.
    sync: bool,
    written: Option<oneshot::Sender<Result<u64, Arc<io::Error>>>>,
}

/// The audit log of a running host. Its thread ends with the last clone of it.
#[derive(Clone)]
pub(crate) struct AuditLog {
    sender: mpsc::Sender<Waiting>,
    // Locked for a copy.
    head: Arc<Mutex<ChainHead>>,
}

impl AuditLog {
    /// Starts the thread that writes to a file.
    pub(super) fn start(mut file: AuditFile) -> io::Result<Self> {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let head = Arc::new(Mutex::new(file.head()));
        let of_thread = Arc::clone(&head);
        // A thread and not a task: each write waits for the disk.
        std::thread::Builder::new().name("caxton-audit".to_owned()).spawn(move || {
            let mut batch = Vec::new();
            while receiver.blocking_recv_many(&mut batch, QUEUE) > 0 {
                write(&mut file, &mut batch, &of_thread);
            }
        })?;
        Ok(Self { sender, head })
    }

    /// Writes an entry, and returns its number once it is on the disk.
    ///
    /// # Errors
    /// The entry is not in the log: what it records must not happen.
    pub(crate) async fn record(&self, entry: AuditEntry) -> Result<u64, Arc<io::Error>> {
        self.write(entry, true).await
    }

    /// Writes an entry about what has happened. It is on the disk with the next one that has to be. A failure is logged,
    /// because nothing can be taken back for it.
    pub(crate) async fn note(&self, entry: AuditEntry) {
        if let Err(error) = self.write(entry, false).await {
            tracing::error!(%error, "the audit log lacks the result of a request");
        }
    }

    /// Writes an entry without waiting, from a place that cannot wait.
    pub(crate) fn note_now(&self, entry: AuditEntry) {
        if self.sender.try_send(Waiting { entry, sync: false, written: None }).is_err() {
            tracing::error!("the audit log lacks the result of a request: too many wait to be written");
        }
    }

    async fn write(&self, entry: AuditEntry, sync: bool) -> Result<u64, Arc<io::Error>> {
        let gone = || Arc::new(io::Error::other("the thread of the audit log has ended"));
        let (sender, written) = oneshot::channel();
        let waiting = Waiting { entry, sync, written: Some(sender) };
        self.sender.send(waiting).await.map_err(|_| gone())?;
        written.await.map_err(|_| gone())?
    }

    /// Returns the head of the chain.
    pub(crate) fn head(&self) -> ChainHead {
        *self.head.lock()
    }

    /// Writes the head to the host's log: a copy that a change of the file does not reach.
    pub(crate) fn log_head(&self) {
        tracing::info!("the head of the audit log is {}", self.head());
    }

    /// Writes the head to the host's log every hour, until `stop`.
    pub(crate) async fn log_heads(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(HEAD_INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => self.log_head(),
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Writes a batch with one sync. If it cannot be written, each sender is told.
fn write(file: &mut AuditFile, batch: &mut Vec<Waiting>, head: &Mutex<ChainHead>) {
    let sync = batch.iter().any(|waiting| waiting.sync);
    let (entries, senders): (Vec<_>, Vec<_>) = batch.drain(..).map(|waiting| (waiting.entry, waiting.written)).unzip();
    let result = file.append(&entries, sync).map_err(Arc::new);
    // Before the answers: who has one finds its entry in the head.
    *head.lock() = file.head();
    for (at, sender) in senders.into_iter().enumerate() {
        // The sender may be gone.
        let _ = sender.map(|sender| sender.send(result.clone().map(|first| first + at as u64)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::audit_file::{AUDIT_FILE, verify_file};
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn entries_of_many_requests_are_one_chain() {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::start(AuditFile::open(folder.path(), 1 << 20).unwrap()).unwrap();
        let tasks: Vec<_> = (0..200)
            .map(|bytes| {
                let log = log.clone();
                tokio::spawn(async move { log.record(AuditEntry::Repaired { bytes }).await.unwrap() })
            })
            .collect();
        let mut numbers = Vec::new();
        for task in tasks {
            numbers.push(task.await.unwrap());
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=200).collect::<Vec<u64>>());
        log.note(AuditEntry::Answered { of: 1, status: 200 }).await;
        let checked = verify_file(&folder.path().join(AUDIT_FILE), Some(log.head())).unwrap();
        assert!(checked.verified.ok && checked.verified.entries == 201, "{checked:?}");
    }
}
