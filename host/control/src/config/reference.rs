//! The page `docs/configuration.md`: the table of keys for people.

use std::fmt::Write;

use super::schema::{DefaultValue, INHERITABLE, ItemKind, KEYS, Key, Kind};

/// The text before the tables.
const INTRO: &str = "\
# `caxton.toml`

Every key that Caxton reads. This page is written by the program from the table that also checks the file
(`host/control/src/config/keys.rs`); `caxton check --schema` prints the same for editors.

Each setting is taken from the first of these that has it: a flag, an environment variable, the file, the default.
The variable of a key is `CAXTON_` and the key in upper case, with `__` for each `.` and `_` for each `-`:
`http.max-head` is `CAXTON_HTTP__MAX_HEAD`. Its value is read as TOML where that makes sense, else as text. The flags
are `--listen` (`http.listen`), `--admin` (`admin.listen`), `--probes` (`probes.listen`) and `--data` (`store.path`).
Keys that are not listed here are errors, and so is a value out of bounds; all errors are reported at once.

A variable with `__` that is no setting is an error too. Any other that begins with `CAXTON_` is a warning, and those that
Kubernetes makes of a Service (`CAXTON_SERVICE_HOST`, `CAXTON_PORT_8080_TCP`) are one warning together. An empty variable
counts as one that is not set, unless any text is right there, as in `config`.

- A **size** is a whole number with `B`, `KB`, `KiB`, `MB`, `MiB`, `GB` or `GiB`, or a number of bytes.
- A **duration** is whole numbers with `h`, `m`, `s`, `ms`, the larger first: `1m30s`.
- A **rate** is a whole number, `/`, and `s`, `m` or `h`: `100/s`.
- A **name** of an agent or a capability has 1 to 63 lower-case letters, digits and `-`; it begins with a letter and
  does not end with `-`.
- A **route** is compared with the path as the client sends it, so literals are percent-encoded where a client does so.
  `{id}` matches one segment, `{*rest}` at the end all that is left, which may be nothing: `/files/{*rest}` matches
  `/files/` too. A literal goes before both; a parameter and a rest cannot stand at the same place. Two routes that match
  the same paths need different methods.
- A **cron** has a field each for minute, hour, day, month and weekday, or six with the second first: `0 9 * * MON-FRI`.
  A field takes `*`, numbers, ranges `1-5`, steps `*/5` and lists `1,15`; months and weekdays have names, the day `L` for
  the last. Day and weekday, if both are set, are alternatives. When clocks are turned, a time that comes twice counts
  once and one that is left out counts right after the gap; a cron for every hour just follows the time that passes.
";

/// Returns the reference of all keys, in Markdown.
pub fn reference() -> String {
    let mut page = INTRO.to_owned();
    write_table(&mut page, "The file", "", &KEYS.iter().filter(|key| parent(key.path).is_empty()).collect::<Vec<_>>());
    let is_table = |key: &&Key| {
        matches!(key.kind, Kind::Table | Kind::Tables | Kind::Agents | Kind::Secrets | Kind::Budgets)
            || key.kind.is_list_of_tables()
    };
    for table in KEYS.iter().filter(is_table) {
        let prefix = match table.kind {
            Kind::Agents | Kind::Budgets => format!("{}.NAME", table.path),
            _ => table.path.to_owned(),
        };
        let title = match table.kind {
            kind if kind == Kind::Tables || kind.is_list_of_tables() => format!("`[[{prefix}]]`"),
            _ => format!("`[{prefix}]`"),
        };
        let named = format!("{prefix}.NAME");
        let is_below =
            |key: &&Key| parent(key.path) == prefix || table.kind == Kind::Secrets && parent(key.path) == named;
        let keys: Vec<&Key> = KEYS.iter().filter(is_below).collect();
        let doc = match table.path {
            "defaults" => format!("{} {}", table.doc, inherited_line()),
            "ceilings" => format!("{} {}", table.doc, ceilings_line()),
            _ => table.doc.to_owned(),
        };
        write_table(&mut page, &title, &doc, &keys);
    }
    write_later(&mut page);
    page
}

/// Returns the path of the table that has the key.
fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// Writes a heading, the purpose of the table, and the rows of the keys that hold a value.
fn write_table(page: &mut String, title: &str, doc: &str, keys: &[&Key]) {
    // Writing to a `String` cannot fail, here and below.
    let _ = writeln!(page, "\n## {title}");
    if !doc.is_empty() {
        let _ = writeln!(page, "\n{doc}");
    }
    // Tables have sections of their own, and unimplemented keys a list at the end.
    let rows: Vec<&&Key> = keys
        .iter()
        .filter(|key| {
            !matches!(
                key.kind,
                Kind::Table | Kind::Tables | Kind::Agents | Kind::Secrets | Kind::Budgets | Kind::Unimplemented
            )
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n| key | takes | default | meaning |\n|---|---|---|---|");
    for key in rows {
        // A name that a person chooses is a part of what is written.
        let name = match key.path.strip_prefix("secrets.") {
            Some(name) => name,
            None => key.path.rsplit('.').next().unwrap_or(key.path),
        };
        let default = match key.default {
            DefaultValue::Required(example) => format!("required, such as `{example}`"),
            DefaultValue::Unset(example) => format!("off; such as `{example}`"),
            DefaultValue::EmptyList(example) | DefaultValue::EmptyTable(example) => {
                format!("none; such as `{example}`")
            }
            DefaultValue::Text(_) | DefaultValue::Integer(_) | DefaultValue::Number(_) | DefaultValue::Boolean(_) => {
                format!("`{}`", key.default.example())
            }
        };
        let _ = writeln!(page, "| `{name}` | {} | {default} | {} |", takes(key.kind), key.doc);
    }
}

/// Returns the values that a kind takes, with its bounds.
fn takes(kind: Kind) -> String {
    match kind {
        Kind::Format => "`1`".to_owned(),
        Kind::Word { known, .. } => format!("`\"{}\"`", known.join("\"`, `\"")),
        Kind::SaveMode => "`\"commit\"`, `\"idle\"`, `\"every N\"` messages, `\"every TIME\"`".to_owned(),
        Kind::TextMap => "a table of texts".to_owned(),
        Kind::List(ItemKind::Receiver) => "a list of agents and `cap:NAME`".to_owned(),
        _ => match kind.bounds() {
            Some(bounds) => format!("{}, {bounds}", kind.describe()),
            None => kind.describe(),
        },
    }
}

/// Returns the line that lists the tables of `[defaults]`.
fn inherited_line() -> String {
    let implemented =
        |name: &&&str| KEYS.iter().any(|key| key.path == format!("agents.NAME.{name}") && key.kind == Kind::Table);
    let names: Vec<String> =
        INHERITABLE.iter().filter(implemented).map(|name| format!("`[defaults.{name}]`")).collect();
    format!("It has {}, with the keys that an agent has there.", names.join(", "))
}

/// Returns the line that lists the keys of `[ceilings]`.
fn ceilings_line() -> String {
    let keys = KEYS.iter().filter(|key| key.is_capped).filter_map(|key| key.path.strip_prefix("agents.NAME."));
    let keys: Vec<String> = keys.map(|key| format!("`{key}`")).collect();
    format!("It has keys of agents, with what they take there: {}.", keys.join(", "))
}

/// Writes the keys and words that are known and refused.
fn write_later(page: &mut String) {
    let _ = writeln!(page, "\n## Not implemented yet\n\nThese are known and refused, so that none is ever ignored:\n");
    for key in KEYS {
        match key.kind {
            Kind::Unimplemented => {
                let _ = writeln!(page, "- `{}`: {}", key.path, key.doc);
            }
            Kind::Word { later, .. } if !later.is_empty() => {
                let _ = writeln!(page, "- `{}` = `\"{}\"`", key.path, later.join("\"`, `\""));
            }
            _ => {}
        }
    }
}
