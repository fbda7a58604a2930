//! The rows of version 1 that have the rollouts of agents, and the messages that rehearsals handle again.

use serde::{Deserialize, Serialize};

use crate::store::record::{RecentRow, Record, RolloutRow};

/// [`RolloutRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(in crate::store::record::wire) enum RolloutRowV1<'a> {
    Ledger { agent: &'a str, record: &'a str },
    LedgerRemoved { agent: &'a str },
    Difference { agent: &'a str, rollout: u64, number: u64, record: &'a str },
    DifferencesRemoved { agent: &'a str, up_to: i64 },
}

impl<'a> RolloutRowV1<'a> {
    pub(super) fn of(row: &'a RolloutRow<'_>) -> Self {
        match row {
            RolloutRow::Ledger { agent, record } => Self::Ledger { agent, record },
            RolloutRow::LedgerRemoved { agent } => Self::LedgerRemoved { agent },
            RolloutRow::Difference { agent, rollout, number, record } => {
                Self::Difference { agent, rollout: *rollout, number: *number, record }
            }
            RolloutRow::DifferencesRemoved { agent, up_to } => Self::DifferencesRemoved { agent, up_to: *up_to },
        }
    }

    pub(super) fn into_row(self) -> RolloutRow<'a> {
        match self {
            Self::Ledger { agent, record } => RolloutRow::Ledger { agent, record },
            Self::LedgerRemoved { agent } => RolloutRow::LedgerRemoved { agent },
            Self::Difference { agent, rollout, number, record } => {
                RolloutRow::Difference { agent, rollout, number, record }
            }
            Self::DifferencesRemoved { agent, up_to } => RolloutRow::DifferencesRemoved { agent, up_to },
        }
    }
}

/// [`RecentRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(in crate::store::record::wire) enum RecentRowV1<'a> {
    Set {
        agent: &'a str,
        seq: u64,
        conversation: &'a str,
        rank: u8,
        head: &'a [u8],
        content: &'a [u8],
        #[serde(borrow)]
        answer: Option<&'a [u8]>,
    },
    Removed {
        agent: &'a str,
        before: i64,
    },
    Calls {
        agent: &'a str,
        seq: u64,
        calls: &'a [u8],
    },
}

impl<'a> RecentRowV1<'a> {
    pub(super) fn of(row: &'a RecentRow<'_>, record: &'a Record<'_>) -> Self {
        match row {
            RecentRow::Set { agent, seq, conversation, rank, head, content, answer } => Self::Set {
                agent,
                seq: *seq,
                conversation,
                rank: *rank,
                head: record.head(*head),
                content,
                answer: *answer,
            },
            RecentRow::Removed { agent, before } => Self::Removed { agent, before: *before },
            RecentRow::Calls { agent, seq, calls } => Self::Calls { agent, seq: *seq, calls },
        }
    }

    pub(super) fn into_row(self, record: &mut Record<'_>) -> RecentRow<'a> {
        match self {
            Self::Set { agent, seq, conversation, rank, head, content, answer } => RecentRow::Set {
                agent,
                seq,
                conversation,
                rank,
                head: record.push_head(|heads| heads.extend_from_slice(head)),
                content,
                answer,
            },
            Self::Removed { agent, before } => RecentRow::Removed { agent, before },
            Self::Calls { agent, seq, calls } => RecentRow::Calls { agent, seq, calls },
        }
    }
}
