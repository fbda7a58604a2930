//! The meaning of `caxton.toml`: defaults filled in, names and bounds checked.
//!
//! Created only by [`crate::config::check`], so a `Desired` is always valid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;

use crate::access::{RouteAuth, RouteRate};
use crate::backoff::Backoff;
use crate::budget::BudgetSpec;
use crate::format::StateFormat;
use crate::names::{AgentName, BudgetName, Capability};
use crate::revision_settings::RevisionSettings;
use crate::rollout::RolloutSpec;
use crate::route::RoutePattern;
use crate::schedule::Schedule;
use crate::snapshot::SaveMode;

pub use crate::grant::{Grants, Supply};
pub use crate::limits::Limits;
pub use crate::listeners::{AdminSpec, ErrorDetails, HttpSpec, ProbesSpec, TlsSpec};
pub use crate::secret::{SecretSource, SecretsSpec};

/// The declaration of the whole file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Desired {
    /// The listener for calls of agents.
    pub http: HttpSpec,
    /// The listener of the management API.
    pub admin: AdminSpec,
    /// The listener for probes and metrics only.
    pub probes: ProbesSpec,
    /// The place and the durability of state.
    pub store: StoreSpec,
    /// Settings of the host as a whole.
    pub host: HostSpec,
    /// The limits of conversations.
    pub conversations: ConversationsSpec,
    /// The bounds and the way of calls over HTTP.
    pub outgoing: crate::outgoing::OutgoingSpec,
    /// The sources of secrets.
    pub secrets: SecretsSpec,
    /// The budgets by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<BudgetName, Arc<BudgetSpec>>,
    /// The agents by name.
    pub agents: BTreeMap<AgentName, Arc<AgentSpec>>,
    /// The rules for components: those of the file and of the operator's own one.
    #[serde(skip_serializing_if = "crate::policy::Policy::is_empty")]
    pub policy: crate::policy::Policy,
}

impl Desired {
    /// Returns the oddities of the declaration that may be meant, one line each, with the key in front.
    pub fn warnings(&self) -> Vec<String> {
        let http = &self.http;
        let exposed = http.tls.is_none() && !http.listen.ip().to_canonical().is_loopback();
        let text = || {
            format!(
                "http.listen: {} is reached from other machines, and without `[http.tls]` everybody on the way can read \
                 and change what is sent; add it, or let only a proxy that speaks TLS reach the port",
                http.listen
            )
        };
        exposed.then(text).into_iter().chain(self.budget_warnings()).collect()
    }
}

impl Desired {
    /// Returns the oddities of budgets: units that nothing counts, and units that calls under way may pass.
    fn budget_warnings(&self) -> Vec<String> {
        let places = || self.agents.values().flat_map(|agent| agent.allow.http.iter().map(move |place| (agent, place)));
        let mut warnings = Vec::new();
        for (name, budget) in &self.budgets {
            for unit in budget.units.keys() {
                if !places().any(|(_, place)| place.meter().units().any(|counted| counted == unit)) {
                    warnings.push(format!("budgets.{name}.units.{unit}: no place has a `meter` for `{unit}`"));
                }
            }
        }
        let limited = |unit: &&str| self.budgets.values().any(|budget| budget.units.contains_key(*unit));
        for (agent, place) in places() {
            for unit in place.meter().unbounded().filter(limited) {
                warnings.push(format!(
                    "agents.{}.allow.http: `{}` counts `{unit}` without `at-most`, so that calls under way may pass the \
                     limit of a budget",
                    agent.name,
                    place.url()
                ));
            }
        }
        warnings
    }
}

/// The table `[store]`: the place and the durability of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreSpec {
    /// The data folder as written; relative to the folder of the file.
    pub path: String,
    /// The moment at which a commit counts as durable.
    pub durability: Durability,
    /// The most handled messages that are kept; the oldest are deleted.
    pub history: u64,
    /// The most bytes of handled messages that are kept; the oldest are deleted.
    pub history_max_bytes: u64,
    /// The most dead letters that are kept; the oldest are deleted.
    pub dead_letters: u64,
    /// The most bytes of dead letters that are kept; the oldest are deleted.
    pub dead_letters_max_bytes: u64,
}

/// The moment at which a commit counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// The moment when it is on the disk: it survives a power cut.
    Fsync,
    /// The moment when the operating system has it: it survives `kill -9`, but not necessarily a power cut.
    Os,
    /// The moment of the commit itself: nothing survives the host.
    Memory,
}

/// The table `[host]`: settings of the host as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostSpec {
    /// The time for messages in flight when the host stops.
    #[serde(with = "crate::units::serde_duration")]
    pub drain: Duration,
    /// The most instances alive at once; `None` lets the host decide by the machine.
    pub instances: Option<u32>,
    /// The most bytes that the host holds for others; `None` lets the host decide by the machine.
    pub memory_bytes: Option<u64>,
}

/// The table `[conversations]`: the limits of conversations (SPEC §7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConversationsSpec {
    /// The time after its last message at which a conversation expires.
    #[serde(with = "crate::units::serde_duration")]
    pub timeout: Duration,
    /// The most participants of a conversation.
    pub participants: u32,
}

/// The declaration of one agent: `[agents.NAME]` with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentSpec {
    /// The agent's name.
    pub name: AgentName,
    /// The component's file as written; relative to the folder of the file.
    pub component: String,
    /// The build of the component from source; `None` without one.
    pub build: Option<BuildSpec>,
    /// The capabilities by which other agents find it.
    pub capabilities: BTreeSet<Capability>,
    /// The budget of what follows from a message or call to it that has none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetName>,
    /// The number and the reuse of its instances.
    pub instances: InstancesSpec,
    /// The times and limits of its snapshots.
    pub snapshot: SnapshotSpec,
    /// The format of its data.
    pub state: StateFormat,
    /// The keys and values that it reads through `wasi:config/store`.
    pub config: BTreeMap<String, String>,
    /// The grants.
    pub allow: Grants,
    /// The limits of resources.
    pub limits: Limits,
    /// The settings of its mailbox.
    pub mailbox: MailboxSpec,
    /// The settings of its circuit breaker.
    pub breaker: BreakerSpec,
    /// The schedules, in the order of the file; no two have the same [key](Schedule::key).
    #[serde(rename = "schedule")]
    pub schedules: Vec<Schedule>,
    /// The HTTP routes, in the order of the file.
    pub http: Vec<RouteSpec>,
    /// The in-place settings of `reload`.
    pub reload: ReloadOptions,
    /// The settings of its rollouts. Not serialized: shown apart.
    #[serde(skip)]
    pub rollout: RolloutSpec,
    /// The cached result of [`revision_settings`](Self::revision_settings).
    #[serde(skip)]
    pub settings_text: CachedText,
}

// No number in it is NaN, which is in no range that a setting allows. With this, two shared pointers to one value are
// equal without a look at it, and comparing a hundred thousand unchanged agents takes milliseconds.
impl Eq for AgentSpec {}

impl AgentSpec {
    /// Returns `true` if nothing distinguishes it from `other`: neither a value, nor the place where one was set.
    pub fn is_identical(&self, other: &Self) -> bool {
        let own = |spec: &Self| (spec.snapshot.own, std::mem::discriminant(&spec.instances.reuse));
        self == other && own(self) == own(other)
    }

    /// Returns `true` if `other` needs no new revision: component, config, grants, limits and the format of its data
    /// are equal (DESIGN §5). All other settings apply in place.
    pub fn same_revision(&self, other: &Self) -> bool {
        // The component first: comparing two short texts decides most cases.
        self.component == other.component && self.same_settings(other)
    }

    /// Returns `true` if the settings that make a revision beside its component are equal.
    pub fn same_settings(&self, other: &Self) -> bool {
        self.config == other.config
            && self.allow == other.allow
            && self.limits == other.limits
            && self.state == other.state
    }

    /// Returns the settings that make a revision beside its component, in the text form that is stored; see
    /// [`crate::revision_settings`]. Equal texts are the same revision.
    pub fn revision_settings(&self) -> &str {
        self.settings_text.0.get_or_init(|| {
            let Self { config, allow, limits, state, .. } = self;
            let (config, allow, limits, state) = (config.clone(), allow.clone(), limits.clone(), state.clone());
            RevisionSettings { config, allow, limits, state }.to_text()
        })
    }
}

/// A text that is made once for an unchanged declaration, since thousands are compared in every cycle. A clone may be
/// changed, so it starts without the text.
#[derive(Debug, Default)]
pub struct CachedText(OnceLock<String>);

impl Clone for CachedText {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for CachedText {
    /// The text follows from the other fields.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl AgentSpec {
    /// Returns this declaration with the settings of a stored revision; `None` if no version of the host wrote the
    /// text.
    pub fn with_settings(&self, settings: &str) -> Option<Self> {
        let RevisionSettings { config, allow, limits, state } = RevisionSettings::from_text(settings)?;
        // A clone starts without the cached text, which belongs to the present settings.
        Some(Self { config, allow, limits, state, ..self.clone() })
    }
}

/// The table `build`: the command that builds the component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildSpec {
    /// A command line for `sh -c`, run in the folder of the file.
    pub command: String,
    /// The sources whose change runs the command again: files, folders and globs, relative to the folder of the file.
    pub watch: Vec<String>,
}

/// The table `instances`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstancesSpec {
    /// The instances kept warm even when idle.
    pub min: u32,
    /// The most instances at once.
    pub max: u32,
    /// The number of messages or requests that one instance handles.
    pub reuse: Reuse,
    /// The time after which an idle instance above `min` ends.
    #[serde(with = "crate::units::serde_duration")]
    pub idle: Duration,
}

/// The setting `instances.reuse` as in the file. Without it the component decides, which is known only once it is
/// loaded, so the declaration keeps the difference.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(untagged)]
pub enum Reuse {
    /// The absence of a value.
    #[default]
    Unset,
    /// Set for all agents, in `[defaults.instances]`.
    ForAll(u32),
    /// Set for this agent.
    Own(u32),
}

impl Reuse {
    /// Returns the value in force; `None` if none is set.
    pub fn value(self) -> Option<u32> {
        match self {
            Self::Unset => None,
            Self::ForAll(times) | Self::Own(times) => Some(times),
        }
    }
}

impl PartialEq for Reuse {
    /// An inherited value equals one of the agent's own.
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl Eq for Reuse {}

/// The table `snapshot`: the times and limits of a stateful agent's snapshots.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotSpec {
    /// The times at which it saves.
    pub save: SaveMode,
    /// The largest snapshot in a commit, in bytes.
    pub commit_max_bytes: u64,
    /// The largest snapshot, in bytes.
    pub max_bytes: u64,
    /// Set if the agent sets any of these itself, which only a stateful one may.
    #[serde(skip)]
    pub own: bool,
}

impl PartialEq for SnapshotSpec {
    /// The source of the values does not matter.
    fn eq(&self, other: &Self) -> bool {
        let values = |spec: &Self| (spec.save, spec.commit_max_bytes, spec.max_bytes);
        values(self) == values(other)
    }
}

/// The table `mailbox`: order, depth and attempts (SPEC §7).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MailboxSpec {
    /// The order of handling.
    pub order: MailboxOrder,
    /// The most queued messages; the sender of a further one gets an error.
    pub depth: u32,
    /// The most attempts before a message becomes a dead letter.
    pub attempts: u32,
    /// The wait between two attempts.
    pub backoff: Backoff,
    /// The longest wait before a message becomes a dead letter; `None` for no limit.
    #[serde(with = "crate::units::serde_duration::option")]
    pub timeout: Option<Duration>,
    /// The notices about its own failed messages.
    pub on_dead: OnDead,
}

/// The notices that an agent gets about failed messages: those to it or from it that became dead letters, and its
/// answers whose receiver was gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDead {
    /// Sends none, but for the `failure` that stands for the answer to a question.
    Keep,
    /// A `failure` from `host:dead`.
    Tell,
}

/// The table `breaker`: the circuit breaker of the agent (SPEC §7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerSpec {
    /// The number of consecutive faults that opens it.
    pub faults: u32,
    /// The time after opening at which one message is admitted as a trial.
    #[serde(with = "crate::units::serde_duration")]
    pub reset: Duration,
}

/// The messages of a mailbox that are handled in order, never two at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailboxOrder {
    /// Orders the messages of each conversation.
    Conversation,
    /// Orders all messages of the agent.
    Agent,
    /// The absence of any.
    None,
}

/// The table `[[agents.NAME.http]]`: a route that calls the agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteSpec {
    /// The path pattern, such as `/tickets/{id}`.
    pub pattern: RoutePattern,
    /// The methods; an empty set means all.
    pub methods: BTreeSet<String>,
    /// The response to the caller. HTTP agents answer themselves: for them only `request` is valid.
    pub mode: ResponseMode,
    /// Set if an HTTP agent gets a request before its body has come. Message agents get none before it is whole.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// Set if `http.cors` applies to the route; by default it applies to message agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<bool>,
    /// The credentials of which a caller needs one; `None` lets everybody call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<RouteAuth>,
    /// The rate of each caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RouteRate>,
    /// The template for the conversation of a request; without one the request names it, or gets one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<crate::template::Template>,
    /// The budget of each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetName>,
}

/// The response to a call of a message agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseMode {
    /// The reply.
    Request,
    /// The status 202 with the message's id, as soon as it is accepted.
    Enqueue,
}

/// The in-place settings of the table `reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadOptions {
    /// Set if a change of the component's file is taken up at once.
    pub watch: bool,
    /// The time for the old revision to finish messages in flight.
    #[serde(with = "crate::units::serde_duration")]
    pub drain: Duration,
}
