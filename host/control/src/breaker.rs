//! The breaker of an agent: whether it is handed messages while it fails (SPEC §7).
//!
//! ```text
//! closed --faults in a row, or half of the last 100--> open --reset--> half-open --a trial goes well--> closed
//!                                                       ^                  |
//!                                                       '--the trial fails-'
//! ```
//! Faults are counted over different messages: one that fails again says the same about the agent as the first time, and
//! is given up by its own attempts. Otherwise a few messages that no agent could handle, tried again together, would
//! keep all others waiting. For the same reason a trial is given a message that has not failed yet, if one waits
//! ([`Mailbox::take_trial`](crate::mailbox::Mailbox::take_trial)).
//!
//! Every call takes the same time whatever came before.

use std::fmt;

/// How many of the last handlings the breaker remembers (SPEC §7).
const WINDOW: u32 = 100;

/// So many faults among them open it: half (SPEC §7).
const HALF: u32 = WINDOW / 2;

/// The lowest [`WINDOW`] bits.
const MASK: u128 = (1 << WINDOW) - 1;

/// Callers read the clock before they ask, so one may come with a time a little before another's. A time further
/// back than this many milliseconds means that the clock was set back.
const SKEW: u64 = 1_000;

/// Keeps messages from an agent that fails, and lets one through now and then to see whether it still does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    faults: u32,
    reset_ms: u64,
    in_a_row: u32,
    /// One bit for each of the last handlings, 1 for a fault, the newest lowest.
    window: u128,
    /// How many of its bits are handlings.
    handled: u32,
    phase: Phase,
    opened: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Since then; half-open when the reset is over.
    Open {
        since: u64,
    },
    /// A trial ended without a result, so another may begin.
    HalfOpen,
    /// A trial is under way.
    Trying,
}

/// Whether the agent is handed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Yes,
    /// It is, and what becomes of this message decides. Whoever has it says [`well`](Breaker::well),
    /// [`fault`](Breaker::fault) or [`abandoned`](Breaker::abandoned).
    Trial,
    /// It is not.
    No {
        /// When to ask again, in milliseconds since 1970. While a trial is under way its end comes sooner.
        until: u64,
    },
}

/// A message that ended in a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// It had not failed on this revision before, or it is a call.
    First,
    /// It had.
    Again,
}

/// What a breaker looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets everything through.
    Closed,
    /// Lets nothing through.
    Open,
    /// Lets one message through, and waits for what becomes of it.
    HalfOpen,
}

impl BreakerState {
    /// The state's name, such as `half-open`.
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
    /// A closed breaker that opens after so many faults in a row (at least 1) and stays open for `reset_ms`.
    pub fn new(faults: u32, reset_ms: u64) -> Self {
        Self { faults, reset_ms, in_a_row: 0, window: 0, handled: 0, phase: Phase::Closed, opened: 0 }
    }

    /// Applies other settings in place. An open breaker stays open for the new reset, counted from when it opened.
    pub fn configure(&mut self, faults: u32, reset_ms: u64) {
        self.faults = faults;
        self.reset_ms = reset_ms;
    }

    /// Asks for the agent to be handed a message. A trial is given to one at a time.
    pub fn admits(&mut self, now: u64) -> Admission {
        let admission = self.peek(now);
        match admission {
            Admission::Yes => {}
            Admission::Trial => self.phase = Phase::Trying,
            Admission::No { .. } => {
                if let Phase::Open { since } = &mut self.phase {
                    // A clock that was set back is the one that counts from here on.
                    *since = (*since).min(now);
                }
            }
        }
        admission
    }

    /// What [`admits`](Self::admits) would say; no trial begins.
    pub fn peek(&self, now: u64) -> Admission {
        match self.phase {
            Phase::Closed => Admission::Yes,
            Phase::Open { since } => match self.opens_until(since, now) {
                Some(until) => Admission::No { until },
                None => Admission::Trial,
            },
            Phase::HalfOpen => Admission::Trial,
            // As if the trial failed now.
            Phase::Trying => Admission::No { until: now.saturating_add(self.reset_ms) },
        }
    }

    /// So many handlers ended without a fault since this was said last. To be said before a [`fault`](Self::fault) that
    /// came after them, whether or not what they did is committed by then: commits come in groups, and until then the
    /// few that failed would seem to be all.
    pub fn ended(&mut self, handlers: u32) {
        if self.phase == Phase::Closed && handlers > 0 {
            self.in_a_row = 0;
            self.window = if handlers < WINDOW { (self.window << handlers) & MASK } else { 0 };
            self.handled = self.handled.saturating_add(handlers).min(WINDOW);
        }
    }

    /// A message was handled without a fault, and what came of it is safe. True when this closed the breaker, as it does
    /// under a trial.
    pub fn well(&mut self) -> bool {
        let closes = self.phase == Phase::Trying;
        if closes {
            self.close();
        }
        // One that was handed over before the breaker opened says nothing about now.
        closes
    }

    /// A message ended in a fault. True when this opened the breaker, a failed trial included.
    ///
    /// A trial that fails opens it whatever its message did before: with nothing else to try, an agent that fails at
    /// everything must not use up the attempts of what waits.
    pub fn fault(&mut self, now: u64, failing: Failing) -> bool {
        let opens = match (self.phase, failing) {
            (Phase::Closed, Failing::First) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.window = ((self.window << 1) | 1) & MASK;
                self.handled = (self.handled + 1).min(WINDOW);
                let half = self.handled == WINDOW && self.window.count_ones() >= HALF;
                half || self.in_a_row >= self.faults
            }
            (Phase::Trying, Failing::First | Failing::Again) => true,
            (Phase::Closed, Failing::Again) | (Phase::Open { .. } | Phase::HalfOpen, _) => false,
        };
        if opens {
            self.phase = Phase::Open { since: now };
            self.opened = self.opened.saturating_add(1);
        }
        opens
    }

    /// The trial ended neither well nor in a fault; the next message may be one.
    pub fn abandoned(&mut self) {
        match self.phase {
            Phase::Trying => self.phase = Phase::HalfOpen,
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen => {}
        }
    }

    /// Another revision answers from now on, and what came before says nothing about it. True when this closed the
    /// breaker.
    pub fn begin_anew(&mut self) -> bool {
        let was_closed = self.phase == Phase::Closed;
        self.close();
        !was_closed
    }

    /// What it looks like from outside.
    pub fn state(&self, now: u64) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { since } if self.opens_until(since, now).is_some() => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen | Phase::Trying => BreakerState::HalfOpen,
        }
    }

    /// Returns true if a trial is under way.
    pub fn is_trying(&self) -> bool {
        self.phase == Phase::Trying
    }

    /// How often it opened, failed trials included.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Until when it is open; none when the reset is over, or when the clock was set back and nobody can say how
    /// long it has been open.
    fn opens_until(&self, since: u64, now: u64) -> Option<u64> {
        let was_set_back = since > now.saturating_add(SKEW);
        let until = since.min(now).saturating_add(self.reset_ms);
        (now < until && !was_set_back).then_some(until)
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.in_a_row = 0;
        // What made it open must not make it open again.
        self.window = 0;
        self.handled = 0;
    }
}

#[cfg(test)]
mod tests;
