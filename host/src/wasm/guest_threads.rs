//! Threads for guests that compute, apart from those that do I/O.
//!
//! ```text
//! I/O thread: poll, guest runs -- first slice used up --> queue --> a thread here: a slice --> queue --> ... --> result
//! ```
//! A guest begins where its message is, because a change of threads costs more than a short call. One that computes for
//! longer would keep connections and other messages from their thread for a slice at a time, and many would do so one
//! after the other. It moves here with all that its task has in hand. The threads take slices in turn; the system
//! prefers other threads of the host to them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use async_task::{Builder, Runnable, Task};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;

/// The priority of these threads below that of others. One whose slice is over in turn with a guest's would wait for as
/// long as the system's own slices are; with a lower weight these are preempted as soon as another thread wakes.
const NICENESS: i32 = 5;
/// The lowest priority that the system has.
const LEAST_PRIORITY: i32 = 19;

thread_local! {
    /// Set on the threads for guests.
    static IS_HERE: Cell<bool> = const { Cell::new(false) };
    /// Set if the guest that was polled last on this thread is to move.
    static IS_ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Returns `true` on a thread for guests.
pub(crate) fn is_here() -> bool {
    IS_HERE.get()
}

/// Asks that what is being polled moves to the threads for guests, if it is [`Movable`].
pub(in crate::wasm) fn ask_to_move() {
    IS_ASKED.set(true);
}

/// The threads for guests. They start with the first guest, and end when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct GuestThreads(Arc<ThreadOwner>);

struct ThreadOwner {
    shared: Arc<GuestQueue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct GuestQueue {
    queue: Mutex<ReadyGuests>,
    woken: Condvar,
    /// The runtime of what guests start and wait for.
    runtime: Handle,
}

#[derive(Default)]
struct ReadyGuests {
    /// The guests that are to run, each for one slice.
    ready: VecDeque<Runnable>,
    is_closed: bool,
}

impl GuestThreads {
    /// Creates the handle. What guests start there runs on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        let shared = Arc::new(GuestQueue { queue: Mutex::default(), woken: Condvar::new(), runtime });
        Self(Arc::new(ThreadOwner { shared, threads: Mutex::default() }))
    }

    /// Makes a future movable.
    pub(crate) fn movable<T>(&self, future: Pin<Box<dyn Future<Output = T> + Send>>) -> Movable<T> {
        Movable { threads: self.clone(), run: Whereabouts::Here(future) }
    }

    /// Ends the threads once their slices are over. What runs there is dropped.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    fn spawn<T: Send + 'static>(&self, future: Pin<Box<dyn Future<Output = T> + Send>>) -> Task<T> {
        self.0.start();
        let shared = Arc::clone(&self.0.shared);
        // A panic goes to whoever awaits the result, as it would without the move.
        let builder = Builder::new().propagate_panic(true);
        let (runnable, task) = builder.spawn(|()| future, move |runnable| shared.put(runnable));
        runnable.schedule();
        task
    }
}

impl ThreadOwner {
    fn start(&self) {
        let mut threads = self.threads.lock();
        if !threads.is_empty() {
            return;
        }
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        threads.extend((0..count).map(|_| {
            let shared = Arc::clone(&self.shared);
            std::thread::Builder::new()
                .name("caxton-guest".to_owned())
                .spawn(move || shared.run())
                .expect("the system can start a thread")
        }));
    }

    fn close(&self) {
        let left = {
            let mut queue = self.shared.queue.lock();
            queue.is_closed = true;
            std::mem::take(&mut queue.ready)
        };
        self.shared.woken.notify_all();
        // Without the lock, which dropping a guest may take: it wakes others.
        drop(left);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // The last handle may be dropped by a guest.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for ThreadOwner {
    fn drop(&mut self) {
        self.close();
    }
}

impl GuestQueue {
    fn put(&self, runnable: Runnable) {
        let refused = {
            let mut queue = self.queue.lock();
            if queue.is_closed {
                Some(runnable)
            } else {
                queue.ready.push_back(runnable);
                None
            }
        };
        match refused {
            // Without the lock, as above.
            Some(runnable) => drop(runnable),
            None => drop(self.woken.notify_one()),
        }
    }

    fn next(&self) -> Option<Runnable> {
        let mut queue = self.queue.lock();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(runnable) = queue.ready.pop_front() {
                return Some(runnable);
            }
            self.woken.wait(&mut queue);
        }
    }

    fn run(&self) {
        IS_HERE.set(true);
        // Of this thread alone. Without it guests only run at the priority of others.
        if let Err(error) = lower_priority() {
            tracing::debug!(%error, "the priority of a thread for guests could not be lowered");
        }
        // Timers and tasks of what a guest calls belong to a runtime, which is not that of this thread.
        let _runtime = self.runtime.enter();
        while let Some(runnable) = self.next() {
            runnable.run();
        }
    }
}

/// Lowers the priority of this thread below that of the host's others, which may have been lowered too.
fn lower_priority() -> rustix::io::Result<()> {
    let of_host = rustix::process::getpriority_process(None)?;
    rustix::process::setpriority_process(None, (of_host + NICENESS).min(LEAST_PRIORITY))
}

/// A future that moves to the threads for guests when a guest in it has used up its first slice. Dropping it drops what
/// it does, also there.
#[must_use = "a future does nothing unless it is polled"]
pub(crate) struct Movable<T> {
    threads: GuestThreads,
    run: Whereabouts<T>,
}

enum Whereabouts<T> {
    /// The future is polled by its owner.
    Here(Pin<Box<dyn Future<Output = T> + Send>>),
    /// The future is polled by the threads for guests.
    Apart(Task<T>),
    /// The future is about to move.
    Between,
}

impl<T: Send + 'static> Future for Movable<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        if let Whereabouts::Here(future) = &mut this.run {
            // Left over from something that cannot move.
            IS_ASKED.set(false);
            let polled = future.as_mut().poll(cx);
            if polled.is_ready() || !IS_ASKED.take() {
                return polled;
            }
            if let Whereabouts::Here(future) = std::mem::replace(&mut this.run, Whereabouts::Between) {
                this.run = Whereabouts::Apart(this.threads.spawn(future));
            }
        }
        match &mut this.run {
            Whereabouts::Apart(task) => Pin::new(task).poll(cx),
            Whereabouts::Here(_) | Whereabouts::Between => unreachable!("it was moved above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Waits once, after it asked to move if `asks`; returns `true` if it went on on a thread for guests.
    async fn moves(asks: bool) -> bool {
        let mut first = true;
        poll_fn(|cx| {
            if !std::mem::take(&mut first) {
                return Poll::Ready(is_here());
            }
            if asks {
                ask_to_move();
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    #[test]
    fn the_priority_is_below_that_of_the_host() {
        // On a thread of its own, whose priority cannot be raised again.
        let priorities = std::thread::spawn(|| {
            let mut before = [rustix::process::getpriority_process(None).unwrap(), 0, 0];
            lower_priority().unwrap();
            before[1] = rustix::process::getpriority_process(None).unwrap();
            lower_priority().unwrap();
            before[2] = rustix::process::getpriority_process(None).unwrap();
            before
        });
        let [of_host, lower, lowest] = priorities.join().unwrap();
        assert!(of_host < lower && lower <= lowest && lowest <= LEAST_PRIORITY, "{of_host} {lower} {lowest}");
    }

    #[tokio::test]
    async fn only_what_asks_to_moves() {
        let threads = GuestThreads::new(Handle::current());
        for asks in [false, true, false, true] {
            assert_eq!(threads.movable(Box::pin(moves(asks))).await, asks);
            assert!(!is_here());
        }
    }

    #[tokio::test]
    async fn timers_and_tasks_of_what_moved_are_of_the_runtime() {
        let threads = GuestThreads::new(Handle::current());
        let moved = threads.movable(Box::pin(async {
            assert!(moves(true).await);
            let timer = std::time::Duration::from_millis(1);
            tokio::time::timeout(timer, std::future::pending::<()>()).await.unwrap_err();
            let elsewhere = tokio::spawn(async { is_here() }).await.unwrap();
            (elsewhere, is_here())
        }));
        assert_eq!(moved.await, (false, true));
    }

    #[tokio::test]
    async fn what_moved_is_dropped_with_its_owner() {
        struct Told(Arc<AtomicBool>, Arc<tokio::sync::Notify>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
                self.1.notify_one();
            }
        }
        let threads = GuestThreads::new(Handle::current());
        let (dropped, told) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
        let held = Told(Arc::clone(&dropped), Arc::clone(&told));
        let mut moved = threads.movable(Box::pin(async move {
            let _held = held;
            moves(true).await;
            std::future::pending::<()>().await;
        }));
        poll_fn(|cx| {
            assert!(Pin::new(&mut moved).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(matches!(moved.run, Whereabouts::Apart(_)));
        drop(moved);
        told.notified().await;
        assert!(dropped.load(Ordering::SeqCst));
    }

    #[tokio::test]
    #[should_panic(expected = "as it is")]
    async fn a_panic_goes_to_the_owner() {
        let threads = GuestThreads::new(Handle::current());
        let moved = threads.movable(Box::pin(async {
            moves(true).await;
            panic!("as it is");
        }));
        let () = moved.await;
    }
}
