//! The distinction between a complete file and one that is still being written.

use std::time::Duration;

/// The time for which a file that no program has open has to stay unchanged, in milliseconds. A program may write and
/// close a file more than once for one save.
const REST_MS: u64 = 100;
/// The longest wait for a file that keeps changing while closed, in milliseconds.
const MAX_CHANGING_MS: u64 = 1_000;
/// The longest wait for a writer that writes nothing, in milliseconds: a program that never closes the file (a log, a
/// leaked descriptor) must not hold it back for ever.
const MAX_OPEN_MS: u64 = 10_000;
/// The time after which a removed file counts as gone, in milliseconds. Some programs replace a file by removing it
/// first.
const GONE_MS: u64 = 500;
/// The interval at which a pending file is looked at again, in milliseconds: the close of a file may cause no hint.
const POLL_MS: u64 = 100;
/// The wait after which a change is reported as late, in milliseconds: its author expects it to have taken effect.
const LATE_MS: u64 = 1_000;

/// The programs that have a file open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileWriter {
    /// The absence of any known program.
    None,
    /// The presence of at least one program.
    Open,
}

/// The state of a file at a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState<S> {
    /// An identity of the file's content; another one after every write or replacement.
    pub stamp: S,
    /// The time since the last write, by the file system's clock; `None` if that clock is ahead.
    pub age: Option<Duration>,
    /// The programs that are writing it.
    pub writer: FileWriter,
}

/// The result of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileReadiness {
    /// The file is complete, or gone for good.
    Ready,
    /// The time after which the file has to be examined again, as it is undecided.
    Wait(Duration),
}

/// The state of one file across looks: what was taken up last, and the change that is pending.
#[derive(Debug, Clone)]
pub struct StabilityCheck<S> {
    /// The state that was taken up last, `Some(None)` for an absent file; `None` before the first.
    accepted: Option<Option<S>>,
    /// A pending state, the time at which it was first seen, and the time of the first change.
    pending: Option<(Option<S>, u64, u64)>,
    /// Set once the pending change was reported as late.
    reported: bool,
}

impl<S> Default for StabilityCheck<S> {
    fn default() -> Self {
        Self { accepted: None, pending: None, reported: false }
    }
}

impl<S: PartialEq> StabilityCheck<S> {
    /// Evaluates the result of a look; `found` is `None` if there is no file. With `asked` an operator wants the file
    /// as it is now, and only an open writer is waited for.
    pub fn check(&mut self, found: Option<FileState<S>>, asked: bool, now: u64) -> FileReadiness {
        let (stamp, age, writer) = match found {
            Some(FileState { stamp, age, writer }) => (Some(stamp), age, writer),
            None => (None, None, FileWriter::None),
        };
        if self.accepted.as_ref() == Some(&stamp) {
            (self.pending, self.reported) = (None, false);
            return FileReadiness::Ready;
        }
        let (since, changing) = match &self.pending {
            Some((pending, since, changing)) if *pending == stamp => (*since, *changing),
            Some((_, _, changing)) => (now, *changing),
            None => (now, now),
        };
        // Saturating: the clock may have been read before the file was.
        let rest = now.saturating_sub(since);
        // An age that cannot be known counts as none, which waits for the full rest.
        let age = age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let left = match (&stamp, writer) {
            // A file that has never existed is not one that is being replaced.
            (None, _) if self.accepted.is_none() || asked => 0,
            (None, _) => GONE_MS.saturating_sub(rest),
            // The age counts as well: the file may have been written long before the first look.
            (Some(_), FileWriter::Open) => MAX_OPEN_MS.saturating_sub(rest.max(age)),
            (Some(_), FileWriter::None) if asked => 0,
            (Some(_), FileWriter::None) => {
                REST_MS.saturating_sub(rest.max(age)).min(MAX_CHANGING_MS.saturating_sub(now.saturating_sub(changing)))
            }
        };
        if left == 0 {
            self.accepted = Some(stamp);
            (self.pending, self.reported) = (None, false);
            return FileReadiness::Ready;
        }
        // `since` starts again with each state, `changing` does not, as it bounds the whole wait.
        self.pending = Some((stamp, since, changing));
        // Never the whole rest: a writer may close the file, or the file may reappear, without a hint.
        FileReadiness::Wait(Duration::from_millis(left.min(POLL_MS)))
    }

    /// Returns `true` once for a change that has waited for more than a second because a program keeps the file open.
    pub fn is_late(&mut self, now: u64) -> bool {
        let late = self.pending.as_ref().is_some_and(|(_, _, changing)| now.saturating_sub(*changing) > LATE_MS);
        late && !std::mem::replace(&mut self.reported, true)
    }

    /// Forgets the state that was taken up, so that the next look takes the file up again.
    pub fn forget(&mut self) {
        self.accepted = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stamp: u32, age: u64, writer: FileWriter) -> Option<FileState<u32>> {
        Some(FileState { stamp, age: Some(Duration::from_millis(age)), writer })
    }

    /// Looks as often as the verdicts ask for at a file whose states begin at the given times. Returns the states that
    /// were taken up, with the times.
    fn taken(states: &[(u64, Option<(u32, FileWriter)>)]) -> Vec<(u64, Option<u32>)> {
        let (mut settle, mut taken) = (StabilityCheck::default(), Vec::new());
        assert_eq!(settle.check(found(0, 60_000, FileWriter::None), false, 0), FileReadiness::Ready);
        let (mut now, mut last) = (0, Some(0));
        while now < 40_000 {
            let state = states.iter().rev().find(|(from, _)| *from <= now);
            let (from, state) = state.copied().unwrap_or((0, Some((0, FileWriter::None))));
            // Closing a file does not change its age.
            let written = states.iter().find(|(_, other)| other.map(|(s, _)| s) == state.map(|(s, _)| s));
            let written = written.map_or(from, |(from, _)| *from);
            let look = state.and_then(|(stamp, writer)| found(stamp, now - written, writer));
            let stamp = state.map(|(stamp, _)| stamp);
            let verdict = settle.check(look, false, now);
            if verdict == FileReadiness::Ready && stamp != last {
                taken.push((now, stamp));
                last = stamp;
            }
            now += match verdict {
                FileReadiness::Ready => 10,
                FileReadiness::Wait(time) => u64::try_from(time.as_millis()).unwrap(),
            };
        }
        taken
    }

    #[test]
    fn a_file_is_taken_up_when_it_is_complete() {
        use FileWriter::{None as Closed, Open};
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
    fn a_file_that_keeps_changing_is_taken_up_repeatedly() {
        let states: Vec<_> =
            (0..800).map(|n| (n * 50, Some((u32::try_from(n).unwrap() + 1, FileWriter::None)))).collect();
        let taken = taken(&states);
        assert!(taken.len() >= 35, "{taken:?}");
        assert!(taken.windows(2).all(|pair| pair[1].0 - pair[0].0 <= MAX_CHANGING_MS + 100), "{taken:?}");
    }

    #[test]
    fn a_requested_file_waits_only_for_its_writer() {
        let mut settle = StabilityCheck::default();
        assert_eq!(settle.check(found(1, 0, FileWriter::None), true, 0), FileReadiness::Ready);
        assert_eq!(settle.check(None, true, 10), FileReadiness::Ready);
        assert!(matches!(settle.check(found(2, 0, FileWriter::Open), true, 20), FileReadiness::Wait(_)));
        assert_eq!(settle.check(found(2, 10, FileWriter::None), true, 30), FileReadiness::Ready);
    }

    #[test]
    fn a_late_change_is_reported_once() {
        let mut settle = StabilityCheck::default();
        let mut late = |stamp, at, writer| {
            settle.check(found(stamp, 0, writer), false, at);
            settle.is_late(at)
        };
        // One report for all that is written in one go, however long it takes; the next change is another one.
        let reported = [(1, 0), (2, 900), (3, 1_100), (4, 2_000), (4, 12_000), (5, 12_100), (5, 13_300)]
            .map(|(stamp, at)| late(stamp, at, FileWriter::Open));
        assert_eq!(reported, [false, false, true, false, false, false, true]);
        assert!(!late(6, 40_000, FileWriter::None), "a closed file is taken up soon");
    }

    #[test]
    fn a_wrong_file_system_clock_decides_nothing() {
        let mut settle = StabilityCheck::default();
        let ahead = |stamp| Some(FileState { stamp, age: None, writer: FileWriter::None });
        assert!(matches!(settle.check(ahead(1), false, 0), FileReadiness::Wait(_)));
        assert_eq!(settle.check(ahead(1), false, REST_MS), FileReadiness::Ready);
        // Behind by an hour, so the file looks old: a writer is seen all the same, or waited for no longer than it
        // takes to see the file change.
        assert_eq!(settle.check(found(2, 3_600_000, FileWriter::None), false, 200), FileReadiness::Ready);
    }
}
