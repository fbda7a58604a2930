//! A host whose store cannot be opened for want of room on the disk: there is none yet, or its tables are those of an older
//! version. The listeners say so, and the start goes on by itself once there is room.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use caxton_control::desired::HttpSpec;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::host_file::ROOM_RETRY;
use crate::net::{self, BoundListener, ConnectionActivity, ConnectionLimits, FileReserve, track_requests};
use crate::store::StoreError;

/// Connections open at once at each listener: they are answered at once.
const MAX_CONNECTIONS: u32 = 256;

/// A listener of a host without a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    /// The listener of agents.
    Calls,
    /// The management API, or the probes.
    Management,
}

/// Answers on the listeners that there is no room, and opens the store again and again, until it can be opened or fails in
/// another way.
///
/// # Errors
/// The error of the last attempt, or the first one if `stop` comes before.
pub(super) async fn open_when_room<S, F>(
    error: StoreError,
    listeners: Vec<(Face, BoundListener)>,
    settings: &HttpSpec,
    open: impl Fn() -> F,
    stop: &CancellationToken,
) -> Result<S, StoreError>
where
    F: Future<Output = Result<S, StoreError>>,
{
    let why: Arc<str> = format!("{error}; the host goes on by itself once there is room").into();
    tracing::error!("{why}");
    let limits = ConnectionLimits {
        max_connections: MAX_CONNECTIONS,
        max_head_bytes: settings.max_head_bytes,
        head_timeout: settings.head_timeout,
        stall_timeout: settings.stall_timeout,
        idle_timeout: settings.idle_timeout,
        reserve: FileReserve::Calls,
    };
    let closing = CancellationToken::new();
    let serving: Vec<_> = listeners
        .into_iter()
        .map(|(face, listener)| tokio::spawn(serve(face, listener, limits, Arc::clone(&why), closing.clone())))
        .collect();
    let opened = loop {
        tokio::select! {
            () = stop.cancelled() => break Err(error),
            () = tokio::time::sleep(ROOM_RETRY) => {}
        }
        match open().await {
            Err(error) if error.lacks_room() => {}
            opened => break opened,
        }
    };
    closing.cancel();
    for task in serving {
        // It ends with its connections, which are idle. A panic in it is one in the answer of a constant.
        let _ = task.await;
    }
    if opened.is_ok() {
        tracing::info!("there is room on the disk; the start goes on");
    }
    opened
}

async fn serve(face: Face, listener: BoundListener, limits: ConnectionLimits, why: Arc<str>, stop: CancellationToken) {
    let make_service = move |activity: Arc<ConnectionActivity>| {
        let why = Arc::clone(&why);
        track_requests(activity, move |request: Request<Incoming>| {
            let response = answer(face, request.uri().path(), &why);
            async move { Ok::<_, Infallible>(response) }
        })
    };
    net::serve(listener, move || limits, make_service, stop).await;
}

/// Returns the response to a request for this path. The agents' listener does not tell where the data folder is.
fn answer(face: Face, path: &str, why: &str) -> Response<Full<Bytes>> {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match (face, path) {
        (Face::Management, "/healthz") => {
            respond(StatusCode::OK, "application/json", &json!({ "status": "ok", "reason": null, "tasks": [] }))
        }
        (Face::Management, "/readyz") => {
            respond(unavailable, "application/json", &json!({ "ready": false, "reasons": [why] }))
        }
        (face, _) => {
            let detail = if face == Face::Calls { "there is no room on the disk of the host" } else { why };
            let problem = json!({ "title": "Service Unavailable", "status": 503, "code": "no-room", "detail": detail });
            respond(unavailable, "application/problem+json", &problem)
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from(ROOM_RETRY.as_secs()));
    }
    response
}
