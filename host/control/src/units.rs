//! The sizes, durations and percentages in the notation of the configuration file: `64MiB`, `1m30s`, `5%`.
//!
//! [`parse_bytes`] and [`parse_duration`] read back what [`print_bytes`] and [`print_duration`] write.

use std::time::Duration;

/// The units of a size with their bytes, the largest first.
// The order decides which unit `print_bytes` takes.
const BYTE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// The units of a duration with their milliseconds, the largest first.
// The order decides how `print_duration` splits and what `parse_duration` accepts after a unit.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The error for a text that is not a size, a duration or a percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// A number is missing; holds the text that begins without one.
    #[error("a whole number is needed before `{0}`")]
    NoNumber(String),
    /// A number without a unit.
    #[error("the unit after `{0}` is missing")]
    NoUnit(String),
    /// A number with a fraction.
    #[error("only whole numbers are allowed")]
    Fraction,
    /// An unknown unit.
    #[error("there is no unit `{0}`")]
    UnknownUnit(String),
    /// The units of a duration are not in order from large to small, each once.
    #[error("`{0}` comes too late: units go from large to small, each once")]
    UnitOrder(String),
    /// The value does not fit in 64 bits.
    #[error("it is too large")]
    TooLarge,
}

/// Splits a number and its unit off the front of `text`. Returns them with the rest.
fn number_and_unit(text: &str) -> Result<(u64, &str, &str), UnitError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NoNumber(text.to_owned()));
    }
    let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    // A fraction would otherwise be reported as an unknown unit `.`.
    if unit == "." {
        return Err(UnitError::Fraction);
    }
    let number = number.parse().map_err(|_| UnitError::TooLarge)?;
    Ok((number, unit, rest))
}

/// Parses a size in bytes: a whole number with `B`, `KB`, `KiB`, `MB`, `MiB`, `GB` or `GiB`, or without a unit.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let (number, unit, rest) = number_and_unit(text)?;
    if unit.is_empty() {
        return Ok(number);
    }
    // Unlike a duration, a size has one unit.
    let known = BYTE_UNITS.iter().find(|(name, _)| *name == unit && rest.is_empty());
    let (_, scale) = known.ok_or_else(|| UnitError::UnknownUnit(format!("{unit}{rest}")))?;
    number.checked_mul(*scale).ok_or(UnitError::TooLarge)
}

/// Returns the size that a text such as `64M`, `64 mb` or `64mib` probably means, in the notation of [`parse_bytes`].
/// `None` if the text is right already or gives no hint.
pub fn guess_bytes(text: &str) -> Option<String> {
    // Without a number at the front there is nothing to go by.
    let digits = text.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    // The same letters in another case first: `64mb` means `64MB`, and only `64M` is to be completed.
    let same = BYTE_UNITS.iter().map(|(name, _)| *name).find(|name| name.eq_ignore_ascii_case(unit));
    let binary =
        || BYTE_UNITS.iter().map(|(name, _)| *name).find(|name| name.eq_ignore_ascii_case(&format!("{unit}iB")));
    same.or_else(binary).map(|unit| format!("{number}{unit}")).filter(|guess| guess != text)
}

/// Formats a size with the largest unit that leaves a whole number.
pub fn print_bytes(bytes: u64) -> String {
    // Zero is a multiple of every unit and would become `0GiB`.
    let whole = |(_, scale): &&(&str, u64)| bytes >= *scale && bytes.is_multiple_of(*scale);
    match BYTE_UNITS.iter().find(whole) {
        Some((name, scale)) => format!("{}{name}", bytes / scale),
        None => "0B".to_owned(),
    }
}

/// Parses a duration: whole numbers with `h`, `m`, `s`, `ms`, the larger units first (`1m30s`).
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let mut rest = text;
    let mut units = TIME_UNITS.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        if unit.is_empty() {
            return Err(UnitError::NoUnit(number.to_string()));
        }
        // The iterator advances past each unit used, so a repeated or larger unit is not found any more.
        let Some((_, scale)) = units.find(|(name, _)| *name == unit) else {
            let known = TIME_UNITS.iter().any(|(name, _)| *name == unit);
            let kind = if known { UnitError::UnitOrder } else { UnitError::UnknownUnit };
            return Err(kind(unit.to_owned()));
        };
        total = number.checked_mul(*scale).and_then(|ms| total.checked_add(ms)).ok_or(UnitError::TooLarge)?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Formats a duration as `1m30s`, truncated to milliseconds.
pub fn print_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (name, scale) in TIME_UNITS {
        let count = rest / u128::from(scale);
        rest %= u128::from(scale);
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Parses a percentage, such as `5%` or `0.5%`. Returns the number before the sign.
pub fn parse_percent(text: &str) -> Result<f64, UnitError> {
    let number = text.strip_suffix('%').ok_or_else(|| UnitError::NoUnit(text.to_owned()))?;
    // The standard parser also accepts a sign, an exponent, `inf` and `nan`.
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match number.parse::<f64>() {
        Ok(percent) if plain => Ok(percent),
        _ => Err(UnitError::NoNumber("%".to_owned())),
    }
}

/// Formats a percentage, such as `5%`.
pub fn print_percent(percent: f64) -> String {
    format!("{percent}%")
}

/// Returns the percentage of `part` in `whole`; 0 if both are 0.
pub(crate) fn percent_of(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// The serialization of a [`Duration`] as text such as `1m30s`, for `#[serde(with = "…")]`.
pub mod serde_duration {
    use std::time::Duration;

    /// Serializes the duration as [`super::print_duration`] formats it.
    pub fn serialize<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::print_duration(*duration))
    }

    /// Deserializes the output of [`serialize`].
    ///
    /// # Errors
    /// The text is not a duration.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(serde::de::Error::custom)
    }

    /// The serialization of a duration that may be absent.
    pub mod option {
        use std::time::Duration;

        /// Serializes the duration as [`super::serialize`] does, or as none.
        pub fn serialize<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Deserializes the output of [`serialize`].
        ///
        /// # Errors
        /// The text is not a duration.
        pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            let text = <Option<String> as serde::Deserialize>::deserialize(deserializer)?;
            text.map(|text| super::super::parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_parsed() {
        for (text, expected) in [
            ("64MiB", Ok(64 << 20)),
            ("256KiB", Ok(256 << 10)),
            ("1GiB", Ok(1 << 30)),
            ("10MB", Ok(10_000_000)),
            ("1KB", Ok(1_000)),
            ("7B", Ok(7)),
            ("0", Ok(0)),
            ("1048576", Ok(1 << 20)),
            ("", Err(UnitError::Empty)),
            ("MiB", Err(UnitError::NoNumber("MiB".into()))),
            ("-1MiB", Err(UnitError::NoNumber("-1MiB".into()))),
            ("64M", Err(UnitError::UnknownUnit("M".into()))),
            ("64mib", Err(UnitError::UnknownUnit("mib".into()))),
            ("64 MiB", Err(UnitError::UnknownUnit(" MiB".into()))),
            ("1.5GiB", Err(UnitError::Fraction)),
            ("1MiB1", Err(UnitError::UnknownUnit("MiB1".into()))),
            ("99999999999999999999", Err(UnitError::TooLarge)),
            ("99999999999GiB", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(parse_bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_guessed() {
        for (text, expected) in [
            ("64M", Some("64MiB")),
            ("64 MiB", Some("64MiB")),
            ("64mb", Some("64MB")),
            ("1 g ", Some("1GiB")),
            ("M", None),
            ("64MiB", None),
            ("64 apples", None),
            ("1.5GiB", None),
        ] {
            assert_eq!(guess_bytes(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_printed_with_the_largest_whole_unit() {
        for (bytes, expected) in [
            (0, "0B"),
            (1, "1B"),
            (1023, "1023B"),
            (1000, "1KB"),
            (1024, "1KiB"),
            (64 << 20, "64MiB"),
            (1536 << 20, "1536MiB"),
            (10_000_000, "10MB"),
        ] {
            assert_eq!(print_bytes(bytes), expected);
        }
    }

    #[test]
    fn durations_are_parsed() {
        for (text, expected) in [
            ("10s", Ok(10_000)),
            ("1m30s", Ok(90_000)),
            ("500ms", Ok(500)),
            ("5m", Ok(300_000)),
            ("1h", Ok(3_600_000)),
            ("1h2m3s4ms", Ok(3_723_004)),
            ("0s", Ok(0)),
            ("", Err(UnitError::Empty)),
            ("10", Err(UnitError::NoUnit("10".into()))),
            ("1m30", Err(UnitError::NoUnit("30".into()))),
            ("s", Err(UnitError::NoNumber("s".into()))),
            ("-1s", Err(UnitError::NoNumber("-1s".into()))),
            ("1.5s", Err(UnitError::Fraction)),
            ("1d", Err(UnitError::UnknownUnit("d".into()))),
            ("10 s", Err(UnitError::UnknownUnit(" s".into()))),
            ("30s1m", Err(UnitError::UnitOrder("m".into()))),
            ("1s1s", Err(UnitError::UnitOrder("s".into()))),
            ("99999999999999999h", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn percentages_are_parsed() {
        for (text, expected) in
            [("5%", Some(5.0)), ("0.5%", Some(0.5)), ("5", None), ("%", None), ("-1%", None), ("inf%", None)]
        {
            assert_eq!(parse_percent(text).ok(), expected, "{text}");
        }
        assert_eq!(print_percent(0.5), "0.5%");
    }

    proptest! {
        #[test]
        fn formatted_values_are_parsed_back(number: u64) {
            prop_assert_eq!(parse_bytes(&print_bytes(number)), Ok(number));
            let duration = Duration::from_millis(number);
            prop_assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = (parse_bytes(&text), guess_bytes(&text), parse_duration(&text), parse_percent(&text));
        }
    }
}
