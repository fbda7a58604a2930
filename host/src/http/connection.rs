//! The context of requests: the parts shared by all connections of the listener, and the connection itself.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use caxton_control::desired::HttpSpec;
use http::StatusCode;

use crate::agent::{Agent, HttpMetrics};
use crate::directory::HostDirectory;
use crate::net::ConnectionActivity;

/// The parts shared by all connections of the listener.
pub(super) struct ListenerContext {
    pub(super) directory: Arc<HostDirectory>,
    /// The settings `[http]`, replaced as a whole by a reload.
    pub(super) settings: Arc<ArcSwap<HttpSpec>>,
    /// The address of the listener, for requests without a `host` header.
    pub(super) address: String,
    /// Set if the listener speaks TLS.
    pub(super) is_tls: bool,
    /// Metrics of requests that no agent answers.
    pub(super) unrouted: HttpMetrics,
}

/// The context of one connection for its requests.
pub(super) struct ConnectionContext {
    pub(super) listener: Arc<ListenerContext>,
    pub(super) activity: Arc<ConnectionActivity>,
}

impl ListenerContext {
    /// Counts an answered request under its agent, or under `none`.
    pub(super) fn count_response(&self, agent: Option<&Agent>, status: StatusCode, took: Duration) {
        let metrics = agent.map_or(&self.unrouted, |agent| agent.stats().http(agent.name().as_str()));
        metrics.count(status.as_u16(), took);
    }
}
