//! The format of the state in a rollout: whether it is converted, and what follows for the way back.

use std::collections::BTreeSet;

use super::{Rollout, Step};

impl Rollout {
    /// The reason why stable cannot have the traffic again: it cannot read what the candidate has made of the state.
    pub(super) fn bars_the_way_back(&self) -> Option<String> {
        let after = self.conversion.as_ref().filter(|_| self.converted)?.holds_after();
        let version = self.from.format().unreadable(&after)?;
        let (stable, agent) = (self.stable(), &self.agent);
        Some(format!(
            "{stable} cannot read version {version} of the state's format, so {} goes on; `caxton rollout undo {agent} \
             --restore-state` goes back to the state as it was",
            self.candidate()
        ))
    }

    /// The versions that the state may hold once the rollout has ended.
    pub(super) fn holds_after(&self) -> BTreeSet<u32> {
        match &self.conversion {
            Some(conversion) if self.converted => conversion.holds_after(),
            Some(_) | None => {
                let wrote = self.weight > 0 || self.weights.iter().any(|(_, weight)| *weight > 0);
                let new = wrote.then(|| self.to.format().version);
                self.holds.iter().copied().chain(new).collect()
            }
        }
    }

    /// Notes that the state was converted, and made safe, before the host ended: the candidate has it.
    pub fn has_converted(&mut self, now: u64) {
        if self.status.is_terminal() || self.converted || !self.moves_memory() {
            return;
        }
        self.converted = true;
        self.handed_over |= self.steps.get(self.step) == Some(&Step::Handoff);
        self.set_weight(100, now);
    }

    /// Returns true if the state is still to be converted, with the mailbox held, before the candidate has any traffic.
    pub(super) fn converts(&self) -> bool {
        self.conversion.is_some() && !self.converted && !self.steps.contains(&Step::KeepState)
    }
}
