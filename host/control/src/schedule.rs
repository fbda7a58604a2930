//! The schedules of agents: messages sent to an agent at times given by a cron pattern.
//!
//! ```text
//! cron --> local times --time zone--> instants --> the next one, those missed during a downtime
//! ```
//!
//! Clock changes: a pattern for certain hours follows the local time. A time that occurs twice counts the first time
//! only, and one that is skipped counts at the end of the gap. A pattern for every hour follows elapsed time: every
//! five minutes stays every five minutes, also in the hour that occurs twice.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};
use serde::{Serialize, Serializer};

use crate::cron::Cron;
use crate::names::BudgetName;

/// The instant 5000-01-01, in seconds since 1970: the end of the cron parser's calendar.
const END: i64 = 95_617_584_000;

/// A schedule of an agent (DESIGN §5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// The local times.
    pub cron: Cron,
    /// The time zone of these times.
    pub timezone: Timezone,
    /// The content of each message; may be empty.
    pub content: String,
    /// The media type of `content`.
    pub content_type: String,
    /// The treatment of times that passed while the host did not run.
    pub missed: Missed,
    /// The budget of each message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetName>,
}

/// The treatment of times that passed while the host did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// Sends no message.
    Skip,
    /// Sends one message, for the last of them.
    Latest,
    /// Sends one message for each of them.
    All,
}

impl Missed {
    /// Returns the name in the file: `skip`, `latest` or `all`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Latest => "latest",
            Self::All => "all",
        }
    }
}

impl Schedule {
    /// Returns the first instant after `after_ms`, in milliseconds since 1970; `None` beyond the year 4999.
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        millis(self.next(seconds(after_ms))?)
    }

    /// Returns the times later than `last_ms` and up to `now_ms` for which a message is due now, in order; for
    /// [`Missed::All`] the newest `most` of them. Takes no longer for a long downtime than for a short one.
    pub fn missed(&self, last_ms: u64, now_ms: u64, most: usize) -> Vec<u64> {
        let most = match self.missed {
            Missed::Skip => 0,
            Missed::Latest => most.min(1),
            Missed::All => most,
        };
        if most == 0 {
            return Vec::new();
        }
        // Backwards from now: a long downtime then costs no more than `most` steps.
        let back = std::iter::successors(self.latest(seconds(now_ms)), |time| self.latest(time - 1));
        let mut times: Vec<u64> = back.map_while(millis).take_while(|time| *time > last_ms).take(most).collect();
        times.reverse();
        times
    }

    /// Returns the id of the schedule among those of its agent, under which the store keeps its last time. The same as
    /// long as the file says the same: 32 hexadecimal digits made of the cron pattern, the time zone, the content and
    /// its type.
    pub fn key(&self) -> String {
        // FNV-1a with 128 bits. Each text is preceded by its length, so that moving a character from one to the next
        // changes the key.
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for text in [self.cron.as_str(), self.timezone.name(), &self.content, &self.content_type] {
            for byte in u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes().iter().chain(text.as_bytes()) {
                hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
            }
        }
        format!("{hash:032x}")
    }

    /// Returns the first instant later than `after`, in seconds.
    fn next(&self, after: i64) -> Option<i64> {
        let here = self.local(after)?;
        let later = |time| self.instants(time).find(|instant| *instant > after);
        let ahead = self.cron.after(here).find_map(later);
        // During the first pass of a repeated hour, the local times of that hour are still to come once more.
        let again = self.ambiguous(here).filter(|(first, _)| *first == after).and_then(|(first, second)| {
            let back = here.checked_sub_signed(TimeDelta::seconds(second - first))?;
            self.cron.after(back).take_while(|time| *time <= here).find_map(later)
        });
        ahead.into_iter().chain(again).min()
    }

    /// Returns the last instant up to and including `until`, in seconds.
    fn latest(&self, until: i64) -> Option<i64> {
        let here = self.local(until)?;
        let earlier = |time| self.instants(time).filter(|instant| *instant <= until).last();
        let behind = self.cron.until(here).find_map(earlier);
        // During the second pass of a repeated hour, later local times of that hour have occurred already.
        let before = self.ambiguous(here).filter(|(_, second)| *second == until).and_then(|(first, second)| {
            let ahead = here.checked_add_signed(TimeDelta::seconds(second - first))?;
            self.cron.until(ahead).take_while(|time| *time > here).find_map(earlier)
        });
        behind.into_iter().chain(before).max()
    }

    /// Returns the local time at an instant; `None` beyond [`END`].
    fn local(&self, instant: i64) -> Option<NaiveDateTime> {
        let time = DateTime::from_timestamp(instant, 0).filter(|_| instant < END)?;
        Some(time.with_timezone(&self.timezone.0).naive_local())
    }

    /// Returns both instants of a local time that occurs twice.
    fn ambiguous(&self, time: NaiveDateTime) -> Option<(i64, i64)> {
        match self.timezone.0.from_local_datetime(&time) {
            MappedLocalTime::Ambiguous(first, second) => Some((first.timestamp(), second.timestamp())),
            MappedLocalTime::Single(_) | MappedLocalTime::None => None,
        }
    }

    /// Returns the instants of a local time of the pattern, in order: none, one or two.
    fn instants(&self, time: NaiveDateTime) -> impl Iterator<Item = i64> {
        let every_hour = self.cron.every_hour();
        let instants = match self.timezone.0.from_local_datetime(&time) {
            MappedLocalTime::Single(instant) => [Some(instant), None],
            MappedLocalTime::Ambiguous(first, second) => [Some(first), Some(second).filter(|_| every_hour)],
            // For an hourly pattern the skipped hour did not happen; any other skipped time is due at the end of the
            // gap.
            MappedLocalTime::None if every_hour => [None, None],
            MappedLocalTime::None => [GapInfo::new(&time, &self.timezone.0).and_then(|gap| gap.end), None],
        };
        instants.into_iter().flatten().map(|instant| instant.timestamp())
    }
}

/// Converts to whole seconds since 1970, at most the last before [`END`].
fn seconds(millis: u64) -> i64 {
    // Clamped to the calendar of the parser, which would fail beyond it.
    i64::try_from(millis / 1_000).map_or(END - 1, |seconds| seconds.min(END - 1))
}

/// Converts to milliseconds; `None` before 1970.
fn millis(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok()?.checked_mul(1_000)
}

/// A time zone of the IANA database, such as `Europe/Berlin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timezone(Tz);

/// The error for a text that names no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such time zone")]
pub struct UnknownTimezone;

impl Timezone {
    /// Returns the zone's name in the IANA database.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Returns the names of all time zones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TZ_VARIANTS.iter().map(|zone| zone.name())
    }
}

impl FromStr for Timezone {
    type Err = UnknownTimezone;

    fn from_str(name: &str) -> Result<Self, UnknownTimezone> {
        // The parser's error says no more than that.
        name.parse().map(Self).map_err(|_| UnknownTimezone)
    }
}

impl fmt::Display for Timezone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Timezone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(cron: &str, timezone: &str, missed: Missed) -> Schedule {
        Schedule {
            cron: cron.parse().unwrap(),
            timezone: timezone.parse().unwrap(),
            content: "sweep".to_owned(),
            content_type: "text/plain".to_owned(),
            missed,
            budget: None,
        }
    }

    fn at(time: &str) -> u64 {
        time.parse::<DateTime<chrono::Utc>>().unwrap().timestamp_millis().try_into().unwrap()
    }

    fn shown(time: u64) -> String {
        DateTime::from_timestamp_millis(time.try_into().unwrap()).unwrap().format("%FT%TZ").to_string()
    }

    #[test]
    fn the_next_time_follows_the_last() {
        for (cron, timezone, after, expected) in [
            ("0 0 * * *", "UTC", "2026-01-01T00:00:00Z", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]),
            ("0 0 * * *", "UTC", "2025-12-31T23:59:59.999Z", ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
            ("0 */5 * * * *", "UTC", "2026-01-01T00:04:59Z", ["2026-01-01T00:05:00Z", "2026-01-01T00:10:00Z"]),
            ("* * * * * *", "UTC", "2026-01-01T00:00:00.001Z", ["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]),
            ("0 9 * * MON-FRI", "UTC", "2026-10-16T12:00:00Z", ["2026-10-19T09:00:00Z", "2026-10-20T09:00:00Z"]),
            ("0 12 29 2 *", "UTC", "2096-03-01T00:00:00Z", ["2104-02-29T12:00:00Z", "2108-02-29T12:00:00Z"]),
            ("0 12 29 2 *", "UTC", "2023-03-01T00:00:00Z", ["2024-02-29T12:00:00Z", "2028-02-29T12:00:00Z"]),
            // Summer time begins: 02:00 to 03:00 is skipped.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
            ("*/20 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]),
            ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]),
            ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:29:00Z", ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"]),
            ("15 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", ["2026-03-29T01:15:00Z", "2026-03-29T02:15:00Z"]),
            // Summer time ends: 02:00 to 03:00 occurs twice.
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", ["2026-10-26T01:30:00Z", "2026-10-27T01:30:00Z"]),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", ["2026-10-26T01:30:00Z", "2026-10-27T01:30:00Z"]),
            ("0 2-3 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", ["2026-10-25T02:00:00Z", "2026-10-26T01:00:00Z"]),
            ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", ["2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"]),
            ("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:30:00Z", ["2026-10-25T02:00:00Z", "2026-10-25T02:30:00Z"]),
            // A shift of half an hour, and a skipped day.
            (
                "15 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-03T12:00:00Z",
                ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
            ),
            ("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z"]),
        ] {
            let schedule = schedule(cron, timezone, Missed::All);
            let first = schedule.next_after(at(after)).unwrap();
            let second = schedule.next_after(first).unwrap();
            assert_eq!([shown(first), shown(second)], expected, "{cron} in {timezone} after {after}");
            assert_eq!(schedule.missed(at(after), second, 9), [first, second], "{cron} in {timezone} after {after}");
        }
    }

    #[test]
    fn missed_times_are_treated_as_declared() {
        let (last, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00Z"));
        let table: [(Missed, u64, usize, &[&str]); 8] = [
            (Missed::Skip, now, 9, &[]),
            (Missed::Latest, now, 9, &["2026-01-01T01:00:00Z"]),
            (Missed::Latest, now - 1, 9, &["2026-01-01T00:40:00Z"]),
            (Missed::Latest, now, 0, &[]),
            (Missed::All, now, 9, &["2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z", "2026-01-01T01:00:00Z"]),
            (Missed::All, now, 2, &["2026-01-01T00:40:00Z", "2026-01-01T01:00:00Z"]),
            (Missed::All, last, 9, &[]),
            (Missed::All, last - 1, 9, &[]),
        ];
        for (missed, now, most, expected) in table {
            let times = schedule("*/20 * * * *", "UTC", missed).missed(last, now, most);
            assert_eq!(times.into_iter().map(shown).collect::<Vec<_>>(), expected, "{missed:?} {now} {most}");
        }
    }

    #[test]
    fn a_downtime_of_a_year_costs_no_more_than_one_of_a_minute() {
        let (last, now) = (at("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:00.500Z"));
        let started = std::time::Instant::now();
        let missed = |missed| schedule("* * * * * *", "Europe/Berlin", missed).missed(last, now, 100);
        assert_eq!(missed(Missed::Latest), [now - 500]);
        assert_eq!(missed(Missed::All), (0..100).map(|n| now - 99_500 + n * 1_000).collect::<Vec<_>>());
        assert!(started.elapsed().as_secs() < 1, "{:?}", started.elapsed());
    }

    #[test]
    fn extreme_times_do_not_panic() {
        let schedule = schedule("0 0 * * *", "Europe/Berlin", Missed::All);
        assert_eq!(schedule.next_after(u64::MAX), None);
        assert_eq!(schedule.next_after(0), Some(at("1970-01-01T23:00:00Z")));
        assert_eq!(schedule.missed(0, u64::MAX, 2).len(), 2);
        assert_eq!(schedule.missed(0, 5, 2), Vec::<u64>::new());
    }

    #[test]
    fn time_zones_are_found_by_name() {
        for name in Timezone::names() {
            assert_eq!(name.parse::<Timezone>().map(Timezone::name), Ok(name));
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "the schema for editors refuses {name}");
        }
        assert_eq!("Europe/Nowhere".parse::<Timezone>(), Err(UnknownTimezone));
    }

    #[test]
    fn keys_are_distinct_and_stable() {
        let one = schedule("0 0 * * *", "UTC", Missed::All);
        assert_eq!(one.key(), "15bff9122bdafed9aec5d6cc518b646a");
        assert_eq!(one.key(), Schedule { missed: Missed::Skip, ..one.clone() }.key());
        let moved = Schedule { content: "sweept".to_owned(), content_type: "ext/plain".to_owned(), ..one.clone() };
        let others = [
            schedule("0 1 * * *", "UTC", Missed::All),
            schedule("0 0 * * *", "Europe/Berlin", Missed::All),
            Schedule { content: String::new(), ..one.clone() },
            Schedule { content_type: "text/html".to_owned(), ..one.clone() },
            moved,
        ];
        for other in others {
            assert_ne!(other.key(), one.key(), "{other:?}");
        }
    }

    /// A pattern with times near a clock change.
    fn any_cron() -> impl Strategy<Value = String> {
        let part = |all: &'static str| prop_oneof![Just("*".to_owned()), Just("*/7".to_owned()), Just(all.to_owned())];
        let hour = prop_oneof![Just("*"), Just("2"), Just("1-3"), Just("*/2"), Just("0,2,23")];
        let day = prop_oneof![Just("* *"), Just("25-31 *"), Just("L *"), Just("* 3,10"), Just("29 2")];
        (part("0"), part("5,30"), hour, day)
            .prop_map(|(second, minute, hour, day)| format!("{second} {minute} {hour} {day} *"))
    }

    /// An instant, often one near a clock change.
    fn any_time() -> impl Strategy<Value = u64> {
        let changes = ["2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2026-10-03T15:30:00Z", "2026-04-04T15:00:00Z"];
        let near = (prop::sample::select(changes.to_vec()), 0..14_400_000_u64)
            .prop_map(|(time, off)| at(time) - 7_200_000 + off);
        prop_oneof![near, 0..4_102_444_800_000_u64]
    }

    fn any_zone() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"])
    }

    proptest! {
        #[test]
        fn times_increase_and_agree_backwards(cron in any_cron(), zone in any_zone(), after in any_time()) {
            let schedule = schedule(&cron, zone, Missed::All);
            let mut times = vec![schedule.next_after(after).unwrap()];
            for _ in 1..20 {
                times.push(schedule.next_after(times[times.len() - 1]).unwrap());
            }
            prop_assert!(after < times[0] && times.is_sorted_by(|one, other| one < other), "{times:?}");
            let last = times[times.len() - 1];
            prop_assert_eq!(schedule.missed(after, last, 99), &times[..]);
            prop_assert_eq!(schedule.missed(after, last, 3), &times[17..]);
            prop_assert_eq!(schedule.missed(after, last - 1, 99), &times[..19]);
        }

        #[test]
        fn hourly_patterns_match_the_local_minute(zone in any_zone(), after in any_time(), minute in 0..60_u32) {
            let schedule = schedule(&format!("{minute} * * * *"), zone, Missed::All);
            let shows = |time: i64| schedule.local(time).is_some_and(|local| {
                use chrono::Timelike;
                local.minute() == minute && local.second() == 0
            });
            let start = i64::try_from(after / 1_000).unwrap();
            let mut time = after;
            for expected in (start + 1..start + 14_400).filter(|time| shows(*time)).filter_map(millis) {
                time = schedule.next_after(time).unwrap();
                prop_assert_eq!(time, expected);
            }
        }
    }
}
