//! The groups of tables, each with its reads and its changes beside commits.

pub(super) mod contents;
pub(super) mod conversations;
pub(super) mod dead_letters;
pub(super) mod differences;
pub(super) mod events;
pub(super) mod expired;
pub(super) mod journal;
pub(super) mod queue;
pub(super) mod recent;
pub(super) mod rollouts;
pub(super) mod snapshots;
pub(super) mod state;
pub(super) mod state_copy;
pub(super) mod timers;
pub(super) mod trees;
pub(super) mod unhandled;
