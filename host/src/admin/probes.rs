//! For probes and scrapes: no token, and answers that do not wait.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::{Api, agents};
use crate::control::Readiness;
use crate::metrics::{Sample, Told};

/// How long a scrape waits for the figures of agents before it does without.
const PATIENCE: Duration = Duration::from_secs(2);

/// That the host lives.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Alive {
    /// `ok`.
    status: &'static str,
}

/// Whether the host is ready.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Ready {
    /// Whether everything that the file declares runs as declared.
    ready: bool,
    /// Why not, a line each.
    reasons: Vec<String>,
}

/// Whether the host lives.
#[utoipa::path(get, path = "/healthz", tag = "probes", security(()), responses((status = 200, body = Alive)))]
pub(super) async fn healthz() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// Whether everything that the file declares runs as declared.
#[utoipa::path(
    get, path = "/readyz", tag = "probes", security(()),
    responses((status = 200, body = Ready), (status = 503, description = "Not everything is as declared", body = Ready)),
)]
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let mut readiness = api.control.readiness();
    if api.0.stop.is_cancelled() {
        // What balances load must not send more.
        readiness = Readiness { ready: false, reasons: vec!["the host is stopping".to_owned()] };
    }
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready: readiness.ready, reasons: readiness.reasons })).into_response()
}

/// All metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "probes", security(()),
    responses((status = 200, description = "Metrics", content_type = "text/plain", body = String)),
)]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let agents = tokio::time::timeout(PATIENCE, agents::all(&api)).await;
    let agents = agents.ok().and_then(Result::ok);
    let mut told: Vec<(Arc<str>, Told)> = {
        let routes = api.commons.routes.load();
        routes.all().filter_map(|agent| Some((agent.name().shared(), agent.stats().told()?))).collect()
    };
    told.sort_by(|(one, _), (other, _)| one.cmp(other));
    let ready = api.control.readiness().ready;
    let sample = Sample { ready, agents: agents.as_deref(), told: &told, data: &api.data };
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render(&sample)).into_response()
}
