//! The schema of a configuration, and its meaning.
//!
//! ```text
//! file, environment, flags --(host: config)--> Node --check--> Desired, or all errors
//!                                                       ^
//!                                              keys::KEYS: one row for each key
//! ```
//!
//! `keys` has the table of all settings, `kinds` the types of its rows, `schema` their look-up by path. `desired` walks
//! the tree beside the table (`section`) and reads each value once (`values`; `steps` for those of rollouts, `bounds`
//! for their limits). `defaults` has the tables of an agent that `[defaults]` has too, `strategies` the settings of
//! each strategy. `ceilings` bounds what agents may set, `policy` has the rules for components and the operator's own
//! file, which bounds this one. `budgets` has the budgets, whose names
//! others refer to, and the meters of places. `consistency` checks what only the whole file shows. `parts` checks a file agent by agent. `json_schema` and `reference` print the table.
//! Syntax, files and the environment belong to the host: a [`Node`] only records where it was written.

mod bounds;
mod budgets;
mod ceilings;
mod clash;
mod consistency;
mod defaults;
mod desired;
mod error;
mod error_codes;
mod error_parts;
mod findings;
mod help;
mod host_grants;
mod host_rules;
mod json_schema;
mod keys;
mod kinds;
mod meters;
mod node;
mod outgoing;
mod parts;
mod place_problem;
mod policy;
mod policy_error;
mod reference;
mod rows;
mod schedules;
pub mod schema;
mod secrets;
mod section;
mod steps;
mod strategies;
mod suggestions;
mod values;

pub use desired::{check, check_within};
pub use error::{Clash, ConfigError, Location, Overlap, PlaceProblem};
pub use error_parts::{BadUnit, UnknownReceiver};
pub use json_schema::json_schema;
pub use node::{Entry, Node, Source, Table, Value};
pub use parts::CheckedShared;
pub use policy::{Operator, check_operator};
pub use policy_error::PolicyError;
pub use reference::reference;

/// Returns the name in `known` that is nearest to `given`, if it is near enough to have been meant.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    suggestions::Suggestions::default().nearest(given, known)
}
