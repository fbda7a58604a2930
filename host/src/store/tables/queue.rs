//! Messages as they are kept: those that wait, those that are handled, those that are given up.

use std::collections::HashMap;
use std::hash::BuildHasher;

use caxton_control::mailbox::Priority;
use rusqlite::{OptionalExtension, params};

use crate::clock;
use crate::message::{Attempt, Envelope};
use crate::store::commit::CommitError;
use crate::store::handles::QueueTable;
use crate::store::record::QueueRow;
use crate::store::tables::{journal, timers};
use crate::store::turn::Turn;
use crate::store::writer::message_row::{self, columns};

/// A message that waits, without what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    /// The sequence number.
    pub(crate) seq: u64,
    /// The hash of its conversation.
    pub(crate) conversation: u64,
    /// The urgency.
    pub(crate) rank: Priority,
    /// The time since which it waits: when it was sent or due, by the steady clock; `None` if that cannot be read.
    pub(crate) since: Option<u64>,
    /// The time after which its answer is of no use, in milliseconds since 1970.
    pub(crate) reply_by: Option<u64>,
    /// The time of its next attempt, by the steady clock, if it was tried before.
    pub(crate) again_at: Option<u64>,
}

/// The state of a message that was accepted from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The sequence number; also the number of its dead letter, if it was given up.
    pub(crate) seq: u64,
    /// The receiver.
    pub(crate) agent: String,
    /// The conversation that it is in.
    pub(crate) conversation: String,
    /// The time at which it was accepted, in milliseconds since 1970.
    pub(crate) accepted_at: u64,
    /// The time at which it was handled, and the number of the revision that did.
    pub(crate) handled: Option<(u64, u64)>,
}

/// A message of a thread.
#[derive(Debug)]
pub(crate) struct Threaded {
    /// The message.
    pub(crate) envelope: Envelope,
    /// The time at which it was handled, and the number of the revision that did; 0 for one that was given up.
    pub(crate) handled: Option<(u64, u64)>,
    /// The number of runs of its handler in the attempt that handled it.
    pub(crate) runs: u32,
}

/// Selects the messages of conversation `?1`, the newest `?2`; none has a lower sequence number than `?3`. The first
/// message of one that came from outside may have its id for its name.
fn thread_sql() -> String {
    format!(
        "SELECT {}, (SELECT at FROM ack WHERE ack.seq = m.seq), (SELECT revision FROM ack WHERE ack.seq = m.seq),
             (SELECT runs FROM ack WHERE ack.seq = m.seq)
         FROM message AS m
         WHERE conversation = ?1 AND seq >= max(
             ?3,
             coalesce((SELECT began FROM conversation WHERE name = ?1), 0),
             coalesce((SELECT seq FROM message WHERE receipt = ?1), 0))
         ORDER BY seq DESC LIMIT ?2",
        columns()
    )
}

impl QueueTable<'_> {
    /// Returns all messages that wait, by agent, in the order in which they were committed. `hasher` hashes their
    /// conversations.
    pub(crate) fn queued(self, hasher: &impl BuildHasher) -> Result<HashMap<String, Vec<Queued>>, String> {
        self.0.with_reader(|connection| {
            // Read first and as a whole: few messages have attempts, and a look-up for each would cost a start.
            let mut again: HashMap<i64, u64> = HashMap::new();
            let mut attempts = connection.prepare("SELECT seq, max(again_at) FROM attempt GROUP BY seq")?;
            let mut rows = attempts.query([])?;
            while let Some(row) = rows.next()? {
                again.insert(row.get(0)?, clock::from_wall(row.get::<_, i64>(1)?.cast_unsigned()));
            }
            let mut queued: HashMap<String, Vec<Queued>> = HashMap::new();
            let mut messages = connection.prepare(
                "SELECT seq, agent, conversation, rank, due, head FROM message AS m
                 WHERE NOT EXISTS (SELECT 1 FROM ack WHERE ack.seq = m.seq) ORDER BY seq",
            )?;
            let mut rows = messages.query([])?;
            while let Some(found) = rows.next()? {
                let seq: i64 = found.get(0)?;
                let agent = found.get_ref(1)?.as_str()?;
                let due = found.get::<_, Option<i64>>(4)?.map(|due| clock::from_wall(due.cast_unsigned()));
                let times = message_row::times(found.get_ref(5)?.as_blob()?);
                let message = Queued {
                    seq: seq.cast_unsigned(),
                    conversation: hasher.hash_one(found.get_ref(2)?.as_str()?),
                    rank: message_row::rank(found.get(3)?),
                    since: times.map(|(sent_at, _)| clock::from_wall(sent_at).max(due.unwrap_or(0))),
                    reply_by: times.and_then(|(_, reply_by)| reply_by),
                    again_at: again.get(&seq).copied(),
                };
                // Not by `entry`, which would allocate the name of the agent for every message.
                match queued.get_mut(agent) {
                    Some(messages) => messages.push(message),
                    None => drop(queued.insert(agent.to_owned(), vec![message])),
                }
            }
            Ok(queued)
        })
    }

    /// Returns a message that waits, with the attempts made.
    pub(crate) fn message(self, seq: u64) -> Result<Option<Envelope>, String> {
        self.0.with_reader(|connection| {
            let envelope = connection
                .prepare_cached(&format!("SELECT {}, revived FROM message WHERE seq = ?1", columns()))?
                .query_row([seq.cast_signed()], |row| {
                    Ok(Envelope { revived: row.get(7)?, ..message_row::decode(row)? })
                })
                .optional()?;
            let Some(mut envelope) = envelope else { return Ok(None) };
            let mut attempts =
                connection.prepare_cached("SELECT attempt FROM attempt WHERE seq = ?1 ORDER BY number")?;
            let rows = attempts.query_map([seq.cast_signed()], |row| row.get::<_, String>(0))?;
            for text in rows {
                // An attempt that this version cannot read is left out: the message still has to be handled.
                envelope.failed.extend(serde_json::from_str::<Attempt>(&text?).ok());
            }
            envelope.recorded = journal::calls(connection, seq.cast_signed())?;
            Ok(Some(envelope))
        })
    }

    /// Returns the state of a message that was accepted from outside; `None` if it is not known.
    pub(crate) fn accepted(self, id: &str) -> Result<Option<Kept>, String> {
        self.0.with_reader(|connection| {
            let find = |sql: String| connection.prepare_cached(&sql)?.query_row([id], read_kept).optional();
            let message = find(format!(
                "SELECT {}, (SELECT at FROM ack WHERE ack.seq = m.seq),
                    (SELECT revision FROM ack WHERE ack.seq = m.seq)
                 FROM message AS m WHERE receipt = ?1",
                columns()
            ))?;
            match message {
                Some(kept) => Ok(Some(kept)),
                // A dead letter may be kept for longer than what was handled at the time.
                None => {
                    find(format!("SELECT {}, at, 0 FROM dead WHERE receipt = ?1 ORDER BY seq DESC LIMIT 1", columns()))
                }
            }
        })
    }

    /// Returns the newest `limit` messages of a conversation that are still kept, in the order of their commit.
    ///
    /// Looks through those that were committed since the conversation began, as far as that is known, and else through
    /// all: an index would cost each message a quarter of the writer's time.
    pub(crate) fn thread(self, conversation: &str, limit: u32) -> Result<Vec<Threaded>, String> {
        let first_seq = self.0.gate.first_seq(conversation).cast_signed();
        self.0.with_reader(|connection| {
            let mut statement = connection.prepare_cached(&thread_sql())?;
            let rows = statement.query_map(params![conversation, limit, first_seq], |found| {
                let at: Option<i64> = found.get(7)?;
                let revision: Option<i64> = found.get(8)?;
                let handled = at.map(|at| (at.cast_unsigned(), revision.unwrap_or(0).cast_unsigned()));
                let runs = found.get::<_, Option<u32>>(9)?.unwrap_or(0);
                Ok(Threaded { envelope: message_row::decode(found)?, handled, runs })
            })?;
            let mut thread: Vec<Threaded> = rows.collect::<rusqlite::Result<_>>()?;
            let timers = timers::of_conversation(connection, conversation, first_seq, limit)?;
            thread.extend(timers.into_iter().map(|envelope| Threaded { envelope, handled: None, runs: 0 }));
            thread.sort_unstable_by_key(|one| one.envelope.seq);
            // Messages and timers have `limit` each, so together they may be too many.
            thread.drain(..thread.len().saturating_sub(limit as usize));
            Ok(thread)
        })
    }

    /// Returns the agents whose mailbox an operator has paused.
    pub(crate) fn paused(self) -> Result<Vec<String>, String> {
        self.0.with_reader(|connection| {
            connection.prepare_cached("SELECT agent FROM paused")?.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Keeps whether a mailbox is paused.
    pub(crate) async fn set_paused(self, agent: String, paused: bool) -> Result<(), CommitError> {
        let set = self.0.change(Turn::AfterAll, agent, move |agent, _, _, record| {
            record.push(match paused {
                true => QueueRow::MailboxPaused { agent },
                false => QueueRow::MailboxResumed { agent },
            });
            Ok(())
        });
        set.await.map(drop)
    }

    /// Returns the time for which a schedule fired last, in milliseconds since 1970.
    pub(crate) fn fired_at(self, agent: &str, schedule: &str) -> Result<Option<u64>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached("SELECT fired_at FROM schedule WHERE agent = ?1 AND schedule = ?2")?
                .query_row([agent, schedule], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
                .optional()
        })
    }
}

fn read_kept(row: &rusqlite::Row<'_>) -> rusqlite::Result<Kept> {
    let envelope = message_row::decode(row)?;
    let handled = match (row.get::<_, Option<i64>>(7)?, row.get::<_, Option<i64>>(8)?) {
        (Some(at), Some(revision)) => Some((at.cast_unsigned(), revision.cast_unsigned())),
        _ => None,
    };
    Ok(Kept {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        agent: envelope.message.receiver,
        conversation: envelope.message.conversation_id,
        accepted_at: envelope.message.sent_at,
        handled,
    })
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::*;
    use crate::store::Store;
    use crate::store::tests::{kept, message, opened, settings};

    #[tokio::test]
    async fn a_thread_is_read_from_where_its_conversation_began() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let in_conversation = |id: &str, from: &str, name: &str| {
            let mut envelope = message(id, from, "desk");
            envelope.message.conversation_id = name.to_owned();
            envelope
        };
        for (id, from, name) in [
            ("m-1", "http:POST /", "m-1"),
            ("m-2", "triage", "m-2"),
            ("m-3", "triage", "named"),
            ("m-4", "http:POST /", "m-4"),
            ("m-5", "desk", "m-1"),
            ("m-6", "desk", "m-2"),
            ("m-7", "desk", "named"),
        ] {
            kept(&store, in_conversation(id, from, name)).await;
        }
        let threads = |store: &Store| {
            ["m-1", "m-2", "named", "m-4", "none"].map(|name| {
                let thread = store.queue().thread(name, 9).unwrap();
                thread.into_iter().map(|found| found.envelope.message.id).collect::<Vec<_>>().join(" ")
            })
        };
        let expected = ["m-1 m-5", "m-2 m-6", "m-3 m-7", "m-4", ""];
        assert_eq!(threads(&store), expected);
        let first_seqs = |store: &Store| ["m-1", "m-2", "named", "m-4", "none"].map(|name| store.gate.first_seq(name));
        assert_eq!(first_seqs(&store), [1, 2, 0, 4, 0]);
        drop(store);
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        assert_eq!(threads(&store), expected, "after opening again");
        assert_eq!(first_seqs(&store), [1, 2, 0, 0, 0], "m-4 had nothing but a message from outside");
        kept(&store, in_conversation("m-8", "desk", "m-4")).await;
        assert_eq!(threads(&store)[3], "m-4 m-8");
        let plan: Vec<String> = store
            .with_reader(|connection| {
                let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", thread_sql()))?;
                plan.query_map(params!["m-1", 9, 1], |row| row.get(3))?.collect()
            })
            .unwrap();
        let reads: Vec<&String> =
            plan.iter().filter(|step| step.contains(" m ") || step.contains(" message ")).collect();
        assert_eq!(
            reads,
            [
                "SEARCH m USING INTEGER PRIMARY KEY (rowid>?)",
                "SEARCH message USING COVERING INDEX message_receipt (receipt=?)"
            ],
            "{plan:?}"
        );
    }
}
