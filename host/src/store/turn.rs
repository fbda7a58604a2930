//! The order of changes among commits.

use std::sync::Arc;

/// The place of a change among the jobs that wait.
pub(in crate::store) enum Turn {
    /// A turn after all that was given before, and before all that is given later.
    AfterAll,
    /// A turn among the commits of an agent, in their order. The bytes are those that the change writes.
    OfAgent(Arc<str>, u64),
    /// The host's own turn: the change relies on nothing that was given before.
    OfHost,
}

impl Turn {
    /// Returns the turn of an agent for a change of few bytes.
    pub(in crate::store) fn of(agent: &Arc<str>) -> Self {
        Self::OfAgent(Arc::clone(agent), 0)
    }
}
