//! The logs, metrics, traces and statistics of the host.

pub(crate) mod buckets;
pub(crate) mod histogram;
pub(crate) mod host_stats;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod trace;
