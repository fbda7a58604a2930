//! Ceilings: the most that agents may set.

use std::collections::BTreeMap;
use std::time::Duration;

use super::kinds::{Key, Kind};
use super::node::Source;
use crate::units::{print_bytes, print_duration};

/// The ceilings in force, by the path of the key in the table of settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Ceilings(BTreeMap<&'static str, Ceiling>);

/// A ceiling with its place.
#[derive(Debug, Clone, PartialEq)]
struct Ceiling {
    value: Amount,
    at: Source,
}

/// A value of a key that can have a ceiling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    /// A number, or a size in bytes.
    Number(u64),
    /// A duration.
    Time(Duration),
}

/// A value above its ceiling, for an error.
pub(super) struct Excess {
    /// The value as text.
    pub(super) given: String,
    /// The ceiling as text.
    pub(super) most: String,
    /// The key of the ceiling, such as `ceilings.limits.memory`.
    pub(super) ceiling: String,
    /// The place of the ceiling.
    pub(super) at: Source,
}

impl Ceilings {
    /// Sets the ceiling of a key, in place of the one that it has.
    pub(super) fn set(&mut self, key: &'static Key, value: Amount, at: Source) {
        self.0.insert(key.path, Ceiling { value, at });
    }

    /// Replaces the places.
    pub(super) fn locate(&mut self, place: &dyn Fn(&Source) -> Source) {
        self.0.values_mut().for_each(|ceiling| ceiling.at = place(&ceiling.at));
    }

    /// Returns the ceiling of a key if its default is above it, or if it has none: without a value there would be no bound
    /// at all.
    pub(super) fn in_place_of(&self, key: &Key, default: Option<Amount>) -> Option<Amount> {
        let ceiling = self.0.get(key.path)?.value;
        default.is_none_or(|default| is_above(default, ceiling)).then_some(ceiling)
    }

    /// Compares a value with the ceiling of its key.
    pub(super) fn excess(&self, key: &Key, value: Amount) -> Option<Excess> {
        let Ceiling { value: ceiling, at } = self.0.get(key.path)?;
        is_above(value, *ceiling).then(|| {
            let [given, most] = [value, *ceiling].map(|amount| amount.print(key.kind));
            Excess { given, most, ceiling: key.path.replacen("agents.NAME", "ceilings", 1), at: at.clone() }
        })
    }
}

fn is_above(value: Amount, ceiling: Amount) -> bool {
    match (value, ceiling) {
        (Amount::Number(value), Amount::Number(ceiling)) => value > ceiling,
        (Amount::Time(value), Amount::Time(ceiling)) => value > ceiling,
        (Amount::Number(_), Amount::Time(_)) | (Amount::Time(_), Amount::Number(_)) => false,
    }
}

impl Amount {
    /// Formats it as in the file.
    fn print(self, kind: Kind) -> String {
        match (self, kind) {
            (Self::Number(bytes), Kind::Size { .. }) => print_bytes(bytes),
            (Self::Number(number), _) => number.to_string(),
            (Self::Time(time), _) => print_duration(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema;

    #[test]
    fn ceilings_lower_defaults_and_refuse_values() {
        let key = |path: &str| schema::find(path.split('.')).unwrap();
        let (memory, fuel, time) =
            (key("defaults.limits.memory"), key("defaults.limits.fuel"), key("defaults.limits.time"));
        let [short, long] = [1, 10].map(Duration::from_secs);
        let mut ceilings = Ceilings::default();
        ceilings.set(memory, Amount::Number(32 << 20), Source::Default);
        ceilings.set(fuel, Amount::Number(1_000_000), Source::Default);
        ceilings.set(time, Amount::Time(short), Source::Default);
        // key, default, in its place
        for (key, default, expected) in [
            (memory, Some(Amount::Number(64 << 20)), Some(Amount::Number(32 << 20))),
            (memory, Some(Amount::Number(32 << 20)), None),
            (fuel, None, Some(Amount::Number(1_000_000))),
            (time, Some(Amount::Time(long)), Some(Amount::Time(short))),
            (key("defaults.limits.cpu"), None, None),
        ] {
            assert_eq!(ceilings.in_place_of(key, default), expected, "{} {default:?}", key.path);
        }
        let shown = |key, value| {
            ceilings.excess(key, value).map(|excess| format!("{} {} {}", excess.given, excess.most, excess.ceiling))
        };
        assert_eq!(shown(memory, Amount::Number(64 << 20)).as_deref(), Some("64MiB 32MiB ceilings.limits.memory"));
        assert_eq!(shown(time, Amount::Time(long)).as_deref(), Some("10s 1s ceilings.limits.time"));
        assert_eq!(shown(fuel, Amount::Number(1_000_000)), None);
    }
}
