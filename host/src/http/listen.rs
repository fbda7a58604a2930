//! The listener where agents are called: shared parts, settings and metrics of its connections.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use caxton_control::desired::Http;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::stack;
use crate::agent::{Agent, HttpMetrics};
use crate::directory::HostDirectory;
use crate::net::{self, Bounds, Pulse};

/// Shared by all connections of the listener.
pub(super) struct Server {
    pub(super) directory: Arc<HostDirectory>,
    /// The settings `[http]`, replaced as a whole by a reload.
    pub(super) settings: Arc<ArcSwap<Http>>,
    /// The address of the listener, for requests without a `host` header.
    pub(super) address: String,
    /// Metrics of requests that no agent answers.
    unrouted: HttpMetrics,
}

/// The context of one connection for its requests.
pub(super) struct Line {
    pub(super) server: Arc<Server>,
    pub(super) pulse: Arc<Pulse>,
}

/// Serves calls until `stop`, then finishes the requests under way, and returns when all connections have ended.
/// Dropping the future leaves the connections open.
pub(crate) async fn serve(
    listener: TcpListener,
    settings: Arc<ArcSwap<Http>>,
    directory: Arc<HostDirectory>,
    stop: CancellationToken,
) {
    let address = listener.local_addr().map_or_else(|_| "localhost".to_owned(), |address| address.to_string());
    // Read at each use, so that a reload takes effect without a restart.
    let bounds = {
        let settings = Arc::clone(&settings);
        move || bounds(&settings.load())
    };
    let server = Arc::new(Server { directory, settings, address, unrouted: HttpMetrics::of("none") });
    let make = move |pulse| stack::stack(Arc::new(Line { server: Arc::clone(&server), pulse }));
    net::serve(listener, bounds, make, stop).await;
}

fn bounds(settings: &Http) -> Bounds {
    Bounds {
        max_connections: settings.max_connections,
        max_head_bytes: settings.max_head_bytes,
        head_timeout: settings.head_timeout,
        stall_timeout: settings.stall_timeout,
    }
}

impl Server {
    /// Counts an answered request under its agent, or under `none`.
    pub(super) fn answered(&self, agent: Option<&Agent>, status: StatusCode, took: Duration) {
        let metrics = agent.map_or(&self.unrouted, |agent| agent.stats().http(agent.name().as_str()));
        metrics.count(status.as_u16(), took);
    }
}
