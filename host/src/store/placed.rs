//! The contents of a large commit, written in pieces before it.
//!
//! ```text
//! piece | others' commits | piece | others' commits | the commit, whose rows name the pieces
//! ```
//! A transaction of many megabytes would hold up every other commit for as long as it takes to write and to sync. Each
//! piece is a job of its own, so that others come between two of them. A commit that is refused, or never made, leaves
//! contents that no row names; they are [removed](Contents) a few at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::Connection;

use super::commit::Commit;

/// Bytes of contents and values above which a commit is large: those of smaller ones are written with it, in one
/// transaction that takes about as long as its sync.
pub(super) const LARGE: u64 = 64 << 10;
/// Bytes of a piece.
pub(super) const PIECE: usize = 64 << 10;
/// Bytes from which a content of a large commit is written before it. A smaller one is hardly longer than its row.
pub(super) const LEAST: usize = 1 << 10;

/// Stands for a content that its commit does not have any more: numbers begin at 1.
const FORGOTTEN: u64 = 0;

/// The contents in pieces that no row names yet.
#[derive(Debug)]
pub(super) struct Contents {
    /// The number of the next content.
    next: AtomicU64,
    /// The contents of commits under way.
    writing: Mutex<BTreeSet<u64>>,
}

impl Contents {
    /// Continues the numbers of the contents that are there.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        // Numbers begin above all that are left, so that no two contents share pieces.
        let last: i64 = connection.query_row(
            "SELECT max(coalesce((SELECT max(content) FROM content_piece), 0),
                        coalesce((SELECT max(content) FROM unplaced), 0))",
            [],
            |row| row.get(0),
        )?;
        Ok(Self { next: AtomicU64::new(last.cast_unsigned() + 1), writing: Mutex::default() })
    }

    /// Returns `true` if a commit under way has the content.
    pub(super) fn is_being_written(&self, content: u64) -> bool {
        self.writing.lock().contains(&content)
    }

    fn begin(&self) -> u64 {
        let content = self.next.fetch_add(1, Ordering::SeqCst);
        // Before its first piece, which would be removed otherwise.
        self.writing.lock().insert(content);
        content
    }
}

/// A piece of a content.
pub(super) struct ContentPiece {
    pub(super) content: u64,
    pub(super) number: u64,
    pub(super) data: Bytes,
    /// Set if a piece of the same commit is not written.
    pub(super) lost: Arc<AtomicBool>,
}

/// The contents of a commit that are written before it.
pub(super) struct PlacedContents {
    /// The contents of messages that are sent, by index and in its order, with their bytes while the commit lacks them.
    sent: Vec<(usize, u64, Bytes)>,
    /// The content of the message that is given up.
    dead: Option<(u64, Bytes)>,
    /// The values, in the order of their keys. The commit has their bytes too, which are shared.
    values: Vec<(String, u64, Bytes)>,
    /// Set if a piece was not written.
    lost: Arc<AtomicBool>,
    all: Arc<Contents>,
}

impl Drop for PlacedContents {
    fn drop(&mut self) {
        let mut writing = self.all.writing.lock();
        for content in self.contents() {
            writing.remove(&content.0);
        }
    }
}

impl PlacedContents {
    /// Takes contents and values out of a commit, to be written before it. `keeps_messages` is `false` where messages
    /// have no rows. Returns `None` if there is nothing to take.
    pub(super) fn take_from(
        commit: &mut Commit,
        all: &Arc<Contents>,
        keeps_messages: bool,
    ) -> Option<(Self, Vec<ContentPiece>)> {
        let (mut sent, mut values) = (Vec::new(), Vec::new());
        for (index, dispatch) in commit.sends.iter_mut().enumerate() {
            let is_kept = keeps_messages || dispatch.envelope.waits;
            let content = &mut dispatch.envelope.message.content;
            if is_kept && content.len() >= LEAST {
                sent.push((index, all.begin(), std::mem::take(content).into()));
            }
        }
        let dead = commit.dead.as_mut().map(|dead| &mut dead.envelope.message.content);
        let dead = dead.filter(|content| content.len() >= LEAST);
        let dead = dead.map(|content| (all.begin(), std::mem::take(content).into()));
        for (key, value) in commit.state.iter().flat_map(|state| &state.writes) {
            if let Some(value) = value.as_ref().filter(|value| value.bytes.len() >= LEAST) {
                values.push((key.clone(), all.begin(), value.bytes.clone()));
            }
        }
        let placed = Self { sent, dead, values, lost: Arc::default(), all: Arc::clone(all) };
        let pieces: Vec<ContentPiece> =
            placed.contents().flat_map(|(content, bytes)| placed.pieces(content, bytes)).collect();
        (!pieces.is_empty()).then_some((placed, pieces))
    }

    fn contents(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        let sent = self.sent.iter().map(|(_, content, bytes)| (*content, bytes));
        let dead = self.dead.iter().map(|(content, bytes)| (*content, bytes));
        sent.chain(dead).chain(self.values.iter().map(|(_, content, bytes)| (*content, bytes)))
    }

    fn pieces(&self, content: u64, bytes: &Bytes) -> impl Iterator<Item = ContentPiece> {
        (0..).zip((0..bytes.len()).step_by(PIECE)).map(move |(number, begin)| ContentPiece {
            content,
            number,
            data: bytes.slice(begin..bytes.len().min(begin + PIECE)),
            lost: Arc::clone(&self.lost),
        })
    }

    /// Puts the contents back into the commit, for whoever gets its messages.
    pub(super) fn put_back(&mut self, commit: &mut Commit) {
        // Without a copy where all pieces are written: nobody shares the memory any more.
        for (index, _, bytes) in self.sent.iter_mut().filter(|(_, _, bytes)| !bytes.is_empty()) {
            commit.sends[*index].envelope.message.content = std::mem::take(bytes).into();
        }
        if let (Some((_, bytes)), Some(dead)) = (&mut self.dead, &mut commit.dead)
            && !bytes.is_empty()
        {
            dead.envelope.message.content = std::mem::take(bytes).into();
        }
    }

    /// Returns `true` if a piece was not written.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Forgets the content of a message in whose place another is sent.
    pub(super) fn forget_sent(&mut self, index: usize) {
        if let Ok(at) = self.sent.binary_search_by_key(&index, |(index, ..)| *index) {
            let content = std::mem::replace(&mut self.sent[at].1, FORGOTTEN);
            self.all.writing.lock().remove(&content);
        }
    }

    /// Returns the content of a message that is sent, if it is in pieces.
    pub(super) fn of_sent(&self, index: usize) -> Option<u64> {
        let at = self.sent.binary_search_by_key(&index, |(index, ..)| *index).ok()?;
        Some(self.sent[at].1).filter(|content| *content != FORGOTTEN)
    }

    /// Returns the content of the message that is given up, if it is in pieces.
    pub(super) fn of_dead(&self) -> Option<u64> {
        self.dead.as_ref().map(|(content, _)| *content)
    }

    /// Returns the value of a key, if it is in pieces.
    pub(super) fn of_key(&self, key: &str) -> Option<u64> {
        let at = self.values.binary_search_by(|(of, ..)| of.as_str().cmp(key)).ok()?;
        Some(self.values[at].1)
    }
}
