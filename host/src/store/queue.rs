//! Messages as they are kept: those that wait, those that are handled, those that are given up.

use std::collections::HashMap;
use std::hash::BuildHasher;

use caxton_control::mailbox::Rank;
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::Store;
use super::batch::INSERT_MESSAGE;
use super::commit::CommitError;
use super::row::{self, COLUMNS};
use crate::wasm::{Attempt, Envelope};

/// A message that waits, without what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Where it is kept.
    pub(crate) seq: u64,
    /// The hash of its conversation.
    pub(crate) conversation: u64,
    /// How urgent it is.
    pub(crate) rank: Rank,
    /// Not to be handled before, in milliseconds since 1970.
    pub(crate) due: Option<u64>,
    /// When it is tried again, if it was tried before.
    pub(crate) again_at: Option<u64>,
}

/// What became of a message that was taken from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Who got it.
    pub(crate) agent: String,
    /// The conversation that it is in.
    pub(crate) conversation: String,
    /// When it was accepted, in milliseconds since 1970.
    pub(crate) accepted_at: u64,
    /// When it was handled, and the number of the revision that did.
    pub(crate) handled: Option<(u64, u64)>,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Dead {
    /// The message's id.
    pub(crate) id: String,
    /// Names the dead letter, for `redeliver` and `drop`.
    pub(crate) number: u64,
    /// Who should have handled it.
    pub(crate) agent: String,
    /// Who sent it.
    pub(crate) sender: String,
    /// What it meant to do.
    pub(crate) performative: String,
    /// Its conversation.
    pub(crate) conversation: String,
    /// When it was sent, in milliseconds since 1970.
    pub(crate) sent_at: u64,
    /// When it was given up, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Why, as a stable code.
    pub(crate) reason: String,
    /// Why, for a person.
    pub(crate) error: String,
    /// The media type of its content.
    pub(crate) content_type: String,
    /// Bytes of its content.
    pub(crate) bytes: u64,
    /// How often it was tried.
    pub(crate) attempts: Vec<Attempt>,
}

/// Which dead letters are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeadFilter {
    /// Only this one.
    pub(crate) number: Option<u64>,
    /// Only this agent's.
    pub(crate) agent: Option<String>,
    /// Only those given up for this reason.
    pub(crate) reason: Option<String>,
    /// Only those after this number.
    pub(crate) after: u64,
}

impl DeadFilter {
    const SQL: &'static str =
        "(?1 IS NULL OR seq = ?1) AND (?2 IS NULL OR agent = ?2) AND (?3 IS NULL OR reason = ?3) AND seq > ?4";

    fn number(&self) -> Option<i64> {
        self.number.map(u64::cast_signed)
    }
}

/// Dead letters of one agent and reason, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeadCount {
    /// Whose.
    pub(crate) agent: String,
    /// Why they were given up.
    pub(crate) reason: String,
    /// How many.
    pub(crate) count: u64,
    /// Bytes of their contents.
    pub(crate) bytes: u64,
    /// When the oldest was given up, in milliseconds since 1970.
    pub(crate) oldest: u64,
}

/// A message of a thread.
#[derive(Debug)]
pub(crate) struct Threaded {
    /// The message.
    pub(crate) envelope: Envelope,
    /// When it was handled, and the number of the revision that did; 0 for one that was given up.
    pub(crate) handled: Option<(u64, u64)>,
}

impl Store {
    /// All messages that wait, by agent, in the order in which they were committed. `hasher` hashes their
    /// conversations.
    pub(crate) fn queued(&self, hasher: &impl BuildHasher) -> Result<HashMap<String, Vec<Queued>>, String> {
        self.with_reader(|connection| {
            let mut again: HashMap<i64, u64> = HashMap::new();
            let mut attempts = connection.prepare("SELECT seq, max(again_at) FROM attempt GROUP BY seq")?;
            let mut rows = attempts.query([])?;
            while let Some(row) = rows.next()? {
                again.insert(row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
            }
            let mut queued: HashMap<String, Vec<Queued>> = HashMap::new();
            let mut messages = connection.prepare(
                "SELECT seq, agent, conversation, rank, due FROM message AS m
                 WHERE NOT EXISTS (SELECT 1 FROM ack WHERE ack.seq = m.seq) ORDER BY seq",
            )?;
            let mut rows = messages.query([])?;
            while let Some(found) = rows.next()? {
                let seq: i64 = found.get(0)?;
                let agent = found.get_ref(1)?.as_str()?;
                let message = Queued {
                    seq: seq.cast_unsigned(),
                    conversation: hasher.hash_one(found.get_ref(2)?.as_str()?),
                    rank: row::rank(found.get(3)?),
                    due: found.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                    again_at: again.get(&seq).copied(),
                };
                match queued.get_mut(agent) {
                    Some(messages) => messages.push(message),
                    None => drop(queued.insert(agent.to_owned(), vec![message])),
                }
            }
            Ok(queued)
        })
    }

    /// A message that waits, with the attempts made.
    pub(crate) fn message(&self, seq: u64) -> Result<Option<Envelope>, String> {
        self.with_reader(|connection| {
            let envelope = connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM message WHERE seq = ?1"))?
                .query_row([seq.cast_signed()], row::decode)
                .optional()?;
            let Some(mut envelope) = envelope else { return Ok(None) };
            let mut attempts =
                connection.prepare_cached("SELECT attempt FROM attempt WHERE seq = ?1 ORDER BY number")?;
            let rows = attempts.query_map([seq.cast_signed()], |row| row.get::<_, String>(0))?;
            for text in rows {
                envelope.failed.extend(serde_json::from_str::<Attempt>(&text?).ok());
            }
            Ok(Some(envelope))
        })
    }

    /// What became of a message that was taken from outside; none if it is not known, or was given up.
    pub(crate) fn kept(&self, id: &str) -> Result<Option<Kept>, String> {
        self.with_reader(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS}, (SELECT at FROM ack WHERE ack.seq = m.seq),
                        (SELECT revision FROM ack WHERE ack.seq = m.seq)
                     FROM message AS m WHERE receipt = ?1"
                ))?
                .query_row([id], |found| {
                    let envelope = row::decode(found)?;
                    let handled = match (found.get::<_, Option<i64>>(7)?, found.get::<_, Option<i64>>(8)?) {
                        (Some(at), Some(revision)) => Some((at.cast_unsigned(), revision.cast_unsigned())),
                        _ => None,
                    };
                    Ok(Kept {
                        agent: envelope.message.receiver,
                        conversation: envelope.message.conversation_id,
                        accepted_at: envelope.message.sent_at,
                        handled,
                    })
                })
                .optional()
        })
    }

    /// Dead letters in order of their numbers, at most so many.
    pub(crate) fn dead(&self, filter: &DeadFilter, limit: u32) -> Result<Vec<Dead>, String> {
        self.with_reader(|connection| {
            let sql = format!(
                "SELECT {COLUMNS}, at, reason, error, attempts FROM dead WHERE {} ORDER BY seq LIMIT ?5",
                DeadFilter::SQL
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let values = params![filter.number(), filter.agent, filter.reason, filter.after.cast_signed(), limit];
            statement.query_map(values, |row| read_dead(row).map(|(dead, _)| dead))?.collect()
        })
    }

    /// A dead letter with its content.
    pub(crate) fn dead_letter(&self, number: u64) -> Result<Option<(Dead, Vec<u8>)>, String> {
        self.with_reader(|connection| {
            let sql = format!("SELECT {COLUMNS}, at, reason, error, attempts FROM dead WHERE seq = ?1");
            connection.prepare_cached(&sql)?.query_row([number.cast_signed()], read_dead).optional()
        })
    }

    /// The dead letter of a message, by the message's id, among the newest.
    pub(crate) fn dead_of(&self, id: &str) -> Result<Option<Dead>, String> {
        self.with_reader(|connection| {
            let sql = format!("SELECT {COLUMNS}, at, reason, error, attempts FROM dead ORDER BY seq DESC LIMIT 10000");
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (dead, _) = read_dead(row)?;
                if dead.id == id {
                    return Ok(Some(dead));
                }
            }
            Ok(None)
        })
    }

    /// Dead letters by agent and reason.
    pub(crate) fn dead_counts(&self) -> Result<Vec<DeadCount>, String> {
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT agent, reason, count(*), sum(length(content)), min(at) FROM dead GROUP BY agent, reason",
            )?;
            let rows = statement.query_map([], |row| {
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

    /// Takes dead letters out and lets them wait again, for the agent that they were for. Gives them as they wait.
    pub(crate) async fn revive(&self, filter: DeadFilter, limit: u32) -> Result<Vec<Envelope>, CommitError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.change(move |transaction, counters| {
            let sql = format!("SELECT {COLUMNS} FROM dead WHERE {} ORDER BY seq LIMIT ?5", DeadFilter::SQL);
            let values = params![filter.number(), filter.agent, filter.reason, filter.after.cast_signed(), limit];
            let mut envelopes: Vec<Envelope> =
                transaction.prepare_cached(&sql)?.query_map(values, row::decode)?.collect::<rusqlite::Result<_>>()?;
            let mut insert = transaction.prepare_cached(INSERT_MESSAGE)?;
            let mut forget = transaction.prepare_cached("DELETE FROM dead WHERE seq = ?1")?;
            for envelope in &mut envelopes {
                forget.execute([envelope.seq.unwrap_or(0).cast_signed()])?;
                envelope.seq = None;
                if counters.keeps_messages {
                    counters.insert(&mut insert, envelope)?;
                }
            }
            counters.history.revived(envelopes.len() as u64);
            // Who asked may be gone.
            let _ = sender.send(envelopes);
            Ok(())
        })
        .await?;
        receiver.await.map_err(|_| CommitError::Store("its writer ended".to_owned()))
    }

    /// Forgets dead letters. Gives how many there were.
    pub(crate) async fn forget_dead(&self, filter: DeadFilter) -> Result<u64, CommitError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.change(move |transaction, counters| {
            let sql = format!("DELETE FROM dead WHERE {}", DeadFilter::SQL);
            let values = params![filter.number(), filter.agent, filter.reason, filter.after.cast_signed()];
            let count = transaction.prepare_cached(&sql)?.execute(values)? as u64;
            counters.history.revived(count);
            let _ = sender.send(count);
            Ok(())
        })
        .await?;
        receiver.await.map_err(|_| CommitError::Store("its writer ended".to_owned()))
    }

    /// The messages of a conversation that are still kept, the newest so many, in the order of their commit.
    pub(crate) fn thread(&self, conversation: &str, limit: u32) -> Result<Vec<Threaded>, String> {
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, (SELECT at FROM ack WHERE ack.seq = m.seq),
                    (SELECT revision FROM ack WHERE ack.seq = m.seq)
                 FROM message AS m WHERE conversation = ?1 ORDER BY seq DESC LIMIT ?2"
            ))?;
            let rows = statement.query_map(params![conversation, limit], |found| {
                let at: Option<i64> = found.get(7)?;
                let revision: Option<i64> = found.get(8)?;
                let handled = at.map(|at| (at.cast_unsigned(), revision.unwrap_or(0).cast_unsigned()));
                Ok(Threaded { envelope: row::decode(found)?, handled })
            })?;
            let mut thread: Vec<Threaded> = rows.collect::<rusqlite::Result<_>>()?;
            thread.reverse();
            Ok(thread)
        })
    }

    /// Agents whose mailbox an operator has paused.
    pub(crate) fn paused(&self) -> Result<Vec<String>, String> {
        self.with_reader(|connection| {
            connection.prepare_cached("SELECT agent FROM paused")?.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Keeps whether a mailbox is paused.
    pub(crate) async fn keep_paused(&self, agent: String, paused: bool) -> Result<(), CommitError> {
        self.change(move |transaction, _| {
            let sql =
                if paused { "INSERT OR IGNORE INTO paused VALUES (?1)" } else { "DELETE FROM paused WHERE agent = ?1" };
            transaction.prepare_cached(sql)?.execute([agent]).map(|_| ())
        })
        .await
    }

    /// When a schedule fired last, in milliseconds since 1970.
    pub(crate) fn fired_at(&self, agent: &str, schedule: &str) -> Result<Option<u64>, String> {
        self.with_reader(|connection| {
            connection
                .prepare_cached("SELECT fired_at FROM schedule WHERE agent = ?1 AND schedule = ?2")?
                .query_row([agent, schedule], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
                .optional()
        })
    }

    /// Messages that were accepted and neither handled nor given up, and those that were given up and are kept.
    pub(crate) fn counts(&self) -> Result<(u64, u64), String> {
        self.with_reader(|connection| {
            let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
            Ok((
                count("SELECT (SELECT count(*) FROM message) - (SELECT count(*) FROM ack)")?,
                count("SELECT count(*) FROM dead")?,
            ))
        })
    }
}

/// A dead letter of a row with [`COLUMNS`] and what only they have, with its content.
fn read_dead(found: &Row<'_>) -> rusqlite::Result<(Dead, Vec<u8>)> {
    let Envelope { message, .. } = row::decode(found)?;
    let attempts: String = found.get(10)?;
    let dead = Dead {
        id: message.id,
        number: found.get::<_, i64>(0)?.cast_unsigned(),
        agent: message.receiver,
        sender: message.sender,
        performative: crate::wasm::act(message.performative).to_string(),
        conversation: message.conversation_id,
        sent_at: message.sent_at,
        at: found.get::<_, i64>(7)?.cast_unsigned(),
        reason: found.get(8)?,
        error: found.get(9)?,
        content_type: message.content_type,
        bytes: message.content.len() as u64,
        attempts: serde_json::from_str(&attempts).unwrap_or_default(),
    };
    Ok((dead, message.content))
}
