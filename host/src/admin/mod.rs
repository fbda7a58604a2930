//! The management API: version 1, JSON, on a listener of its own that only this machine can reach.
//!
//! ```text
//! net -> router -> guard: trace, host name -> (below /v1: token, rate, role) -> handler -> ReconcilerHandle or HostDirectory
//!   invoke: query + body -> Submission -> ask (wait for the answer) | enqueue (202)
//!   problem: any error as problem details
//! ```
//! Nothing here changes what runs: handlers ask the reconciler through
//! [`ReconcilerHandle`](crate::reconcile::handle::ReconcilerHandle). `/healthz`, `/readyz` and `/metrics` need no
//! token, and can have a listener of their own. A page in a browser cannot reach the API: there is no CORS, and foreign
//! host names are refused. `openapi` describes every path, and a test compares it with the router.

mod agents;
mod api;
mod bodies;
mod budgets;
mod config;
mod conversations;
mod dead;
mod extract;
mod follow;
mod guard;
mod invoke;
mod mailboxes;
mod openapi;
mod page;
mod probes;
mod problem;
mod query;
mod rehearse;
mod rollouts;
mod router;
mod schedules;
mod serve;
mod state;
mod stats;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod tokens;

pub(crate) use api::{AdminState, Api};
pub(crate) use dead::{DeadPage, DeadShown, DropResult, RedeliverResult};
pub(crate) use guard::CLI_AGENT;
pub(crate) use problem::ProblemDetails;
pub(crate) use serve::{serve, serve_probes};
pub(crate) use stats::HostStats;
#[cfg(test)]
pub(crate) use stats::StoreFigures;
pub(crate) use timers::{TimerPage, TimerStatus};
pub(crate) use tokens::{NewToken, TokenStatus, life_ms};
