//! A message in hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::mailbox::{Lane, Priority, TakenMessage};

use crate::agent::delivery::budget::within;
use crate::agent::mailbox::entry::QueuedMessage;
use crate::agent::shadow::Recorder;
use crate::agent::stats::HandlingEnd;
use crate::agent::{InFlight, Revision};
use crate::clock;
use crate::message::{Envelope, Fault};

/// A message in hand: its place in the mailbox, the revision that handles it, its times.
pub(in crate::agent) struct Handling {
    pub(in crate::agent) flight: InFlight,
    pub(in crate::agent) lane: Lane<u64>,
    pub(in crate::agent) rank: Priority,
    pub(in crate::agent) since: u64,
    /// The revision with which its conversation goes on, which need not be the one that handles this attempt.
    pub(in crate::agent) next_revision: u64,
    pub(in crate::agent) started: Instant,
    /// The value of `started` in milliseconds since 1970.
    pub(in crate::agent) started_at: u64,
    /// The time until the handler was done.
    pub(in crate::agent) took: Duration,
    /// The CPU time.
    pub(in crate::agent) cpu: Duration,
    /// Set when the agent ended it and failed: whether by its own fault.
    pub(in crate::agent) failed: Option<bool>,
    /// The recording for a shadow, if there is one.
    pub(in crate::agent) recorder: Option<Box<Recorder>>,
    /// The encoded answer for rehearsals, if they are declared.
    pub(in crate::agent) answer: Option<Vec<u8>>,
    /// The encoded answers to its calls over HTTP, for the same.
    pub(in crate::agent) calls: Option<Vec<u8>>,
}

impl Handling {
    /// Notes that the guest failed, after so much time on a core.
    pub(in crate::agent) fn note_fault(&mut self, fault: &Fault, cpu: Duration) {
        self.cpu = cpu;
        if let Some(recorder) = &mut self.recorder {
            recorder.failed(fault);
        }
    }

    /// Returns the revision that handles the message.
    pub(in crate::agent) fn revision(&self) -> &Arc<Revision> {
        &self.flight.revision
    }

    /// Returns the deadline of the handling and the time it has in all: by the revision's limit, or the sender's
    /// deadline if that is earlier.
    pub(in crate::agent) fn time(&self, envelope: &Envelope) -> (Instant, Duration) {
        let limit = self.revision().spec.limits.time;
        let own = self.started + limit;
        let deadline = within(envelope.tree(), own);
        match envelope.deadline.filter(|theirs| *theirs < deadline) {
            Some(theirs) => (theirs, theirs.saturating_duration_since(self.accepted_at(envelope))),
            None if deadline < own => (deadline, deadline.saturating_duration_since(self.started)),
            None => (deadline, limit),
        }
    }

    fn accepted_at(&self, envelope: &Envelope) -> Instant {
        envelope.accepted.unwrap_or(self.started)
    }

    /// Returns the figures of a handling that ends `now`; `well` is `None` if another attempt follows.
    pub(in crate::agent) fn end(&self, envelope: &Envelope, succeeded: Option<bool>, now: Instant) -> HandlingEnd {
        HandlingEnd {
            succeeded,
            waited: match envelope.due {
                // A timer does not wait before it is due.
                Some(due) => Duration::from_millis(clock::steady_at(self.started).saturating_sub(due)),
                None => self.started.saturating_duration_since(self.accepted_at(envelope)),
            },
            took: now.saturating_duration_since(self.started),
            cpu: self.cpu,
        }
    }

    /// Counts a message that was handled for its revision.
    pub(in crate::agent) fn measure_well(&self) {
        self.revision().measure(Some(self.took), false);
    }

    /// Counts a failure for its revision once it is committed. Successes are counted as late: otherwise the first
    /// failures of a window would seem to be all of its messages.
    pub(in crate::agent) fn measure_failed(&self) {
        if let Some(faulty) = self.failed {
            self.revision().measure(None, faulty);
        }
    }

    /// Takes the recording.
    pub(in crate::agent) fn take_recorder(&mut self) -> Option<Box<Recorder>> {
        self.recorder.take()
    }

    /// Returns the place of the message, to be requeued with it.
    pub(in crate::agent) fn into_taken(self, message: QueuedMessage) -> (TakenMessage<u64, QueuedMessage>, InFlight) {
        let Self { lane, rank, since, next_revision, flight, .. } = self;
        // `since` is the old one, so that a message keeps its age through all attempts.
        (TakenMessage { lane, rank, since, follows: Some(next_revision), message }, flight)
    }

    /// Returns the place of the message, to be released.
    pub(in crate::agent) fn into_lane(self) -> (Lane<u64>, u64, InFlight) {
        (self.lane, self.next_revision, self.flight)
    }
}
