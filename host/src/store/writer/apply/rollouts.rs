//! The rollouts of agents, and the messages that rehearsals handle again.

use rusqlite::params;

use super::Tables;
use crate::store::record::{RecentRow, Record, RolloutRow};

impl Tables<'_> {
    pub(super) fn rollout(&self, row: &RolloutRow<'_>) -> rusqlite::Result<()> {
        match row {
            RolloutRow::Ledger { agent, record } => {
                self.execute("INSERT OR REPLACE INTO ledger (agent, record) VALUES (?1, ?2)", [agent, record])
            }
            RolloutRow::LedgerRemoved { agent } => self.execute("DELETE FROM ledger WHERE agent = ?1", [agent]),
            RolloutRow::Difference { agent, rollout, number, record } => self.execute(
                "INSERT OR REPLACE INTO difference (agent, rollout, number, record) VALUES (?1, ?2, ?3, ?4)",
                params![agent, rollout.cast_signed(), number.cast_signed(), record],
            ),
            RolloutRow::DifferencesRemoved { agent, up_to } => {
                self.execute("DELETE FROM difference WHERE agent = ?1 AND rollout <= ?2", params![agent, up_to])
            }
        }
    }

    pub(super) fn recent(&self, row: &RecentRow<'_>, record: &Record<'_>) -> rusqlite::Result<()> {
        match row {
            RecentRow::Set { agent, seq, conversation, rank, head, content, answer } => self.execute(
                "INSERT OR REPLACE INTO recent (agent, seq, conversation, rank, due, head, content, answer)
                 VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, ?7)",
                params![agent, seq.cast_signed(), conversation, rank, record.head(*head), content, answer],
            ),
            RecentRow::Calls { agent, seq, calls } => self.execute(
                "UPDATE recent SET calls = ?3 WHERE agent = ?1 AND seq = ?2",
                params![agent, seq.cast_signed(), calls],
            ),
            RecentRow::Removed { agent, before } => {
                self.execute("DELETE FROM recent WHERE agent = ?1 AND seq < ?2", params![agent, before])
            }
        }
    }
}
