//! What the host says of itself: the shapes that the management API gives and the command line prints.

use serde::{Deserialize, Serialize};

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

/// Something wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct FileError {
    /// Stable, for programs.
    pub(crate) code: String,
    /// `caxton.toml:12:9`, or the name of a variable or flag.
    pub(crate) place: String,
    /// Which key, such as `agents.triage.limits.memory`.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) help: Option<String>,
}

/// Something that is not as declared yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Waiting {
    /// Whose.
    pub(crate) agent: String,
    /// For what.
    pub(crate) why: String,
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
    /// `add`, `remove`, `new-revision`, `in-place` or `restart-needed`.
    pub(crate) change: String,
    /// Which settings differ, such as `limits.memory: 64MiB -> 128MiB`.
    pub(crate) details: Vec<String>,
}

/// What became of an apply.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Applied {
    /// What was changed.
    pub(crate) changes: Vec<Change>,
    /// What is not as declared after all, and why; empty when everything is.
    pub(crate) waiting: Vec<Waiting>,
    /// Whether everything is as declared.
    pub(crate) settled: bool,
}
