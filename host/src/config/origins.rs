//! The places of settings in a file that was read, as a whole or in parts.

use std::sync::Arc;

use caxton_control::Desired;
use caxton_control::config::{Node, Source, Value};

use super::parts::{FileParts, agent_keys};

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

    /// Returns the place of an element of the list at a path of keys.
    pub(super) fn element(&self, path: &str, index: usize) -> Source {
        let root = match self {
            Self::Whole(root) => root,
            Self::Parts(parts) => parts.rest(),
        };
        let list = path.split('.').try_fold(root, |node, key| Some(&node.get(key)?.node));
        match list.map(|list| &list.value) {
            Some(Value::Array(nodes)) => nodes.get(index).map_or(Source::Default, |node| node.source.clone()),
            _ => Source::Default,
        }
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
