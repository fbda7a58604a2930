//! Endpoints for probes and scrapes: without a token, and with responses that do not wait long.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::{Api, agents};
use crate::api_types::TaskStatus;
use crate::reconcile::handle::Readiness;
use crate::telemetry::metrics::{AgentMetrics, Sample};

/// The time that a scrape waits for the figures of agents before it leaves them out.
const AGENTS_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of the host's process.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Alive {
    /// `ok`, or `failed` if a vital task has died or is stalled, or the data folder is lost.
    status: &'static str,
    /// The reason for which the host has to end; null while it runs well.
    reason: Option<String>,
    tasks: Vec<TaskStatus>,
}

/// The readiness of the host.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Ready {
    /// Set if everything that is declared is served and nothing of it needs a person to go on.
    ready: bool,
    /// The reasons, one line each. There may be some although the host is ready.
    reasons: Vec<String>,
}

/// Reports the state of the host and its tasks.
#[utoipa::path(
    get, path = "/healthz", tag = "probes", security(()),
    responses((status = 200, body = Alive), (status = 503, description = "The host cannot go on", body = Alive)),
)]
pub(super) async fn healthz(State(api): State<Api>) -> Response {
    let (tasks, store) = (&api.context.tasks, &api.context.store);
    // The loss of the store comes first: tasks may have failed because of it.
    let reason = store.lost().or_else(|| tasks.failed()).map(|why| why.to_string());
    let (status, code) = match reason.is_none() && tasks.are_well() {
        true => ("ok", StatusCode::OK),
        false => ("failed", StatusCode::SERVICE_UNAVAILABLE),
    };
    (code, Json(Alive { status, reason, tasks: tasks.status() })).into_response()
}

/// Reports the readiness: 200 if everything that is declared is served and nothing of it needs a person to go on.
///
/// A missing component, a revision that failed or was refused, and an unreadable file give 503. A rollout under way and
/// a file with errors are listed as reasons, with 200.
#[utoipa::path(
    get, path = "/readyz", tag = "probes", security(()),
    responses((status = 200, body = Ready), (status = 503, description = "Not everything is as declared", body = Ready)),
)]
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let mut readiness = api.reconciler.readiness();
    // The periodic check runs once a second; a probe should not report a state that is older.
    if let Some(why) = api.context.store.look_if_lost().or_else(|| api.context.tasks.failed()) {
        readiness.ready = false;
        readiness.reasons.insert(0, why.to_string());
    } else if api.stopped().is_cancelled() {
        // A load balancer must not send more requests.
        readiness =
            Readiness { ready: false, in_sync: readiness.in_sync, reasons: vec!["the host is stopping".to_owned()] };
    }
    // Also of a host that is not ready for another reason, which may follow from this one. A host that stops, or whose
    // store is lost, has said enough.
    let goes_on = !api.stopped().is_cancelled() && api.context.store.lost().is_none();
    if goes_on && let Some(why) = api.refused_commit().await {
        readiness.ready = false;
        readiness.reasons.insert(0, why);
    }
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready: readiness.ready, reasons: readiness.reasons })).into_response()
}

/// Returns all metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "probes", security(()),
    responses((status = 200, description = "Metrics", content_type = "text/plain", body = String)),
)]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    // A reconciler that is stuck must not hide the metrics that would show it.
    let agents = tokio::time::timeout(AGENTS_TIMEOUT, agents::after(&api, None, usize::MAX)).await;
    // Left out on any failure: the other metrics are worth more than an error.
    let agents = agents.ok().and_then(Result::ok);
    let mut agent_metrics: Vec<(Arc<str>, AgentMetrics)> = {
        // In a block, so that the snapshot is not held while the text is made.
        let routes = api.directory.routes.load();
        routes.all().filter_map(|agent| Some((agent.name().shared(), agent.stats().metrics()?))).collect()
    };
    // A stable order keeps scrapes comparable.
    agent_metrics.sort_by(|(one, _), (other, _)| one.cmp(other));
    let Readiness { ready, in_sync, .. } = api.reconciler.readiness();
    let tasks = api.context.tasks.status();
    let agents = agents.as_deref();
    let memory = api.context.memory_status();
    let sample = Sample {
        ready,
        in_sync,
        agents,
        agent_metrics: &agent_metrics,
        tasks: &tasks,
        memory: &memory,
        data: &api.data,
    };
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render(&sample)).into_response()
}
