//! A message in hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::mailbox::{Lane, Rank, Taken};

use super::queue::Slot;
use super::shadow::Recorder;
use super::stats::End;
use super::{InFlight, Revision};
use crate::clock;
use crate::wasm::Envelope;

/// A message in hand: its place in the mailbox, who handles it, and since when.
pub(super) struct Handling {
    pub(super) flight: InFlight,
    pub(super) lane: Lane<u64>,
    pub(super) rank: Rank,
    pub(super) since: u64,
    /// The revision with which its conversation goes on, which need not be the one that handles this attempt.
    pub(super) goes_on: u64,
    pub(super) began: Instant,
    /// The same in milliseconds since 1970.
    pub(super) began_at: u64,
    /// How long it took until the handler was done.
    pub(super) took: Duration,
    /// Its time on a core.
    pub(super) cpu: Duration,
    /// Set when the agent ended it and failed: whether by its own fault.
    pub(super) failed: Option<bool>,
    /// What is noted for a copy, if one is made.
    pub(super) recorder: Option<Box<Recorder>>,
    /// Its answer as it is kept for rehearsals, if they are declared.
    pub(super) answer: Option<Vec<u8>>,
}

impl Handling {
    /// Which revision handles it.
    pub(super) fn revision(&self) -> &Arc<Revision> {
        &self.flight.revision
    }

    /// When its handling has to be done, and how long it may take: by the limit of who handles it, or by what its sender
    /// waits.
    pub(super) fn time(&self, envelope: &Envelope) -> (Instant, Duration) {
        let limit = self.revision().spec.limits.time;
        let deadline = self.began + limit;
        match envelope.deadline.filter(|theirs| *theirs < deadline) {
            Some(theirs) => (theirs, theirs.saturating_duration_since(self.accepted(envelope))),
            None => (deadline, limit),
        }
    }

    fn accepted(&self, envelope: &Envelope) -> Instant {
        envelope.accepted.unwrap_or(self.began)
    }

    /// What is counted of it, which ends `now`; `well` is none while there is another attempt to come.
    pub(super) fn end(&self, envelope: &Envelope, well: Option<bool>, now: Instant) -> End {
        End {
            well,
            waited: match envelope.due {
                // Until then it had not to come.
                Some(due) => Duration::from_millis(clock::steady_at(self.began).saturating_sub(due)),
                None => self.began.saturating_duration_since(self.accepted(envelope)),
            },
            took: now.saturating_duration_since(self.began),
            cpu: self.cpu,
        }
    }

    /// What is noted for a copy, if one is made.
    pub(super) fn take_recorder(&mut self) -> Option<Box<Recorder>> {
        self.recorder.take()
    }

    /// Its place, to be taken again with a message.
    pub(super) fn into_taken(self, message: Slot) -> (Taken<u64, Slot>, InFlight) {
        let Self { lane, rank, since, goes_on, flight, .. } = self;
        (Taken { lane, rank, since, follows: Some(goes_on), message }, flight)
    }

    /// Its place, which is left.
    pub(super) fn into_lane(self) -> (Lane<u64>, u64, InFlight) {
        (self.lane, self.goes_on, self.flight)
    }
}
