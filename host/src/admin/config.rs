//! The comparison and the application of the declaration.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::api::Api;
use super::extract::{Params, parse_timeout};
use super::guard::Caller;
use crate::api_types::{ApplyResult, DeclarationDiff};
use crate::problem::Problem;

/// The query of an apply.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ApplyParams {
    /// The time to wait until everything is as declared, such as `30s`; 5m by default, at most 1h.
    timeout: Option<String>,
}

/// Returns the changes that the declaration would make.
#[utoipa::path(get, path = "/v1/config/diff", tag = "config", responses((status = 200, body = DeclarationDiff)))]
pub(super) async fn diff(State(api): State<Api>) -> Result<Json<DeclarationDiff>, Problem> {
    Ok(Json(DeclarationDiff { changes: api.reconciler.diff().await? }))
}

/// Reads the declaration and waits until everything runs as declared, or until only a person can go on.
///
/// A file with errors changes nothing (409). Neither does one with settings that the running components cannot use, as
/// `caxton check` finds them. After the timeout (504) the host goes on in the background.
#[utoipa::path(
    post, path = "/v1/config/apply", tag = "config",
    params(ApplyParams),
    responses((status = 200, body = ApplyResult)),
)]
pub(super) async fn apply(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<ApplyParams>,
) -> Result<Json<ApplyResult>, Problem> {
    // Before the event: a request that is refused is no apply.
    let timeout = parse_timeout(params.timeout.as_deref().unwrap_or("5m"))?;
    // Recorded before the outcome is known, because an apply may take an hour.
    api.context.events.emit(None, "config.apply", json!({ "by": caller.to_string() }));
    Ok(Json(api.reconciler.apply(timeout).await?))
}
