//! The look-up of settings by their path.

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use super::keys::{INHERITABLE, KEYS, METHODS};
pub use super::kinds::{DefaultValue, ItemKind, Key, Kind};

/// The keys of a table by name.
pub type Fields = BTreeMap<&'static str, Field>;

/// A key with the keys below it.
#[derive(Debug, Clone)]
pub struct Field {
    /// The last part of the path.
    pub name: &'static str,
    /// The key.
    pub key: &'static Key,
    /// The keys of a table; for [`Kind::Agents`] those of each agent.
    pub fields: Fields,
}

// Built once: every section of every agent looks keys up in it.
static ROOT: LazyLock<Fields> = LazyLock::new(|| {
    let mut root = Fields::new();
    for key in KEYS {
        insert(&mut root, key);
    }
    // Copied from the agents, so that both always have the same keys.
    let agent = root["agents"].fields.clone();
    if let Some(defaults) = root.get_mut("defaults") {
        defaults.fields = agent.iter().filter(|(name, _)| INHERITABLE.contains(name)).map(pair).collect();
    }
    if let Some(ceilings) = root.get_mut("ceilings") {
        ceilings.fields = capped(&agent);
    }
    root
});

/// The keys of the operator's own file.
static OPERATOR: LazyLock<Fields> = LazyLock::new(|| {
    let kept = |(name, _): &(&&str, &Field)| ["caxton", "ceilings", "policy"].contains(*name);
    ROOT.iter().filter(kept).map(pair).collect()
});

fn pair((name, field): (&&'static str, &Field)) -> (&'static str, Field) {
    (name, field.clone())
}

/// Returns the keys that can have a ceiling, with the tables that they are in.
fn capped(fields: &Fields) -> Fields {
    let keep = |(name, field): (&&'static str, &Field)| {
        let below = capped(&field.fields);
        (field.key.is_capped || !below.is_empty()).then(|| (*name, Field { fields: below, ..field.clone() }))
    };
    fields.iter().filter_map(keep).collect()
}

/// Returns the keys of the operator's own file.
pub fn operator() -> &'static Fields {
    &OPERATOR
}

/// Returns the keys of the whole file.
pub fn root() -> &'static Fields {
    &ROOT
}

/// Returns the parts of a path, without the placeholder for names.
fn parts(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('.').filter(|part| *part != "NAME")
}

/// Inserts a key at its path. [`KEYS`] lists a table before its keys.
fn insert(mut fields: &mut Fields, key: &'static Key) {
    for part in parts(key.path) {
        let field = fields.entry(part).or_insert_with(|| Field { name: part, key, fields: Fields::new() });
        fields = &mut field.fields;
    }
}

/// Returns the key at a path as typed, such as `agents`, `triage`, `limits`, `memory`.
pub fn find<'a>(path: impl IntoIterator<Item = &'a str>) -> Option<&'static Key> {
    let mut fields = root();
    let mut found: Option<&'static Key> = None;
    let mut path = path.into_iter();
    while let Some(part) = path.next() {
        // Below a text map any key is valid, with the map's kind.
        if found.is_some_and(|key| matches!(key.kind, Kind::TextMap | Kind::Units | Kind::Meter)) {
            return found.filter(|_| path.next().is_none());
        }
        // The name of a secret stands where the key of the folder does.
        let is_named = found.is_some_and(|key| key.kind == Kind::Secrets) && part != "folder";
        let part = if is_named { path.next()? } else { part };
        let field = fields.get(part)?;
        found = Some(field.key);
        fields = &field.fields;
        // The name of an agent or a budget is part of the path and no key.
        if matches!(field.key.kind, Kind::Agents | Kind::Budgets) {
            path.next();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_listed_before_its_keys_and_every_key_once() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..at].iter().all(|other| other.path != key.path), "{} is there twice", key.path);
            let Some((table, _)) = key.path.rsplit_once('.') else { continue };
            let table = table.strip_suffix(".NAME").unwrap_or(table);
            let earlier = KEYS[..at].iter().find(|other| other.path == table);
            let kind = earlier.unwrap_or_else(|| panic!("{} comes before its table", key.path)).kind;
            assert!(
                matches!(kind, Kind::Table | Kind::Tables | Kind::Agents | Kind::Secrets | Kind::Budgets)
                    || kind.is_list_of_tables(),
                "{}",
                key.path
            );
        }
    }

    #[test]
    fn keys_with_ceilings_are_numbers_of_agents() {
        for key in KEYS.iter().filter(|key| key.is_capped) {
            assert!(key.path.starts_with("agents.NAME."), "{}", key.path);
            let is_ordered = matches!(key.kind, Kind::Integer { .. } | Kind::Size { .. } | Kind::Time { .. });
            assert!(is_ordered, "{}", key.path);
            // What is inherited was read with the ceilings; a default of the agent's table alone would not be.
            let table = key.path.split('.').nth(2).unwrap();
            assert!(INHERITABLE.contains(&table), "{}", key.path);
        }
    }

    #[test]
    fn keys_are_found_by_path() {
        for (path, expected) in [
            ("http.listen", Some("http.listen")),
            ("agents.triage.limits.memory", Some("agents.NAME.limits.memory")),
            ("defaults.limits.memory", Some("agents.NAME.limits.memory")),
            ("agents.triage.config.language", Some("agents.NAME.config")),
            ("agents.triage.config.language.x", None),
            ("secrets.folder", Some("secrets.folder")),
            ("secrets.openai.env", Some("secrets.NAME.env")),
            ("secrets.openai", None),
            ("budgets.demo.messages", Some("budgets.NAME.messages")),
            ("budgets.demo.units.tokens", Some("budgets.NAME.units")),
            ("budgets.demo.nothing", None),
            ("agents.triage.allow.http.url", Some("agents.NAME.allow.http.url")),
            ("agents.triage.nothing", None),
            ("http.listen.x", None),
            ("ceilings.limits.memory", Some("agents.NAME.limits.memory")),
            ("ceilings.mailbox.order", None),
            ("ceilings.config", None),
        ] {
            assert_eq!(find(path.split('.')).map(|key| key.path), expected, "{path}");
        }
    }
}
