//! The one task that changes what runs.
//!
//! ```text
//! file, builds, signals, API, finished tasks --> wake
//!   wake: mark the agents concerned
//!   marked agents: observe --> caxton_control::plan --> apply each action, mark --> again, until none is marked
//! ```
//! The cost of a pass depends on the number of changes and not of agents: an unmarked agent is as its last plan left
//! it. Once a minute all agents are marked, in case a notification was missed.
//!
//! The agents' ledgers of rollouts belong to this task alone. A ledger that the plan changed is persisted before the
//! plan's actions are carried out. Long work (compiling, starting, saving) runs in tasks of its own, which report here
//! when they end; a revision with such work is `busy` and left alone until then. The agents that can be called are
//! published as an immutable snapshot: [`Routes`](crate::directory::routes::Routes).
//!
//! | files | contents |
//! |---|---|
//! | `cycle`, `readiness` | the loop; the summary of all agents after a pass |
//! | `reconciler`, `managed`, `summary`, `measurement`, `task_report` | the state |
//! | `actions`, `rollout_actions`, `preparation`, `handoff`, `state_conversion`, `rehearsal`, `removal` | the actions of a plan |
//! | `ledgers`, `rollout_stats`, `rollout_events`, `recent_failures`, `loss_check` | the records of rollouts |
//! | `handle`, `requests`, `rollout_requests`, `manual_rehearsal`, `diff`, `agent_status` | the requests of others |
//! | `declaration_file`, `reload`, `component_files`, `component_scan`, `certificates`, `secrets`, `policy`, `policy_state`, `signatures`, `file_stamp`, `watcher/`, `build` | files |
//! | `component_archive`, `component_garbage` | the bytes of revisions that an undo may need |

mod actions;
mod agent_status;
pub(crate) mod build;
mod certificates;
mod component_archive;
mod component_files;
mod component_garbage;
mod component_scan;
mod cycle;
mod declaration_file;
mod diff;
pub(crate) mod file_stamp;
pub(crate) mod handle;
mod handoff;
mod ledgers;
mod loss_check;
mod managed;
mod manual_rehearsal;
mod measurement;
mod policy;
mod policy_state;
mod preparation;
mod preparation_queue;
mod readiness;
mod recent_failures;
mod reconciler;
mod rehearsal;
mod reload;
mod removal;
mod requests;
mod rollout_actions;
mod rollout_events;
mod rollout_requests;
mod rollout_stats;
mod secrets;
mod settings_check;
mod signatures;
mod state_conversion;
mod stored_ledgers;
mod summary;
mod task_report;
pub(crate) mod watcher;

pub(crate) use agent_status::route_text;
pub(crate) use certificates::ListenerCertificate;
pub(crate) use declaration_file::{DeclarationSource, OperatorSource};
pub(crate) use reconciler::{AgentsToDrain, HostFacts, Reconciler, ReconcilerSetup};
pub(crate) use settings_check::{check_settings, memory_finding};
pub(crate) use signatures::{check_signatures, signature_path};
