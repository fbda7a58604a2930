//! The trees of messages that have a budget, with what their agents have used of it.
//!
//! A row is written with each commit of the tree and stays as long as the store has one of its messages: waiting, handled,
//! or as a dead letter. Trees of calls alone stay for a day, and no more than [`KEPT`] of them.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params};
use tokio::sync::oneshot;

use crate::budgets::{SaveTree, TreeRecord, TreeState};
use crate::store::Store;
use crate::store::commit::CommitError;
use crate::store::handles::TreeTable;
use crate::store::record::{Record, TreeRow};
use crate::store::turn::Turn;
use crate::store::writer::job::{Job, change_of};

/// The time for which a tree without a message stays, in milliseconds: as long as an idempotency key.
const LIFE: u64 = 24 * 60 * 60 * 1_000;
/// The most trees without a message that stay.
const KEPT: u64 = 10_000;
/// The rows that are written between two looks for those that leave.
pub(in crate::store) const SWEEP: usize = 256;

/// A tree as it is listed, with the time at which its row was written.
#[derive(Debug)]
pub(crate) struct StoredTree {
    pub(crate) record: TreeRecord,
    /// The time, in milliseconds since 1970.
    pub(crate) last: u64,
}

impl TreeTable<'_> {
    /// Returns the tree of a root.
    pub(crate) fn get(self, id: &str) -> Result<Option<StoredTree>, String> {
        let found = self.0.with_reader(|connection| {
            let sql = "SELECT id, record, last FROM tree WHERE id = ?1";
            connection.prepare_cached(sql)?.query_row([id], stored).optional()
        })?;
        match found {
            Some(None) => Err(format!("the row of the tree {id} cannot be read")),
            found => Ok(found.flatten()),
        }
    }

    /// Returns the trees whose roots are in a conversation, those that were written last.
    pub(crate) fn in_conversation(self, conversation: &str, limit: u32) -> Result<Vec<StoredTree>, String> {
        self.find(
            "SELECT id, record, last FROM tree WHERE conversation = ?1 ORDER BY last DESC LIMIT ?2",
            conversation,
            limit,
        )
    }

    /// Returns the trees of a budget, or of all, that were written last.
    pub(crate) fn list(self, budget: Option<&str>, limit: u32) -> Result<Vec<StoredTree>, String> {
        let sql = match budget {
            Some(_) => "SELECT id, record, last FROM tree WHERE budget = ?1 ORDER BY last DESC LIMIT ?2",
            None => "SELECT id, record, last FROM tree WHERE ?1 = '' ORDER BY last DESC LIMIT ?2",
        };
        self.find(sql, budget.unwrap_or_default(), limit)
    }

    fn find(self, sql: &str, of: &str, limit: u32) -> Result<Vec<StoredTree>, String> {
        self.0.with_reader(|connection| {
            let mut rows = connection.prepare_cached(sql)?;
            let found = rows.query_map(params![of, limit], stored)?;
            // One of a later version is not shown.
            Ok(found.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
        })
    }
}

/// Returns `None` for a tree that this version cannot read.
fn stored(row: &Row<'_>) -> rusqlite::Result<Option<StoredTree>> {
    let (id, text): (String, String) = (row.get(0)?, row.get(1)?);
    let last = row.get::<_, i64>(2)?.cast_unsigned();
    Ok(TreeRecord::parse(&id, &text).map(|record| StoredTree { record, last }))
}

impl Store {
    /// Returns the function that writes the row of a tree as it is when its turn comes.
    pub(crate) fn tree_saver(self: &Arc<Self>) -> SaveTree {
        // Weak: a host that ends closes its store, whoever still has a tree.
        let store = Arc::downgrade(self);
        Box::new(move |state| {
            let answer = store.upgrade().map(|store| store.save_tree(state));
            Box::pin(async move {
                match answer {
                    // The sender is dropped only with the store's writer.
                    Some(answer) => {
                        answer.await.unwrap_or_else(|_| Err(CommitError::Store("its writer ended".to_owned())))
                    }
                    None => Err(CommitError::Store("it is closed".to_owned())),
                }
                .map_err(|error| error.to_string())
            })
        })
    }

    fn save_tree(&self, state: Arc<TreeState>) -> oneshot::Receiver<Result<(), CommitError>> {
        let (asker, answer) = oneshot::channel();
        let change = change_of(
            state,
            |state, _, writer, _| {
                writer.touch_tree(state);
                Ok(())
            },
            oneshot::channel().0,
        );
        self.writer.send(Job::Change(Turn::OfHost, change, asker));
        answer
    }
}

/// Adds the row of a tree as it is now.
pub(in crate::store) fn push_tree<'a>(record: &mut Record<'a>, tree: &'a TreeRecord, now: u64) {
    let (budget, conversation) = (tree.budget.as_str(), tree.root.conversation.as_str());
    record.push(TreeRow::Set { id: &tree.id, budget, conversation, last: now, record: tree.to_text().into() });
}

/// Adds the removal of trees without a message, of which the oldest leave.
pub(in crate::store) fn push_sweep(record: &mut Record<'_>, now: u64) {
    record.push(TreeRow::Removed { before: now.saturating_sub(LIFE), keep: KEPT });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use caxton_control::budget::BudgetSpec;
    use caxton_control::desired::{Durability, StoreSpec};

    use super::*;
    use crate::budgets::{Budgets, TreeLink, TreeRoot};
    use crate::message::Envelope;
    use crate::store::tests::{kept, message, opened, settings};
    use crate::store::{Commit, CommitRequest, Committed, Handled};

    fn budgets(store: &Arc<Store>) -> Budgets {
        let budgets = Budgets::default();
        budgets.save_with(store.tree_saver());
        let spec = BudgetSpec { messages: Some(9), ..BudgetSpec::default() };
        budgets.configure(&BTreeMap::from([("demo".parse().unwrap(), Arc::new(spec))]));
        budgets
    }

    fn count(store: &Store, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        store.with_reader(|connection| connection.query_row(&sql, [], |row| row.get(0))).unwrap()
    }

    async fn handle(store: &Store, seq: u64) {
        let (sender, receiver) = oneshot::channel();
        let mut commit = Commit::new("desk".into());
        commit.handled = Some(Handled { seq, revision: 1, runs: 1, bytes: 0 });
        let done = Box::new(|committed: Committed| drop(sender.send(committed.result)));
        store.submit(CommitRequest::new(commit, Vec::new(), done));
        receiver.await.unwrap().unwrap();
    }

    /// Handles so many other messages, of which a history of none removes a thousand at once.
    async fn handle_others(store: &Store, name: &str) {
        for at in 0..1_000 {
            let other = kept(store, message(&format!("{name}-{at}"), "http:POST /", "desk")).await;
            handle(store, other.seq.unwrap()).await;
        }
    }

    #[tokio::test]
    async fn a_tree_stays_as_long_as_one_of_its_messages() {
        let folder = tempfile::tempdir().unwrap();
        let none = StoreSpec { history: 0, ..settings(Durability::Os) };
        let store = opened(folder.path(), &none).unwrap();
        let budgets = budgets(&store);
        let tree = budgets.begin(&"demo".parse().unwrap(), "m-1", TreeRoot::outside("c-1")).unwrap();
        tree.add_cpu(&"desk".parse().unwrap(), Duration::from_millis(3));
        let root = Envelope { tree: Some(TreeLink::Live(tree)), ..message("m-1", "http:POST /", "desk") };
        let read = kept(&store, root).await;
        let (id, budget) = read.tree.as_ref().map(TreeLink::names).unwrap();
        assert_eq!((&**id, budget.as_str()), ("m-1", "demo"));
        let row = store.trees().get("m-1").unwrap().unwrap();
        assert_eq!((row.record.ledger.total().cpu_us, row.record.root.conversation.as_str()), (3_000, "c-1"));
        assert_eq!(store.trees().in_conversation("c-1", 9).unwrap().len(), 1);
        let listed = |budget| store.trees().list(budget, 9).unwrap().len();
        assert_eq!((listed(None), listed(Some("demo")), listed(Some("other"))), (1, 1, 0));
        handle_others(&store, "first").await;
        assert_eq!((count(&store, "tree"), count(&store, "tree_link")), (1, 1), "its message waits");
        handle(&store, read.seq.unwrap()).await;
        handle_others(&store, "second").await;
        assert_eq!((count(&store, "tree"), count(&store, "tree_link")), (0, 0));
    }

    #[tokio::test]
    async fn trees_of_calls_alone_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let ids: Vec<String> = (10..40).map(|at| format!("m-{at}")).collect();
        let change = store.change(Turn::OfHost, ids, |ids, _, _, record| {
            for (id, last) in ids.iter().zip(0..) {
                record.push(TreeRow::Set { id, budget: "demo", conversation: "c", last, record: "{}".into() });
            }
            record.push(TreeRow::Removed { before: 10, keep: 5 });
            Ok(())
        });
        change.await.unwrap();
        assert_eq!(count(&store, "tree"), 5);
        assert!(store.trees().get("m-39").unwrap_err().contains("cannot be read"));
        assert!(store.trees().get("m-10").unwrap().is_none());
    }
}
