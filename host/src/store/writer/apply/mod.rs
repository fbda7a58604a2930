//! Applies records to the tables of SQLite. Nothing else changes them while the host runs.

mod content;
mod journal;
mod memory;
mod rollouts;
mod trees;
mod unplace;

use rusqlite::{CachedStatement, Transaction, params};

use self::unplace::{UNPLACE_DEAD, UNPLACE_HANDLED, UNPLACE_TIMER};

use crate::store::record::{ConversationRow, DeadRow, OtherRow, QueueRow, Record, RowChange, StateRow, TimerRow};

/// The statement that adds a message.
const INSERT_MESSAGE: &str =
    "INSERT INTO message (seq, agent, conversation, rank, due, receipt, head, content, revived)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
/// A new row is written without reading the one that it replaces.
const SET_STATE: &str = "REPLACE INTO state (agent, key, value, version, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)";

/// Most commits change the activity of one conversation.
const SET_ACTIVITY: &str = "INSERT OR REPLACE INTO activity (conversation, last, messages) VALUES (?1, ?2, ?3)";

/// The tables as one transaction writes them.
pub(in crate::store) struct Tables<'t> {
    transaction: &'t Transaction<'t>,
    // Held for the transaction: a look into the cache of statements for each row costs a tenth of a small commit.
    insert_message: Option<CachedStatement<'t>>,
    insert_handled: Option<CachedStatement<'t>>,
    set_state: Option<CachedStatement<'t>>,
    set_activity: Option<CachedStatement<'t>>,
    set_memory: Option<CachedStatement<'t>>,
    /// Set if there are contents in pieces; `None` until that is looked up.
    has_pieces: Option<bool>,
}

/// Prepares a statement at its first use.
fn prepared<'s, 't>(
    statement: &'s mut Option<CachedStatement<'t>>,
    transaction: &'t Transaction<'t>,
    sql: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'t>> {
    if statement.is_none() {
        *statement = Some(transaction.prepare_cached(sql)?);
    }
    Ok(statement.as_mut().expect("it was prepared"))
}

impl<'t> Tables<'t> {
    pub(in crate::store) fn new(transaction: &'t Transaction<'t>) -> Self {
        Self {
            transaction,
            insert_message: None,
            insert_handled: None,
            set_state: None,
            set_activity: None,
            set_memory: None,
            has_pieces: None,
        }
    }

    /// Makes the changes of a record. Decides nothing.
    pub(in crate::store) fn apply(&mut self, record: &Record<'_>) -> rusqlite::Result<()> {
        record.rows.iter().try_for_each(|row| match row {
            RowChange::State(row) => self.state(row),
            RowChange::Queue(row) => self.queue(row, record),
            RowChange::Timer(row) => self.timer(row, record),
            RowChange::Dead(row) => self.dead(row, record),
            RowChange::Conversation(row) => self.conversation(row),
            RowChange::Other(row) => self.other(row),
            RowChange::Memory(row) => self.memory(row),
            RowChange::StateCopy(row) => self.state_copy(row),
            RowChange::Rollout(row) => self.rollout(row),
            RowChange::Recent(row) => self.recent(row, record),
            RowChange::Content(row) => self.content(row),
            RowChange::Journal(row) => self.journal(row),
            RowChange::Tree(row) => self.tree(row),
        })
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
        self.transaction.prepare_cached(sql)?.execute(params).map(|_| ())
    }

    fn state(&mut self, row: &StateRow<'_>) -> rusqlite::Result<()> {
        match *row {
            StateRow::Set { agent, key, value, version, expires_at } => {
                self.unplace_key(agent, key)?;
                let values = params![agent, key, value, version.cast_signed(), expires_at.map(u64::cast_signed)];
                prepared(&mut self.set_state, self.transaction, SET_STATE)?.execute(values).map(|_| ())
            }
            StateRow::Removed { agent, key } => {
                self.unplace_key(agent, key)?;
                self.execute("DELETE FROM state WHERE agent = ?1 AND key = ?2", [agent, key])
            }
            StateRow::Size { agent, bytes } => self.execute(
                "INSERT INTO state_size (agent, bytes) VALUES (?1, ?2)
                 ON CONFLICT (agent) DO UPDATE SET bytes = excluded.bytes",
                params![agent, bytes],
            ),
        }
    }

    fn queue(&mut self, row: &QueueRow<'_>, record: &Record<'_>) -> rusqlite::Result<()> {
        match row {
            QueueRow::Message { seq, agent, conversation, rank, due, receipt, head, content, revived } => {
                let (due, head) = (due.map(u64::cast_signed), record.head(*head));
                prepared(&mut self.insert_message, self.transaction, INSERT_MESSAGE)?
                    .execute(params![
                        seq.cast_signed(),
                        agent,
                        conversation,
                        rank,
                        due,
                        receipt,
                        head,
                        content,
                        revived
                    ])
                    .map(|_| ())
            }
            QueueRow::Handled { seq, at, revision, runs } => {
                let sql = "INSERT INTO ack (seq, at, revision, runs) VALUES (?1, ?2, ?3, ?4)";
                prepared(&mut self.insert_handled, self.transaction, sql)?
                    .execute(params![seq.cast_signed(), at.cast_signed(), revision.cast_signed(), runs])
                    .map(|_| ())
            }
            QueueRow::Attempt { seq, number, again_at, attempt } => self.execute(
                "INSERT OR REPLACE INTO attempt (seq, number, again_at, attempt) VALUES (?1, ?2, ?3, ?4)",
                params![seq.cast_signed(), number, again_at.cast_signed(), attempt],
            ),
            QueueRow::AttemptsRemoved { seq } => {
                self.execute("DELETE FROM attempt WHERE seq = ?1", [seq.cast_signed()])
            }
            QueueRow::ReceiptRemoved { receipt } => {
                self.execute("UPDATE message SET receipt = NULL WHERE receipt = ?1", [receipt])
            }
            QueueRow::HandledRemoved { up_to } => {
                let up_to = [up_to.cast_signed()];
                self.unplace(UNPLACE_HANDLED, up_to)?;
                // By the rows of `ack`: messages that still wait have none and stay.
                self.execute("DELETE FROM message WHERE seq IN (SELECT seq FROM ack WHERE seq <= ?1)", up_to)?;
                self.execute(
                    // Few messages have attempts, so that their rows are looked up by the index of the handled ones.
                    "DELETE FROM attempt WHERE seq <= ?1 AND EXISTS (SELECT 1 FROM ack WHERE ack.seq = attempt.seq)",
                    up_to,
                )?;
                // Last: the other two go by these rows.
                self.execute("DELETE FROM ack WHERE seq <= ?1", up_to)
            }
            QueueRow::MailboxPaused { agent } => self.execute("INSERT OR IGNORE INTO paused VALUES (?1)", [agent]),
            QueueRow::MailboxResumed { agent } => self.execute("DELETE FROM paused WHERE agent = ?1", [agent]),
        }
    }

    fn timer(&mut self, row: &TimerRow<'_>, record: &Record<'_>) -> rusqlite::Result<()> {
        match row {
            TimerRow::Set { seq, agent, due, at, dated, conversation, rank, id, sender, name, head, content } => {
                let head = record.head(*head);
                let (seq, due, at) = (seq.cast_signed(), due.cast_signed(), at.cast_signed());
                self.execute(
                    "INSERT INTO timer
                         (seq, agent, due, at, dated, conversation, rank, id, sender, name, head, content)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                    params![seq, agent, due, at, dated, conversation, rank, id, sender, name, head, content],
                )
            }
            TimerRow::Removed { seq } => {
                self.unplace(UNPLACE_TIMER, [seq.cast_signed()])?;
                self.execute("DELETE FROM timer WHERE seq = ?1", [seq.cast_signed()])
            }
            TimerRow::Redated { after, last, ahead, now } => self.execute(
                "UPDATE timer SET due = max(at - ?3, ?4) WHERE dated AND seq > ?1 AND seq <= ?2",
                params![after.cast_signed(), last.cast_signed(), ahead, now.cast_signed()],
            ),
        }
    }

    fn dead(&mut self, row: &DeadRow<'_>, record: &Record<'_>) -> rusqlite::Result<()> {
        match row {
            DeadRow::Set { seq, agent, conversation, rank, head, content, at, reason, error, attempts, receipt } => {
                let (seq, at, head): (i64, i64, &[u8]) = (seq.cast_signed(), at.cast_signed(), record.head(*head));
                self.execute(
                    "INSERT INTO dead
                         (seq, agent, conversation, rank, due, head, content, at, reason, error, attempts, receipt)
                     VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                    params![seq, agent, conversation, rank, head, content, at, reason, error, attempts, receipt],
                )
            }
            DeadRow::Removed { seq } => {
                self.unplace(UNPLACE_DEAD, [seq.cast_signed()])?;
                self.execute("DELETE FROM journal WHERE seq = ?1", [seq.cast_signed()])?;
                self.execute("DELETE FROM dead WHERE seq = ?1", [seq.cast_signed()])
            }
        }
    }

    fn conversation(&mut self, row: &ConversationRow<'_>) -> rusqlite::Result<()> {
        match row {
            ConversationRow::Set { id, name, first, last, messages, record, first_seq } => {
                // REPLACE also removes an ended conversation that has the unique name.
                let times = [first, last, messages, first_seq].map(|number| number.cast_signed());
                let [first, last, messages, first_seq] = times;
                self.execute(
                    "INSERT OR REPLACE INTO conversation (id, name, first, last, messages, record, began)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![id.cast_signed(), name, first, last, messages, record, first_seq],
                )
            }
            ConversationRow::Activity { id, last, messages } => {
                let values = [id, last, messages].map(|number| number.cast_signed());
                prepared(&mut self.set_activity, self.transaction, SET_ACTIVITY)?.execute(values).map(|_| ())
            }
            ConversationRow::Ended { id, name, first, last, messages, record, ended, first_seq } => {
                let times = [first, last, messages, ended, first_seq].map(|number| number.cast_signed());
                let [first, last, messages, ended, first_seq] = times;
                self.execute(
                    "INSERT INTO conversation (id, name, first, last, messages, record, ended, began)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                     ON CONFLICT (id) DO UPDATE SET last = excluded.last, messages = excluded.messages,
                         record = excluded.record, ended = excluded.ended",
                    params![id.cast_signed(), name, first, last, messages, record, ended, first_seq],
                )
            }
            ConversationRow::ActivityRemoved { id } => {
                self.execute("DELETE FROM activity WHERE conversation = ?1", [id.cast_signed()])
            }
            ConversationRow::EndedRemoved { before } => {
                self.execute("DELETE FROM conversation WHERE ended IS NOT NULL AND id < ?1", [before])
            }
            ConversationRow::Beginning { agent, conversation, first, last } => self.execute(
                "INSERT INTO beginning (agent, conversation, first, last) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (agent, conversation) DO UPDATE SET first = excluded.first, last = excluded.last",
                params![agent, conversation, first.cast_signed(), last.cast_signed()],
            ),
            ConversationRow::BeginningsRemoved { before } => {
                self.execute("DELETE FROM beginning WHERE last < ?1", [before])
            }
        }
    }

    fn other(&mut self, row: &OtherRow<'_>) -> rusqlite::Result<()> {
        match row {
            OtherRow::Counters { seq, version } => {
                // A row that stays as it is is not written, which would dirty its page with every commit.
                let sql = "UPDATE meta SET value = ?2 WHERE key = ?1 AND value <> ?2";
                self.execute(sql, params!["version", version.cast_signed()])?;
                self.execute(sql, params!["seq", seq.cast_signed()])
            }
            OtherRow::Key { agent, key, fingerprint, id, conversation, at } => self.execute(
                "INSERT INTO idempotency (agent, key, fingerprint, id, conversation, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![agent, key, fingerprint, id, conversation, at.cast_signed()],
            ),
            OtherRow::KeysRemoved { before } => self.execute("DELETE FROM idempotency WHERE at < ?1", [before]),
            OtherRow::Fired { agent, schedule, at } => self.execute(
                "INSERT INTO schedule (agent, schedule, fired_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (agent, schedule) DO UPDATE SET fired_at = excluded.fired_at",
                params![agent, schedule, at.cast_signed()],
            ),
            OtherRow::Event { id, at, agent, kind, data } => self.execute(
                "INSERT INTO event (id, at, agent, kind, data) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![id, at.cast_signed(), agent, kind, data],
            ),
            OtherRow::EventsRemoved { up_to } => self.execute("DELETE FROM event WHERE id <= ?1", [up_to]),
            OtherRow::Revision { agent, number, digest, settings, created_at } => self.execute(
                "INSERT INTO revision (agent, number, digest, settings, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![agent, number.cast_signed(), digest, settings, created_at.cast_signed()],
            ),
            OtherRow::RevisionsRemoved { agent, before } => self
                .execute("DELETE FROM revision WHERE agent = ?1 AND number < ?2", params![agent, before.cast_signed()]),
        }
    }
}
