//! Conversations, and what agents get by the clock.

use serde::{Deserialize, Serialize};

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ConversationStatus {
    /// Its id.
    pub(crate) id: String,
    /// `open`, or `ended` for want of activity.
    pub(crate) state: String,
    /// Who sent its first message.
    pub(crate) initiator: String,
    /// Who sent a message or was sent one, in order of name.
    pub(crate) participants: Vec<String>,
    /// The protocol that its messages named last.
    pub(crate) protocol: Option<String>,
    /// Messages and calls that were said in it.
    pub(crate) messages: u64,
    /// When the first was said, in milliseconds since 1970.
    pub(crate) first_at: u64,
    /// When the latest was said, in milliseconds since 1970.
    pub(crate) last_at: u64,
    /// When it ended, in milliseconds since 1970.
    pub(crate) ended_at: Option<u64>,
    /// What waits for an answer, or waited in vain, the oldest first.
    pub(crate) unanswered: Vec<OpenQuestion>,
}

/// A message that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct OpenQuestion {
    /// Who asked.
    pub(crate) from: String,
    /// Who was asked.
    pub(crate) to: String,
    /// What the answer's `in-reply-to` will be.
    pub(crate) key: String,
}

/// A conversation with its messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Thread {
    /// Its id.
    pub(crate) id: String,
    /// What is known of it; none when only messages of it are kept.
    pub(crate) conversation: Option<ConversationStatus>,
    /// The messages that are kept, in the order in which they were committed: those that wait, and the newest handled
    /// ones (`store.history`). Calls, whose senders waited, are counted and not kept.
    pub(crate) messages: Vec<ThreadMessage>,
    /// Whether there are older ones that are kept as well.
    pub(crate) more: bool,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ThreadMessage {
    /// Its id.
    pub(crate) id: String,
    /// When it was sent, in milliseconds since 1970.
    pub(crate) sent_at: u64,
    /// Who sent it.
    pub(crate) sender: String,
    /// To whom.
    pub(crate) receiver: String,
    /// What it means to do.
    pub(crate) performative: String,
    /// The protocol that it names.
    pub(crate) protocol: Option<String>,
    /// What its answer is to carry.
    pub(crate) reply_with: Option<String>,
    /// The message that it answers.
    pub(crate) in_reply_to: Option<String>,
    /// `waiting`, `handled` or `dead-letter`.
    pub(crate) state: String,
    /// Not to be handled before, in milliseconds since 1970.
    pub(crate) due_at: Option<u64>,
    /// When it was handled or given up, in milliseconds since 1970.
    pub(crate) done_at: Option<u64>,
    /// The revision that handled it, such as `triage@7`.
    pub(crate) revision: Option<String>,
    /// The number of runs of its handler in the attempt that handled it: more than one after conflicts.
    #[serde(default)]
    pub(crate) runs: Option<u32>,
    /// The number of its dead letter.
    pub(crate) dead_letter: Option<u64>,
    /// The media type of its content.
    pub(crate) content_type: String,
    /// Bytes of its content.
    pub(crate) bytes: u64,
    /// The content, if it is UTF-8 of at most 1,024 bytes.
    pub(crate) text: Option<String>,
}

/// A schedule of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ScheduleStatus {
    /// Whose.
    pub(crate) agent: String,
    /// The times.
    pub(crate) cron: String,
    /// Whose clock shows them.
    pub(crate) timezone: String,
    /// `skip`, `latest` or `all`: which times are made up for that pass while the host stands still.
    pub(crate) missed: String,
    /// The time for which it fired last, in milliseconds since 1970; none if it never did.
    pub(crate) last_at: Option<u64>,
    /// When it fires next, in milliseconds since 1970; none if it never does again.
    pub(crate) next_at: Option<u64>,
}
