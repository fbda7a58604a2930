//! The kinds of memory that are counted, and the error of a request for some.

/// A kind of memory that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryKind {
    /// Linear memories, tables and stores of instances.
    Instances,
    /// Memory that guests at work are expected to take, by what others of their revision took.
    Expected,
    /// Resources that guests hold behind handles: fields, bodies, pollables.
    Resources,
    /// Messages that wait in mailboxes.
    Messages,
    /// Bodies of requests and responses.
    Bodies,
    /// Contents sent, values written and keys read by handlings, until they are committed.
    Effects,
    /// Connections of clients.
    Connections,
    /// The records of open conversations that are in memory.
    Conversations,
    /// The newest lines of agents' logs.
    Logs,
    /// Processes that compile components.
    Compilation,
    /// The stacks of ended instances, which stay for the next ones.
    Stacks,
    /// What the host remembers of agents to be faster: sizes, versions, receipts, copies that wait.
    Caches,
}

impl MemoryKind {
    /// All kinds, in the order of reports.
    pub(crate) const ALL: [Self; 12] = [
        Self::Instances,
        Self::Expected,
        Self::Resources,
        Self::Messages,
        Self::Bodies,
        Self::Effects,
        Self::Connections,
        Self::Conversations,
        Self::Logs,
        Self::Compilation,
        Self::Stacks,
        Self::Caches,
    ];

    /// Returns the name in metrics and reports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Expected => "expected",
            Self::Resources => "resources",
            Self::Messages => "messages",
            Self::Bodies => "bodies",
            Self::Effects => "effects",
            Self::Connections => "connections",
            Self::Conversations => "conversations",
            Self::Logs => "logs",
            Self::Compilation => "compilation",
            Self::Stacks => "stacks",
            Self::Caches => "caches",
        }
    }
}

/// The error of a request for memory that could not be met in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host holds as much memory as it may (host.memory)")]
pub(crate) struct MemoryShortage;
