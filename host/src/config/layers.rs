//! The precedence of file, environment and command line, key by key.
//!
//! figment merges the layers. Each merged value carries the tag of its provider, which leads back to the original node
//! with its place.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use caxton_control::config::{Entry, Node, Source, Table, Value};
use figment::value::{Dict, Map, Tag};
use figment::{Figment, Metadata, Profile, Provider};

use super::variables::{Setting, setting};

/// The keys that have a flag.
const FLAGS: [(&str, &str); 4] =
    [("http.listen", "--listen"), ("admin.listen", "--admin"), ("probes.listen", "--probes"), ("store.path", "--data")];

/// Merges the file with the variables in their order, and with the flags in theirs. Later layers win.
pub(super) fn merge(file: Node, variables: Vec<Setting>, flags: &[(&str, String)]) -> Node {
    let from_flags = flags.iter().map(|(key, text)| {
        let flag = FLAGS.iter().find(|(of, _)| of == key).map_or(*key, |(_, flag)| flag);
        setting(key.split('.').map(str::to_owned).collect(), text, Source::Flag(Arc::from(flag)))
    });
    let settings: Vec<Setting> = variables.into_iter().chain(from_flags).collect();
    if settings.is_empty() {
        return file;
    }
    // Only what another layer sets as well: figment copies every value, and a file may declare 100,000 agents.
    let of_others: BTreeSet<String> = settings.iter().filter_map(|setting| setting.path.first().cloned()).collect();
    let (shared, alone) = split(file, |key| of_others.contains(key));
    let layers: Vec<Layer> = std::iter::once(Layer { name: "file".to_owned(), node: shared })
        .chain(settings.into_iter().map(Layer::of_setting))
        .collect();
    let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
    let merged = figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default();
    // A tag of figment leads to the name of its provider only.
    let by_name: HashMap<&str, &Layer> = layers.iter().map(|layer| (layer.name.as_str(), layer)).collect();
    let owner = |tag: Tag| figment.get_metadata(tag).and_then(|metadata| by_name.get(metadata.name.as_ref()).copied());
    let merged_layers = MergedLayers { file: &layers[0], owner: &owner };
    let mut table = merged_layers.table(&merged, &mut Vec::new());
    table.extend(alone);
    Node { value: Value::Table(table), source: layers[0].node.source.clone() }
}

/// Splits a file into the tables that are merged, and the others.
fn split(file: Node, is_merged: impl Fn(&String) -> bool) -> (Node, Table) {
    let Node { value, source } = file;
    match value {
        Value::Table(table) => {
            let (merged, others) = table.into_iter().partition(|(key, _)| is_merged(key));
            (Node { value: Value::Table(merged), source }, others)
        }
        other => (Node { value: other, source }, Table::new()),
    }
}

/// A provider of settings.
struct Layer {
    /// The file, the variable or the flag. Unique, as it identifies the layer of a merged value.
    name: String,
    node: Node,
}

impl Layer {
    /// Creates a layer with one setting.
    fn of_setting(setting: Setting) -> Self {
        let source = setting.node.source.clone();
        let name = match &source {
            Source::Variable(name) | Source::Flag(name) => name.to_string(),
            Source::File { .. } | Source::Place(_) | Source::Default => String::new(),
        };
        let node = setting.path.into_iter().rev().fold(setting.node, |node, key| Node {
            value: Value::Table(Table::from([(key, Entry { key: source.clone(), node })])),
            source: source.clone(),
        });
        Self { name, node }
    }

    /// Returns the entry of the last key of a path.
    fn entry(&self, path: &[&str]) -> Option<&Entry> {
        let (last, tables) = path.split_last()?;
        let mut node = &self.node;
        for key in tables {
            node = &node.get(key)?.node;
        }
        node.get(last)
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let dict = match &self.node.value {
            Value::Table(table) => to_dict(table),
            _ => Dict::new(),
        };
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

fn to_dict(table: &Table) -> Dict {
    table.iter().map(|(key, entry)| (key.clone(), to_figment(&entry.node))).collect()
}

fn to_figment(node: &Node) -> figment::value::Value {
    match &node.value {
        Value::Table(table) => to_dict(table).into(),
        // figment replaces a list as a whole and needs none of its elements.
        Value::Array(_) => Vec::<figment::value::Value>::new().into(),
        Value::String(text) | Value::Datetime(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
    }
}

/// The origin of merged values.
struct MergedLayers<'a> {
    file: &'a Layer,
    owner: &'a dyn Fn(Tag) -> Option<&'a Layer>,
}

impl MergedLayers<'_> {
    /// Builds the merged table at `path` from the nodes of the layers.
    fn table<'p>(&self, merged: &'p Dict, path: &mut Vec<&'p str>) -> Table {
        let mut table = Table::new();
        for (key, value) in merged {
            path.push(key);
            // A table from several layers is located where the file has it.
            let in_file = value.as_dict().and_then(|_| self.file.entry(path));
            let in_file = in_file.filter(|entry| matches!(entry.node.value, Value::Table(_)));
            let entry = in_file.or_else(|| (self.owner)(value.tag())?.entry(path));
            if let Some(entry) = entry {
                let node = match value.as_dict() {
                    Some(dict) => {
                        Node { value: Value::Table(self.table(dict, path)), source: entry.node.source.clone() }
                    }
                    None => entry.node.clone(),
                };
                table.insert(key.clone(), Entry { key: entry.key.clone(), node });
            }
            path.pop();
        }
        table
    }
}
