//! Following files: the declaration, components, and the sources that components are built from.
//!
//! ```text
//! events of the kernel ---.                       .-> the reconciler is woken
//!                         +-> hints -> Quiet -> look
//! every few seconds ------'                       '-> Builds -> a build, one after another
//! ```
//! What a look finds counts, and events are hints that one is due: they tell nothing of a folder that is not there yet,
//! of one behind a link that leads elsewhere by now, on some file systems nothing at all, and after too many at once
//! nothing of the rest. So each look finds out anew what the names lead to and watches that, and there is one every few
//! seconds whatever the events say. Whether a file is whole is decided where it is read.

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

use crate::build::{self, BuildError};
use crate::control::Wake;
use crate::stamp::Writing;

pub(crate) use followed::Followed;
use kernel::{Event, Kernel};
use look::{Hints, Watched};
pub(crate) use pattern::Pattern;
pub(crate) use sources::{LeftOut, Tree, matches_nothing};

/// How often everything is looked at, whatever the events say.
const EVERY: Duration = Duration::from_secs(2);
/// A look takes no more than this part of the time: with a hundred thousand sources there are fewer.
const SHARE: u32 = 20;

/// What is watched, and how.
#[derive(Clone)]
pub(crate) struct Following {
    /// What the declaration wants followed.
    pub(crate) followed: watch::Receiver<Arc<Followed>>,
    /// The sources as they were before the first builds, if builds are run again when their sources change.
    pub(crate) sources: Option<Before>,
    /// Told which files are being written.
    pub(crate) writing: Writing,
}

/// The sources of all builds at one moment, and whether the builds were run after it.
#[derive(Clone)]
pub(crate) struct Before {
    marks: BTreeMap<String, sources::Marks>,
    built: bool,
}

impl Before {
    /// The sources as they are now.
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

/// Follows files until `stop`: wakes the reconciler, and builds when it is to.
pub(crate) async fn run(following: Following, wakes: mpsc::Sender<Wake>, stop: CancellationToken) {
    let Following { mut followed, sources, writing } = following;
    let mut kernel = Kernel::open()
        .inspect_err(|error| tracing::warn!(%error, "the system tells of no changes of files; they are found by looking every few seconds"))
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
                // The folders that it made are not watched yet.
                looks.hint(Hints::ALL);
                match result {
                    // Its file may have the same bytes as before; then nothing follows from this.
                    Ok(()) => _ = wakes.send(Wake::Components).await,
                    Err(BuildError::Stopped { .. }) => break,
                    Err(error) => tracing::error!(command, "{error}; what runs stays as it was"),
                }
            }
            events = happened(kernel.as_ref()) => match events {
                Ok(events) => looks.hint(watched.hints(events.iter())),
                Err(error) => {
                    tracing::warn!(%error, "the system tells of no more changes of files; they are found by looking every few seconds");
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
        // It ends its processes.
        let _ = building.await;
    }
}

/// When to look, and at what.
struct Looks {
    origin: TokioInstant,
    quiet: Quiet,
    hints: Hints,
    /// When to look at everything.
    every: TokioInstant,
    /// A look that takes long is followed by as long a rest.
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

    /// Takes a hint, if it is one.
    fn hint(&mut self, hints: Hints) {
        if hints.any() {
            self.hints |= hints;
            self.quiet.hint(self.millis());
        }
    }

    /// Everything is to be looked at without a pause.
    fn now(&mut self) {
        self.every = TokioInstant::now();
    }

    fn due(&self) -> TokioInstant {
        let hinted = self.quiet.due().map(|due| self.origin + Duration::from_millis(due));
        hinted.map_or(self.every, |due| due.max(self.not_before).min(self.every))
    }

    /// Looks. Returns what the reconciler is to be woken for.
    fn look(&mut self, watched: &mut Watched, kernel: Option<&mut Kernel>) -> Vec<Wake> {
        let began = TokioInstant::now();
        let all = self.every <= began;
        let hints = if all { Hints::ALL } else { self.hints };
        self.hints = Hints::default();
        self.quiet.look();
        let found = tokio::task::block_in_place(|| watched.look(hints, kernel));
        let took = began.elapsed();
        self.not_before = TokioInstant::now() + took;
        if all {
            self.every = TokioInstant::now() + EVERY.max(took * SHARE);
        }
        if found.more {
            // What happened in them since the look was told by nobody.
            self.hint(Hints::ALL);
        }
        found.wakes
    }
}

/// A build that has ended.
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
