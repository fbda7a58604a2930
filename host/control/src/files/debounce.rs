//! The debouncing of hints: the pause between a hint and the look that follows.

/// The pause after the last hint, in milliseconds. A save or a build touches several files, or one several times, and
/// these are looked at together.
const REST_MS: u64 = 60;
/// The longest delay of a look by hints that keep coming, in milliseconds.
const MAX_DELAY_MS: u64 = 1_000;

/// A collector of hints that makes a look due once they pause, or have gone on for too long.
#[derive(Debug, Clone, Default)]
pub struct Debounce {
    /// The times of the first and the last hint since the last look.
    hints: Option<(u64, u64)>,
}

impl Debounce {
    /// Records a hint.
    pub fn hint(&mut self, now: u64) {
        let first = self.hints.map_or(now, |(first, _)| first);
        self.hints = Some((first, now));
    }

    /// Returns the time at which the next look is due; `None` without a hint.
    pub fn due(&self) -> Option<u64> {
        // The earlier of both: hints without a pause must not postpone the look for ever.
        self.hints.map(|(first, last)| (last + REST_MS).min(first + MAX_DELAY_MS))
    }

    /// Begins a look, which covers all hints up to now.
    pub fn reset(&mut self) {
        self.hints = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_due_after_a_pause_or_at_the_bound() {
        for (hints, due) in [
            (vec![], None),
            (vec![5], Some(65)),
            (vec![5, 30, 60], Some(120)),
            // Hints that come before each pause has passed.
            ((0..100).map(|n| n * 50).collect(), Some(1_000)),
        ] {
            let mut quiet = Debounce::default();
            hints.iter().for_each(|at| quiet.hint(*at));
            assert_eq!(quiet.due(), due, "{hints:?}");
        }
    }

    #[test]
    fn endless_hints_cause_a_look_every_second() {
        let (mut quiet, mut looks) = (Debounce::default(), Vec::new());
        for now in (0..10_000).step_by(10) {
            if quiet.due().is_some_and(|due| due <= now) {
                quiet.reset();
                looks.push(now);
            }
            quiet.hint(now);
        }
        assert_eq!(looks.len(), 9, "{looks:?}");
        assert!(looks.windows(2).all(|pair| pair[1] - pair[0] <= MAX_DELAY_MS + 10), "{looks:?}");
    }
}
