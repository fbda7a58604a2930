//! Jobs on their way to a transaction, with bounds on its size, and agents served in turn.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use caxton_control::fair_queue::FairQueue;

use crate::store::writer::job::Job;

/// The most jobs of one transaction, so that its answers are not held back for too long.
const MAX_JOBS: usize = 4_096;
/// The contents and values in bytes after which a transaction takes no further job. A disk that writes 100 MB/s takes
/// 20 ms for them.
const MAX_BYTES: u64 = 2 << 20;
/// The bytes that an agent may write in its turn while others wait.
const QUANTUM: u64 = 128 << 10;
/// The cost of a job beside its contents: the rows of a small commit.
const JOB_BYTES: u64 = 512;

/// The jobs that wait for a transaction.
pub(super) struct JobQueue {
    receiver: mpsc::Receiver<Job>,
    /// The first job of the next transaction, if one was there when the last ended.
    next: Option<Job>,
    /// The jobs beyond the bounds of one transaction, by agent.
    waiting: FairQueue<Arc<str>, Job>,
    /// The owner of the host's own events.
    host: Arc<str>,
}

impl JobQueue {
    pub(super) fn new(receiver: mpsc::Receiver<Job>) -> Self {
        Self { receiver, next: None, waiting: FairQueue::new(QUANTUM), host: Arc::from("") }
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
        let mut bytes = 0;
        // Jobs that wait already come first.
        let mut all_fit = self.waiting.is_empty();
        for job in self.next.take().into_iter().chain(self.receiver.try_iter()) {
            let cost = job.bytes() + JOB_BYTES;
            all_fit = all_fit && jobs.len() < MAX_JOBS && (jobs.is_empty() || bytes + cost <= MAX_BYTES);
            if all_fit {
                // The usual case, in the order in which they came.
                bytes += cost;
                jobs.push(job);
            } else {
                Self::wait(&mut self.waiting, &self.host, job, cost);
            }
        }
        if jobs.is_empty() {
            self.take_turns(jobs);
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

    /// Moves jobs that wait to `jobs`, an agent's turn after the other's, until a transaction has enough.
    fn take_turns(&mut self, jobs: &mut Vec<Job>) {
        let mut bytes = 0;
        while jobs.len() < MAX_JOBS && bytes < MAX_BYTES {
            let Some((cost, job)) = self.waiting.pop() else { return };
            bytes += cost;
            jobs.push(job);
        }
    }

    /// Puts a job among those that wait.
    fn wait(waiting: &mut FairQueue<Arc<str>, Job>, host: &Arc<str>, job: Job, cost: u64) {
        match &job {
            Job::Commit(request) => waiting.push(Arc::clone(&request.commit.agent), cost, job),
            // No caller waits for an event.
            Job::Event(_) => waiting.push(Arc::clone(host), cost, job),
            // Their callers rely on all that was given before.
            Job::Change(..) | Job::EarlyChange(..) | Job::Flush(_) | Job::Probe(_) | Job::Restart | Job::Empty(_) => {
                waiting.push_barrier(job);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::message::Value;
    use crate::store::{Commit, CommitRequest, StateChange};

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

    /// Takes the jobs of the next transaction, as the agents of their commits, with `-` for the others.
    fn taken(queue: &mut JobQueue) -> Vec<String> {
        let mut jobs = Vec::new();
        queue.take(&mut jobs);
        let name = |job: Job| match job {
            Job::Commit(request) => request.commit.agent.to_string(),
            _ => "-".to_owned(),
        };
        jobs.into_iter().map(name).collect()
    }

    #[test]
    fn small_commits_are_taken_together_in_their_order() {
        let (sender, receiver) = mpsc::channel();
        let mut queue = JobQueue::new(receiver);
        for agent in ["a", "b", "a", "c"] {
            sender.send(commit(agent, 10)).unwrap();
        }
        assert_eq!(taken(&mut queue), ["a", "b", "a", "c"]);
        assert!(!queue.has_more());
    }

    #[test]
    fn an_agent_that_writes_much_does_not_hold_up_others() {
        let (sender, receiver) = mpsc::channel();
        let mut queue = JobQueue::new(receiver);
        for _ in 0..40 {
            sender.send(commit("hog", 1 << 20)).unwrap();
        }
        sender.send(commit("other", 100)).unwrap();
        assert_eq!(taken(&mut queue), ["hog"], "bounded in bytes");
        // It comes with the next transaction, and not after 39 more.
        assert!(taken(&mut queue).contains(&"other".to_owned()));
        let mut rest = 0;
        while queue.has_more() {
            let jobs = taken(&mut queue);
            assert!(jobs.len() <= 2, "{jobs:?}");
            rest += jobs.len();
        }
        assert!((36..39).contains(&rest), "{rest}");
    }

    #[test]
    fn a_flush_comes_after_all_that_was_given_before() {
        let (sender, receiver) = mpsc::channel();
        let mut queue = JobQueue::new(receiver);
        for _ in 0..4 {
            sender.send(commit("hog", 3 << 20)).unwrap();
        }
        sender.send(Job::Flush(tokio::sync::oneshot::channel().0)).unwrap();
        sender.send(commit("other", 1)).unwrap();
        let mut all = Vec::new();
        while queue.has_more() {
            all.extend(taken(&mut queue));
        }
        assert_eq!(all, ["hog", "hog", "hog", "hog", "-", "other"]);
    }
}
