//! The task that works off the queue: the candidate handles each copy, and its answer is compared.

use std::sync::Arc;

use caxton_control::rollout::comparison::{Answer, AnswerDifference, Effect, IgnoredPaths, compare};
use tokio::sync::mpsc;

use super::difference::{MAX_LEARNED, learn, shortened, shown};
use super::handler_answer::{answer, fault_answer};
use super::job_queue::{Shadow, ShadowJob, Subject};
use super::replay::ReplayHost;
use super::{http_job, sandbox};
use crate::agent::Directory;
use crate::api_types::DifferingMessage;
use crate::clock;
use crate::context::HostContext;
use crate::message::GuestHost;
use crate::wasm::Pool;

/// The number of first copies that the stable revision handles again even if the candidate's answer is alike, to learn
/// which paths differ by nature.
const CONTROLS: u32 = 20;
/// The most runs of the stable revision for a copy whose answers differ: paths that differ by nature may come out alike
/// by chance.
const CONTROLS_OF_DIFFERENT: u32 = 3;
/// The most messages with differences that are stored of a rollout, and the bytes of all of them.
const MAX_STORED: u64 = 100;
const MAX_STORED_BYTES: u64 = 256 << 10;

/// A task that compares one copy at a time, so that copies take at most one core from live messages.
pub(super) struct Comparer {
    pub(super) shadow: Arc<Shadow>,
    pub(super) context: Arc<HostContext>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) stable: Arc<Pool>,
    pub(super) candidate: Arc<Pool>,
    /// The number of copies after which the rollout may go on.
    pub(super) min_messages: u64,
    pub(super) ignore: IgnoredPaths,
    /// The paths that differ by nature.
    pub(super) by_nature: Vec<String>,
    /// The copies compared so far.
    pub(super) controls: u32,
    /// The messages with differences that are stored, and their bytes.
    pub(super) stored: (u64, u64),
}

impl Comparer {
    /// Works off the queue until the comparison is stopped.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<ShadowJob>) {
        let stop = self.shadow.stopped();
        // The host may have stopped and started during the rollout. Unreadable: nothing is added that might be too
        // much.
        self.stored = self
            .context
            .store
            .rollouts()
            .differences_size(self.shadow.agent(), self.shadow.rollout())
            .unwrap_or((MAX_STORED, MAX_STORED_BYTES));
        loop {
            let job = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                job = jobs.recv() => job,
            };
            // The shadow has the sender and is held here, so that the channel is never closed.
            let Some(job) = job else { return };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.process(&job) => {}
            }
            self.shadow.release(job.bytes);
            // A long queue must not keep live work of the same thread waiting.
            tokio::task::yield_now().await;
        }
    }

    async fn process(&mut self, job: &ShadowJob) {
        let Some(differences) = self.compare(job).await else { return self.shadow.set_aside() };
        let is_alike = differences.is_empty();
        let (compared, unlike) = self.shadow.count_comparison(is_alike);
        if !is_alike {
            self.store(job, differences);
        }
        // The reconciler checks at intervals by itself. It is woken early when a decision may change: at powers of two,
        // so that a candidate that always differs does not wake it with every message.
        if compared == self.min_messages || (!is_alike && unlike.is_power_of_two()) {
            self.context.wake(Arc::clone(self.shadow.agent()));
        }
    }

    /// Returns the differences that are not by nature; `None` if they cannot be known.
    async fn compare(&mut self, job: &ShadowJob) -> Option<Vec<AnswerDifference>> {
        // The candidate runs first: values that grow with time then differ even more in the stable revision's later
        // run, and are learned.
        let candidate = self.answer(&self.candidate, job).await?;
        let mut found = compare(&job.answer, &candidate, &self.ignore);
        // The running revision would be refused its calls as well, and the difference would pass for one by nature.
        if found.iter().any(|difference| is_refused_call(&candidate, difference)) {
            return Some(found);
        }
        let mut runs = if found.is_empty() { u32::from(self.controls < CONTROLS) } else { CONTROLS_OF_DIFFERENT };
        self.controls = self.controls.saturating_add(1);
        while runs > 0 {
            runs -= 1;
            let again = self.answer(&self.stable, job).await?;
            if again.reply.is_ok() != job.answer.reply.is_ok() {
                // The stable revision failed by chance, now or then: neither answer is a reference.
                return None;
            }
            self.learn(&compare(&job.answer, &again, &self.ignore));
            found = compare(&job.answer, &candidate, &self.ignore);
            if found.is_empty() {
                break;
            }
        }
        Some(found)
    }

    /// Ignores paths at which the stable revision differs from itself, and stores them for `rollout differences`.
    fn learn(&mut self, differences: &[AnswerDifference]) {
        // Bounded: an answer with random keys would add paths for ever.
        if differences.is_empty() || self.by_nature.len() >= MAX_LEARNED {
            return;
        }
        let new = learn(&mut self.ignore, differences);
        if new.is_empty() {
            return;
        }
        tracing::info!(agent = %self.shadow.agent(), "differs by nature, and is not compared: {}", new.join(", "));
        self.by_nature.extend(new.iter().map(|path| shortened(path)));
        let paths = serde_json::to_string(&self.by_nature).expect("paths are text");
        // Number 0 is the record of the paths; those of messages begin with 1.
        self.context.store.rollouts().keep_difference(Arc::clone(self.shadow.agent()), self.shadow.rollout(), 0, paths);
    }

    /// Returns the answer of a revision to a copy; `None` if the host could not provide what it asked for.
    async fn answer(&self, pool: &Arc<Pool>, job: &ShadowJob) -> Option<Answer> {
        let replay = ReplayHost::new(&self.directory, &self.shadow, &job.recording, job.mark);
        let outside = Arc::clone(&replay) as Arc<dyn GuestHost>;
        let answered = match &job.subject {
            Subject::Message(message, hops) => sandbox::handle(pool, message, *hops, outside)
                .await
                .map(|(result, effects)| answer(&result, &effects, replay.take_requests())),
            Subject::Call(call) => {
                http_job::handle(pool, call, outside, self.context.guests.clone()).await.map(|mut answer| {
                    // As with messages, a failure leaves no effects to compare.
                    if answer.reply.is_ok() {
                        answer.effects.extend(replay.take_requests());
                    }
                    answer
                })
            }
        };
        // Checked before the answer: a handler that got an error from the replay may still answer.
        if replay.is_incomplete() {
            return None;
        }
        match answered {
            Ok(answer) => Some(answer),
            Err(fault) if fault.is_guests() => Some(fault_answer(&fault)),
            // A fault of the host says nothing about either revision.
            Err(_) => None,
        }
    }

    /// Stores the differences of a message while there is room.
    fn store(&mut self, job: &ShadowJob, differences: Vec<AnswerDifference>) {
        let (messages, bytes) = self.stored;
        if messages >= MAX_STORED || bytes >= MAX_STORED_BYTES {
            return;
        }
        let (message, sender, conversation) = match &job.subject {
            Subject::Message(message, _) => {
                (message.id.clone(), message.sender.clone(), message.conversation_id.clone())
            }
            // A call has no id of its own.
            Subject::Call(call) => (call.conversation.clone(), call.request_line(), call.conversation.clone()),
        };
        let differing = DifferingMessage {
            message,
            sender,
            conversation,
            at: clock::now_ms(),
            differences: differences.into_iter().map(shown).collect(),
        };
        let record = serde_json::to_string(&differing).expect("it is text and numbers");
        // Counted even if it is too large: a later, smaller one would otherwise appear to be the first.
        self.stored = (messages + 1, bytes + record.len() as u64);
        if bytes + record.len() as u64 <= MAX_STORED_BYTES {
            self.context.store.rollouts().keep_difference(
                Arc::clone(self.shadow.agent()),
                self.shadow.rollout(),
                messages + 1,
                record,
            );
        }
    }
}

/// Returns `true` for a difference that is there because a copy makes no calls over HTTP.
fn is_refused_call(candidate: &Answer, difference: &AnswerDifference) -> bool {
    let makes_none = candidate.effects.iter().any(|effect| matches!(effect, Effect::Call { refused: true, .. }));
    makes_none && difference.path.starts_with("calls")
}
