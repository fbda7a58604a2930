//! Timers of mailboxes: listing and cancelling them.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::Api;
use super::extract::{Named, Params, page_size};
use super::guard::Caller;
use super::page::keep_first;
use super::problem;
use crate::message::TimerName;
use crate::problem::Problem;
use crate::store::WaitingTimer;

/// The number of timers returned by default.
const PAGE: u32 = 100;

/// The query of the list of timers.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TimerParams {
    /// Selects timers after this position, the `next` of the previous page.
    #[param(pattern = "^[0-9]{1,18}-[0-9]{1,18}$")]
    after: Option<String>,
    /// The most to return: 100 by default, 1000 at most.
    limit: Option<u32>,
}

/// A message that waits for its due time.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct TimerStatus {
    /// The id of the message.
    pub(crate) id: String,
    /// The name that its sender gave it; null if it has none.
    pub(crate) name: Option<String>,
    /// The name of the agent that sent it.
    pub(crate) sender: String,
    /// The time at which it is due, in milliseconds since 1970.
    pub(crate) due_at: u64,
    /// The conversation id.
    pub(crate) conversation: String,
}

/// A page of timers.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct TimerPage {
    /// The timers in order of their due times.
    pub(crate) timers: Vec<TimerStatus>,
    /// The value of `after` for the next page; null on the last page.
    pub(crate) next: Option<String>,
}

impl From<WaitingTimer> for TimerStatus {
    fn from(timer: WaitingTimer) -> Self {
        let WaitingTimer { id, name, sender, due_at, conversation, place: _ } = timer;
        Self { id, name, sender, due_at, conversation }
    }
}

/// Lists an agent's timers, one page at a time.
#[utoipa::path(
    get, path = "/v1/mailboxes/{agent}/timers", tag = "mailboxes",
    params(("agent" = String, Path, description = "The agent's name"), TimerParams),
    responses((status = 200, body = TimerPage)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(params): Params<TimerParams>,
) -> Result<Json<TimerPage>, Problem> {
    api.agent(&name).await?;
    let limit = page_size(params.limit, PAGE)?;
    let after = params.after.as_deref().map_or(Ok((0, 0)), parse_position)?;
    let timers = api.context.store.timers().waiting(&name, after, limit).map_err(problem::host_error)?;
    // A page that is not full is the last one.
    let full = u32::try_from(timers.len()).is_ok_and(|count| count == limit);
    let places: Vec<(u64, u64)> = timers.iter().map(|timer| timer.place).collect();
    let mut timers: Vec<TimerStatus> = timers.into_iter().map(TimerStatus::from).collect();
    let left_out = keep_first(&mut timers);
    let last = timers.len().checked_sub(1).and_then(|last| places.get(last));
    let next = last.filter(|_| full || left_out).map(|place| format!("{}-{}", place.0, place.1));
    Ok(Json(TimerPage { timers, next }))
}

/// Parses a position of [`TimerPage::next`].
fn parse_position(text: &str) -> Result<(u64, u64), Problem> {
    let parsed = text.split_once('-').and_then(|(due, seq)| Some((due.parse().ok()?, seq.parse().ok()?)));
    // A pair, because several timers may be due in the same millisecond.
    parsed.ok_or_else(|| {
        let detail = format!("after=`{}`: it has to be `next` of the page before", text.escape_debug());
        Problem::bad_request(detail)
    })
}

/// Cancels a timer: it is not delivered, and its sender gets no notice.
///
/// The timer is given by the id of its message, or by its name. If several senders have a timer of this name (409), the
/// id is needed. Returns the cancelled timer.
#[utoipa::path(
    delete, path = "/v1/mailboxes/{agent}/timers/{timer}", tag = "mailboxes",
    params(
        ("agent" = String, Path, description = "The agent's name"),
        ("timer" = String, Path, description = "The id or the name of the timer"),
    ),
    responses((status = 200, body = TimerStatus)),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named((name, timer)): Named<(String, String)>,
) -> Result<Json<TimerStatus>, Problem> {
    let agent = api.agent(&name).await?;
    let missing = || {
        let detail = format!(
            "no timer `{}` waits for `{name}`; `caxton mailbox timers {name}` lists those that do",
            timer.escape_debug()
        );
        Problem::new(StatusCode::NOT_FOUND, "no-timer", detail)
    };
    let store = Arc::clone(&api.context.store);
    let (of, wanted) = (name.clone(), TimerName::of(timer.clone()));
    // On a blocking thread: a name is searched among all timers of the agent.
    let found = tokio::task::spawn_blocking(move || store.timers().named(&of, &wanted));
    let found = found.await.map_err(|error| problem::host_error(error.to_string()))?.map_err(problem::host_error)?;
    let mut found = found.into_iter();
    let (found, other) = (found.next().ok_or_else(missing)?, found.next());
    if other.is_some() {
        let detail = format!(
            "several senders have a timer `{}` for `{name}`; give its id, which `caxton mailbox timers {name}` lists",
            timer.escape_debug()
        );
        return Err(Problem::new(StatusCode::CONFLICT, "unclear", detail));
    }
    // It may have come due since it was found.
    if !api.context.store.timers().cancel(found.sender.clone(), found.id.clone()).await? {
        return Err(missing());
    }
    // The removal of an agent from the declaration may have waited for its last timer.
    api.context.wake(agent.name().shared());
    let data = json!({ "by": caller.to_string(), "id": found.id, "name": found.name, "sender": found.sender });
    api.context.events.emit(Some(&name), "timer.cancelled", data);
    Ok(Json(found.into()))
}
