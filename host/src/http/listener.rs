//! The listener where agents are called.

use std::sync::Arc;

use arc_swap::ArcSwap;
use caxton_control::desired::HttpSpec;
use tokio_util::sync::CancellationToken;

use super::connection::{ConnectionContext, ListenerContext};
use super::layers::layers;
use super::rates::RouteRates;
use crate::access::Access;
use crate::agent::HttpMetrics;
use crate::directory::HostDirectory;
use crate::net::{self, BoundListener, ConnectionActivity, ConnectionLimits, FileReserve};

/// Serves calls until `stop`, then finishes the requests under way, and returns when all connections have ended.
/// Dropping the future leaves the connections open.
pub(crate) async fn serve(
    listener: BoundListener,
    settings: Arc<ArcSwap<HttpSpec>>,
    directory: Arc<HostDirectory>,
    access: Arc<Access>,
    stop: CancellationToken,
) {
    let is_tls = listener.is_tls();
    let address = listener.address().map_or_else(|_| "localhost".to_owned(), |address| address.to_string());
    // Read at each use, so that a reload takes effect without a restart.
    let limits = {
        let settings = Arc::clone(&settings);
        move || limits(&settings.load())
    };
    let context = Arc::new(ListenerContext {
        directory,
        access,
        rates: RouteRates::default(),
        settings,
        address,
        is_tls,
        unrouted: HttpMetrics::of("none"),
    });
    let make_service = move |activity: Arc<ConnectionActivity>| {
        layers(Arc::new(ConnectionContext::new(Arc::clone(&context), activity)))
    };
    net::serve(listener, limits, make_service, stop).await;
}

fn limits(settings: &HttpSpec) -> ConnectionLimits {
    ConnectionLimits {
        max_connections: settings.max_connections,
        max_head_bytes: settings.max_head_bytes,
        head_timeout: settings.head_timeout,
        stall_timeout: settings.stall_timeout,
        idle_timeout: settings.idle_timeout,
        reserve: FileReserve::Calls,
    }
}
