//! Messages that were given up: looked at, handed to their agents again, dropped.
//!
//! What changes more than one needs a filter, or `all=true`: nobody changes everything by leaving something out.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use caxton_control::RevisionId;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Api;
use super::extract::{Named, Params, bounded};
use super::guard::Who;
use super::problem::Problem;
use super::state::page;
use crate::agent::{Left, RedeliverError, Redelivered, redeliver};
use crate::store::{Dead, DeadFilter, DeadInFull};
use crate::wasm::Attempt;

/// Dead letters of one page, when nothing else is asked.
const PAGE: u32 = 100;

/// Which dead letters are wanted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadParams {
    /// Only this agent's, which need not be declared any more.
    agent: Option<String>,
    /// Only those given up for this reason, such as `attempts-exhausted`.
    reason: Option<String>,
    /// Only those after this number.
    #[serde(default)]
    after: u64,
    /// At most so many: 100 when left out, 1000 at most.
    limit: Option<u32>,
}

/// Some dead letters.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeadPage {
    /// In order of their numbers: those given up first come first.
    pub(crate) dead_letters: Vec<Dead>,
    /// What to give as `after` for the next page; none when this is the last.
    pub(crate) next: Option<u64>,
}

/// A dead letter with all that is kept of it.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeadShown {
    /// What it comes to.
    #[serde(flatten)]
    pub(crate) dead: Dead,
    /// Every attempt, the first first.
    pub(crate) attempts: Vec<Attempt>,
    /// The message's headers, pairs of name and value.
    pub(crate) headers: Vec<(String, String)>,
    /// What the message says, if that is text in UTF-8.
    pub(crate) text: Option<String>,
    /// What the message says, in base64.
    pub(crate) content_base64: String,
}

/// Which dead letters are to be redelivered.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RedeliverParams {
    /// Only this agent's.
    agent: Option<String>,
    /// Only those given up for this reason.
    reason: Option<String>,
    /// All of them; only without `agent` and `reason`.
    #[serde(default)]
    all: bool,
    /// Only if this revision runs, such as `triage@7`, and only its agent's.
    revision: Option<String>,
}

/// Whether a dead letter is to be redelivered.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RedeliverOneParams {
    /// Only if this revision runs, such as `triage@7`.
    revision: Option<String>,
}

/// Which dead letters are to be dropped.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DropParams {
    /// Only this agent's.
    agent: Option<String>,
    /// Only those given up for this reason.
    reason: Option<String>,
    /// All of them; only without `agent` and `reason`.
    #[serde(default)]
    all: bool,
}

/// What became of a wish to redeliver.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RedeliverResult {
    /// How many wait in their agents' mailboxes again.
    pub(crate) redelivered: u64,
    /// Those that stay dead letters.
    pub(crate) left: Vec<DeadLeft>,
}

/// Dead letters of an agent that could not be redelivered.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DeadLeft {
    /// Whose.
    pub(crate) agent: String,
    /// How many.
    pub(crate) count: u64,
    /// Why.
    pub(crate) why: String,
}

/// How many dead letters were dropped.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DropResult {
    /// How many.
    pub(crate) dropped: u64,
}

/// Dead letters, a page at a time.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "dead letters", params(DeadParams),
    responses((status = 200, body = DeadPage)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<DeadParams>,
) -> Result<Json<DeadPage>, Problem> {
    let limit = page(params.limit, PAGE)?;
    let DeadParams { agent, reason, after, .. } = params;
    let after = bounded("after", after)?;
    let filter = DeadFilter { agent, reason, after, ..DeadFilter::default() };
    let dead_letters = api.read(move |store| store.dead(&filter, limit)).await?;
    let full = u32::try_from(dead_letters.len()).is_ok_and(|count| count == limit);
    let next = dead_letters.last().filter(|_| full).map(|dead| dead.number);
    Ok(Json(DeadPage { dead_letters, next }))
}

/// One dead letter, with what the message says and every attempt.
#[utoipa::path(
    get, path = "/v1/dead-letters/{number}", tag = "dead letters",
    params(("number" = u64, Path, description = "Its number")),
    responses((status = 200, body = DeadShown)),
)]
pub(super) async fn show(State(api): State<Api>, Named(number): Named<String>) -> Result<Json<DeadShown>, Problem> {
    let DeadInFull { dead, attempts, headers, content } = find(&api, &number).await?;
    let content_base64 = BASE64.encode(&content);
    Ok(Json(DeadShown { dead, attempts, headers, text: String::from_utf8(content).ok(), content_base64 }))
}

/// Puts one dead letter into its agent's mailbox again.
///
/// It is tried as often as a new message, and `mailbox.timeout` counts from now; a `reply-by` that has passed is taken
/// away. Refused (409), and kept as it is, when its agent is not declared, or `revision` is not what runs.
#[utoipa::path(
    post, path = "/v1/dead-letters/{number}/redeliver", tag = "dead letters",
    params(("number" = u64, Path, description = "Its number"), RedeliverOneParams),
    responses((status = 200, body = RedeliverResult)),
)]
pub(super) async fn redeliver_one(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Named(number): Named<String>,
    Params(params): Params<RedeliverOneParams>,
) -> Result<Json<RedeliverResult>, Problem> {
    let dead = find(&api, &number).await?.dead;
    let revision = params.revision.as_deref().map(revision).transpose()?;
    of_one_agent(revision.as_ref(), &dead.agent)?;
    let filter = DeadFilter { agent: Some(dead.agent), ..DeadFilter::one(dead.number) };
    let result = change(api, who, filter, revision).await?;
    match result.redelivered {
        // Somebody else was faster.
        0 => Err(not_there(&number)),
        _ => Ok(Json(result)),
    }
}

/// Puts dead letters into their agents' mailboxes again: those of `agent`, those of `reason`, or `all`.
///
/// As for one. Those of agents that are not declared stay as they are and are told in `left`; an `agent` that is
/// not declared is refused (409).
#[utoipa::path(
    post, path = "/v1/dead-letters/redeliver", tag = "dead letters", params(RedeliverParams),
    responses((status = 200, body = RedeliverResult)),
)]
pub(super) async fn redeliver_some(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Params(params): Params<RedeliverParams>,
) -> Result<Json<RedeliverResult>, Problem> {
    let revision = params.revision.as_deref().map(revision).transpose()?;
    let mut filter = filter(params.agent, params.reason, params.all)?;
    if let (Some(revision), Some(agent)) = (&revision, &filter.agent) {
        of_one_agent(Some(revision), agent)?;
    }
    if let Some(revision) = &revision {
        filter.agent = Some(revision.agent.to_string());
    }
    Ok(Json(change(api, who, filter, revision).await?))
}

/// Drops one dead letter, for good.
#[utoipa::path(
    delete, path = "/v1/dead-letters/{number}", tag = "dead letters",
    params(("number" = u64, Path, description = "Its number")),
    responses((status = 200, body = DropResult)),
)]
pub(super) async fn drop_one(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Named(number): Named<String>,
) -> Result<Json<DropResult>, Problem> {
    let dead = find(&api, &number).await?.dead;
    let dropped = api.commons.store.forget_dead(DeadFilter::one(dead.number)).await?;
    if dropped == 0 {
        return Err(not_there(&number));
    }
    let data = json!({ "by": who.to_string(), "number": dead.number, "id": dead.id, "reason": dead.reason });
    api.commons.events.tell(Some(&dead.agent), "dead-letter.dropped", data);
    Ok(Json(DropResult { dropped }))
}

/// Drops dead letters, for good: those of `agent`, those of `reason`, or `all`.
#[utoipa::path(
    delete, path = "/v1/dead-letters", tag = "dead letters", params(DropParams),
    responses((status = 200, body = DropResult)),
)]
pub(super) async fn drop_some(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
    Params(params): Params<DropParams>,
) -> Result<Json<DropResult>, Problem> {
    let mut filter = filter(params.agent, params.reason, params.all)?;
    // What comes meanwhile was not meant.
    filter.up_to = api.commons.store.last_dead().map_err(Problem::host)?;
    let data = json!({ "by": who.to_string(), "agent": filter.agent, "reason": filter.reason });
    let agent = filter.agent.clone();
    let dropped = api.commons.store.forget_dead(filter).await?;
    let mut data = data;
    data["count"] = dropped.into();
    api.commons.events.tell(agent.as_deref(), "dead-letter.dropped", data);
    Ok(Json(DropResult { dropped }))
}

/// What is meant by these parts of a query: some, or with `all` everything.
fn filter(agent: Option<String>, reason: Option<String>, all: bool) -> Result<DeadFilter, Problem> {
    match (agent.is_some() || reason.is_some(), all) {
        (true, false) | (false, true) => Ok(DeadFilter { agent, reason, ..DeadFilter::default() }),
        (false, false) => Err(unclear("which dead letters? give `agent`, `reason`, or `all=true`")),
        (true, true) => Err(unclear("`all=true` means every dead letter; leave out `agent` and `reason`, or `all`")),
    }
}

/// Parameters that are right by themselves and not beside each other.
fn unclear(detail: impl Into<String>) -> Problem {
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
    let found = api.read(move |store| store.dead_letter(parsed)).await?;
    found.ok_or_else(|| not_there(number))
}

fn not_there(number: &str) -> Problem {
    let detail = format!("there is no dead letter {number}; `caxton dead ls` lists those there are");
    Problem::new(StatusCode::NOT_FOUND, "no-dead-letter", detail)
}

/// Redelivers, also when whoever asked leaves meanwhile, and tells of it.
async fn change(
    api: Api,
    who: Who,
    filter: DeadFilter,
    revision: Option<RevisionId>,
) -> Result<RedeliverResult, Problem> {
    let work = async move {
        let reason = filter.reason.clone();
        let Redelivered { agents, left } = redeliver(&api.commons, filter, revision).await?;
        let mut redelivered = 0;
        for (agent, count) in agents.into_iter().filter(|(_, count)| *count > 0) {
            redelivered += count;
            let data = json!({ "by": who.to_string(), "count": count, "reason": reason });
            api.commons.events.tell(Some(&agent), "dead-letter.redelivered", data);
        }
        let left = left.into_iter().map(|Left { agent, count, why }| DeadLeft { agent, count, why }).collect();
        Ok(RedeliverResult { redelivered, left })
    };
    let done = tokio::spawn(work).await;
    done.map_err(|error| Problem::host(error.to_string()))?
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
            RedeliverError::Store(_) => Self::host(error.to_string()),
        }
    }
}

impl Api {
    /// Reads the store where that may take long.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&crate::store::Store) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = Arc::clone(&self.commons.store);
        let found = tokio::task::spawn_blocking(move || read(&store)).await;
        found.map_err(|error| Problem::host(error.to_string()))?.map_err(Problem::host)
    }
}
