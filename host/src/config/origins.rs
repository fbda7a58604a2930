//! The places of settings in a file that was read, as a whole or in parts.

use std::sync::Arc;

use caxton_control::Desired;
use caxton_control::config::{Location, Node, Source, Value};
use caxton_control::folder::FolderGrant;

use super::parts::{FileParts, agent_keys, moved};

/// The trees in which places are looked up.
#[derive(Debug)]
pub(super) enum Origins {
    /// The tree of the whole file.
    Whole(Node),
    /// The parts of the file.
    Parts(Arc<FileParts>),
}

impl Origins {
    /// Returns the place of the value at a path of keys.
    pub(super) fn source(&self, path: &[impl AsRef<str>]) -> Source {
        let found = |root| path.iter().try_fold(root, |node: &Node, key| Some(&node.get(key.as_ref())?.node));
        let node = match self {
            Self::Whole(root) => found(root),
            Self::Parts(parts) => match found(parts.rest()) {
                Some(node) => Some(node),
                None => {
                    let path = path.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(".");
                    // Only for errors, of which there are few.
                    let found = parts.agent_places().find(|(key, _)| *key == path);
                    return found.map_or(Source::Default, |(_, place)| place);
                }
            },
        };
        node.map_or(Source::Default, |node| node.source.clone())
    }

    /// Returns the setting that names a folder of an agent.
    pub(super) fn folder(&self, agent: &str, grant: &FolderGrant) -> Location {
        let found = match self {
            Self::Whole(root) => folder_in(root, agent, grant),
            // Only for errors, of which there are few.
            Self::Parts(parts) => parts.agent_tree(agent).and_then(|(tree, start)| {
                let found = folder_in(&tree, agent, grant)?;
                Some(Location { source: moved(&found.source, |byte| byte + start), ..found })
            }),
        };
        found.unwrap_or_else(|| Location { key: format!("agents.{agent}.allow.files"), source: Source::Default })
    }

    /// Returns the place of an element of the list at a path of keys.
    pub(super) fn element(&self, path: &str, index: usize) -> Source {
        let root = match self {
            Self::Whole(root) => root,
            Self::Parts(parts) => parts.rest(),
        };
        let nodes = elements(root, &path.split('.').collect::<Vec<_>>());
        nodes.get(index).map_or(Source::Default, |node| node.source.clone())
    }

    /// Returns the paths of the keys of agents that refer to files, with their places.
    pub(super) fn of_agents(&self, desired: &Desired) -> Vec<(String, Source)> {
        match self {
            Self::Whole(_) => {
                let paths = desired
                    .agents
                    .values()
                    .flat_map(|spec| agent_keys(spec).map(|[table, key]| ["agents", spec.name.as_str(), table, key]));
                paths.map(|path| (path.join("."), self.source(&path))).collect()
            }
            Self::Parts(parts) => parts.agent_places().collect(),
        }
    }
}

/// Returns the elements of the list at a path of keys.
fn elements<'n>(root: &'n Node, path: &[&str]) -> &'n [Node] {
    let list = path.iter().try_fold(root, |node, key| Some(&node.get(key)?.node));
    match list.map(|list| &list.value) {
        Some(Value::Array(nodes)) => nodes,
        _ => &[],
    }
}

/// Returns the setting in this tree that names a folder of an agent.
fn folder_in(root: &Node, agent: &str, grant: &FolderGrant) -> Option<Location> {
    let path = ["agents", agent, "allow", "files"];
    let key = path.join(".");
    elements(root, &path).iter().enumerate().find_map(|(index, node)| {
        let (named, key) = match &node.value {
            Value::String(_) => (Some(node), format!("{key}[{index}]")),
            _ => (node.get("folder").map(|entry| &entry.node), format!("{key}[{index}].folder")),
        };
        let named = named.filter(|node| matches!(&node.value, Value::String(text) if text == grant.folder()))?;
        Some(Location { key, source: named.source.clone() })
    })
}
