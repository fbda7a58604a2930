//! CORS for browsers: preflight requests, which are answered without an agent, and the headers of responses.

use caxton_control::cors::{Cors, Header};
use caxton_control::route::RESERVED_PREFIX;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response, StatusCode, request};

use super::body::ReplyBody;
use super::path;
use crate::directory::routes::{RouteMatch, Routes};

/// Returns the response to a preflight request. `None` if `head` is no preflight, or if its route leaves CORS to the
/// agent.
pub(super) fn preflight(cors: &Cors, routes: &Routes, head: &request::Parts) -> Option<Response<ReplyBody>> {
    if !cors.is_on() || head.method != Method::OPTIONS {
        return None;
    }
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let (origin, method) = (text(ORIGIN)?, text(ACCESS_CONTROL_REQUEST_METHOD)?);
    let asked = Method::from_bytes(method.as_bytes()).ok()?;
    let found = path::normal(head.uri.path());
    let methods: Vec<String> = match routes.find_for(&found, &asked) {
        // The route leaves CORS to its agent, which gets the preflight as well.
        RouteMatch::Target(target, _) if !target.is_shared() => return None,
        RouteMatch::Target(target, _) => target.methods().iter().map(ToString::to_string).collect(),
        RouteMatch::OtherMethods(methods) => methods.split(", ").map(str::to_owned).collect(),
        RouteMatch::Nothing if head.uri.path().starts_with(RESERVED_PREFIX) => {
            vec!["GET".to_owned(), "HEAD".to_owned()]
        }
        RouteMatch::Nothing => return None,
    };
    let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
    let mut response = Response::new(ReplyBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    insert(headers, cors.preflight(origin, method, text(ACCESS_CONTROL_REQUEST_HEADERS), &methods));
    let asked_by = "origin, access-control-request-method, access-control-request-headers";
    // A cache must not reuse the response for another origin, method or set of headers.
    headers.insert(VARY, HeaderValue::from_static(asked_by));
    Some(response)
}

/// Sets the CORS headers of a response.
pub(super) fn add_headers(cors: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    if !cors.is_on() {
        return;
    }
    // A second header of the same name, set by the agent, would make browsers refuse the response.
    for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
        headers.remove(name);
    }
    if cors.varies() {
        // Appended, because the agent may vary by further headers.
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = origin.and_then(|origin| origin.to_str().ok()) {
        insert(headers, cors.shared_with(origin));
    }
}

fn insert(headers: &mut HeaderMap, values: Vec<Header>) {
    for (name, value) in values {
        // The values repeat text of the client, which may have bytes that a header cannot carry.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
