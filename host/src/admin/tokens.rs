//! Tokens: listing, making, rotating and ending them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use caxton_control::access::{Role, TokenName, TokenRecord, TokenTable, TokenTableError};
use caxton_control::units::{parse_duration, print_duration};
use http::header::{CACHE_CONTROL, HeaderValue};
use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::Api;
use super::extract::{Named, Params};
use super::guard::Caller;
use super::problem;
use crate::access::{Access, MadeToken, TokenChangeError};
use crate::clock;
use crate::problem::Problem;

/// The longest life of a token that expires: a hundred years.
const MAX_LIFE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// The shortest life of a token.
const MIN_LIFE: Duration = Duration::from_millis(1);

/// A token without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct TokenStatus {
    /// The name, by which records tell who acted.
    pub(crate) name: String,
    /// `read`, `operate` or `admin`.
    pub(crate) role: String,
    /// The time it was made, or rotated last, in milliseconds since 1970.
    pub(crate) made_at: u64,
    /// The time from which it is refused, in milliseconds since 1970; null for never.
    pub(crate) expires_at: Option<u64>,
    /// Set if it has expired.
    pub(crate) expired: bool,
}

impl TokenStatus {
    /// Describes a token.
    pub(crate) fn of(name: &TokenName, record: &TokenRecord, now: u64) -> Self {
        Self {
            name: name.to_string(),
            role: record.role.to_string(),
            made_at: record.made_at,
            expires_at: record.expires_at,
            expired: record.is_expired(now),
        }
    }

    /// Describes all tokens of a host, in order of name.
    pub(crate) fn all(table: &TokenTable) -> Vec<Self> {
        let now = clock::now_ms();
        table.all().map(|(name, record)| Self::of(name, record, now)).collect()
    }
}

/// A token that was just made or rotated.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct NewToken {
    #[serde(flatten)]
    pub(crate) status: TokenStatus,
    /// The text, which goes into `Authorization: Bearer TOKEN`. It is shown only here, and kept nowhere.
    pub(crate) token: String,
}

impl NewToken {
    /// Describes a token with its text.
    pub(crate) fn of(name: &TokenName, made: MadeToken) -> Self {
        Self { status: TokenStatus::of(name, &made.record, clock::now_ms()), token: made.text }
    }
}

/// The query of a new token.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TokenParams {
    /// The permissions: `read`, `operate` or `admin`.
    role: String,
    /// The time after which it is refused, such as `720h`; never if left out.
    expires: Option<String>,
}

/// Parses the life of a token, and returns it in milliseconds.
pub(crate) fn life_ms(text: &str) -> Result<u64, String> {
    let life = parse_duration(text).map_err(|error| format!("`{text}` is not a duration: {error}"))?;
    if !(MIN_LIFE..=MAX_LIFE).contains(&life) {
        let [least, most] = [MIN_LIFE, MAX_LIFE].map(print_duration);
        return Err(format!("`{text}`: a token lives from {least} to {most}"));
    }
    Ok(u64::try_from(life.as_millis()).unwrap_or(u64::MAX))
}

/// Lists the tokens, without their texts.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, body = [TokenStatus])))]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<TokenStatus>> {
    Json(TokenStatus::all(&api.access.tokens.table()))
}

/// Makes a token. Its text is in this answer, and nowhere else.
#[utoipa::path(
    post, path = "/v1/tokens/{name}", tag = "tokens",
    params(("name" = String, Path, description = "The name of the token"), TokenParams),
    responses((status = 201, body = NewToken)),
)]
pub(super) async fn make(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named(name): Named<String>,
    Params(params): Params<TokenParams>,
) -> Result<Response, Problem> {
    let name = parse_name(&name)?;
    let role: Role = params.role.parse().map_err(|error| Problem::bad_request(format!("role: {error}")))?;
    let life = params.expires.as_deref().map(life_ms).transpose();
    let life = life.map_err(|why| Problem::bad_request(format!("expires: {why}")))?;
    let made = change(&api, &caller, "token.made", name.clone(), move |access, name| {
        let made = access.tokens.make(name, role, life)?;
        Ok((made.record.role, made))
    });
    Ok(secret(StatusCode::CREATED, &NewToken::of(&name, made.await?)))
}

/// Gives a token another text. The old one is refused from then on.
#[utoipa::path(
    post, path = "/v1/tokens/{name}/rotate", tag = "tokens",
    params(("name" = String, Path, description = "The name of the token")),
    responses((status = 200, body = NewToken)),
)]
pub(super) async fn rotate(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named(name): Named<String>,
) -> Result<Response, Problem> {
    let name = parse_name(&name)?;
    let made = change(&api, &caller, "token.rotated", name.clone(), |access, name| {
        let made = access.tokens.rotate(name)?;
        Ok((made.record.role, made))
    });
    Ok(secret(StatusCode::OK, &NewToken::of(&name, made.await?)))
}

/// Ends a token. It is refused from then on.
#[utoipa::path(
    delete, path = "/v1/tokens/{name}", tag = "tokens",
    params(("name" = String, Path, description = "The name of the token")),
    responses((status = 204, description = "It has ended")),
)]
pub(super) async fn end(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named(name): Named<String>,
) -> Result<StatusCode, Problem> {
    let ended = change(&api, &caller, "token.ended", parse_name(&name)?, |access, name| {
        access.tokens.end(name).map(|record| (record.role, ()))
    });
    ended.await.map(|()| StatusCode::NO_CONTENT)
}

fn parse_name(name: &str) -> Result<TokenName, Problem> {
    name.parse().map_err(|error| {
        Problem::bad_request(format!("`{}` cannot be the name of a token: {error}", name.escape_debug()))
    })
}

/// Changes the tokens on a thread that may wait for the disk, and records it.
async fn change<T: Send + 'static>(
    api: &Api,
    caller: &Caller,
    kind: &'static str,
    name: TokenName,
    change: impl FnOnce(&Access, &TokenName) -> Result<(Role, T), TokenChangeError> + Send + 'static,
) -> Result<T, Problem> {
    let (access, context, by) = (Arc::clone(&api.access), Arc::clone(&api.context), caller.to_string());
    // Runs to its end even if the client is gone: the change and its event belong together.
    let work = tokio::task::spawn_blocking(move || {
        let (role, changed) = change(&access, &name)?;
        context.events.emit(None, kind, json!({ "by": by, "token": name.as_str(), "role": role.as_str() }));
        Ok(changed)
    });
    work.await.map_err(|error| problem::host_error(error.to_string()))?.map_err(|error| unchanged(&error))
}

/// Returns the problem of a change that was not made.
fn unchanged(error: &TokenChangeError) -> Problem {
    let (status, code) = match error {
        TokenChangeError::Table(TokenTableError::Missing(_)) => (StatusCode::NOT_FOUND, "no-token"),
        TokenChangeError::Table(TokenTableError::Exists(_) | TokenTableError::Local | TokenTableError::Full) => {
            (StatusCode::CONFLICT, "conflict")
        }
        TokenChangeError::File { .. } => return problem::host_error(error.to_string()),
    };
    Problem::new(status, code, error.to_string())
}

/// Writes an answer that no cache on the way may keep.
fn secret(status: StatusCode, token: &NewToken) -> Response {
    let no_store: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (status, [no_store], Json(token)).into_response()
}
