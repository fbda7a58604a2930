//! Meters: how many units a call has used, as its response says (`meter` of a place).
//!
//! The figures are found while the response passes, whatever its size: nothing of it is kept but the path to the value at
//! hand. Of a server-sent stream each event is read by itself, and the last one with a figure decides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod figures;
mod scan;

use self::figures::{MeterFigures, Pointer};
use self::scan::{EventScan, JsonScan};

/// The most units of one place, and the most pointers of a unit.
pub const MAX_TERMS: usize = 16;
/// The longest pointer, in bytes.
const MAX_POINTER: usize = 256;

/// The reason why a text or a number is no part of a meter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    /// A text that is no JSON pointer (RFC 6901).
    #[error("`{0}` is no JSON pointer, which begins with `/` and has `~0` for `~` and `~1` for `/`")]
    Pointer(String),
    /// A factor that is not a whole number above 0.
    #[error("the factor of `{0}` has to be a whole number from 1 on")]
    Factor(String),
    /// A unit without a pointer, or more units or pointers than a place may have.
    #[error("a place has 1 to {MAX_TERMS} units of 1 to {MAX_TERMS} pointers each")]
    Size,
    /// A bound of a unit that the place does not count.
    #[error("`at-most` has the unit `{0}`, which `meter` does not count")]
    AtMost(String),
}

impl Pointer {
    fn parse(text: &str) -> Result<Self, MeterError> {
        let bad = || MeterError::Pointer(text.to_owned());
        let rest = text.strip_prefix('/').filter(|_| text.len() <= MAX_POINTER).ok_or_else(bad)?;
        let parts = rest.split('/').map(|part| {
            // Every `~` is the begin of one of the two.
            let is_escaped = part.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
            is_escaped.then(|| part.replace("~1", "/").replace("~0", "~")).ok_or_else(bad)
        });
        Ok(Self(parts.collect::<Result<_, _>>()?))
    }
}

/// The sum of which a unit is the result: numbers of the response by pointer, each with its factor.
type Terms = BTreeMap<String, u64>;

/// The meter of a place, with the bounds that its calls keep. Stored with the place, in the form in which it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "WrittenMeter", into = "WrittenMeter")]
pub struct UnitMeter {
    units: BTreeMap<String, Terms>,
    at_most: BTreeMap<String, u64>,
    /// The pointers, each once, in the order of their texts.
    pointers: Vec<Pointer>,
}

/// The form of a meter in which it is stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct WrittenMeter {
    units: BTreeMap<String, Terms>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    at_most: BTreeMap<String, u64>,
}

impl UnitMeter {
    /// Creates a meter of units, each the sum of numbers by pointer times their factors. `at_most` has the most units that
    /// one call uses, where that is known.
    ///
    /// # Errors
    /// The part that cannot be used.
    pub fn new(units: BTreeMap<String, Terms>, at_most: BTreeMap<String, u64>) -> Result<Self, MeterError> {
        if units.len() > MAX_TERMS || units.values().any(|terms| terms.is_empty() || terms.len() > MAX_TERMS) {
            return Err(MeterError::Size);
        }
        if let Some(unit) = at_most.keys().find(|unit| !units.contains_key(*unit)) {
            return Err(MeterError::AtMost(unit.clone()));
        }
        let mut pointers = BTreeMap::new();
        for (text, factor) in units.values().flatten() {
            if *factor == 0 {
                return Err(MeterError::Factor(text.clone()));
            }
            pointers.insert(text.clone(), Pointer::parse(text)?);
        }
        let pointers = pointers.into_values().collect();
        Ok(Self { units, at_most, pointers })
    }

    /// Returns `true` if nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Returns the names of the units.
    pub fn units(&self) -> impl Iterator<Item = &str> {
        self.units.keys().map(String::as_str)
    }

    /// Returns the units that are reserved for a call: 0 of those of which the most is not known.
    pub fn reservation(&self) -> BTreeMap<String, u64> {
        let most = |unit: &String| self.at_most.get(unit).copied().unwrap_or(0);
        self.units.keys().map(|unit| (unit.clone(), most(unit))).collect()
    }

    /// Returns the units of which the most that a call uses is not known.
    pub fn unbounded(&self) -> impl Iterator<Item = &str> {
        self.units().filter(|unit| !self.at_most.contains_key(*unit))
    }

    /// Begins to read a response. `is_stream` is set for server-sent events.
    pub fn read(&self, is_stream: bool) -> MeterReading {
        let found = MeterFigures { pointers: self.pointers.clone(), values: vec![None; self.pointers.len()] };
        let scan = if is_stream {
            ResponseScan::Events(EventScan::default())
        } else {
            ResponseScan::Json(JsonScan::default())
        };
        MeterReading { found, scan }
    }

    /// Returns the units that a response has figures for.
    pub fn figures(&self, reading: &MeterReading) -> BTreeMap<String, u64> {
        // In the order of the texts, as `pointers` is made.
        let texts: std::collections::BTreeSet<&String> = self.units.values().flat_map(BTreeMap::keys).collect();
        let values: BTreeMap<&String, Option<u64>> =
            texts.into_iter().zip(reading.found.values.iter().copied()).collect();
        let sum = |terms: &Terms| {
            terms.iter().try_fold(0_u64, |sum, (text, factor)| {
                // Without one of its numbers the sum is not known.
                let value = values.get(text).copied().flatten()?;
                Some(sum.saturating_add(value.saturating_mul(*factor)))
            })
        };
        self.units.iter().filter_map(|(unit, terms)| Some((unit.clone(), sum(terms)?))).collect()
    }
}

impl TryFrom<WrittenMeter> for UnitMeter {
    type Error = MeterError;

    fn try_from(written: WrittenMeter) -> Result<Self, MeterError> {
        Self::new(written.units, written.at_most)
    }
}

impl From<UnitMeter> for WrittenMeter {
    fn from(meter: UnitMeter) -> Self {
        Self { units: meter.units, at_most: meter.at_most }
    }
}

enum ResponseScan {
    Json(JsonScan),
    Events(EventScan),
}

/// A response that is being read.
pub struct MeterReading {
    found: MeterFigures,
    scan: ResponseScan,
}

impl MeterReading {
    /// Reads the next bytes of the response.
    pub fn feed(&mut self, bytes: &[u8]) {
        match &mut self.scan {
            ResponseScan::Json(scan) => scan.feed(bytes, &mut self.found),
            ResponseScan::Events(scan) => scan.feed(bytes, &mut self.found),
        }
    }

    /// Ends the response.
    pub fn end(&mut self) {
        match &mut self.scan {
            ResponseScan::Json(scan) => scan.end(&mut self.found),
            ResponseScan::Events(scan) => scan.end(&mut self.found),
        }
    }
}

#[cfg(test)]
mod tests;
