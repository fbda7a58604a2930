//! The changes of a random run beside commits.

use std::time::Duration;

use caxton_control::journal::{CallKey, CallOutcome, RequestHash};

use super::*;
use crate::message::{JournalPlace, JournalRows as _, StoredCall};

/// The sizes of a memory that is kept whole, and of one in pieces.
const SMALL: u64 = 50;
const LARGE_MEMORY: u64 = 600 << 10;

/// Changes of an agent's memory and of the copies of its state.
impl RandomRun {
    pub(super) fn snapshot(&mut self, bytes: u64) -> Arc<Snapshot> {
        self.count += 1;
        let data = vec![self.count as u8; usize::try_from(bytes).unwrap()].into();
        Arc::new(Snapshot { revision: self.random.below(4), saved_at: self.count, data })
    }

    /// A memory, seldom a large one.
    pub(super) fn any_snapshot(&mut self) -> Arc<Snapshot> {
        let bytes = if self.random.one_in(6) { LARGE_MEMORY } else { self.random.below(SMALL) };
        self.snapshot(bytes)
    }

    pub(super) fn state_to_keep(&mut self, revision: u64) -> KeepState {
        let (rollout, unfinished) = (self.random.below(9), self.random.one_in(2));
        KeepState { revision, holds: vec![1, 2], rollout, unfinished }
    }

    pub(super) async fn memory(&mut self) {
        let store = Arc::clone(&self.store);
        let (agent, revision): (Arc<str>, u64) = (self.random.pick(AGENTS).into(), self.random.below(4));
        match self.random.below(11) {
            0 => drop(store.snapshots().save(agent, self.any_snapshot()).await),
            1 => drop(store.snapshots().keep_handoff(agent, self.any_snapshot()).await),
            2 => drop(store.snapshots().keep_saved_as_handoff(agent, revision).await),
            3 => store.snapshots().forget_handoffs(agent, vec![revision, self.random.below(4)]),
            4 => drop(store.snapshots().discard(agent).await),
            5 => drop(store.snapshots().restore_handoff(agent, revision).await),
            6 => drop(store.snapshots().tidy().await),
            7 => drop(store.state().copy(agent, self.state_to_keep(revision)).await),
            8 => drop(store.state().finish_copy(agent, revision).await),
            9 => {
                let other = self.random.below(4);
                let keep = self.random.one_in(2).then(|| self.state_to_keep(other));
                // An error for one that is not there, or that is to be replaced.
                let _ = store.state().restore(agent, revision, keep, Arc::default()).await;
            }
            _ => store.state().forget_copies(agent, vec![revision]),
        }
    }

    /// Records calls of a message.
    pub(super) async fn journal(&mut self) {
        let store = Arc::clone(&self.store);
        let seq = self.waiting.lock().last().copied().unwrap_or(1);
        let place = JournalPlace { agent: self.random.pick(AGENTS).into(), seq };
        let key = CallKey { hash: RequestHash([1; 32]), nth: u32::try_from(self.random.below(3)).unwrap() };
        let call = StoredCall { key, outcome: CallOutcome::Unknown, line: "GET http://a".to_owned(), at: 1, bytes: 0 };
        let _ = Arc::clone(&store).begin(place.clone(), call).await;
        match self.random.below(3) {
            0 => drop(Arc::clone(&store).end(place, key, CallOutcome::Answered(200), vec![1, 2]).await),
            1 => Arc::clone(&store).forget(place, key).await,
            _ => {}
        }
    }

    /// Does what a rollout or an operator does.
    pub(super) async fn rollout(&mut self) {
        self.count += 1;
        let store = Arc::clone(&self.store);
        let agent: Arc<str> = self.random.pick(AGENTS).into();
        match self.random.below(6) {
            0 => {
                let ledger = (!self.random.one_in(4)).then(|| format!("{{\"count\": {}}}", self.count));
                store.rollouts().keep_ledger(agent, ledger);
            }
            1 => {
                let (rollout, number) = (self.random.below(2 * MAX_ROLLOUTS as u64), self.random.below(9));
                store.rollouts().keep_difference(agent, rollout, number, format!("difference {}", self.count));
            }
            2 => {
                let envelope = Box::new(self.envelope("http:POST /"));
                let answer = self.random.one_in(2).then(|| vec![9; 3]);
                let calls = self.random.one_in(2).then(|| vec![8; 5]);
                store.recent().keep((self.count, self.count.saturating_sub(900)), envelope, answer, calls);
            }
            3 if self.random.one_in(4) => store.recent().forget(agent),
            4 => drop(store.queue().set_paused(agent.to_string(), self.random.one_in(2)).await),
            _ => {
                let name = format!("c-{}", self.random.below(40));
                let last = clock::steady_ms() + self.count * 1_000;
                store.conversations().keep_beginning(agent, name, last - 9, last, last - 900_000);
                store.conversations().write_changed();
            }
        }
    }

    /// Makes each kind of row of journals, and leaves one.
    async fn fill_journal(&mut self) {
        let (store, agent) = (Arc::clone(&self.store), Arc::<str>::from(AGENTS[0]));
        let key = |nth| CallKey { hash: RequestHash([1; 32]), nth };
        let call = |nth| {
            let line = "GET http://a".to_owned();
            StoredCall { key: key(nth), outcome: CallOutcome::Unknown, line, at: 1, bytes: 0 }
        };
        let envelope = Box::new(message("journal", "http:POST /", &agent));
        self.submit(Commit::new(Arc::clone(&agent)), vec![Outgoing::new(Arc::new(Everywhere), envelope)]);
        store.flush().await.unwrap();
        let seq = self.waiting.lock().pop().unwrap();
        let place = JournalPlace { agent: Arc::clone(&agent), seq };
        for nth in 0..2 {
            Arc::clone(&store).begin(place.clone(), call(nth)).await.unwrap();
        }
        Arc::clone(&store).end(place.clone(), key(0), CallOutcome::Answered(200), vec![1]).await.unwrap();
        Arc::clone(&store).forget(place, key(1)).await;
        let envelope = Box::new(store.queue().message(seq).unwrap().unwrap());
        let mut commit = Commit::new(Arc::clone(&agent));
        commit.dead = Some(Box::new(DeadLetter { envelope, reason: "expired", error: String::new(), at: 1 }));
        self.submit(commit, Vec::new());
        let revived = store.dead_letters().revive(DeadFilter::one(seq), false).await.unwrap();
        assert_eq!(revived.envelopes[0].recorded.len(), 1);
        let mut commit = Commit::new(Arc::clone(&agent));
        commit.journal = revived.envelopes[0].seq;
        self.submit(commit, Vec::new());
        let place = JournalPlace { agent, seq: 1 << 40 };
        Arc::clone(&store).begin(place, call(0)).await.unwrap();
    }

    /// Writes so many trees of calls alone that the oldest of these are looked for.
    async fn fill_trees(&mut self) {
        let agent = AGENTS[0].parse().unwrap();
        for number in 0..300 {
            let root = TreeRoot::outside("calls");
            let tree = self.budgets.begin(&BUDGET.parse().unwrap(), &format!("call-{number}"), root).unwrap();
            // One that used nothing is not written.
            tree.add_cpu(&agent, Duration::from_millis(1));
        }
        self.store.flush().await.unwrap();
    }

    /// Leaves a row in each table that may have none by chance.
    pub(super) async fn fill(&mut self) {
        self.fill_journal().await;
        self.fill_trees().await;
        let store = Arc::clone(&self.store);
        let agent: Arc<str> = AGENTS[0].into();
        let large = self.snapshot(LARGE_MEMORY);
        store.snapshots().keep_handoff(Arc::clone(&agent), large).await.unwrap();
        let small = self.snapshot(SMALL);
        store.snapshots().save(Arc::clone(&agent), small).await.unwrap();
        let mut commit = Commit::new(Arc::clone(&agent));
        commit.state = Some(change(&[("a", Some("1"))], &[]));
        self.submit(commit, Vec::new());
        let mut commit = Commit::new(Arc::clone(&agent));
        let (envelope, error) = (Box::new(message("dead", "http:POST /", &agent)), "it is given up".to_owned());
        commit.dead = Some(Box::new(DeadLetter { envelope, reason: "expired", error, at: 1 }));
        self.submit(commit, Vec::new());
        // Two values in pieces, of which one is replaced.
        for (key, bytes) in [("b", LARGE), ("c", LARGE), ("b", 1)] {
            let mut commit = Commit::new(Arc::clone(&agent));
            let writes = BTreeMap::from([(key.to_owned(), Some(Value::lasting(vec![1; bytes].into())))]);
            commit.state = Some(StateChange { writes, ..change(&[], &[]) });
            self.submit(commit, Vec::new());
        }
        let keep = self.state_to_keep(1);
        store.state().copy(Arc::clone(&agent), keep).await.unwrap();
        store.rollouts().keep_ledger(Arc::clone(&agent), Some("{}".to_owned()));
        store.rollouts().keep_difference(Arc::clone(&agent), 2 * MAX_ROLLOUTS as u64, 1, "difference".to_owned());
        store.recent().keep((self.count, 0), Box::new(message("recent", "http:POST /", &agent)), None, None);
        store.queue().set_paused(agent.to_string(), true).await.unwrap();
        let now = clock::steady_ms();
        store.conversations().keep_beginning(agent, "c-1".to_owned(), now, now, 0);
        // Every thousandth event removes others.
        for at in 0..1_000 {
            let (kind, data) = ("tick".to_owned(), serde_json::Value::Null);
            store.events().keep(Event { id: 0, at, agent: None, kind, data });
        }
        store.flush().await.unwrap();
    }
}
