//! Reads of the writer, within its transaction.

use rusqlite::{CachedStatement, Connection};

/// The tables as the transaction of the writer has them by now, for decisions. They read and never write: a change goes
/// by way of a record.
#[derive(Clone, Copy)]
pub(in crate::store) struct TableReader<'t>(&'t Connection);

impl<'t> TableReader<'t> {
    pub(in crate::store) fn new(connection: &'t Connection) -> Self {
        Self(connection)
    }

    /// Prepares a query, or takes it out of the cache.
    pub(in crate::store) fn prepare(self, sql: &str) -> rusqlite::Result<CachedStatement<'t>> {
        let query = self.0.prepare_cached(sql)?;
        // The tables that records are applied to elsewhere would lack the change.
        debug_assert!(query.readonly(), "a decision writes without a record: {sql}");
        Ok(query)
    }
}
