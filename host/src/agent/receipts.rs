//! The outcomes of messages from outside for which no caller waits.
//!
//! The store tells, as long as it has them. A host that keeps no messages remembers the newest in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use caxton_control::RevisionId;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::agent::{MEANINGS, code, describe};
use crate::bounds;
use crate::clock;
use crate::message::{Answer, Outcome, Waiter};
use crate::store::{Dead, DeadFilter, Store};

/// Receipts that are kept; the oldest leave first, whatever their state.
pub(crate) const KEPT: usize = 10_000;
/// Agents that take many messages at once do not wait for one lock.
const SHARDS: usize = 16;
/// The bytes of a receipt in memory, about: most have no reason.
const RECEIPT: usize = 384;

/// The outcome of a message, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// The receiver.
    pub(crate) agent: Arc<str>,
    /// The conversation that it is in.
    pub(crate) conversation: String,
    /// The time of its acceptance, in milliseconds since 1970.
    pub(crate) accepted_at: u64,
    pub(crate) state: ReceiptState,
}

/// The progress of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceiptState {
    /// A message that waits or is being handled.
    Pending,
    /// A message that was handled, with its effects committed.
    Handled {
        /// The time in milliseconds since 1970.
        at: u64,
        /// The revision that handled it.
        revision: Option<Arc<RevisionId>>,
    },
    /// A message that will not be handled any more.
    Failed {
        /// The time in milliseconds since 1970.
        at: u64,
        /// The revision that failed; none when it came to none.
        revision: Option<Arc<RevisionId>>,
        /// The stable code, for programs.
        code: &'static str,
        /// The text for a person.
        reason: String,
    },
}

/// The newest receipts by the message's id.
#[derive(Default)]
pub(crate) struct Receipts {
    shards: [Mutex<ReceiptShard>; SHARDS],
}

#[derive(Default)]
struct ReceiptShard {
    receipts: HashMap<Uuid, Receipt>,
    /// The oldest first.
    order: VecDeque<Uuid>,
}

impl Receipts {
    /// Opens the receipt of an accepted message. Returns the waiter that closes it with the message's outcome.
    pub(crate) fn open(self: &Arc<Self>, id: &str, conversation: &str, agent: Arc<str>, now: u64) -> Waiter {
        // 16 bytes in place of a text of 36, in two collections.
        let id: Uuid = id.parse().expect("the host makes ids that are UUIDs");
        let receipt =
            Receipt { agent, conversation: conversation.to_owned(), accepted_at: now, state: ReceiptState::Pending };
        {
            let mut shard = self.shard(id).lock();
            // By shard, so that no lock covers all; the sum stays within `KEPT`.
            if shard.order.len() >= KEPT / SHARDS
                && let Some(oldest) = shard.order.pop_front()
            {
                shard.receipts.remove(&oldest);
            }
            shard.order.push_back(id);
            shard.receipts.insert(id, receipt);
        }
        let open = OpenReceipt { receipts: Arc::clone(self), id, closed: false };
        Waiter::Note(Box::new(move |answer| open.close(answer)))
    }

    /// Returns the bytes of the receipts in memory, about.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| (shard.lock().order.len() * RECEIPT) as u64).sum()
    }

    /// Returns a receipt that is in memory.
    pub(crate) fn get(&self, id: &str) -> Option<Receipt> {
        let id: Uuid = id.parse().ok()?;
        self.shard(id).lock().receipts.get(&id).cloned()
    }

    /// Returns a receipt from memory or the store.
    pub(crate) fn find(&self, store: &Store, id: &str) -> Option<Receipt> {
        let unread = |error: String| tracing::error!(error, "a message cannot be looked up");
        if let Some(receipt) = self.get(id) {
            return Some(receipt);
        }
        let kept = store.queue().accepted(id).map_err(unread).ok()??;
        let state = match kept.handled {
            None => ReceiptState::Pending,
            // A message that was given up is taken out as if no revision had handled it.
            Some((at, 0)) => match store.dead_letters().list(&DeadFilter::one(kept.seq), 1).map_err(unread).ok()?.pop()
            {
                Some(dead) => ReceiptState::Failed {
                    at: dead.at,
                    revision: dead.revision.as_deref().and_then(revision).map(Arc::new),
                    code: dead_code(&dead),
                    reason: bounds::cut(dead.error, bounds::REASON),
                },
                None => ReceiptState::Failed {
                    at,
                    revision: None,
                    code: "gone",
                    reason: "its dead letter was dropped".to_owned(),
                },
            },
            Some((at, number)) => {
                let agent = kept.agent.parse().ok()?;
                ReceiptState::Handled { at, revision: Some(Arc::new(RevisionId { agent, number })) }
            }
        };
        Some(Receipt {
            agent: kept.agent.into(),
            conversation: kept.conversation,
            accepted_at: kept.accepted_at,
            state,
        })
    }

    fn shard(&self, id: Uuid) -> &Mutex<ReceiptShard> {
        // The end of an id of version 7 is random.
        &self.shards[usize::from(id.as_bytes()[15]) % SHARDS]
    }

    fn set(&self, id: Uuid, state: ReceiptState) {
        if let Some(receipt) = self.shard(id).lock().receipts.get_mut(&id) {
            // An evicted receipt stays away: its place in the order is gone.
            receipt.state = state;
        }
    }
}

/// Returns the code for the sender of a dead letter: that of its last attempt if that was final.
fn dead_code(dead: &Dead) -> &'static str {
    // An `invalid` message was rejected for a reason that has a code of its own.
    let reason = dead.code.as_deref().filter(|_| dead.reason == "invalid").unwrap_or(&dead.reason);
    MEANINGS.iter().map(|meaning| meaning.code).find(|code| *code == reason).unwrap_or("gone")
}

/// Parses a revision such as `triage@7`.
fn revision(text: &str) -> Option<RevisionId> {
    let (agent, number) = text.split_once('@')?;
    Some(RevisionId { agent: agent.parse().ok()?, number: number.parse().ok()? })
}

/// A receipt whose message is under way.
struct OpenReceipt {
    receipts: Arc<Receipts>,
    id: Uuid,
    closed: bool,
}

impl OpenReceipt {
    fn close(mut self, answer: Answer) {
        self.closed = true;
        let Answer { revision, outcome } = answer;
        let at = clock::now_ms();
        self.receipts.set(
            self.id,
            match code(&outcome) {
                None => ReceiptState::Handled { at, revision },
                Some(code) => {
                    let reason = bounds::cut(describe(&outcome), bounds::REASON);
                    ReceiptState::Failed { at, revision, code, reason }
                }
            },
        );
    }
}

impl Drop for OpenReceipt {
    fn drop(&mut self) {
        if !self.closed {
            // Its message was dropped with the mailbox that held it.
            let gone = Outcome::Cancelled("the host is stopping");
            let (code, reason) = (code(&gone).unwrap_or("gone"), describe(&gone));
            self.receipts.set(self.id, ReceiptState::Failed { at: clock::now_ms(), revision: None, code, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::*;
    use crate::message::new_id;
    use crate::store::tests::{kept, message, opened, plant, settings};
    use crate::store::{Commit, CommitRequest, DeadLetter};

    fn open(receipts: &Arc<Receipts>) -> (String, Waiter) {
        let id = new_id();
        let waiter = receipts.open(&id, &id, "triage".into(), 1);
        (id, waiter)
    }

    #[test]
    fn a_receipt_says_how_far_its_message_is() {
        let receipts = Arc::<Receipts>::default();
        let (handled, waiter) = open(&receipts);
        assert_eq!(receipts.get(&handled).unwrap().state, ReceiptState::Pending);
        waiter.resolve(Answer { revision: None, outcome: Outcome::Done });
        assert!(matches!(receipts.get(&handled).unwrap().state, ReceiptState::Handled { .. }));

        let (removed, waiter) = open(&receipts);
        waiter.resolve(Answer { revision: None, outcome: Outcome::Cancelled("the agent was removed") });
        let ReceiptState::Failed { code, reason, .. } = receipts.get(&removed).unwrap().state else {
            panic!("not failed")
        };
        assert_eq!((code, reason.as_str()), ("gone", "the agent was removed"));

        let (dropped, waiter) = open(&receipts);
        drop(waiter);
        assert!(matches!(receipts.get(&dropped).unwrap().state, ReceiptState::Failed { code: "gone", .. }));

        assert_eq!(receipts.get("no id"), None);
        assert_eq!(receipts.get(&new_id()), None);
    }

    #[tokio::test]
    async fn why_a_message_was_given_up_is_known_for_as_long_as_its_dead_letter() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let receipts = Receipts::default();
        let envelope = kept(&store, message("m-1", "http:POST /", "triage")).await;
        let dead = DeadLetter { envelope: Box::new(envelope), reason: "expired", error: "too late".to_owned(), at: 7 };
        let mut commit = Commit::new("triage".into());
        commit.dead = Some(Box::new(dead));
        store.submit(CommitRequest::new(commit, Vec::new(), Box::new(|_| ())));
        // Given up after it, more than any list has room for.
        let mut later = Commit::new("triage".into());
        let envelope = Box::new(message("m-2", "http:POST /", "triage"));
        later.dead = Some(Box::new(DeadLetter { envelope, reason: "invalid", error: String::new(), at: 8 }));
        store.submit(CommitRequest::new(later, Vec::new(), Box::new(|_| ())));
        let copies = "INSERT INTO dead WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             SELECT seq + i, agent, conversation, rank, due, head, content, at, reason, error, attempts, NULL, NULL
             FROM dead, n WHERE reason = 'invalid'";
        plant(&store, copies).await;
        let ReceiptState::Failed { at, code, reason, .. } = receipts.find(&store, "m-1").unwrap().state else {
            panic!("not failed")
        };
        assert_eq!((at, code, &*reason), (7, "expired", "too late"));
        // Its message may leave before it does.
        plant(&store, "DELETE FROM message").await;
        let found = receipts.find(&store, "m-1").unwrap();
        assert!(matches!(found.state, ReceiptState::Failed { at: 7, .. }), "{:?}", found.state);
        store.dead_letters().forget(DeadFilter::default()).await.unwrap();
        assert_eq!(receipts.find(&store, "m-1"), None);
    }

    #[test]
    fn the_oldest_leave_and_the_number_is_bounded() {
        let receipts = Arc::<Receipts>::default();
        let (first, _waiter) = open(&receipts);
        for _ in 0..2 * KEPT {
            drop(open(&receipts));
        }
        assert_eq!(receipts.get(&first), None);
        let kept: usize = receipts.shards.iter().map(|shard| shard.lock().receipts.len()).sum();
        assert_eq!(kept, KEPT);
    }
}
