//! The configuration of an agent with the values of its secrets.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use caxton_control::secret::{SecretText, names_in};
use parking_lot::Mutex;

use super::values::{SecretValue, Secrets};

/// The shortest text that is masked, in bytes. A shorter one would make holes in words that have nothing to do with it.
const MIN_MASKED: usize = 4;
/// The values of the past that are masked too: a guest may have kept one.
const MAX_PAST: usize = 16;

/// The texts of an agent's configuration, by key.
pub(crate) type AgentTexts = BTreeMap<String, String>;

/// The secrets of a revision whose configuration refers to some.
pub(crate) struct AgentSecrets {
    secrets: Arc<Secrets>,
    /// The texts as declared.
    config: AgentTexts,
    /// The names of secrets that the guest is not given, and that a server may tell it: those of its calls' headers.
    of_calls: BTreeSet<String>,
    // Locked to compare a number and clone a pointer at most calls, never across a wait.
    state: Mutex<Resolved>,
}

/// The texts with their references replaced.
#[derive(Default)]
struct Resolved {
    /// The number of changes of the secrets when they were compared last; `None` before the first time.
    generation: Option<u64>,
    texts: Option<Arc<AgentTexts>>,
    /// The values to mask: those in force, then those of the past.
    masked: VecDeque<(String, SecretValue)>,
}

impl AgentSecrets {
    /// Creates the secrets of a revision; `None` if neither its configuration nor its calls refer to any and it has no
    /// `$${`. Those of its calls are masked and else not used here.
    pub(crate) fn new(secrets: &Arc<Secrets>, config: &AgentTexts, of_calls: BTreeSet<String>) -> Option<Arc<Self>> {
        let refers = config.values().any(|text| text.contains("${")) || !of_calls.is_empty();
        let (secrets, config) = (Arc::clone(secrets), config.clone());
        refers.then(|| Arc::new(Self { secrets, config, of_calls, state: Mutex::default() }))
    }

    /// Returns the texts with the values in force. The same pointer as long as no value of this agent changes.
    ///
    /// # Errors
    /// The name of a secret without a value.
    pub(crate) fn texts(&self) -> Result<Arc<AgentTexts>, String> {
        let generation = self.secrets.generation();
        let mut state = self.state.lock();
        if let (Some(known), Some(texts)) = (state.generation, &state.texts)
            && known == generation
        {
            return Ok(Arc::clone(texts));
        }
        let values = self.secrets.values.load();
        let resolve = |text: &String| match SecretText::parse(text) {
            Ok(parsed) => parsed.resolve(|name| values.get(name).map(|value| &*value.0)),
            // Of a revision from before there were secrets: it means itself.
            Err(_) => Ok(text.clone()),
        };
        let resolved: Result<AgentTexts, String> =
            self.config.iter().map(|(key, text)| Ok((key.clone(), resolve(text)?))).collect();
        let resolved = resolved?;
        for name in names_in(self.config.values()).into_iter().chain(self.of_calls.iter().cloned()) {
            let Some(value) = values.get(&name) else { continue };
            if !state.masked.iter().any(|(_, known)| known == value) {
                state.masked.push_front((name, value.clone()));
                state.masked.truncate(MAX_PAST);
            }
        }
        state.generation = Some(generation);
        match &state.texts {
            // Another secret has changed. The old pointer says that this agent's have not.
            Some(texts) if **texts == resolved => {}
            _ => state.texts = Some(Arc::new(resolved)),
        }
        Ok(Arc::clone(state.texts.as_ref().expect("it was just set")))
    }

    /// Returns `true` if the configuration refers to one of these secrets.
    pub(crate) fn refers_to(&self, names: &[String]) -> bool {
        let own = names_in(self.config.values());
        names.iter().any(|name| own.contains(name))
    }

    /// Replaces the values of secrets in a text by their names.
    pub(crate) fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut masked = Cow::Borrowed(text);
        for (name, value) in &self.state.lock().masked {
            // Line by line, because a log has lines: a key in PEM form is printed in many.
            for part in value.0.lines().map(str::trim).filter(|part| part.len() >= MIN_MASKED) {
                if masked.contains(part) {
                    masked = Cow::Owned(masked.replace(part, &format!("[secret {name}]")));
                }
            }
        }
        masked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[(&str, &str)]) -> super::super::values::SecretValues {
        values.iter().map(|(name, value)| ((*name).to_owned(), SecretValue(Arc::from(*value)))).collect()
    }

    fn config(text: &str) -> AgentTexts {
        [("token".to_owned(), text.to_owned())].into()
    }

    #[test]
    fn texts_change_with_their_own_secrets_only() {
        let store = Arc::new(Secrets::default());
        assert!(AgentSecrets::new(&store, &config("plain"), BTreeSet::new()).is_none());
        let agent = AgentSecrets::new(&store, &config("Bearer ${secret:a}"), BTreeSet::new()).unwrap();
        assert_eq!(agent.texts().unwrap_err(), "a");
        assert_eq!(store.take(secrets(&[("a", "first"), ("b", "1")])), ["a", "b"]);
        let first = agent.texts().unwrap();
        assert_eq!(first["token"], "Bearer first");
        assert_eq!(store.take(secrets(&[("a", "first"), ("b", "2")])), ["b"]);
        assert!(Arc::ptr_eq(&first, &agent.texts().unwrap()), "another secret has changed");
        store.take(secrets(&[("a", "second")]));
        assert_eq!(agent.texts().unwrap()["token"], "Bearer second");
        assert!(store.has("b"), "what is not declared any more stays for revisions that run");
    }

    #[test]
    fn secrets_of_calls_are_masked_and_not_given() {
        let store = Arc::new(Secrets::default());
        let agent = AgentSecrets::new(&store, &config("plain"), BTreeSet::from(["key".to_owned()])).unwrap();
        store.take(secrets(&[("key", "hunter2")]));
        let first = agent.texts().unwrap();
        assert_eq!(first["token"], "plain");
        store.take(secrets(&[("key", "correct")]));
        assert!(Arc::ptr_eq(&first, &agent.texts().unwrap()), "no instance was given it");
        assert_eq!(agent.mask("hunter2 or correct"), "[secret key] or [secret key]");
        assert!(!agent.refers_to(&["key".to_owned()]));
    }

    #[test]
    fn values_of_today_and_before_are_masked() {
        let store = Arc::new(Secrets::default());
        let agent = AgentSecrets::new(&store, &config("${secret:a} ${secret:key}"), BTreeSet::new()).unwrap();
        store.take(secrets(&[("a", "hunter2"), ("key", "-----BEGIN\nabcdef\n--\n"), ("other", "others")]));
        agent.texts().unwrap();
        store.take(secrets(&[("a", "correct")]));
        agent.texts().unwrap();
        for (text, expected) in [
            ("it is hunter2, now correct", "it is [secret a], now [secret a]"),
            ("line abcdef of a key -- ", "line [secret key] of a key -- "),
            ("the secret of others", "the secret of others"),
        ] {
            assert_eq!(agent.mask(text), expected);
        }
        let shown = format!("{store:?}");
        assert!(shown.contains("key") && !shown.contains("correct") && !shown.contains("abcdef"), "{shown}");
    }
}
