//! Timers by hand: listed a page at a time, and cancelled.

use rusqlite::{Row, params};

use super::column;
use crate::clock;
use crate::message::TimerName;
use crate::store::CommitError;
use crate::store::handles::TimerTable;
use crate::store::turn::Turn;

const COLUMNS: &str = "id, name, sender, due, conversation, seq";

/// A timer, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WaitingTimer {
    /// The id of the message.
    pub(crate) id: String,
    /// The name that its sender gave it.
    pub(crate) name: Option<String>,
    /// The sender.
    pub(crate) sender: String,
    /// The date at which it is due, in milliseconds since 1970.
    pub(crate) due_at: u64,
    /// The conversation.
    pub(crate) conversation: String,
    /// The place among the timers of its receiver: when it is due by the steady clock, and its sequence number.
    pub(crate) place: (u64, u64),
}

impl TimerTable<'_> {
    /// Returns the timers that wait for an agent, the one that is due first first: at most `limit`, after a
    /// [place](WaitingTimer::place).
    pub(crate) fn waiting(self, agent: &str, after: (u64, u64), limit: u32) -> Result<Vec<WaitingTimer>, String> {
        let [due, seq] = [after.0, after.1].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let sql = format!(
            "SELECT {COLUMNS} FROM timer WHERE agent = ?1 AND (due, seq) > (?2, ?3) ORDER BY due, seq LIMIT ?4"
        );
        self.0.with_reader(|connection| {
            connection.prepare_cached(&sql)?.query_map(params![agent, due, seq, limit], read)?.collect()
        })
    }

    /// Returns the timers of this id or name that wait for an agent, two at most: a name is of one sender, and several
    /// may have it. Looks at all timers of the agent for a name.
    pub(crate) fn named(self, agent: &str, timer: &TimerName) -> Result<Vec<WaitingTimer>, String> {
        let (column, value) = column(timer);
        let sql = format!("SELECT {COLUMNS} FROM timer WHERE agent = ?1 AND {column} = ?2 LIMIT 2");
        self.0.with_reader(|connection| {
            connection.prepare_cached(&sql)?.query_map(params![agent, value], read)?.collect()
        })
    }

    /// Cancels a timer as its sender would; returns when that is safe. False if it is not there any more.
    pub(crate) async fn cancel(self, sender: String, id: String) -> Result<bool, CommitError> {
        let cancelled =
            self.0.change(Turn::AfterAll, (sender, TimerName::Id(id), false), |subject, reader, writer, record| {
                let (sender, timer, is_there) = subject;
                *is_there = super::cancel(reader, writer, sender, timer, record)?;
                Ok(())
            });
        cancelled.await.map(|(_, _, is_there)| is_there)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<WaitingTimer> {
    let [due, seq] = [row.get::<_, i64>(3)?, row.get(5)?].map(i64::cast_unsigned);
    Ok(WaitingTimer {
        id: row.get(0)?,
        name: row.get(1)?,
        sender: row.get(2)?,
        due_at: clock::to_wall(due),
        conversation: row.get(4)?,
        place: (due, seq),
    })
}
