//! Budgets as they are used: the trees of messages and calls that have one, each with its ledger.
//!
//! ```text
//! root --Budgets::begin--> Tree <--clone-- envelopes, handlers, calls of the tree
//!                           |
//!   message: admit_message --> MessageCharge --keep--> counted with the commit that sends it
//!   call:    begin_call, safely on disk --> CallCharge --drop--> settled
//!                           |
//!          the last handle is gone: its row is written, and it is forgotten here
//! ```
//! A tree is in memory while something of it is. A message that waits in the store names its tree, which is restored from
//! its row. What may be used is decided in `caxton_control::budget`; the rows are written by the store, which is above.

mod charge;
mod tree;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use caxton_control::budget::BudgetSpec;
use caxton_control::names::BudgetName;
use futures::FutureExt;
use parking_lot::Mutex;

pub(crate) use charge::{CallCharge, ChargeRefusal, MessageCharge};
pub(crate) use tree::{OverBudget, Tree, TreeLink, TreeRecord, TreeRoot, TreeState};
use tree::{SavedTree, TreeHome};

/// Begins to write the row of a tree, at once. Returns when the row is safe.
pub(crate) type SaveTree = Box<dyn Fn(Arc<TreeState>) -> SavedTree + Send + Sync>;
/// Gets the first refusal of each tree, so that its root is told.
pub(crate) type OnExceeded = Box<dyn Fn(&Tree, &OverBudget) + Send + Sync>;

/// The budgets in force, and the trees in memory.
#[derive(Default)]
pub(crate) struct Budgets(Arc<BudgetHome>);

#[derive(Default)]
struct BudgetHome {
    specs: ArcSwap<BTreeMap<BudgetName, Arc<BudgetSpec>>>,
    /// Set if there are budgets, so that a host without any looks no further.
    any: AtomicBool,
    // Locked when a tree begins, is looked up and ends, never across a wait.
    trees: Mutex<HashMap<Arc<str>, Arc<TreeState>>>,
    /// The trees without a handle whose rows are being written, in that order.
    ending: Mutex<VecDeque<EndingTree>>,
    save: OnceLock<SaveTree>,
    on_exceeded: OnceLock<OnExceeded>,
}

/// A tree without a handle, until its row is written.
struct EndingTree {
    state: Arc<TreeState>,
    /// The number of times that it had lost its last handle.
    ends: u64,
    written: SavedTree,
}

impl Budgets {
    /// Has the rows of trees written by `save`.
    pub(crate) fn save_with(&self, save: SaveTree) {
        // A second one is never set: a host has one store.
        let _ = self.0.save.set(save);
    }

    /// Has the first refusal of each tree passed to `on_exceeded`.
    pub(crate) fn report_to(&self, on_exceeded: OnExceeded) {
        let _ = self.0.on_exceeded.set(on_exceeded);
    }

    /// Takes budgets. They hold at once, also for trees that have begun.
    pub(crate) fn configure(&self, specs: &BTreeMap<BudgetName, Arc<BudgetSpec>>) {
        self.0.any.store(!specs.is_empty(), Ordering::Relaxed);
        self.0.specs.store(Arc::new(specs.clone()));
        for tree in self.0.trees.lock().values() {
            if let Some(spec) = specs.get(tree.budget()) {
                tree.take_spec(Arc::clone(spec));
            }
        }
    }

    /// Returns `true` if there are budgets.
    pub(crate) fn any(&self) -> bool {
        self.0.any.load(Ordering::Relaxed)
    }

    /// Returns the budget of a name.
    pub(crate) fn spec(&self, name: &str) -> Option<Arc<BudgetSpec>> {
        self.0.specs.load().get(name).cloned()
    }

    /// Begins the tree of a root; `None` if there is no such budget.
    pub(crate) fn begin(&self, name: &BudgetName, id: &str, root: TreeRoot) -> Option<Tree> {
        let spec = self.spec(name.as_str())?;
        metrics::counter!("caxton_budget_trees_total", "budget" => name.to_string()).increment(1);
        Some(self.open(TreeRecord::new(id, name.clone(), root, spec)))
    }

    /// Returns a tree that is in memory.
    pub(crate) fn find(&self, id: &str) -> Option<Tree> {
        self.0.forget_written();
        self.0.trees.lock().get(id).map(Tree::of)
    }

    /// Restores a tree from its row, unless it is in memory by now. Its budget is the one of that name in force, or else
    /// what the row has.
    pub(crate) fn restore(&self, mut record: TreeRecord) -> Tree {
        if let Some(spec) = self.spec(record.budget.as_str()) {
            record.spec = spec;
        }
        self.open(record)
    }

    fn open(&self, record: TreeRecord) -> Tree {
        self.0.forget_written();
        let mut trees = self.0.trees.lock();
        if let Some(state) = trees.get(record.id.as_ref()) {
            return Tree::of(state);
        }
        let home: Weak<dyn TreeHome> = Arc::<BudgetHome>::downgrade(&self.0);
        let state = Arc::new(TreeState::new(record, home));
        trees.insert(Arc::clone(state.id()), Arc::clone(&state));
        Tree::of(&state)
    }

    /// Returns the trees in memory as they are now.
    pub(crate) fn in_memory(&self) -> Vec<TreeRecord> {
        let trees: Vec<Arc<TreeState>> = self.0.trees.lock().values().cloned().collect();
        trees.iter().map(|tree| tree.record()).collect()
    }
}

impl TreeHome for BudgetHome {
    fn report(&self, tree: &Tree, over: &OverBudget) {
        if let Some(report) = self.on_exceeded.get() {
            report(tree, over);
        }
    }

    fn save(&self, state: &Arc<TreeState>) -> SavedTree {
        match self.save.get() {
            Some(save) => save(Arc::clone(state)),
            // Of a host that is not open yet, which handles no messages.
            None => Box::pin(std::future::ready(Err("there is no store".to_owned()))),
        }
    }

    fn end(&self, state: &Arc<TreeState>, ends: u64) {
        if state.is_untouched() {
            self.forget(state, ends);
            return;
        }
        let ending = EndingTree { state: Arc::clone(state), ends, written: self.save(state) };
        self.ending.lock().push_back(ending);
        self.forget_written();
    }
}

impl BudgetHome {
    /// Forgets the trees whose rows are written: from then on the store has all of them.
    fn forget_written(&self) {
        loop {
            let mut ending = self.ending.lock();
            let Some(first) = ending.front_mut() else { return };
            // Also after an error: the rows of later commits have it, as far as it is of use.
            if (&mut first.written).now_or_never().is_none() {
                return;
            }
            let first = ending.pop_front();
            drop(ending);
            if let Some(EndingTree { state, ends, .. }) = first {
                self.forget(&state, ends);
            }
        }
    }

    /// Forgets a tree, unless it has got a handle meanwhile.
    fn forget(&self, state: &Arc<TreeState>, ends: u64) {
        // Under the lock of the map, so that none gets a handle of a tree that is being forgotten.
        let mut trees = self.trees.lock();
        if state.has_ended(ends) && trees.get(state.id()).is_some_and(|known| Arc::ptr_eq(known, state)) {
            trees.remove(state.id());
        }
    }
}

#[cfg(test)]
mod tests;
