//! A handle for each group of tables.

use super::Store;

/// The messages of mailboxes.
#[derive(Clone, Copy)]
pub(crate) struct QueueTable<'s>(pub(super) &'s Store);

/// The state of agents, and its copies.
#[derive(Clone, Copy)]
pub(crate) struct StateTable<'s>(pub(super) &'s Store);

/// The memories that stateful agents saved or handed over.
#[derive(Clone, Copy)]
pub(crate) struct SnapshotTable<'s>(pub(super) &'s Store);

/// The ledgers of revisions, the revisions, and the differences that comparisons found.
#[derive(Clone, Copy)]
pub(crate) struct RolloutTable<'s>(pub(super) &'s Store);

/// The recent messages that a rehearsal handles again.
#[derive(Clone, Copy)]
pub(crate) struct RecentTable<'s>(pub(super) &'s Store);

/// The dead letters.
#[derive(Clone, Copy)]
pub(crate) struct DeadLetterTable<'s>(pub(super) &'s Store);

/// The events.
#[derive(Clone, Copy)]
pub(crate) struct EventTable<'s>(pub(super) &'s Store);

/// The messages that wait for their time.
#[derive(Clone, Copy)]
pub(crate) struct TimerTable<'s>(pub(super) &'s Store);

/// The conversations that have ended, and when those began of which no record is written.
#[derive(Clone, Copy)]
pub(crate) struct ConversationTable<'s>(pub(super) &'s Store);

/// The trees of messages that have a budget.
#[derive(Clone, Copy)]
pub(crate) struct TreeTable<'s>(pub(super) &'s Store);

impl Store {
    pub(crate) fn queue(&self) -> QueueTable<'_> {
        QueueTable(self)
    }

    pub(crate) fn state(&self) -> StateTable<'_> {
        StateTable(self)
    }

    pub(crate) fn snapshots(&self) -> SnapshotTable<'_> {
        SnapshotTable(self)
    }

    pub(crate) fn rollouts(&self) -> RolloutTable<'_> {
        RolloutTable(self)
    }

    pub(crate) fn recent(&self) -> RecentTable<'_> {
        RecentTable(self)
    }

    pub(crate) fn dead_letters(&self) -> DeadLetterTable<'_> {
        DeadLetterTable(self)
    }

    pub(crate) fn events(&self) -> EventTable<'_> {
        EventTable(self)
    }

    pub(crate) fn timers(&self) -> TimerTable<'_> {
        TimerTable(self)
    }

    pub(crate) fn trees(&self) -> TreeTable<'_> {
        TreeTable(self)
    }

    pub(crate) fn conversations(&self) -> ConversationTable<'_> {
        ConversationTable(self)
    }
}
