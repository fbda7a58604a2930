//! The text form in which a revision's settings are stored: sparse, and read with the defaults of the reading host.
//!
//! A stored revision is identified by this text, also by later versions of the host. Only values that differ from their
//! default are written: a setting that a later version adds changes no text, and an earlier text reads as if the new
//! setting had been left out of the file. So an upgrade neither begins a rollout nor makes a stored revision
//! unreadable. It follows that the default of a setting in here never changes; a test lists them all.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::format::StateFormat;
use crate::grant::Grants;
use crate::limits::Limits;

/// The settings that make a revision beside its component.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RevisionSettings {
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) allow: Grants,
    pub(crate) limits: Limits,
    pub(crate) state: StateFormat,
}

/// The settings of an agent that sets none.
static UNSET: LazyLock<RevisionSettings> = LazyLock::new(RevisionSettings::default);

/// The settings with their defaults.
// Built once, as every stored text is compared with it.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| tree(&*UNSET));

fn tree<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("settings are text, numbers, lists and tables of them")
}

impl RevisionSettings {
    /// Returns the stored text. Equal texts are the same revision.
    pub(crate) fn to_text(&self) -> String {
        // Most agents set none, and a tree for each of a hundred thousand takes seconds.
        if *self == *UNSET { NOTHING.to_owned() } else { print_tree(tree(self)) }
    }

    /// Reads the output of [`to_text`](Self::to_text), of this version or an earlier one. Returns `None` for any other
    /// text.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        if text == NOTHING {
            return Some(UNSET.clone());
        }
        serde_json::from_str(text).ok().and_then(|kept| serde_json::from_value(with_defaults(kept, &DEFAULTS)).ok())
    }
}

/// The text of settings that are all at their defaults, which is read like any other.
const NOTHING: &str = "{}";

fn print_tree(settings: Value) -> String {
    without_defaults(settings, &DEFAULTS).map_or_else(|| NOTHING.to_owned(), |settings| settings.to_string())
}

/// Rewrites a text of an earlier version in the form of this one. Unknown settings stay, so that two revisions of a
/// later version stay different; a text that is not of settings is returned unchanged.
pub fn normalize(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(kept @ Value::Object(_)) => print_tree(kept),
        Ok(_) | Err(_) => text.to_owned(),
    }
}

/// Deserializes a text of settings into the form of this version, for `#[serde(deserialize_with = "…")]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| normalize(&text))
}

/// Deserializes a list without the elements that this version cannot read, such as rollouts with a removed strategy,
/// for `#[serde(deserialize_with = "…")]`.
pub(crate) fn readable<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: for<'a> Deserialize<'a>,
{
    let elements = Vec::<Value>::deserialize(deserializer).map_err(D::Error::custom)?;
    Ok(elements.into_iter().filter_map(|element| serde_json::from_value(element).ok()).collect())
}

/// Returns the leaves of `value` that differ from `defaults`, sorted by name; `None` if none does. A list is a leaf.
fn without_defaults(value: Value, defaults: &Value) -> Option<Value> {
    match (value, defaults) {
        (Value::Object(fields), Value::Object(known)) => {
            let kept: BTreeMap<String, Value> = fields
                .into_iter()
                .filter_map(|(key, value)| {
                    let kept = match known.get(&key) {
                        Some(default) => without_defaults(value, default)?,
                        // Unknown to this version, and kept: two revisions of a later version stay different.
                        None => value,
                    };
                    Some((key, kept))
                })
                .collect();
            // An empty table says nothing, and equal settings must have equal texts.
            (!kept.is_empty()).then(|| Value::Object(kept.into_iter().collect()))
        }
        (value, default) => (value != *default).then_some(value),
    }
}

/// Returns `kept` with its missing leaves filled in from `defaults`.
fn with_defaults(kept: Value, defaults: &Value) -> Value {
    match (kept, defaults) {
        (Value::Object(mut fields), Value::Object(known)) => {
            for (key, default) in known {
                let value = fields.remove(key).map_or_else(|| default.clone(), |value| with_defaults(value, default));
                fields.insert(key.clone(), value);
            }
            Value::Object(fields)
        }
        // A list replaces its default as a whole.
        (kept, _) => kept,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// The text of every revision before settings were stored sparsely.
    const FULL: &str = r#"{"config":{"mood":"calm"},"allow":{"send":["cap:desk"],"env":[]},"limits":{"memory_bytes":67108864,"cpu":"1s","fuel":null,"time":"10s","message_bytes":262144,"sends":7,"writes":1000,"state_bytes":67108864,"hops":64,"log_lines":1000}}"#;

    #[test]
    fn a_default_never_changes() {
        let defaults = json!({
            "config": {},
            "allow": { "send": [], "env": [] },
            "limits": {
                "memory_bytes": 67_108_864, "cpu": "1s", "fuel": null, "time": "10s", "message_bytes": 262_144,
                "sends": 1_000, "writes": 1_000, "state_bytes": 67_108_864, "hops": 64, "log_lines": 1_000,
            },
        });
        let changed = without_defaults(defaults, &DEFAULTS);
        assert_eq!(changed, None, "revisions are kept that were made with these; a new setting has a new default");
    }

    #[test]
    fn the_text_has_only_differences_and_reads_back() {
        let mut settings = RevisionSettings::default();
        assert_eq!(settings.to_text(), "{}");
        settings.limits.sends = 7;
        settings.limits.fuel = Some(100_000);
        settings.limits.cpu = Duration::from_millis(1_500);
        settings.config = [("b", "2"), ("a", "1")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let text = settings.to_text();
        let expected = r#"{"config":{"a":"1","b":"2"},"limits":{"cpu":"1s500ms","fuel":100000,"sends":7}}"#;
        assert_eq!(text, expected);
        assert_eq!(RevisionSettings::from_text(&text), Some(settings));
    }

    #[test]
    fn a_full_text_of_an_earlier_version_is_the_same_revision() {
        let sparse = r#"{"allow":{"send":["cap:desk"]},"config":{"mood":"calm"},"limits":{"sends":7}}"#;
        assert_eq!(normalize(FULL), sparse);
        assert_eq!(normalize(sparse), sparse);
        assert_eq!(RevisionSettings::from_text(FULL), RevisionSettings::from_text(sparse));
        assert_eq!(RevisionSettings::from_text(sparse).unwrap().limits.sends, 7);
    }

    #[test]
    fn added_and_removed_settings_stay_readable() {
        // stored text, the text of this version, readable
        for (kept, printed, readable) in [
            ("{}", "{}", true),
            (r#"{"limits":{}}"#, "{}", true),
            (r#"{"limits":{"sends":1000}}"#, "{}", true),
            // Of a later version with more settings: its revisions stay different, and the known settings are read.
            (
                r#"{"snapshot":{"max":5},"limits":{"sends":7,"pages":3}}"#,
                r#"{"limits":{"pages":3,"sends":7},"snapshot":{"max":5}}"#,
                true,
            ),
            (r#"{"limits":{"sends":"many"}}"#, r#"{"limits":{"sends":"many"}}"#, false),
            ("no settings", "no settings", false),
            ("5", "5", false),
        ] {
            assert_eq!(normalize(kept), printed, "{kept}");
            assert_eq!(RevisionSettings::from_text(kept).is_some(), readable, "{kept}");
        }
    }

    #[test]
    fn null_and_empty_values_that_differ_are_kept() {
        let defaults = json!({ "a": 5, "b": { "c": [1], "d": null } });
        for (value, kept) in [
            (json!({ "a": null, "b": { "c": [1], "d": null } }), Some(json!({ "a": null }))),
            (json!({ "a": 5, "b": { "c": [], "d": 1 } }), Some(json!({ "b": { "c": [], "d": 1 } }))),
            (json!({ "a": 5, "b": { "c": [1], "d": null } }), None),
        ] {
            assert_eq!(without_defaults(value.clone(), &defaults), kept);
            assert_eq!(with_defaults(kept.unwrap_or(json!({})), &defaults), value);
        }
    }

    #[test]
    fn a_list_is_read_without_unreadable_elements() {
        #[derive(Deserialize)]
        struct Holder {
            #[serde(deserialize_with = "readable")]
            list: Vec<u8>,
        }
        let holder: Holder = serde_json::from_str(r#"{ "list": [1, "two", 300, 4] }"#).unwrap();
        assert_eq!(holder.list, [1, 4]);
    }
}
