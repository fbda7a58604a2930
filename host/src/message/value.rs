//! Values of an agent's state: their expiry, their versions, and numbers among them.

use bytes::Bytes;

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    /// The bytes.
    pub(crate) bytes: Bytes,
    /// The expiry; `None` if it does not expire.
    pub(crate) expiry: Option<Expiry>,
}

/// The time at which a key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// The time by the wall clock, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The time to live of this call in milliseconds; `None` if the key had its expiry before.
    pub(crate) given: Option<u64>,
}

impl Expiry {
    /// Returns the time this many milliseconds from now, bounded by the store's signed integers, which reach beyond any
    /// clock.
    pub(crate) fn after(now: u64, ttl_ms: u64) -> Self {
        Self { at: now.saturating_add(ttl_ms).min(i64::MAX.unsigned_abs()), given: Some(ttl_ms) }
    }
}

impl Value {
    /// Creates a value that does not expire.
    pub(crate) fn lasting(bytes: Bytes) -> Self {
        Self { bytes, expiry: None }
    }

    /// Returns `false` once the value has expired.
    pub(crate) fn is_there(&self, now: u64) -> bool {
        self.expiry.is_none_or(|expiry| expiry.at > now)
    }

    /// Returns the time at which it expires, if it does.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        self.expiry.map(|expiry| expiry.at)
    }
}

/// Returns `true` if a key was not written since it was seen with the version `seen`, 0 if it did not exist. A value
/// that has expired meanwhile counts as unchanged: the commit is made as of the time of the read. A value that was seen
/// as expired counts as unchanged until it is written.
pub(crate) fn is_as_seen(seen: u64, version: u64, expires_at: Option<u64>, now: u64) -> bool {
    seen == version || (seen == 0 && expires_at.is_some_and(|at| at <= now))
}

/// The error of adding to a value that is not a number, or of a sum out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotANumber;

/// Adds to a number stored as decimal text.
pub(crate) fn sum(before: Option<&[u8]>, by: i64) -> Result<i64, NotANumber> {
    let before = match before {
        None => 0,
        Some(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<i64>().ok()).ok_or(NotANumber)?,
    };
    before.checked_add(by).ok_or(NotANumber)
}
