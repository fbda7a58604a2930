//! Metrics in the text format of Prometheus.
//!
//! Rare events are recorded where they happen, through the macros of `metrics`. Values that exist at any moment
//! (depths, instances, memory) are read when a scrape comes, so that an agent that was removed leaves no series behind.
//! Counts of each message are read at the scrape too: agents count them in atomics of their own, which is cheaper than
//! a recorder. Labels are names of the configuration and constants of this program, never data of messages, so that the
//! number of series is bounded.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use caxton_control::rollout::Obstacle;
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::api_types::{AgentStatus, HostMemory, MemoryStatus, TaskStatus};
use crate::telemetry::buckets::{BOUNDS_NS, Distribution};
use crate::telemetry::host_stats;
use crate::telemetry::logging;

/// The description of a metric.
struct Metric {
    name: &'static str,
    kind: MetricKind,
    unit: Unit,
    help: &'static str,
}

/// The type of a metric, and the time at which it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MetricKind {
    /// A sum that only grows; recorded as it happens.
    Counter,
    /// A distribution; recorded as it happens.
    Histogram,
    /// Goes up and down; read at the scrape.
    Gauge,
    /// A sum that only grows; read at the scrape.
    ReadCounter,
    /// A distribution; read at the scrape.
    ReadHistogram,
}

const fn metric(name: &'static str, kind: MetricKind, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind, unit, help }
}

/// The metrics of the host.
#[rustfmt::skip]
const METRICS: &[Metric] = &[
    metric("caxton_messages_total", MetricKind::ReadCounter, Unit::Count, "Messages and calls that were handled or failed for good, by agent and outcome."),
    metric("caxton_messages_illegal_total", MetricKind::Counter, Unit::Count, "Messages and calls that were refused because their protocol or the bound of participants does not allow them."),
    metric("caxton_mailbox_wait_seconds", MetricKind::ReadHistogram, Unit::Seconds, "Time for which a message waited in the mailbox, or a call for an instance, by agent."),
    metric("caxton_message_seconds", MetricKind::ReadHistogram, Unit::Seconds, "Time to handle a message or call, waits and commit included, by agent."),
    metric("caxton_message_cpu_seconds", MetricKind::ReadHistogram, Unit::Seconds, "Time on a core for a message or call, by agent."),
    metric("caxton_http_requests_total", MetricKind::Counter, Unit::Count, "HTTP requests that were answered, by agent (`none` when no route was found) and class of status."),
    metric("caxton_http_seconds", MetricKind::Histogram, Unit::Seconds, "Time from an HTTP request to the head of its response, by agent."),
    metric("caxton_outgoing_calls_total", MetricKind::Counter, Unit::Count, "Calls of agents over HTTP, by agent, place (`none` without a grant) and result: the class of the status, the code of the error, or `given-up`."),
    metric("caxton_outgoing_journal_total", MetricKind::Counter, Unit::Count, "Calls over HTTP that the journal of a message had a part in, by agent, place and result: `answered`, `diverged`, `repeated` or `unknown`."),
    metric("caxton_outgoing_seconds", MetricKind::Histogram, Unit::Seconds, "Time from a call of an agent over HTTP to the end of its response, by agent and place."),
    metric("caxton_outgoing_bytes_total", MetricKind::Counter, Unit::Bytes, "Bytes that agents sent and received: of bodies in calls over HTTP, and over TCP; by agent, place and direction."),
    metric("caxton_outgoing_connections_total", MetricKind::Counter, Unit::Count, "Connections of agents over TCP, by agent, place (`none` without a grant) and result: `connected`, or the code of the error."),
    metric("caxton_budget_trees_total", MetricKind::Counter, Unit::Count, "Messages and calls that began with a budget, by budget."),
    metric("caxton_budget_refusals_total", MetricKind::Counter, Unit::Count, "What was refused because it would have passed a limit of its budget, by budget and measure."),
    metric("caxton_commit_seconds", MetricKind::Histogram, Unit::Seconds, "Time of a commit of the store, which may hold many messages' effects."),
    metric("caxton_handoff_seconds", MetricKind::Histogram, Unit::Seconds, "Time for which an agent's mailbox was held while its memory went to a new revision, by agent."),
    metric("caxton_failures_total", MetricKind::Counter, Unit::Count, "Attempts and calls that failed, by agent and code."),
    metric("caxton_dead_letters_total", MetricKind::Counter, Unit::Count, "Messages that became dead letters, by agent and reason."),
    metric("caxton_snapshot_failures_total", MetricKind::Counter, Unit::Count, "Snapshots of stateful agents that were not saved (`what=\"save\"`) or not restored (`restore`), by agent."),
    metric("caxton_copies_total", MetricKind::Counter, Unit::Count, "Copies of live messages that a new revision answered alike or differently, or that were set aside."),
    metric("caxton_dead_letters_forgotten_total", MetricKind::Counter, Unit::Count, "Dead letters removed because there were more than store.dead-letters, or their bytes more than store.dead-letters-max."),
    metric("caxton_history_forgotten_total", MetricKind::Counter, Unit::Count, "Handled messages that left the history, by the bound they left for: `messages` (store.history) or `bytes` (store.history-max)."),
    metric("caxton_log_lines_dropped_total", MetricKind::Counter, Unit::Count, "Lines of an agent beyond its limits.log-lines, by agent."),
    metric("caxton_messages_accepted_total", MetricKind::ReadCounter, Unit::Count, "Messages taken into the mailbox, by agent."),
    metric("caxton_messages_refused_total", MetricKind::ReadCounter, Unit::Count, "Messages and calls refused because the mailbox was full, there were too many timers or the breaker was open, by agent."),
    metric("caxton_messages_retried_total", MetricKind::ReadCounter, Unit::Count, "Attempts that failed and were followed by another, by agent."),
    metric("caxton_runs_total", MetricKind::ReadCounter, Unit::Count, "Runs of handlers, by agent: more than one for a message or call after a conflict."),
    metric("caxton_conflicts_total", MetricKind::ReadCounter, Unit::Count, "Runs of handlers that were discarded because another run had changed what they had read, by agent."),
    metric("caxton_dead_letters", MetricKind::Gauge, Unit::Count, "Dead letters that are kept, by agent."),
    metric("caxton_breaker_open", MetricKind::Gauge, Unit::Count, "1 while the agent's breaker is open after repeated failures, else 0."),
    metric("caxton_mailbox_held", MetricKind::Gauge, Unit::Count, "1 while an operator holds the agent's messages, else 0."),
    metric("caxton_mailbox_later", MetricKind::Gauge, Unit::Count, "Messages that wait for another attempt, by agent."),
    metric("caxton_timers", MetricKind::Gauge, Unit::Count, "Messages that wait for their due time, by agent."),
    metric("caxton_mailbox_depth", MetricKind::Gauge, Unit::Count, "Messages that wait, by agent."),
    metric("caxton_mailbox_bound", MetricKind::Gauge, Unit::Count, "Messages that may wait, by agent."),
    metric("caxton_in_flight", MetricKind::Gauge, Unit::Count, "Messages and calls being handled, by agent."),
    metric("caxton_engines_created_total", MetricKind::Counter, Unit::Count, "Engines created after the first, by engine: fuel, async or async-fuel, each when an agent first needs it."),
    metric("caxton_instances", MetricKind::Gauge, Unit::Count, "Live instances, by agent."),
    metric("caxton_state_bytes", MetricKind::Gauge, Unit::Bytes, "State of an agent, keys and values."),
    metric("caxton_snapshot_bytes", MetricKind::Gauge, Unit::Bytes, "Memory that the live instance of a stateful agent saved last, by agent."),
    metric("caxton_snapshot_deferred", MetricKind::Gauge, Unit::Count, "1 while a stateful agent's memory is above snapshot.commit-max and so saved every 5 s instead of with its commits, else 0."),
    metric("caxton_snapshot_unsaved_messages", MetricKind::Gauge, Unit::Count, "Messages in a stateful agent's memory that are in no saved one: what a crash would cost, by agent."),
    metric("caxton_agents", MetricKind::Gauge, Unit::Count, "Agents by state."),
    metric("caxton_revisions", MetricKind::Gauge, Unit::Count, "Revisions that are not ended, and the newest of each agent, by state."),
    metric("caxton_ready", MetricKind::Gauge, Unit::Count, "1 if everything that is declared is served and nothing of it needs a person, else 0."),
    metric("caxton_in_sync", MetricKind::Gauge, Unit::Count, "1 if the running state matches the file, 0 while the file has errors or a change is under way or obstructed."),
    metric("caxton_obstructed", MetricKind::Gauge, Unit::Count, "1 while the agent does not run as declared and a person has to fix something, else 0."),
    metric("caxton_obstacles", MetricKind::Gauge, Unit::Count, "Agents that do not run as declared, by obstacle: missing, failed or refused."),
    metric("caxton_store_bytes", MetricKind::Gauge, Unit::Bytes, "Size of the store on disk."),
    metric("caxton_host_lines_dropped_total", MetricKind::ReadCounter, Unit::Count, "Lines of the host itself that stderr could not take: a closed pipe, a full disk, a reader that stopped."),
    metric("caxton_task_restarts_total", MetricKind::ReadCounter, Unit::Count, "Times that a task of the host died and was started again, by task."),
    metric("caxton_host_memory_bytes", MetricKind::Gauge, Unit::Bytes, "Memory that the host holds for others, by kind."),
    metric("caxton_host_memory_limit_bytes", MetricKind::Gauge, Unit::Bytes, "The most memory that the host holds for others (host.memory)."),
    metric("caxton_host_memory_waiting", MetricKind::Gauge, Unit::Count, "Requests that wait for memory of the host."),
    metric("caxton_host_memory_refused_total", MetricKind::ReadCounter, Unit::Count, "Requests for memory of the host that were refused, by what they were for."),
    metric("process_resident_memory_bytes", MetricKind::Gauge, Unit::Bytes, "Resident memory of the host."),
    metric("process_cpu_seconds_total", MetricKind::ReadCounter, Unit::Seconds, "CPU time of the host on all cores."),
];

/// The handle of the recorder.
#[derive(Clone)]
pub(crate) struct Metrics(PrometheusHandle);

/// The counts and times of one agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentMetrics {
    /// Messages and calls that were handled, failed for good, or were followed by another attempt.
    pub(crate) outcomes: [(&'static str, u64); 3],
    /// The time that messages waited in the mailbox.
    pub(crate) waited: Distribution,
    /// The time to handle messages.
    pub(crate) took: Distribution,
    /// The time on a core.
    pub(crate) cpu: Distribution,
}

/// The values that are read for a scrape.
pub(crate) struct Sample<'a> {
    /// Set if `/readyz` succeeds.
    pub(crate) ready: bool,
    /// Set if the running state matches the declaration.
    pub(crate) in_sync: bool,
    /// The agents. `None` if they did not answer in time: then their series are left out instead of guessed.
    pub(crate) agents: Option<&'a [AgentStatus]>,
    /// The counts of the agents by name.
    pub(crate) agent_metrics: &'a [(Arc<str>, AgentMetrics)],
    pub(crate) tasks: &'a [TaskStatus],
    /// The memory that the host holds for others.
    pub(crate) memory: &'a HostMemory,
    /// The data folder, for the size of the store.
    pub(crate) data: &'a Path,
}

/// Installs the recorder. Only the first call in a process does; later ones return the same handle.
pub(crate) fn install() -> Metrics {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    // Tests start several hosts in one process, which has one global recorder.
    let handle = HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BOUNDS_NS.map(seconds))
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        // Only possible in a process that embeds the host beside other users of `metrics`.
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another library of this process collects the metrics; /metrics has none of them");
        }
        for metric in METRICS {
            match metric.kind {
                MetricKind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
                MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
                // Written by `write_sample`, together with their help.
                MetricKind::Gauge | MetricKind::ReadCounter | MetricKind::ReadHistogram => {}
            }
        }
        handle
    });
    Metrics(handle.clone())
}

impl Metrics {
    /// Drains recorded samples into their buckets, so that they do not accumulate without scrapes.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// Returns all metrics in the text format of Prometheus.
    pub(crate) fn render(&self, sample: &Sample<'_>) -> String {
        let mut text = self.0.render();
        write_sample(&mut text, sample);
        text
    }
}

/// Writes the counts and times of all agents.
fn write_agent_metrics(text: &mut String, agent_metrics: &[(Arc<str>, AgentMetrics)]) {
    let name = "caxton_messages_total";
    head(text, name);
    for (agent, metrics) in agent_metrics {
        // Agents times outcomes would be many series, most of them zero.
        for (outcome, count) in metrics.outcomes.iter().filter(|(_, count)| *count > 0) {
            line(text, name, &format!("{{agent=\"{agent}\",outcome=\"{outcome}\"}}"), count);
        }
    }
    let mut each = |name, times: fn(&AgentMetrics) -> &Distribution| {
        head(text, name);
        for (agent, metrics) in agent_metrics.iter().filter(|(_, metrics)| times(metrics).count() > 0) {
            let (times, agent) = (times(metrics), format!("agent=\"{agent}\""));
            let bounds = times.up_to().map(|(bound, count)| (seconds(bound), count));
            for (bound, count) in bounds.chain([(f64::INFINITY, times.count())]) {
                // The format writes infinity in this way, where Rust writes `inf`.
                let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
                line(text, &format!("{name}_bucket"), &format!("{{{agent},le=\"{bound}\"}}"), count);
            }
            line(text, &format!("{name}_sum"), &format!("{{{agent}}}"), times.sum());
            line(text, &format!("{name}_count"), &format!("{{{agent}}}"), times.count());
        }
    };
    each("caxton_mailbox_wait_seconds", |metrics| &metrics.waited);
    each("caxton_message_seconds", |metrics| &metrics.took);
    each("caxton_message_cpu_seconds", |metrics| &metrics.cpu);
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Writes what is known of memories; agents that keep nothing there have no series.
fn write_memory_metrics(text: &mut String, agents: &[AgentStatus]) {
    let mut each = |name, value: fn(&MemoryStatus) -> u64| {
        head(text, name);
        for agent in agents {
            if let Some(memory) = &agent.memory {
                line(text, name, &format!("{{agent=\"{}\"}}", agent.name), value(memory));
            }
        }
    };
    each("caxton_snapshot_bytes", |memory| memory.saved_bytes);
    each("caxton_snapshot_deferred", |memory| memory.deferred.is_some().into());
    each("caxton_snapshot_unsaved_messages", |memory| memory.unsaved_messages);
}

fn write_host_memory(text: &mut String, memory: &HostMemory) {
    let mut each = |name, label: &str, values: &BTreeMap<String, u64>| {
        head(text, name);
        for (of, value) in values {
            line(text, name, &format!("{{{label}=\"{of}\"}}"), value);
        }
    };
    each("caxton_host_memory_bytes", "kind", &memory.by_kind);
    each("caxton_host_memory_refused_total", "for", &memory.refused);
    single(text, "caxton_host_memory_limit_bytes", memory.limit_bytes);
    single(text, "caxton_host_memory_waiting", memory.waiting);
}

fn write_sample(text: &mut String, sample: &Sample<'_>) {
    write_agent_metrics(text, sample.agent_metrics);
    if let Some(agents) = sample.agents {
        let mut each = |name, value: fn(&AgentStatus) -> u64| {
            head(text, name);
            for agent in agents {
                // Names of agents contain no character that needs an escape.
                line(text, name, &format!("{{agent=\"{}\"}}", agent.name), value(agent));
            }
        };
        each("caxton_messages_accepted_total", |agent| agent.accepted);
        each("caxton_messages_refused_total", |agent| agent.refused);
        each("caxton_messages_retried_total", |agent| agent.retries);
        each("caxton_runs_total", |agent| agent.runs);
        each("caxton_conflicts_total", |agent| agent.conflicts);
        each("caxton_dead_letters", |agent| agent.dead_letters);
        each("caxton_breaker_open", |agent| (agent.breaker == "open").into());
        each("caxton_mailbox_held", |agent| agent.held.into());
        each("caxton_mailbox_later", |agent| agent.later);
        each("caxton_timers", |agent| agent.timers);
        each("caxton_mailbox_depth", |agent| agent.mailbox_depth.into());
        each("caxton_mailbox_bound", |agent| agent.mailbox_bound.into());
        each("caxton_in_flight", |agent| agent.in_flight.into());
        each("caxton_instances", |agent| agent.instances.into());
        each("caxton_state_bytes", |agent| agent.state_bytes);
        each("caxton_obstructed", |agent| agent.obstacle.is_some().into());
        write_memory_metrics(text, agents);
        let obstacles = agents.iter().filter_map(|agent| agent.obstacle.as_deref());
        by_label(text, "caxton_obstacles", "obstacle", &Obstacle::ALL.map(Obstacle::as_str), obstacles);
        by_state(text, "caxton_agents", &AGENT_STATES, agents.iter().map(|agent| agent.state.as_str()));
        let revisions = agents.iter().flat_map(|agent| &agent.revisions).map(|revision| revision.state.as_str());
        by_state(text, "caxton_revisions", &REVISION_STATES, revisions);
    }
    single(text, "caxton_ready", u8::from(sample.ready));
    single(text, "caxton_in_sync", u8::from(sample.in_sync));
    single(text, "caxton_store_bytes", store_bytes(sample.data));
    single(text, "caxton_host_lines_dropped_total", logging::dropped());
    head(text, "caxton_task_restarts_total");
    for task in sample.tasks {
        line(text, "caxton_task_restarts_total", &format!("{{task=\"{}\"}}", task.name), task.restarts);
    }
    write_host_memory(text, sample.memory);
    if let Some(bytes) = host_stats::resident_bytes() {
        single(text, "process_resident_memory_bytes", bytes);
    }
    single(text, "process_cpu_seconds_total", host_stats::cpu_time().as_secs_f64());
}

const AGENT_STATES: [&str; 4] = ["running", "starting", "failed", "leaving"];
const REVISION_STATES: [&str; 7] = ["unloaded", "loaded", "ready", "running", "draining", "stopped", "failed"];

fn by_state<'a>(text: &mut String, name: &str, states: &[&str], found: impl Iterator<Item = &'a str>) {
    by_label(text, name, "state", states, found);
}

/// Writes the number of `found` values for each value of a label, zeros included.
fn by_label<'a>(text: &mut String, name: &str, label: &str, values: &[&str], found: impl Iterator<Item = &'a str>) {
    let found: Vec<&str> = found.collect();
    head(text, name);
    // Zeros are written too, so that alerts on a state do not miss the first occurrence.
    for value in values {
        let count = found.iter().filter(|found| *found == value).count();
        line(text, name, &format!("{{{label}=\"{value}\"}}"), count);
    }
}

fn single(text: &mut String, name: &str, value: impl Display) {
    head(text, name);
    line(text, name, "", value);
}

fn head(text: &mut String, name: &str) {
    // A linear search is fine: each scrape looks up each name once.
    let metric = METRICS.iter().find(|metric| metric.name == name).expect("every name that is written is in the table");
    let kind = match metric.kind {
        MetricKind::Counter | MetricKind::ReadCounter => "counter",
        MetricKind::Histogram | MetricKind::ReadHistogram => "histogram",
        MetricKind::Gauge => "gauge",
    };
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help);
}

fn line(text: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

/// Returns the size of the store's files in bytes.
pub(crate) fn store_bytes(data: &Path) -> u64 {
    let length = |name: &str| std::fs::metadata(data.join(name)).map_or(0, |metadata| metadata.len());
    ["caxton.db", "caxton.db-wal", "caxton.db-shm"].into_iter().map(length).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::api_types::tests::agent;
    use crate::telemetry::buckets::DurationBuckets;

    #[test]
    fn sampled_metrics_are_described_and_current() {
        let refused = AgentStatus { obstacle: Some("refused".to_owned()), ..agent("counter") };
        let agents = [agent("echo"), refused];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("caxton.db"), [0; 100]).unwrap();
        let by_kind = BTreeMap::from([("instances".to_owned(), 70)]);
        let memory = HostMemory { limit_bytes: 100, used_bytes: 70, by_kind, ..HostMemory::default() };
        let mut text = String::new();
        write_sample(
            &mut text,
            &Sample {
                ready: true,
                in_sync: true,
                agents: Some(&agents),
                agent_metrics: &[],
                tasks: &[],
                memory: &memory,
                data: folder.path(),
            },
        );
        for expected in [
            "# TYPE caxton_mailbox_depth gauge\ncaxton_mailbox_depth{agent=\"echo\"} 2\n",
            "caxton_messages_accepted_total{agent=\"counter\"} 12\n",
            "# TYPE caxton_messages_retried_total counter\ncaxton_messages_retried_total{agent=\"echo\"} 6\n",
            "caxton_runs_total{agent=\"echo\"} 21\n",
            "caxton_conflicts_total{agent=\"counter\"} 2\n",
            "caxton_dead_letters{agent=\"counter\"} 3\n",
            "caxton_breaker_open{agent=\"echo\"} 0\n",
            "caxton_agents{state=\"running\"} 2\ncaxton_agents{state=\"starting\"} 0\n",
            "caxton_revisions{state=\"running\"} 2\n",
            "caxton_ready 1\n",
            "caxton_in_sync 1\n",
            "caxton_obstructed{agent=\"echo\"} 0\n",
            "caxton_obstructed{agent=\"counter\"} 1\n",
            "caxton_obstacles{obstacle=\"missing\"} 0\n",
            "caxton_obstacles{obstacle=\"refused\"} 1\n",
            "caxton_store_bytes 100\n",
            "caxton_host_memory_bytes{kind=\"instances\"} 70\n",
            "caxton_host_memory_limit_bytes 100\n",
            "# TYPE process_cpu_seconds_total counter\n",
        ] {
            assert!(text.contains(expected), "{expected} is missing in:\n{text}");
        }
        let mut text = String::new();
        write_sample(
            &mut text,
            &Sample {
                ready: false,
                in_sync: false,
                agents: None,
                agent_metrics: &[],
                tasks: &[],
                memory: &memory,
                data: folder.path(),
            },
        );
        assert!(!text.contains("caxton_mailbox_depth"), "nothing is made up");
    }

    #[test]
    fn recorded_metrics_are_rendered() {
        let metrics = install();
        metrics::counter!("caxton_failures_total", "agent" => "metrics-test", "code" => "trap").increment(3);
        metrics::histogram!("caxton_http_seconds", "agent" => "metrics-test").record(0.003);
        metrics.upkeep();
        let ms = Duration::from_millis;
        let [waited, took, cpu] = [[ms(40), ms(4)], [ms(3), ms(300_000)], [ms(1), ms(1)]].map(|times| {
            let buckets = DurationBuckets::default();
            times.into_iter().for_each(|time| buckets.record(time));
            let mut distribution = Distribution::default();
            distribution.add(&buckets);
            distribution
        });
        let outcomes = [("handled", 1), ("failed", 0), ("retried", 1)];
        let agent_metrics = [("metrics-test".into(), AgentMetrics { outcomes, waited, took, cpu })];
        let text = metrics.render(&Sample {
            ready: true,
            in_sync: true,
            agents: None,
            agent_metrics: &agent_metrics,
            tasks: &[],
            memory: &HostMemory::default(),
            data: Path::new("/nowhere"),
        });
        for expected in [
            "caxton_failures_total{agent=\"metrics-test\",code=\"trap\"} 3\n",
            "caxton_http_seconds_bucket{agent=\"metrics-test\",le=\"0.005\"} 1\n",
            "# HELP caxton_failures_total Attempts and calls",
            "# HELP caxton_messages_total Messages and calls",
            "caxton_messages_total{agent=\"metrics-test\",outcome=\"handled\"} 1\n",
            "caxton_messages_total{agent=\"metrics-test\",outcome=\"retried\"} 1\n",
            "# TYPE caxton_message_seconds histogram\n",
            "caxton_message_seconds_bucket{agent=\"metrics-test\",le=\"0.0025\"} 0\n",
            "caxton_message_seconds_bucket{agent=\"metrics-test\",le=\"0.005\"} 1\n",
            "caxton_message_seconds_bucket{agent=\"metrics-test\",le=\"30\"} 1\n",
            "caxton_message_seconds_bucket{agent=\"metrics-test\",le=\"+Inf\"} 2\n",
            "caxton_message_seconds_sum{agent=\"metrics-test\"} 300.003\n",
            "caxton_message_seconds_count{agent=\"metrics-test\"} 2\n",
            "caxton_mailbox_wait_seconds_bucket{agent=\"metrics-test\",le=\"0.05\"} 2\n",
        ] {
            assert!(text.contains(expected), "{expected} is missing in:\n{text}");
        }
    }

    /// Returns the name after each `counter!(` and similar macro in a source text.
    fn recorded(text: &str) -> impl Iterator<Item = &str> {
        ["counter!(", "histogram!(", "gauge!("]
            .into_iter()
            .flat_map(|call| text.split(call).skip(1))
            .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    }

    fn sources(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn recorded_metrics_and_descriptions_match() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let used: BTreeSet<&str> = recorded(&text).collect();
        let kept = |metric: &&Metric| matches!(metric.kind, MetricKind::Counter | MetricKind::Histogram);
        let described: BTreeSet<&str> = METRICS.iter().filter(kept).map(|metric| metric.name).collect();
        assert_eq!(used, described, "the left are recorded in host/src, the right are in METRICS");
        let page = include_str!("../../../docs/api.md");
        for metric in METRICS {
            assert!(page.contains(&format!("`{}`", metric.name)), "docs/api.md lacks {}", metric.name);
            let is_times = matches!(metric.kind, MetricKind::Histogram | MetricKind::ReadHistogram);
            assert_eq!(metric.name.ends_with("_seconds"), is_times, "{}", metric.name);
            assert_eq!(
                metric.name.ends_with("_total"),
                matches!(metric.kind, MetricKind::Counter | MetricKind::ReadCounter),
                "{}",
                metric.name
            );
        }
    }
}
