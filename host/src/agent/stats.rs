//! The counters of an agent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;

use super::tally::{ThreadTally, count};
use crate::telemetry::histogram::Sharded;
use crate::telemetry::host_stats::{HostCounter, StatsRecorder};
use crate::telemetry::metrics::AgentMetrics;

/// The counted outcomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcomes {
    /// The message is in the mailbox.
    Accepted,
    /// The message was handled, with its effects committed.
    Handled,
    /// The message failed for good.
    Failed,
    /// The message was refused, because there was no place for it.
    Refused,
    /// The message was dropped, because its agent ended before; its sender was told.
    Dropped,
}

/// The end of a handling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandlingEnd {
    /// The success; `None` if another attempt follows.
    pub(crate) succeeded: Option<bool>,
    /// The time for which the message waited before.
    pub(crate) waited: Duration,
    /// The time that it took.
    pub(crate) took: Duration,
    /// The CPU time.
    pub(crate) cpu: Duration,
}

/// Counters since the host started.
#[derive(Debug)]
pub(crate) struct Stats {
    agent: Arc<str>,
    /// The tallies of threads. Allocated at the first count, so that idle agents cost nothing.
    tallies: OnceLock<Sharded<ThreadTally>>,
    http: OnceLock<HttpMetrics>,
    /// The statistics of the host.
    host_stats: Arc<StatsRecorder>,
}

/// The metrics of HTTP requests, looked up once.
pub(crate) struct HttpMetrics {
    /// The counters by the first digit of the status.
    requests: [metrics::Counter; 5],
    seconds: metrics::Histogram,
}

impl HttpMetrics {
    /// Creates the metrics of an agent; `none` stands for requests that reached none.
    pub(crate) fn of(agent: &str) -> Self {
        let requests = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(
            |status| metrics::counter!("caxton_http_requests_total", "agent" => agent.to_owned(), "status" => status),
        );
        Self { requests, seconds: metrics::histogram!("caxton_http_seconds", "agent" => agent.to_owned()) }
    }

    /// Counts a request that was answered with `status`; `took` is the time until the head of its response.
    pub(crate) fn count(&self, status: u16, took: Duration) {
        // A guest may set any number as its status.
        let class = usize::from(status / 100).clamp(1, self.requests.len()) - 1;
        self.requests[class].increment(1);
        self.seconds.record(took);
    }
}

impl std::fmt::Debug for HttpMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpMetrics")
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Messages taken into the mailbox.
    pub(crate) accepted: u64,
    /// Messages and HTTP calls handled.
    pub(crate) handled: u64,
    /// Messages and HTTP calls that failed for good.
    pub(crate) failed: u64,
    /// Attempts that failed and were followed by another.
    pub(crate) retries: u64,
    /// Messages refused because the mailbox was full.
    pub(crate) refused: u64,
    /// Messages given back because the agent ended.
    pub(crate) dropped: u64,
    /// Runs of handlers that ended in a conflict, because others changed keys that they had read.
    pub(crate) conflicts: u64,
    /// Runs of handlers.
    pub(crate) runs: u64,
}

impl Stats {
    /// Creates the counters of an agent.
    pub(crate) fn new(agent: Arc<str>, host_stats: Arc<StatsRecorder>) -> Self {
        Self { agent, tallies: OnceLock::new(), http: OnceLock::new(), host_stats }
    }

    /// Returns the tally of this thread.
    fn here(&self) -> &ThreadTally {
        // One tally for each thread: a shared counter would pass its cache line from core to core with every message.
        self.tallies.get_or_init(|| Sharded::new(ThreadTally::default)).here()
    }

    fn all(&self) -> impl Iterator<Item = &ThreadTally> {
        self.tallies.get().into_iter().flat_map(Sharded::all)
    }

    /// Counts an attempt that failed and is followed by another.
    pub(crate) fn retried(&self) {
        count(&self.here().retries);
        self.host_stats.count(HostCounter::Retried);
    }

    /// Counts an attempt or call that failed, by the code of its failure.
    pub(crate) fn failed_with(&self, code: &'static str) {
        self.host_stats.failed_with(code);
        let labels = [("agent", self.agent.to_string()), ("code", code.to_owned())];
        metrics::counter!("caxton_failures_total", &labels).increment(1);
    }

    /// Counts a message by its outcome.
    pub(crate) fn count(&self, outcome: Outcomes) {
        self.count_in(self.here(), outcome);
    }

    fn count_in(&self, tally: &ThreadTally, outcome: Outcomes) {
        let (cell, figure) = match outcome {
            Outcomes::Accepted => (&tally.accepted, HostCounter::Accepted),
            Outcomes::Handled => (&tally.handled, HostCounter::Handled),
            Outcomes::Failed => (&tally.failed, HostCounter::Failed),
            Outcomes::Refused => (&tally.refused, HostCounter::Refused),
            Outcomes::Dropped => (&tally.dropped, HostCounter::Dropped),
        };
        count(cell);
        self.host_stats.count(figure);
    }

    /// Counts a run that ended in a conflict.
    pub(crate) fn count_conflict(&self) {
        count(&self.here().conflicts);
        self.host_stats.count(HostCounter::Conflict);
    }

    /// Counts a run of a handler.
    pub(crate) fn count_run(&self) {
        count(&self.here().runs);
        self.host_stats.count(HostCounter::Run);
    }

    /// Returns the metrics of HTTP requests to this agent.
    pub(crate) fn http(&self, agent: &str) -> &HttpMetrics {
        self.http.get_or_init(|| HttpMetrics::of(agent))
    }

    /// Counts a handling that ended.
    pub(crate) fn ended(&self, end: HandlingEnd) {
        let HandlingEnd { succeeded, waited, took, cpu } = end;
        let tally = self.here();
        match succeeded {
            Some(true) => {
                self.count_in(tally, Outcomes::Handled);
                self.host_stats.delivered(waited + took);
            }
            Some(false) => self.count_in(tally, Outcomes::Failed),
            None => count(&tally.unfinished),
        }
        tally.waited.record(waited);
        tally.took.record(took);
        tally.cpu.record(cpu);
    }

    /// Returns the counters.
    pub(crate) fn counts(&self) -> Counts {
        let sum =
            |cell: fn(&ThreadTally) -> &AtomicU64| self.all().map(|tally| cell(tally).load(Ordering::Relaxed)).sum();
        Counts {
            accepted: sum(|tally| &tally.accepted),
            handled: sum(|tally| &tally.handled),
            failed: sum(|tally| &tally.failed),
            retries: sum(|tally| &tally.retries),
            refused: sum(|tally| &tally.refused),
            dropped: sum(|tally| &tally.dropped),
            conflicts: sum(|tally| &tally.conflicts),
            runs: sum(|tally| &tally.runs),
        }
    }

    /// Returns the counts and times for the metrics; `None` if nothing was counted yet.
    pub(crate) fn metrics(&self) -> Option<AgentMetrics> {
        // An agent without counts gets no rows, which keeps the metrics of thousands of idle agents small.
        self.tallies.get()?;
        let counts = self.counts();
        let unfinished = self.all().map(|tally| tally.unfinished.load(Ordering::Relaxed)).sum();
        let outcomes = [("handled", counts.handled), ("failed", counts.failed), ("retried", unfinished)];
        let mut metrics = AgentMetrics { outcomes, ..AgentMetrics::default() };
        for tally in self.all() {
            metrics.waited.add(&tally.waited);
            metrics.took.add(&tally.took);
            metrics.cpu.add(&tally.cpu);
        }
        Some(metrics)
    }
}
