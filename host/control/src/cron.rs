//! The cron patterns, such as `0 */5 * * * *` for every five minutes, on a calendar without a time zone.
//!
//! The fields are second, minute, hour, day, month and weekday; with five fields the second is 0. If both day and
//! weekday are set, either of them has to match. [`schedule`](crate::schedule) maps the resulting local times to
//! instants.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, NaiveDateTime};
use croner::Direction;
use serde::{Serialize, Serializer};

/// A field of the six of a pattern.
#[derive(Debug, PartialEq, Eq)]
pub struct CronField {
    /// The field's name in error messages, such as `weekday`.
    pub name: &'static str,
    /// The accepted values beside `*`, for error messages.
    pub takes: &'static str,
    /// The words among the accepted values, in upper case.
    words: &'static [&'static str],
}

const fn field(name: &'static str, takes: &'static str, words: &'static [&'static str]) -> CronField {
    CronField { name, takes, words }
}

/// The fields in the order of a six-field pattern.
#[rustfmt::skip]
static FIELDS: [CronField; 6] = [
    field("second", "0 to 59", &[]),
    field("minute", "0 to 59", &[]),
    field("hour", "0 to 23", &[]),
    field("day", "1 to 31, `L` for the last, or `15W` for the working day nearest to it", &["L", "W"]),
    field("month", "1 to 12, or JAN to DEC",
        &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]),
    field("weekday", "0 to 7, or SUN to SAT, with `#2` for the second of a month and `#L` for the last",
        &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L"]),
];

/// The instant 4600-01-01, in seconds since 1970: 400 years before the parser's search for a time ends. The Gregorian
/// calendar repeats after 400 years, so a pattern without a time in that span never has one.
const LAST_CYCLE: i64 = 82_994_803_200;

/// A cron pattern, parsed and checked: it always has a next time. Cheap to clone.
#[derive(Clone)]
pub struct Cron {
    text: String,
    pattern: Arc<croner::Cron>,
    every_hour: bool,
}

/// The error for a text that is not a cron pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// A number of fields other than five and six.
    #[error("it needs 5 or 6 fields and has {0}")]
    Fields(usize),
    /// A field that cannot be parsed.
    #[error("the {} cannot be `{text}`", field.name)]
    Field {
        /// The field.
        field: &'static CronField,
        /// The field's text.
        text: String,
    },
    /// A date that does not exist, such as 30 February.
    #[error("there is no such day")]
    Never,
}

impl Cron {
    /// Returns the pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns `true` if the pattern matches in every hour of its days. Such a pattern measures elapsed time, any other
    /// one the time of day, which matters when clocks change.
    pub(crate) fn every_hour(&self) -> bool {
        self.every_hour
    }

    /// Returns the matching times after `time`, the nearest first.
    pub(crate) fn after(&self, time: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> {
        self.walk(time, false, Direction::Forward)
    }

    /// Returns the matching times up to and including `time`, the nearest first.
    pub(crate) fn until(&self, time: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> {
        self.walk(time, true, Direction::Backward)
    }

    /// Returns the matching times from `start` on; ends where the parser's calendar does.
    fn walk(&self, start: NaiveDateTime, inclusive: bool, direction: Direction) -> impl Iterator<Item = NaiveDateTime> {
        let step = move |time: NaiveDateTime, inclusive| step(&self.pattern, time, inclusive, direction);
        std::iter::successors(step(start, inclusive), move |time| step(*time, false))
    }
}

/// Returns the nearest matching time. UTC has no summer time, so it serves as the calendar without a zone.
fn step(pattern: &croner::Cron, time: NaiveDateTime, inclusive: bool, direction: Direction) -> Option<NaiveDateTime> {
    let found = match direction {
        Direction::Forward => pattern.find_next_occurrence(&time.and_utc(), inclusive),
        Direction::Backward => pattern.find_previous_occurrence(&time.and_utc(), inclusive),
    };
    // For a checked pattern the only error is the end of the calendar.
    found.ok().map(|time| time.naive_utc())
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let first = match fields.len() {
            5 => 1,
            6 => 0,
            other => return Err(CronError::Fields(other)),
        };
        let wrong = |at: usize| CronError::Field { field: &FIELDS[first + at], text: fields[at].to_owned() };
        // The parser accepts a word in any field and then misreads it, so words are checked first.
        if let Some(at) = (0..fields.len()).find(|at| !has_only(fields[*at], FIELDS[first + at].words)) {
            return Err(wrong(at));
        }
        // The parser's error does not say which field is wrong, so each is parsed alone.
        let alone = |at: &usize| {
            let fields: Vec<&str> =
                (0..fields.len()).map(|other| if other == *at { fields[*at] } else { "*" }).collect();
            fields.join(" ").parse::<croner::Cron>().is_err()
        };
        let pattern: croner::Cron = text.parse().map_err(|_| {
            let at = (0..fields.len()).find(alone);
            // Each field is valid alone: the combination is refused, and no single field can be blamed.
            at.map_or(CronError::Fields(fields.len()), wrong)
        })?;
        // A pattern that never matches would make every later search walk to the end of the calendar.
        let start = DateTime::from_timestamp(LAST_CYCLE, 0).map(|start| start.naive_utc());
        start.and_then(|start| step(&pattern, start, true, Direction::Forward)).ok_or(CronError::Never)?;
        // Asked once here, and not of the parser at each change of the clocks.
        let every_hour = (0..24).all(|hour| pattern.pattern.hour_match(hour).unwrap_or(false));
        Ok(Self { text: text.to_owned(), pattern: Arc::new(pattern), every_hour })
    }
}

/// Returns `true` if a field contains no words but these and no empty list element. The parser accepts both.
fn has_only(field: &str, words: &[&str]) -> bool {
    let letters = |c: char| !c.is_alphabetic();
    let known = |word: &str| word.is_empty() || words.iter().any(|known| known.eq_ignore_ascii_case(word));
    // In `15W` and `5L` the digits delimit the word.
    field.split(letters).all(known) && field.split(',').all(|element| !element.is_empty())
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        // The parsed pattern follows from the text.
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?})", self.text)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Cron {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_parse_or_the_wrong_field_is_named() {
        let field = |name, text: &str| {
            let field = FIELDS.iter().find(|field| field.name == name).unwrap();
            Some(CronError::Field { field, text: text.to_owned() })
        };
        for (text, expected) in [
            ("0 */5 * * * *", None),
            ("*/5 * * * *", None),
            ("0 9 * * mon-fri", None),
            ("0 0 L FEB *", None),
            ("0 0 15W * *", None),
            ("0 0 * * FRI#L", None),
            ("0 0 ? * 5#2", None),
            ("0 0 29 2 *", None),
            ("", Some(CronError::Fields(0))),
            ("@daily", Some(CronError::Fields(1))),
            ("* * * *", Some(CronError::Fields(4))),
            ("0 0 0 1 1 * 2030", Some(CronError::Fields(7))),
            ("61 * * * *", field("minute", "61")),
            ("61 * * * * *", field("second", "61")),
            ("* 24 * * *", field("hour", "24")),
            ("* * 0 * *", field("day", "0")),
            ("* * * 13 *", field("month", "13")),
            ("* * * * 8", field("weekday", "8")),
            ("* * * MON *", field("month", "MON")),
            ("MON * * * *", field("minute", "MON")),
            ("*/0 * * * *", field("minute", "*/0")),
            ("1,,2 * * * *", field("minute", "1,,2")),
            (", * * * * *", field("second", ",")),
            ("5-1 * * * *", field("minute", "5-1")),
            ("0 0 30 2 *", Some(CronError::Never)),
            ("0 0 31 4,6,9,11 *", Some(CronError::Never)),
            ("0 0 29 2 +MON#1", Some(CronError::Never)),
        ] {
            assert_eq!(text.parse::<Cron>().err(), expected, "{text}");
        }
    }

    #[test]
    fn the_last_cycle_covers_400_years() {
        let (start, end) = ("4600-01-01T00:00:00Z", "5000-01-01T00:00:00Z");
        let [start, end] = [start, end].map(|time| time.parse::<DateTime<Utc>>().unwrap().timestamp());
        assert_eq!((start, end - start), (LAST_CYCLE, 146_097 * 86_400));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}", fields in "([0-9*/,#LW?+-]{1,4} ){4,5}[0-9*/,#L?+-]{1,4}") {
            for text in [text, fields] {
                if let Ok(cron) = text.parse::<Cron>() {
                    prop_assert_eq!(cron.as_str(), text);
                }
            }
        }
    }
}
