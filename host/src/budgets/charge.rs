//! What a message or a call takes from the budget of its tree, from its begin to its end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caxton_control::AgentName;
use caxton_control::budget::{CallNumber, check_time};
use caxton_control::meter::{MeterReading, UnitMeter};
use parking_lot::Mutex;

use super::{OverBudget, Tree};

/// A message that is held from a budget. Dropped before it is kept, it counts for nothing.
pub(crate) struct MessageCharge {
    tree: Tree,
    agent: AgentName,
    is_kept: AtomicBool,
}

impl Tree {
    /// Holds a message that an agent sends, and that is handled after `wait` at the earliest.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub(crate) fn admit_message(&self, agent: &AgentName, wait: Duration) -> Result<Box<MessageCharge>, OverBudget> {
        let at = self.age().saturating_add(wait);
        self.decide(|ledger, spec| {
            // A timer past the end could never be handled.
            check_time(spec, at)?;
            ledger.hold(spec)
        })?;
        Ok(Box::new(MessageCharge { tree: self.clone(), agent: agent.clone(), is_kept: AtomicBool::new(false) }))
    }
}

impl MessageCharge {
    /// Counts the message, which is sent now.
    pub(crate) fn keep(&self) {
        if !self.is_kept.swap(true, Ordering::SeqCst) {
            self.tree.change(|ledger| ledger.keep(&self.agent));
        }
    }

    /// Holds the message again: its commit was not written.
    pub(crate) fn take_back(&self) {
        if self.is_kept.swap(false, Ordering::SeqCst) {
            self.tree.change(|ledger| ledger.take_back(&self.agent));
        }
    }
}

impl Drop for MessageCharge {
    fn drop(&mut self) {
        if !*self.is_kept.get_mut() {
            self.tree.change(caxton_control::budget::BudgetLedger::release);
        }
    }
}

impl fmt::Debug for MessageCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageCharge({:?})", self.tree)
    }
}

/// The reason why a call in a tree does not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChargeRefusal {
    /// It would pass a limit.
    #[error(transparent)]
    Over(#[from] OverBudget),
    /// The store has not written what was reserved.
    #[error("what the call may use of its budget could not be reserved: {0}")]
    NotReserved(String),
}

/// A call over HTTP in a tree. Dropped, it counts as its response tells.
pub(crate) struct CallCharge {
    tree: Tree,
    agent: AgentName,
    number: CallNumber,
    meter: UnitMeter,
    state: Mutex<CallState>,
}

#[derive(Default)]
struct CallState {
    reading: Option<MeterReading>,
    /// Set if nothing of the request has left the host.
    never_left: bool,
    is_settled: bool,
}

impl Tree {
    /// Begins a call to a place with a meter. Returns when the call, and the units that are reserved for it, are safe on
    /// disk: after a kill they count as used.
    ///
    /// # Errors
    /// The limit that it would pass, or the store has failed.
    pub(crate) async fn begin_call(
        &self,
        agent: &AgentName,
        meter: &UnitMeter,
    ) -> Result<Arc<CallCharge>, ChargeRefusal> {
        let (at, reserved) = (self.age(), meter.reservation());
        let number = self.decide(|ledger, spec| {
            check_time(spec, at)?;
            ledger.begin_call(agent, spec, &reserved)
        })?;
        let (tree, meter, state) = (self.clone(), meter.clone(), Mutex::default());
        let charge = Arc::new(CallCharge { tree, agent: agent.clone(), number, meter, state });
        if self.limits_calls() || !reserved.is_empty() {
            // Before a byte leaves, so that a kill in the middle of the call forgets nothing of it.
            if let Err(error) = self.save().await {
                charge.never_left();
                return Err(ChargeRefusal::NotReserved(error));
            }
        }
        Ok(charge)
    }
}

impl CallCharge {
    /// Counts bytes of a body, in either direction.
    ///
    /// # Errors
    /// The limit that they would pass.
    pub(crate) fn add_bytes(&self, bytes: u64) -> Result<(), OverBudget> {
        if bytes == 0 {
            return Ok(());
        }
        self.tree.decide(|ledger, spec| ledger.add_bytes(&self.agent, spec, bytes))
    }

    /// Notes that nothing of the request has left the host, so that no units were used.
    pub(crate) fn never_left(&self) {
        self.state.lock().never_left = true;
    }

    /// Begins to read the response, which is a stream of server-sent events or not.
    pub(crate) fn begin_response(&self, is_stream: bool) {
        if !self.meter.is_empty() {
            self.state.lock().reading = Some(self.meter.read(is_stream));
        }
    }

    /// Reads a part of the response.
    pub(crate) fn read(&self, bytes: &[u8]) {
        // Most places have no meter.
        if self.meter.is_empty() {
            return;
        }
        if let Some(reading) = &mut self.state.lock().reading {
            reading.feed(bytes);
        }
    }

    /// Counts what the call has used, at its end. Done once.
    pub(crate) fn settle(&self) {
        let mut state = self.state.lock();
        if self.meter.is_empty() || std::mem::replace(&mut state.is_settled, true) {
            return;
        }
        let CallState { reading, never_left, .. } = &mut *state;
        let figures = match reading {
            Some(reading) => {
                reading.end();
                self.meter.figures(reading)
            }
            None if *never_left => self.meter.units().map(|unit| (unit.to_owned(), 0)).collect(),
            // No response: what was reserved counts as used.
            None => BTreeMap::new(),
        };
        drop(state);
        self.tree.change(|ledger| ledger.settle(self.number, &figures));
        // Nobody waits: until it is written, a kill counts what was reserved.
        drop(self.tree.save());
    }
}

impl Drop for CallCharge {
    fn drop(&mut self) {
        self.settle();
    }
}
