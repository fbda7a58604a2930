//! Following files: the declaration, the components, and the sources that components are built from.
//!
//! ```text
//! events of the kernel ---.                       .-> the reconciler is woken
//!                         +-> hints -> Quiet -> look
//! every few seconds ------'                       '-> Builds -> a build, one after another
//! ```
//! The result of a scan decides; events are only hints that one is due. They are incomplete: there are none for a
//! folder that does not exist yet, none for one behind a link that points elsewhere by now, none at all on some file
//! systems, and after an overflow the rest is missing. So each scan resolves all paths anew and watches what they lead
//! to, and a scan runs every few seconds without any event. The reader of a file decides whether it is complete.

mod followed;
mod kernel;
mod look;
mod pattern;
mod places;
mod sources;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use caxton_control::files::Quiet;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant as TokioInstant;
use tokio_util::sync::CancellationToken;

use crate::reconcile::build::{self, BuildError};
use crate::reconcile::handle::Wake;
use crate::reconcile::stamp::Writing;

pub(crate) use followed::Followed;
use kernel::{Event, Kernel};
use look::{Hints, Watched};
pub(crate) use pattern::Pattern;
pub(crate) use sources::{LeftOut, Tree, matches_nothing};

/// The interval of full scans, independent of events.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// Full scans take at most one part in this many of the time: with a hundred thousand sources they are less frequent.
const MAX_SCAN_SHARE: u32 = 20;

/// The input of [`run`].
#[derive(Clone)]
pub(crate) struct Following {
    /// The current set of files to follow.
    pub(crate) followed: watch::Receiver<Arc<Followed>>,
    /// The sources as they were before the first builds. `None` if builds are not run again when their sources change.
    pub(crate) sources: Option<Before>,
    /// Receives the files that are being written.
    pub(crate) writing: Writing,
}

/// The state of all sources at one moment. `built` says that the builds ran after it.
#[derive(Clone)]
pub(crate) struct Before {
    marks: BTreeMap<String, sources::Marks>,
    built: bool,
}

impl Before {
    /// Reads the current sources.
    pub(crate) fn now(followed: &Followed, built: bool) -> Self {
        let left_out = followed.left_out();
        let marks = followed.patterns().into_iter().map(|(command, patterns)| {
            let mut tree = Tree::default();
            patterns.iter().for_each(|pattern| _ = tree.add(pattern, &left_out));
            (command, tree.files)
        });
        Self { marks: marks.collect(), built }
    }
}

/// Follows files until `stop`: wakes the reconciler, and runs builds if `sources` is given.
pub(crate) async fn run(following: Following, wakes: mpsc::Sender<Wake>, stop: CancellationToken) {
    let Following { mut followed, sources, writing } = following;
    let mut kernel = Kernel::open()
        .inspect_err(|error| tracing::warn!(%error, "the system reports no changes of files (inotify); files are scanned every few seconds instead"))
        .ok();
    let (ended_sender, mut ended) = mpsc::channel::<Ended>(1);
    let mut watched = Watched::new(Arc::clone(&followed.borrow_and_update()), sources, writing);
    let mut looks = Looks::new();
    let mut building = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            result = followed.changed() => {
                if result.is_err() {
                    break;
                }
                watched.follow(Arc::clone(&followed.borrow_and_update()));
                looks.now();
            }
            Some(Ended { command, result }) = ended.recv() => {
                building = None;
                watched.built();
                // Folders that the build created are not watched yet.
                looks.hint(Hints::ALL);
                match result {
                    // The build may have written the same bytes; then the reconciler finds no change.
                    Ok(()) => _ = wakes.send(Wake::Components).await,
                    Err(BuildError::Stopped { .. }) => break,
                    Err(error) => tracing::error!(command, "{error}; what runs stays as it was"),
                }
            }
            events = happened(kernel.as_ref()) => match events {
                Ok(events) => looks.hint(watched.hints(events.iter())),
                Err(error) => {
                    tracing::warn!(%error, "the system reports no more changes of files (inotify); files are scanned every few seconds instead");
                    kernel = None;
                }
            },
            () = tokio::time::sleep_until(looks.due()) => {
                for wake in looks.look(&mut watched, kernel.as_mut()) {
                    let _ = wakes.send(wake).await;
                }
            }
        }
        if building.is_none()
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
struct Looks {
    origin: TokioInstant,
    quiet: Quiet,
    hints: Hints,
    /// The time of the next full scan.
    every: TokioInstant,
    /// A scan that takes long is followed by a pause as long, so that they take at most half the time.
    not_before: TokioInstant,
}

impl Looks {
    fn new() -> Self {
        let now = TokioInstant::now();
        Self { origin: now, quiet: Quiet::default(), hints: Hints::ALL, every: now, not_before: now }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Schedules a scan soon if there are any hints.
    fn hint(&mut self, hints: Hints) {
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
    fn look(&mut self, watched: &mut Watched, kernel: Option<&mut Kernel>) -> Vec<Wake> {
        let began = TokioInstant::now();
        let all = self.every <= began;
        let hints = if all { Hints::ALL } else { self.hints };
        self.hints = Hints::default();
        self.quiet.look();
        // A scan blocks on the file system; in place, because it borrows the watcher's state.
        let found = tokio::task::block_in_place(|| watched.look(hints, kernel));
        let took = began.elapsed();
        // From the end of the scan: a scan that takes a second is followed by a second without one.
        self.not_before = TokioInstant::now() + took;
        if all {
            self.every = TokioInstant::now() + FULL_SCAN_INTERVAL.max(took * MAX_SCAN_SHARE);
        }
        if found.more {
            // Changes made in them since the scan caused no event.
            self.hint(Hints::ALL);
        }
        found.wakes
    }
}

/// The result of a build.
struct Ended {
    command: String,
    result: Result<(), BuildError>,
}

fn start(
    command: String,
    dir: PathBuf,
    ended: mpsc::Sender<Ended>,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let result = build::run(&command, &dir, &stop).await;
        // The receiver is gone only when the host stops.
        let _ = ended.send(Ended { command, result }).await;
    })
}

async fn happened(kernel: Option<&Kernel>) -> std::io::Result<Vec<Event>> {
    match kernel {
        Some(kernel) => kernel.events().await,
        None => std::future::pending().await,
    }
}
