//! The effects of a call after the head of its response: a commit of their own, at the end of the body.
//!
//! ```text
//! head -> commit of what came before it -> head to the client
//!  '-- the guest goes on: writes, sends -> it ends -> second commit -> end of the body
//!                                                       '-- refused: the body breaks off
//! ```
//! A guest on a thread of its own may be at its end before the first commit is decided, which the second waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::message::Effects;

/// The head that a guest has set, or the name of the error that it gave instead, with the effects until then.
pub(in crate::wasm) type Head = (Result<http::Response<HyperOutgoingBody>, String>, Effects);

const UNDECIDED: u8 = 0;
const MADE: u8 = 1;
const REFUSED: u8 = 2;

/// The commit that goes with the head of a response.
#[derive(Clone, Default)]
pub(in crate::wasm) struct HeadCommit(Arc<HeadDecision>);

#[derive(Default)]
struct HeadDecision {
    state: AtomicU8,
    decided: Notify,
}

impl HeadCommit {
    fn decide(&self, state: u8) {
        // Release: who sees it made may rely on the commit's place in the order of the store.
        let was = self.0.state.compare_exchange(UNDECIDED, state, Ordering::Release, Ordering::Relaxed);
        if was.is_ok() {
            self.0.decided.notify_waiters();
        }
    }

    /// Waits until it is decided. Returns `true` if it was made.
    pub(in crate::wasm) async fn is_made(&self) -> bool {
        loop {
            let decided = self.0.decided.notified();
            tokio::pin!(decided);
            // From here on it is woken, also between the look and the wait.
            decided.as_mut().enable();
            match self.0.state.load(Ordering::Acquire) {
                UNDECIDED => decided.await,
                state => return state == MADE,
            }
        }
    }
}

/// The side that makes the commit. Dropping it refuses what waits for it.
#[derive(Default)]
pub(super) struct HeadCommitter(HeadCommit);

impl HeadCommitter {
    /// Returns the side that waits.
    pub(super) fn commit(&self) -> HeadCommit {
        self.0.clone()
    }

    /// Notes that the commit was made.
    pub(super) fn made(self) {
        self.0.decide(MADE);
    }
}

impl Drop for HeadCommitter {
    fn drop(&mut self) {
        self.0.decide(REFUSED);
    }
}

/// The effects of a call whose response has begun.
pub(in crate::wasm) struct LateEffects(Arc<Mutex<Effects>>);

impl LateEffects {
    /// Follows the effects of an instance.
    pub(in crate::wasm) fn of(effects: &Arc<Mutex<Effects>>) -> Self {
        Self(Arc::clone(effects))
    }

    /// Returns `true` if there are some to be committed.
    pub(super) fn are_pending(&self) -> bool {
        self.0.lock().has_any()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_commit_waits_for_that_of_the_head() {
        let committer = HeadCommitter::default();
        let commit = committer.commit();
        let waiting = tokio::spawn({
            let commit = commit.clone();
            async move { commit.is_made().await }
        });
        committer.made();
        assert!(waiting.await.unwrap() && commit.is_made().await);
        let dropped = HeadCommitter::default();
        let commit = dropped.commit();
        drop(dropped);
        assert!(!commit.is_made().await);
    }
}
