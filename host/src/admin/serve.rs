//! The listeners of the API and of the probes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use caxton_control::desired::HttpSpec;
use http::Request;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::api::Api;
use super::guard::Peer;
use super::router::{probes_router, router};
use crate::net::{
    self, BoundListener, ClientBody, ConnectionActivity, ConnectionLimits, FileReserve, TimedBody, track_requests,
};

/// The settings `[http]`, of which both listeners take their times and sizes; a reload may change them at any time.
type Settings = Arc<ArcSwap<HttpSpec>>;

/// The interval at which recorded samples are drained even without scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// Connections open at once at each of the two listeners. Fixed, because their clients are few and belong to the operator.
const MAX_CONNECTIONS: u32 = 1_000;
/// The whole time of a body, in multiples of its longest pause: five minutes by default, for components that are uploaded
/// to be rehearsed.
const BODY_PAUSES: u32 = 10;

/// Serves the API until `stop` is cancelled and the requests under way are answered.
pub(crate) async fn serve(listener: BoundListener, api: Api, settings: Settings, stop: CancellationToken) {
    let metrics = api.metrics.clone();
    let router = router(api, listener.is_tls());
    let upkeep = async {
        let mut interval = tokio::time::interval(UPKEEP);
        loop {
            interval.tick().await;
            // Without scrapes the samples of histograms would pile up in memory.
            metrics.upkeep();
        }
    };
    tokio::select! {
        () = connections(listener, router, settings, stop) => {}
        // Never ends; it is dropped with the connections.
        () = upkeep => {}
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` only, until `stop` is cancelled.
pub(crate) async fn serve_probes(listener: BoundListener, api: Api, settings: Settings, stop: CancellationToken) {
    connections(listener, probes_router(api), settings, stop).await;
}

async fn connections(listener: BoundListener, router: Router, settings: Settings, stop: CancellationToken) {
    let of_bodies = Arc::clone(&settings);
    let make_service = move |activity: Arc<ConnectionActivity>| {
        let (router, peer, of_bodies) = (router.clone(), activity.peer(), Arc::clone(&of_bodies));
        track_requests(activity, move |mut request: Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(Peer(peer));
            }
            answer(router.clone(), request, of_bodies.load().stall_timeout)
        })
    };
    net::serve(listener, move || limits(&settings.load()), make_service, stop).await;
}

/// Returns the limits of both listeners: the times and sizes are those of `[http]`.
fn limits(settings: &HttpSpec) -> ConnectionLimits {
    ConnectionLimits {
        max_connections: MAX_CONNECTIONS,
        max_head_bytes: settings.max_head_bytes,
        head_timeout: settings.head_timeout,
        stall_timeout: settings.stall_timeout,
        idle_timeout: settings.idle_timeout,
        reserve: FileReserve::Management,
    }
}

async fn answer(mut router: Router, request: Request<Incoming>, stall: Duration) -> Result<Response, Infallible> {
    // No `ready` call is needed: an axum router is always ready.
    let (head, body) = request.into_parts();
    let body = TimedBody::new(ClientBody::new(body, &head), stall, stall * BODY_PAUSES);
    router.call(Request::from_parts(head, Body::new(body))).await
}
