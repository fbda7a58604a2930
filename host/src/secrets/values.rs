//! The values in force.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

/// The value of a secret. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretValue(pub(super) Arc<str>);

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Values by name.
pub(crate) type SecretValues = BTreeMap<String, SecretValue>;

/// The values that were in force at one moment.
pub(crate) struct SecretTexts(Arc<SecretValues>);

impl SecretTexts {
    /// Returns the value of a secret.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| &*value.0)
    }
}

/// The values in force.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    pub(super) values: ArcSwap<SecretValues>,
    /// The number of changes. Read before each call of an agent with secrets, so that it is apart from the values.
    generation: AtomicU64,
}

impl Secrets {
    /// Takes values that were read. Returns the names of those that have changed, in order.
    pub(crate) fn take(&self, read: SecretValues) -> Vec<String> {
        let before = self.values.load_full();
        let changed: Vec<String> = read
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(value))
            .map(|(name, _)| name.clone())
            .collect();
        if !changed.is_empty() {
            let mut values = SecretValues::clone(&before);
            values.extend(read);
            self.values.store(Arc::new(values));
            // After the values: whoever sees the new number finds them.
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Returns `true` if there is a value of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.load().contains_key(name)
    }

    /// Returns the values in force.
    pub(crate) fn texts(&self) -> SecretTexts {
        SecretTexts(self.values.load_full())
    }

    /// Returns the number of changes.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
