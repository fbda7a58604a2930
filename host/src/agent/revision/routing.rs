//! The revision that handles a message or call, while two share the traffic.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::RevisionId;
use caxton_control::breaker::FaultHistory;
use caxton_control::conversation::awaits_answer;
use caxton_control::rollout::split::{CandidateUnavailable, SplitInput, SplitTarget, Sticky};
use caxton_control::supervision::InstanceFailure;

use crate::agent::delivery::handling::Handling;
use crate::agent::revision::traffic::TrafficSplit;
use crate::agent::{Agent, InFlight, Revision};
use crate::clock;
use crate::message::{Envelope, Fault, Outgoing};
use crate::store::RevisionBinding;
use crate::wasm::{Lease, NoInstance, restarting};

impl Agent {
    /// Counts a call as in flight on the revision that is picked for it; none if there is none.
    pub(in crate::agent) fn enter_picked(
        &self,
        pick: impl Fn(Sticky, &TrafficSplit) -> SplitTarget,
    ) -> Option<InFlight> {
        loop {
            let traffic = self.traffic.load();
            let traffic = traffic.as_ref()?;
            let pick = traffic.split.as_ref().map_or(SplitTarget::Stable, |split| pick(self.sticky(), split));
            let revision = match (pick, &traffic.split) {
                (SplitTarget::Candidate, Some(split)) => &split.candidate,
                (SplitTarget::Candidate | SplitTarget::Stable, _) => traffic.stable(),
            };
            // Counted first and checked after, against a handoff that switches and then looks at the count.
            let flight = InFlight::new(Arc::clone(revision));
            // A switch between the two: the old revision may have been seen at rest already.
            if self.traffic.load().as_ref().is_some_and(|now| now.has(&flight.revision)) {
                return Some(flight);
            }
        }
    }

    /// Returns the rule by which conversations stay with a revision while traffic is split.
    pub(in crate::agent) fn sticky(&self) -> Sticky {
        self.spec.load().rollout.rollback.sticky
    }

    /// Passes a message that was taken on to the candidate, if it is one of its share. `follows` is the revision with
    /// which its conversation goes on because of a message before it, or of an attempt at this one; it came `since`
    /// then. Returns also the revision with which the conversation goes on after it.
    pub(in crate::agent) fn pass_on(
        &self,
        flight: InFlight,
        envelope: &Envelope,
        follows: Option<u64>,
        since: u64,
    ) -> (InFlight, u64) {
        let stable = flight.revision.id.number;
        let traffic = self.traffic.load();
        let split = traffic.as_ref().and_then(|traffic| traffic.split.as_ref());
        if let Some(name) = self.kept_conversation(envelope) {
            self.context.conversations.keep(&self.context.store, name);
        }
        let Some(TrafficSplit { candidate, .. }) = split else { return (flight, stable) };
        // An attempt before the host started again is known by its record.
        let first = || envelope.failed.first()?.revision.parse::<RevisionId>().ok();
        let follows = follows.or_else(|| first().map(|revision| revision.number));
        // A message that failed on the candidate is tried on stable next; its conversation does not move.
        if envelope.failed.last().is_some_and(|failed| failed.revision == candidate.id.to_string()) {
            return (flight, follows.unwrap_or(candidate.id.number));
        }
        let entered =
            self.enter_picked(|sticky, split| split.pick(sticky, self.split_input(envelope, sticky, follows, since)));
        let flight = entered.unwrap_or(flight);
        let number = flight.revision.id.number;
        (flight, number)
    }

    /// Returns the input of the split from the conversation of a message.
    fn split_input<'a>(
        &self,
        envelope: &'a Envelope,
        sticky: Sticky,
        follows: Option<u64>,
        since: u64,
    ) -> SplitInput<'a> {
        let (conversations, agent) = (&self.context.conversations, self.name.as_str());
        let message = &envelope.message;
        let name = message.conversation_id.as_str();
        let conversation = (!is_alone(envelope)).then_some(name);
        let key = message.reply_with.as_ref().unwrap_or(&message.id);
        match sticky {
            Sticky::None => SplitInput { conversation, bound_to: None, since },
            Sticky::Idle => {
                let noted = || conversations.bound_revision(conversation?, agent, key, envelope.since);
                SplitInput { conversation, bound_to: follows.or_else(noted), since }
            }
            Sticky::Conversation => {
                let noted = || conversations.last_binding(conversation?, agent);
                let first = conversation.and_then(|name| conversations.first(name));
                SplitInput { conversation, bound_to: follows.or_else(noted), since: first.unwrap_or(since) }
            }
        }
    }

    /// Returns the conversation of a message if its start has to be known after a restart.
    fn kept_conversation<'a>(&self, envelope: &'a Envelope) -> Option<&'a str> {
        (self.sticky() == Sticky::Conversation && !is_alone(envelope)).then_some(&envelope.message.conversation_id)
    }

    /// Returns the revision with which a conversation goes on after a message was handled that sends these; `None` if
    /// nothing is left open that the store does not know.
    pub(in crate::agent) fn binding(
        &self,
        handling: &Handling,
        envelope: &Envelope,
        sends: &[Outgoing],
        replied: bool,
    ) -> Option<RevisionBinding> {
        let message = &envelope.message;
        let says = sends.iter().any(|sent| sent.envelope().message.conversation_id == message.conversation_id);
        let asked = !envelope.is_call() && (awaits_answer(message.performative) || message.protocol.is_some());
        // A message that was dealt out leaves its conversation where it was handled, whatever place that has.
        let dealt = is_alone(envelope) && says;
        let anyway = dealt || self.strands_others(handling, message.conversation_id.as_str());
        (says || asked || anyway).then(|| RevisionBinding {
            conversation: message.conversation_id.clone(),
            revision: handling.next_revision,
            answered: (replied || envelope.is_call())
                .then(|| message.reply_with.clone().unwrap_or_else(|| message.id.clone())),
            anyway,
        })
    }

    /// Returns `true` if messages wait behind one in hand that would go to another revision by themselves: the next
    /// start of the host has to know.
    fn strands_others(&self, handling: &Handling, name: &str) -> bool {
        let traffic = self.traffic.load();
        let Some(split) = traffic.as_ref().and_then(|traffic| traffic.split.as_ref()) else { return false };
        let is_stables = handling.next_revision != split.candidate.id.number;
        is_stables == split.is_held_back(name) && self.mailbox.has_behind(&handling.lane)
    }

    /// Returns the number of conversations that stay with stable although the candidate has their share, and the rule
    /// that holds them. Forgets those that no longer do. O(conversations held).
    pub(crate) fn held_conversations(&self) -> (u64, Sticky) {
        let sticky = self.sticky();
        let traffic = self.traffic.load();
        let Some(split) = traffic.as_ref().and_then(|traffic| traffic.split.as_ref()) else { return (0, sticky) };
        // Of a copy, without the lock: it may read conversations from the store.
        let (held, free): (Vec<_>, Vec<_>) =
            split.held_back().into_iter().partition(|(_, name)| self.stays_with_stable(name, sticky));
        split.forget_held_back(&free);
        (held.len() as u64, sticky)
    }

    /// Returns `true` if a message of the conversation would go to stable now.
    fn stays_with_stable(&self, name: &str, sticky: Sticky) -> bool {
        let conversations = &self.context.conversations;
        match sticky {
            Sticky::None => false,
            Sticky::Conversation if self.is_http() => self.conversation_starts.knows(name),
            Sticky::Conversation => conversations.first(name).is_some() || self.conversation_starts.knows(name),
            Sticky::Idle => {
                self.conversation_starts.is_busy(name)
                    || self.mailbox.is_open(name)
                    || conversations.has_open_exchange(name, self.name.as_str())
            }
        }
    }

    /// Counts a call as in flight on stable, if the revision that has it is the candidate beside it.
    fn enter_stable(&self, flight: &InFlight) -> Option<InFlight> {
        loop {
            let traffic = self.traffic.load();
            let traffic = traffic.as_ref()?;
            let TrafficSplit { candidate, .. } = traffic.split.as_ref()?;
            if !Arc::ptr_eq(candidate, &flight.revision) {
                return None;
            }
            let stable = InFlight::new(Arc::clone(traffic.stable()));
            // As in `enter_picked`: counted first and checked after.
            if self.traffic.load().as_ref().is_some_and(|now| now.has(&stable.revision)) {
                return Some(stable);
            }
        }
    }

    /// Returns the largest number of HTTP calls in hand: as many as instances, and as a mailbox has places.
    pub(in crate::agent) fn most_in_flight(&self, revision: &Revision) -> u32 {
        self.spec.load().mailbox.depth.saturating_add(revision.pool.max())
    }

    /// Returns the meaning of a fault at a message for the instances of its revision. Only those of a candidate are
    /// spared, because only there another revision answers meanwhile.
    pub(in crate::agent) fn instance_failure(
        &self,
        revision: &Arc<Revision>,
        history: FaultHistory,
    ) -> InstanceFailure {
        match history {
            FaultHistory::First if self.is_on_trial(revision) => InstanceFailure::Trap,
            FaultHistory::First | FaultHistory::Repeated => InstanceFailure::Message,
        }
    }

    /// Returns `true` if a revision is the candidate of a split.
    fn is_on_trial(&self, revision: &Arc<Revision>) -> bool {
        let traffic = self.traffic.load();
        let split = traffic.as_ref().and_then(|traffic| traffic.split.as_ref());
        split.is_some_and(|split| Arc::ptr_eq(&split.candidate, revision))
    }

    /// Finds a revision for a message of a candidate that may start no instance: stable, if the message stands alone. A
    /// message of a conversation, which stays with the candidate, waits in the mailbox until the returned time: a
    /// worker that waited with it would be missing to stable. A call finds its revision with its [lease](Self::lease).
    pub(in crate::agent) fn fall_back_from_paused(
        &self,
        flight: InFlight,
        envelope: &Envelope,
    ) -> Result<InFlight, u64> {
        if envelope.is_call() || !self.is_on_trial(&flight.revision) {
            return Ok(flight);
        }
        let Some(until) = flight.revision.pool.pausing() else { return Ok(flight) };
        if !is_alone(envelope) {
            return Err(until);
        }
        Ok(self.enter_stable(&flight).unwrap_or(flight))
    }

    /// Leases an instance for a message or call. A call is passed to stable if the candidate cannot take it, as a
    /// message is that failed there.
    pub(in crate::agent) async fn lease(
        &self,
        flight: &mut InFlight,
        is_call: bool,
        deadline: Instant,
    ) -> Result<Lease, Fault> {
        let revision = Arc::clone(&flight.revision);
        let lease = if is_call && self.is_on_trial(&revision) {
            self.lease_or_fall_back(flight, deadline).await
        } else {
            revision.pool.lease(deadline).await
        };
        if revision.pool.given_up().is_some() {
            // The reconciler ends it.
            self.context.wake(self.name.shared());
        }
        lease
    }

    async fn lease_or_fall_back(&self, flight: &mut InFlight, deadline: Instant) -> Result<Lease, Fault> {
        let (untaken, fault) = match flight.revision.pool.lease_at_once(deadline).await {
            Ok(lease) => return Ok(lease),
            // All its instances are at work, or the host is short of memory, and there is no time left.
            Err(NoInstance::Fault(fault @ (Fault::Overloaded | Fault::HostMemory))) => return Err(fault),
            Err(NoInstance::Fault(fault)) => (CandidateUnavailable::NotStarted { its_fault: fault.is_guests() }, fault),
            Err(NoInstance::Pausing(until)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let by = clock::steady_ms().saturating_add(clock::millis(left));
                (CandidateUnavailable::BackingOff { until, deadline: by }, restarting(until))
            }
        };
        let Some(stable) = self.enter_stable(flight) else {
            // It has all the traffic, or none, by now.
            return match untaken {
                CandidateUnavailable::BackingOff { .. } => flight.revision.pool.lease(deadline).await,
                CandidateUnavailable::NotStarted { .. } => Err(fault),
            };
        };
        if untaken.is_candidate_fault() {
            flight.revision.measure_untaken();
        }
        *flight = stable;
        // Not `>=`: the number includes this call. The bound is that of calls picked for stable.
        if flight.revision.in_flight() > self.most_in_flight(&flight.revision) {
            return Err(Fault::Overloaded);
        }
        flight.revision.pool.lease(deadline).await
    }
}

/// Returns `true` if a message belongs to no conversation but its own.
fn is_alone(envelope: &Envelope) -> bool {
    envelope.message.conversation_id == envelope.message.id
}
