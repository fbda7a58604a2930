//! Shapes of conversations and schedules.

use serde::{Deserialize, Serialize};

use super::budget::BudgetUse;

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ConversationStatus {
    /// The conversation id.
    pub(crate) id: String,
    /// `open`, or `ended` for want of activity.
    pub(crate) state: String,
    /// The sender of its first message.
    pub(crate) initiator: String,
    /// The senders and receivers of its messages, in order of name.
    pub(crate) participants: Vec<String>,
    /// The protocol of its latest message that names one.
    pub(crate) protocol: Option<String>,
    /// Messages and calls sent in it, including those that are no longer kept.
    pub(crate) messages: u64,
    /// The time of the first message, in milliseconds since 1970.
    pub(crate) first_at: u64,
    /// The time of the latest message, in milliseconds since 1970.
    pub(crate) last_at: u64,
    /// The time at which it ended, in milliseconds since 1970; null while it is open.
    pub(crate) ended_at: Option<u64>,
    /// The questions that wait for an answer, or waited in vain; the oldest first.
    pub(crate) unanswered: Vec<OpenQuestion>,
}

/// A message that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct OpenQuestion {
    /// The agent or caller that asked.
    pub(crate) from: String,
    /// The agent that was asked.
    pub(crate) to: String,
    /// The value that the answer will have as `in-reply-to`.
    pub(crate) key: String,
}

/// A conversation with its messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Thread)]
pub(crate) struct ConversationThread {
    /// The conversation id.
    pub(crate) id: String,
    /// The conversation's record; null if only messages of it are kept.
    pub(crate) conversation: Option<ConversationStatus>,
    /// The messages that are kept, in order of commit: those that wait, and the newest handled ones (`store.history`).
    /// Calls, whose senders waited, are counted and not kept.
    pub(crate) messages: Vec<ThreadMessage>,
    /// Set if older messages are kept as well.
    pub(crate) more: bool,
    /// The messages and calls with a budget that began in it, with all that followed from each.
    #[serde(default)]
    pub(crate) budgets: Vec<BudgetUse>,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ThreadMessage {
    /// The message id.
    pub(crate) id: String,
    /// The time at which it was sent, in milliseconds since 1970.
    pub(crate) sent_at: u64,
    /// The agent's name or the source outside, such as `http:POST /tickets`.
    pub(crate) sender: String,
    /// The agent's name or the source outside.
    pub(crate) receiver: String,
    /// The communicative act of FIPA00037, such as `request`.
    pub(crate) performative: String,
    /// The protocol that the message names.
    pub(crate) protocol: Option<String>,
    /// The value that an answer is to carry as `in-reply-to`.
    pub(crate) reply_with: Option<String>,
    /// The `reply-with` of the message that it answers.
    pub(crate) in_reply_to: Option<String>,
    /// `waiting`, `handled` or `dead-letter`.
    pub(crate) state: String,
    /// The earliest time of its handling, in milliseconds since 1970.
    pub(crate) due_at: Option<u64>,
    /// The time at which it was handled or given up, in milliseconds since 1970.
    pub(crate) done_at: Option<u64>,
    /// The revision that handled it, such as `triage@7`.
    pub(crate) revision: Option<String>,
    /// Runs of the handler in the attempt that succeeded: more than one after conflicts.
    #[serde(default)]
    pub(crate) runs: Option<u32>,
    /// The number of its dead letter, if it was given up.
    pub(crate) dead_letter: Option<u64>,
    pub(crate) content_type: String,
    /// The size of its content in bytes.
    pub(crate) bytes: u64,
    /// The content, if it is UTF-8 of at most 1,024 bytes.
    pub(crate) text: Option<String>,
}

/// The numbers of conversations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ConversationFigures)]
pub(crate) struct ConversationStats {
    /// The number of open ones.
    pub(crate) open: u64,
    /// The number of all that had more than one message, since the store was made.
    pub(crate) written: u64,
    /// Messages of an open one, on average; none when none is open.
    pub(crate) mean_messages: Option<f64>,
    /// Messages that were refused as illegal, since the host started.
    pub(crate) illegal: u64,
}

/// A schedule of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ScheduleStatus {
    /// The agent's name.
    pub(crate) agent: String,
    /// The cron expression.
    pub(crate) cron: String,
    /// The time zone in which the expression is evaluated.
    pub(crate) timezone: String,
    /// `skip`, `latest` or `all`: the missed times that are made up for after the host did not run.
    pub(crate) missed: String,
    /// The time for which it fired last, in milliseconds since 1970; null if it never did.
    pub(crate) last_at: Option<u64>,
    /// The time at which it fires next, in milliseconds since 1970; null if it never does again.
    pub(crate) next_at: Option<u64>,
}

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Sent)]
pub(crate) struct AcceptedMessage {
    /// The message id.
    pub(crate) id: String,
    /// The conversation id.
    pub(crate) conversation: String,
}
