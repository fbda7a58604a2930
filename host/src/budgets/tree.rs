//! One tree: the root, the budget, the ledger, and the handles of what is under way in it.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use caxton_control::AgentName;
use caxton_control::budget::{BudgetLedger, BudgetShortage, BudgetSpec};
use caxton_control::names::BudgetName;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock;

/// The root of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TreeRoot {
    /// The conversation of the message or call.
    pub(crate) conversation: String,
    /// The agent that began the tree by a message, and is told of the first refusal; `None` for callers outside, and for
    /// an agent that waits for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asker: Option<String>,
    /// The hops of the root.
    #[serde(default)]
    pub(crate) hops: u32,
    /// The time, in milliseconds since 1970.
    pub(crate) began_at: u64,
}

impl TreeRoot {
    /// Returns the root of a message or call from outside that comes now.
    pub(crate) fn outside(conversation: &str) -> Self {
        Self { conversation: conversation.to_owned(), asker: None, hops: 0, began_at: clock::now_ms() }
    }
}

/// A tree as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TreeRecord {
    /// The id of the root.
    #[serde(skip)]
    pub(crate) id: Arc<str>,
    pub(crate) budget: BudgetName,
    pub(crate) root: TreeRoot,
    /// The limits, for the time after the budget has left the file.
    pub(crate) spec: Arc<BudgetSpec>,
    pub(crate) ledger: BudgetLedger,
}

impl TreeRecord {
    /// Returns a tree of which only the root is there.
    pub(super) fn new(id: &str, budget: BudgetName, root: TreeRoot, spec: Arc<BudgetSpec>) -> Self {
        Self { id: id.into(), budget, root, spec, ledger: BudgetLedger::default() }
    }

    /// Reads a stored tree; `None` if this version cannot read it. What was reserved counts as used: the host that had
    /// reserved it has ended, or it is not under way any more.
    pub(crate) fn parse(id: &str, text: &str) -> Option<Self> {
        let stored: Self = serde_json::from_str(text).ok()?;
        Some(Self { id: id.into(), ledger: stored.ledger.recovered(), ..stored })
    }

    /// Returns the stored form.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a tree is text, numbers and tables of them")
    }
}

/// The error of what would pass a limit of a budget.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("budget-exceeded: budget `{budget}`, {shortage}")]
pub(crate) struct OverBudget {
    /// The budget.
    pub(crate) budget: BudgetName,
    /// The limit, and what of it is used.
    pub(crate) shortage: BudgetShortage,
}

/// The end of writing the row of a tree.
pub(crate) type SavedTree = BoxFuture<'static, Result<(), String>>;

/// The owner of the trees in memory, which is above them.
pub(super) trait TreeHome: Send + Sync {
    /// Passes the first refusal of a tree on.
    fn report(&self, tree: &Tree, over: &OverBudget);
    /// Begins to write the row of a tree.
    fn save(&self, state: &Arc<TreeState>) -> SavedTree;
    /// Writes the row of a tree that has lost its last handle so many times, and forgets it afterwards.
    fn end(&self, state: &Arc<TreeState>, ends: u64);
}

/// A tree in memory.
pub(crate) struct TreeState {
    id: Arc<str>,
    budget: BudgetName,
    root: TreeRoot,
    /// The time at which it began, by the steady clock.
    began: u64,
    // A few words that are changed for each message and call of the tree, and never locked across a wait.
    book: Mutex<TreeBook>,
    home: Weak<dyn TreeHome>,
}

struct TreeBook {
    spec: Arc<BudgetSpec>,
    ledger: BudgetLedger,
    /// The handles that there are.
    handles: usize,
    /// The number of times that the last of them was dropped.
    ends: u64,
}

impl TreeState {
    pub(super) fn new(record: TreeRecord, home: Weak<dyn TreeHome>) -> Self {
        let TreeRecord { id, budget, root, spec, ledger } = record;
        let began = clock::from_wall(root.began_at);
        let book = Mutex::new(TreeBook { spec, ledger, handles: 0, ends: 0 });
        Self { id, budget, root, began, book, home }
    }

    /// Returns the id of its root.
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Returns the name of its budget.
    pub(crate) fn budget(&self) -> &BudgetName {
        &self.budget
    }

    /// Returns the root.
    pub(crate) fn root(&self) -> &TreeRoot {
        &self.root
    }

    /// Returns it as it is now, to be stored.
    pub(crate) fn record(&self) -> TreeRecord {
        let book = self.book.lock();
        let (spec, ledger) = (Arc::clone(&book.spec), book.ledger.clone());
        drop(book);
        TreeRecord { id: Arc::clone(&self.id), budget: self.budget.clone(), root: self.root.clone(), spec, ledger }
    }

    pub(super) fn take_spec(&self, spec: Arc<BudgetSpec>) {
        self.book.lock().spec = spec;
    }

    /// Returns `true` if nothing of it was used, so that it needs no row.
    pub(super) fn is_untouched(&self) -> bool {
        let book = self.book.lock();
        book.ledger.agents().is_empty() && !book.ledger.is_told()
    }

    /// Returns `true` if it has had no handle since it lost the last one for the given time.
    pub(super) fn has_ended(&self, ends: u64) -> bool {
        let book = self.book.lock();
        book.handles == 0 && book.ends == ends
    }

    fn age(&self) -> Duration {
        Duration::from_millis(clock::steady_ms().saturating_sub(self.began))
    }
}

impl fmt::Debug for TreeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} of {})", self.id, self.budget)
    }
}

/// A handle of a tree, which keeps it in memory.
#[derive(Debug)]
pub(crate) struct Tree(Arc<TreeState>);

impl Tree {
    /// Returns a handle. Called under the lock of the map, or with another handle.
    pub(super) fn of(state: &Arc<TreeState>) -> Self {
        state.book.lock().handles += 1;
        Self(Arc::clone(state))
    }

    /// Returns the tree itself.
    pub(crate) fn state(&self) -> &Arc<TreeState> {
        &self.0
    }

    /// Returns `true` once something was refused.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.0.book.lock().ledger.is_told()
    }

    /// Counts the time that a handler was on a core.
    pub(crate) fn add_cpu(&self, agent: &AgentName, time: Duration) {
        // An entry for nothing would make a row necessary.
        if time > Duration::ZERO {
            self.0.book.lock().ledger.add_cpu(agent, time);
        }
    }

    /// Checks that a handler may begin.
    ///
    /// # Errors
    /// The limit of time that is reached.
    pub(crate) fn check_handler(&self) -> Result<(), OverBudget> {
        let age = self.0.age();
        self.decide(|ledger, spec| ledger.check_handler(spec, age))
    }

    /// Returns the time that handlers may still be on a core; `None` for no limit.
    pub(crate) fn cpu_left(&self) -> Option<Duration> {
        let book = self.0.book.lock();
        book.ledger.cpu_left(&book.spec)
    }

    /// Returns the time at which nothing more may happen; `None` for no limit.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let limit = self.0.book.lock().spec.time?;
        Instant::now().checked_add(limit.saturating_sub(self.0.age()))
    }

    /// Decides on the ledger. Reports a refusal, the first one of the tree to its root as well.
    pub(super) fn decide<T>(
        &self,
        decide: impl FnOnce(&mut BudgetLedger, &BudgetSpec) -> Result<T, BudgetShortage>,
    ) -> Result<T, OverBudget> {
        let mut book = self.0.book.lock();
        let TreeBook { spec, ledger, .. } = &mut *book;
        let shortage = match decide(ledger, spec) {
            Ok(decided) => return Ok(decided),
            Err(shortage) => shortage,
        };
        let is_first = ledger.tell();
        // The report may send a message, which looks at trees.
        drop(book);
        let over = OverBudget { budget: self.0.budget.clone(), shortage };
        let labels = [("budget", over.budget.to_string()), ("measure", over.shortage.measure.name().to_owned())];
        metrics::counter!("caxton_budget_refusals_total", &labels).increment(1);
        if let Some(home) = self.0.home.upgrade().filter(|_| is_first) {
            home.report(self, &over);
        }
        Err(over)
    }

    /// Changes the ledger.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut BudgetLedger) -> T) -> T {
        change(&mut self.0.book.lock().ledger)
    }

    /// Returns `true` if the budget limits calls, so that their number has to be safe before each.
    pub(super) fn limits_calls(&self) -> bool {
        self.0.book.lock().spec.calls.is_some()
    }

    /// Returns the time since the root.
    pub(super) fn age(&self) -> Duration {
        self.0.age()
    }

    /// Begins to write the row. Returns when it is safe.
    pub(super) fn save(&self) -> SavedTree {
        match self.0.home.upgrade() {
            Some(home) => home.save(&self.0),
            None => Box::pin(std::future::ready(Err("the host has ended".to_owned()))),
        }
    }
}

impl Clone for Tree {
    fn clone(&self) -> Self {
        Self::of(&self.0)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let mut book = self.0.book.lock();
        book.handles -= 1;
        if book.handles > 0 {
            return;
        }
        book.ends += 1;
        let ends = book.ends;
        // Before the map is locked, which comes first where both are.
        drop(book);
        if let Some(home) = self.0.home.upgrade() {
            home.end(&self.0, ends);
        }
    }
}

/// The tree of a message.
#[derive(Debug, Clone)]
pub(crate) enum TreeLink {
    /// The tree in memory.
    Live(Tree),
    /// The id and the budget of the tree of a message that was read from the store.
    Stored(Box<(Arc<str>, BudgetName)>),
}

impl TreeLink {
    /// Returns the id of the root, and the budget.
    pub(crate) fn names(&self) -> (&Arc<str>, &BudgetName) {
        match self {
            Self::Live(tree) => (tree.state().id(), tree.state().budget()),
            Self::Stored(names) => (&names.0, &names.1),
        }
    }

    /// Returns the tree if it is in memory.
    pub(crate) fn live(&self) -> Option<&Tree> {
        match self {
            Self::Live(tree) => Some(tree),
            Self::Stored(_) => None,
        }
    }
}
