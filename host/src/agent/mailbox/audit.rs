//! The audit of accepted messages: how many are neither handled, given up, waiting nor in hand. It has to be none.
//!
//! Each message that the store has neither as handled nor as given up has to be in the mailbox or in hand.
//! Messages go from one to the other while they are looked for, so those that are not found in the mailbox are looked
//! for again, in the store and in the mailbox, until no handling can have had them in hand for so long.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::agent::mailbox::Intake;
use crate::agent::mailbox::entry::QueuedMessage;

/// The number of waiting messages above which the audit does not look for each.
const MOST: usize = 1_000_000;
/// The time that a message may be in hand beyond the limit of its handling: until its commit is durable.
const COMMITTED_IN: Duration = Duration::from_secs(30);
/// The first and the longest pause between two looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

impl Agent {
    /// Returns the places of lost messages that were accepted after the place `after`; `None` if the agent or the host
    /// ends meanwhile, which releases all. Takes as long as the messages that are in hand.
    pub(crate) async fn find_lost(self: &Arc<Self>, after: u64) -> Result<Option<Vec<u64>>, String> {
        self.find_lost_in(after, self.longest_in_hand()).await
    }

    /// Finds lost messages where none is in hand for longer than `in_hand`.
    async fn find_lost_in(self: &Arc<Self>, after: u64, in_hand: Duration) -> Result<Option<Vec<u64>>, String> {
        let agent = Arc::clone(self);
        let mut missing =
            blocking(move || agent.context.store.queue().unhandled_after(agent.name.as_str(), after, MOST)).await?;
        // A bound on memory; a mailbox of that length is no sign of a loss.
        if missing.len() == MOST {
            return Err(format!("{MOST} messages or more wait"));
        }
        // An empty commit: once it is durable, all that was accepted before is in the mailbox.
        self.commit(None, Vec::new()).await.map_err(|error| error.to_string())?;
        let until = Instant::now() + in_hand;
        let mut pause = PAUSE.0;
        loop {
            if !missing.is_empty() && !self.remove_waiting(&mut missing) {
                return Ok(None);
            }
            let agent = Arc::clone(self);
            // The store second: a message that was handled between the two looks is found there.
            missing = blocking(move || agent.context.store.queue().still_unhandled(&missing)).await?;
            if missing.is_empty() || Instant::now() >= until {
                return Ok(Some(missing));
            }
            // Doubled: most are found at once, and those in hand may take as long as a handler may.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Returns the longest time that a message can be in hand.
    fn longest_in_hand(&self) -> Duration {
        let limits = self.serving().into_iter().map(|revision| revision.spec.limits.time);
        limits.chain([self.spec.load().limits.time]).max().unwrap_or_default() + COMMITTED_IN
    }

    /// Removes those that wait in the mailbox. Returns `false` if the mailbox was released.
    fn remove_waiting(&self, missing: &mut Vec<u64>) -> bool {
        let state = self.mailbox.lock();
        if state.is_stopping || matches!(state.intake, Intake::Closed(_)) {
            return false;
        }
        let seq_of = |entry: &QueuedMessage| match entry {
            QueuedMessage::InMemory(envelope) => envelope.seq,
            QueuedMessage::Stored(stored) => Some(stored.seq),
        };
        let waiting: HashSet<u64> = state.queue.messages().filter_map(seq_of).collect();
        // Released first: comparing a million places takes long.
        drop(state);
        missing.retain(|seq| !waiting.contains(seq));
        true
    }
}

/// Reads the store on a thread for blocking work.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tests::{agent, sent};
    use crate::message::Deliver;

    #[tokio::test]
    async fn a_message_that_nobody_has_is_lost_and_one_that_waits_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(&folder, "");
        let before = sent(&agent, "m-0", 0).await.seq.unwrap();
        assert_eq!(agent.context.store.queue().last_seq(), Ok(before));
        let waits = sent(&agent, "m-1", 0).await;
        let in_hand = Duration::from_millis(50);
        agent.mailbox.lock().queue.reserve_beyond();
        agent.put(waits);
        assert_eq!(agent.find_lost_in(before, in_hand).await, Ok(Some(Vec::new())));
        // It is accepted, and never comes to the mailbox.
        let lost = sent(&agent, "m-2", 0).await.seq.unwrap();
        assert_eq!(agent.find_lost_in(before, in_hand).await, Ok(Some(vec![lost])));
        // One that is given up is not.
        let given_up = sent(&agent, "m-3", 0).await;
        agent.bury(given_up, "expired", "too late".to_owned(), None);
        assert_eq!(agent.find_lost_in(before, in_hand).await, Ok(Some(vec![lost])));
        agent.release_stored();
        assert_eq!(agent.find_lost_in(before, in_hand).await, Ok(None), "the next start has them");
    }
}
