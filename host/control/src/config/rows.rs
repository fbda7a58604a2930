//! The rows of the table of settings by the kind of their values.

use super::kinds::{DefaultValue, ItemKind, Key, Kind};

pub(super) const fn key(path: &'static str, kind: Kind, default: DefaultValue, doc: &'static str) -> Key {
    Key { path, kind, default, doc, is_capped: false }
}

pub(super) const fn table(path: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Table, DefaultValue::Unset(""), doc)
}

pub(super) const fn unimplemented(path: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Unimplemented, DefaultValue::Unset(""), doc)
}

pub(super) const fn percent(
    path: &'static str,
    least: f64,
    most: f64,
    default: &'static str,
    doc: &'static str,
) -> Key {
    key(path, Kind::Percent { least, most }, DefaultValue::Text(default), doc)
}

pub(super) const fn integer(path: &'static str, least: u64, most: u64, default: i64, doc: &'static str) -> Key {
    key(path, Kind::Integer { least, most }, DefaultValue::Integer(default), doc)
}

pub(super) const fn number(path: &'static str, least: f64, most: f64, default: f64, doc: &'static str) -> Key {
    key(path, Kind::Number { least, most }, DefaultValue::Number(default), doc)
}

pub(super) const fn size(path: &'static str, least: u64, most: u64, default: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Size { least, most }, DefaultValue::Text(default), doc)
}

pub(super) const fn time(path: &'static str, least: u64, most: u64, default: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Time { least, most }, DefaultValue::Text(default), doc)
}

pub(super) const fn list(path: &'static str, item: ItemKind, example: &'static str, doc: &'static str) -> Key {
    key(path, Kind::List(item), DefaultValue::EmptyList(example), doc)
}

pub(super) const fn word(
    path: &'static str,
    known: &'static [&'static str],
    later: &'static [&'static str],
    default: &'static str,
    doc: &'static str,
) -> Key {
    key(path, Kind::Word { known, later }, DefaultValue::Text(default), doc)
}
