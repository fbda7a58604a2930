//! Records of a random run, applied to an empty store, give equal tables.

mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use caxton_control::Performative;
use caxton_control::desired::{self, Durability};
use caxton_control::rollout::MAX_ROLLOUTS;
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::wire::decode;
use super::wire::tests::{added, journal, sample, trees};
use super::*;
use crate::budgets::{Budgets, TreeLink, TreeRoot};
use crate::clock;
use crate::conversation::{Conversations, closed_question};
use crate::message::{Attempt, Deliver, Envelope, Outgoing, TimerCancel, TimerName, Value};
use crate::store::sqlite::database_file::DatabaseFile;
use crate::store::tests::{change, expiring, message, settings};
use crate::store::turn::Turn;
use crate::store::writer::apply::Tables;
use crate::store::writer::writer_state::Captured;
use crate::store::{
    Add, Commit, CommitRequest, Committed, DeadFilter, DeadLetter, Event, Failed, Fired, Handled, IdempotencyKey,
    KeepState, RevisionBinding, RevisionRecord, Snapshot, StateChange, Store,
};

/// A mailbox beside which every agent has one, so that refusals are answered.
struct Everywhere;

impl Deliver for Everywhere {
    fn put(&self, _: Box<Envelope>) -> bool {
        false
    }
    fn work(self: Arc<Self>) {}
    fn reserve_beyond(&self) {}
    fn release(&self) {}
    fn other(&self, agent: &str) -> Option<Arc<dyn Deliver>> {
        (!agent.contains(':')).then(|| Arc::new(Self) as Arc<dyn Deliver>)
    }
}

/// A generator of random numbers that a seed determines (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// The bytes of contents and values that are written before their commit.
const LARGE: usize = 70 << 10;
const AGENTS: &[&str] = &["triage", "desk", "ledger"];

/// A store with a run of random commits.
struct RandomRun {
    random: Random,
    store: Arc<Store>,
    conversations: Arc<Conversations>,
    /// The sequence numbers of messages that wait.
    waiting: Arc<Mutex<Vec<u64>>>,
    /// The ids of timers with their senders.
    timers: Vec<(String, String)>,
    budgets: Budgets,
    count: u64,
}

impl RandomRun {
    fn submit(&self, commit: Commit, sends: Vec<Outgoing>) {
        let waiting = Arc::clone(&self.waiting);
        let done = Box::new(move |committed: Committed| {
            if committed.result.is_ok() {
                waiting.lock().extend(committed.sends.iter().filter_map(|sent| sent.envelope().seq));
            }
        });
        self.store.submit(CommitRequest::new(commit, sends, done));
    }

    /// Takes a message that waits, so that it is handled or given up once.
    fn take(&mut self) -> Option<u64> {
        let mut waiting = self.waiting.lock();
        let length = waiting.len() as u64;
        (length > 0).then(|| waiting.swap_remove(usize::try_from(self.random.below(length)).unwrap()))
    }

    /// A message that is sent by an agent, or from outside.
    fn envelope(&mut self, sender: &str) -> Envelope {
        self.count += 1;
        let receiver = self.random.pick(AGENTS);
        let mut envelope = message(&format!("m-{}", self.count), sender, receiver);
        envelope.since = clock::steady_ms();
        let message = &mut envelope.message;
        message.content = vec![7; usize::try_from(self.random.below(50)).unwrap()];
        if self.random.one_in(40) {
            // So many that it is written before its commit.
            message.content = vec![self.count as u8; LARGE];
        }
        if self.random.one_in(2) {
            message.conversation_id = format!("c-{}", self.random.below(40));
        }
        (message.performative, message.protocol) = match self.random.below(4) {
            0 => (Performative::Request, None),
            1 => (Performative::Request, Some("fipa-request".to_owned())),
            // Often not legal, as nothing asked for it.
            2 => (Performative::Agree, Some("fipa-request".to_owned())),
            _ => (Performative::Inform, None),
        };
        if self.random.one_in(4) && !sender.contains(':') {
            (envelope.waits, envelope.due) = (true, Some(clock::steady_ms() + self.random.below(1_000_000)));
            envelope.due_at = self.random.one_in(3).then(|| clock::now_ms() + self.random.below(1_000_000));
            envelope.timer = self.random.one_in(2).then(|| self.random.pick(&["alarm", "nap"]).to_owned());
            self.timers.push((sender.to_owned(), envelope.message.id.clone()));
        }
        envelope
    }

    fn sends(&mut self, sender: &str) -> Vec<Outgoing> {
        let mut sends = Vec::new();
        for _ in 0..self.random.below(4) {
            let envelope = Box::new(self.envelope(sender));
            let ends = self.random.one_in(12) && !envelope.waits;
            sends.push(match ends {
                true => Outgoing::ending(Arc::new(Everywhere), envelope, 8),
                false => Outgoing::new(Arc::new(Everywhere), envelope),
            });
        }
        sends
    }

    fn state(&mut self) -> StateChange {
        let keys = ["a", "b", "c", "d"];
        let key = self.random.pick(&keys);
        let mut state = match self.random.below(6) {
            0 => change(&[(key, None)], &[]),
            // Mostly a conflict.
            1 => change(&[(key, Some("1"))], &[(key, self.random.below(3))]),
            2 => expiring(&[(key, if self.random.one_in(2) { -1_000 } else { 1_000_000 })], &[]),
            3 => change(&[], &[]),
            4 if self.random.one_in(10) => {
                let value = Value::lasting(vec![self.count as u8; LARGE].into());
                StateChange { writes: BTreeMap::from([(key.to_owned(), Some(value))]), ..change(&[], &[]) }
            }
            _ => change(&[(key, Some("22")), ("other", Some("text"))], &[]),
        };
        if self.random.one_in(3) {
            // Foretold wrongly now and then.
            let sum = i64::try_from(self.random.below(30)).unwrap();
            state.adds = BTreeMap::from([("sum".to_owned(), Add { by: 3, sum })]);
        }
        state.version = self.store.state().next_version();
        state
    }

    /// Submits a commit like those of handlers.
    fn commit(&mut self) {
        let agent = self.random.pick(AGENTS);
        let mut commit = Commit::new(agent.into());
        let sends = self.sends(agent);
        commit.state = self.random.one_in(2).then(|| self.state());
        if let Some(seq) = self.take() {
            self.handle(&mut commit, seq);
        }
        if self.random.one_in(8) {
            let timer = TimerName::Name(self.random.pick(&["alarm", "nap"]).to_owned());
            commit.cancels.push(TimerCancel { timer, found: None, was_reported: self.random.one_in(4) });
        }
        if self.random.one_in(6) {
            let conversation = format!("c-{}", self.random.below(40));
            commit.binding =
                Some(RevisionBinding { conversation, revision: self.random.below(9), answered: None, anyway: true });
        }
        if self.random.one_in(5) {
            let data = vec![3; usize::try_from(self.random.below(9)).unwrap()].into();
            commit.memory = Some(Box::new(Snapshot { revision: 1, saved_at: self.count, data }));
        }
        if self.random.one_in(20) {
            commit.fired = Some(Fired { schedule: "daily".to_owned(), at: self.count });
        }
        self.submit(commit, sends);
    }

    /// Lets a commit handle a message, note a failed attempt, or give the message up.
    fn handle(&mut self, commit: &mut Commit, seq: u64) {
        match self.random.below(12) {
            0 => {
                let attempt = Attempt {
                    number: 1,
                    at: 2,
                    revision: "desk@1".to_owned(),
                    code: "trap".to_owned(),
                    error: "unreachable".to_owned(),
                    took_us: 3,
                    cpu_us: 4,
                };
                commit.failed = Some(Failed { seq, attempt, again_at: clock::steady_ms() });
                self.waiting.lock().push(seq);
            }
            1 => {
                let Ok(Some(envelope)) = self.store.queue().message(seq) else { return };
                let error = "it is given up".to_owned();
                let dead = DeadLetter { envelope: Box::new(envelope), reason: "expired", error, at: self.count };
                commit.dead = Some(Box::new(dead));
            }
            2 => {
                commit.handled = Some(Handled { seq, revision: 3, runs: 2, bytes: 9 });
                commit.closes = self
                    .store
                    .queue()
                    .message(seq)
                    .ok()
                    .flatten()
                    .and_then(|asked| closed_question(&asked, &[]))
                    .map(Box::new);
            }
            _ => {
                commit.handled = Some(Handled { seq, revision: 3, runs: 1, bytes: 9 });
                commit.journal = self.random.one_in(2).then_some(seq);
            }
        }
    }

    /// Accepts a message from outside, often under a key that was used before.
    fn accept(&mut self) {
        let mut envelope = self.envelope("http:POST /");
        if self.random.one_in(2) {
            let root = TreeRoot::outside(&envelope.message.conversation_id);
            let tree = self.budgets.begin(&BUDGET.parse().unwrap(), &envelope.message.id, root);
            envelope.tree = tree.map(TreeLink::Live);
        }
        let mut commit = Commit::new(envelope.message.receiver.as_str().into());
        let key = self.random.below(60);
        commit.key = self.random.one_in(2).then(|| IdempotencyKey {
            key: format!("key-{key}"),
            fingerprint: vec![u8::from(self.random.one_in(9))],
            id: envelope.message.id.clone(),
            conversation: envelope.message.conversation_id.clone(),
            // A day for a few, so that earlier ones leave.
            at: clock::steady_ms() + self.count * 100_000,
        });
        self.submit(commit, vec![Outgoing::new(Arc::new(Everywhere), Box::new(envelope))]);
    }

    /// Does what the host does beside the commits of handlers.
    async fn other(&mut self) {
        let store = Arc::clone(&self.store);
        let agent = self.random.pick(AGENTS);
        // In a transaction that fails at times, all of these may.
        match self.random.below(10) {
            0 => {
                let until = clock::steady_ms() + self.random.below(1_000_000);
                if let Ok(fired) = store.timers().fire(agent.into(), until, 9).await {
                    self.waiting.lock().extend(fired.iter().filter_map(|envelope| envelope.seq));
                }
            }
            1 => {
                if let Some((sender, id)) = self.timers.pop() {
                    let _ = store.timers().cancel(sender, id).await;
                }
            }
            2 => drop(store.timers().redate().await),
            3 => {
                let filter = DeadFilter { agent: Some(agent.to_owned()), ..DeadFilter::default() };
                if let Ok(revived) = store.dead_letters().revive(filter, self.random.one_in(2)).await {
                    self.waiting.lock().extend(revived.envelopes.iter().filter_map(|envelope| envelope.seq));
                }
            }
            4 if self.random.one_in(3) => drop(store.dead_letters().forget(DeadFilter::default()).await),
            5 => {
                let data = serde_json::json!({ "count": self.count });
                let agent = self.random.one_in(2).then(|| agent.to_owned());
                store.events().keep(Event { id: 0, at: self.count, agent, kind: "tick".to_owned(), data });
            }
            6 => {
                let (digest, settings) = ("sha256:1".to_owned(), "{}".to_owned());
                let revision = RevisionRecord {
                    agent: agent.into(),
                    number: self.count,
                    digest,
                    settings,
                    created_at: self.count,
                };
                let _ = store.rollouts().keep_revision(revision).await;
            }
            7 => {
                for expired in self.conversations.expire(u64::MAX / 2, 5) {
                    let mut commit = Commit::new("".into());
                    commit.ended = Some(Box::new(expired));
                    self.submit(commit, Vec::new());
                }
            }
            8 => drop(store.remove_unplaced().await),
            _ => {
                let expired = store.state().expired(clock::now_ms(), 9).unwrap();
                for (agent, keys) in expired {
                    let _ = store.state().remove_expired(agent, keys, Arc::default()).await;
                }
            }
        }
    }
}

/// Returns the rows of all tables, in no order of their own.
fn rows(connection: &Connection) -> BTreeMap<String, Vec<String>> {
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%'";
    let mut names = connection.prepare(names).unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let value = |value: ValueRef<'_>| match value {
        // Pieces of memories would be megabytes of text.
        ValueRef::Blob(bytes) if bytes.len() > 1_000 => {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            format!("{} bytes {}", bytes.len(), hasher.finish())
        }
        other => format!("{other:?}"),
    };
    let read = |name: &String| {
        let mut all = connection.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = all.column_count();
        let text = |row: &rusqlite::Row<'_>| {
            let values: rusqlite::Result<Vec<String>> =
                (0..columns).map(|column| Ok(value(row.get_ref(column)?))).collect();
            Ok(values?.join(" "))
        };
        let mut rows: Vec<String> = all.query_map([], text).unwrap().collect::<Result<_, _>>().unwrap();
        rows.sort_unstable();
        rows
    };
    names.iter().map(|name| (name.clone(), read(name))).collect()
}

/// The names of a row's group and variant, which its debug text begins with.
struct Kind(String);

impl Write for Kind {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The values may be large, and are not asked for.
        let name = text.split('{').next().unwrap_or_default();
        self.0.push_str(name.trim());
        if text.contains('{') { Err(fmt::Error) } else { Ok(()) }
    }
}

fn kinds(record: &Record<'_>) -> BTreeSet<String> {
    let kind = |row: &RowChange<'_>| {
        let mut kind = Kind(String::new());
        // It stops at the values.
        let _ = write!(kind, "{row:?}");
        kind.0
    };
    record.rows.iter().map(kind).collect()
}

/// The budget of some messages.
const BUDGET: &str = "demo";

/// Rows of which a run has none: only every thousandth conversation that ends has one.
const SELDOM: &[&str] = &["Conversation(EndedRemoved"];

/// Runs random changes; returns the store with the records of its transactions.
async fn random_run(seed: u64, folder: &tempfile::TempDir) -> (Arc<Store>, Vec<Vec<u8>>) {
    // So few that some leave.
    let kept = desired::StoreSpec { history: 1_000, dead_letters: 20, ..settings(Durability::Os) };
    let (store, conversations) = Store::open(folder.path(), &kept, Conversations::load).unwrap();
    let capture = store.change(Turn::AfterAll, (), |(), _, writer, _| {
        writer.captured = Some(Captured::default());
        Ok(())
    });
    capture.await.unwrap();
    let (waiting, timers) = (Arc::default(), Vec::new());
    let budgets = Budgets::default();
    budgets.save_with(store.tree_saver());
    budgets.configure(&BTreeMap::from([(BUDGET.parse().unwrap(), Arc::default())]));
    let mut run = RandomRun {
        random: Random(seed),
        store: Arc::clone(&store),
        conversations,
        waiting,
        timers,
        budgets,
        count: 0,
    };
    for _ in 0..6_000 {
        match run.random.below(20) {
            0 => run.other().await,
            1 => run.memory().await,
            2 => run.rollout().await,
            3 => run.journal().await,
            4..6 => run.accept(),
            _ => run.commit(),
        }
        if run.random.one_in(200) {
            // Nothing of the transaction is kept, nor of its records.
            assert!(store.change(Turn::AfterAll, (), |(), _, _, _| Err(rusqlite::Error::InvalidQuery)).await.is_err());
        }
        if run.random.one_in(5) {
            let _ = store.flush().await;
        }
    }
    run.fill().await;
    let take = store.change(Turn::AfterAll, Vec::new(), |records, _, writer, _| {
        *records = writer.captured.take().unwrap().kept;
        Ok(())
    });
    let records = take.await.unwrap();
    (store, records)
}

#[tokio::test]
async fn records_of_a_random_run_applied_to_an_empty_store_give_equal_tables() {
    let mut found_kinds = BTreeSet::new();
    for seed in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let (store, records) = random_run(seed, &folder).await;
        let copy = tempfile::tempdir().unwrap();
        let mut connection = DatabaseFile::open(&copy.path().join("copy.db"), Durability::Os).unwrap().1;
        let transaction = connection.transaction().unwrap();
        for bytes in &records {
            let record = decode(bytes).unwrap();
            Tables::new(&transaction).apply(&record).unwrap();
            found_kinds.append(&mut kinds(&record));
        }
        transaction.commit().unwrap();
        let (expected, found) = (store.with_reader(|connection| Ok(rows(connection))).unwrap(), rows(&connection));
        for (table, expected) in &expected {
            assert_eq!(&found[table], expected, "seed {seed}: {table}");
            // Otherwise this compares nothing, as with a change that no run makes.
            assert!(!expected.is_empty(), "seed {seed}: {table} is empty");
        }
    }
    found_kinds.extend(SELDOM.iter().map(|kind| (*kind).to_owned()));
    let all: BTreeSet<String> = [sample(), added(), journal(), trees()].iter().flat_map(kinds).collect();
    assert_eq!(found_kinds, all, "a run makes every kind of row, and each has golden bytes");
}

#[test]
fn the_memory_of_a_record_is_used_again() {
    let agent = String::from("desk");
    let mut record = Record::new(RecordBuffers::default());
    (0..100).for_each(|_| record.push(StateRow::Size { agent: &agent, bytes: 1 }));
    let (room, rows) = (record.rows.capacity(), record.rows.as_ptr().addr());
    let buffers = record.into_buffers();
    assert!(buffers.rows.is_empty());
    assert_eq!((buffers.rows.capacity(), buffers.rows.as_ptr().addr()), (room, rows), "the same memory, without a row");
}
