//! What `caxton.toml` means: every default filled in, every name checked, every bound kept.
//!
//! Made only by [`crate::config::check`]; a `Desired` is therefore always valid.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::cors::Cors;
use crate::format::Format;
use crate::names::{AgentName, Capability, Receiver};
use crate::rollout::declaration::Declaration;
use crate::route::RoutePattern;
use crate::schedule::Schedule;
use crate::sparse;

/// Everything that the file declares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Desired {
    /// The listener where agents are called.
    pub http: Http,
    /// The listener of the management API.
    pub admin: Admin,
    /// The listener of probes and metrics alone.
    pub probes: Probes,
    /// Where and how state is kept.
    pub store: Store,
    /// Settings of the host as a whole.
    pub host: Host,
    /// What conversations may be.
    pub conversations: Conversations,
    /// The agents, by name.
    pub agents: BTreeMap<AgentName, Arc<AgentSpec>>,
}

/// `[http]`: the listener where agents are called, and what it bears from clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Http {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Connections open at once; more wait to be accepted.
    pub max_connections: u32,
    /// The largest head of a request, in bytes.
    pub max_head_bytes: u64,
    /// The largest body of a request to an HTTP agent, in bytes. Message agents have `limits.message`.
    pub max_body_bytes: u64,
    /// How long a client may take to send the head of a request.
    #[serde(with = "crate::units::serde_duration")]
    pub head_timeout: Duration,
    /// How long a client may pause while it sends a body or reads a response.
    #[serde(with = "crate::units::serde_duration")]
    pub stall_timeout: Duration,
    /// Who is told what went on inside an agent that failed.
    pub details: Details,
    /// Which pages of other origins may call agents.
    pub cors: Cors,
}

/// `http.details`: who is told what went on inside an agent that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Details {
    /// Callers on this machine whose requests came by no proxy.
    Loopback,
    /// Everybody.
    Always,
    /// Nobody.
    Never,
}

/// `[admin]`: the listener of the management API, metrics and probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Admin {
    /// Address and port on the loopback interface; port 0 lets the system choose.
    pub listen: SocketAddr,
}

/// `[probes]`: a listener for probes and metrics alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probes {
    /// Address and port; port 0 lets the system choose. None leaves probes and metrics to the listener of the management
    /// API.
    pub listen: Option<SocketAddr>,
}

/// `[store]`: where and how state is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Store {
    /// The data folder, as written; relative to the folder of the file.
    pub path: String,
    /// When a commit counts as safe.
    pub durability: Durability,
    /// Handled messages that are kept; the oldest leave first.
    pub history: u64,
    /// Dead letters that are kept; the oldest leave first.
    pub dead_letters: u64,
}

/// When a commit counts as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// After the disk has it: survives a power cut.
    Fsync,
    /// After the operating system has it: survives `kill -9`, maybe not a power cut.
    Os,
    /// Nothing is kept beyond the life of the host.
    Memory,
}

/// `[host]`: settings of the host as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// How long a stop waits for what is in flight.
    #[serde(with = "crate::units::serde_duration")]
    pub drain: Duration,
    /// Instances that live at once, at most; none leaves it to the machine.
    pub instances: Option<u32>,
}

/// `[conversations]`: what conversations may be (SPEC §7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conversations {
    /// How long after its last message one is open.
    #[serde(with = "crate::units::serde_duration")]
    pub timeout: Duration,
    /// Agents that take part in one, at most.
    pub participants: u32,
}

/// One agent: `[agents.NAME]` with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentSpec {
    /// The agent's name.
    pub name: AgentName,
    /// The component's file, as written; relative to the folder of the file.
    pub component: String,
    /// How the component is built from source.
    pub build: Option<Build>,
    /// What the agent can do, by which others find it.
    pub capabilities: BTreeSet<Capability>,
    /// How many instances it has.
    pub instances: Instances,
    /// The bound of what it saves of its memory.
    pub snapshot: SnapshotSpec,
    /// The format of its data.
    pub state: Format,
    /// What it reads through `wasi:config/store`.
    pub config: BTreeMap<String, String>,
    /// What it may reach.
    pub allow: Allow,
    /// What it may use.
    pub limits: Limits,
    /// How its mailbox works.
    pub mailbox: MailboxSpec,
    /// When calls no longer reach it because it fails.
    pub breaker: BreakerSpec,
    /// What it gets by the clock, in the order of the file; no two have the same [key](Schedule::key).
    #[serde(rename = "schedule")]
    pub schedules: Vec<Schedule>,
    /// Where it is called over HTTP, in the order of the file.
    pub http: Vec<Route>,
    /// How changed bytes reach traffic.
    pub reload: Reload,
    /// How a change is rolled out and goes back. Shown once the file may say something of it.
    #[serde(skip)]
    pub rollout: Declaration,
    /// Its settings as text, once somebody has asked.
    #[serde(skip)]
    pub printed: Printed,
}

impl AgentSpec {
    /// Whether `other` needs a new revision: component, config, grants, limits or the format of its data differ (DESIGN §5). All else
    /// applies in place.
    pub fn same_revision(&self, other: &Self) -> bool {
        self.component == other.component && self.same_settings(other)
    }

    /// Whether the settings are the same that make a revision beside its bytes.
    pub fn same_settings(&self, other: &Self) -> bool {
        self.config == other.config
            && self.allow == other.allow
            && self.limits == other.limits
            && self.state == other.state
    }

    /// The settings that make a revision beside its bytes, as text that is kept; see [`sparse`]. Equal texts are the
    /// same revision.
    pub fn revision_settings(&self) -> &str {
        self.printed.0.get_or_init(|| sparse::print(self))
    }
}

/// Text that is made once of a declaration that stays as it is, since thousands are compared at every look. A copy,
/// which may be changed, begins without it.
#[derive(Debug, Default)]
pub struct Printed(OnceLock<String>);

impl Clone for Printed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Printed {
    /// It follows from the rest.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl AgentSpec {
    /// The same declaration with the settings of a kept revision; none if no version of the host printed them.
    pub fn with_settings(&self, settings: &str) -> Option<Self> {
        let sparse::RevisionSettings { config, allow, limits, state } = sparse::read(settings)?;
        Some(Self { config, allow, limits, state, ..self.clone() })
    }
}

/// `build`: the command that makes the component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Build {
    /// A command line for `sh -c`, run in the folder of the file.
    pub command: String,
    /// Files whose change runs the command again: files, folders and globs from the folder of the file.
    pub watch: Vec<String>,
}

/// `instances`: how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instances {
    /// Kept warm even when idle.
    pub min: u32,
    /// Never more at once.
    pub max: u32,
    /// How many messages or requests one handles before it is replaced.
    pub reuse: Reuse,
    /// How long one above `min` stays without work.
    #[serde(with = "crate::units::serde_duration")]
    pub idle: Duration,
}

/// `instances.reuse` as the file has it. Unset, the component decides, which is known only once it is read: what is
/// declared stays as it was said.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(untagged)]
pub enum Reuse {
    /// Not set.
    #[default]
    Unset,
    /// Set for all agents, in `[defaults.instances]`.
    ForAll(u32),
    /// Set for this agent.
    Own(u32),
}

impl Reuse {
    /// The value that is in force where one is set.
    pub fn said(self) -> Option<u32> {
        match self {
            Self::Unset => None,
            Self::ForAll(times) | Self::Own(times) => Some(times),
        }
    }
}

impl PartialEq for Reuse {
    /// A value that is inherited and one of the agent's own make no difference where they are the same.
    fn eq(&self, other: &Self) -> bool {
        self.said() == other.said()
    }
}

impl Eq for Reuse {}

/// `snapshot`: the bound of what a stateful agent saves of its memory.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotSpec {
    /// The most that one save may have, in bytes.
    pub max_bytes: u64,
    /// The agent sets it itself, which only a stateful one may.
    #[serde(skip)]
    pub own: bool,
}

impl PartialEq for SnapshotSpec {
    /// Compares what acts: the same bound is the same, whoever sets it.
    fn eq(&self, other: &Self) -> bool {
        self.max_bytes == other.max_bytes
    }
}

/// `allow`: what the agent may reach. Empty lists allow nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// To whom it may send.
    pub send: BTreeSet<Receiver>,
    /// Which environment variables of the host it sees.
    pub env: BTreeSet<String>,
}

/// `limits`: what the agent may use (SPEC §5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Linear memories and tables of one instance, summed, in bytes.
    pub memory_bytes: u64,
    /// Time on a core for one message.
    #[serde(with = "crate::units::serde_duration")]
    pub cpu: Duration,
    /// Instructions for one message, counted exactly; none leaves it to `cpu`.
    pub fuel: Option<u64>,
    /// Time by the clock for one message, waits included.
    #[serde(with = "crate::units::serde_duration")]
    pub time: Duration,
    /// Content of one message, in and out, in bytes.
    pub message_bytes: u64,
    /// Messages sent while handling one message.
    pub sends: u32,
    /// Writes to state while handling one message.
    pub writes: u32,
    /// The agent's whole state, keys and values, in bytes.
    pub state_bytes: u64,
    /// Messages that wait for the agent until a time to come.
    pub timers: u32,
    /// Length of the chain of messages that caused one.
    pub hops: u32,
    /// Lines in the agent's log per second; the rest is counted and dropped.
    pub log_lines: u32,
}

/// `mailbox`: order and bound of what waits, and how often and how long it is tried (SPEC §7).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MailboxSpec {
    /// Which messages wait for one another.
    pub order: Order,
    /// How many messages may wait; the sender of one more gets an error.
    pub depth: u32,
    /// How often a message is tried before it becomes a dead letter.
    pub attempts: u32,
    /// How long it waits between two attempts.
    pub backoff: Backoff,
    /// How long it may wait before it becomes a dead letter; none for as long as it takes.
    #[serde(with = "crate::units::serde_duration::option")]
    pub timeout: Option<Duration>,
    /// The notices that the agent gets of its own messages that came to nothing.
    pub on_dead: OnDead,
}

/// The notices that an agent gets of messages that came to nothing: those to it and from it that were given up, and its
/// answers that had no receiver any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDead {
    /// Nothing, but for the `failure` that stands for the answer to a question.
    Keep,
    /// A `failure` from `host:dead`.
    Tell,
}

/// `breaker`: when calls no longer reach an agent because it fails (SPEC §7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerSpec {
    /// Faults in a row that open it.
    pub faults: u32,
    /// How long it is open before one message is let through on trial.
    #[serde(with = "crate::units::serde_duration")]
    pub reset: Duration,
}

/// Which messages of a mailbox are handled in order, never two at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Those of one conversation.
    Conversation,
    /// All of the agent.
    Agent,
    /// None.
    None,
}

/// `[[agents.NAME.http]]`: a route that calls the agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    /// The path, such as `/tickets/{id}`.
    pub pattern: RoutePattern,
    /// The methods; empty means all.
    pub methods: BTreeSet<String>,
    /// Whether the caller waits for the reply. HTTP agents answer themselves and ignore no setting: for them
    /// only `request` is valid.
    pub mode: Mode,
    /// Whether `http.cors` holds for it; unset, it does if its agent is a message agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<bool>,
    /// The template that names the conversation of a request; unset, the request names it, or has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<crate::template::Template>,
}

/// What a call to a message agent waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The reply is the response.
    Request,
    /// 202 with the message's id, as soon as it is accepted.
    Enqueue,
}

/// `reload`: how changed bytes reach traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// Whether a change of the component's file is taken up at once.
    pub watch: bool,
    /// How long the old revision may take to finish what is in flight.
    #[serde(with = "crate::units::serde_duration")]
    pub drain: Duration,
}
