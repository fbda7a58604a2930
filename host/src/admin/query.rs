//! The keys of queries: those that the description of an operation has, and no others.

use axum::extract::{MatchedPath, Query, Request};
use axum::middleware::Next;
use axum::response::Response;

use super::openapi;
use crate::bounds;
use crate::problem::Problem;

/// Refuses a query with a key that the operation does not have: a misspelt filter would otherwise select everything.
pub(super) async fn known_query(request: Request, next: Next) -> Result<Response, Problem> {
    let matched = request.extensions().get::<MatchedPath>();
    let known = matched.and_then(|path| openapi::query_keys(path.as_str(), request.method()));
    if let (Some(known), Ok(Query(given))) = (known, Query::<Vec<(String, String)>>::try_from_uri(request.uri()))
        && let Some((key, _)) = given.iter().find(|(key, _)| !known.contains(key))
    {
        let key = bounds::quoted(key);
        return Err(Problem::bad_request(match known {
            [] => format!("the query: this path has no keys, and so not `{key}`"),
            known => format!("the query: this path has no key `{key}`; it has {}", known.join(", ")),
        }));
    }
    Ok(next.run(request).await)
}
