//! What the file would change, and changing it.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::extract::Params;
use super::guard::Who;
use super::invoke::patience;
use super::problem::Problem;
use crate::status::{Applied, Diff};

/// How long to wait.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ApplyParams {
    /// How long to wait until everything is as declared, such as `30s`; 5m when left out, at most 1h.
    timeout: Option<String>,
}

/// What the file would change.
#[utoipa::path(get, path = "/v1/config/diff", tag = "config", responses((status = 200, body = Diff)))]
pub(super) async fn diff(State(api): State<Api>) -> Result<Json<Diff>, Problem> {
    Ok(Json(Diff { changes: api.control.diff().await? }))
}

/// Reads the file now, and waits until what runs is what it says, or until nothing more can be done.
///
/// A file with errors changes nothing (409); neither does one with settings that the components that run can do nothing
/// with, as `caxton check` finds them. When the time is over (504) the host goes on all the same.
#[utoipa::path(
    post, path = "/v1/config/apply", tag = "config",
    params(ApplyParams),
    responses((status = 200, body = Applied)),
)]
pub(super) async fn apply(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Params(params): Params<ApplyParams>,
) -> Result<Json<Applied>, Problem> {
    let timeout = patience(params.timeout.as_deref().unwrap_or("5m"))?;
    api.commons.events.tell(None, "config.apply", json!({ "by": who.to_string() }));
    Ok(Json(api.control.apply(timeout).await?))
}
