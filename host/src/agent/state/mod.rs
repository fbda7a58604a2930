//! The state of an agent: commits, values under way, snapshots of memory, migrations, messages kept for rehearsals.

mod apart;
pub(super) mod commit;
mod deferral;
pub(super) mod memory;
pub(super) mod migrate;
pub(super) mod pending;
mod reads;
pub(super) mod recent;
pub(super) mod rehearsal;
pub(super) mod saves;
pub(super) mod snapshot;
pub(super) mod unsaved;
