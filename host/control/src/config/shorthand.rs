//! Constructors for the rows of the table of settings.

use super::schema::{Default, Item, Key, Kind};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;

pub(super) const fn key(path: &'static str, kind: Kind, default: Default, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

pub(super) const fn table(path: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Table, Default::Unset(""), doc)
}

pub(super) const fn later(path: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Later, Default::Unset(""), doc)
}

pub(super) const fn percent(
    path: &'static str,
    least: f64,
    most: f64,
    default: &'static str,
    doc: &'static str,
) -> Key {
    key(path, Kind::Percent { least, most }, Default::Text(default), doc)
}

pub(super) const fn integer(path: &'static str, least: u64, most: u64, default: i64, doc: &'static str) -> Key {
    key(path, Kind::Integer { least, most }, Default::Integer(default), doc)
}

pub(super) const fn number(path: &'static str, least: f64, most: f64, default: f64, doc: &'static str) -> Key {
    key(path, Kind::Number { least, most }, Default::Number(default), doc)
}

pub(super) const fn size(path: &'static str, least: u64, most: u64, default: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Size { least, most }, Default::Text(default), doc)
}

pub(super) const fn time(path: &'static str, least: u64, most: u64, default: &'static str, doc: &'static str) -> Key {
    key(path, Kind::Time { least, most }, Default::Text(default), doc)
}

pub(super) const fn list(path: &'static str, item: Item, example: &'static str, doc: &'static str) -> Key {
    key(path, Kind::List(item), Default::EmptyList(example), doc)
}

pub(super) const fn word(
    path: &'static str,
    known: &'static [&'static str],
    later: &'static [&'static str],
    default: &'static str,
    doc: &'static str,
) -> Key {
    key(path, Kind::Word { known, later }, Default::Text(default), doc)
}
