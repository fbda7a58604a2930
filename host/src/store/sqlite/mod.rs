//! The database and its files: schema, locks, readers, the log and its syncs, copies.

pub(super) mod backup;
pub(super) mod check;
pub(super) mod checkpoint;
pub(super) mod database_file;
pub(super) mod folder_files;
pub(super) mod held;
pub(super) mod lock;
pub(super) mod notify;
pub(super) mod offline;
pub(super) mod private;
pub(super) mod reader;
pub(super) mod schema;
pub(super) mod size;
pub(super) mod sync;
pub(super) mod table_reader;
pub(super) mod whole;
