//! The last messages of an agent: those that are kept for rehearsals, or else what the history has.

use std::sync::Arc;

use rusqlite::params;

use crate::message::Envelope;
use crate::store::handles::RecentTable;
use crate::store::record::RecentRow;
use crate::store::turn::Turn;
use crate::store::writer::message_row::{self, columns};

/// A message that was handled well.
#[derive(Debug)]
pub(crate) struct RecentMessage {
    /// The message.
    pub(crate) envelope: Envelope,
    /// The answer that was given to it, as the agent encodes it; none if there was none, or it was not kept.
    pub(crate) answer: Option<Vec<u8>>,
    /// What its calls over HTTP were answered, as the agent encodes it.
    pub(crate) calls: Option<Vec<u8>>,
}

/// The columns of a message that is kept, in the order of [`columns`].
const KEPT: &str = "seq, agent, conversation, rank, due, head, content";
/// The place of the answer, after [`KEPT`].
const ANSWER: usize = 7;
/// The place of the calls.
const CALLS: usize = 8;
/// The bytes of messages and answers that are read for one rehearsal.
const MAX_BYTES: usize = 64 << 20;

impl RecentTable<'_> {
    /// Keeps a message that was handled well as number `seq` of its agent, and forgets those before `first`. Nobody
    /// waits: whether it is kept changes nothing of what was told.
    pub(crate) fn keep(
        self,
        (seq, first): (u64, u64),
        envelope: Box<Envelope>,
        answer: Option<Vec<u8>>,
        calls: Option<Vec<u8>>,
    ) {
        let size = |kept: &Option<Vec<u8>>| kept.as_ref().map_or(0, Vec::len);
        let bytes = envelope.message.content.len() + size(&answer) + size(&calls);
        let turn = Turn::OfAgent(envelope.message.receiver.as_str().into(), bytes as u64);
        self.0.queue_change(turn, (envelope, answer, calls), move |(envelope, answer, calls), _, _, record| {
            let message = &envelope.message;
            let agent = message.receiver.as_str();
            let head = record.push_head(|heads| message_row::encode(envelope, heads));
            record.push(RecentRow::Removed { agent, before: first.cast_signed() });
            record.push(RecentRow::Set {
                agent,
                seq,
                conversation: &message.conversation_id,
                rank: message.priority as u8,
                head,
                content: &message.content,
                answer: answer.as_deref(),
            });
            if let Some(calls) = calls {
                record.push(RecentRow::Calls { agent, seq, calls });
            }
            Ok(())
        });
    }

    /// Forgets the messages that are kept of an agent.
    pub(crate) fn forget(self, agent: Arc<str>) {
        self.0.queue_change(Turn::of(&agent), agent, |agent, _, _, record| {
            record.push(RecentRow::Removed { agent, before: i64::MAX });
            Ok(())
        });
    }

    /// The agents of which messages are kept. Takes time in proportion to them, and not to their messages.
    pub(crate) fn agents(self) -> Result<Vec<String>, String> {
        self.0.with_reader(|connection| {
            // Jumps from agent to agent in the index, where DISTINCT would read every row.
            let mut agents = connection.prepare(
                "WITH RECURSIVE known (agent) AS (
                     SELECT min(agent) FROM recent
                     UNION ALL SELECT (SELECT min(agent) FROM recent WHERE agent > known.agent) FROM known
                     WHERE agent IS NOT NULL
                 ) SELECT agent FROM known WHERE agent IS NOT NULL",
            )?;
            agents.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// The numbers of the messages that are kept of an agent, the oldest first, with the bytes of each
    /// and of its answer.
    pub(crate) fn sizes(self, agent: &str) -> Result<Vec<(u64, usize)>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached(
                    "SELECT seq, length(content) + coalesce(length(answer), 0) + coalesce(length(calls), 0) FROM recent
                     WHERE agent = ?1 ORDER BY seq",
                )?
                .query_map([agent], |row| {
                    Ok((row.get::<_, i64>(0)?.cast_unsigned(), usize::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
                })?
                .collect()
        })
    }

    /// The last messages that an agent handled well, the oldest first: at most so many, and not more than fit into
    /// memory. Blocks; without any that are kept for this it looks through the history, or the last `looks` messages of
    /// all agents in it.
    pub(crate) fn list(self, agent: &str, limit: u32, looks: Option<u32>) -> Result<Vec<RecentMessage>, String> {
        let kept = format!("SELECT {KEPT}, answer, calls FROM recent WHERE agent = ?1 ORDER BY seq DESC LIMIT ?2");
        let history = format!(
            "SELECT {}, NULL, NULL FROM message JOIN ack USING (seq)
             WHERE seq > {} AND agent = ?1 AND ack.revision <> 0 ORDER BY seq DESC LIMIT ?2",
            columns(),
            looks.map_or("0".to_owned(), |looks| format!("(SELECT max(seq) FROM message) - {looks}"))
        );
        self.0.with_reader(|connection| {
            let read = |sql: &str| -> rusqlite::Result<Vec<RecentMessage>> {
                let (mut found, mut bytes) = (Vec::new(), 0);
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(params![agent, limit])?;
                while let Some(row) = rows.next()? {
                    let (envelope, answer) = (message_row::decode(row)?, row.get::<_, Option<Vec<u8>>>(ANSWER)?);
                    let calls = row.get::<_, Option<Vec<u8>>>(CALLS)?;
                    let size = |kept: &Option<Vec<u8>>| kept.as_ref().map_or(0, Vec::len);
                    bytes += envelope.message.content.len() + size(&answer) + size(&calls);
                    // The whole list is held in memory while the rehearsal runs.
                    if bytes > MAX_BYTES {
                        break;
                    }
                    found.push(RecentMessage { envelope, answer, calls });
                }
                // Read from the newest on, so that the bound on bytes leaves out the oldest.
                found.reverse();
                Ok(found)
            };
            let found = read(&kept)?;
            if found.is_empty() { read(&history) } else { Ok(found) }
        })
    }
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use crate::store::Store;
    use crate::store::tests::{message, opened, settings};

    #[tokio::test]
    async fn the_last_messages_are_those_that_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let ids = |store: &Store, limit| -> Vec<String> {
            let found = store.recent().list("desk", limit, None).unwrap();
            found.into_iter().map(|handled| handled.envelope.message.id).collect()
        };
        assert_eq!(ids(&store, 9), Vec::<String>::new());
        assert_eq!(store.recent().agents(), Ok(Vec::new()));
        for seq in 1..=5_u64 {
            let envelope = message(&format!("m-{seq}"), "http:POST /", "desk");
            store.recent().keep((seq, seq.saturating_sub(2)), Box::new(envelope), (seq > 3).then(|| vec![9; 4]), None);
        }
        store.recent().keep((1, 1), Box::new(message("other", "http:POST /", "triage")), None, Some(vec![1; 7]));
        store.flush().await.unwrap();
        assert_eq!(store.recent().agents(), Ok(vec!["desk".to_owned(), "triage".to_owned()]));
        assert_eq!(ids(&store, 9), ["m-3", "m-4", "m-5"]);
        assert_eq!(ids(&store, 2), ["m-4", "m-5"]);
        drop(store);
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let numbers: Vec<u64> = store.recent().sizes("desk").unwrap().into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(numbers, [3, 4, 5], "after opening again");
        let sizes: Vec<usize> = store.recent().sizes("desk").unwrap().into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(sizes[1], sizes[0] + 4, "with the answers");
        let answers: Vec<_> =
            store.recent().list("desk", 9, None).unwrap().into_iter().map(|handled| handled.answer).collect();
        assert_eq!(answers, [None, Some(vec![9; 4]), Some(vec![9; 4])]);
        store.recent().forget("desk".into());
        store.flush().await.unwrap();
        assert_eq!((ids(&store, 9).len(), store.recent().list("triage", 9, None).unwrap().len()), (0, 1));
    }
}
