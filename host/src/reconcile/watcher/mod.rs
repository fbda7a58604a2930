//! The following of files: the declaration, the components, and the sources that components are built from.
//!
//! ```text
//! events of the kernel ---.                       .-> the reconciler is woken
//!                         +-> hints -> Debounce -> scan
//! every few seconds ------'                       '-> Builds -> a build, one after another
//! ```
//! The result of a scan decides; events are only hints that one is due. They are incomplete: there are none for a
//! folder that does not exist yet, none for one behind a link that points elsewhere by now, none at all on some file
//! systems, and after an overflow the rest is missing. So each scan resolves all paths anew and watches what they lead
//! to, and a scan runs every few seconds without any event. The reader of a file decides whether it is complete.

mod baseline;
mod inotify;
mod pattern;
mod scan;
mod sources;
mod watch_set;
mod watched_names;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use caxton_control::files::Debounce;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant as TokioInstant;
use tokio_util::sync::CancellationToken;

use crate::reconcile::build::{self, BuildError};
use crate::reconcile::file_stamp::OpenWrites;
use crate::reconcile::handle::Wake;

pub(crate) use baseline::SourceBaseline;
use inotify::{FileEvent, Inotify};
pub(crate) use pattern::Pattern;
use scan::{ScanHints, WatchedFiles};
pub(crate) use sources::{ExcludedFiles, no_match_warning};
pub(crate) use watch_set::WatchSet;

/// The interval of full scans, independent of events.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// The inverse of the largest share of the time that full scans take: with a hundred thousand sources they are rarer.
const MAX_SCAN_SHARE: u32 = 20;

/// The input of [`run`].
#[derive(Clone)]
pub(crate) struct WatcherSetup {
    /// The current set of files to follow.
    pub(crate) watch_set: watch::Receiver<Arc<WatchSet>>,
    /// The sources as they were before the first builds. `None` if builds are not run again when their sources change.
    pub(crate) sources: Option<SourceBaseline>,
    /// Receives the files that are being written.
    pub(crate) writing: OpenWrites,
}

/// Follows files until `stop`: wakes the reconciler, and runs builds if `sources` is given.
pub(crate) async fn run(setup: WatcherSetup, wakes: mpsc::Sender<Wake>, stop: CancellationToken) {
    let WatcherSetup { watch_set: mut followed, sources, writing } = setup;
    let mut inotify = Inotify::open()
        .inspect_err(|error| tracing::warn!(%error, "the system reports no changes of files (inotify); files are scanned every few seconds instead"))
        .ok();
    let (ended_sender, mut ended) = mpsc::channel::<BuildEnd>(1);
    let mut watched = WatchedFiles::new(Arc::clone(&followed.borrow_and_update()), sources, writing);
    let mut schedule = ScanSchedule::new();
    let mut building = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            result = followed.changed() => {
                if result.is_err() {
                    break;
                }
                watched.follow(Arc::clone(&followed.borrow_and_update()));
                schedule.now();
            }
            Some(BuildEnd { command, result }) = ended.recv() => {
                building = None;
                watched.built();
                // Folders that the build created are not watched yet.
                schedule.hint(ScanHints::ALL);
                match result {
                    // The build may have written the same bytes; then the reconciler finds no change.
                    Ok(()) => _ = wakes.send(Wake::Components).await,
                    Err(BuildError::Stopped { .. }) => break,
                    Err(error) => tracing::error!(command, "{error}; what runs stays as it was"),
                }
            }
            events = next_events(inotify.as_ref()) => match events {
                Ok(events) => schedule.hint(watched.hints(events.iter())),
                Err(error) => {
                    tracing::warn!(%error, "the system reports no more changes of files (inotify); files are scanned every few seconds instead");
                    // The periodic scans go on without it.
                    inotify = None;
                }
            },
            () = tokio::time::sleep_until(schedule.due()) => {
                for wake in schedule.scan(&mut watched, inotify.as_mut()) {
                    let _ = wakes.send(wake).await;
                }
            }
        }
        if building.is_none()
            // One at a time: builds use all cores, and may write to the same folder.
            && let Some(command) = watched.next_build()
        {
            building = Some(start(command, watched.dir(), ended_sender.clone(), stop.clone()));
        }
    }
    if let Some(building) = building {
        stop.cancelled().await;
        // The task stops its child processes before it ends.
        let _ = building.await;
    }
}

/// The schedule of scans.
struct ScanSchedule {
    origin: TokioInstant,
    quiet: Debounce,
    hints: ScanHints,
    /// The time of the next full scan.
    every: TokioInstant,
    /// A scan that takes long is followed by a pause as long, so that they take at most half the time.
    not_before: TokioInstant,
}

impl ScanSchedule {
    fn new() -> Self {
        let now = TokioInstant::now();
        Self { origin: now, quiet: Debounce::default(), hints: ScanHints::ALL, every: now, not_before: now }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Schedules a scan soon if there are any hints.
    fn hint(&mut self, hints: ScanHints) {
        if hints.any() {
            self.hints |= hints;
            self.quiet.hint(self.millis());
        }
    }

    /// Schedules a full scan at once.
    fn now(&mut self) {
        self.every = TokioInstant::now();
    }

    fn due(&self) -> TokioInstant {
        let hinted = self.quiet.due().map(|due| self.origin + Duration::from_millis(due));
        hinted.map_or(self.every, |due| due.max(self.not_before).min(self.every))
    }

    /// Scans. Returns the reasons to wake the reconciler.
    fn scan(&mut self, watched: &mut WatchedFiles, inotify: Option<&mut Inotify>) -> Vec<Wake> {
        let began = TokioInstant::now();
        let all = self.every <= began;
        let hints = if all { ScanHints::ALL } else { self.hints };
        self.hints = ScanHints::default();
        self.quiet.reset();
        // A scan blocks on the file system; in place, because it borrows the watcher's state.
        let found = tokio::task::block_in_place(|| watched.scan(hints, inotify));
        let took = began.elapsed();
        // From the end of the scan: a scan that takes a second is followed by a second without one.
        self.not_before = TokioInstant::now() + took;
        if all {
            self.every = TokioInstant::now() + FULL_SCAN_INTERVAL.max(took * MAX_SCAN_SHARE);
        }
        if found.watches_new_folders {
            // Changes made in them since the scan caused no event.
            self.hint(ScanHints::ALL);
        }
        found.wakes
    }
}

/// The result of a build.
struct BuildEnd {
    command: String,
    result: Result<(), BuildError>,
}

fn start(
    command: String,
    dir: PathBuf,
    ended: mpsc::Sender<BuildEnd>,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let result = build::run(&command, &dir, &stop).await;
        // The receiver is gone only when the host stops.
        let _ = ended.send(BuildEnd { command, result }).await;
    })
}

async fn next_events(inotify: Option<&Inotify>) -> std::io::Result<Vec<FileEvent>> {
    match inotify {
        Some(inotify) => inotify.events().await,
        None => std::future::pending().await,
    }
}
