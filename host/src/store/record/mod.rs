//! A record of what a commit or another change decided: the rows that it adds, changes and removes, with sequence numbers
//! and versions.
//!
//! ```text
//! Commit (what is asked for) --decide--> Record (what was decided) --apply--> tables
//! any other change           --decide--'
//! ```
//! A running host changes no table without one. Applying a record decides nothing: the same records give the same tables, wherever they are applied. The live record
//! borrows from the commit, so that nothing is copied on the way to the tables; its [encoded form](wire) has structs of
//! its own, so that a change here is not one of the format.

#[cfg_attr(
    not(any(test, feature = "fuzzing")),
    expect(dead_code, reason = "records leave the process once there are replicas")
)]
pub(super) mod wire;

mod journal;

use std::borrow::Cow;

pub(crate) use journal::JournalRow;

/// The rows of one commit, or of another change of the tables, in the order in which they are applied.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Record<'a> {
    pub(crate) rows: Vec<RowChange<'a>>,
    /// The encoded heads of messages, one after the other. They are made for the record, and one buffer serves all
    /// records.
    heads: Vec<u8>,
}

/// The place of an encoded head in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadSpan {
    start: usize,
    end: usize,
}

/// The memory of a record, for the next one.
#[derive(Debug, Default)]
pub(crate) struct RecordBuffers {
    rows: Vec<RowChange<'static>>,
    heads: Vec<u8>,
}

impl<'a> Record<'a> {
    /// Returns an empty record in the memory of one before.
    pub(crate) fn new(buffers: RecordBuffers) -> Self {
        let RecordBuffers { rows, mut heads } = buffers;
        heads.clear();
        Self { rows, heads }
    }

    /// Returns the memory for the next record.
    pub(crate) fn into_buffers(self) -> RecordBuffers {
        // Keeps none of the rows, which borrow from a commit, but the allocation: the collection is made in place.
        let rows = self.rows.into_iter().map_while(|_| None).collect();
        RecordBuffers { rows, heads: self.heads }
    }

    pub(crate) fn push(&mut self, row: impl Into<RowChange<'a>>) {
        self.rows.push(row.into());
    }

    /// Adds a head that `encode` appends to the buffer.
    pub(crate) fn push_head(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> HeadSpan {
        let start = self.heads.len();
        encode(&mut self.heads);
        HeadSpan { start, end: self.heads.len() }
    }

    /// Returns an encoded head.
    pub(crate) fn head(&self, head: HeadSpan) -> &[u8] {
        &self.heads[head.start..head.end]
    }
}

/// A change of one row, or of rows that are named by a bound, by group of tables.
#[derive(Debug, PartialEq)]
pub(crate) enum RowChange<'a> {
    State(StateRow<'a>),
    Queue(QueueRow<'a>),
    Timer(TimerRow<'a>),
    Dead(DeadRow<'a>),
    Conversation(ConversationRow<'a>),
    Other(OtherRow<'a>),
    Memory(MemoryRow<'a>),
    StateCopy(StateCopyRow<'a>),
    Rollout(RolloutRow<'a>),
    Recent(RecentRow<'a>),
    Content(ContentRow<'a>),
    Journal(JournalRow<'a>),
    Tree(TreeRow<'a>),
}

/// The state of agents.
#[derive(Debug, PartialEq)]
pub(crate) enum StateRow<'a> {
    /// Puts a key in place of what it was.
    Set { agent: &'a str, key: &'a str, value: &'a [u8], version: u64, expires_at: Option<u64> },
    /// Removes a key.
    Removed { agent: &'a str, key: &'a str },
    /// Sets the size of an agent's state in bytes.
    Size { agent: &'a str, bytes: i64 },
}

impl<'a> From<StateRow<'a>> for RowChange<'a> {
    fn from(row: StateRow<'a>) -> Self {
        Self::State(row)
    }
}

/// Messages in mailboxes, and what became of them.
#[derive(Debug, PartialEq)]
pub(crate) enum QueueRow<'a> {
    /// Adds a message.
    Message {
        seq: u64,
        agent: &'a str,
        conversation: &'a str,
        rank: u8,
        due: Option<u64>,
        receipt: Option<&'a str>,
        head: HeadSpan,
        content: &'a [u8],
        revived: bool,
    },
    /// Marks a message as handled, or as given up if `revision` is 0.
    Handled { seq: u64, at: u64, revision: u64, runs: u32 },
    /// Adds a failed attempt.
    Attempt { seq: u64, number: u32, again_at: u64, attempt: Cow<'a, str> },
    /// Removes the attempts of a message that is given up.
    AttemptsRemoved { seq: u64 },
    /// Takes the id from a message, for the one that is delivered again under it.
    ReceiptRemoved { receipt: &'a str },
    /// Removes handled messages up to a sequence number.
    HandledRemoved { up_to: u64 },
    /// Marks a mailbox as paused.
    MailboxPaused { agent: &'a str },
    /// Removes the mark of a paused mailbox.
    MailboxResumed { agent: &'a str },
}

impl<'a> From<QueueRow<'a>> for RowChange<'a> {
    fn from(row: QueueRow<'a>) -> Self {
        Self::Queue(row)
    }
}

/// Messages that wait for their time.
#[derive(Debug, PartialEq)]
pub(crate) enum TimerRow<'a> {
    /// Adds a timer.
    Set {
        seq: u64,
        agent: &'a str,
        due: u64,
        at: u64,
        dated: bool,
        conversation: &'a str,
        rank: u8,
        id: &'a str,
        sender: &'a str,
        name: Option<&'a str>,
        head: HeadSpan,
        content: &'a [u8],
    },
    /// Removes a timer that fired or was cancelled.
    Removed { seq: u64 },
    /// Moves timers with a date, in a range of sequence numbers, by the new difference between the clocks.
    Redated { after: u64, last: u64, ahead: i64, now: u64 },
}

impl<'a> From<TimerRow<'a>> for RowChange<'a> {
    fn from(row: TimerRow<'a>) -> Self {
        Self::Timer(row)
    }
}

/// The dead letters.
#[derive(Debug, PartialEq)]
pub(crate) enum DeadRow<'a> {
    /// Adds a dead letter.
    Set {
        seq: u64,
        agent: &'a str,
        conversation: &'a str,
        rank: u8,
        head: HeadSpan,
        content: &'a [u8],
        at: u64,
        reason: &'a str,
        error: Cow<'a, str>,
        attempts: Cow<'a, str>,
        receipt: Option<&'a str>,
    },
    /// Removes a dead letter.
    Removed { seq: u64 },
}

impl<'a> From<DeadRow<'a>> for RowChange<'a> {
    fn from(row: DeadRow<'a>) -> Self {
        Self::Dead(row)
    }
}

/// Conversations.
#[derive(Debug, PartialEq)]
pub(crate) enum ConversationRow<'a> {
    /// Puts a conversation in place of what it was, and of an ended one of its name.
    Set { id: u64, name: Cow<'a, str>, first: u64, last: u64, messages: u64, record: Cow<'a, str>, first_seq: u64 },
    /// Sets the last activity of an open conversation.
    Activity { id: u64, last: u64, messages: u64 },
    /// Ends a conversation.
    Ended {
        id: u64,
        name: &'a str,
        first: u64,
        last: u64,
        messages: u64,
        record: Cow<'a, str>,
        ended: u64,
        first_seq: u64,
    },
    /// Removes the last activity of a conversation that has ended.
    ActivityRemoved { id: u64 },
    /// Removes ended conversations before this one.
    EndedRemoved { before: i64 },
    /// Sets when a conversation with an agent began of which no record is written.
    Beginning { agent: &'a str, conversation: &'a str, first: u64, last: u64 },
    /// Removes beginnings of conversations without a message since this time.
    BeginningsRemoved { before: i64 },
}

impl<'a> From<ConversationRow<'a>> for RowChange<'a> {
    fn from(row: ConversationRow<'a>) -> Self {
        Self::Conversation(row)
    }
}

/// The host's own rows.
#[derive(Debug, PartialEq)]
pub(crate) enum OtherRow<'a> {
    /// Sets the last sequence number and the last version of state.
    Counters { seq: u64, version: u64 },
    /// Adds an idempotency key.
    Key { agent: &'a str, key: &'a str, fingerprint: &'a [u8], id: &'a str, conversation: &'a str, at: u64 },
    /// Removes idempotency keys that were used before this time.
    KeysRemoved { before: i64 },
    /// Sets the time for which a schedule fired last.
    Fired { agent: &'a str, schedule: &'a str, at: u64 },
    /// Adds an event.
    Event { id: i64, at: u64, agent: Option<&'a str>, kind: &'a str, data: Cow<'a, str> },
    /// Removes events up to this one.
    EventsRemoved { up_to: i64 },
    /// Adds a revision.
    Revision { agent: &'a str, number: u64, digest: &'a str, settings: &'a str, created_at: u64 },
    /// Removes an agent's revisions before this one.
    RevisionsRemoved { agent: &'a str, before: u64 },
}

impl<'a> From<OtherRow<'a>> for RowChange<'a> {
    fn from(row: OtherRow<'a>) -> Self {
        Self::Other(row)
    }
}

/// The memory of stateful agents.
#[derive(Debug, PartialEq)]
pub(crate) enum MemoryRow<'a> {
    /// Puts a memory in place of the one that the agent saved before.
    Saved { agent: &'a str, revision: u64, saved_at: u64, data: &'a [u8] },
    /// Does the same with a memory of which the pieces have the bytes.
    SavedInPieces { agent: &'a str, revision: u64, saved_at: u64, pieces: u64, bytes: u64 },
    /// Adds a piece of a memory.
    Piece { memory: u64, number: u64, data: &'a [u8] },
    /// Removes the pieces of a memory up to this one.
    PiecesRemoved { memory: u64, up_to: u64 },
    /// Removes the memory that an agent saved last.
    Removed { agent: &'a str },
    /// Puts a memory in place of the one that the revision handed over before. `pieces` have the bytes, or else `data`.
    HandedOver { agent: &'a str, revision: u64, saved_at: u64, data: &'a [u8], pieces: Option<u64>, bytes: u64 },
    /// Makes what a revision handed over the memory of the agent. The row names the handoff and has no bytes.
    HandoffTaken { agent: &'a str, revision: u64, saved_at: u64 },
    /// Makes the memory that the agent saved last what a revision hands over, if there is any.
    SavedHandedOver { agent: &'a str, revision: u64 },
    /// Removes what a revision handed over; without a revision, what all of the agent's did. A memory of the agent that
    /// names one of them takes its bytes over.
    HandoffsRemoved { agent: &'a str, revision: Option<u64> },
}

impl<'a> From<MemoryRow<'a>> for RowChange<'a> {
    fn from(row: MemoryRow<'a>) -> Self {
        Self::Memory(row)
    }
}

/// The copies of agents' states. Their keys are copied within the database and are no part of a record.
#[derive(Debug, PartialEq)]
pub(crate) enum StateCopyRow<'a> {
    /// Adds a copy of an agent's state as it is, without the keys whose time is over at `at`.
    Made {
        id: i64,
        agent: &'a str,
        revision: u64,
        holds: Cow<'a, str>,
        at: u64,
        keys: u64,
        bytes: u64,
        mark: u64,
        unfinished: bool,
        migrated: bool,
        rollout: u64,
    },
    /// Removes the copy that a revision has; without a revision, all of the agent's.
    Removed { agent: &'a str, revision: Option<u64> },
    /// Marks a copy as one whose migration is over. Keys with versions above the mark are written since.
    Finished { agent: &'a str, revision: u64, mark: u64, migrated: bool },
    /// Takes the rollout from a copy.
    RolloutRemoved { agent: &'a str, revision: u64 },
    /// Makes an agent's state what a copy has, without the keys whose time is over by `now`.
    Restored { id: i64, agent: &'a str, version: u64, now: u64 },
}

impl<'a> From<StateCopyRow<'a>> for RowChange<'a> {
    fn from(row: StateCopyRow<'a>) -> Self {
        Self::StateCopy(row)
    }
}

/// The rollouts of agents.
#[derive(Debug, PartialEq)]
pub(crate) enum RolloutRow<'a> {
    /// Puts a ledger in place of the agent's earlier one.
    Ledger { agent: &'a str, record: &'a str },
    /// Removes the ledger of an agent.
    LedgerRemoved { agent: &'a str },
    /// Puts a difference in place of the one that has its number.
    Difference { agent: &'a str, rollout: u64, number: u64, record: &'a str },
    /// Removes the differences of an agent's rollouts up to this one.
    DifferencesRemoved { agent: &'a str, up_to: i64 },
}

impl<'a> From<RolloutRow<'a>> for RowChange<'a> {
    fn from(row: RolloutRow<'a>) -> Self {
        Self::Rollout(row)
    }
}

/// The recent messages that a rehearsal handles again.
#[derive(Debug, PartialEq)]
pub(crate) enum RecentRow<'a> {
    /// Adds a message as number `seq` of its agent.
    Set {
        agent: &'a str,
        seq: u64,
        conversation: &'a str,
        rank: u8,
        head: HeadSpan,
        content: &'a [u8],
        answer: Option<&'a [u8]>,
    },
    /// Removes an agent's messages before this one.
    Removed { agent: &'a str, before: i64 },
    /// Adds the calls over HTTP of a message that is there.
    Calls { agent: &'a str, seq: u64, calls: &'a [u8] },
}

impl<'a> From<RecentRow<'a>> for RowChange<'a> {
    fn from(row: RecentRow<'a>) -> Self {
        Self::Recent(row)
    }
}

/// Contents and values that are written before the commit that has them.
#[derive(Debug, PartialEq)]
pub(crate) enum ContentRow<'a> {
    /// Adds a piece of a content, which no row names yet.
    Piece { content: u64, number: u64, data: &'a [u8] },
    /// Makes it the content of a message that waits, whose row is empty.
    OfMessage { seq: u64, content: u64 },
    /// Makes it the content of a timer, whose row is empty.
    OfTimer { seq: u64, content: u64 },
    /// Makes it the content of a dead letter, whose row is empty.
    OfDead { seq: u64, content: u64 },
    /// Makes it the value of a key, whose row is empty.
    OfKey { agent: &'a str, key: &'a str, content: u64 },
    /// Removes pieces of a content that no row names, up to this one.
    PiecesRemoved { content: u64, up_to: u64 },
    /// Forgets a content of which no piece is left.
    Forgotten { content: u64 },
}

impl<'a> From<ContentRow<'a>> for RowChange<'a> {
    fn from(row: ContentRow<'a>) -> Self {
        Self::Content(row)
    }
}

impl<'a> From<JournalRow<'a>> for RowChange<'a> {
    fn from(row: JournalRow<'a>) -> Self {
        Self::Journal(row)
    }
}

/// The trees of messages that have a budget.
#[derive(Debug, PartialEq)]
pub(crate) enum TreeRow<'a> {
    /// Puts a tree in place of what it was.
    Set { id: &'a str, budget: &'a str, conversation: &'a str, last: u64, record: Cow<'a, str> },
    /// Makes a message part of a tree.
    Message { tree: &'a str, seq: u64 },
    /// Removes the trees that have no message any more of those up to a sequence number.
    Unlinked { up_to: u64 },
    /// Removes trees that never had a message: those written before this time, and all but the newest ones.
    Removed { before: u64, keep: u64 },
}

impl<'a> From<TreeRow<'a>> for RowChange<'a> {
    fn from(row: TreeRow<'a>) -> Self {
        Self::Tree(row)
    }
}

#[cfg(test)]
mod tests;
