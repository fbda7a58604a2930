//! Timers of a mailbox: listed, and cancelled.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Api;
use super::extract::{Named, Params};
use super::guard::Who;
use super::problem::Problem;
use super::state::page;
use crate::store::WaitingTimer;
use crate::wasm::TimerName;

/// Timers of one page, when nothing else is asked.
const PAGE: u32 = 100;

/// The timers that are wanted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TimerParams {
    /// Only those after this place: `next` of the page before.
    #[param(pattern = "^[0-9]{1,18}-[0-9]{1,18}$")]
    after: Option<String>,
    /// At most so many: 100 when left out, 1000 at most.
    limit: Option<u32>,
}

/// A message that waits for its time.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct TimerStatus {
    /// The id of the message.
    pub(crate) id: String,
    /// The name that its sender gave it; none for one without.
    pub(crate) name: Option<String>,
    /// The sender.
    pub(crate) sender: String,
    /// The time at which it is due, in milliseconds since 1970.
    pub(crate) due_at: u64,
    /// Its conversation.
    pub(crate) conversation: String,
}

/// Some timers.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct TimerPage {
    /// The one that is due first comes first.
    pub(crate) timers: Vec<TimerStatus>,
    /// The `after` for the next page; none when this is the last.
    pub(crate) next: Option<String>,
}

impl From<WaitingTimer> for TimerStatus {
    fn from(timer: WaitingTimer) -> Self {
        let WaitingTimer { id, name, sender, due_at, conversation, place: _ } = timer;
        Self { id, name, sender, due_at, conversation }
    }
}

/// The messages to an agent that wait for their time, a page at a time.
#[utoipa::path(
    get, path = "/v1/mailboxes/{agent}/timers", tag = "mailboxes",
    params(("agent" = String, Path, description = "Whose"), TimerParams),
    responses((status = 200, body = TimerPage)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(params): Params<TimerParams>,
) -> Result<Json<TimerPage>, Problem> {
    api.agent(&name).await?;
    let limit = page(params.limit, PAGE)?;
    let after = params.after.as_deref().map_or(Ok((0, 0)), place)?;
    let timers = api.commons.store.waiting_timers(&name, after, limit).map_err(Problem::host)?;
    let full = u32::try_from(timers.len()).is_ok_and(|count| count == limit);
    let next = timers.last().filter(|_| full).map(|timer| format!("{}-{}", timer.place.0, timer.place.1));
    Ok(Json(TimerPage { timers: timers.into_iter().map(TimerStatus::from).collect(), next }))
}

/// Returns the place that a text names, as a page gave it.
fn place(text: &str) -> Result<(u64, u64), Problem> {
    let parsed = text.split_once('-').and_then(|(due, seq)| Some((due.parse().ok()?, seq.parse().ok()?)));
    parsed.ok_or_else(|| {
        let detail = format!("after=`{}`: it has to be `next` of the page before", text.escape_debug());
        Problem::bad_request(detail)
    })
}

/// Takes a timer back: it is not delivered, and nobody is told.
///
/// It is named by the id of its message, or by its name. Where several senders have a timer of this name, the id has to
/// say which. The answer is what was cancelled.
#[utoipa::path(
    delete, path = "/v1/mailboxes/{agent}/timers/{timer}", tag = "mailboxes",
    params(
        ("agent" = String, Path, description = "Whose"),
        ("timer" = String, Path, description = "The id or the name of the timer"),
    ),
    responses((status = 200, body = TimerStatus)),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    Extension(who): Extension<Who>,
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
    let store = Arc::clone(&api.commons.store);
    let (of, wanted) = (name.clone(), TimerName::of(timer.clone()));
    // A name is looked for among all timers of the agent, which may be many.
    let found = tokio::task::spawn_blocking(move || store.timers_named(&of, &wanted));
    let found = found.await.map_err(|error| Problem::host(error.to_string()))?.map_err(Problem::host)?;
    let mut found = found.into_iter();
    let (found, other) = (found.next().ok_or_else(missing)?, found.next());
    if other.is_some() {
        let detail = format!(
            "several senders have a timer `{}` for `{name}`; name one by its id, which `caxton mailbox timers {name}` tells",
            timer.escape_debug()
        );
        return Err(Problem::new(StatusCode::CONFLICT, "unclear", detail));
    }
    if !api.commons.store.cancel_timer(found.sender.clone(), found.id.clone()).await? {
        return Err(missing());
    }
    // An agent that is taken out of the file may have waited for nothing else.
    api.commons.wake(agent.name().shared());
    let data = json!({ "by": who.to_string(), "id": found.id, "name": found.name, "sender": found.sender });
    api.commons.events.tell(Some(&name), "timer.cancelled", data);
    Ok(Json(found.into()))
}
