//! The management API: version 1, JSON, on a listener of its own that only this machine can reach.
//!
//! ```text
//! accept -> guard: trace, host name -> (below /v1: token, rate) -> handler -> Control or HostContext
//!                                            problem details <- on any error
//! ```
//! Nothing here changes what runs: handlers ask the reconciler through [`Control`]. `/healthz`, `/readyz` and
//! `/metrics` need no token, and can have a listener of their own. A page in a browser cannot reach the API: there is
//! no CORS, and foreign host names are refused. `openapi` describes every path, and a test compares it with the router.

mod agents;
mod config;
mod conversations;
mod dead;
mod extract;
mod follow;
mod guard;
mod invoke;
mod mailboxes;
mod openapi;
mod probes;
mod problem;
mod rehearse;
mod rollouts;
mod schedules;
mod serve;
mod state;
mod stats;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::context::HostContext;
use crate::directory::HostDirectory;
use crate::reconcile::handle::Control;
use crate::telemetry::metrics::Metrics;

pub(crate) use dead::{DeadPage, DeadShown, DropResult, RedeliverResult};
pub(crate) use guard::CLI_AGENT;
pub(crate) use problem::Details;
pub(crate) use serve::{serve, serve_probes};
pub(crate) use stats::HostStats;
#[cfg(test)]
pub(crate) use stats::StoreFigures;
pub(crate) use timers::{TimerPage, TimerStatus};
pub(crate) use token::{TOKEN_FILE, TokenError, read_token};

/// The largest body in bytes: the largest `limits.message` of any agent (SPEC §5).
const MAX_BODY: usize = 10 << 20;

/// The parts of the host that handlers use.
pub(crate) struct AdminState {
    control: Control,
    context: Arc<HostContext>,
    directory: Arc<HostDirectory>,
    metrics: Metrics,
    data: PathBuf,
    token: token::Token,
    /// Allows one backup or check of the store at a time: each backup takes as much space as the store.
    copying: Arc<Semaphore>,
    /// Allows one rehearsal at a time: its component is in memory.
    rehearsing: Arc<Semaphore>,
}

impl AdminState {
    /// Collects the parts. Creates the token in the data folder at the first start.
    pub(crate) fn new(
        control: Control,
        directory: Arc<HostDirectory>,
        metrics: Metrics,
        data: &Path,
    ) -> Result<Self, TokenError> {
        Ok(Self {
            control,
            context: Arc::clone(&directory.context),
            directory,
            metrics,
            data: data.to_owned(),
            token: token::load_or_make(data)?,
            copying: Arc::new(Semaphore::new(1)),
            rehearsing: Arc::new(Semaphore::new(1)),
        })
    }
}

/// The state of every handler.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

struct Shared {
    state: AdminState,
    bucket: guard::Bucket,
    /// Ends streams of events and logs when the host stops.
    stop: CancellationToken,
}

impl Api {
    /// Creates the API of a host that stops when `stop` is cancelled.
    pub(crate) fn new(state: AdminState, stop: CancellationToken) -> Self {
        Self(Arc::new(Shared { state, bucket: guard::Bucket::default(), stop }))
    }
}

impl std::ops::Deref for Api {
    type Target = AdminState;

    fn deref(&self) -> &AdminState {
        &self.0.state
    }
}

/// Returns the routes that need the token.
fn api_routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/v1/host", get(agents::show_host)),
        ("/v1/agents", get(agents::list_agents)),
        ("/v1/agents/{name}", get(agents::show_agent)),
        ("/v1/agents/{name}/revisions", get(agents::list_revisions)),
        ("/v1/agents/{name}/invoke", post(invoke::invoke)),
        ("/v1/agents/{name}/messages", post(invoke::send)),
        ("/v1/agents/{name}/rehearse", post(rehearse::rehearse)),
        ("/v1/agents/{name}/state", get(state::list_keys)),
        ("/v1/agents/{name}/state/{*key}", get(state::get_value).put(state::put_value).delete(state::delete_value)),
        ("/v1/dead-letters", get(dead::list).delete(dead::drop_some)),
        ("/v1/dead-letters/redeliver", post(dead::redeliver_some)),
        ("/v1/dead-letters/{number}", get(dead::show).delete(dead::drop_one)),
        ("/v1/dead-letters/{number}/redeliver", post(dead::redeliver_one)),
        ("/v1/mailboxes", get(mailboxes::list)),
        ("/v1/mailboxes/{agent}/pause", post(mailboxes::pause)),
        ("/v1/mailboxes/{agent}/resume", post(mailboxes::resume)),
        ("/v1/mailboxes/{agent}/timers", get(timers::list)),
        ("/v1/mailboxes/{agent}/timers/{timer}", delete(timers::cancel)),
        ("/v1/rollouts", get(rollouts::list)),
        ("/v1/rollouts/{agent}", get(rollouts::show)),
        ("/v1/rollouts/{agent}/differences", get(rollouts::differences)),
        ("/v1/rollouts/{agent}/events", get(rollouts::follow)),
        ("/v1/rollouts/{agent}/{command}", post(rollouts::command)),
        ("/v1/stats", get(stats::show)),
        ("/v1/store", get(store::show)),
        ("/v1/store/check", get(store::check)),
        ("/v1/store/backup", post(store::backup)),
        ("/v1/config/diff", get(config::diff)),
        ("/v1/config/apply", post(config::apply)),
        ("/v1/conversations", get(conversations::list)),
        ("/v1/conversations/{id}", get(conversations::show)),
        ("/v1/schedules", get(schedules::list)),
        ("/v1/events", get(follow::events)),
        ("/v1/logs", get(follow::logs)),
        ("/v1/openapi.json", get(openapi::document)),
    ]
}

/// Returns the routes for probes and scrapes.
fn open_routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![("/healthz", get(probes::healthz)), ("/readyz", get(probes::readyz)), ("/metrics", get(probes::metrics))]
}

/// Segments of the paths that are answered from the store. All others report the host, and must work even while its
/// disk is stuck.
const FROM_STORE: &[&str] = &["state", "dead-letters", "conversations", "schedules", "events", "timers"];

/// Holds a response from the store until everything it may show is durable, so that no client sees data that a power
/// cut could take back.
async fn safe(State(api): State<Api>, request: Request, next: Next) -> Response {
    let from_store = request.uri().path().split('/').any(|part| FROM_STORE.contains(&part));
    let response = next.run(request).await;
    if from_store {
        api.context.store.wait_durable().await;
    }
    response
}

/// Builds the router of the whole API.
fn router(api: Api) -> Router {
    // Layers added later run first: the trace is outermost, so that every problem gets a body.
    let guarded = api_routes()
        .into_iter()
        .fold(Router::new(), add)
        // Behind the token too, so that the existence of paths is not revealed.
        .route("/v1/{*rest}", axum::routing::any(guard::no_path))
        .layer(middleware::from_fn_with_state(api.clone(), safe))
        .layer(middleware::from_fn_with_state(api.clone(), guard::authorise));
    open_routes()
        .into_iter()
        .fold(Router::new(), add)
        .merge(guarded)
        .fallback(guard::no_path)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(guard::only_ours))
        .layer(middleware::from_fn(guard::enter))
        .with_state(api)
}

/// Builds the router of probes and scrapes alone. It accepts any host name, as its clients may be on other machines.
fn probes_router(api: Api) -> Router {
    open_routes()
        .into_iter()
        .fold(Router::new(), add)
        .fallback(guard::no_path)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(middleware::from_fn(guard::enter))
        .with_state(api)
}

fn add(router: Router<Api>, (path, methods): (&str, MethodRouter<Api>)) -> Router<Api> {
    router.route(path, methods)
}
