//! The messages of a mailbox, with what orders them.

/// The urgency of a message (SPEC §7). A waiting message gains a point a second, so that none starves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Begins with one point.
    Low,
    /// Begins with five points.
    Normal,
    /// Begins with eight points.
    High,
    /// Begins with ten points.
    Critical,
}

impl Priority {
    /// The list of all priorities, the least urgent first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// Returns the points at which a message of this rank begins (SPEC §7).
    pub fn points(self) -> u64 {
        match self {
            Self::Low => 1,
            Self::Normal => 5,
            Self::High => 8,
            Self::Critical => 10,
        }
    }
}

/// The unit within which messages are handled one at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lane<C> {
    /// A conversation.
    Conversation(C),
    /// The whole agent.
    Agent,
    /// The absence of a lane: the message waits for no other.
    Free,
}

/// A queued message with its bookkeeping.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) rank: Priority,
    pub(super) since: u64,
    pub(super) message: T,
}

/// A message that may be handled, or is in flight.
#[derive(Debug)]
pub struct TakenMessage<C, T> {
    /// The lane that is blocked until the message is done.
    pub lane: Lane<C>,
    /// The urgency.
    pub rank: Priority,
    /// The time since which it waits, in milliseconds.
    pub since: u64,
    /// The value that [`done`](super::Mailbox::done) got for the message before it in its conversation; `None` if it
    /// was not queued behind one.
    pub follows: Option<u64>,
    /// The message.
    pub message: T,
}
