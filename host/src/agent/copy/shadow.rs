//! A candidate that handles copies of what the running revision handles.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use caxton_control::rollout::Compared;
use caxton_control::rollout::compare::{Answer, Difference, Ignore, compare};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::{Agent, Revision};
use super::answer::{answer, faulty};
use super::call::CallCopy;
use super::handle;
use super::replay::{Nothing, Replay};
use super::tape::{Recording, Tape};
use crate::agent::Directory;
use crate::api_types::{DifferingMessage, PathDifference};
use crate::clock;
use crate::context::HostContext;
use crate::wasm::{Outside, Pool, wit};

/// Copies that wait, and their bytes in all. One that comes when there are as many is left out and counted: nobody
/// waits for a copy.
const WAITING: usize = 256;
const WAITING_BYTES: usize = 32 << 20;
/// Handlings that are recorded at once.
const RECORDED: usize = 32;
/// Keys that are remembered as written since a copy was made. When there are more, all are forgotten, and what copies made
/// until then ask for beyond what was recorded is not known any more.
const WRITTEN: usize = 10_000;
/// The first so many copies are also handled by the running revision once more, to learn what differs by nature.
const CONTROLS: u32 = 20;
/// When the candidate differs, the running revision handles the copy so often at most: what differs by nature may come
/// out alike by chance.
const AGAIN: u32 = 3;
/// Paths that are learned, at most: answers with names made by chance would add one with every copy.
const LEARNED: usize = 1_000;
/// Messages with differences that are kept of a rollout, and their bytes in all.
const KEPT: u64 = 100;
const KEPT_BYTES: u64 = 256 << 10;
/// The longest path that is kept of a difference, in characters.
const MAX_PATH: usize = 300;

/// What a rollout compares.
#[derive(Debug)]
pub(crate) struct Shadowed {
    /// Whose copies.
    pub(crate) rollout: u64,
    /// How many copies are enough.
    pub(crate) enough: u64,
    /// Where answers may differ.
    pub(crate) ignore: Ignore,
}

/// A candidate that handles copies.
pub(crate) struct Shadow {
    agent: Arc<str>,
    rollout: u64,
    /// The number of the revision whose messages are copied.
    stable: u64,
    copies: mpsc::Sender<Copy>,
    bytes: AtomicUsize,
    recorded: Arc<Semaphore>,
    compared: AtomicU64,
    alike: AtomicU64,
    set_aside: AtomicU64,
    written: Mutex<Written>,
    stop: CancellationToken,
}

/// What was written since the first copy.
#[derive(Default)]
struct Written {
    /// Counts writes.
    count: u64,
    /// When a key was written last, by that count.
    keys: HashMap<String, u64>,
    /// Of what was written until then nothing is known.
    forgotten: u64,
}

/// What is handled once more.
pub(super) enum Asked {
    /// A message, with the length of its causes.
    Message(Box<wit::Message>, u32),
    /// A call over HTTP.
    Call(Box<CallCopy>),
}

/// A message or call that was handled, to be handled once more.
pub(super) struct Copy {
    pub(super) asked: Asked,
    pub(super) tape: Arc<Tape>,
    /// How much was written when it was handled.
    pub(super) began: u64,
    /// What stable made of it.
    pub(super) answer: Answer,
    pub(super) bytes: usize,
}

impl Shadow {
    /// How the copies were answered until now.
    pub(crate) fn compared(&self) -> Compared {
        Compared {
            copies: self.compared.load(Ordering::Relaxed),
            alike: self.alike.load(Ordering::Relaxed),
            set_aside: self.set_aside.load(Ordering::Relaxed),
        }
    }

    /// Whose it is.
    pub(crate) fn rollout(&self) -> u64 {
        self.rollout
    }

    /// Whether it still compares.
    pub(crate) fn is_on(&self) -> bool {
        !self.stop.is_cancelled()
    }

    /// Whether a key may have been written since a copy was made.
    pub(super) fn changed(&self, key: &str, began: u64) -> bool {
        self.written.lock().changed(key, began)
    }

    /// The same of all keys with a prefix.
    pub(super) fn changed_below(&self, prefix: &str, began: u64) -> bool {
        self.written.lock().changed_below(prefix, began)
    }

    /// Counts a message that is not compared.
    pub(super) fn set_aside(&self) {
        self.set_aside.fetch_add(1, Ordering::Relaxed);
        self.count("set-aside");
    }

    fn count(&self, outcome: &'static str) {
        let labels = [("agent", self.agent.to_string()), ("outcome", outcome.to_owned())];
        metrics::counter!("caxton_copies_total", &labels).increment(1);
    }

    /// Takes a copy in, if there is room.
    pub(super) fn offer(&self, copy: Copy) {
        let bytes = copy.bytes;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > WAITING_BYTES || self.copies.try_send(copy).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.set_aside();
        }
    }
}

impl Written {
    fn note<'a>(&mut self, keys: impl Iterator<Item = &'a String>) {
        self.count += 1;
        for key in keys {
            if self.keys.len() >= WRITTEN && !self.keys.contains_key(key) {
                self.keys.clear();
                self.forgotten = self.count;
            }
            self.keys.insert(key.clone(), self.count);
        }
    }

    fn changed(&self, key: &str, began: u64) -> bool {
        self.forgotten > began || self.keys.get(key).is_some_and(|at| *at > began)
    }

    fn changed_below(&self, prefix: &str, began: u64) -> bool {
        self.forgotten > began || self.keys.iter().any(|(key, at)| *at > began && key.starts_with(prefix))
    }
}

impl Agent {
    /// Lets a candidate handle copies of what the running revision handles, from now on.
    pub(crate) fn begin_shadow(
        &self,
        stable: &Arc<Revision>,
        candidate: &Arc<Revision>,
        what: Shadowed,
    ) -> Arc<Shadow> {
        let (copies, receiver) = mpsc::channel(WAITING);
        let shadow = Arc::new(Shadow {
            agent: self.name.shared(),
            rollout: what.rollout,
            stable: stable.id.number,
            copies,
            bytes: AtomicUsize::new(0),
            recorded: Arc::new(Semaphore::new(RECORDED)),
            compared: AtomicU64::new(0),
            alike: AtomicU64::new(0),
            set_aside: AtomicU64::new(0),
            written: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let nothing = || Arc::new(Nothing { saved: None }) as Arc<dyn Outside>;
        let comparer = Comparer {
            shadow: Arc::clone(&shadow),
            context: Arc::clone(&self.context),
            directory: Arc::clone(&self.directory),
            stable: stable.pool.for_copies(nothing()),
            candidate: candidate.pool.for_copies(nothing()),
            enough: what.enough,
            ignore: what.ignore,
            learned: Vec::new(),
            controls: 0,
            kept: (0, 0),
        };
        let guard = self.context.tasks.guard("shadow");
        tokio::spawn(async move {
            let _guard = guard;
            comparer.run(receiver).await;
        });
        self.shadow.store(Some(Arc::clone(&shadow)));
        shadow
    }

    /// Makes no more copies.
    pub(crate) fn end_shadow(&self) {
        if let Some(shadow) = self.shadow.swap(None) {
            shadow.stop.cancel();
        }
    }

    /// Begins to record a handling of a revision, if copies are made of them.
    pub(in crate::agent) fn record(&self, revision: &Revision, hops: u32) -> Option<Box<Recording>> {
        let shadow = self.shadow.load();
        let shadow = shadow.as_ref().filter(|shadow| shadow.stable == revision.id.number)?;
        let full = shadow.copies.capacity() == 0 || shadow.bytes.load(Ordering::Relaxed) >= WAITING_BYTES;
        let turn = if full { None } else { Arc::clone(&shadow.recorded).try_acquire_owned().ok() };
        let Some(turn) = turn else {
            shadow.set_aside();
            return None;
        };
        let began = shadow.written.lock().count;
        Some(Recording::new(Arc::clone(shadow), Arc::clone(&self.directory), began, hops, turn))
    }

    /// Notes that keys are written, for copies that are made of messages handled before.
    pub(in crate::agent) fn note_writes<'a>(&self, keys: impl Iterator<Item = &'a String>) {
        if let Some(shadow) = &*self.shadow.load() {
            shadow.written.lock().note(keys);
        }
    }
}

/// Compares, one copy at a time.
struct Comparer {
    shadow: Arc<Shadow>,
    context: Arc<HostContext>,
    directory: Arc<dyn Directory>,
    stable: Arc<Pool>,
    candidate: Arc<Pool>,
    enough: u64,
    ignore: Ignore,
    /// What differs by nature.
    learned: Vec<String>,
    /// Copies that stable handled as well.
    controls: u32,
    /// Messages with differences that are kept, and their bytes.
    kept: (u64, u64),
}

impl Comparer {
    async fn run(mut self, mut copies: mpsc::Receiver<Copy>) {
        let stop = self.shadow.stop.clone();
        self.kept =
            self.context.store.differences_size(&self.shadow.agent, self.shadow.rollout).unwrap_or((KEPT, KEPT_BYTES));
        loop {
            let copy = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                copy = copies.recv() => copy,
            };
            // The shadow itself keeps the other end.
            let Some(copy) = copy else { return };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.take(&copy) => {}
            }
            self.shadow.bytes.fetch_sub(copy.bytes, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    }

    /// Compares one copy, and counts it.
    async fn take(&mut self, copy: &Copy) {
        let Some(differences) = self.compare(copy).await else { return self.shadow.set_aside() };
        let alike = differences.is_empty();
        // First what agreed, so that nobody sees a difference that is none.
        self.shadow.alike.fetch_add(u64::from(alike), Ordering::Relaxed);
        let copies = self.shadow.compared.fetch_add(1, Ordering::Relaxed) + 1;
        let unlike = copies.saturating_sub(self.shadow.alike.load(Ordering::Relaxed));
        self.shadow.count(if alike { "alike" } else { "unlike" });
        if !alike {
            self.keep(copy, differences);
        }
        // The reconciler looks now and then by itself; here is more to see.
        if copies == self.enough || (!alike && unlike.is_power_of_two()) {
            self.context.wake(Arc::clone(&self.shadow.agent));
        }
    }

    /// Where the candidate differs from stable other than by nature; none if that cannot be known.
    async fn compare(&mut self, copy: &Copy) -> Option<Vec<Difference>> {
        // The candidate first: what grows with time differs even more from what stable does after it.
        let candidate = self.answer(&self.candidate, copy).await?;
        let mut found = compare(&copy.answer, &candidate, &self.ignore);
        let mut runs = if found.is_empty() { u32::from(self.controls < CONTROLS) } else { AGAIN };
        self.controls = self.controls.saturating_add(1);
        while runs > 0 {
            runs -= 1;
            let again = self.answer(&self.stable, copy).await?;
            if again.reply.is_ok() != copy.answer.reply.is_ok() {
                // It failed by chance, or did then: not one of its answers can be held against the candidate.
                return None;
            }
            self.learn(&compare(&copy.answer, &again, &self.ignore));
            found = compare(&copy.answer, &candidate, &self.ignore);
            if found.is_empty() {
                break;
            }
        }
        Some(found)
    }

    fn learn(&mut self, differences: &[Difference]) {
        if differences.is_empty() || self.learned.len() >= LEARNED {
            return;
        }
        let before = self.ignore.paths().len();
        self.ignore.learn(differences);
        let news = self.ignore.paths().split_off(before);
        if news.is_empty() {
            return;
        }
        tracing::info!(agent = %self.shadow.agent, "differs by nature, and is not compared: {}", news.join(", "));
        self.learned.extend(news.iter().map(|path| cut(path)));
        let learned = serde_json::to_string(&self.learned).expect("paths are text");
        self.context.store.keep_difference(Arc::clone(&self.shadow.agent), self.shadow.rollout, 0, learned);
    }

    /// What a revision makes of a copy; none if it is not its doing that this cannot be known.
    async fn answer(&self, pool: &Arc<Pool>, copy: &Copy) -> Option<Answer> {
        let replay = Replay::new(&self.directory, &self.shadow, &copy.tape, copy.began);
        let outside = Arc::clone(&replay) as Arc<dyn Outside>;
        let said = match &copy.asked {
            Asked::Message(message, hops) => handle(pool, message, *hops, outside)
                .await
                .map(|(result, effects)| answer(&result, &effects, replay.asked())),
            Asked::Call(call) => super::call::handle(pool, call, outside).await.map(|mut answer| {
                if answer.reply.is_ok() {
                    answer.effects.extend(replay.asked());
                }
                answer
            }),
        };
        if replay.is_lost() {
            return None;
        }
        match said {
            Ok(answer) => Some(answer),
            Err(fault) if fault.is_guests() => Some(faulty(&fault)),
            Err(_) => None,
        }
    }

    /// Keeps differences, as far as there is room.
    fn keep(&mut self, copy: &Copy, differences: Vec<Difference>) {
        let (messages, bytes) = self.kept;
        if messages >= KEPT || bytes >= KEPT_BYTES {
            return;
        }
        let (message, sender, conversation) = match &copy.asked {
            Asked::Message(message, _) => (message.id.clone(), message.sender.clone(), message.conversation_id.clone()),
            // A call has no id of its own.
            Asked::Call(call) => (call.conversation.clone(), call.line(), call.conversation.clone()),
        };
        let differing = DifferingMessage {
            message,
            sender,
            conversation,
            at: clock::now_ms(),
            differences: differences.into_iter().map(path_differs).collect(),
        };
        let record = serde_json::to_string(&differing).expect("it is text and numbers");
        self.kept = (messages + 1, bytes + record.len() as u64);
        if bytes + record.len() as u64 <= KEPT_BYTES {
            self.context.store.keep_difference(
                Arc::clone(&self.shadow.agent),
                self.shadow.rollout,
                messages + 1,
                record,
            );
        }
    }
}

/// A difference as it is kept and told.
pub(super) fn path_differs(found: Difference) -> PathDifference {
    PathDifference { path: cut(&found.path), stable: found.stable, candidate: found.candidate }
}

/// A path of a length that can be kept.
pub(super) fn cut(path: &str) -> String {
    match path.char_indices().nth(MAX_PATH) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_since_is_known_or_taken_for_so() {
        let mut written = Written::default();
        let keys = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        written.note(keys(&["a/1", "b"]).iter());
        let began = written.count;
        written.note(keys(&["a/2", "b"]).iter());
        for (key, changed) in [("a/1", false), ("a/2", true), ("b", true), ("c", false)] {
            assert_eq!(written.changed(key, began), changed, "{key}");
        }
        assert!(written.changed_below("a/", began) && !written.changed_below("c", began));
        assert!(!written.changed_below("", written.count));
        // More than can be remembered: nothing is known of what was then.
        let many: Vec<String> = (0..=WRITTEN).map(|nth| format!("k{nth}")).collect();
        written.note(many.iter());
        assert!(written.changed("c", began) && written.keys.len() <= WRITTEN);
        assert!(!written.changed("c", written.count), "what comes after it is known again");
    }
}
