//! Commits on their way to the writer, with everything that is live.

use std::sync::Arc;

use caxton_control::conversation::ConversationChange;

use super::backlog::{CommitBacklog, WaitingCommit};
use super::commit::{Commit, CommitError, DeadLetter, StateChange};
use super::placed::{self, ContentPiece, Contents, PlacedContents};
use crate::budgets::{Tree, TreeLink, TreeState};
use crate::message::{LinePlace, Outgoing, ReservedPlace, Waiter};

/// The cost of a row beside its content, and the rows that are not counted.
const ROW_BYTES: usize = 128;
const FEW_ROWS: usize = 16;

/// The way in which a commit that waits is counted.
enum CommitCount {
    Nowhere,
    /// The count begins once the commit is given to the store.
    Later(Arc<CommitBacklog>),
    Counted {
        _commit: WaitingCommit,
    },
}

/// A commit with what has to outlive its way through the writer and cannot be stored: the places that are reserved for
/// its messages, and the callback.
pub(crate) struct CommitRequest {
    /// The changes that are asked for.
    pub(crate) commit: Commit,
    /// The places reserved for the messages that are sent, in their order.
    places: Vec<ReservedPlace>,
    /// Waiters of messages that are sent, by index: of few commits there is one.
    waiters: Vec<(usize, Waiter)>,
    /// The changes that the messages made to their conversations, as far as they were taken in; `None` for a message
    /// that ends a chain of messages and becomes a dead letter.
    pub(crate) taken: Vec<Option<ConversationChange>>,
    /// The place among the commits that build on the memory of one instance.
    line: Option<LinePlace>,
    /// The tree of the message that is handled, if that has a budget: what was used of it is part of the commit.
    tree: Option<Tree>,
    /// The count of its agent's commits that wait.
    waiting: CommitCount,
    /// The contents that are written before it, if it is large.
    pub(super) placed: Option<Box<PlacedContents>>,
    done: CommitCallback,
}

/// Receives the result of a commit, once. Runs where tasks can be started, and must not block.
pub(crate) type CommitCallback = Box<dyn FnOnce(Committed) + Send>;

/// The result of a commit.
pub(crate) struct Committed {
    /// `Ok` if all of it is kept; otherwise nothing is.
    pub(crate) result: Result<(), CommitError>,
    /// The messages that were to be sent: to be delivered if the commit is kept.
    pub(crate) sends: Vec<Outgoing>,
    /// The change of state that was asked for.
    pub(crate) state: Option<StateChange>,
    /// The size of the agent's state in bytes, if the commit changed it.
    pub(crate) state_bytes: Option<u64>,
    /// The message that was to be given up.
    pub(crate) dead: Option<Box<DeadLetter>>,
}

impl CommitRequest {
    /// Adds messages and a callback to a commit.
    pub(crate) fn new(mut commit: Commit, sends: Vec<Outgoing>, done: CommitCallback) -> Self {
        let (mut places, mut waiters) = (Vec::with_capacity(sends.len()), Vec::new());
        commit.sends.reserve_exact(sends.len());
        for (index, sent) in sends.into_iter().enumerate() {
            let (mut dispatch, place) = sent.split();
            // Taken out, because a commit holds nothing live; `finish` puts it back for the delivery.
            waiters.extend(dispatch.envelope.waiter.take().map(|waiter| (index, waiter)));
            commit.sends.push(dispatch);
            places.push(place);
        }
        Self {
            commit,
            places,
            waiters,
            taken: Vec::new(),
            line: None,
            tree: None,
            waiting: CommitCount::Nowhere,
            placed: None,
            done,
        }
    }

    /// Makes it one of the commits that build on the memory of an instance. They have to be given to the store in the
    /// order of the messages.
    pub(crate) fn in_line(mut self, line: Option<LinePlace>) -> Self {
        self.line = line;
        self
    }

    /// Makes what was used in a tree part of it.
    pub(crate) fn of_tree(mut self, tree: Option<&Tree>) -> Self {
        self.tree = tree.cloned();
        self
    }

    /// Counts the messages that are sent in the budgets of their trees. `touch` gets each tree that it is part of.
    pub(super) fn charge_trees(&self, mut touch: impl FnMut(&Arc<TreeState>)) {
        for (sent, place) in self.commit.sends.iter().zip(&self.places) {
            if let Some(tree) = sent.envelope.tree.as_ref().and_then(TreeLink::live) {
                place.keep_charge();
                touch(tree.state());
            }
        }
        if let Some(tree) = &self.tree {
            touch(tree.state());
        }
    }

    /// Takes that back: nothing of it was written.
    pub(super) fn take_back_charges(&self) {
        self.places.iter().for_each(ReservedPlace::take_back_charge);
    }

    /// Returns `true` if it builds on a memory that was not committed, or must not wait for others that come after it.
    pub(crate) fn is_in_line(&self) -> bool {
        self.line.is_some()
    }

    /// Returns `true` if a commit before it was refused, on whose memory it builds.
    pub(super) fn is_ahead(&self) -> bool {
        self.line.as_ref().is_some_and(|place| place.line.is_broken())
    }

    /// Has the commits refused that build on the memory of this one. Called where it is refused, before the next is
    /// decided on.
    pub(super) fn break_line(&self) {
        if let Some(place) = self.line.as_ref().filter(|place| place.breaks) {
            place.line.break_off();
        }
    }

    /// Returns the contents, values and memory that it writes, in bytes, without those that are written before it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_beside_memory() + self.memory_bytes()
    }

    /// Returns the memory that it writes, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.commit.memory.as_ref().map_or(0, |memory| memory.data.len() as u64)
    }

    /// Returns the contents and values that it writes, in bytes, without those that are written before it.
    pub(super) fn bytes_beside_memory(&self) -> u64 {
        let Commit { sends, state, dead, .. } = &self.commit;
        let dead = dead.as_ref().map_or(0, |dead| dead.envelope.message.content.len());
        let sent: usize = sends.iter().map(|sent| sent.envelope.message.content.len()).sum();
        let values = state.iter().flat_map(|state| state.writes.values().flatten()).map(|value| value.bytes.len());
        let most = if self.placed.is_some() { placed::LEAST } else { usize::MAX };
        // Few rows are part of the cost of any commit.
        let rows = (sends.len() + state.as_ref().map_or(0, |state| state.writes.len())).saturating_sub(FEW_ROWS);
        (sent + values.filter(|bytes| *bytes < most).sum::<usize>() + dead + rows * ROW_BYTES) as u64
    }

    /// Has it counted among the commits of its agent while it waits for the disk.
    pub(crate) fn counted_in(mut self, backlog: &Arc<CommitBacklog>) -> Self {
        self.waiting = CommitCount::Later(Arc::clone(backlog));
        self
    }

    /// Notes that it waits for the disk from now on.
    pub(super) fn begin_to_wait(&mut self) {
        // Not before: one that waits for the keys of a run would keep that from its beginning.
        if let CommitCount::Later(backlog) = std::mem::replace(&mut self.waiting, CommitCount::Nowhere) {
            self.waiting = CommitCount::Counted { _commit: backlog.count(self.bytes()) };
        }
    }

    /// Takes the contents out, to be written before it in these pieces.
    pub(super) fn place(&mut self, all: &Arc<Contents>, keeps_messages: bool) -> Vec<ContentPiece> {
        let Some((placed, pieces)) = PlacedContents::take_from(&mut self.commit, all, keeps_messages) else {
            return Vec::new();
        };
        self.placed = Some(Box::new(placed));
        pieces
    }

    /// Puts the contents back that were taken out.
    pub(super) fn put_back(&mut self) {
        if let Some(placed) = &mut self.placed {
            placed.put_back(&mut self.commit);
        }
    }

    /// Replaces a message that is sent by the answer that it is refused, if its sender has a mailbox.
    pub(crate) fn refuse_send(&mut self, index: usize, why: &str) -> bool {
        let refused = self.places[index].refuse(&mut self.commit.sends[index], why);
        if refused {
            // The waiter is of the message, and not of the answer.
            self.waiters.retain(|(of, _)| *of != index);
            if let Some(placed) = &mut self.placed {
                placed.forget_sent(index);
            }
        }
        refused
    }

    /// Reports that nothing of it is kept, without a way to the disk.
    pub(crate) fn refuse(self, why: CommitError) {
        self.finish(Err(why));
    }

    /// Passes the result on: the size of the agent's state, if the commit is kept and changes it.
    pub(super) fn finish(mut self, result: Result<Option<u64>, CommitError>) {
        if result.is_err() {
            // Again for those that never reached the writer.
            self.break_line();
        }
        // Again for those that were not decided on.
        self.put_back();
        let Self { commit, places, waiters, taken: _, line: _, tree: _tree, waiting, placed, done } = self;
        // Before the callback, which may let the agent go on, or contents be removed.
        drop((waiting, placed));
        let Commit { sends, state, dead, .. } = commit;
        let mut sends: Vec<Outgoing> =
            sends.into_iter().zip(places).map(|(dispatch, place)| Outgoing::join(dispatch, place)).collect();
        for (index, waiter) in waiters {
            sends[index].parts_mut().0.envelope.waiter = Some(waiter);
        }
        let (result, state_bytes) = match result {
            Ok(bytes) => (Ok(()), bytes),
            Err(why) => (Err(why), None),
        };
        done(Committed { result, sends, state, state_bytes, dead });
    }
}
