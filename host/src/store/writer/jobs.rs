//! Jobs on their way to a transaction, with bounds on its size, and agents served in turn.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use caxton_control::fair_queue::{FairQueue, ItemCost};

use crate::store::placed::{Contents, LARGE, PIECE};
use crate::store::turn::Turn;
use crate::store::writer::job::Job;

/// The most jobs of one transaction, so that its answers are not held back for too long.
const MAX_JOBS: usize = 4_096;
/// The bytes after which a transaction takes no further job.
const MAX_BYTES: u64 = 2 << 20;
/// The bytes of large jobs after which it takes no further one of them, however many agents have some.
const MAX_LARGE: u64 = 256 << 10;
/// The cost of a job beside its contents: the rows of a small commit.
const JOB_BYTES: u64 = 512;
/// The bytes of large jobs of one agent in a transaction. A commit that comes while one transaction is written and another
/// is synced waits for both: with a piece in each of them a sync takes little longer than a bare one.
const QUANTUM: u64 = PIECE as u64 + JOB_BYTES;
/// The cost up to which a job does not wait behind the large ones of other agents.
const SMALL: u64 = 4 << 10;

/// The jobs that wait for a transaction.
pub(super) struct JobQueue {
    receiver: mpsc::Receiver<Job>,
    /// The first job of the next transaction, if one was there when the last ended.
    next: Option<Job>,
    /// The jobs beyond the bounds of one transaction, by agent.
    waiting: FairQueue<Arc<str>, Job>,
    /// The owner of the host's own events and changes.
    host: Arc<str>,
    /// The contents of large commits, and `true` if messages have rows.
    contents: (Arc<Contents>, bool),
}

/// Returns the cost of a job.
fn cost_of(job: &Job) -> ItemCost {
    match job {
        Job::Commit(request) if request.memory_bytes() > SMALL => {
            ItemCost { own: request.bytes_beside_memory() + JOB_BYTES, shared: request.memory_bytes() }
        }
        job => (job.bytes() + JOB_BYTES).into(),
    }
}

/// The jobs of a transaction as they are collected.
struct Collected<'a> {
    jobs: &'a mut Vec<Job>,
    bytes: u64,
    /// The bytes of those that are not [`SMALL`].
    large: u64,
    /// The agents whose memory is written and is not [`SMALL`].
    memories: Vec<Arc<str>>,
}

impl Collected<'_> {
    /// Returns the cost of a job, of which that of an agent's memory counts once in a transaction: each commit replaces
    /// the memory of the one before, in pages that are not written out yet.
    fn counted(&self, cost: ItemCost, job: &Job) -> u64 {
        cost.counted(matches!(job, Job::Commit(request) if self.has_memory(&request.commit.agent)))
    }

    fn has_memory(&self, agent: &Arc<str>) -> bool {
        self.memories.contains(agent)
    }

    fn fits(&self, cost: u64) -> bool {
        let large = if cost > SMALL { self.large + cost } else { 0 };
        self.jobs.len() < MAX_JOBS && (self.jobs.is_empty() || (self.bytes + cost <= MAX_BYTES && large <= QUANTUM))
    }

    fn push(&mut self, job: Job, cost: u64) {
        self.bytes += cost;
        self.large += if cost > SMALL { cost } else { 0 };
        if let Job::Commit(request) = &job
            && cost_of(&job).shared > 0
            && !self.has_memory(&request.commit.agent)
        {
            self.memories.push(Arc::clone(&request.commit.agent));
        }
        self.jobs.push(job);
    }
}

impl JobQueue {
    pub(super) fn new(receiver: mpsc::Receiver<Job>, contents: (Arc<Contents>, bool)) -> Self {
        let (waiting, host) = (FairQueue::new(QUANTUM), Arc::from(""));
        Self { receiver, next: None, waiting, host, contents }
    }

    /// Returns `true` if a job waits, without taking it.
    pub(super) fn has_more(&mut self) -> bool {
        if self.next.is_none() && self.waiting.is_empty() {
            self.next = self.receiver.try_recv().ok();
        }
        self.next.is_some() || !self.waiting.is_empty()
    }

    /// Moves the jobs of the next transaction to `jobs`, if any wait. Waits for none.
    pub(super) fn take(&mut self, jobs: &mut Vec<Job>) {
        let Self { receiver, next, waiting, host, contents: (contents, keeps_messages) } = self;
        let mut collected = Collected { jobs, bytes: 0, large: 0, memories: Vec::new() };
        for job in next.take().into_iter().chain(receiver.try_iter()) {
            match job {
                Job::Commit(mut request) if request.bytes() > LARGE => {
                    let agent = Arc::clone(&request.commit.agent);
                    for piece in request.place(contents, *keeps_messages) {
                        Self::admit(waiting, host, Job::Piece(Arc::clone(&agent), piece), &mut collected);
                    }
                    Self::admit(waiting, host, Job::Commit(request), &mut collected);
                }
                // It is made after the transaction, whatever that has.
                Job::Restart => collected.jobs.push(job),
                job => Self::admit(waiting, host, job, &mut collected),
            }
        }
        // The small ones are in already: what is large shares the rest, and has a turn whatever there is of the others.
        let most = MAX_BYTES.max(collected.bytes + QUANTUM);
        // A barrier has no owner, and is taken all the same.
        let large = MAX_LARGE.min(QUANTUM * waiting.owners().max(1) as u64);
        while collected.jobs.len() <= MAX_JOBS && collected.bytes < most && collected.large < large {
            let Some((cost, job)) = waiting.pop(|agent| collected.has_memory(agent)) else { return };
            collected.push(job, cost);
        }
        // They cost as little as small ones: what they write is replaced in the same transaction.
        for agent in collected.memories.clone() {
            while collected.jobs.len() <= MAX_JOBS && collected.bytes < most {
                let Some((cost, job)) = waiting.pop_sharing(&agent, SMALL) else { break };
                collected.push(job, cost);
            }
        }
    }

    /// Waits for a job until a time is over.
    ///
    /// # Errors
    /// The time is over, or all senders are gone.
    pub(super) fn wait_for(&mut self, most: Duration) -> Result<(), mpsc::RecvTimeoutError> {
        if !self.has_more() {
            self.next = Some(self.receiver.recv_timeout(most)?);
        }
        Ok(())
    }

    /// Puts a job into the transaction, if it fits and does not pass another that it has to come after; otherwise among
    /// those that wait.
    fn admit(waiting: &mut FairQueue<Arc<str>, Job>, host: &Arc<str>, job: Job, collected: &mut Collected<'_>) {
        let whole = cost_of(&job);
        let cost = collected.counted(whole, &job);
        // The usual case, in the order in which they came, and without a look at the agent.
        if waiting.is_empty() && collected.fits(cost) {
            return collected.push(job, cost);
        }
        let owner = match &job {
            Job::Commit(request) => &request.commit.agent,
            Job::Piece(agent, _)
            | Job::Change(Turn::OfAgent(agent, _), ..)
            | Job::EarlyChange(Turn::OfAgent(agent, _), ..) => agent,
            // No caller waits for an event.
            Job::Event(_) | Job::Change(Turn::OfHost, ..) | Job::EarlyChange(Turn::OfHost, ..) => host,
            // Their callers rely on all that was given before.
            Job::Change(Turn::AfterAll, ..)
            | Job::EarlyChange(Turn::AfterAll, ..)
            | Job::Flush(_)
            | Job::Probe(_)
            | Job::Restart
            | Job::Empty(_) => return waiting.push_barrier(job),
        };
        let owner = Arc::clone(owner);
        if cost <= SMALL && collected.jobs.len() < MAX_JOBS && waiting.is_free(&owner) {
            return collected.push(job, cost);
        }
        waiting.push(owner, whole, job);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::message::Value;
    use crate::store::{Commit, CommitRequest, Snapshot, StateChange};

    /// Creates a commit of an agent that writes a value of so many bytes.
    fn commit(agent: &str, bytes: usize) -> Job {
        let mut commit = Commit::new(agent.into());
        let value = Value::lasting(vec![0; bytes].into());
        commit.state = Some(StateChange {
            reads: BTreeMap::new(),
            writes: BTreeMap::from([("key".to_owned(), Some(value))]),
            expired: Vec::new(),
            adds: BTreeMap::new(),
            version: 1,
            quota: u64::MAX,
        });
        Job::Commit(Box::new(CommitRequest::new(commit, Vec::new(), Box::new(|_| ()))))
    }

    /// Creates a change of an agent that writes so many bytes.
    fn change(agent: &str, bytes: u64) -> Job {
        let turn = Turn::OfAgent(agent.into(), bytes);
        Job::Change(turn, Box::new(|_, _, _| Ok(())), tokio::sync::oneshot::channel().0)
    }

    fn queue() -> (mpsc::Sender<Job>, JobQueue) {
        let contents = Contents::load(&crate::store::tests::database()).unwrap();
        let (sender, receiver) = mpsc::channel();
        (sender, JobQueue::new(receiver, (Arc::new(contents), true)))
    }

    /// Takes the jobs of the next transaction, as the agents of their commits and changes, with `-` for the others and a
    /// dot behind those of pieces.
    fn taken(queue: &mut JobQueue) -> Vec<String> {
        let mut jobs = Vec::new();
        queue.take(&mut jobs);
        let name = |job: Job| match job {
            Job::Commit(request) => request.commit.agent.to_string(),
            Job::Piece(agent, _) => format!("{agent}."),
            Job::Change(Turn::OfAgent(agent, _), ..) => agent.to_string(),
            _ => "-".to_owned(),
        };
        jobs.into_iter().map(name).collect()
    }

    #[test]
    fn small_commits_are_taken_together_in_their_order() {
        let (sender, mut queue) = queue();
        for agent in ["a", "b", "a", "c"] {
            sender.send(commit(agent, 10)).unwrap();
        }
        assert_eq!(taken(&mut queue), ["a", "b", "a", "c"]);
        assert!(!queue.has_more());
    }

    #[test]
    fn a_large_commit_comes_after_its_pieces_and_before_later_commits_of_its_agent() {
        let (sender, mut queue) = queue();
        sender.send(commit("hog", 10 * PIECE)).unwrap();
        sender.send(commit("hog", 1)).unwrap();
        sender.send(commit("other", 1)).unwrap();
        let mut all = Vec::new();
        let mut transactions = 0;
        while queue.has_more() {
            let jobs = taken(&mut queue);
            let pieces = jobs.iter().filter(|job| *job == "hog.").count();
            assert!(pieces <= 1, "{jobs:?}");
            // In the first transaction, though the large one was there before.
            assert_eq!(jobs.contains(&"other".to_owned()), transactions == 0, "{jobs:?}");
            transactions += 1;
            all.extend(jobs.into_iter().filter(|job| job.starts_with("hog")));
        }
        assert_eq!(all, [vec!["hog."; 10], vec!["hog"; 2]].concat());
        assert!(transactions >= 10, "{transactions}");
    }

    #[test]
    fn agents_with_large_commits_share_a_transaction() {
        let (sender, mut queue) = queue();
        for agent in ["a", "b", "c", "d", "e", "f"] {
            sender.send(commit(agent, 10 * PIECE)).unwrap();
        }
        let first = taken(&mut queue);
        assert!((4..=5).contains(&first.len()), "{first:?}");
        let agents: std::collections::BTreeSet<&String> = first.iter().collect();
        assert!(agents.len() >= 3, "{first:?}");
    }

    #[test]
    fn an_agent_that_writes_much_does_not_hold_up_others() {
        let (sender, mut queue) = queue();
        for _ in 0..40 {
            sender.send(commit("hog", 1 << 20)).unwrap();
        }
        sender.send(commit("large", 100 << 10)).unwrap();
        for _ in 0..10 {
            // Each transaction has what came before it.
            sender.send(commit("other", 100)).unwrap();
            sender.send(change("another", 100)).unwrap();
            let jobs = taken(&mut queue);
            assert!(jobs.contains(&"other".to_owned()) && jobs.contains(&"another".to_owned()), "{jobs:?}");
            assert!(jobs.contains(&"hog.".to_owned()), "it has its turn as well: {jobs:?}");
        }
        let mut rest = 0;
        while queue.has_more() {
            let jobs = taken(&mut queue);
            assert!(!jobs.contains(&"large".to_owned()), "it shared the transactions before");
            rest += 1;
        }
        assert!(rest > 100, "{rest}");
    }

    #[test]
    fn commits_of_one_memory_share_a_transaction() {
        let (sender, mut queue) = queue();
        let with_memory = |agent: &str| {
            let Job::Commit(mut request) = commit(agent, 10) else { unreachable!("it makes commits") };
            let data = vec![1; PIECE].into();
            request.commit.memory = Some(Box::new(Snapshot { revision: 1, saved_at: 1, data }));
            Job::Commit(request)
        };
        for agent in ["a", "a", "b", "a", "b"] {
            sender.send(with_memory(agent)).unwrap();
        }
        assert_eq!(taken(&mut queue), ["a", "a", "a"], "of these the last is written");
        assert_eq!(taken(&mut queue), ["b", "b"]);
        assert!(!queue.has_more());
        for agent in ["a", "b", "c", "d", "e", "f", "g"] {
            sender.send(with_memory(agent)).unwrap();
        }
        assert!(taken(&mut queue).len() <= 5 && queue.has_more(), "seven of them are written by turns");
    }

    #[test]
    fn a_flush_comes_after_all_that_was_given_before() {
        let (sender, mut queue) = queue();
        for _ in 0..4 {
            sender.send(commit("hog", 300 << 10)).unwrap();
        }
        sender.send(Job::Flush(tokio::sync::oneshot::channel().0)).unwrap();
        sender.send(commit("other", 1)).unwrap();
        let mut all = Vec::new();
        while queue.has_more() {
            all.extend(taken(&mut queue).into_iter().filter(|job| job != "hog."));
        }
        assert_eq!(all, ["hog", "hog", "hog", "hog", "-", "other"]);
    }

    #[test]
    fn the_log_begins_anew_without_waiting_for_what_is_large() {
        let (sender, mut queue) = queue();
        sender.send(commit("hog", 3 << 20)).unwrap();
        sender.send(Job::Restart).unwrap();
        assert!(taken(&mut queue).contains(&"-".to_owned()));
    }
}
