//! The calls of a journal in memory.

use std::collections::HashMap;

use caxton_control::journal::{CallKey, CallOutcome, JournaledCall, RequestHash};

use super::http_call::HttpCallError;
use super::recorded_response::SharedResponse;
use crate::memory_budget::Reservation;

/// The calls of a message, and those of the run in progress.
pub(super) struct JournalState {
    pub(super) calls: Vec<JournalEntry>,
    /// The number of the next entry.
    pub(super) next: u64,
    /// The number of calls of this run by request.
    pub(super) asked: HashMap<RequestHash, u32>,
    /// Set if calls of all places are kept for a run after a conflict.
    pub(super) follows_all: bool,
    /// Set while a handler runs again after a conflict.
    pub(super) is_rerun: bool,
    /// The bytes of responses that are kept with the message, in memory and in the store.
    pub(super) recorded: u64,
    /// The bytes of those that are in memory for a run after a conflict.
    pub(super) followed: u64,
    /// The memory of responses.
    pub(super) held: Reservation,
    /// Set once a row was written.
    pub(super) has_rows: bool,
}

/// A call in a journal.
pub(super) struct JournalEntry {
    /// The number in this process.
    pub(super) id: u64,
    /// The identity; `None` until the request has ended.
    pub(super) key: Option<CallKey>,
    /// The hash of the head of the request.
    pub(super) head: RequestHash,
    pub(super) outcome: CallOutcome,
    pub(super) is_kept: bool,
    pub(super) is_earlier: bool,
    pub(super) is_asked: bool,
    pub(super) line: String,
    /// The response, if it is in memory.
    pub(super) response: Option<SharedResponse>,
    /// The error that the guest got.
    pub(super) error: Option<HttpCallError>,
    /// The bytes of the response that are counted.
    pub(super) bytes: u64,
}

impl JournalState {
    /// Returns the number of a call among those of this run with the same request, and counts it.
    pub(super) fn number(&mut self, hash: RequestHash) -> u32 {
        let next = self.asked.entry(hash).or_default();
        *next += 1;
        *next - 1
    }

    /// Adds a call that begins. Returns its number.
    pub(super) fn add(&mut self, key: Option<CallKey>, head: RequestHash, line: &str, is_kept: bool) -> u64 {
        let id = self.next;
        self.next += 1;
        self.calls.push(JournalEntry::begun(id, key, head, line, is_kept));
        id
    }

    pub(super) fn entry(&mut self, key: CallKey) -> Option<&mut JournalEntry> {
        self.calls.iter_mut().find(|call| call.key == Some(key))
    }

    pub(super) fn by_id(&mut self, id: u64) -> Option<&mut JournalEntry> {
        self.calls.iter_mut().find(|call| call.id == id)
    }

    fn sum(&mut self, is_kept: bool) -> &mut u64 {
        if is_kept { &mut self.recorded } else { &mut self.followed }
    }

    /// Counts bytes of a response. Returns `false`, and counts nothing, if they are more than there is room for.
    pub(super) fn admit(&mut self, bytes: u64, most: u64, is_kept: bool) -> bool {
        // Apart: a download of another place must not take the room of a payment.
        let sum = self.sum(is_kept);
        let has_room = sum.saturating_add(bytes) <= most;
        if has_room {
            *sum += bytes;
        }
        has_room
    }

    /// Subtracts bytes that are recorded no more.
    pub(super) fn give_back(&mut self, bytes: u64, is_kept: bool) {
        let sum = self.sum(is_kept);
        *sum = sum.saturating_sub(bytes);
    }
}

impl JournalEntry {
    pub(super) fn begun(id: u64, key: Option<CallKey>, head: RequestHash, line: &str, is_kept: bool) -> Self {
        Self {
            id,
            key,
            head,
            outcome: CallOutcome::Unknown,
            is_kept,
            is_earlier: false,
            is_asked: true,
            line: line.to_owned(),
            response: None,
            error: None,
            bytes: 0,
        }
    }

    pub(super) fn as_recorded(&self) -> Option<JournaledCall> {
        let Self { outcome, is_kept, is_earlier, is_asked, .. } = *self;
        Some(JournaledCall { key: self.key?, outcome, is_kept, is_earlier, is_asked })
    }
}
