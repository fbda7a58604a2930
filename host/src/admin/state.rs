//! The state of agents: reading it, and changing it by hand.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use caxton_control::units::parse_duration;
use http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::api::Api;
use super::extract::{Named, Params, body_within, page_size};
use super::guard::Caller;
use super::page::keep_first;
use super::problem;
use crate::agent::Agent;
use crate::api_types::{StateKey, StatePage};
use crate::clock;
use crate::message::{Expiry, Read, Value};
use crate::problem::Problem;
use crate::store::{CommitError, StateChange};
use crate::wasm::MAX_VALUE;

/// The number of keys on a page by default, and the largest number.
const PAGE: u32 = 100;
/// The longest key in bytes, the same as for agents.
const MAX_KEY: usize = 1_024;

/// The query of the list of keys.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeyParams {
    /// Selects keys with this prefix.
    #[serde(default)]
    prefix: String,
    /// Selects keys after this one, in byte order.
    after: Option<String>,
    /// The most to return: 100 by default, 1000 at most.
    limit: Option<u32>,
}

/// The header with the expiry of a value.
const EXPIRES_AT: HeaderName = HeaderName::from_static("caxton-expires-at");

/// The query of setting a key.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SetParams {
    /// The time to live, such as `10m`; without it the key does not expire.
    ttl: Option<String>,
}

/// Lists an agent's keys with the sizes of their values, in byte order.
#[utoipa::path(
    get, path = "/v1/agents/{name}/state", tag = "state",
    params(("name" = String, Path, description = "The agent"), KeyParams),
    responses((status = 200, body = StatePage)),
)]
pub(super) async fn list_keys(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(params): Params<KeyParams>,
) -> Result<Json<StatePage>, Problem> {
    let agent = api.agent(&name).await?;
    let limit = page_size(params.limit, PAGE)?;
    let store = &api.context.store;
    let entries =
        store.state().entries(&name, &params.prefix, params.after.as_deref(), limit).map_err(problem::host_error)?;
    let full = u32::try_from(entries.len()).is_ok_and(|count| count == limit);
    let mut keys: Vec<StateKey> = entries
        .into_iter()
        .map(|entry| StateKey { key: entry.key, bytes: entry.bytes, expires_at: entry.expires_at })
        .collect();
    // A page that is not full is the last one.
    let left_out = keep_first(&mut keys);
    let next = keys.last().filter(|_| full || left_out).map(|entry| entry.key.clone());
    Ok(Json(StatePage { keys, next, bytes: agent.state_bytes().load(Ordering::Relaxed) }))
}

/// Returns the value of a key, with its version as `ETag`.
///
/// For a key with a time to live, `caxton-expires-at` is its expiry in milliseconds since 1970.
#[utoipa::path(
    get, path = "/v1/agents/{name}/state/{key}", tag = "state",
    params(("name" = String, Path, description = "The agent"), ("key" = String, Path, description = "The key; slashes need no encoding")),
    responses((status = 200, description = "The value", content_type = "application/octet-stream", body = Vec<u8>)),
)]
pub(super) async fn get_value(
    State(api): State<Api>,
    Named((name, key)): Named<(String, String)>,
) -> Result<Response, Problem> {
    api.agent(&name).await?;
    let found = find(&api, &name, &key)?.ok_or_else(|| no_key(&name, &key))?;
    let mut response = found.value.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(tag) = HeaderValue::try_from(etag(found.version)) {
        headers.insert(ETAG, tag);
    }
    if let Some(at) = found.expires_at {
        headers.insert(EXPIRES_AT, at.into());
    }
    Ok(response)
}

/// Sets a key to the bytes of the body. Without `ttl` it does not expire, even if it did before.
///
/// With `If-Match`, only if the key still has that version.
#[utoipa::path(
    put, path = "/v1/agents/{name}/state/{key}", tag = "state",
    params(
        ("name" = String, Path, description = "The agent"), ("key" = String, Path, description = "The key; slashes need no encoding"),
        ("If-Match" = Option<String>, Header, description = "The version that the key has to have"), SetParams,
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The value"),
    responses((status = 204, description = "Set")),
)]
pub(super) async fn put_value(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named((name, key)): Named<(String, String)>,
    Params(params): Params<SetParams>,
    headers: HeaderMap,
    request: Request,
) -> Result<StatusCode, Problem> {
    let agent = api.agent(&name).await?;
    let ttl_ms = params.ttl.as_deref().map(ttl_ms).transpose()?;
    // Before the body is read.
    if key.len() > MAX_KEY {
        return Err(Problem::bad_request(format!("the key has {} bytes; {MAX_KEY} is the most", key.len())));
    }
    // The smaller bound is reported: it is the one that the caller can act on.
    let quota = agent.spec().limits.state_bytes;
    let too_large = if quota <= MAX_VALUE {
        CommitError::Quota(quota).into()
    } else {
        let why = format!("a value has at most {MAX_VALUE} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", why).with_limit(MAX_VALUE)
    };
    let value = body_within(request, quota.min(MAX_VALUE), too_large).await?;
    let bytes = value.len();
    // Counted from here and not from the commit.
    let expiry = ttl_ms.map(|ms| Expiry::after(clock::now_ms(), ms));
    let value = Value { bytes: value, expiry };
    write(&api, &agent, &key, Some(value), &headers).await?;
    let data = json!({
        "by": caller.to_string(), "key": key, "bytes": bytes, "expires_at": expiry.map(|expiry| expiry.at),
    });
    api.context.events.emit(Some(&name), "state.set", data);
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a key.
///
/// With `If-Match`, only if the key still has that version.
#[utoipa::path(
    delete, path = "/v1/agents/{name}/state/{key}", tag = "state",
    params(
        ("name" = String, Path, description = "The agent"), ("key" = String, Path, description = "The key; slashes need no encoding"),
        ("If-Match" = Option<String>, Header, description = "The version that the key has to have"),
    ),
    responses((status = 204, description = "Removed")),
)]
pub(super) async fn delete_value(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named((name, key)): Named<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let agent = api.agent(&name).await?;
    // Checked for the status only: removing a missing key would do nothing.
    if find(&api, &name, &key)?.is_none() {
        return Err(no_key(&name, &key));
    }
    write(&api, &agent, &key, None, &headers).await?;
    api.context.events.emit(Some(&name), "state.removed", json!({ "by": caller.to_string(), "key": key }));
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the milliseconds of a time to live.
fn ttl_ms(text: &str) -> Result<u64, Problem> {
    let time = parse_duration(text).map_err(|error| Problem::bad_request(format!("ttl=`{text}`: {error}")))?;
    let ms = clock::millis(time);
    if ms == 0 {
        return Err(Problem::bad_request(format!("ttl=`{text}`: it has to be at least 1ms")));
    }
    Ok(ms)
}

fn find(api: &Api, agent: &str, key: &str) -> Result<Option<Read>, Problem> {
    api.context.store.state().read(agent, key).map_err(problem::host_error)
}

fn no_key(agent: &str, key: &str) -> Problem {
    let detail =
        format!("`{agent}` keeps nothing under `{}`; `caxton state ls {agent}` lists its keys", key.escape_debug());
    Problem::new(StatusCode::NOT_FOUND, "no-key", detail)
}

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Returns `true` if `If-Match` names this version. 0 is that of a missing key (RFC 9110, section 13.1.1).
fn matches(wanted: &HeaderValue, version: u64) -> bool {
    let mut tags = wanted.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.any(|tag| (tag == "*" && version > 0) || tag == etag(version))
}

/// Makes one commit, like a handler would, so that agents see all of it or nothing.
async fn write(api: &Api, agent: &Agent, key: &str, value: Option<Value>, headers: &HeaderMap) -> Result<(), Problem> {
    let mut reads = BTreeMap::new();
    if let Some(wanted) = headers.get(IF_MATCH) {
        let version = find(api, agent.name().as_str(), key)?.map_or(0, |read| read.version);
        if !matches(wanted, version) {
            // The same code as for a key that changes during the request.
            let detail = "the key has another version than If-Match asks for; read it again";
            return Err(Problem::new(StatusCode::CONFLICT, "conflict", detail));
        }
        // The commit fails if the key changes between this check and the write.
        reads.insert(key.to_owned(), version);
    }
    let change = StateChange {
        reads,
        writes: BTreeMap::from([(key.to_owned(), value)]),
        expired: Vec::new(),
        adds: BTreeMap::new(),
        version: 0,
        quota: agent.spec().limits.state_bytes,
    };
    Ok(agent.commit(Some(change), Vec::new()).await?)
}
