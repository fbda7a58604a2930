//! Runs of handlers that ended in a conflict.

use std::collections::BTreeSet;

use super::requests::RequestLog;
use super::reservation::Reservation;

/// The record of a run that ended in a conflict.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// The key that another handler has changed, or has reserved.
    pub(crate) key: String,
    /// The keys that the run read or wrote.
    pub(crate) keys: BTreeSet<String>,
    /// The recorded requests of the run.
    pub(crate) requests: RequestLog,
    /// Set if a part of the run is committed, so that it cannot be repeated.
    pub(crate) partly_committed: bool,
}

/// The record of a handling whose runs have ended in conflicts.
#[derive(Debug)]
pub(crate) struct ConflictHistory {
    /// The number of those runs.
    pub(crate) runs: u32,
    /// The keys that they touched, which are reserved for the next run.
    pub(crate) keys: BTreeSet<String>,
    /// The recorded requests.
    pub(crate) requests: RequestLog,
    /// The reservation of the keys.
    pub(crate) reservation: Reservation,
}
