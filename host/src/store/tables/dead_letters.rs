//! The messages that were given up: they are listed, redelivered and removed.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Deserialize;

use crate::clock;
use crate::message::{Attempt, Envelope, StoredCall};
use crate::store::commit::CommitError;
use crate::store::handles::DeadLetterTable;
use crate::store::record::{DeadRow, JournalRow, QueueRow, Record};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::sqlite::whole::CONTENT_LENGTH;
use crate::store::tables::journal;
use crate::store::turn::Turn;
use crate::store::writer::message_row::{self, columns};
use crate::store::writer::writer_state::WriterState;

/// Bytes of contents above which no further dead letter is redelivered in one transaction: others' commits wait for it.
const REVIVE_BYTES: usize = 512 << 10;
/// The dead letters that leave in one transaction, so that others' commits do not wait for long.
const AT_ONCE: u32 = 1_000;

/// A message that was given up, without what it says and what went wrong each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dead {
    /// Names the dead letter, for `redeliver` and `drop`.
    pub(crate) number: u64,
    /// The message's id.
    pub(crate) id: String,
    /// The agent that should have handled it.
    pub(crate) agent: String,
    /// The sender.
    pub(crate) sender: String,
    /// The communicative act.
    pub(crate) performative: String,
    /// The conversation.
    pub(crate) conversation: String,
    /// The time at which it was sent, in milliseconds since 1970.
    pub(crate) sent_at: u64,
    /// The time at which it was given up, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The reason as a stable code.
    pub(crate) reason: String,
    /// The reason for a person.
    pub(crate) error: String,
    /// The number of attempts.
    pub(crate) tried: u64,
    /// The failure of the last attempt as a stable code such as `trap`; none when it was never tried.
    pub(crate) code: Option<String>,
    /// The revision that tried last, such as `triage@7`; none when it was never tried.
    pub(crate) revision: Option<String>,
    /// The media type of its content.
    pub(crate) content_type: String,
    /// Bytes of its content.
    pub(crate) bytes: u64,
}

/// A dead letter with all that is kept of it.
#[derive(Debug)]
pub(crate) struct DeadInFull {
    /// The summary.
    pub(crate) dead: Dead,
    /// The attempts, in order.
    pub(crate) attempts: Vec<Attempt>,
    /// The message's headers.
    pub(crate) headers: Vec<(String, String)>,
    /// The content of the message.
    pub(crate) content: Vec<u8>,
    /// The calls over HTTP that are recorded of it.
    pub(crate) calls: Box<[StoredCall]>,
}

/// A filter of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadFilter {
    /// Selects only this agent's.
    pub(crate) agent: Option<String>,
    /// Selects only those given up for this reason.
    pub(crate) reason: Option<String>,
    /// Selects only those after this number.
    pub(crate) after: u64,
    /// Selects none after this number.
    pub(crate) up_to: u64,
}

impl Default for DeadFilter {
    /// Selects all of them.
    fn default() -> Self {
        Self { agent: None, reason: None, after: 0, up_to: u64::MAX }
    }
}

impl DeadFilter {
    /// Selects the dead letter of a number.
    pub(crate) fn one(number: u64) -> Self {
        Self { after: number.saturating_sub(1), up_to: number, ..Self::default() }
    }

    /// A condition with the parameters of [`values`](Self::values). What is not asked for is no part of it, so that
    /// what is asked for is looked up.
    fn sql(&self) -> String {
        let agent = if self.agent.is_some() { "agent = ?3" } else { "?3 IS NULL" };
        let reason = if self.reason.is_some() { "reason = ?4" } else { "?4 IS NULL" };
        format!("seq > ?1 AND seq <= ?2 AND {agent} AND {reason}")
    }

    fn values(&self) -> (i64, i64, Option<&str>, Option<&str>) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        (number(self.after), number(self.up_to), self.agent.as_deref(), self.reason.as_deref())
    }
}

/// The count of the dead letters of one agent and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadCount {
    /// The agent.
    pub(crate) agent: String,
    /// The reason as a stable code.
    pub(crate) reason: String,
    /// The number of dead letters.
    pub(crate) count: u64,
    /// Bytes of their contents.
    pub(crate) bytes: u64,
    /// The time at which the oldest was given up, in milliseconds since 1970.
    pub(crate) oldest: u64,
}

/// The dead letters that wait again.
pub(crate) struct Revived {
    /// The messages, as they wait.
    pub(crate) envelopes: Vec<Envelope>,
    /// The highest number among the dead letters that they were.
    pub(crate) last: u64,
}

/// Returns the columns of a dead letter without its content.
fn summary_columns() -> String {
    format!("seq, agent, conversation, rank, due, head, x'', at, reason, error, attempts, {CONTENT_LENGTH}")
}

impl DeadLetterTable<'_> {
    /// Returns dead letters in order of their numbers, at most so many.
    pub(crate) fn list(self, filter: &DeadFilter, limit: u32) -> Result<Vec<Dead>, String> {
        self.0.with_reader(|connection| {
            let sql =
                format!("SELECT {} FROM dead WHERE {} ORDER BY seq LIMIT {limit}", summary_columns(), filter.sql());
            connection.prepare_cached(&sql)?.query_map(filter.values(), summary)?.collect()
        })
    }

    /// Returns all that is kept of a dead letter.
    pub(crate) fn get(self, number: u64) -> Result<Option<DeadInFull>, String> {
        self.0.with_reader(|connection| {
            let columns = columns();
            let sql =
                format!("SELECT {columns}, at, reason, error, attempts, {CONTENT_LENGTH} FROM dead WHERE seq = ?1");
            let found = connection.prepare_cached(&sql)?.query_row([number.cast_signed()], in_full).optional()?;
            let Some(found) = found else { return Ok(None) };
            Ok(Some(DeadInFull { calls: journal::calls(connection, number.cast_signed())?, ..found }))
        })
    }

    /// Returns the counts of dead letters by agent and reason.
    pub(crate) fn counts(self, filter: &DeadFilter) -> Result<Vec<DeadCount>, String> {
        self.0.with_reader(|connection| {
            let sql = format!(
                "SELECT agent, reason, count(*), sum({CONTENT_LENGTH}), min(at) FROM dead WHERE {}
                 GROUP BY agent, reason ORDER BY agent, reason",
                filter.sql()
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(filter.values(), |row| {
                Ok(DeadCount {
                    agent: row.get(0)?,
                    reason: row.get(1)?,
                    count: row.get::<_, i64>(2)?.cast_unsigned(),
                    bytes: row.get::<_, i64>(3)?.cast_unsigned(),
                    oldest: row.get::<_, i64>(4)?.cast_unsigned(),
                })
            })?;
            rows.collect()
        })
    }

    /// Returns the number of dead letters of each agent; agents without any are not named.
    pub(crate) fn by_agent(self) -> Result<Vec<(String, u64)>, String> {
        self.0.with_reader(by_agent)
    }

    /// The highest number that a dead letter has; 0 when there is none.
    pub(crate) fn last(self) -> Result<u64, String> {
        self.0.with_reader(|connection| {
            let last: Option<i64> = connection.query_row("SELECT max(seq) FROM dead", [], |row| row.get(0))?;
            Ok(last.unwrap_or(0).cast_unsigned())
        })
    }

    /// Moves dead letters, the lowest numbers first and a portion at once, back to the messages that wait for
    /// their agent. Their time begins anew: they count as due now, and a `reply-by` that has
    /// passed is taken away, or they would be given up as expired at once. With `repeats_calls` those of their calls over
    /// HTTP are forgotten that have no success on record.
    pub(crate) async fn revive(self, filter: DeadFilter, repeats_calls: bool) -> Result<Revived, CommitError> {
        let revived = Revived { envelopes: Vec::new(), last: filter.after };
        self.0
            .change(Turn::AfterAll, revived, move |revived, reader, writer, record| {
                revive(reader, writer, (&filter, revived, repeats_calls), record)
            })
            .await
    }

    /// Removes dead letters, some at a time. Returns their number.
    pub(crate) async fn forget(self, mut filter: DeadFilter) -> Result<u64, CommitError> {
        let mut forgotten = 0;
        loop {
            // The subject is the filter, and the number of this portion.
            let removed = self.0.change(Turn::AfterAll, (filter, 0), |(filter, count), reader, writer, record| {
                let sql = format!("SELECT seq FROM dead WHERE {} ORDER BY seq LIMIT {AT_ONCE}", filter.sql());
                for seq in reader.prepare(&sql)?.query_map(filter.values(), |row| row.get::<_, i64>(0))? {
                    record.push(DeadRow::Removed { seq: seq?.cast_unsigned() });
                    *count += 1;
                }
                writer.history.revived(*count);
                Ok(())
            });
            // A caller that leaves stops the loop; this portion is removed all the same.
            let count;
            (filter, count) = removed.await?;
            forgotten += count;
            // After a full portion there may be more.
            if count < u64::from(AT_ONCE) {
                return Ok(forgotten);
            }
        }
    }
}

/// Returns the number of dead letters of each agent, from the index alone.
pub(in crate::store) fn by_agent(connection: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    connection
        .prepare_cached("SELECT agent, count(*) FROM dead GROUP BY agent")?
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?
        .collect()
}

/// Decides which dead letters wait again, and under which numbers.
fn revive<'r>(
    reader: TableReader<'_>,
    writer: &mut WriterState,
    (filter, revived, repeats_calls): (&DeadFilter, &'r mut Revived, bool),
    record: &mut Record<'r>,
) -> rusqlite::Result<()> {
    let Revived { envelopes, last } = revived;
    let sql = format!("SELECT {} FROM dead WHERE {} ORDER BY seq LIMIT {AT_ONCE}", columns(), filter.sql());
    let mut statement = reader.prepare(&sql)?;
    let mut rows = statement.query(filter.values())?;
    let mut bytes = 0;
    while bytes < REVIVE_BYTES
        && let Some(found) = rows.next()?
    {
        let envelope = message_row::decode(found)?;
        bytes += envelope.message.content.len();
        envelopes.push(envelope);
    }
    let now = clock::now_ms();
    for envelope in &mut *envelopes {
        *last = envelope.seq.take().unwrap_or(*last);
        let (kept, forgotten): (Vec<_>, Vec<_>) = journal::calls_within(reader, *last)?
            .into_iter()
            .partition(|call| !repeats_calls || call.outcome.is_success());
        for call in forgotten {
            record.push(JournalRow::CallRemoved { seq: *last, hash: call.key.hash.0, nth: call.key.nth });
        }
        envelope.recorded = kept.into();
        (envelope.due, envelope.revived) = (Some(clock::steady_ms()), true);
        // That an operator wants it is a new cause, and the first.
        envelope.hops = 0;
        envelope.message.reply_by = envelope.message.reply_by.filter(|by| *by > now);
        // A new number: the row of the message as it was given up may still have the old one.
        envelope.seq = writer.keeps_messages.then(|| writer.next_seq());
        if let (Some(to), false) = (envelope.seq, envelope.recorded.is_empty()) {
            record.push(JournalRow::Moved { from: *last, to });
        }
        // After the journal has moved, which leaves with the dead letter otherwise.
        record.push(DeadRow::Removed { seq: *last });
    }
    writer.history.revived(envelopes.len() as u64);
    for envelope in &*envelopes {
        if let Some(seq) = envelope.seq {
            // The message as it was given up may still be there, and two have no place under one id.
            record.push(QueueRow::ReceiptRemoved { receipt: &envelope.message.id });
            message_row::push_message(record, envelope, seq, None);
        }
    }
    Ok(())
}

/// The part of an attempt that a list shows.
#[derive(Deserialize)]
struct Tried<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow)]
    revision: Cow<'a, str>,
}

/// A dead letter of a row with [`summary_columns`].
fn summary(found: &Row<'_>) -> rusqlite::Result<Dead> {
    let Envelope { message, .. } = message_row::decode(found)?;
    let attempts = found.get_ref(10)?.as_str()?;
    // A list is shown even if this version cannot read the attempts of one letter.
    let tried: Vec<Tried<'_>> = serde_json::from_str(attempts).unwrap_or_default();
    Ok(Dead {
        number: found.get::<_, i64>(0)?.cast_unsigned(),
        id: message.id,
        agent: message.receiver,
        sender: message.sender,
        performative: message.performative.to_string(),
        conversation: message.conversation_id,
        sent_at: message.sent_at,
        at: found.get::<_, i64>(7)?.cast_unsigned(),
        reason: found.get(8)?,
        error: found.get(9)?,
        tried: tried.len() as u64,
        code: tried.last().map(|tried| tried.code.clone().into_owned()),
        revision: tried.last().map(|tried| tried.revision.clone().into_owned()),
        content_type: message.content_type,
        bytes: found.get::<_, i64>(11)?.cast_unsigned(),
    })
}

/// Reads a dead letter of a row with its content.
fn in_full(found: &Row<'_>) -> rusqlite::Result<DeadInFull> {
    let Envelope { message, .. } = message_row::decode(found)?;
    let attempts = serde_json::from_str(found.get_ref(10)?.as_str()?).unwrap_or_default();
    let (headers, content, calls) = (message.headers, message.content, Box::default());
    Ok(DeadInFull { dead: summary(found)?, attempts, headers, content, calls })
}
