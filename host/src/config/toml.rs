//! The conversion of TOML documents to [`Node`]s.

use std::ops::Range;

use caxton_control::config::{Entry, Node, Source, Table, Value};
use toml_edit::{Document, Item, TableLike};

/// Converts a byte range to a place.
pub(super) type Locate<'a> = dyn Fn(Range<usize>) -> Source + 'a;

/// Returns the place of a byte range in the file.
pub(super) fn in_file(span: Range<usize>) -> Source {
    Source::File { start: span.start, end: span.end }
}

/// Converts a document to a tree.
pub(super) fn document(document: &Document<&str>) -> Node {
    Node { value: Value::Table(table(document.as_table(), &in_file)), source: in_file(0..0) }
}

/// Parses text as it may stand after `=`, with each part located at `place`. `None` if it is not a TOML value.
pub(super) fn value(text: &str, source: &Source) -> Option<Node> {
    let line = format!("value = {text}");
    let document = Document::parse(line.as_str()).ok()?;
    // A line feed in the text could have added keys.
    let only = document.as_table().iter().next().filter(|_| document.as_table().len() == 1);
    only.map(|(_, item)| node(item, &in_file(0..0), &|_| source.clone()))
}

fn table(table: &dyn TableLike, locate: &Locate<'_>) -> Table {
    let entry = |(name, item): (&str, &Item)| {
        let key = table.get_key_value(name).and_then(|(key, _)| key.span());
        let key = locate(key.unwrap_or_default());
        // A table without a header of its own is located where its name occurs first.
        (name.to_owned(), Entry { node: node(item, &key, locate), key })
    };
    table.iter().map(entry).collect()
}

fn node(item: &Item, key: &Source, locate: &Locate<'_>) -> Node {
    let source = item.span().map_or_else(|| key.clone(), locate);
    let value = match item {
        Item::None => Value::Table(Table::new()),
        Item::Table(inner) => Value::Table(table(inner, locate)),
        Item::ArrayOfTables(tables) => {
            let one = |inner: &toml_edit::Table| Node {
                source: inner.span().map_or_else(|| key.clone(), locate),
                value: Value::Table(table(inner, locate)),
            };
            Value::Array(tables.iter().map(one).collect())
        }
        Item::Value(value) => return value_node(value, key, locate),
    };
    Node { value, source }
}

fn value_node(value: &toml_edit::Value, key: &Source, locate: &Locate<'_>) -> Node {
    let source = value.span().map_or_else(|| key.clone(), locate);
    let value = match value {
        toml_edit::Value::String(text) => Value::String(text.value().clone()),
        toml_edit::Value::Integer(number) => Value::Integer(*number.value()),
        toml_edit::Value::Float(number) => Value::Float(*number.value()),
        toml_edit::Value::Boolean(truth) => Value::Boolean(*truth.value()),
        toml_edit::Value::Datetime(time) => Value::Datetime(time.value().to_string()),
        toml_edit::Value::Array(array) => {
            Value::Array(array.iter().map(|element| value_node(element, &source, locate)).collect())
        }
        toml_edit::Value::InlineTable(inner) => Value::Table(table(inner, locate)),
    };
    Node { value, source }
}
