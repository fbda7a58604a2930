//! Telling a whole file from one that is in the middle of being written.

use std::time::Duration;

/// How long a file that nobody has open stays unchanged before it is taken up. A program may write and close it more
/// than once for one save.
const REST: u64 = 100;
/// A file that is written again before each rest is over is taken up after this all the same.
const LONGEST: u64 = 1_000;
/// A file that a program has open for writing is waited for, unless that program wrote nothing for this long: one that
/// never closes it (a log, a leaked descriptor) must not hold it back for ever.
const OPEN: u64 = 10_000;
/// A file that is replaced by removing it first is gone for a moment.
const GONE: u64 = 500;
/// How soon a file that is open is looked at again: its end may come without a hint.
const AGAIN: u64 = 100;
/// A change that waits longer than this is reported: whoever made it expects to see it take effect.
const LATE: u64 = 1_000;

/// Programs that have a file open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// None is known.
    None,
    /// At least one.
    Open,
}

/// A file as a look found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<S> {
    /// Identifies the file's content; another whenever the file was written to or replaced.
    pub stamp: S,
    /// How long ago it was written, by the file system's clock; none if that clock is ahead.
    pub age: Option<Duration>,
    /// Whether it is being written.
    pub writer: Writer,
}

/// A decision about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is whole, or gone for good.
    Take,
    /// It is not known yet; it is looked at again after this time.
    Wait(Duration),
}

/// What is known of one file: the state that was taken up, and the one that is not yet.
#[derive(Debug, Clone)]
pub struct Settle<S> {
    /// The state that was taken up last; the outer option is for a file that never was.
    taken: Option<Option<S>>,
    /// Another state, when it was seen first, and since when the file has changed.
    pending: Option<(Option<S>, u64, u64)>,
    /// Set if it was reported that the pending change is late.
    reported: bool,
}

impl<S> Default for Settle<S> {
    fn default() -> Self {
        Self { taken: None, pending: None, reported: false }
    }
}

impl<S: PartialEq> Settle<S> {
    /// Takes in what a look found; none if there is no file. With `asked` an operator asks for the file as it is now:
    /// then only a writer is waited for.
    pub fn look(&mut self, found: Option<Found<S>>, asked: bool, now: u64) -> Verdict {
        let (stamp, age, writer) = match found {
            Some(Found { stamp, age, writer }) => (Some(stamp), age, writer),
            None => (None, None, Writer::None),
        };
        if self.taken.as_ref() == Some(&stamp) {
            (self.pending, self.reported) = (None, false);
            return Verdict::Take;
        }
        let (since, changing) = match &self.pending {
            Some((pending, since, changing)) if *pending == stamp => (*since, *changing),
            Some((_, _, changing)) => (now, *changing),
            None => (now, now),
        };
        let rest = now.saturating_sub(since);
        let age = age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let left = match (&stamp, writer) {
            // One that never was there is missed at once.
            (None, _) if self.taken.is_none() || asked => 0,
            (None, _) => GONE.saturating_sub(rest),
            (Some(_), Writer::Open) => OPEN.saturating_sub(rest.max(age)),
            (Some(_), Writer::None) if asked => 0,
            (Some(_), Writer::None) => {
                REST.saturating_sub(rest.max(age)).min(LONGEST.saturating_sub(now.saturating_sub(changing)))
            }
        };
        if left == 0 {
            self.taken = Some(stamp);
            (self.pending, self.reported) = (None, false);
            return Verdict::Take;
        }
        self.pending = Some((stamp, since, changing));
        Verdict::Wait(Duration::from_millis(left.min(AGAIN)))
    }

    /// Returns true once for a change that has waited for more than a second because a program keeps the file open.
    pub fn is_late(&mut self, now: u64) -> bool {
        let late = self.pending.as_ref().is_some_and(|(_, _, changing)| now.saturating_sub(*changing) > LATE);
        late && !std::mem::replace(&mut self.reported, true)
    }

    /// Forgets what was taken up, so that the next look takes the file up again.
    pub fn forget(&mut self) {
        self.taken = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stamp: u32, age: u64, writer: Writer) -> Option<Found<u32>> {
        Some(Found { stamp, age: Some(Duration::from_millis(age)), writer })
    }

    /// Looks whenever the machine asks for it, at a file whose states begin at these times; gives what was taken up,
    /// and when.
    fn taken(states: &[(u64, Option<(u32, Writer)>)]) -> Vec<(u64, Option<u32>)> {
        let (mut settle, mut taken) = (Settle::default(), Vec::new());
        assert_eq!(settle.look(found(0, 60_000, Writer::None), false, 0), Verdict::Take);
        let (mut now, mut last) = (0, Some(0));
        while now < 40_000 {
            let state = states.iter().rev().find(|(from, _)| *from <= now);
            let (from, state) = state.copied().unwrap_or((0, Some((0, Writer::None))));
            // Closing a file does not make it younger.
            let written = states.iter().find(|(_, other)| other.map(|(s, _)| s) == state.map(|(s, _)| s));
            let written = written.map_or(from, |(from, _)| *from);
            let look = state.and_then(|(stamp, writer)| found(stamp, now - written, writer));
            let stamp = state.map(|(stamp, _)| stamp);
            let verdict = settle.look(look, false, now);
            if verdict == Verdict::Take && stamp != last {
                taken.push((now, stamp));
                last = stamp;
            }
            now += match verdict {
                Verdict::Take => 10,
                Verdict::Wait(time) => u64::try_from(time.as_millis()).unwrap(),
            };
        }
        taken
    }

    #[test]
    fn a_file_is_taken_up_when_it_is_whole() {
        use Writer::{None as Closed, Open};
        for (what, states, expected) in [
            ("one that is closed", vec![(1_000, Some((1, Closed)))], vec![(1_100, Some(1))]),
            (
                "a writer that pauses is waited for",
                vec![
                    (1_000, Some((1, Open))),
                    (4_000, Some((2, Open))),
                    (9_000, Some((3, Open))),
                    (9_050, Some((3, Closed))),
                ],
                vec![(9_100, Some(3))],
            ),
            ("one that is never closed", vec![(1_000, Some((1, Open)))], vec![(11_000, Some(1))]),
            ("one that is gone for a moment", vec![(1_000, None), (1_400, Some((1, Closed)))], vec![(1_500, Some(1))]),
            ("one that is gone", vec![(1_000, None)], vec![(1_500, None)]),
        ] {
            assert_eq!(taken(&states), expected, "{what}");
        }
    }

    #[test]
    fn one_that_is_written_all_the_time_is_taken_up_again_and_again() {
        let states: Vec<_> = (0..800).map(|n| (n * 50, Some((u32::try_from(n).unwrap() + 1, Writer::None)))).collect();
        let taken = taken(&states);
        assert!(taken.len() >= 35, "{taken:?}");
        assert!(taken.windows(2).all(|pair| pair[1].0 - pair[0].0 <= LONGEST + 100), "{taken:?}");
    }

    #[test]
    fn one_that_is_asked_for_waits_for_its_writer_alone() {
        let mut settle = Settle::default();
        assert_eq!(settle.look(found(1, 0, Writer::None), true, 0), Verdict::Take);
        assert_eq!(settle.look(None, true, 10), Verdict::Take);
        assert!(matches!(settle.look(found(2, 0, Writer::Open), true, 20), Verdict::Wait(_)));
        assert_eq!(settle.look(found(2, 10, Writer::None), true, 30), Verdict::Take);
    }

    #[test]
    fn a_change_that_waits_for_its_writer_is_reported_once() {
        let mut settle = Settle::default();
        let mut late = |stamp, at, writer| {
            settle.look(found(stamp, 0, writer), false, at);
            settle.is_late(at)
        };
        // One report for all that is written in one go, however long it takes; the next change is another.
        let reported = [(1, 0), (2, 900), (3, 1_100), (4, 2_000), (4, 12_000), (5, 12_100), (5, 13_300)]
            .map(|(stamp, at)| late(stamp, at, Writer::Open));
        assert_eq!(reported, [false, false, true, false, false, false, true]);
        assert!(!late(6, 40_000, Writer::None), "a file that nobody has open is taken up soon");
    }

    #[test]
    fn a_clock_that_is_ahead_or_behind_decides_nothing() {
        let mut settle = Settle::default();
        let ahead = |stamp| Some(Found { stamp, age: None, writer: Writer::None });
        assert!(matches!(settle.look(ahead(1), false, 0), Verdict::Wait(_)));
        assert_eq!(settle.look(ahead(1), false, REST), Verdict::Take);
        // Behind by an hour: the file looks old, and whoever writes it is seen all the same, or waited for in vain no
        // longer than it takes to see it change.
        assert_eq!(settle.look(found(2, 3_600_000, Writer::None), false, 200), Verdict::Take);
    }
}
