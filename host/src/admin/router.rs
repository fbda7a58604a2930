//! The paths of the API, and the layers that a request passes before its handler.

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Router, middleware};

use super::api::Api;
use super::extract::MAX_BODY;
use super::{
    agents, bodies, budgets, config, conversations, dead, follow, guard, invoke, mailboxes, openapi, probes, query,
    rehearse, rollouts, schedules, state, stats, store, timers, tokens,
};

/// Returns the routes that need a token. Their roles are in [`caxton_control::access::admin_routes`].
pub(super) fn api_routes() -> Vec<(&'static str, MethodRouter<Api>)> {
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
        ("/v1/store/compact", post(store::compact)),
        ("/v1/config/diff", get(config::diff)),
        ("/v1/config/apply", post(config::apply)),
        ("/v1/conversations", get(conversations::list)),
        ("/v1/conversations/{id}", get(conversations::show)),
        ("/v1/schedules", get(schedules::list)),
        ("/v1/budgets", get(budgets::list)),
        ("/v1/budgets/{id}", get(budgets::show)),
        ("/v1/tokens", get(tokens::list)),
        ("/v1/tokens/{name}", post(tokens::make).delete(tokens::end)),
        ("/v1/tokens/{name}/rotate", post(tokens::rotate)),
        ("/v1/events", get(follow::events)),
        ("/v1/logs", get(follow::logs)),
        ("/v1/openapi.json", get(openapi::document)),
    ]
}

/// Returns the routes for probes and scrapes.
pub(super) fn open_routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![("/healthz", get(probes::healthz)), ("/readyz", get(probes::readyz)), ("/metrics", get(probes::metrics))]
}

/// Segments of the paths that are answered from the store. All others report the host, and must work even while its
/// disk is stuck.
const FROM_STORE: &[&str] = &["budgets", "state", "dead-letters", "conversations", "schedules", "events", "timers"];

/// Holds a response from the store until everything it may show is durable, so that no client sees data that a power
/// cut could take back.
async fn wait_durable(State(api): State<Api>, request: Request, next: Next) -> Response {
    let from_store = request.uri().path().split('/').any(|part| FROM_STORE.contains(&part));
    let response = next.run(request).await;
    if from_store {
        api.context.store.wait_durable().await;
    }
    response
}

/// Builds the router of the whole API. With TLS it takes every host name: a page of another site whose name leads here
/// does not get past the certificate.
pub(super) fn router(api: Api, is_tls: bool) -> Router {
    // Layers added later run first: the trace is outermost, so that every problem gets a body.
    let with_role = |(path, methods): (&'static str, MethodRouter<Api>)| {
        (path, methods.route_layer(middleware::from_fn_with_state(api.clone(), guard::require_role)))
    };
    let guarded = api_routes()
        .into_iter()
        .map(with_role)
        .fold(Router::new(), add)
        // Behind the token too, so that the existence of paths is not revealed.
        .route("/v1/{*rest}", axum::routing::any(guard::no_path))
        // Innermost: who may not ask takes no memory.
        .layer(middleware::from_fn_with_state(api.clone(), bodies::count))
        .layer(middleware::from_fn(query::known_query))
        .layer(middleware::from_fn_with_state(api.clone(), wait_durable))
        .layer(middleware::from_fn_with_state(api.clone(), guard::authorise));
    let all = open_routes()
        .into_iter()
        .fold(Router::new(), add)
        .merge(guarded)
        .fallback(guard::no_path)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY));
    let all = if is_tls { all } else { all.layer(middleware::from_fn(guard::only_ours)) };
    all.layer(middleware::from_fn(guard::enter)).with_state(api)
}

/// Builds the router of probes and scrapes alone. It accepts any host name, as its clients may be on other machines.
pub(super) fn probes_router(api: Api) -> Router {
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
