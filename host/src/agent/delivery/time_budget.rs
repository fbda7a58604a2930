//! The time for a call of a handler.

use std::time::Duration;

use crate::message::Fault;

/// The time for a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeBudget {
    /// The part that is left when the handler starts.
    pub(super) left: Duration,
    /// The whole of it, with the wait for an instance: less than `allowed` if the caller waits for less.
    pub(super) total: Duration,
    /// The agent's `limits.time`.
    pub(super) allowed: Duration,
}

impl TimeBudget {
    /// Attributes a timeout. An agent that had much less than `limits.time`, because its caller waits for less or other
    /// messages came first, is not at fault.
    pub(super) fn explain(self, fault: Fault) -> Fault {
        match fault {
            // The text names the whole of the time, not what was left of it for this call.
            // A tenth is the tolerance: the start of an instance takes some of the time and is the agent's own cost.
            Fault::Time { .. } if self.total < self.allowed || self.left < self.allowed * 9 / 10 => {
                Fault::CallerTimeout { limit: self.total }
            }
            Fault::Time { diagnostics, .. } => Fault::Time { limit: self.total, diagnostics },
            fault => fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_hurried_is_no_fault_of_the_agent() {
        let ms = Duration::from_millis;
        for (left, whole, guests) in [
            (1_000, 1_000, true),
            // An instance had to be found first.
            (950, 1_000, true),
            // Others were before it.
            (400, 1_000, false),
            // Its caller waits no longer.
            (200, 200, false),
            (990, 990, false),
        ] {
            let budget = TimeBudget { left: ms(left), total: ms(whole), allowed: ms(1_000) };
            let fault =
                budget.explain(Fault::Time { limit: ms(left), diagnostics: crate::message::Diagnostics::default() });
            assert_eq!(fault.is_guests(), guests, "{budget:?}");
            assert_eq!(fault.code(), "deadline-exceeded");
            assert!(fault.to_string().contains(&format!("{whole} ms")), "{fault}");
        }
        let budget = TimeBudget { left: ms(1), total: ms(1), allowed: ms(1_000) };
        assert!(
            budget
                .explain(Fault::Cpu { limit: ms(1), diagnostics: crate::message::Diagnostics::default() })
                .is_guests()
        );
    }
}
