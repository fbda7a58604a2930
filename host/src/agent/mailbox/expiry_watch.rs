//! The time at which the waiting messages of a mailbox are scanned for expired ones.

/// The shortest pause between two scans in milliseconds: they take O(messages), and thus little of the time, however
/// many expire one after the other.
const PAUSE: u64 = 1_000;

/// The time of the next scan for expired messages.
#[derive(Debug)]
pub(super) struct ExpiryWatch {
    /// The time before which no message expires, by the steady clock; `u64::MAX` for never.
    expires_at: u64,
    /// The earliest time of the next scan.
    rests_until: u64,
}

impl Default for ExpiryWatch {
    /// Returns the watch of an empty mailbox.
    fn default() -> Self {
        Self { expires_at: u64::MAX, rests_until: 0 }
    }
}

impl ExpiryWatch {
    /// Returns the watch after a scan `now` that left messages of which the first expires at `expires_at`.
    pub(super) fn after_scan(expires_at: u64, now: u64) -> Self {
        Self { expires_at, rests_until: now + PAUSE }
    }

    /// Registers the time at which a message expires. Returns `true` if it is the earliest one.
    pub(super) fn watch(&mut self, expires_at: u64) -> bool {
        // Only the earliest time is kept: a time for each message would be a second queue.
        let is_earliest = expires_at < self.expires_at;
        if is_earliest {
            self.expires_at = expires_at;
        }
        is_earliest
    }

    /// Schedules a scan at once, because a clock was set.
    pub(super) fn scan_soon(&mut self) {
        if self.expires_at < u64::MAX {
            *self = Self { expires_at: 0, rests_until: 0 };
        }
    }

    /// Returns the time of the next scan; `None` for never.
    pub(super) fn next(&self) -> Option<u64> {
        (self.expires_at < u64::MAX).then(|| self.expires_at.max(self.rests_until))
    }
}
