//! The listeners of the API and of the probes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::api::Api;
use super::router::{probes_router, router};
use crate::net::{self, BoundListener, ConnectionActivity, ConnectionLimits, track_requests};

/// The interval at which recorded samples are drained even without scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// The limits of both listeners. Fixed, because their clients are few and belong to the operator.
const LIMITS: ConnectionLimits = ConnectionLimits {
    max_connections: 1_000,
    max_head_bytes: 64 << 10,
    head_timeout: Duration::from_secs(10),
    stall_timeout: Duration::from_secs(30),
};

/// Serves the API until `stop` is cancelled and the requests under way are answered.
pub(crate) async fn serve(listener: BoundListener, api: Api, stop: CancellationToken) {
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
        () = connections(listener, router, stop) => {}
        // Never ends; it is dropped with the connections.
        () = upkeep => {}
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` only, until `stop` is cancelled.
pub(crate) async fn serve_probes(listener: BoundListener, api: Api, stop: CancellationToken) {
    connections(listener, probes_router(api), stop).await;
}

async fn connections(listener: BoundListener, router: Router, stop: CancellationToken) {
    let make_service = move |activity: Arc<ConnectionActivity>| {
        let router = router.clone();
        track_requests(activity, move |request: Request<Incoming>| answer(router.clone(), request))
    };
    net::serve(listener, || LIMITS, make_service, stop).await;
}

async fn answer(mut router: Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    // No `ready` call is needed: an axum router is always ready.
    router.call(request.map(Body::new)).await
}
