//! The circuit breaker of an agent, which stops the delivery of messages while the agent fails (SPEC §7).
//!
//! ```text
//! closed --faults in a row, or half of the last 100--> open --reset--> half-open --a trial succeeds--> closed
//!                                                       ^                  |
//!                                                       '--the trial fails-'
//! ```
//! Faults are counted over different messages: a message that fails again says no more about the agent than the first
//! time, and its own attempts limit it. Otherwise a few messages that no agent could handle, retried together, would
//! keep all others waiting. For the same reason a trial is given a message that has not failed yet, if there is one
//! ([`Mailbox::take_trial`](crate::mailbox::Mailbox::take_trial)).
//!
//! Every call takes constant time.

use std::fmt;

/// The number of past handlings that the breaker remembers (SPEC §7).
const WINDOW: u32 = 100;

/// The number of faults among them that opens it: half (SPEC §7).
const HALF: u32 = WINDOW / 2;

/// A mask of the lowest [`WINDOW`] bits.
const MASK: u128 = (1 << WINDOW) - 1;

/// The tolerated disorder of times, in milliseconds. Callers read the clock before they lock the breaker, so a time may
/// be a little before the previous one. A larger step back means that the clock was set back.
const SKEW_MS: u64 = 1_000;

/// A circuit breaker: keeps messages from an agent that fails, and admits one now and then as a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// The number of consecutive faults that opens it.
    faults: u32,
    reset_ms: u64,
    in_a_row: u32,
    /// A bit for each of the last handlings, 1 for a fault, the newest in the lowest bit.
    window: u128,
    /// The number of valid bits, at most [`WINDOW`].
    handled: u32,
    phase: Phase,
    /// The number of times it opened.
    opened: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// The open phase; half-open once the reset time is over.
    Open {
        since: u64,
    },
    /// A trial ended without a result, so another one may begin.
    HalfOpen,
    /// A trial is in progress.
    Trying,
}

/// The answer to a request for delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Allows the delivery.
    Yes,
    /// Allows the delivery as a trial: its result decides. The caller has to report it by
    /// [`succeeded`](Breaker::succeeded), [`fault`](Breaker::fault) or [`abandoned`](Breaker::abandoned), as no other
    /// trial begins before.
    Trial,
    /// Forbids the delivery.
    No {
        /// The time to ask again, in milliseconds since 1970. A trial in progress may end sooner.
        until: u64,
    },
}

/// The history of a message that ended in a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultHistory {
    /// A message that had not failed on this revision before, or a call.
    First,
    /// A message that had failed on this revision before.
    Repeated,
}

/// The state of a breaker as shown to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Admits every message.
    Closed,
    /// Admits no message.
    Open,
    /// Admits one message as a trial.
    HalfOpen,
}

impl BreakerState {
    /// Returns the state's name, such as `half-open`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Breaker {
    /// Creates a closed breaker that opens after `faults` consecutive faults (at least 1) and stays open for
    /// `reset_ms`.
    pub fn new(faults: u32, reset_ms: u64) -> Self {
        Self { faults, reset_ms, in_a_row: 0, window: 0, handled: 0, phase: Phase::Closed, opened: 0 }
    }

    /// Applies changed settings in place. An open breaker stays open for the new reset time, counted from when it
    /// opened.
    pub fn configure(&mut self, faults: u32, reset_ms: u64) {
        self.faults = faults;
        self.reset_ms = reset_ms;
    }

    /// Asks to deliver a message now. Begins a trial if the answer is [`Admission::Trial`]; there is one at a time.
    pub fn admits(&mut self, now: u64) -> Admission {
        let admission = self.peek(now);
        match admission {
            Admission::Yes => {}
            Admission::Trial => self.phase = Phase::Trying,
            Admission::No { .. } => {
                if let Phase::Open { since } = &mut self.phase {
                    // After the clock was set back, the reset time counts from the new time.
                    *since = (*since).min(now);
                }
            }
        }
        admission
    }

    /// Returns the answer of [`admits`](Self::admits) without beginning a trial.
    pub fn peek(&self, now: u64) -> Admission {
        match self.phase {
            Phase::Closed => Admission::Yes,
            Phase::Open { since } => match self.open_until(since, now) {
                Some(until) => Admission::No { until },
                None => Admission::Trial,
            },
            Phase::HalfOpen => Admission::Trial,
            // The latest time that can follow: that of a trial which fails now.
            Phase::Trying => Admission::No { until: now.saturating_add(self.reset_ms) },
        }
    }

    /// Counts `handlers` that ended without a fault. Has to be called before the [`fault`](Self::fault) of a later
    /// handler, without waiting for commits: these come in groups, and until then the few faults would seem to be all
    /// handlings.
    pub fn count_successes(&mut self, handlers: u32) {
        if self.phase == Phase::Closed && handlers > 0 {
            self.in_a_row = 0;
            // A shift by the width of the integer overflows, and a window of successes is zero anyway.
            self.window = if handlers < WINDOW { (self.window << handlers) & MASK } else { 0 };
            self.handled = self.handled.saturating_add(handlers).min(WINDOW);
        }
    }

    /// Ends a trial with success, once its effects are durable. Returns `true` if that closed the breaker.
    pub fn succeeded(&mut self) -> bool {
        let closes = self.phase == Phase::Trying;
        if closes {
            self.close();
        }
        // A message delivered before the breaker opened says nothing about the present state.
        closes
    }

    /// Records a fault. Returns `true` if it opened the breaker, which includes a failed trial.
    ///
    /// A failed trial opens it even if its message had failed before: with no other message to try, an agent that
    /// always fails must not use up the attempts of its messages.
    pub fn fault(&mut self, now: u64, failing: FaultHistory) -> bool {
        let opens = match (self.phase, failing) {
            (Phase::Closed, FaultHistory::First) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.window = ((self.window << 1) | 1) & MASK;
                self.handled = (self.handled + 1).min(WINDOW);
                // Half of a window that is not full yet could be a single fault.
                let half = self.handled == WINDOW && self.window.count_ones() >= HALF;
                half || self.in_a_row >= self.faults
            }
            (Phase::Trying, FaultHistory::First | FaultHistory::Repeated) => true,
            // A handler that began before it opened may end now; counting it would put off the trial.
            (Phase::Closed, FaultHistory::Repeated) | (Phase::Open { .. } | Phase::HalfOpen, _) => false,
        };
        if opens {
            self.phase = Phase::Open { since: now };
            self.opened = self.opened.saturating_add(1);
        }
        opens
    }

    /// Ends a trial without a result; the next message may be a trial.
    pub fn abandoned(&mut self) {
        match self.phase {
            // Not open again: without a fault there is nothing to wait for.
            Phase::Trying => self.phase = Phase::HalfOpen,
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen => {}
        }
    }

    /// Resets the breaker for another revision, about which past faults say nothing. Returns `true` if that closed it.
    pub fn reset(&mut self) -> bool {
        let was_closed = self.phase == Phase::Closed;
        self.close();
        !was_closed
    }

    /// Returns the state for operators.
    pub fn state(&self, now: u64) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { since } if self.open_until(since, now).is_some() => BreakerState::Open,
            // The end of the reset time needs no call to take effect, so operators see it at once.
            Phase::Open { .. } | Phase::HalfOpen | Phase::Trying => BreakerState::HalfOpen,
        }
    }

    /// Returns `true` if a trial is in progress.
    pub fn is_trying(&self) -> bool {
        self.phase == Phase::Trying
    }

    /// Returns the number of times it opened, failed trials included.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Returns the time until which it is open. `None` when the reset time is over, or when the clock was set back so
    /// far that the time spent open is unknown.
    fn open_until(&self, since: u64, now: u64) -> Option<u64> {
        let was_set_back = since > now.saturating_add(SKEW_MS);
        // A start slightly in the future is the skew between callers, and must not extend the wait.
        let until = since.min(now).saturating_add(self.reset_ms);
        (now < until && !was_set_back).then_some(until)
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.in_a_row = 0;
        // The faults that opened it must not open it again.
        self.window = 0;
        self.handled = 0;
    }
}

#[cfg(test)]
mod tests;
