//! The rows of trees.

use rusqlite::params;

use super::Tables;
use crate::store::record::TreeRow;

/// The condition of a link whose message the store does not have any more: neither waiting or handled, nor for its time,
/// nor as a dead letter.
macro_rules! is_gone {
    () => {
        "tree_link.seq <= ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE message.seq = tree_link.seq)
         AND NOT EXISTS (SELECT 1 FROM timer WHERE timer.seq = tree_link.seq)
         AND NOT EXISTS (SELECT 1 FROM dead WHERE dead.seq = tree_link.seq)"
    };
}

/// Removes the trees all of whose links are gone.
const REMOVE_UNLINKED: &str = concat!(
    "DELETE FROM tree WHERE linked AND id IN (SELECT tree FROM tree_link WHERE ",
    is_gone!(),
    ") AND NOT EXISTS (SELECT 1 FROM tree_link WHERE tree_link.tree = tree.id AND NOT (",
    is_gone!(),
    "))"
);
const REMOVE_LINKS: &str = concat!("DELETE FROM tree_link WHERE ", is_gone!());

impl Tables<'_> {
    pub(super) fn tree(&mut self, row: &TreeRow<'_>) -> rusqlite::Result<()> {
        match row {
            TreeRow::Set { id, budget, conversation, last, record } => self.execute(
                "INSERT OR REPLACE INTO tree (id, budget, conversation, last, linked, record)
                 VALUES (?1, ?2, ?3, ?4, EXISTS (SELECT 1 FROM tree_link WHERE tree = ?1), ?5)",
                params![id, budget, conversation, last.cast_signed(), record],
            ),
            TreeRow::Message { tree, seq } => self.execute(
                "INSERT OR REPLACE INTO tree_link (seq, tree) VALUES (?1, ?2)",
                params![seq.cast_signed(), tree],
            ),
            TreeRow::Unlinked { up_to } => {
                // The trees first: their links say which.
                self.execute(REMOVE_UNLINKED, [up_to.cast_signed()])?;
                self.execute(REMOVE_LINKS, [up_to.cast_signed()])
            }
            TreeRow::Removed { before, keep } => self.execute(
                "DELETE FROM tree WHERE NOT linked AND (last < ?1 OR last <=
                     (SELECT last FROM tree WHERE NOT linked ORDER BY last DESC LIMIT 1 OFFSET ?2))",
                params![before.cast_signed(), keep.cast_signed()],
            ),
        }
    }
}
