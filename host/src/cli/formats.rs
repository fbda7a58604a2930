//! The format of agents' data, checked against what the data folder says of the revisions that ran.

use std::collections::HashMap;
use std::path::Path;

use caxton_control::AgentSpec;
use caxton_control::rollout::{Incompatible, Ledger};

use crate::store;
use crate::wasm::{Kind, Summary};

/// The ledgers of a data folder, by agent.
#[derive(Default)]
pub(super) struct Ledgers(HashMap<String, Ledger>);

impl Ledgers {
    /// Reads them from a data folder, where a host may run; none if there is no store.
    ///
    /// # Errors
    /// The reason why they cannot be read, for a person.
    pub(super) fn read(folder: &Path) -> Result<Self, String> {
        let records = store::ledgers(folder).map_err(|error| error.to_string())?;
        // A record of another version cannot be interpreted by this one.
        let known =
            records.into_iter().filter_map(|(agent, record)| Some((agent, serde_json::from_str(&record).ok()?)));
        Ok(Self(known.collect()))
    }

    /// Checks that an agent as it is declared may follow the revision that ran last; `summary` is of its component.
    ///
    /// # Errors
    /// A revision would meet data that it cannot read.
    pub(super) fn check(&self, spec: &AgentSpec, summary: Option<&Summary>) -> Result<(), Incompatible> {
        // Cloned, because the open rollout is settled below as the host would do it.
        let Some(mut ledger) = self.0.get(spec.name.as_str()).cloned() else { return Ok(()) };
        if let Some(rollout) = ledger.open_mut().filter(|rollout| rollout.has_moved()) {
            // The revision that has the traffic is the one to follow.
            let now = rollout.since;
            rollout.supersede("a newer change", now);
            ledger.settle(now);
        }
        // The first revision of an agent follows none.
        let Some(current) = ledger.current() else { return Ok(()) };
        let (deploy, reload) = spec.rollout.settings(spec.reload.drain);
        let settings = spec.revision_settings();
        // Equal settings mean that only the component has changed, which is a reload.
        let by = if current.settings == settings { reload } else { deploy };
        let stateful = summary.is_some_and(|summary| summary.kind == Kind::Stateful);
        let migrates = summary.map(|summary| summary.migrates);
        match ledger.check_replacement(&by.strategy, settings, stateful, migrates) {
            // Of its memory, which is checked without a ledger.
            Err(Incompatible::Split { .. } | Incompatible::Shadow) | Ok(()) => Ok(()),
            Err(why) => Err(why),
        }
    }
}
