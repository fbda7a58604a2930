//! The tasks and threads of the host, and the handling of their panics.
//!
//! A *vital* task is one without which the host would only seem to work: if it panics or ends early, the host ends with
//! a reason. A *lasting* task holds no state and is started again, unless it dies too often. `/healthz` and the
//! watchdog of the service manager report both.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api_types::TaskStatus;
use crate::telemetry::logging;
use crate::test_hooks::{self, Fate};

/// The restarts of a task within [`RESTART_WINDOW`] before it is given up: it would die again and again.
const MAX_RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// The pause before the first restart; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The time without progress after which a task counts as stalled. Long, because one pass of the reconciler over ten
/// thousand agents on a slow disk is one step.
const STALL_TIME: Duration = Duration::from_secs(60);

/// The longest interval between two beats of a task that is checked for stalls.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// The name of the task that changes what runs.
pub(crate) const RECONCILER: &str = "reconciler";
/// The name of the task that wakes agents for due messages.
pub(crate) const TIMERS: &str = "timers";

/// The tasks of a host.
pub(crate) struct Tasks {
    known: Mutex<BTreeMap<&'static str, Task>>,
    /// The reason for which the host has to end, once there is one.
    failed: watch::Sender<Option<Arc<str>>>,
}

struct Task {
    is_running: bool,
    /// The times at which it died within the last [`RESTART_WINDOW`].
    deaths: Vec<Instant>,
    restarts: u64,
    reason: Option<String>,
    /// The last beat. `None` for a task that may wait without bound.
    last_beat: Option<Instant>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { known: Mutex::default(), failed: watch::Sender::new(None) }
    }
}

impl Tasks {
    /// Starts a task without which the host cannot run. It may end once `stop` is cancelled; earlier, the host ends.
    pub(crate) fn vital<T: Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        stop: CancellationToken,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        self.begin(name);
        let tasks = Arc::clone(self);
        tokio::spawn(async move {
            let ended = run(name, work).await;
            tasks.ended(name);
            match ended {
                Ok(value) => {
                    if !stop.is_cancelled() {
                        tasks.fail(name, "it ended before its time");
                    }
                    Some(value)
                }
                Err(reason) => {
                    tasks.fail(name, &reason);
                    None
                }
            }
        })
    }

    /// Starts a task that is started again after each death, until `stop`. The handle ends with the last run.
    pub(crate) fn lasting<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        stop: CancellationToken,
        make: impl Fn() -> F + Send + 'static,
    ) -> JoinHandle<Option<()>> {
        self.begin(name);
        let tasks = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let ended = run(name, make()).await;
                if stop.is_cancelled() {
                    tasks.ended(name);
                    return Some(());
                }
                let reason = ended.err().unwrap_or_else(|| "it ended before its time".to_owned());
                let Some(pause) = tasks.died(name, &reason) else {
                    tasks.ended(name);
                    tasks.fail(name, &reason);
                    return None;
                };
                tracing::error!(task = name, reason, "a task of the host died; it is made again");
                // A restart that is due later must not delay the end of the host.
                tokio::select! {
                    () = stop.cancelled() => {
                        tasks.ended(name);
                        return Some(());
                    }
                    () = tokio::time::sleep(pause) => {}
                }
                tasks.begin(name);
            }
        })
    }

    /// Returns a guard that ends the host if a panic drops it.
    pub(crate) fn guard(self: &Arc<Self>, name: &'static str) -> Guard {
        Guard { tasks: Arc::clone(self), name }
    }

    /// Runs the work of a thread again until it returns without a panic.
    pub(crate) fn until_done(&self, name: &'static str, work: impl Fn()) {
        self.begin(name);
        while let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(&work)) {
            // Without a limit: it holds no state that could be wrong for good.
            self.died(name, logging::reason(&*panic));
            std::thread::sleep(FIRST_PAUSE);
            self.begin(name);
        }
        self.ended(name);
    }

    /// Notes that a task has made progress. One that does so at least once a minute is alive.
    pub(crate) fn beat(&self, name: &'static str) {
        if let Some(task) = self.known.lock().get_mut(name) {
            task.last_beat = Some(Instant::now());
        }
    }

    /// Ends the host with this reason, unless it already ends for another.
    pub(crate) fn fail(&self, name: &str, reason: &str) {
        let why: Arc<str> = format!("a task of the host died ({name}): {reason}").into();
        let first = self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| Arc::clone(&why));
            first
        });
        // Logged once: further failures follow from the first.
        if first {
            tracing::error!("{why}");
        }
    }

    /// Returns the reason for which the host has to end; `None` while it runs well.
    pub(crate) fn failed(&self) -> Option<Arc<str>> {
        self.failed.borrow().clone()
    }

    /// Waits until the host has to end, and returns the reason.
    pub(crate) async fn until_failed(&self) -> Arc<str> {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // Cannot happen: the sender is owned by `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns the state of all tasks in order of name.
    pub(crate) fn status(&self) -> Vec<TaskStatus> {
        let known = self.known.lock();
        let mut all: Vec<TaskStatus> = known
            .iter()
            .map(|(name, task)| TaskStatus {
                name: (*name).to_owned(),
                state: state(task).to_owned(),
                restarts: task.restarts,
                reason: task.reason.clone(),
            })
            .collect();
        // The log's thread starts before any host and is not registered.
        let (name, restarts) = ("log-writer".to_owned(), logging::restarts());
        all.push(TaskStatus { name, state: "runs".to_owned(), restarts, reason: None });
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Returns `true` while no vital task has died and none has gone without a beat for longer than `patience`.
    pub(crate) fn are_alive(&self, patience: Duration) -> bool {
        let still = |task: &Task| task.last_beat.is_some_and(|beat| beat.elapsed() > patience);
        self.failed().is_none() && !self.known.lock().values().any(|task| task.is_running && still(task))
    }

    /// Returns `true` while no task has died or stalled, with the time limit of a probe.
    pub(crate) fn are_well(&self) -> bool {
        self.are_alive(STALL_TIME)
    }

    fn begin(&self, name: &'static str) {
        let mut known = self.known.lock();
        // A restart keeps the deaths of earlier runs, by which it is limited.
        let task = known.entry(name).or_insert_with(|| Task {
            is_running: true,
            deaths: Vec::new(),
            restarts: 0,
            reason: None,
            last_beat: None,
        });
        task.is_running = true;
    }

    fn ended(&self, name: &str) {
        if let Some(task) = self.known.lock().get_mut(name) {
            task.is_running = false;
        }
    }

    /// Notes the death of a task. Returns the pause before its restart; `None` if it died too often.
    fn died(&self, name: &str, reason: &str) -> Option<Duration> {
        let now = Instant::now();
        let mut known = self.known.lock();
        let task = known.get_mut(name)?;
        // Without its beat a dead task does not also count as stalled.
        (task.is_running, task.last_beat, task.reason) = (false, None, Some(reason.to_owned()));
        task.deaths.retain(|death| now.saturating_duration_since(*death) < RESTART_WINDOW);
        task.deaths.push(now);
        let times = task.deaths.len();
        if times > MAX_RESTARTS {
            return None;
        }
        task.restarts += 1;
        // Longer each time: a cause outside of the task may need a while to pass.
        Some(FIRST_PAUSE * 2_u32.pow(u32::try_from(times - 1).unwrap_or(0)))
    }
}

fn state(task: &Task) -> &'static str {
    match task.last_beat {
        _ if !task.is_running => "ended",
        Some(beat) if beat.elapsed() > STALL_TIME => "stands still",
        Some(_) | None => "runs",
    }
}

/// Runs a task to its end or its panic.
async fn run<T>(name: &str, work: impl Future<Output = T>) -> Result<T, String> {
    let work = async {
        tokio::pin!(work);
        tokio::select! {
            value = &mut work => value,
            fate = test_hooks::doom(name) => match fate {
                Fate::Panics => panic!("the {name} was ordered to panic by a test"),
                // The task is kept and not polled any more.
                Fate::Stalls => std::future::pending().await,
            },
        }
    };
    caught(work).await
}

/// Runs a future and catches its panic.
///
/// # Errors
/// It panicked: the message of the panic.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    // Unwind safe, because the state of a panicked future is dropped with it.
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.map_err(|panic| logging::reason(&*panic).to_owned())
}

/// A guard that ends the host if a panic drops it.
pub(crate) struct Guard {
    tasks: Arc<Tasks>,
    name: &'static str,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The guard is also dropped when its owner ends as it should.
        if std::thread::panicking() {
            self.tasks.fail(self.name, "it panicked; the line before says where");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tasks: &Tasks, name: &str) -> (String, u64, Option<String>) {
        let task = tasks.status().into_iter().find(|task| task.name == name).unwrap();
        (task.state, task.restarts, task.reason)
    }

    #[tokio::test]
    async fn vital_tasks_that_panic_or_end_early_end_the_host() {
        for (early, expected) in [(false, "a task of the host died (x): boom"), (true, "it ended before its time")] {
            let tasks = Arc::<Tasks>::default();
            assert!(tasks.are_well());
            let work = async move { assert!(early, "boom") };
            let ended = tasks.vital("x", CancellationToken::new(), work).await.unwrap();
            assert_eq!(ended.is_some(), early);
            assert!(tasks.until_failed().await.contains(expected), "{:?}", tasks.failed());
            assert!(!tasks.are_well());
            assert_eq!(found(&tasks, "x").0, "ended");
        }
    }

    #[tokio::test]
    async fn tasks_may_end_with_the_host() {
        let (tasks, stop) = (Arc::<Tasks>::default(), CancellationToken::new());
        stop.cancel();
        assert_eq!(tasks.vital("x", stop.clone(), async { 7 }).await.unwrap(), Some(7));
        tasks.lasting("y", stop, || async {});
        assert_eq!(tasks.failed(), None);
    }

    #[tokio::test]
    async fn lasting_tasks_restart_until_they_die_too_often() {
        let (tasks, stop) = (Arc::<Tasks>::default(), CancellationToken::new());
        let (lived, mut lives) = watch::channel(0_u32);
        let lived = Arc::new(lived);
        let make = {
            let lived = Arc::clone(&lived);
            move || {
                let lived = Arc::clone(&lived);
                async move {
                    lived.send_modify(|lives| *lives += 1);
                    panic!("boom {}", *lived.borrow());
                }
            }
        };
        tasks.lasting("x", stop, make);
        lives.wait_for(|lives| *lives == 2).await.unwrap();
        assert_eq!(tasks.failed(), None, "made again");
        assert!(tasks.until_failed().await.ends_with("boom 6"), "{:?}", tasks.failed());
        assert_eq!(found(&tasks, "x"), ("ended".to_owned(), 5, Some("boom 6".to_owned())));
    }

    #[test]
    fn guards_end_the_host_and_threads_run_again() {
        let tasks = Arc::<Tasks>::default();
        drop(tasks.guard("x"));
        assert_eq!(tasks.failed(), None);
        let guarded = AssertUnwindSafe(|| {
            let _guard = tasks.guard("x");
            panic!("boom");
        });
        assert!(std::panic::catch_unwind(guarded).is_err());
        assert!(tasks.failed().is_some());
        let left = std::cell::Cell::new(3);
        tasks.until_done("z", || {
            left.set(left.get() - 1);
            assert!(left.get() == 0, "boom");
        });
        assert_eq!((left.get(), found(&tasks, "z").1), (0, 2));
    }

    #[tokio::test]
    async fn stalled_tasks_are_not_alive() {
        let tasks = Arc::<Tasks>::default();
        tasks.begin("x");
        assert!(tasks.are_alive(Duration::ZERO), "it never said that it comes round");
        tasks.beat("x");
        assert!(tasks.are_alive(Duration::from_secs(9)) && !tasks.are_alive(Duration::ZERO));
        tasks.ended("x");
        assert!(tasks.are_alive(Duration::ZERO));
    }
}
