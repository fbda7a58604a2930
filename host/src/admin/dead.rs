//! The operations on dead letters: listing, redelivering and dropping them.
//!
//! A request that changes more than one needs a filter or `all=true`, so that a forgotten parameter cannot change
//! everything.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use caxton_control::RevisionId;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::Api;
use super::extract::{Named, Params, bounded, page_size};
use super::guard::Caller;
use super::page::keep_first;
use super::problem;
use crate::api_types::{AttemptStatus, DeadLetterCount, DeadLetterStatus, RecordedCallStatus};
use crate::directory::{NotRedelivered, RedeliverError, Redelivered};
use crate::message::{Attempt, StoredCall};
use crate::problem::Problem;
use crate::store::{Dead, DeadCount, DeadFilter, DeadInFull};

/// The number of dead letters returned by default.
const PAGE: u32 = 100;

/// The query of the list of dead letters.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadParams {
    /// Selects those of this agent, which need not be declared any more.
    agent: Option<String>,
    /// Selects those with this reason, such as `attempts-exhausted`.
    reason: Option<String>,
    /// Selects those after this number.
    #[serde(default)]
    after: u64,
    /// The most to return: 100 by default, 1000 at most.
    limit: Option<u32>,
}

/// A page of dead letters.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeadPage {
    /// The dead letters in order of their numbers, which is the order in which they were given up.
    pub(crate) dead_letters: Vec<DeadLetterStatus>,
    /// The value of `after` for the next page; null on the last page.
    pub(crate) next: Option<u64>,
}

/// A dead letter with its attempts and its content.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeadShown {
    /// The summary.
    #[serde(flatten)]
    pub(crate) dead: DeadLetterStatus,
    /// The attempts, in order.
    pub(crate) attempts: Vec<AttemptStatus>,
    /// The calls over HTTP that are recorded of it, in the order in which they began.
    pub(crate) calls: Vec<RecordedCallStatus>,
    /// The headers of the message, as pairs of name and value.
    pub(crate) headers: Vec<(String, String)>,
    /// The content, if it is UTF-8.
    pub(crate) text: Option<String>,
    /// The content in base64.
    pub(crate) content_base64: String,
}

/// The query of redelivering several dead letters.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RedeliverParams {
    /// Selects those of this agent.
    agent: Option<String>,
    /// Selects those with this reason.
    reason: Option<String>,
    /// Selects all of them. Excludes `agent` and `reason`.
    #[serde(default)]
    all: bool,
    /// Requires that this revision runs, such as `triage@7`, and selects those of its agent.
    revision: Option<String>,
    /// Has their calls over HTTP made again that have no success on record: also those that may have been carried out.
    #[serde(default)]
    repeat_calls: bool,
}

/// The query of redelivering one dead letter.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RedeliverOneParams {
    /// Requires that this revision runs, such as `triage@7`.
    revision: Option<String>,
    /// Has its calls over HTTP made again that have no success on record: also those that may have been carried out.
    #[serde(default)]
    repeat_calls: bool,
}

/// The query of dropping several dead letters.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DropParams {
    /// Selects those of this agent.
    agent: Option<String>,
    /// Selects those with this reason.
    reason: Option<String>,
    /// Selects all of them. Excludes `agent` and `reason`.
    #[serde(default)]
    all: bool,
}

/// The result of a redelivery.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RedeliverResult {
    /// The number that wait in their agents' mailboxes again.
    pub(crate) redelivered: u64,
    /// The dead letters that remain.
    pub(crate) left: Vec<DeadLeft>,
}

/// The dead letters of an agent that could not be redelivered.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeadLeft {
    /// The agent's name.
    pub(crate) agent: String,
    /// The number of dead letters.
    pub(crate) count: u64,
    /// The reason, for a person.
    pub(crate) why: String,
}

/// The result of dropping dead letters.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DropResult {
    /// The number of dropped dead letters.
    pub(crate) dropped: u64,
}

/// Lists dead letters, one page at a time.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "dead letters", params(DeadParams),
    responses((status = 200, body = DeadPage)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<DeadParams>,
) -> Result<Json<DeadPage>, Problem> {
    let limit = page_size(params.limit, PAGE)?;
    let DeadParams { agent, reason, after, .. } = params;
    let after = bounded("after", after)?;
    let filter = DeadFilter { agent, reason, after, ..DeadFilter::default() };
    // On a blocking thread: a filter may search many records for few results.
    let dead_letters = api.read(move |store| store.dead_letters().list(&filter, limit)).await?;
    // A page that is not full is the last one.
    let full = u32::try_from(dead_letters.len()).is_ok_and(|count| count == limit);
    let mut page = DeadPage { dead_letters: dead_letters.into_iter().map(Into::into).collect(), next: None };
    let left_out = keep_first(&mut page.dead_letters);
    page.next = page.dead_letters.last().filter(|_| full || left_out).map(|dead| dead.number);
    Ok(Json(page))
}

/// Returns one dead letter, with its content and all attempts.
#[utoipa::path(
    get, path = "/v1/dead-letters/{number}", tag = "dead letters",
    params(("number" = u64, Path, description = "The dead letter's number")),
    responses((status = 200, body = DeadShown)),
)]
pub(super) async fn show(State(api): State<Api>, Named(number): Named<String>) -> Result<Json<DeadShown>, Problem> {
    let DeadInFull { dead, attempts, headers, content, calls } = find(&api, &number).await?;
    let content_base64 = BASE64.encode(&content);
    let (dead, attempts) = (dead.into(), attempts.into_iter().map(Into::into).collect());
    let calls = calls.into_iter().map(Into::into).collect();
    Ok(Json(DeadShown { dead, attempts, calls, headers, text: String::from_utf8(content).ok(), content_base64 }))
}

/// Puts one dead letter back into its agent's mailbox.
///
/// It has as many attempts as a new message, and `mailbox.timeout` counts from now. A `reply-by` that has passed is
/// removed. Refused (409) and kept if its agent is not declared, or `revision` is not the running one.
#[utoipa::path(
    post, path = "/v1/dead-letters/{number}/redeliver", tag = "dead letters",
    params(("number" = u64, Path, description = "The dead letter's number"), RedeliverOneParams),
    responses((status = 200, body = RedeliverResult)),
)]
pub(super) async fn redeliver_one(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named(number): Named<String>,
    Params(params): Params<RedeliverOneParams>,
) -> Result<Json<RedeliverResult>, Problem> {
    let dead = find(&api, &number).await?.dead;
    let revision = params.revision.as_deref().map(revision).transpose()?;
    // Refused instead of redelivering nothing, which would look like success.
    of_one_agent(revision.as_ref(), &dead.agent)?;
    let filter = DeadFilter { agent: Some(dead.agent), ..DeadFilter::one(dead.number) };
    let result = change(api, caller, filter, (revision, params.repeat_calls)).await?;
    match result.redelivered {
        // Another request was faster.
        0 => Err(not_there(&number)),
        _ => Ok(Json(result)),
    }
}

/// Puts dead letters back into their agents' mailboxes: those of `agent`, those with `reason`, or `all`.
///
/// The rules are those of a single one. Those of agents that are not declared are kept and listed in `left`. An `agent`
/// that is not declared is refused (409).
#[utoipa::path(
    post, path = "/v1/dead-letters/redeliver", tag = "dead letters", params(RedeliverParams),
    responses((status = 200, body = RedeliverResult)),
)]
pub(super) async fn redeliver_some(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<RedeliverParams>,
) -> Result<Json<RedeliverResult>, Problem> {
    let revision = params.revision.as_deref().map(revision).transpose()?;
    let mut filter = filter(params.agent, params.reason, params.all)?;
    if let (Some(revision), Some(agent)) = (&revision, &filter.agent) {
        of_one_agent(Some(revision), agent)?;
    }
    if let Some(revision) = &revision {
        // Letters of other agents would run on revisions that the caller did not name.
        filter.agent = Some(revision.agent.to_string());
    }
    Ok(Json(change(api, caller, filter, (revision, params.repeat_calls)).await?))
}

/// Drops one dead letter for good.
#[utoipa::path(
    delete, path = "/v1/dead-letters/{number}", tag = "dead letters",
    params(("number" = u64, Path, description = "The dead letter's number")),
    responses((status = 200, body = DropResult)),
)]
pub(super) async fn drop_one(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named(number): Named<String>,
) -> Result<Json<DropResult>, Problem> {
    let dead = find(&api, &number).await?.dead;
    // Another request may have been faster since it was found.
    let dropped = api.context.store.dead_letters().forget(DeadFilter::one(dead.number)).await?;
    if dropped == 0 {
        return Err(not_there(&number));
    }
    let data = json!({ "by": caller.to_string(), "number": dead.number, "id": dead.id, "reason": dead.reason });
    api.context.events.emit(Some(&dead.agent), "dead-letter.dropped", data);
    Ok(Json(DropResult { dropped }))
}

/// Drops dead letters for good: those of `agent`, those with `reason`, or `all`.
#[utoipa::path(
    delete, path = "/v1/dead-letters", tag = "dead letters", params(DropParams),
    responses((status = 200, body = DropResult)),
)]
pub(super) async fn drop_some(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<DropParams>,
) -> Result<Json<DropResult>, Problem> {
    let mut filter = filter(params.agent, params.reason, params.all)?;
    // Bounded to those that exist now: the caller has not seen later ones.
    filter.up_to = api.context.store.dead_letters().last().map_err(problem::host_error)?;
    let data = json!({ "by": caller.to_string(), "agent": filter.agent, "reason": filter.reason });
    let agent = filter.agent.clone();
    let dropped = api.context.store.dead_letters().forget(filter).await?;
    let mut data = data;
    data["count"] = dropped.into();
    api.context.events.emit(agent.as_deref(), "dead-letter.dropped", data);
    Ok(Json(DropResult { dropped }))
}

/// Builds the filter of a query: a part, or with `all` everything.
fn filter(agent: Option<String>, reason: Option<String>, all: bool) -> Result<DeadFilter, Problem> {
    match (agent.is_some() || reason.is_some(), all) {
        (true, false) | (false, true) => Ok(DeadFilter { agent, reason, ..DeadFilter::default() }),
        (false, false) => Err(unclear("which dead letters? give `agent`, `reason`, or `all=true`")),
        (true, true) => Err(unclear("`all=true` means every dead letter; leave out `agent` and `reason`, or `all`")),
    }
}

/// Creates the problem of parameters that are valid alone and contradict each other.
fn unclear(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::CONFLICT, "unclear", detail)
}

fn revision(text: &str) -> Result<RevisionId, Problem> {
    text.parse().map_err(|error| Problem::bad_request(format!("revision=`{}`: {error}", text.escape_debug())))
}

fn of_one_agent(revision: Option<&RevisionId>, agent: &str) -> Result<(), Problem> {
    match revision {
        Some(revision) if revision.agent.as_str() != agent => {
            Err(unclear(format!("`{revision}` is no revision of `{agent}`, whose dead letters are meant")))
        }
        Some(_) | None => Ok(()),
    }
}

async fn find(api: &Api, number: &str) -> Result<DeadInFull, Problem> {
    let parsed: u64 = number
        .parse()
        .map_err(|_| Problem::bad_request(format!("`{}` is no number of a dead letter", number.escape_debug())))?;
    let found = api.read(move |store| store.dead_letters().get(parsed)).await?;
    found.ok_or_else(|| not_there(number))
}

fn not_there(number: &str) -> Problem {
    let detail = format!("there is no dead letter {number}; `caxton dead ls` lists those there are");
    Problem::new(StatusCode::NOT_FOUND, "no-dead-letter", detail)
}

/// Redelivers and records the events, even if the caller disconnects meanwhile.
async fn change(
    api: Api,
    caller: Caller,
    filter: DeadFilter,
    (revision, repeats_calls): (Option<RevisionId>, bool),
) -> Result<RedeliverResult, Problem> {
    let work = async move {
        let reason = filter.reason.clone();
        let Redelivered { agents, left } = api.directory.redeliver(filter, revision, repeats_calls).await?;
        let mut redelivered = 0;
        for (agent, count) in agents.into_iter().filter(|(_, count)| *count > 0) {
            redelivered += count;
            let mut data = json!({ "by": caller.to_string(), "count": count, "reason": reason });
            if repeats_calls {
                data["repeat_calls"] = true.into();
            }
            api.context.events.emit(Some(&agent), "dead-letter.redelivered", data);
        }
        let left =
            left.into_iter().map(|NotRedelivered { agent, count, why }| DeadLeft { agent, count, why }).collect();
        Ok(RedeliverResult { redelivered, left })
    };
    // A task of its own, because axum drops the handler when the client disconnects.
    let done = tokio::spawn(work).await;
    done.map_err(|error| problem::host_error(error.to_string()))?
}

impl From<RedeliverError> for Problem {
    fn from(error: RedeliverError) -> Self {
        let conflict = |code, detail| Self::new(StatusCode::CONFLICT, code, detail);
        let kept = "they are kept as they are";
        match &error {
            RedeliverError::NotDeclared(name) => conflict(
                "not-declared",
                format!("{error}; {kept}: declare `{name}` again, or drop them with `caxton dead drop --agent {name}`"),
            ),
            RedeliverError::Http(_) => conflict("http-agent", format!("{error}; {kept}")),
            RedeliverError::OtherRevision { .. } => {
                conflict("other-revision", format!("{error}; {kept}: ask for the one that runs, or for none"))
            }
            RedeliverError::Store(_) => problem::host_error(error.to_string()),
        }
    }
}

impl From<Dead> for DeadLetterStatus {
    fn from(dead: Dead) -> Self {
        Self {
            number: dead.number,
            id: dead.id,
            agent: dead.agent,
            sender: dead.sender,
            performative: dead.performative,
            conversation: dead.conversation,
            sent_at: dead.sent_at,
            at: dead.at,
            reason: dead.reason,
            error: dead.error,
            tried: dead.tried,
            code: dead.code,
            revision: dead.revision,
            content_type: dead.content_type,
            bytes: dead.bytes,
        }
    }
}

impl From<Attempt> for AttemptStatus {
    fn from(attempt: Attempt) -> Self {
        let Attempt { number, at, revision, code, error, took_us, cpu_us } = attempt;
        Self { number, at, revision, code, error, took_us, cpu_us }
    }
}

impl From<StoredCall> for RecordedCallStatus {
    fn from(call: StoredCall) -> Self {
        Self { call: call.line, at: call.at, outcome: call.outcome.text() }
    }
}

impl From<DeadCount> for DeadLetterCount {
    fn from(found: DeadCount) -> Self {
        let DeadCount { agent, reason, count, bytes, oldest } = found;
        Self { agent, reason, count, bytes, oldest }
    }
}

impl Api {
    /// Reads the store on a blocking thread, for queries that may take long.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&crate::store::Store) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = Arc::clone(&self.context.store);
        let found = tokio::task::spawn_blocking(move || read(&store)).await;
        found.map_err(|error| problem::host_error(error.to_string()))?.map_err(problem::host_error)
    }
}
