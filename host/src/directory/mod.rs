//! The agents of the host by name, path and capability, and the times at which they act.

pub(crate) mod idle;
pub(crate) mod routes;
pub(crate) mod schedules;
pub(crate) mod wakeups;
