//! The schema of a configuration, and its meaning.
//!
//! ```text
//! file, environment, flags --(host: config)--> Node --check--> Desired, or all errors
//!                                                       ^
//!                                             schema::KEYS: one row for each key
//! ```
//!
//! `schema` has the table of keys. `build` walks the tree beside it (`section`) and reads each value once (`read`);
//! `inherited` has the tables of an agent that `[defaults]` has too; `cross` checks routes and grants together.
//! `json_schema` and `reference` print the table. Syntax, files and the environment belong to the host: a [`Node`] only
//! records where it was written.

mod build;
mod cross;
mod error;
mod help;
mod inherited;
mod json_schema;
mod node;
mod read;
mod reference;
mod rollout;
pub mod schema;
mod section;
mod shorthand;
mod suggest;

pub use build::check;
pub use error::{At, Clash, ConfigError, Overlap};
pub use json_schema::json_schema;
pub use node::{Entry, Node, Place, Table, Value};
pub use reference::reference;

/// Returns the name in `known` that is nearest to `given`, if it is near enough to have been meant.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    suggest::Suggest::default().nearest(given, known)
}
