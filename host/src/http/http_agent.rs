//! Calls of HTTP agents: the request is passed in, the response is passed out, and both bodies are streamed once they
//! exceed what is held of them (`http.buffer`).

use std::sync::OnceLock;

use caxton_control::access::CallerIdentity;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue, TE,
};
use http::{Request, Response, request};

use super::body::{BodyLimits, Broken, ReplyBody, RequestBody};
use super::budget;
use super::call::{Call, HttpReply};
use super::callers::{RouteCaller, caller_header};
use super::connection::ConnectionContext;
use super::problem::{self, ProblemContext};
use super::reply;
use super::request_head::may_show_details;
use crate::agent::draft;
use crate::problem::Problem;
use crate::wasm::{AheadBody, OverTls};

/// The largest body of a signed request: it is held until its signature is checked.
const MAX_SIGNED_BODY: u64 = 10 << 20;

/// Calls an HTTP agent. Returns when the head of the response is there.
pub(super) async fn call(connection: &ConnectionContext, call: Call) -> HttpReply {
    let conversation = call.conversation();
    let Call { mut head, body, agent, revision, streams, caller, trace, budget, .. } = call;
    let settings = connection.listener.settings.load();
    let details = may_show_details(settings.details, connection.activity.is_local(), &head.headers);
    let about = ProblemContext { agent: Some(agent.name().as_str()), message: None, trace: Some(&trace), details };
    let (stall, held) = (settings.stall_timeout, settings.buffer_bytes);
    let bounds = BodyLimits { limit: settings.max_body_bytes, stall, whole: revision.spec.limits.time };
    // Not held during the call, which may take as long as a stream.
    drop(settings);
    let body = match RequestBody::new(body, bounds) {
        Ok(body) => body,
        Err(error) => return problem::respond(problem::of_body(&error, "http.max-body"), &about).into(),
    };
    let identified = identify(connection, caller, body, bounds).await.and_then(|(body, caller)| {
        let budget = budget::named(connection, &head.headers, budget, caller.as_ref())?;
        Ok((body, caller, budget))
    });
    let (mut body, caller, budget) = match identified {
        Ok(identified) => identified,
        Err(problem) => return problem::respond(problem, &about).into(),
    };
    // Before the agent is asked: from then on an instance waits for the client.
    if !streams && let Err(error) = body.read_ahead(held, connection.memory()).await {
        return problem::respond(problem::of_body(&error, "http.max-body"), &about).into();
    }
    head.headers.extend(caller_header(caller.as_ref()));
    let broken = body.broken();
    // After the body is wrapped, so that dropping it drains what the client still sends.
    let conversation = match conversation.and_then(|id| match draft::check_ids([id.as_deref()]) {
        Ok(()) => Ok(id),
        Err(error) => Err(problem::of_admission(&error)),
    }) {
        Ok(conversation) => conversation,
        Err(problem) => return problem::respond(problem, &about).into(),
    };
    let said = conversation.as_deref().and_then(|name| HeaderValue::from_str(name).ok());
    remove_connection_headers(&mut head, &connection.listener.address);
    if connection.listener.is_tls {
        head.extensions.insert(OverTls);
    }
    match agent.call_http(Request::from_parts(head, body), conversation, (Some(trace.clone()), budget)).await {
        Ok(answer) => {
            let mut response = answer.response;
            budget::tell(response.headers_mut(), answer.tree.as_ref());
            reply::set_identity_headers(response.headers_mut(), agent.name().as_str(), Some(&answer.revision), None);
            if let Some(said) = said {
                reply::name_conversation(response.headers_mut(), said);
            }
            let (head, body) = response.into_parts();
            // A client that takes its time then holds no instance.
            let body = AheadBody::of(body, held).await;
            // Once the guest has ended nothing waits for the client but its connection.
            let deadline = body.is_open().then_some(answer.deadline);
            HttpReply { response: Response::from_parts(head, ReplyBody::Agent(Box::new(body))), deadline }
        }
        Err(error) => {
            // The guest's failure usually only follows from that of the request's body.
            let problem = body_problem(&broken, bounds).unwrap_or_else(|| problem::of_call(error));
            problem::respond(problem, &about).into()
        }
    }
}

/// Finds the caller. The body of a signed request is read first, because the signature covers it.
async fn identify(
    connection: &ConnectionContext,
    caller: RouteCaller,
    body: RequestBody,
    bounds: BodyLimits,
) -> Result<(RequestBody, Option<CallerIdentity>), Problem> {
    if !caller.needs_body() {
        return Ok((body, caller.identify(connection, &[])?));
    }
    let whole = body.collect_within(MAX_SIGNED_BODY, connection.memory()).await;
    let whole = whole.map_err(|error| problem::of_body(&error, "a signed request"))?;
    let caller = caller.identify(connection, &whole.bytes)?;
    Ok((RequestBody::whole(whole, bounds), caller))
}

/// Returns the problem of the request's body, if it was refused or lost: then the error of the agent only follows from
/// it.
fn body_problem(broken: &OnceLock<Broken>, bounds: BodyLimits) -> Option<Problem> {
    Some(match broken.get()? {
        Broken::TooLarge => Problem::too_large(bounds.limit, "http.max-body"),
        Broken::Late(late) => problem::of_body(&(*late).into(), "http.max-body"),
        Broken::Lost => Problem::of_code("body-broken"),
    })
}

/// Headers that concern every recipient, so that `connection` cannot name them.
const END_TO_END: [HeaderName; 6] = [AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST];

/// Removes the headers that are meant for this connection only, and adds the `host` that HTTP/1.0 clients may omit.
fn remove_connection_headers(head: &mut request::Parts, address: &str) {
    // The client names further headers of this connection (RFC 9110, section 7.6.1), in one line or several.
    let lines = head.headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let named: Vec<HeaderName> =
        lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    // A header for every recipient is none of a connection, whatever the client says: without its host or credentials the
    // request would be another one.
    for name in named.iter().filter(|name| !END_TO_END.contains(name)) {
        head.headers.remove(name);
    }
    // Concerns one connection even if `connection` does not name it.
    head.headers.remove(TE);
    let named = head.headers.get(HOST).is_some_and(|host| !host.is_empty());
    if let (false, None, Ok(host)) = (named, head.uri.authority(), HeaderValue::from_str(address)) {
        head.headers.insert(HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_headers_are_removed() {
        let request = Request::builder()
            .uri("/")
            .header("connection", "keep-alive, X-Hop")
            .header("x-hop", "1")
            .header("te", "trailers")
            .header("x-end", "2")
            .body(())
            .unwrap();
        let (mut head, ()) = request.into_parts();
        remove_connection_headers(&mut head, "127.0.0.1:8080");
        let mut names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        // The other hop-by-hop headers are removed when the request is passed to wasi:http.
        assert_eq!(names, ["connection", "host", "x-end"]);
        assert_eq!(head.headers[HOST], "127.0.0.1:8080");
    }

    #[test]
    fn headers_for_every_recipient_are_none_of_a_connection() {
        let request = Request::builder()
            .uri("/")
            .header("connection", "host, authorization")
            .header("connection", "x-hop")
            .header("host", "a.example")
            .header("authorization", "Bearer x")
            .header("x-hop", "1")
            .body(())
            .unwrap();
        let (mut head, ()) = request.into_parts();
        remove_connection_headers(&mut head, "127.0.0.1:8080");
        assert_eq!(head.headers[HOST], "a.example");
        assert!(head.headers.contains_key(AUTHORIZATION));
        assert!(!head.headers.contains_key("x-hop"), "the second line counts too");
    }
}
