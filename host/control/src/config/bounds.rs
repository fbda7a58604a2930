//! The bounds of numbers, sizes and durations, with the error that names them.

use std::time::Duration;

use super::error::{ConfigError, Location};
use crate::units::{print_bytes, print_duration};

/// Checks that a number is within its bounds; the error formats all three with `print`.
pub(super) fn bounded(
    given: i128,
    least: u64,
    most: u64,
    at: Location,
    print: fn(i128) -> String,
) -> Result<u64, ConfigError> {
    // Negative numbers are out of bounds as well, and the error shows them as written.
    match u64::try_from(given) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(ConfigError::OutOfBounds {
            at,
            given: print(given),
            least: print(i128::from(least)),
            most: print(i128::from(most)),
        }),
    }
}

/// Checks that a number is within its bounds; NaN never is.
pub(super) fn fraction(given: f64, least: f64, most: f64, at: Location) -> Result<f64, ConfigError> {
    if (least..=most).contains(&given) {
        return Ok(given);
    }
    let [given, least, most] = [given, least, most].map(|number| number.to_string());
    Err(ConfigError::OutOfBounds { at, given, least, most })
}

/// Formats a size, also a negative one, which occurs only in an error.
pub(super) fn size_text(bytes: i128) -> String {
    u64::try_from(bytes).map_or_else(|_| bytes.to_string(), print_bytes)
}

/// Checks that a duration is within its bounds.
pub(super) fn time(given: Duration, least: u64, most: u64, at: Location) -> Result<Duration, ConfigError> {
    let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
    if (least..=most).contains(&given) {
        return Ok(given);
    }
    let [given, least, most] = [given, least, most].map(print_duration);
    Err(ConfigError::OutOfBounds { at, given, least, most })
}
