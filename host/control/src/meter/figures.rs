//! The numbers of a response that a meter looks for, by the paths to them.

/// A JSON pointer (RFC 6901), split at its slashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer(pub(super) Vec<String>);

/// A step of the path to a value.
#[derive(Debug)]
pub(super) enum JsonStep {
    /// A member of an object, by its key. `None` for a key that is longer than any pointer has.
    Key(Option<String>),
    /// An element of an array.
    Index(u64),
}

impl JsonStep {
    /// Returns `true` if a part of a pointer names it.
    pub(super) fn is(&self, part: &str) -> bool {
        match self {
            Self::Key(key) => key.as_deref() == Some(part),
            // Without leading zeros (RFC 6901, section 4), as the printed number has none.
            Self::Index(index) => part == index.to_string(),
        }
    }
}

/// The numbers that were found.
#[derive(Debug)]
pub(crate) struct MeterFigures {
    pub(super) pointers: Vec<Pointer>,
    pub(super) values: Vec<Option<u64>>,
}

impl MeterFigures {
    /// Notes a number at a path, in place of an earlier one. Anything but a whole number is none.
    pub(super) fn note(&mut self, path: &[JsonStep], text: &str) {
        for (pointer, value) in self.pointers.iter().zip(&mut self.values) {
            if pointer.0.len() == path.len() && pointer.0.iter().zip(path).all(|(part, step)| step.is(part)) {
                // The last one that is a figure: a stream may have the member without one as well.
                *value = text.parse().ok().or(*value);
            }
        }
    }
}
