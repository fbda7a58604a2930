//! The description of the API that the host serves.

use axum::Json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::problem::Details;
use super::{
    agents, config, conversations, dead, follow, invoke, mailboxes, probes, rehearse, rollouts, schedules, state,
    stats, store,
};

/// The API.
#[derive(OpenApi)]
#[openapi(
    info(title = "Caxton", description = "The management API of a Caxton host.", license(name = "Apache-2.0")),
    paths(
        agents::show_host,
        agents::list_agents,
        agents::show_agent,
        agents::list_revisions,
        invoke::invoke,
        invoke::send,
        state::list_keys,
        state::get_value,
        state::put_value,
        state::delete_value,
        dead::list,
        dead::show,
        dead::redeliver_one,
        dead::redeliver_some,
        dead::drop_one,
        dead::drop_some,
        mailboxes::list,
        mailboxes::pause,
        mailboxes::resume,
        rollouts::list,
        rollouts::show,
        rollouts::follow,
        rollouts::command,
        rollouts::differences,
        rehearse::rehearse,
        stats::show,
        store::show,
        store::check,
        store::backup,
        config::diff,
        config::apply,
        conversations::list,
        conversations::show,
        schedules::list,
        follow::events,
        follow::logs,
        document,
        probes::healthz,
        probes::readyz,
        probes::metrics,
    ),
    components(schemas(Details)),
    modifiers(&Common),
    security(("token" = [])),
)]
struct Described;

/// What all paths have in common.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.security_schemes.insert("token".to_owned(), bearer.into());
        document.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]);
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Details"))).build();
        let problem = ResponseBuilder::new()
            .description("What is wrong and what to try (RFC 9457)")
            .content("application/problem+json", content)
            .build();
        for path in document.paths.paths.values_mut() {
            for operation in [&mut path.get, &mut path.put, &mut path.post, &mut path.delete].into_iter().flatten() {
                operation.responses.responses.insert("default".to_owned(), problem.clone().into());
            }
        }
    }
}

/// The document.
pub(super) fn describe() -> Document {
    Described::openapi()
}

/// This document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "host",
    responses((status = 200, description = "This document (OpenAPI 3.1)", content_type = "application/json", body = Object)),
)]
pub(super) async fn document() -> Json<Document> {
    Json(describe())
}
