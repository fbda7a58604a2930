//! The cancellation of timers by a guest.

use crate::message::{SendError, TimerCancel, TimerName};
use crate::wasm::call::ctx::Ctx;

impl Ctx {
    /// Collects the cancellation of a timer of this agent. Returns `true` if there is one, sent by this call or before.
    pub(in crate::wasm) fn cancel_timer(&self, timer: TimerName) -> Result<bool, SendError> {
        self.may_send(1, 0)?;
        // A timer of this call is not in the store yet.
        if self.effects.lock().cancel_own(&timer) {
            return Ok(true);
        }
        let found = self.host().timer(self.who.name(), &timer).map_err(SendError::Unavailable)?;
        // Not held during the read above, which may block on the store.
        let mut effects = self.effects.lock();
        let is_gone = |cancel: &TimerCancel| cancel.timer == timer || (found.is_some() && cancel.found == found);
        if effects.cancels.iter().any(is_gone) {
            return Ok(false);
        }
        let is_there = found.is_some();
        effects.cancels.push(TimerCancel { timer, found, was_reported: true });
        Ok(is_there)
    }
}
