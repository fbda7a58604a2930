//! What is counted of an agent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use serde::Serialize;

use crate::figures::{Figure, Figures};

/// What can become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcomes {
    /// It is in the mailbox.
    Accepted,
    /// It was handled, and its effects are committed.
    Handled,
    /// Its handling failed for good.
    Failed,
    /// There was no place for it.
    Refused,
    /// Its agent ended before it was handled; its sender was told.
    Dropped,
}

/// How a handling ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// Whether well; none while there is another attempt to come.
    pub(crate) well: Option<bool>,
    /// How long the message waited before.
    pub(crate) waited: Duration,
    /// How long it took.
    pub(crate) took: Duration,
    /// Its time on a core.
    pub(crate) cpu: Duration,
}

/// Counters since the host started.
#[derive(Debug)]
pub(crate) struct Stats {
    agent: Arc<str>,
    retries: AtomicU64,
    /// Apart from the others: who sends counts it, and who works them.
    accepted: CachePadded<AtomicU64>,
    handled: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    conflicts: AtomicU64,
    metrics: OnceLock<Handles>,
    http: OnceLock<HttpMetrics>,
    /// Those of the whole host.
    figures: Arc<Figures>,
}

/// The metrics of HTTP requests, looked up once.
pub(crate) struct HttpMetrics {
    /// By the first digit of the status.
    requests: [metrics::Counter; 5],
    seconds: metrics::Histogram,
}

impl HttpMetrics {
    /// Those of an agent; `none` stands for requests that came to none.
    pub(crate) fn of(agent: &str) -> Self {
        let requests = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(
            |status| metrics::counter!("caxton_http_requests_total", "agent" => agent.to_owned(), "status" => status),
        );
        Self { requests, seconds: metrics::histogram!("caxton_http_seconds", "agent" => agent.to_owned()) }
    }

    /// Counts one that was answered with `status`; `took` is the time until the head of its response.
    pub(crate) fn count(&self, status: u16, took: Duration) {
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

/// The metrics of one agent, made when it is first called so that idle agents cost nothing.
struct Handles {
    handled: metrics::Counter,
    failed: metrics::Counter,
    retried: metrics::Counter,
    waited: metrics::Histogram,
    seconds: metrics::Histogram,
    cpu: metrics::Histogram,
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles")
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
    /// Handlings that ran again because their state had changed meanwhile.
    pub(crate) conflicts: u64,
}

impl Stats {
    /// Of an agent, with nothing counted.
    pub(crate) fn new(agent: Arc<str>, figures: Arc<Figures>) -> Self {
        Self {
            agent,
            retries: AtomicU64::default(),
            accepted: CachePadded::default(),
            handled: AtomicU64::default(),
            failed: AtomicU64::default(),
            refused: AtomicU64::default(),
            dropped: AtomicU64::default(),
            conflicts: AtomicU64::default(),
            metrics: OnceLock::new(),
            http: OnceLock::new(),
            figures,
        }
    }

    /// Counts an attempt that failed and is followed by another.
    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        self.figures.count(Figure::Retried);
    }

    /// Counts an attempt or call that failed, by the code of what went wrong.
    pub(crate) fn failed_with(&self, code: &'static str) {
        self.figures.failed_with(code);
        let labels = [("agent", self.agent.to_string()), ("code", code.to_owned())];
        metrics::counter!("caxton_failures_total", &labels).increment(1);
    }

    fn cell(&self, outcome: Outcomes) -> &AtomicU64 {
        match outcome {
            Outcomes::Accepted => &self.accepted,
            Outcomes::Handled => &self.handled,
            Outcomes::Failed => &self.failed,
            Outcomes::Refused => &self.refused,
            Outcomes::Dropped => &self.dropped,
        }
    }

    /// Counts one.
    pub(crate) fn count(&self, outcome: Outcomes) {
        self.cell(outcome).fetch_add(1, Ordering::Relaxed);
        self.figures.count(match outcome {
            Outcomes::Accepted => Figure::Accepted,
            Outcomes::Handled => Figure::Handled,
            Outcomes::Failed => Figure::Failed,
            Outcomes::Refused => Figure::Refused,
            Outcomes::Dropped => Figure::Dropped,
        });
    }

    /// Counts a handling that runs again.
    pub(crate) fn count_conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    /// The metrics of HTTP requests to this agent.
    pub(crate) fn http(&self, agent: &str) -> &HttpMetrics {
        self.http.get_or_init(|| HttpMetrics::of(agent))
    }

    /// Counts a handling that ended.
    pub(crate) fn ended(&self, end: End) {
        let End { well, waited, took, cpu } = end;
        match well {
            Some(true) => {
                self.count(Outcomes::Handled);
                self.figures.delivered(waited + took);
            }
            Some(false) => self.count(Outcomes::Failed),
            None => {}
        }
        let handles = self.metrics.get_or_init(|| {
            let agent = self.agent.to_string();
            Handles {
                handled: metrics::counter!("caxton_messages_total", "agent" => agent.clone(), "outcome" => "handled"),
                failed: metrics::counter!("caxton_messages_total", "agent" => agent.clone(), "outcome" => "failed"),
                retried: metrics::counter!("caxton_messages_total", "agent" => agent.clone(), "outcome" => "retried"),
                waited: metrics::histogram!("caxton_mailbox_wait_seconds", "agent" => agent.clone()),
                seconds: metrics::histogram!("caxton_message_seconds", "agent" => agent.clone()),
                cpu: metrics::histogram!("caxton_message_cpu_seconds", "agent" => agent),
            }
        });
        match well {
            Some(true) => &handles.handled,
            Some(false) => &handles.failed,
            None => &handles.retried,
        }
        .increment(1);
        handles.waited.record(waited);
        handles.seconds.record(took);
        handles.cpu.record(cpu);
    }

    /// The counters now.
    pub(crate) fn counts(&self) -> Counts {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Counts {
            accepted: get(&self.accepted),
            handled: get(&self.handled),
            failed: get(&self.failed),
            retries: get(&self.retries),
            refused: get(&self.refused),
            dropped: get(&self.dropped),
            conflicts: get(&self.conflicts),
        }
    }
}
