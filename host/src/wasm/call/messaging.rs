//! The host functions of `caxton:agent/messaging`.

use std::time::Duration;

use caxton_control::grant::Address;

use crate::bounds;
use crate::message::{CLOSED, CallContext, Delivery, Draft, Outgoing, RequestError, SendError, TimerName};
use crate::wasm::bindings::caxton::agent::{messaging, types as wit};
use crate::wasm::call::ctx::Ctx;
use crate::wasm::convert;
use crate::wasm::pool::slots::BlockedInstance;

/// Refuses a timer name on a broadcast: a name belongs to one message.
fn check_unnamed(draft: &Draft) -> Result<(), SendError> {
    let is_timer = draft.delivery != Delivery::Now;
    if is_timer && draft.headers.iter().any(|(name, _)| name == "timer") {
        let why = "`headers`: a broadcast cannot have a timer name, because a name belongs to one message";
        return Err(SendError::Invalid(why.to_owned()));
    }
    Ok(())
}

impl Ctx {
    /// Returns the current call, if it may send messages.
    fn may_speak(&self) -> Result<&CallContext, SendError> {
        if self.is_migration() {
            let why = "a migration tells nobody: it neither sends nor asks, and sets and cancels no timers";
            return Err(SendError::Unsupported(why.to_owned()));
        }
        self.work.as_ref().ok_or_else(|| SendError::Unavailable("no message is being handled".to_owned()))
    }

    /// Returns the current call, if it may send `count` more messages with contents of `bytes` each. They count as sent.
    pub(in crate::wasm) fn may_send(&self, count: usize, bytes: usize) -> Result<&CallContext, SendError> {
        let work = self.may_speak()?;
        let mut effects = self.effects.lock();
        if effects.closed {
            return Err(SendError::Unavailable(CLOSED.to_owned()));
        }
        let limit = self.limits().sends;
        // Cancelled timers count as sends: each is a write of the store.
        let made = effects.sent_count + effects.sends.len() + effects.cancels.len();
        if made.saturating_add(count) > limit as usize {
            return Err(SendError::TooManySends(limit));
        }
        let (bytes, limit) = ((bytes as u64).saturating_mul(count as u64), self.limits().effects_bytes);
        if !effects.take_bytes(bytes, limit, &self.budget) {
            return Err(SendError::TooLarge(limit));
        }
        Ok(work)
    }

    /// Counts this instance among those that wait for an answer.
    fn block(&self) -> Result<BlockedInstance, SendError> {
        self.slots.block().ok_or_else(|| {
            let most = self.slots.max_blocked();
            SendError::Unavailable(format!(
                "{most} instances of this host wait for answers already, and the others are for those who answer \
                 (host.instances)"
            ))
        })
    }

    /// Collects a message for each other running agent with the capability: all of them or none.
    fn send_to_all(&self, draft: &Draft) -> Result<Vec<String>, SendError> {
        self.may_speak()?;
        let Address::Capability(capability) = Address::of(&draft.receiver, self.who.name()) else {
            let why = "`receiver` has to be `cap:NAME`: a broadcast goes to all who have a capability";
            return Err(SendError::Invalid(why.to_owned()));
        };
        // Checked before the grant, because no grant would make such a draft valid.
        check_unnamed(draft)?;
        if !self.who.spec.allow.covers_capability(capability) {
            return Err(SendError::NotAllowed(draft.receiver.clone()));
        }
        let mut receivers = self.host().find(capability);
        // An agent that has the capability itself does not want its own broadcast.
        receivers.retain(|name| name != self.who.name());
        if receivers.is_empty() {
            return Err(SendError::UnknownReceiver(draft.receiver.clone()));
        }
        // For all receivers at once: a broadcast that reaches some of them could not be repeated safely.
        let work = self.may_send(receivers.len(), draft.content.len())?;
        let admit = |receiver| self.host().admit(&self.who, work, Draft { receiver, ..draft.clone() });
        // After an error, the drafts that were admitted are dropped and release their places.
        let sent = receivers.into_iter().map(admit).collect::<Result<Vec<Outgoing>, _>>()?;
        let ids = sent.iter().map(|sent| sent.id().to_owned()).collect();
        self.effects.lock().sends.extend(sent);
        Ok(ids)
    }
}

impl messaging::Host for Ctx {
    fn send(&mut self, draft: wit::Draft) -> wasmtime::Result<Result<String, wit::SendError>> {
        self.check_not_blocked()?;
        let draft = convert::draft(draft);
        let admitted = self.may_send(1, draft.content.len()).and_then(|work| self.host().admit(&self.who, work, draft));
        let sent = admitted.map(|sent| {
            let id = sent.id().to_owned();
            self.effects.lock().send(sent);
            id
        });
        self.check_not_starved(&sent)?;
        Ok(sent.map_err(convert::send_error))
    }

    fn cancel(&mut self, timer: String) -> wasmtime::Result<Result<bool, wit::SendError>> {
        // Neither an id nor a name is longer, so that there is no such timer; and what is cancelled is kept to the commit.
        if timer.len() > bounds::WORD {
            return Ok(self.may_send(1, 0).map(|_| false).map_err(convert::send_error));
        }
        Ok(self.cancel_timer(TimerName::of(timer)).map_err(convert::send_error))
    }

    fn broadcast(&mut self, draft: wit::Draft) -> wasmtime::Result<Result<Vec<String>, wit::SendError>> {
        self.check_not_blocked()?;
        let sent = self.send_to_all(&convert::draft(draft));
        self.check_not_starved(&sent)?;
        Ok(sent.map_err(convert::send_error))
    }

    async fn request(
        &mut self,
        draft: wit::Draft,
        timeout_ms: u64,
    ) -> wasmtime::Result<Result<wit::Message, wit::RequestError>> {
        self.check_not_blocked()?;
        let draft = convert::draft(draft);
        let refuse = |error: SendError| Ok(convert::answer(Err(RequestError::NotSent(error))));
        let work = match self.may_speak() {
            Ok(work) => work,
            Err(why) => return refuse(why),
        };
        if let Some(answer) = self.replay_answer(&draft) {
            return Ok(convert::answer(answer));
        }
        let _blocked = match self.block() {
            Ok(blocked) => blocked,
            Err(why) => return refuse(why),
        };
        Ok(convert::answer(self.asker(work, Duration::from_millis(timeout_ms)).ask(draft).await))
    }

    async fn request_all(
        &mut self,
        drafts: Vec<wit::Draft>,
        timeout_ms: u64,
    ) -> wasmtime::Result<Vec<Result<wit::Message, wit::RequestError>>> {
        self.check_not_blocked()?;
        let drafts: Vec<Draft> = drafts.into_iter().map(convert::draft).collect();
        let refuse_all = |error: &SendError| {
            let refuse = |_| convert::answer(Err(RequestError::NotSent(error.clone())));
            Ok(drafts.iter().map(refuse).collect())
        };
        let limit = self.who.spec.limits.sends;
        let work = match self.may_speak() {
            Ok(work) => work,
            Err(why) => return refuse_all(&why),
        };
        if drafts.len() > limit as usize {
            return refuse_all(&SendError::TooManySends(limit));
        }
        // Before waiting for the others, so that equal drafts are matched in order.
        let replayed: Vec<_> = drafts.iter().map(|draft| self.replay_answer(draft)).collect();
        let _blocked = match self.block() {
            Ok(blocked) => blocked,
            Err(why) => return refuse_all(&why),
        };
        let asker = self.asker(work, Duration::from_millis(timeout_ms));
        let requests = drafts.into_iter().zip(replayed).map(|(draft, replayed)| async move {
            convert::answer(match replayed {
                Some(answer) => answer,
                None => asker.ask(draft).await,
            })
        });
        Ok(futures::future::join_all(requests).await)
    }

    fn find(&mut self, capability: String) -> wasmtime::Result<Vec<String>> {
        Ok(self.host().find(&capability))
    }
}
