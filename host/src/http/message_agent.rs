//! Calls of message agents: a request becomes a message, the reply becomes the response.

use std::time::Duration;

use caxton_control::RevisionId;
use caxton_control::access::{CALLER_HEADER, CallerIdentity};
use caxton_control::desired::ResponseMode;
use http::{Response, request};

use super::body::{BodyLimits, ReplyBody, RequestBody};
use super::body_memory::CollectedBody;
use super::budget;
use super::call::Call;
use super::connection::ConnectionContext;
use super::path;
use super::problem::{self, ProblemContext};
use super::reply;
use super::request_head::{self, RequestHead};
use crate::agent::{Key, Submission};
use crate::bounds;
use crate::message::Outcome;
use crate::problem::{Audience, Problem};

/// Calls a message agent. In the mode `request` it waits for the reply; in the mode `enqueue` it returns 202 once the
/// message is accepted.
pub(super) async fn call(connection: &ConnectionContext, call: Call) -> Response<ReplyBody> {
    let (conversation, named) = (call.conversation(), call.conversation.is_some());
    let Call { head, body, agent, revision, mode, route, params, caller, trace, budget, .. } = call;
    let name = agent.name().as_str();
    let settings = connection.listener.settings.load();
    let details = request_head::may_show_details(settings.details, connection.activity.is_local(), &head.headers);
    let about = ProblemContext { agent: Some(name), message: None, trace: Some(&trace), details };
    let limits = &revision.spec.limits;
    let bounds = BodyLimits { limit: limits.message_bytes, stall: settings.stall_timeout, whole: limits.time };
    // The guard is not held across the waits below: arc-swap has few fast slots.
    drop(settings);
    let body = match RequestBody::new(body, bounds) {
        Ok(body) => body,
        Err(error) => return problem::respond(problem::of_body(&error, "limits.message"), &about),
    };
    // Checked before the body is read, so that a client learns of a bad header without sending the body.
    let (fields, mut headers, conversation) = match read(&head, &params, conversation, named) {
        Ok(read) => read,
        Err(problem) => return problem::respond(problem, &about),
    };
    let content = body.collect(connection.memory()).await.map_err(|error| problem::of_body(&error, "limits.message"));
    // After the body, which a signature covers.
    let identify = |body: &CollectedBody| budget::identify(connection, &head.headers, (caller, budget), &body.bytes);
    let ((caller, budget), content) = match content.and_then(|body| Ok((identify(&body)?, body))) {
        Ok(identified) => identified,
        Err(problem) => return problem::respond(problem, &about),
    };
    headers.extend(caller.as_ref().map(|caller| (CALLER_HEADER.to_owned(), caller.as_str().to_owned())));
    let timeout = timeout(mode, fields.deadline, limits.time);
    let submission = Submission {
        sender: sender(&head, &route),
        performative: fields.performative,
        content: content.bytes,
        held: content.held,
        content_type: fields.content_type,
        ontology: fields.ontology,
        protocol: fields.protocol,
        conversation,
        timeout,
        headers,
        trace: Some(trace.clone()),
        budget,
    };
    match mode {
        ResponseMode::Enqueue => {
            // Only here: a caller that waits sees whether its request was handled, and needs no key.
            let key = match Key::of(&head.headers, &submission, caller.as_ref().map(CallerIdentity::as_str)) {
                Ok(key) => key,
                Err(why) => return problem::respond(Problem::bad_request(why), &about),
            };
            match agent.enqueue(submission, key).await {
                Ok(accepted) => reply::accepted(accepted, name),
                Err(error) => problem::respond(problem::of_admission(&error), &about),
            }
        }
        ResponseMode::Request => match agent.ask(submission).await {
            Err(error) => problem::respond(problem::of_admission(&error), &about),
            Ok((accepted, answer)) => {
                let about = ProblemContext { message: Some(&accepted.id), ..about };
                let revision = answer.revision.as_deref();
                let mut response = respond(connection, answer.outcome, revision, &about);
                reply::set_identity_headers(response.headers_mut(), name, revision, Some(accepted));
                response
            }
        },
    }
}

/// The fields of a head, the headers of the message, and its conversation.
type MessageHead = (RequestHead, Vec<(String, String)>, Option<String>);

/// Reads the head: the fields, the headers of the message, and its conversation.
fn read(
    head: &request::Parts,
    params: &[(String, String)],
    conversation: Result<Option<String>, Problem>,
    named: bool,
) -> Result<MessageHead, Problem> {
    let fields = request_head::read(&head.headers)?;
    let headers = describe(head, &fields, params)?;
    // The template of a route takes precedence over the header.
    let conversation = if named { conversation? } else { fields.conversation.clone() };
    Ok((fields, headers, conversation))
}

/// Makes the response of the outcome of a message in the mode `request`.
fn respond(
    connection: &ConnectionContext,
    outcome: Outcome,
    revision: Option<&RevisionId>,
    about: &ProblemContext<'_>,
) -> Response<ReplyBody> {
    if let Some(problem) = Problem::of_outcome(&outcome, Audience::Client) {
        return problem::respond(problem, about);
    }
    let message = if let Outcome::Reply(message) = outcome { Some(*message) } else { None };
    reply::answered(message).unwrap_or_else(|error| {
        if let Some(revision) = revision {
            // In the agent's own log, because its author has to mend the reply.
            connection.listener.directory.context.note_line(
                revision,
                "error",
                format!("a reply has no response: {error}"),
            );
        }
        problem::respond(problem::of_bad_status(&error), about)
    })
}

/// Returns the sender of the message: the method and the route, such as `http:POST /tickets/{id}`.
fn sender(head: &request::Parts, route: &str) -> String {
    let method = head.method.as_str();
    let mut sender = String::with_capacity("http: ".len() + method.len() + route.len());
    // In one allocation: this runs for each message.
    for part in ["http:", method, " ", route] {
        sender.push_str(part);
    }
    sender
}

/// Returns the headers of the message that describe the request. The route is part of the sender instead.
fn describe(
    head: &request::Parts,
    fields: &RequestHead,
    params: &[(String, String)],
) -> Result<Vec<(String, String)>, Problem> {
    let mut headers = Vec::with_capacity(3 + params.len() + fields.agent_headers.len());
    let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    add("http-method", head.method.as_str());
    // As the client wrote it: the normal form is for routing only.
    add("http-path", head.uri.path());
    if let Some(query) = head.uri.query() {
        add("http-query", query);
    }
    for (name, value) in params {
        let value = path::decoded(value).ok_or_else(|| {
            Problem::bad_request(format!("the part `{}` of the path is not printable UTF-8", bounds::quoted(value)))
        })?;
        headers.push((format!("http-param-{}", name.to_ascii_lowercase()), value));
    }
    headers.extend(fields.agent_headers.iter().cloned());
    Ok(headers)
}

/// Returns the time to wait for an outcome. A caller that waits gets its own deadline, bounded by `limits.time`. An
/// enqueued message has only the deadline that the request sets.
fn timeout(mode: ResponseMode, deadline: Option<Duration>, time: Duration) -> Option<Duration> {
    match mode {
        ResponseMode::Request => Some(deadline.map_or(time, |deadline| deadline.min(time))),
        ResponseMode::Enqueue => deadline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_bounded_by_the_time_limit() {
        let seconds = Duration::from_secs;
        for (mode, deadline, expected) in [
            (ResponseMode::Request, None, Some(seconds(10))),
            (ResponseMode::Request, Some(seconds(5)), Some(seconds(5))),
            (ResponseMode::Request, Some(seconds(60)), Some(seconds(10))),
            (ResponseMode::Enqueue, None, None),
            (ResponseMode::Enqueue, Some(seconds(60)), Some(seconds(60))),
        ] {
            assert_eq!(timeout(mode, deadline, seconds(10)), expected, "{mode:?} {deadline:?}");
        }
    }

    #[test]
    fn requests_are_described_in_headers() {
        let request = http::Request::builder()
            .method("GET")
            .uri("/tickets/J%C3%BCrgen?full=yes")
            .header("accept", "text/plain")
            .header("authorization", "Bearer x")
            .body(())
            .unwrap();
        let (head, ()) = request.into_parts();
        let fields = request_head::read(&head.headers).unwrap();
        let params = [("ID".to_owned(), "J%C3%BCrgen".to_owned())];
        let seen = describe(&head, &fields, &params).unwrap();
        let seen: Vec<(&str, &str)> = seen.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("http-method", "GET"),
                ("http-path", "/tickets/J%C3%BCrgen"),
                ("http-query", "full=yes"),
                ("http-param-id", "J\u{fc}rgen"),
                ("accept", "text/plain"),
            ]
        );
        assert!(describe(&head, &fields, &[("id".to_owned(), "%0A".to_owned())]).is_err());
        assert_eq!(sender(&head, "/tickets/{ID}"), "http:GET /tickets/{ID}");
    }
}
