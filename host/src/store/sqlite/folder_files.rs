//! The names of the store's files in the data folder.

/// The database.
pub(in crate::store) const DATABASE: &str = "caxton.db";
/// The file by which a host holds the data folder.
pub(in crate::store) const LOCK: &str = "lock";
