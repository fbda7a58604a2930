//! The handling of copies of messages, by which a candidate is tried without any effect.
//!
//! ```text
//! shadow:     stable handles a message; all that it reads is recorded (recorder) --> job_queue
//!               --> comparer: the candidate handles a copy and reads the recording (replay) --> answers are compared
//!                     '-- differ: stable handles the copy as well; paths in which it differs from itself are ignored
//! rehearsal/: the candidate handles the latest messages, each on a copy of the state as it is now
//! ```
//! Copies run on instances of their own, so that nothing they leave in memory meets a live message. Effects are
//! collected as usual, compared and dropped. A copy sends nothing: its requests and its calls over HTTP get the recorded
//! answers, or an error.

mod comparer;
mod difference;
mod handler_answer;
mod http_job;
mod http_recorder;
mod job_queue;
mod recent_writes;
mod recorder;
mod recording;
mod rehearsal;
mod replay;
mod replayed_calls;
mod sandbox;

use std::sync::Arc;

use caxton_control::memory::MemoryPriority;

use super::{Agent, Revision};
use crate::message::GuestHost;
use comparer::Comparer;
use sandbox::IdleHost;

pub(super) use http_recorder::HttpRecorder;
pub(crate) use job_queue::{Shadow, ShadowSettings};
pub(super) use recorder::Recorder;
pub(super) use rehearsal::encode_answer;
pub(crate) use rehearsal::{AnswerComparison, InitialMemory, RehearsalJob, RehearsalReport};
pub(super) use replayed_calls::encode_calls;

impl Agent {
    /// Starts a comparison: from now on the candidate handles copies of the messages of the stable revision.
    pub(crate) fn begin_shadow(
        &self,
        stable: &Arc<Revision>,
        candidate: &Arc<Revision>,
        settings: ShadowSettings,
    ) -> Arc<Shadow> {
        let (shadow, jobs) = Shadow::new(self.name.shared(), settings.rollout, stable.id.number);
        let idle = || Arc::new(IdleHost { saved: None }) as Arc<dyn GuestHost>;
        let comparer = Comparer {
            shadow: Arc::clone(&shadow),
            context: Arc::clone(&self.context),
            directory: Arc::clone(&self.directory),
            // Pools of their own: copies must neither delay live messages nor leave anything in their instances.
            stable: stable.pool.for_copies(idle()),
            candidate: candidate.pool.for_copies(idle()),
            min_messages: settings.min_messages,
            ignore: settings.ignore,
            by_nature: Vec::new(),
            controls: 0,
            stored: (0, 0),
        };
        // A panic ends the host: a comparison that ends silently would hold the rollout for ever.
        let guard = self.context.tasks.guard("shadow");
        tokio::spawn(async move {
            let _guard = guard;
            comparer.run(jobs).await;
        });
        // Last: from here on messages are recorded, for which the queue has to be there.
        self.shadow.store(Some(Arc::clone(&shadow)));
        shadow
    }

    /// Ends the comparison, if there is one. Jobs that wait are dropped.
    pub(crate) fn end_shadow(&self) {
        if let Some(shadow) = self.shadow.swap(None) {
            shadow.stop();
        }
    }

    /// Starts to record a handling by a revision; `None` if no copies of its messages are made, or there is no room.
    pub(in crate::agent) fn record(&self, revision: &Revision, hops: u32) -> Option<Box<Recorder>> {
        // Without a lock: this is asked for every message, and nearly always answered by no.
        let shadow = self.shadow.load();
        let shadow = shadow.as_ref().filter(|shadow| shadow.copies(revision.id.number))?;
        let has_room = self.context.memory.is_below(MemoryPriority::Copies);
        let Some(permit) = shadow.recorder_permit().filter(|_| has_room) else {
            // Counted, so that an operator sees how much of the traffic the comparison covers.
            shadow.set_aside();
            return None;
        };
        Some(Recorder::new(Arc::clone(shadow), Arc::clone(&self.directory), hops, permit))
    }

    /// Notes the keys of a commit, which copies of messages handled before may no longer read.
    pub(in crate::agent) fn note_writes<'a>(&self, keys: impl Iterator<Item = &'a String>) {
        if let Some(shadow) = &*self.shadow.load() {
            shadow.note_writes(keys);
        }
    }
}
