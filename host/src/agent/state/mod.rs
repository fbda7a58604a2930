//! The state of an agent: commits, values under way, snapshots of memory, migrations, messages kept for rehearsals.

pub(super) mod commit;
pub(super) mod migrate;
pub(super) mod pending;
pub(super) mod recent;
pub(super) mod snapshot;
