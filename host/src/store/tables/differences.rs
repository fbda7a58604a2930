//! The differences between the answers to copies of messages, by rollout: number 0 has what differs by nature, each
//! other number one message.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use crate::store::handles::RolloutTable;
use crate::store::record::RolloutRow;
use crate::store::turn::Turn;

/// The rollouts of an agent whose differences are kept: as many as its ledger remembers.
const ROLLOUTS: u64 = caxton_control::rollout::MAX_ROLLOUTS as u64;

impl RolloutTable<'_> {
    /// Keeps one record of an agent's rollout in place of what has its number. Returns at
    /// once.
    pub(crate) fn keep_difference(self, agent: Arc<str>, rollout: u64, number: u64, record: String) {
        self.0.queue_change(Turn::of(&agent), (agent, record), move |(agent, record), _, _, rows| {
            // Those of rollouts that the ledger has forgotten leave with the next write.
            let up_to = rollout.saturating_sub(ROLLOUTS).cast_signed();
            rows.push(RolloutRow::DifferencesRemoved { agent, up_to });
            rows.push(RolloutRow::Difference { agent, rollout, number, record });
            Ok(())
        });
    }

    /// Returns the number of messages of a rollout that are kept, and their bytes.
    pub(crate) fn differences_size(self, agent: &str, rollout: u64) -> Result<(u64, u64), String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached(
                    "SELECT coalesce(max(number), 0), coalesce(sum(length(record)), 0) FROM difference
                     WHERE agent = ?1 AND rollout = ?2 AND number > 0",
                )?
                .query_row(params![agent, rollout.cast_signed()], |row| {
                    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
                })
        })
    }

    /// The newest rollout of an agent of which something is kept.
    pub(crate) fn newest_difference(self, agent: &str) -> Result<Option<u64>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached("SELECT max(rollout) FROM difference WHERE agent = ?1")?
                .query_row([agent], |row| row.get::<_, Option<i64>>(0))
                .optional()
                .map(|newest| newest.flatten().map(i64::cast_unsigned))
        })
    }

    /// Returns what is kept of a rollout, by number.
    pub(crate) fn differences(self, agent: &str, rollout: u64) -> Result<Vec<(u64, String)>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached(
                    "SELECT number, record FROM difference WHERE agent = ?1 AND rollout = ?2 ORDER BY number",
                )?
                .query_map(params![agent, rollout.cast_signed()], |row| {
                    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
                })?
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::*;
    use crate::store::tests::{opened, settings};

    #[tokio::test]
    async fn differences_are_kept_as_long_as_their_rollout_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let keep = |agent: &str, rollout, number, text: &str| {
            store.rollouts().keep_difference(agent.into(), rollout, number, text.to_owned());
        };
        keep("desk", 1, 1, "one");
        keep("desk", 1, 0, "by nature");
        keep("desk", 1, 2, "two");
        keep("desk", 1, 1, "one again");
        keep("triage", 7, 1, "another's");
        store.flush().await.unwrap();
        let found = store.rollouts().differences("desk", 1).unwrap();
        let found: Vec<(u64, &str)> = found.iter().map(|(number, text)| (*number, text.as_str())).collect();
        assert_eq!(found, [(0, "by nature"), (1, "one again"), (2, "two")]);
        assert_eq!(store.rollouts().differences_size("desk", 1), Ok((2, 12)));
        assert_eq!(store.rollouts().differences_size("desk", 2), Ok((0, 0)));
        keep("desk", ROLLOUTS, 1, "later");
        store.flush().await.unwrap();
        assert_eq!(
            (store.rollouts().newest_difference("desk"), store.rollouts().newest_difference("bert")),
            (Ok(Some(ROLLOUTS)), Ok(None))
        );
        assert_eq!(store.rollouts().differences("desk", 1).unwrap().len(), 3);
        keep("desk", ROLLOUTS + 1, 1, "later still");
        store.flush().await.unwrap();
        assert_eq!(store.rollouts().differences("desk", 1), Ok(Vec::new()));
        store.rollouts().keep_ledger("desk".into(), None);
        store.flush().await.unwrap();
        assert_eq!(
            (store.rollouts().newest_difference("desk"), store.rollouts().newest_difference("triage")),
            (Ok(None), Ok(Some(7)))
        );
    }
}
