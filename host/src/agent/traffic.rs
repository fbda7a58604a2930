//! Who answers: one revision, or two while traffic is split. An immutable snapshot that calls read without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use caxton_control::rollout::split::{Pick, Split, Untaken};

use super::handling::Handling;
use super::{Agent, InFlight, Revision};
use crate::clock;
use crate::wasm::{Envelope, Fault, Lease, NoInstance};

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
    /// Counts a call as in flight on the revision that answers it; none if there is none. `first` is when its
    /// conversation began, in milliseconds since 1970, if it is of one.
    pub(super) fn enter_on(&self, conversation: Option<&str>, first: impl Fn(&str) -> u64) -> Option<InFlight> {
        loop {
            let traffic = self.traffic.load();
            let traffic = traffic.as_ref()?;
            let revision = match traffic.split {
                // Looked up only where it matters.
                Some(_) => traffic.pick(conversation.map(|name| (name, first(name)))),
                None => traffic.stable(),
            };
            let flight = self.in_flight(Arc::clone(revision));
            // A switch between the two: the old revision may have been seen at rest already.
            if self.traffic.load().as_ref().is_some_and(|now| now.has(&flight.revision)) {
                return Some(flight);
            }
        }
    }

    /// When a conversation began, in milliseconds since 1970: now, if it is not open.
    fn first(&self, conversation: &str) -> u64 {
        self.commons.store.conversations.first(conversation).unwrap_or_else(clock::steady_ms)
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
        let conversation = (!is_alone(envelope)).then_some(envelope.message.conversation_id.as_str());
        self.enter_on(conversation, |name| self.first(name)).unwrap_or(flight)
    }
}

impl Agent {
    /// Counts a call as in flight on stable, if the revision that has it is the candidate beside it.
    fn enter_stable(&self, flight: &InFlight) -> Option<InFlight> {
        loop {
            let traffic = self.traffic.load();
            let traffic = traffic.as_ref()?;
            let Parted { candidate, .. } = traffic.split.as_ref()?;
            if !Arc::ptr_eq(candidate, &flight.revision) {
                return None;
            }
            let stable = self.in_flight(Arc::clone(traffic.stable()));
            if self.traffic.load().as_ref().is_some_and(|now| now.has(&stable.revision)) {
                return Some(stable);
            }
        }
    }

    /// How many HTTP calls a revision may have at once: as many as it works on, and as a mailbox has places.
    pub(super) fn most_in_flight(&self, revision: &Revision) -> u32 {
        self.spec.load().mailbox.depth.saturating_add(revision.pool.max())
    }

    /// Whether a revision has a share of the traffic beside the one that had all of it.
    fn is_on_trial(&self, revision: &Arc<Revision>) -> bool {
        let traffic = self.traffic.load();
        let parted = traffic.as_ref().and_then(|traffic| traffic.split.as_ref());
        parted.is_some_and(|parted| Arc::ptr_eq(&parted.candidate, revision))
    }

    /// Who handles a message of a candidate's share while the candidate may start no instance: stable, if the message
    /// stands alone. One of a conversation, which stays with the candidate, waits in the mailbox until the time that is
    /// given: a worker that waited with it would be missing to stable. A call finds its way with its
    /// [lease](Self::lease).
    pub(super) fn spare_workers(&self, flight: InFlight, envelope: &Envelope) -> Result<InFlight, u64> {
        if envelope.is_call() || !self.is_on_trial(&flight.revision) {
            return Ok(flight);
        }
        let Some(until) = flight.revision.pool.pausing() else { return Ok(flight) };
        if !is_alone(envelope) {
            return Err(until);
        }
        Ok(self.enter_stable(&flight).unwrap_or(flight))
    }

    /// An instance of the revision that has a message or call. A call is passed over to stable when the candidate whose
    /// share it is of cannot take it, as a message is that failed there.
    pub(super) async fn lease(&self, flight: &mut InFlight, is_call: bool, deadline: Instant) -> Result<Lease, Fault> {
        let revision = Arc::clone(&flight.revision);
        let lease = if is_call && self.is_on_trial(&revision) {
            self.lease_or_pass_over(flight, deadline).await
        } else {
            revision.pool.lease(deadline).await
        };
        if revision.pool.given_up().is_some() {
            // The reconciler ends it.
            self.commons.wake(self.name.shared());
        }
        lease
    }

    async fn lease_or_pass_over(&self, flight: &mut InFlight, deadline: Instant) -> Result<Lease, Fault> {
        let (untaken, fault) = match flight.revision.pool.lease_at_once(deadline).await {
            Ok(lease) => return Ok(lease),
            // All its instances are at work, and there is no time left.
            Err(NoInstance::Fault(Fault::Overloaded)) => return Err(Fault::Overloaded),
            Err(NoInstance::Fault(fault)) => (Untaken::NotStarted { its_fault: fault.is_guests() }, fault),
            Err(NoInstance::Pausing(until)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let by = clock::steady_ms().saturating_add(super::millis(left));
                (Untaken::Pausing { until, by }, Fault::Overloaded)
            }
        };
        let Some(stable) = self.enter_stable(flight) else {
            // It has all the traffic, or none, by now.
            return match untaken {
                Untaken::Pausing { .. } => flight.revision.pool.lease(deadline).await,
                Untaken::NotStarted { .. } => Err(fault),
            };
        };
        if untaken.counts() {
            flight.revision.measure_untaken();
        }
        *flight = stable;
        // It counts itself. What stable has beyond its own is bounded as its own is.
        if flight.revision.in_flight() > self.most_in_flight(&flight.revision) {
            return Err(Fault::Overloaded);
        }
        flight.revision.pool.lease(deadline).await
    }
}

/// Whether a message belongs to no conversation but its own.
fn is_alone(envelope: &Envelope) -> bool {
    envelope.message.conversation_id == envelope.message.id
}

impl Handling {
    /// Counts what was handled for the revision that did.
    pub(super) fn measure(&self, faulty: bool) {
        self.revision().measure(self.took, faulty);
    }
}
