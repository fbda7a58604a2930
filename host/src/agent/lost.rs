//! Counting messages that were accepted and that nobody has: a measurement, of which 0 is hoped for.
//!
//! Each message that the store has neither as handled nor as given up has to be in the mailbox or in somebody's hand.
//! Messages go from one to the other while they are looked for, so those that are not found in the mailbox are looked
//! for again, in the store and in the mailbox, until nobody can have had them in hand for so long.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::Slot;
use super::{Agent, Taking};

/// More messages that wait are not looked for one by one.
const MOST: usize = 1_000_000;
/// How long a message may be in hand beyond the limit of its handling: until its commit is safe.
const COMMITTED_IN: Duration = Duration::from_secs(30);
/// How long until they are looked for again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

impl Agent {
    /// The places of messages after this one that were accepted by now and are lost; none if the agent or the host ends
    /// meanwhile, with whom all are let go. Takes as long as what is in hand at the moment.
    pub(crate) async fn count_lost(self: &Arc<Self>, after: u64) -> Result<Option<Vec<u64>>, String> {
        self.count_lost_in(after, self.longest_in_hand()).await
    }

    /// The same where no message is in hand for longer than this.
    async fn count_lost_in(self: &Arc<Self>, after: u64, in_hand: Duration) -> Result<Option<Vec<u64>>, String> {
        let agent = Arc::clone(self);
        let mut missing =
            blocking(move || agent.context.store.unhandled_after(agent.name.as_str(), after, MOST)).await?;
        if missing.len() == MOST {
            return Err(format!("{MOST} messages or more wait"));
        }
        // When this is told, so is all that was accepted before: it is in the mailbox.
        self.commit(None, Vec::new()).await.map_err(|error| error.to_string())?;
        let until = Instant::now() + in_hand;
        let mut pause = PAUSE.0;
        loop {
            if !missing.is_empty() && !self.strike_waiting(&mut missing) {
                return Ok(None);
            }
            let agent = Arc::clone(self);
            missing = blocking(move || agent.context.store.still_unhandled(&missing)).await?;
            if missing.is_empty() || Instant::now() >= until {
                return Ok(Some(missing));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// How long a message can be in hand.
    fn longest_in_hand(&self) -> Duration {
        let limits = self.serving().into_iter().map(|revision| revision.spec.limits.time);
        limits.chain([self.spec.load().limits.time]).max().unwrap_or_default() + COMMITTED_IN
    }

    /// Leaves out those that wait in the mailbox. False if messages are let go for good.
    fn strike_waiting(&self, missing: &mut Vec<u64>) -> bool {
        let inbox = self.inbox.lock();
        if inbox.leaving || matches!(inbox.taking, Taking::Nothing(_)) {
            return false;
        }
        let place = |slot: &Slot| match slot {
            Slot::Here(envelope) => envelope.seq,
            Slot::Kept(place) => Some(place.seq),
        };
        let waiting: HashSet<u64> = inbox.mailbox.messages().filter_map(place).collect();
        drop(inbox);
        missing.retain(|seq| !waiting.contains(seq));
        true
    }
}

/// Reads the store where nobody waits for it.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tests::{agent, sent};
    use crate::wasm::Inbox;

    #[tokio::test]
    async fn a_message_that_nobody_has_is_lost_and_one_that_waits_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(&folder, "");
        let before = sent(&agent, "m-0", 0).await.seq.unwrap();
        assert_eq!(agent.context.store.last_place(), Ok(before));
        let waits = sent(&agent, "m-1", 0).await;
        let in_hand = Duration::from_millis(50);
        agent.inbox.lock().mailbox.reserve_beyond();
        agent.put(waits);
        assert_eq!(agent.count_lost_in(before, in_hand).await, Ok(Some(Vec::new())));
        // It is accepted, and never comes to the mailbox.
        let lost = sent(&agent, "m-2", 0).await.seq.unwrap();
        assert_eq!(agent.count_lost_in(before, in_hand).await, Ok(Some(vec![lost])));
        // One that is given up is not.
        let given_up = sent(&agent, "m-3", 0).await;
        agent.bury(given_up, "expired", "too late".to_owned(), None);
        assert_eq!(agent.count_lost_in(before, in_hand).await, Ok(Some(vec![lost])));
        agent.leave_queue();
        assert_eq!(agent.count_lost_in(before, in_hand).await, Ok(None), "the next start has them");
    }
}
