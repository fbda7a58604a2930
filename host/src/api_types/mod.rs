//! The shapes of the host's status, given by the management API and printed by the command line.

mod budget;
mod conversation;
mod dead;
mod diff;
mod file;
mod host_memory;
mod memory;
mod rollout;
mod store_status;
mod task;
mod waiting;

use serde::{Deserialize, Serialize};

pub(crate) use budget::{AgentUse, BudgetLimits, BudgetUse};
pub(crate) use conversation::{
    AcceptedMessage, ConversationStats, ConversationStatus, ConversationThread, OpenQuestion, ScheduleStatus,
    ThreadMessage,
};
pub(crate) use dead::{AttemptStatus, DeadLetterCount, DeadLetterStatus, RecordedCallStatus};
pub(crate) use diff::{DeclarationDiff, PlannedChange};
pub(crate) use file::FileError;
pub(crate) use host_memory::HostMemory;
pub(crate) use memory::MemoryStatus;
pub(crate) use rollout::{
    AnswerDifferences, DifferingMessage, PathDifference, RehearsalError, RehearsalFailure, RehearsalRequest,
    RehearsalResult, RolloutRequest, RolloutStatus, SideStatus,
};
pub(crate) use store_status::{AgentRecords, StoreStatus};
pub(crate) use task::TaskStatus;
pub(crate) use waiting::WaitingAgent;

/// The host as a whole.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct HostStatus {
    /// The version of the program.
    pub(crate) version: String,
    /// The declaration file.
    pub(crate) file: String,
    /// The start of the host, in milliseconds since 1970.
    pub(crate) started_at: u64,
    /// The address where agents are called.
    pub(crate) http: String,
    /// The address of the management API.
    pub(crate) admin: String,
    /// Set if everything that is declared runs as declared.
    pub(crate) ready: bool,
    /// Set if the running state matches the declaration; unset while the file has errors or a change is under way.
    pub(crate) in_sync: bool,
    /// The errors of the file, as `caxton check` prints them; empty if it has none.
    pub(crate) file_errors: Vec<FileError>,
    /// The agents that are not as declared yet, with the reason.
    pub(crate) waiting: Vec<WaitingAgent>,
    /// The number of live instances.
    pub(crate) instances: u32,
    /// The bound of live instances on this machine.
    pub(crate) max_instances: u32,
    /// The engines that were created so far: `plain`, and `fuel`, `async` or `async-fuel` once an agent needs it.
    #[serde(default)]
    pub(crate) engines: Vec<String>,
    /// Set once the host is stopping.
    pub(crate) stopping: bool,
    /// The memory that the host holds for others.
    #[serde(default)]
    pub(crate) memory: HostMemory,
}

/// An agent.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct AgentStatus {
    pub(crate) name: String,
    /// `running`, `starting`, `failed` (no revision runs) or `leaving`.
    pub(crate) state: String,
    /// The revision that takes messages, such as `triage@7`.
    pub(crate) revision: Option<String>,
    /// The SHA-256 of the running component.
    pub(crate) digest: Option<String>,
    /// The kind of its component: `message`, `stateful`, `http` or `both`.
    pub(crate) kind: Option<String>,
    /// The path of the component, as declared.
    pub(crate) component: String,
    /// The number of live instances.
    pub(crate) instances: u32,
    /// The bound of live instances.
    pub(crate) max_instances: u32,
    /// Instances that the running revision has started in total.
    pub(crate) started_instances: u32,
    /// Messages or calls for which one instance is used; null if it is used as long as it lives.
    pub(crate) reuse: Option<u32>,
    /// The time until the next instance is started, in milliseconds, after instances failed to start; null outside of such
    /// a pause.
    #[serde(default)]
    pub(crate) restarts_in_ms: Option<u64>,
    /// Messages and calls being handled.
    pub(crate) in_flight: u32,
    /// Messages that wait.
    pub(crate) mailbox_depth: u32,
    /// The bound of waiting messages.
    pub(crate) mailbox_bound: u32,
    /// Messages accepted since the host started.
    pub(crate) accepted: u64,
    /// Messages and calls handled since the host started.
    pub(crate) handled: u64,
    /// Messages and calls that failed since the host started.
    pub(crate) failed: u64,
    /// Messages refused since the host started because the mailbox was full.
    pub(crate) refused: u64,
    /// Attempts that failed since the host started and were followed by another.
    pub(crate) retries: u64,
    /// Runs of its handler since the host started: more than one for a message or call after a conflict.
    #[serde(default)]
    pub(crate) runs: u64,
    /// Runs since the host started that were discarded because another run had changed what they had read.
    #[serde(default)]
    pub(crate) conflicts: u64,
    /// Messages that wait for another attempt, as part of those that wait.
    pub(crate) later: u64,
    /// Messages that wait for their due time. They occupy no place in the mailbox before.
    #[serde(default)]
    pub(crate) timers: u64,
    /// Set while an operator holds its messages (`caxton mailbox pause`).
    pub(crate) held: bool,
    /// `closed`, `open` (no messages are handled for a while after repeated failures) or `half-open` (one message is
    /// let through on trial).
    pub(crate) breaker: String,
    /// The failure that opened the breaker last; null while it is closed.
    #[serde(default)]
    pub(crate) opening: Option<BreakerOpening>,
    /// The number of its dead letters that are kept.
    pub(crate) dead_letters: u64,
    /// The size of its state in bytes.
    pub(crate) state_bytes: u64,
    /// The saving of its memory; null if it keeps nothing there.
    #[serde(default)]
    pub(crate) memory: Option<MemoryStatus>,
    /// The routes, such as `POST /tickets`.
    pub(crate) routes: Vec<String>,
    /// The declared capabilities.
    pub(crate) capabilities: Vec<String>,
    /// The revisions that are not ended, and the newest.
    pub(crate) revisions: Vec<RevisionStatus>,
    /// The reason why it is not as declared; null if it is.
    pub(crate) waiting: Option<String>,
    /// `missing`, `failed` or `refused` if it needs a person to go on; see `waiting`.
    #[serde(default)]
    pub(crate) obstacle: Option<String>,
}

/// A failure that opened a breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Opening)]
pub(crate) struct BreakerOpening {
    /// Set if it was the failure of a trial; otherwise it was the last of too many failures.
    pub(crate) trial: bool,
    /// The id of the message that failed; null for an HTTP call.
    pub(crate) message: Option<String>,
    /// The attempt that failed, from 1.
    pub(crate) attempt: u32,
    /// The reason of the failure.
    pub(crate) reason: String,
}

/// A revision.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RevisionStatus {
    /// Counts the agent's revisions, from 1.
    pub(crate) number: u64,
    /// `unloaded`, `loaded`, `ready`, `running`, `draining`, `stopped` or `failed`.
    pub(crate) state: String,
    /// The reason of its failure; null if it has not failed.
    pub(crate) reason: Option<String>,
    /// The SHA-256 of its component.
    pub(crate) digest: String,
    /// Messages and calls that it is handling.
    pub(crate) in_flight: u32,
    /// The time in its present state, in milliseconds.
    pub(crate) since_ms: u64,
}

/// The result of an apply.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Applied)]
pub(crate) struct ApplyResult {
    /// The changes that were made.
    pub(crate) changes: Vec<PlannedChange>,
    /// The agents that are not as declared yet, with the reason; old revisions that drain are included.
    pub(crate) waiting: Vec<WaitingAgent>,
    /// Set if the running revisions are the declared ones.
    pub(crate) settled: bool,
}

/// An event of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct EventEntry {
    /// Counts the events of a store, in order of commit.
    pub(crate) id: i64,
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    /// The agent's name; null for the host itself.
    pub(crate) agent: Option<String>,
    /// The kind, such as `revision.state`.
    pub(crate) kind: String,
    /// An object whose fields depend on the kind.
    pub(crate) data: serde_json::Value,
}

/// A line of an agent's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct LogEntry {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    /// The agent's name.
    pub(crate) agent: String,
    /// The number of the revision that wrote it.
    pub(crate) revision: u64,
    /// `trace`, `debug`, `info`, `warn`, `error` or `critical`.
    pub(crate) level: String,
    /// `stdout`, `stderr`, or the context that the agent passed with the line.
    pub(crate) context: String,
    pub(crate) text: String,
}

/// A page of the keys of an agent's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StatePage {
    /// The keys in byte order.
    pub(crate) keys: Vec<StateKey>,
    /// The value of `after` for the next page; null on the last page.
    pub(crate) next: Option<String>,
    /// The size of the agent's whole state in bytes, keys and values.
    pub(crate) bytes: u64,
}

/// A key of an agent's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StateKey {
    pub(crate) key: String,
    /// The size of its value in bytes.
    pub(crate) bytes: u64,
    /// The time at which it expires, in milliseconds since 1970; left out if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<u64>,
}

/// A mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct MailboxStatus {
    /// The agent's name.
    pub(crate) agent: String,
    /// Messages that wait.
    pub(crate) depth: u32,
    /// The bound of waiting messages.
    pub(crate) bound: u32,
    /// Messages that wait for another attempt, as part of those that wait.
    pub(crate) later: u64,
    /// Messages that wait for their due time. They occupy no place in the mailbox before.
    #[serde(default)]
    pub(crate) timers: u64,
    /// Messages being handled.
    pub(crate) in_flight: u32,
    /// Set while an operator holds the messages.
    pub(crate) held: bool,
    /// `closed`, `open` or `half-open`.
    pub(crate) breaker: String,
    /// The longest wait of a message that could be handled now, in milliseconds, including time in which no host ran;
    /// null if none waits.
    pub(crate) oldest_ms: Option<u64>,
}

/// Quantiles of durations, each exact to 3 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Quantiles {
    /// The number of durations.
    pub(crate) count: u64,
    /// The median, in microseconds.
    pub(crate) p50_us: f64,
    /// The 90th percentile, in microseconds.
    pub(crate) p90_us: f64,
    /// The 99th percentile, in microseconds.
    pub(crate) p99_us: f64,
    /// The 99.9th percentile, in microseconds.
    pub(crate) p999_us: f64,
    /// The longest, in microseconds.
    pub(crate) max_us: f64,
}

/// Counts of messages and calls of all agents, removed ones included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = MessageFigures)]
pub(crate) struct MessageStats {
    /// The number handled or failed for good per second, over the last five seconds.
    pub(crate) per_second: f64,
    /// The most in any second since the host started.
    pub(crate) peak_per_second: f64,
    /// The number accepted into mailboxes since the host started.
    pub(crate) accepted: u64,
    /// The number handled since the host started, calls of HTTP agents included.
    pub(crate) handled: u64,
    /// The number that failed for good since the host started.
    pub(crate) failed: u64,
    /// Attempts that failed and were followed by another.
    pub(crate) retried: u64,
    /// The number refused because the mailbox was full or the breaker open.
    pub(crate) refused: u64,
    /// The number returned to their senders because their agent ended.
    pub(crate) dropped: u64,
    /// Runs of handlers: those that were handled, failed or retried, and those that ended in a conflict.
    #[serde(default)]
    pub(crate) runs: u64,
    /// Runs that were discarded because another run had changed what they had read. Most were repeated.
    #[serde(default)]
    pub(crate) conflicts: u64,
}

/// The number of failed attempts and calls with the same code since the host started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct FailureCount {
    /// A stable code, such as `trap` or `deadline-exceeded`.
    pub(crate) code: String,
    /// The number of failures.
    pub(crate) count: u64,
}

/// Times from the acceptance of a message, or from its due time, to the end of its handling, including the commit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = DeliveryFigures)]
pub(crate) struct DeliveryStats {
    /// Times of the last 50 to 60 seconds; null if nothing was delivered.
    pub(crate) last_minute: Option<Quantiles>,
    /// The times since the host started; null if nothing was delivered.
    pub(crate) since_start: Option<Quantiles>,
}

/// The memory and CPU use of the host's process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ProcessFigures)]
pub(crate) struct ProcessStats {
    /// The resident memory in bytes; null where the system does not report it.
    pub(crate) resident_bytes: Option<u64>,
    /// CPU time on all cores since it started, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Cores in use over the last five seconds.
    pub(crate) cores: f64,
}

/// The result of a compaction of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Compaction {
    /// The bytes of the database and its log before.
    pub(crate) before: u64,
    /// The bytes of both now.
    pub(crate) after: u64,
    /// The free bytes on the disk with which the database could have been written anew, if they were not there. Only its
    /// log was emptied then.
    pub(crate) needed: Option<u64>,
}

/// The result of a check of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Checked)]
pub(crate) struct StoreCheck {
    /// Set if no defect was found.
    pub(crate) ok: bool,
    pub(crate) defects: Vec<Defect>,
}

/// An inconsistency in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Defect {
    /// A stable code for programs.
    pub(crate) code: String,
    /// The defect, for a person.
    pub(crate) what: String,
    /// The number of records with the defect.
    pub(crate) count: u64,
}

#[cfg(test)]
pub(crate) mod tests;
