//! The rollouts: the takeover from the running revision by a new one, and the way back if it is worse (SPEC §2–§4).
//!
//! ```text
//! settings --strategy--> steps                     commands: pause, resume, promote, abort, undo
//!                          |                                      |
//! observation --observe--> Rollout: its step, status, reason, figures --> actions, what it waits for
//!                          |
//!              Ledger: the agent's rollouts, the revisions kept, what was refused
//! ```
//!
//! | modules | content |
//! |---|---|
//! | `strategy`, `step_plan`, `step` | the strategies, and the steps that each compiles to |
//! | `spec`, `settings`, `probe` | the settings of a rollout as declared, and as they apply to one |
//! | `compat` | strategies that an agent's memory or the format of its state rules out |
//! | `record`, `status` | a rollout as it is stored |
//! | `observation`, `action` | the input and the output of a decision |
//! | `rollforward`, `goals`, `rollback`, `assessment` | the decision: on the way to the candidate, and back |
//! | `analysis`, `failure_rate`, `window`, `verdict` | the judgement of a candidate by measurements |
//! | `comparison`, `answer`, `ignored_paths`, `rehearsal` | the comparison of two revisions' answers |
//! | `split` | the choice of a revision for a message |
//! | `ledger`, `declaration`, `command`, `undo`, `settlement`, `refusals`, `obstacle` | an agent's rollouts, and what changes them |
//! | `concurrency`, `garbage` | the limit of concurrent rollouts, and the end of revisions outside a rollout |
//!
//! There is no workflow beside the index of the step. After each action the host observes again, and the rollout
//! decides from the observation alone: an action that failed is requested again, and after a restart the same functions
//! bring up what is missing, with the traffic on the running revision until then.

mod action;
mod analysis;
mod answer;
mod assessment;
mod command;
pub mod comparison;
mod compat;
mod concurrency;
mod declaration;
mod failure_rate;
mod garbage;
mod goals;
mod ignored_paths;
mod ledger;
mod observation;
mod obstacle;
mod probe;
mod record;
mod refusals;
mod rehearsal;
mod rollback;
mod rollforward;
mod settings;
mod settlement;
mod spec;
pub mod split;
mod status;
mod step;
mod step_plan;
pub mod strategy;
mod undo;
mod verdict;
mod window;

pub use action::{Decision, RolloutAction};
pub use command::{CommandError, RolloutCommand, UndoOptions};
pub use compat::{Formats, Incompatible, check_formats, check_memory};
pub(crate) use concurrency::queue_key;
pub use concurrency::{MAX_CONCURRENT_ROLLOUTS, RolloutPermit, RolloutQueue, permits};
pub use declaration::{DeclarationOutcome, DeclarationStatus, DeclaredRevision};
pub use failure_rate::{FailureCounts, RecentFailures};
pub use garbage::collect_garbage;
pub use ledger::{Ledger, LedgerFingerprint, MAX_ROLLOUTS};
pub use observation::{ConversionState, Observation, ObservedRevision, StepMeasurements};
pub use obstacle::Obstacle;
pub use probe::{HealthProbe, ProbePace, ProbeResults};
pub use record::{InstanceCounts, Rollout, StoredRevision};
pub use rehearsal::{FirstMismatch, RehearsalState, RehearsalSummary};
pub use settings::{RollbackRules, RolloutSettings};
pub use spec::{DeploySpec, ReloadSpec, RollbackSpec, RolloutSpec};
pub use status::{RollbackReason, RolloutStats, Status};
pub use step::Step;
pub use step_plan::{Situation, WATCH_TIME};
pub use strategy::{DeployStrategy, MemoryHandover, ReloadStrategy, Strategy};
pub use undo::StateCopy;
pub use window::{ComparisonCounts, P95, Window};

impl Rollout {
    /// Decides on the next actions. Equal observations at equal times give equal actions; a rollout that has ended
    /// gives none. The caller asks [`permits`] first whether a pending rollout may begin.
    pub fn observe(&mut self, seen: &Observation, now: u64) -> Decision {
        let mut decision = Decision::default();
        if self.status.is_terminal() {
            return decision;
        }
        self.tick(now);
        self.stats = self.earlier_stats.and(seen.stats);
        if self.is_in_force(seen, self.weight) {
            self.weight_in_force = self.weight;
        }
        self.roll_forward(seen, now, &mut decision);
        // Not an alternative: the way forward may have found the reason to go back just now.
        if let Status::RollingBack { end } = self.status {
            // Actions meant for the way forward are wrong on the way back.
            decision = Decision::default();
            self.roll_back(end, seen, now, &mut decision);
        }
        decision
    }
}
