//! The times of one call over HTTP.

use std::time::Duration;

use caxton_control::outgoing::OutgoingSpec;
use tokio::time::Instant;

use crate::message::{CallTimeouts, HttpCallError};

/// The times of one call: those of the host, shortened by the guest, and never past the end of the message.
pub(super) struct CallTimes {
    pub(super) began: Instant,
    pub(super) connect: Duration,
    pub(super) first_byte: Duration,
    pub(super) stall: Duration,
    pub(super) between_bytes: Duration,
    pub(super) deadline: Instant,
}

impl CallTimes {
    pub(super) fn new(spec: &OutgoingSpec, asked: CallTimeouts, deadline: std::time::Instant) -> Self {
        let shorter = |host: Duration, asked: Option<Duration>| asked.map_or(host, |asked| asked.min(host));
        Self {
            began: Instant::now(),
            connect: shorter(spec.connect_timeout, asked.connect),
            first_byte: shorter(spec.first_byte_timeout, asked.first_byte),
            stall: spec.stall_timeout,
            between_bytes: shorter(spec.stall_timeout, asked.between_bytes),
            deadline: deadline.into(),
        }
    }

    pub(super) fn connect_by(&self) -> Instant {
        (self.began + self.connect).min(self.deadline)
    }

    /// Returns the error of a step that is late: of the message, if its time is over.
    pub(super) fn late(&self, error: HttpCallError) -> HttpCallError {
        if Instant::now() >= self.deadline { HttpCallError::TimeOver } else { error }
    }
}
