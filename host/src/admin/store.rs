//! The store: its size, a check, and a backup.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::StreamExt;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::ReaderStream;

use super::api::Api;
use super::guard::Caller;
use super::problem;
use crate::api_types::{Compaction, StoreCheck, StoreStatus};
use crate::problem::Problem;
use crate::store::{CopyError, Store};

/// Bytes of a backup that are read at once.
const CHUNK: usize = 256 << 10;

/// Returns the size of the store and of its parts.
#[utoipa::path(get, path = "/v1/store", tag = "store", responses((status = 200, body = StoreStatus)))]
pub(super) async fn show(State(api): State<Api>) -> Result<Json<StoreStatus>, Problem> {
    Ok(Json(api.read(Store::size).await?))
}

/// Checks the whole store while the host runs. Takes long if it is large.
#[utoipa::path(get, path = "/v1/store/check", tag = "store", responses((status = 200, body = StoreCheck)))]
pub(super) async fn check(State(api): State<Api>) -> Result<Json<StoreCheck>, Problem> {
    let _one = begin_exclusive(&api)?;
    Ok(Json(api.read(Store::check).await?))
}

/// Makes a backup of the store as it is at this moment, as an SQLite database; the host goes on meanwhile.
///
/// It is first written to the data folder, which needs as much free space as the store (507 otherwise), and is removed
/// from there once it is sent. Only one can be made at a time (409).
#[utoipa::path(
    post, path = "/v1/store/backup", tag = "store",
    responses((status = 200, description = "The copy", content_type = "application/vnd.sqlite3", body = Vec<u8>)),
)]
pub(super) async fn backup(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let one = begin_exclusive(&api)?;
    let store = Arc::clone(&api.context.store);
    // Making the copy blocks for as long as it takes to write it.
    let made = tokio::task::spawn_blocking(move || store.copy()).await;
    let copy = made.map_err(|error| problem::host_error(error.to_string()))??;
    let bytes = copy.metadata().map_err(|error| problem::host_error(error.to_string()))?.len();
    // Emitted once the copy is made; whether the client receives all of it cannot be known here.
    api.context.events.emit(None, "store.backup", json!({ "by": caller.to_string(), "bytes": bytes }));
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(copy), CHUNK);
    // The permit lives as long as the stream: the copy's space is freed after the last chunk, or when the client has
    // gone.
    let chunks = chunks.inspect(move |_| {
        let _: &OwnedSemaphorePermit = &one;
    });
    // The length lets the client notice a copy that was cut off.
    let headers = [(CONTENT_TYPE, "application/vnd.sqlite3".to_owned()), (CONTENT_LENGTH, bytes.to_string())];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// Empties the log of the store and returns what is free in it to the system, on a host that can commit nothing for want of
/// room. On any other host every commit would have to wait (409): it has to be stopped for that.
///
/// Where the disk has no room to write the store anew, only the log is emptied; if it is empty, the answer is 507.
#[utoipa::path(post, path = "/v1/store/compact", tag = "store", responses((status = 200, body = Compaction)))]
pub(super) async fn compact(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Compaction>, Problem> {
    let _one = begin_exclusive(&api)?;
    if api.refused_commit().await.is_none() {
        let detail = "a host runs on the store, and every commit would have to wait: stop it first. Free space in the store \
                      is reused anyway (`caxton store show`)";
        return Err(Problem::new(StatusCode::CONFLICT, "in-use", detail));
    }
    let compacted = api.context.store.compact().await.map_err(|error| {
        if error.lacks_room() {
            return Problem::new(StatusCode::INSUFFICIENT_STORAGE, "no-room", error.to_string());
        }
        problem::host_error(error.to_string())
    })?;
    let Compaction { before, after, .. } = compacted;
    let data = json!({ "by": caller.to_string(), "before": before, "after": after });
    api.context.events.emit(None, "store.compacted", data);
    Ok(Json(compacted))
}

/// Takes the permit to copy or check the store.
///
/// # Errors
/// `busy` if another request has it.
fn begin_exclusive(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&api.copying).try_acquire_owned().map_err(|_| {
        let detail = "the store is being copied or checked by another request; try again when that is done";
        Problem::new(StatusCode::CONFLICT, "busy", detail)
    })
}

impl From<CopyError> for Problem {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::NoRoom { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no-room", format!("{error}; free space first"))
            }
            CopyError::Failed { .. } => problem::host_error(error.to_string()),
        }
    }
}
