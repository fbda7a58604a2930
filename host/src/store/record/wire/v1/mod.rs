//! The encoded form, version 1.

mod content;
mod journal;
mod memory;
mod other;
mod rollouts;
mod trees;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use self::content::ContentRowV1;
use self::journal::JournalRowV1;
use self::memory::{MemoryRowV1, StateCopyRowV1};
use self::other::{ConversationRowV1, OtherRowV1};
use self::rollouts::{RecentRowV1, RolloutRowV1};
use self::trees::TreeRowV1;
use super::super::{DeadRow, QueueRow, Record, RowChange, StateRow, TimerRow};

/// [`RowChange`] in version 1. The order of variants and fields is the format, here and below.
#[derive(Serialize, Deserialize)]
pub(super) enum RowV1<'a> {
    State(#[serde(borrow)] StateRowV1<'a>),
    Queue(#[serde(borrow)] QueueRowV1<'a>),
    Timer(#[serde(borrow)] TimerRowV1<'a>),
    Dead(#[serde(borrow)] DeadRowV1<'a>),
    Conversation(#[serde(borrow)] ConversationRowV1<'a>),
    Other(#[serde(borrow)] OtherRowV1<'a>),
    Memory(#[serde(borrow)] MemoryRowV1<'a>),
    StateCopy(#[serde(borrow)] StateCopyRowV1<'a>),
    Rollout(#[serde(borrow)] RolloutRowV1<'a>),
    Recent(#[serde(borrow)] RecentRowV1<'a>),
    Content(#[serde(borrow)] ContentRowV1<'a>),
    Journal(#[serde(borrow)] JournalRowV1<'a>),
    Tree(#[serde(borrow)] TreeRowV1<'a>),
}

impl<'a> RowV1<'a> {
    pub(super) fn of(row: &'a RowChange<'_>, record: &'a Record<'_>) -> Self {
        match row {
            RowChange::State(row) => Self::State(StateRowV1::of(row)),
            RowChange::Queue(row) => Self::Queue(QueueRowV1::of(row, record)),
            RowChange::Timer(row) => Self::Timer(TimerRowV1::of(row, record)),
            RowChange::Dead(row) => Self::Dead(DeadRowV1::of(row, record)),
            RowChange::Conversation(row) => Self::Conversation(ConversationRowV1::of(row)),
            RowChange::Other(row) => Self::Other(OtherRowV1::of(row)),
            RowChange::Memory(row) => Self::Memory(MemoryRowV1::of(row)),
            RowChange::StateCopy(row) => Self::StateCopy(StateCopyRowV1::of(row)),
            RowChange::Rollout(row) => Self::Rollout(RolloutRowV1::of(row)),
            RowChange::Recent(row) => Self::Recent(RecentRowV1::of(row, record)),
            RowChange::Content(row) => Self::Content(ContentRowV1::of(row)),
            RowChange::Journal(row) => Self::Journal(JournalRowV1::of(row)),
            RowChange::Tree(row) => Self::Tree(TreeRowV1::of(row)),
        }
    }

    pub(super) fn into_row(self, record: &mut Record<'_>) -> RowChange<'a> {
        match self {
            Self::State(row) => row.into_row().into(),
            Self::Queue(row) => row.into_row(record).into(),
            Self::Timer(row) => row.into_row(record).into(),
            Self::Dead(row) => row.into_row(record).into(),
            Self::Conversation(row) => row.into_row().into(),
            Self::Other(row) => row.into_row().into(),
            Self::Memory(row) => row.into_row().into(),
            Self::StateCopy(row) => row.into_row().into(),
            Self::Rollout(row) => row.into_row().into(),
            Self::Recent(row) => row.into_row(record).into(),
            Self::Content(row) => row.into_row().into(),
            Self::Journal(row) => row.into_row().into(),
            Self::Tree(row) => row.into_row().into(),
        }
    }
}

/// [`StateRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(super) enum StateRowV1<'a> {
    Set { agent: &'a str, key: &'a str, value: &'a [u8], version: u64, expires_at: Option<u64> },
    Removed { agent: &'a str, key: &'a str },
    Size { agent: &'a str, bytes: i64 },
}

impl<'a> StateRowV1<'a> {
    fn of(row: &'a StateRow<'_>) -> Self {
        match row {
            StateRow::Set { agent, key, value, version, expires_at } => {
                Self::Set { agent, key, value, version: *version, expires_at: *expires_at }
            }
            StateRow::Removed { agent, key } => Self::Removed { agent, key },
            StateRow::Size { agent, bytes } => Self::Size { agent, bytes: *bytes },
        }
    }

    fn into_row(self) -> StateRow<'a> {
        match self {
            Self::Set { agent, key, value, version, expires_at } => {
                StateRow::Set { agent, key, value, version, expires_at }
            }
            Self::Removed { agent, key } => StateRow::Removed { agent, key },
            Self::Size { agent, bytes } => StateRow::Size { agent, bytes },
        }
    }
}

/// [`QueueRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(super) enum QueueRowV1<'a> {
    Message {
        seq: u64,
        agent: &'a str,
        conversation: &'a str,
        rank: u8,
        due: Option<u64>,
        #[serde(borrow)]
        receipt: Option<&'a str>,
        head: &'a [u8],
        content: &'a [u8],
        revived: bool,
    },
    Handled {
        seq: u64,
        at: u64,
        revision: u64,
        runs: u32,
    },
    Attempt {
        seq: u64,
        number: u32,
        again_at: u64,
        #[serde(borrow)]
        attempt: Cow<'a, str>,
    },
    AttemptsRemoved {
        seq: u64,
    },
    ReceiptRemoved {
        receipt: &'a str,
    },
    HandledRemoved {
        up_to: u64,
    },
    MailboxPaused {
        agent: &'a str,
    },
    MailboxResumed {
        agent: &'a str,
    },
}

impl<'a> QueueRowV1<'a> {
    fn of(row: &'a QueueRow<'_>, record: &'a Record<'_>) -> Self {
        match row {
            QueueRow::Message { seq, agent, conversation, rank, due, receipt, head, content, revived } => {
                Self::Message {
                    seq: *seq,
                    agent,
                    conversation,
                    rank: *rank,
                    due: *due,
                    receipt: *receipt,
                    head: record.head(*head),
                    content,
                    revived: *revived,
                }
            }
            QueueRow::Handled { seq, at, revision, runs } => {
                Self::Handled { seq: *seq, at: *at, revision: *revision, runs: *runs }
            }
            QueueRow::Attempt { seq, number, again_at, attempt } => {
                Self::Attempt { seq: *seq, number: *number, again_at: *again_at, attempt: Cow::Borrowed(attempt) }
            }
            QueueRow::AttemptsRemoved { seq } => Self::AttemptsRemoved { seq: *seq },
            QueueRow::ReceiptRemoved { receipt } => Self::ReceiptRemoved { receipt },
            QueueRow::HandledRemoved { up_to } => Self::HandledRemoved { up_to: *up_to },
            QueueRow::MailboxPaused { agent } => Self::MailboxPaused { agent },
            QueueRow::MailboxResumed { agent } => Self::MailboxResumed { agent },
        }
    }

    fn into_row(self, record: &mut Record<'_>) -> QueueRow<'a> {
        match self {
            Self::Message { seq, agent, conversation, rank, due, receipt, head, content, revived } => {
                QueueRow::Message {
                    seq,
                    agent,
                    conversation,
                    rank,
                    due,
                    receipt,
                    head: record.push_head(|heads| heads.extend_from_slice(head)),
                    content,
                    revived,
                }
            }
            Self::Handled { seq, at, revision, runs } => QueueRow::Handled { seq, at, revision, runs },
            Self::Attempt { seq, number, again_at, attempt } => QueueRow::Attempt { seq, number, again_at, attempt },
            Self::AttemptsRemoved { seq } => QueueRow::AttemptsRemoved { seq },
            Self::ReceiptRemoved { receipt } => QueueRow::ReceiptRemoved { receipt },
            Self::HandledRemoved { up_to } => QueueRow::HandledRemoved { up_to },
            Self::MailboxPaused { agent } => QueueRow::MailboxPaused { agent },
            Self::MailboxResumed { agent } => QueueRow::MailboxResumed { agent },
        }
    }
}

/// [`TimerRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(super) enum TimerRowV1<'a> {
    Set {
        seq: u64,
        agent: &'a str,
        due: u64,
        at: u64,
        dated: bool,
        conversation: &'a str,
        rank: u8,
        id: &'a str,
        sender: &'a str,
        #[serde(borrow)]
        name: Option<&'a str>,
        head: &'a [u8],
        content: &'a [u8],
    },
    Removed {
        seq: u64,
    },
    Redated {
        after: u64,
        last: u64,
        ahead: i64,
        now: u64,
    },
}

impl<'a> TimerRowV1<'a> {
    fn of(row: &'a TimerRow<'_>, record: &'a Record<'_>) -> Self {
        match row {
            TimerRow::Set { seq, agent, due, at, dated, conversation, rank, id, sender, name, head, content } => {
                Self::Set {
                    seq: *seq,
                    agent,
                    due: *due,
                    at: *at,
                    dated: *dated,
                    conversation,
                    rank: *rank,
                    id,
                    sender,
                    name: *name,
                    head: record.head(*head),
                    content,
                }
            }
            TimerRow::Removed { seq } => Self::Removed { seq: *seq },
            TimerRow::Redated { after, last, ahead, now } => {
                Self::Redated { after: *after, last: *last, ahead: *ahead, now: *now }
            }
        }
    }

    fn into_row(self, record: &mut Record<'_>) -> TimerRow<'a> {
        match self {
            Self::Set { seq, agent, due, at, dated, conversation, rank, id, sender, name, head, content } => {
                TimerRow::Set {
                    seq,
                    agent,
                    due,
                    at,
                    dated,
                    conversation,
                    rank,
                    id,
                    sender,
                    name,
                    head: record.push_head(|heads| heads.extend_from_slice(head)),
                    content,
                }
            }
            Self::Removed { seq } => TimerRow::Removed { seq },
            Self::Redated { after, last, ahead, now } => TimerRow::Redated { after, last, ahead, now },
        }
    }
}

/// [`DeadRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(super) enum DeadRowV1<'a> {
    Set {
        seq: u64,
        agent: &'a str,
        conversation: &'a str,
        rank: u8,
        head: &'a [u8],
        content: &'a [u8],
        at: u64,
        reason: &'a str,
        #[serde(borrow)]
        error: Cow<'a, str>,
        #[serde(borrow)]
        attempts: Cow<'a, str>,
        #[serde(borrow)]
        receipt: Option<&'a str>,
    },
    Removed {
        seq: u64,
    },
}

impl<'a> DeadRowV1<'a> {
    fn of(row: &'a DeadRow<'_>, record: &'a Record<'_>) -> Self {
        match row {
            DeadRow::Set { seq, agent, conversation, rank, head, content, at, reason, error, attempts, receipt } => {
                Self::Set {
                    seq: *seq,
                    agent,
                    conversation,
                    rank: *rank,
                    head: record.head(*head),
                    content,
                    at: *at,
                    reason,
                    error: Cow::Borrowed(error),
                    attempts: Cow::Borrowed(attempts),
                    receipt: *receipt,
                }
            }
            DeadRow::Removed { seq } => Self::Removed { seq: *seq },
        }
    }

    fn into_row(self, record: &mut Record<'_>) -> DeadRow<'a> {
        match self {
            Self::Set { seq, agent, conversation, rank, head, content, at, reason, error, attempts, receipt } => {
                DeadRow::Set {
                    seq,
                    agent,
                    conversation,
                    rank,
                    head: record.push_head(|heads| heads.extend_from_slice(head)),
                    content,
                    at,
                    reason,
                    error,
                    attempts,
                    receipt,
                }
            }
            Self::Removed { seq } => DeadRow::Removed { seq },
        }
    }
}
