//! The listener where agents are called.

use std::sync::Arc;

use arc_swap::ArcSwap;
use caxton_control::desired::HttpSpec;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connection::{ConnectionContext, ListenerContext};
use super::layers::layers;
use crate::agent::HttpMetrics;
use crate::directory::HostDirectory;
use crate::net::{self, ConnectionActivity, ConnectionLimits};

/// Serves calls until `stop`, then finishes the requests under way, and returns when all connections have ended.
/// Dropping the future leaves the connections open.
pub(crate) async fn serve(
    socket: TcpListener,
    settings: Arc<ArcSwap<HttpSpec>>,
    directory: Arc<HostDirectory>,
    stop: CancellationToken,
) {
    let address = socket.local_addr().map_or_else(|_| "localhost".to_owned(), |address| address.to_string());
    // Read at each use, so that a reload takes effect without a restart.
    let limits = {
        let settings = Arc::clone(&settings);
        move || limits(&settings.load())
    };
    let listener = Arc::new(ListenerContext { directory, settings, address, unrouted: HttpMetrics::of("none") });
    let make_service = move |activity: Arc<ConnectionActivity>| {
        layers(Arc::new(ConnectionContext { listener: Arc::clone(&listener), activity }))
    };
    net::serve(socket, limits, make_service, stop).await;
}

fn limits(settings: &HttpSpec) -> ConnectionLimits {
    ConnectionLimits {
        max_connections: settings.max_connections,
        max_head_bytes: settings.max_head_bytes,
        head_timeout: settings.head_timeout,
        stall_timeout: settings.stall_timeout,
    }
}
