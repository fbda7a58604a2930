//! Who answers: one revision, or two while traffic is split. An immutable snapshot that calls read without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_control::rollout::split::{Pick, Split};

use super::deliver::Handling;
use super::{Agent, InFlight, Revision};
use crate::clock;
use crate::wasm::Envelope;

/// Who answers. All messages are taken as if for stable; those of the candidate are passed on to it.
pub(crate) struct Traffic {
    stable: Arc<Revision>,
    split: Option<Parted>,
}

/// What a candidate has of the traffic.
struct Parted {
    candidate: Arc<Revision>,
    split: Split,
    /// Counts what belongs to no conversation, which is dealt out in turn.
    dealt: AtomicU64,
}

impl Traffic {
    /// One revision has all.
    pub(crate) fn whole(revision: Arc<Revision>) -> Arc<Self> {
        Arc::new(Self { stable: revision, split: None })
    }

    /// Two have a part each.
    pub(crate) fn parted(stable: Arc<Revision>, candidate: Arc<Revision>, split: Split) -> Arc<Self> {
        let dealt = AtomicU64::new(0);
        Arc::new(Self { stable, split: Some(Parted { candidate, split, dealt }) })
    }

    /// The revision that has all, or else the one that had it before.
    pub(super) fn stable(&self) -> &Arc<Revision> {
        &self.stable
    }

    /// All that have some.
    pub(super) fn revisions(&self) -> impl Iterator<Item = &Arc<Revision>> {
        std::iter::once(&self.stable).chain(self.split.iter().map(|parted| &parted.candidate))
    }

    /// How many calls can be in instances at once.
    pub(super) fn max(&self) -> u32 {
        self.revisions().map(|revision| revision.pool.max()).sum()
    }

    fn has(&self, revision: &Arc<Revision>) -> bool {
        self.revisions().any(|one| Arc::ptr_eq(one, revision))
    }

    /// Who answers a call, of a conversation that began at `first` or of none.
    fn pick(&self, conversation: Option<(&str, u64)>) -> &Arc<Revision> {
        let Some(Parted { candidate, split, dealt }) = &self.split else { return &self.stable };
        let pick = match conversation {
            Some((name, first)) => split.pick(name, first),
            None => split.deal(dealt.fetch_add(1, Ordering::Relaxed)),
        };
        match pick {
            Pick::Stable => &self.stable,
            Pick::Candidate => candidate,
        }
    }
}

impl Agent {
    /// Counts a call as in flight on the revision that answers it; none if there is none.
    pub(super) fn enter_on(&self, conversation: Option<&str>) -> Option<InFlight> {
        loop {
            let traffic = self.traffic.load();
            let traffic = traffic.as_ref()?;
            let first = || self.began(conversation?);
            let revision = match traffic.split {
                // Looked up only where it matters.
                Some(_) => traffic.pick(conversation.map(|name| (name, first().unwrap_or_else(clock::now_ms)))),
                None => traffic.stable(),
            };
            let flight = self.in_flight(Arc::clone(revision));
            // A switch between the two: the old revision may have been seen at rest already.
            if self.traffic.load().as_ref().is_some_and(|now| now.has(&flight.revision)) {
                return Some(flight);
            }
        }
    }

    /// When a conversation began, if it is open.
    fn began(&self, conversation: &str) -> Option<u64> {
        self.commons.store.conversations.first(conversation)
    }

    /// Passes a message that was taken on to the candidate, if it is one of its share.
    pub(super) fn pass_on(&self, flight: InFlight, envelope: &Envelope) -> InFlight {
        let traffic = self.traffic.load();
        let Some(Parted { candidate, .. }) = traffic.as_ref().and_then(|traffic| traffic.split.as_ref()) else {
            return flight;
        };
        // What failed on the candidate is tried on stable next.
        if envelope.failed.last().is_some_and(|failed| failed.revision == candidate.id.to_string()) {
            return flight;
        }
        let message = &envelope.message;
        let alone = message.conversation_id == message.id;
        self.enter_on((!alone).then_some(message.conversation_id.as_str())).unwrap_or(flight)
    }
}

impl Handling {
    /// Counts what was handled for the revision that did.
    pub(super) fn measure(&self, faulty: bool) {
        self.revision().measure(self.took(), faulty);
    }
}
