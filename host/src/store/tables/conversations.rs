//! The tables of conversations: the open ones, those that have ended, and when those began of which no record is written.

use std::borrow::Cow;
use std::sync::Arc;

use caxton_control::conversation::Conversation;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock;
use crate::store::commit::EndedConversation;
use crate::store::handles::ConversationTable;
use crate::store::record::{ConversationRow, Record};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::turn::Turn;

/// Conversations that have ended and are still listed; the oldest leave first.
const MAX_ENDED: i64 = 100_000;
/// The number of ended conversations between two removals of the oldest.
const PRUNE: u64 = 1_000;

/// The record as it is kept and shown: with times of the wall clock.
pub(crate) fn on_wall(record: &Conversation) -> Cow<'_, Conversation> {
    // The usual case, without a copy: both clocks agree.
    if !clock::is_set() {
        return Cow::Borrowed(record);
    }
    let (first, last) = (clock::to_wall(record.first), clock::to_wall(record.last));
    let mut record = Conversation { first, last, ..record.clone() };
    record.bindings.iter_mut().for_each(|binding| binding.until = clock::to_wall(binding.until));
    Cow::Owned(record)
}

/// Adds the rows of a conversation that has ended, unless it was never written. `keeps_name` if its name is still its
/// own: another may have begun under it.
pub(in crate::store) fn push_end<'a>(
    record: &mut Record<'a>,
    ended: &'a EndedConversation,
    keeps_name: bool,
    now: u64,
) {
    let EndedConversation { row: Some(id), record: conversation, first_seq } = ended else { return };
    if keeps_name {
        let shown = &*on_wall(conversation);
        record.push(ConversationRow::Ended {
            id: *id,
            name: &conversation.name,
            first: shown.first,
            last: shown.last,
            messages: shown.messages,
            record: Cow::Owned(serde_json::to_string(shown).expect("a record is numbers and text")),
            ended: now,
            first_seq: *first_seq,
        });
    }
    // Also if another conversation has the name by now: the row of the activity is its own.
    record.push(ConversationRow::ActivityRemoved { id: *id });
    // In batches: a delete with each end would cost every one of them.
    if id % PRUNE == 0 {
        record.push(ConversationRow::EndedRemoved { before: id.cast_signed() - MAX_ENDED });
    }
}

/// Returns `false` if another conversation has the name of one that ends.
pub(in crate::store) fn keeps_name(reader: TableReader<'_>, ended: &EndedConversation) -> rusqlite::Result<bool> {
    let Some(id) = ended.row else { return Ok(false) };
    let other = "SELECT 1 FROM conversation WHERE name = ?1 AND id <> ?2";
    Ok(!reader.prepare(other)?.exists(params![ended.record.name, id.cast_signed()])?)
}

/// An open conversation as the database lists it.
pub(crate) struct ListedConversation<'r> {
    /// The row.
    pub(crate) row: u64,
    /// The name.
    pub(crate) name: &'r str,
    /// The time of the last activity, by the steady clock.
    pub(crate) last: u64,
    /// The number of messages.
    pub(crate) messages: u64,
}

/// Reads open conversations, by a connection of its own. Closed when the writer ends: the last connection to close
/// empties the log of the database, which one that only reads cannot do.
#[derive(Clone)]
pub(crate) struct ConversationReader(Arc<Mutex<Option<Connection>>>);

impl ConversationReader {
    pub(in crate::store) fn new(connection: Connection) -> Self {
        Self(Arc::new(Mutex::new(Some(connection))))
    }

    /// Closes the connection.
    pub(in crate::store) fn close(&self) {
        *self.0.lock() = None;
    }

    /// Returns the highest row that was ever given; 0 if there is none.
    pub(crate) fn last_row(&self) -> rusqlite::Result<u64> {
        let reader = self.0.lock();
        let Some(reader) = reader.as_ref() else { return Ok(0) };
        // Ended ones included: a row is never given twice.
        let last: Option<i64> = reader.query_row("SELECT max(id) FROM conversation", [], |row| row.get(0))?;
        Ok(last.unwrap_or(0).cast_unsigned())
    }

    /// Lists those that are open.
    pub(crate) fn open(&self, mut each: impl FnMut(ListedConversation<'_>)) -> rusqlite::Result<()> {
        let reader = self.0.lock();
        let Some(reader) = reader.as_ref() else { return Ok(()) };
        let mut statement = reader.prepare(
            "SELECT id, name, activity.last, activity.messages FROM conversation
             JOIN activity ON activity.conversation = id WHERE ended IS NULL",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let name = row.get_ref(1)?.as_str()?;
            each(ListedConversation { row: number(0)?, name, last: number(2)?, messages: number(3)? });
        }
        Ok(())
    }

    /// Reads the record of an open one as it was written, with its first sequence number. `None` if it is not there,
    /// or the store is closed.
    pub(crate) fn read(&self, row: u64) -> rusqlite::Result<Option<(String, u64)>> {
        let reader = self.0.lock();
        let Some(reader) = reader.as_ref() else { return Ok(None) };
        let sql = "SELECT record, began FROM conversation WHERE id = ?1 AND ended IS NULL";
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned()));
        reader.prepare_cached(sql)?.query_row([row.cast_signed()], read).optional()
    }
}

/// A conversation that has ended, as it was then, and when it ended in milliseconds since 1970.
type Ended = (Conversation, u64);

impl ConversationTable<'_> {
    /// Keeps when a conversation with an agent began of which no record is written. Times are of the steady clock, and
    /// kept as those of the wall clock. Nobody waits.
    pub(crate) fn keep_beginning(self, agent: Arc<str>, conversation: String, first: u64, last: u64, over: u64) {
        // A restart begins with nothing then.
        if !self.0.keeps_messages {
            return;
        }
        let (first, last, over) = (clock::to_wall(first), clock::to_wall(last), clock::to_wall(over));
        self.0.queue_change(Turn::of(&agent), (agent, conversation), move |(agent, conversation), _, _, record| {
            // Old ones leave with each new one, so that no sweep is needed.
            record.push(ConversationRow::BeginningsRemoved { before: over.cast_signed() });
            record.push(ConversationRow::Beginning { agent, conversation, first, last });
            Ok(())
        });
    }

    /// Returns when a conversation without a record began with an agent, if it had a message since `over`.
    pub(crate) fn beginning(self, agent: &str, conversation: &str, over: u64) -> Result<Option<u64>, String> {
        let over = clock::to_wall(over);
        self.0.with_reader(|connection| {
            connection
                .prepare_cached("SELECT first FROM beginning WHERE agent = ?1 AND conversation = ?2 AND last >= ?3")?
                .query_row(params![agent, conversation, over.cast_signed()], |row| {
                    Ok(clock::from_wall(row.get::<_, i64>(0)?.cast_unsigned()))
                })
                .optional()
        })
    }

    /// Conversations that have ended, with the latest activity first, at most so many; only those of `participant`, if
    /// one is given.
    pub(crate) fn ended(self, participant: Option<&str>, limit: u32) -> Result<Vec<Ended>, String> {
        self.0.with_reader(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT record, ended FROM conversation
                 WHERE ended IS NOT NULL AND (?1 IS NULL
                     OR EXISTS (SELECT 1 FROM json_each(record, '$.participants') WHERE value = ?1))
                 ORDER BY last DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![participant, limit], read_ended)?;
            // Records that this version cannot read are left out; the list is worth more than an error.
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// A conversation that has ended.
    pub(crate) fn ended_conversation(self, name: &str) -> Result<Option<Ended>, String> {
        self.0.with_reader(|connection| {
            let sql = "SELECT record, ended FROM conversation WHERE ended IS NOT NULL AND name = ?1";
            Ok(connection.prepare_cached(sql)?.query_row([name], read_ended).optional()?.flatten())
        })
    }

    /// Writes conversations that have changed, with the next transaction. Returns before that.
    pub(crate) fn write_changed(self) {
        // Each transaction ends with what has changed, also one of an empty record.
        self.0.queue_change(Turn::OfHost, (), |(), _, _, _| Ok(()));
    }
}

/// Reads a row; `None` if this version cannot parse the record.
fn read_ended(row: &Row<'_>) -> rusqlite::Result<Option<Ended>> {
    let text: String = row.get(0)?;
    let record = serde_json::from_str(&text).ok();
    Ok(record.zip(Some(row.get::<_, i64>(1)?.cast_unsigned())))
}
