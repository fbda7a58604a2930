//! Calls whose run ended because the host had no memory for the rest of it.
//!
//! A guest ends so that an older one goes on, and nothing that it did is left. Its caller still waits: the run begins
//! again, once there is memory for what it takes. Messages do so by themselves.

use std::sync::Arc;

use crate::agent::Agent;
use crate::agent::delivery::handling::Handling;
use crate::message::{Effects, Envelope, Fault, Outcome, RequestLog};

/// Returns `true` if a call that ended with this fault may run again.
pub(super) fn may_run_again(fault: &Fault, envelope: &Envelope, effects: &Effects) -> bool {
    // Calls over HTTP would be made twice. Requests to agents are answered from the first run.
    matches!(fault, Fault::HostMemory) && envelope.is_call() && !effects.called_out && !effects.partly_committed
}

impl Agent {
    /// Lets a call run again for which the host had no memory, if its caller waits for long enough.
    pub(in crate::agent) fn run_when_there_is_memory(
        self: &Arc<Self>,
        mut handling: Handling,
        envelope: Box<Envelope>,
        answers: RequestLog,
    ) {
        let (_, allowed) = handling.time(&envelope);
        // The last quarter is too short for another wait and run, and its caller should learn why.
        if envelope.accepted.unwrap_or(handling.started).elapsed() < allowed / 4 * 3 {
            self.ran_ahead(handling, envelope, answers);
        } else {
            handling.took = handling.started.elapsed();
            self.failed(handling, envelope, Outcome::Fault(Fault::HostMemory));
        }
    }
}
