//! What the host says of itself: the shapes that the management API gives and the command line prints.

mod conversation;
mod file;
mod rollout;
mod task;

use caxton_control::plan;
use serde::{Deserialize, Serialize};

pub(crate) use conversation::{ConversationStatus, OpenQuestion, ScheduleStatus, Thread, ThreadMessage};
pub(crate) use file::FileError;
pub(crate) use rollout::{
    Differences, Differing, NotRehearsed, PathDiffers, Rehearsal, RehearsalFailure, RehearsalWish, RolloutStatus,
    RolloutWish, SideStatus,
};
pub(crate) use task::TaskStatus;

/// The host as a whole.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct HostStatus {
    /// Version of the program.
    pub(crate) version: String,
    /// The file that declares the agents.
    pub(crate) file: String,
    /// When the host started, in milliseconds since 1970.
    pub(crate) started_at: u64,
    /// Where agents are called.
    pub(crate) http: String,
    /// Where the management API is.
    pub(crate) admin: String,
    /// Whether everything that the file declares is running as declared.
    pub(crate) ready: bool,
    /// Whether what runs is what the file says; false while the file has errors or a change is under way.
    pub(crate) in_sync: bool,
    /// What is wrong with the file, as `caxton check` prints it; empty when nothing is.
    pub(crate) file_errors: Vec<FileError>,
    /// What is not as declared yet, and why.
    pub(crate) waiting: Vec<Waiting>,
    /// Instances that live.
    pub(crate) instances: u32,
    /// Instances that may live at once on this machine.
    pub(crate) max_instances: u32,
    /// Whether the host is stopping.
    pub(crate) stopping: bool,
}

/// Something that is not as declared yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Waiting {
    /// Whose.
    pub(crate) agent: String,
    /// For what.
    pub(crate) why: String,
    /// `missing` (its component), `failed` (it did not come to take messages) or `refused` (it was taken back, or ended
    /// by hand) when it stays so until a person mends something; none when the host goes on by itself.
    #[serde(default)]
    pub(crate) obstacle: Option<String>,
}

impl From<&plan::Waiting> for Waiting {
    fn from(waiting: &plan::Waiting) -> Self {
        let plan::Waiting { agent, why, obstacle } = waiting;
        let obstacle = obstacle.map(|obstacle| obstacle.as_str().to_owned());
        Self { agent: agent.to_string(), why: why.clone(), obstacle }
    }
}

/// An agent.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct AgentStatus {
    /// Its name.
    pub(crate) name: String,
    /// `running`, `starting`, `failed` (no revision of it runs) or `leaving`.
    pub(crate) state: String,
    /// The revision that takes messages, such as `triage@7`.
    pub(crate) revision: Option<String>,
    /// The digest of its component.
    pub(crate) digest: Option<String>,
    /// What its component is for: `message`, `stateful` or `http`.
    pub(crate) kind: Option<String>,
    /// The component's file, as declared.
    pub(crate) component: String,
    /// Instances that live.
    pub(crate) instances: u32,
    /// Instances that may live at once.
    pub(crate) max_instances: u32,
    /// Instances that the running revision has started in all.
    pub(crate) started_instances: u32,
    /// Messages or calls for which one instance is used; none where it is used as long as it lives.
    pub(crate) reuse: Option<u32>,
    /// Messages and calls being handled.
    pub(crate) in_flight: u32,
    /// Messages that wait.
    pub(crate) mailbox_depth: u32,
    /// Messages that may wait.
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
    /// Runs since the host started that were for nothing, because others changed what they had read.
    #[serde(default)]
    pub(crate) conflicts: u64,
    /// The number of waiting messages that wait for another attempt.
    pub(crate) later: u64,
    /// Messages that wait for their time, and have no place in the mailbox before.
    #[serde(default)]
    pub(crate) timers: u64,
    /// Whether an operator lets its messages wait (`caxton mailbox pause`).
    pub(crate) held: bool,
    /// `closed`, `open` (it failed again and again, and is left alone for a while) or `half-open` (one message is
    /// let through on trial).
    pub(crate) breaker: String,
    /// The failure that opened the breaker last; none when it is closed.
    #[serde(default)]
    pub(crate) opening: Option<Opening>,
    /// Dead letters that are kept of it.
    pub(crate) dead_letters: u64,
    /// Bytes of its state.
    pub(crate) state_bytes: u64,
    /// Routes, such as `POST /tickets`.
    pub(crate) routes: Vec<String>,
    /// What it can do.
    pub(crate) capabilities: Vec<String>,
    /// Its revisions that are not ended, and the newest.
    pub(crate) revisions: Vec<RevisionStatus>,
    /// Why it is not as declared; none when it is.
    pub(crate) waiting: Option<String>,
    /// `missing`, `failed` or `refused` when it stays so until a person mends something; see `waiting`.
    #[serde(default)]
    pub(crate) obstacle: Option<String>,
}

/// A failure that opened a breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Opening {
    /// Set if it was a trial that failed; otherwise it was the last of too many failures.
    pub(crate) trial: bool,
    /// The message that failed; none for an HTTP call.
    pub(crate) message: Option<String>,
    /// At which attempt, beginning with 1.
    pub(crate) attempt: u32,
    /// How.
    pub(crate) reason: String,
}

/// A revision.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RevisionStatus {
    /// Its number.
    pub(crate) number: u64,
    /// `unloaded`, `loaded`, `ready`, `running`, `draining`, `stopped` or `failed`.
    pub(crate) state: String,
    /// Why it failed.
    pub(crate) reason: Option<String>,
    /// The digest of its component.
    pub(crate) digest: String,
    /// Messages and calls that it has in hand.
    pub(crate) in_flight: u32,
    /// How long it is in that state, in milliseconds.
    pub(crate) since_ms: u64,
}

/// Something that a plan would do or did, for `caxton diff` and `caxton apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Change {
    /// Whose; none for the host itself.
    pub(crate) agent: Option<String>,
    /// `add`, `remove`, `new-revision`, `in-place` or `restart-needed`; `under-way` for what the host is at; `missing`,
    /// `failed` or `refused` for what is declared and does not run until a person mends something.
    pub(crate) change: String,
    /// Which settings differ, such as `limits.memory: 64MiB -> 128MiB`.
    pub(crate) details: Vec<String>,
}

/// What became of an apply.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Applied {
    /// What was changed.
    pub(crate) changes: Vec<Change>,
    /// What is not as declared yet, and why; old revisions that drain are told of too.
    pub(crate) waiting: Vec<Waiting>,
    /// Whether the revisions that run are those that are declared.
    pub(crate) settled: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct EventEntry {
    /// Counts the events of a store.
    pub(crate) id: i64,
    /// When, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Whose; none for the host itself.
    pub(crate) agent: Option<String>,
    /// What, such as `revision.state`.
    pub(crate) kind: String,
    /// The rest: an object.
    pub(crate) data: serde_json::Value,
}

/// A line of an agent's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct LogEntry {
    /// When, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Whose.
    pub(crate) agent: String,
    /// The revision that said it.
    pub(crate) revision: u64,
    /// `trace`, `debug`, `info`, `warn`, `error` or `critical`.
    pub(crate) level: String,
    /// `stdout`, `stderr`, or what the agent gave with the line.
    pub(crate) context: String,
    /// The line itself.
    pub(crate) text: String,
}

/// Some keys of an agent's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StatePage {
    /// The keys, in byte order.
    pub(crate) keys: Vec<StateKey>,
    /// What to give as `after` for the next page; none when this is the last.
    pub(crate) next: Option<String>,
    /// Bytes of the agent's whole state, keys and values.
    pub(crate) bytes: u64,
}

/// A key of an agent's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StateKey {
    /// The key.
    pub(crate) key: String,
    /// Bytes of its value.
    pub(crate) bytes: u64,
    /// When it is gone, in milliseconds since 1970; left out if it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<u64>,
}

/// A mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct MailboxStatus {
    /// Whose.
    pub(crate) agent: String,
    /// Messages that wait.
    pub(crate) depth: u32,
    /// Messages that may wait.
    pub(crate) bound: u32,
    /// The number of waiting messages that wait for another attempt.
    pub(crate) later: u64,
    /// Messages that wait for their time, and have no place in the mailbox before.
    #[serde(default)]
    pub(crate) timers: u64,
    /// Messages being handled.
    pub(crate) in_flight: u32,
    /// Whether an operator lets them wait.
    pub(crate) held: bool,
    /// `closed`, `open` or `half-open`.
    pub(crate) breaker: String,
    /// How long the message waits that could be handled and waits longest, in milliseconds, the time without a host
    /// included; none when none waits.
    pub(crate) oldest_ms: Option<u64>,
}

/// How times lie, each told to within 3 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Quantiles {
    /// How many there were.
    pub(crate) count: u64,
    /// Half of them took no longer, in microseconds.
    pub(crate) p50_us: f64,
    /// 90 % of them.
    pub(crate) p90_us: f64,
    /// 99 % of them.
    pub(crate) p99_us: f64,
    /// 99.9 % of them.
    pub(crate) p999_us: f64,
    /// The longest.
    pub(crate) max_us: f64,
}

/// Messages and calls of all agents, those of agents that are gone included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct MessageFigures {
    /// Handled or failed for good in a second, over the last five.
    pub(crate) per_second: f64,
    /// The most in any second since the host started.
    pub(crate) peak_per_second: f64,
    /// Taken into mailboxes since the host started.
    pub(crate) accepted: u64,
    /// Handled since the host started, calls of HTTP agents included.
    pub(crate) handled: u64,
    /// Failed for good since the host started.
    pub(crate) failed: u64,
    /// Attempts that failed and were followed by another.
    pub(crate) retried: u64,
    /// Refused because the mailbox was full, or the agent is left alone.
    pub(crate) refused: u64,
    /// Given back because their agent ended.
    pub(crate) dropped: u64,
    /// Runs of handlers: more than those that were handled, failed or retried, by those that ended in a conflict.
    #[serde(default)]
    pub(crate) runs: u64,
    /// Runs that were for nothing, because others changed what they had read, and were mostly followed by another.
    #[serde(default)]
    pub(crate) conflicts: u64,
}

/// Attempts at messages, and calls, that failed in the same way since the host started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct FailureCount {
    /// What went wrong, as a stable code such as `trap` or `deadline-exceeded`.
    pub(crate) code: String,
    /// How many.
    pub(crate) count: u64,
}

/// Times from the acceptance of a message, or from when it was due, to the end of its handling, its commit included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeliveryFigures {
    /// Those of the last 50 to 60 seconds; none when nothing was delivered.
    pub(crate) last_minute: Option<Quantiles>,
    /// All; none when nothing was delivered.
    pub(crate) since_start: Option<Quantiles>,
}

/// What the host's process takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ProcessFigures {
    /// Memory in RAM; none where the system does not tell.
    pub(crate) resident_bytes: Option<u64>,
    /// Time on all cores since it started.
    pub(crate) cpu_seconds: f64,
    /// Cores in use over the last five seconds.
    pub(crate) cores: f64,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StoreStatus {
    /// The database.
    pub(crate) path: String,
    /// The format of its tables.
    pub(crate) format: i64,
    /// Bytes of the database.
    pub(crate) bytes: u64,
    /// Bytes of its log, which is copied into it from time to time.
    pub(crate) log_bytes: u64,
    /// Bytes within the database that are free: used again, or given back by `caxton store compact`.
    pub(crate) free_bytes: u64,
    /// Messages that wait or are being handled.
    pub(crate) queued: u64,
    /// Handled messages that are kept.
    pub(crate) handled: u64,
    /// Dead letters that are kept.
    pub(crate) dead: u64,
    /// What is kept for each agent, those included that are not declared any more.
    pub(crate) agents: Vec<AgentKept>,
    /// How long commits took since the host started; none when no host runs.
    pub(crate) commits: Option<Quantiles>,
}

/// What is kept for an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct AgentKept {
    /// Its name.
    pub(crate) agent: String,
    /// Messages that wait or are being handled.
    pub(crate) queued: u64,
    /// Handled messages.
    pub(crate) handled: u64,
    /// Dead letters.
    pub(crate) dead: u64,
    /// Bytes of its state.
    pub(crate) state_bytes: u64,
    /// Bytes of the memory that it saved last.
    pub(crate) snapshot_bytes: u64,
    /// Bytes of the copies of its state that rollouts keep, together.
    #[serde(default)]
    pub(crate) state_copy_bytes: u64,
}

/// What a check of the store found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Checked {
    /// Whether everything is as it has to be.
    pub(crate) ok: bool,
    /// What is not.
    pub(crate) defects: Vec<Defect>,
}

/// Something in the store that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Defect {
    /// Stable, for programs.
    pub(crate) code: String,
    /// What is wrong, for a person.
    pub(crate) what: String,
    /// How often.
    pub(crate) count: u64,
}

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Sent {
    /// Its id.
    pub(crate) id: String,
    /// Its conversation.
    pub(crate) conversation: String,
}

/// What the file would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Diff {
    /// The changes; empty when what runs is what the file says.
    pub(crate) changes: Vec<Change>,
}

#[cfg(test)]
pub(crate) mod tests;
