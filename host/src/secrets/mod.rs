//! The values of secrets, and the texts of agents that contain them.
//!
//! ```text
//! [secrets] -> read: variables, files, commands -> Secrets: the values in force
//!                                                     |
//! config of an agent, with ${secret:NAME} ------------+--> AgentSecrets: its texts, and the mask of its logs
//! ```
//! A value that cannot be read any more stays in force, as does one that is no longer declared: a revision that runs
//! may need it. Values are in memory only; no part of this host writes them anywhere.

mod agent;
mod command;
mod read;
mod values;

pub(crate) use agent::{AgentSecrets, AgentTexts};
pub(crate) use read::{SecretError, files, read, run_commands};
pub(crate) use values::Secrets;
