//! Responses made from an agent's replies.

use std::fmt::Write;

use bytes::Bytes;
use caxton_control::RevisionId;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Response, StatusCode};
use serde_json::json;

use super::body::ReplyBody;
use super::budget;
use crate::agent::Accepted;
use crate::message::Message;
use caxton_control::Performative;

/// The number of characters of an invalid value that are shown in its error.
const MAX_SHOWN: usize = 40;

const AGENT: HeaderName = HeaderName::from_static("caxton-agent");
const CONVERSATION: HeaderName = HeaderName::from_static("caxton-conversation");
const MESSAGE_ID: HeaderName = HeaderName::from_static("caxton-message-id");
const ONTOLOGY: HeaderName = HeaderName::from_static("caxton-ontology");
const PERFORMATIVE: HeaderName = HeaderName::from_static("caxton-performative");
const REVISION: HeaderName = HeaderName::from_static("caxton-revision");
/// The path of a message's status, to be followed by its id.
const STATUS_PATH: &str = "/.caxton/messages/";
/// The header of a reply that sets the status of its response. It is not passed on to the client.
const STATUS: &str = "caxton-status";

/// The error of a reply that asks for an invalid status.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{STATUS}: {0}` is no status that a reply may have: it takes a whole number from 200 to 599")]
pub(super) struct BadStatus(String);

/// Returns the status that a reply asks for; `None` if it sets none and its performative decides.
fn asked_status(headers: &[(String, String)]) -> Result<Option<StatusCode>, BadStatus> {
    let Some((_, value)) = headers.iter().find(|(name, _)| name == STATUS) else { return Ok(None) };
    // `parse` alone would accept a sign and leading zeros.
    let digits = value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| digits && (200..600).contains(number));
    match number.and_then(|number| StatusCode::from_u16(number).ok()) {
        Some(status) => Ok(Some(status)),
        // Escaped and cut: the text is the agent's, and goes into a log and a response.
        None => Err(BadStatus(value.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect())),
    }
}

/// Returns the status for a performative. The message was handled and its effects are kept in every case, a refusal
/// included.
fn status(performative: Performative) -> StatusCode {
    use Performative as P;
    match performative {
        // The agent has agreed to act, and has not acted yet.
        P::Agree => StatusCode::ACCEPTED,
        P::Refuse => StatusCode::FORBIDDEN,
        P::NotUnderstood => StatusCode::UNPROCESSABLE_ENTITY,
        P::Failure => StatusCode::INTERNAL_SERVER_ERROR,
        P::AcceptProposal
        | P::Cancel
        | P::Cfp
        | P::Confirm
        | P::Disconfirm
        | P::Inform
        | P::InformIf
        | P::InformRef
        | P::Propagate
        | P::Propose
        | P::Proxy
        | P::QueryIf
        | P::QueryRef
        | P::RejectProposal
        | P::Request
        | P::RequestWhen
        | P::RequestWhenever
        | P::Subscribe => StatusCode::OK,
    }
}

/// Returns the response to a handled message: 204 without a reply.
///
/// # Errors
/// The reply asks for an invalid status. The effects of the handler are kept nevertheless.
pub(super) fn answered(reply: Option<Message>) -> Result<Response<ReplyBody>, BadStatus> {
    let Some(reply) = reply else {
        let mut response = Response::new(ReplyBody::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    };
    let performative = reply.performative;
    let status = asked_status(&reply.headers)?.unwrap_or_else(|| status(performative));
    // A 205 response has no content (RFC 9110, section 15.3.6).
    let content = if status == StatusCode::RESET_CONTENT { Bytes::new() } else { Bytes::from(reply.content) };
    let mut response = Response::new(ReplyBody::Whole(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Most replies have at most seven headers, and one allocation serves them all.
    headers.reserve(8);
    for (name, value) in reply.headers {
        let name = HeaderName::try_from(name).ok().filter(is_settable);
        // A name or a value that HTTP cannot carry is dropped: the message was handled, and cannot fail any more.
        if let (Some(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    if let Ok(content_type) = HeaderValue::try_from(reply.content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(PERFORMATIVE, HeaderValue::from_static(performative.as_str()));
    if let Some(ontology) = reply.ontology.and_then(|ontology| HeaderValue::try_from(ontology).ok()) {
        headers.insert(ONTOLOGY, ontology);
    }
    Ok(response)
}

/// Returns `true` if an agent's reply may set this header: neither one of the framing nor one of the host.
fn is_settable(name: &HeaderName) -> bool {
    let framing = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    // `http-` are parts of a request in a message, `keep-alive` and `proxy-` concern one connection.
    let prefixes = ["caxton-", "http-", "proxy-", "keep-alive", "trace"];
    !framing.contains(name) && !prefixes.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// Returns the 202 response to an enqueued message, with the path of its status.
pub(super) fn accepted(accepted: Accepted, agent: &str) -> Response<ReplyBody> {
    let body = json!({ "id": accepted.id, "conversation": accepted.conversation });
    let location = format!("{}{}", STATUS_PATH, accepted.id);
    let mut response = json_response(StatusCode::ACCEPTED, &body);
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    set_identity_headers(headers, agent, None, Some(accepted));
    response
}

/// Returns a JSON response of the host, never cached.
pub(super) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Whole(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // These responses describe a message on its way, so that a stored one would soon be wrong.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Sets the headers that name the agent, revision, message and conversation of a response.
pub(super) fn set_identity_headers(
    headers: &mut HeaderMap,
    agent: &str,
    revision: Option<&RevisionId>,
    message: Option<Accepted>,
) {
    let mut set = |name: HeaderName, value: String| {
        // Names and ids are printable. A conversation id need not be, and is left out then.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(AGENT, agent.to_owned());
    if let Some(revision) = revision {
        let mut text = String::with_capacity(agent.len() + 8);
        // Writing to a String cannot fail.
        let _ = write!(text, "{}@{}", revision.agent.as_str(), revision.number);
        set(REVISION, text);
    }
    if let Some(Accepted { id, conversation, tree }) = message {
        set(MESSAGE_ID, id);
        set(CONVERSATION, conversation);
        budget::tell(headers, tree.as_ref());
    }
}

/// Sets the header that names the conversation of a call of an HTTP agent.
pub(super) fn name_conversation(headers: &mut HeaderMap, conversation: HeaderValue) {
    headers.insert(CONVERSATION, conversation);
}

#[cfg(test)]
mod tests {
    use caxton_control::mailbox::Priority;

    use super::*;
    use crate::message::new_id;

    fn reply(headers: &[(&str, &str)]) -> Message {
        Message {
            id: new_id(),
            performative: Performative::Inform,
            sender: "triage".to_owned(),
            receiver: "http:POST /tickets".to_owned(),
            content: b"done".to_vec(),
            content_type: "text/plain".to_owned(),
            ontology: Some("tickets".to_owned()),
            protocol: None,
            conversation_id: "c-1".to_owned(),
            reply_with: None,
            in_reply_to: None,
            reply_by: None,
            priority: Priority::Normal,
            sent_at: 0,
            attempt: 1,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn replies_cannot_set_headers_of_the_host() {
        let response = answered(Some(reply(&[
            ("location", "/tickets/7"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("transfer-encoding", "chunked"),
            ("content-length", "9"),
            ("content-type", "text/html"),
            ("caxton-agent", "other"),
            ("caxton-status", "201"),
            ("http-path", "/"),
            ("a(b", "x"),
        ])))
        .unwrap();
        let mut found: Vec<(&str, &str)> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("caxton-ontology", "tickets"),
                ("caxton-performative", "inform"),
                ("content-type", "text/plain"),
                ("location", "/tickets/7"),
                ("set-cookie", "a=1"),
                ("set-cookie", "b=2"),
            ]
        );
    }

    #[test]
    fn performatives_map_to_status() {
        for (performative, expected) in [
            (Performative::Inform, 200),
            (Performative::Propose, 200),
            (Performative::Agree, 202),
            (Performative::Refuse, 403),
            (Performative::NotUnderstood, 422),
            (Performative::Failure, 500),
        ] {
            let response = answered(Some(Message { performative, ..reply(&[]) })).unwrap();
            assert_eq!(response.status(), expected, "{performative:?}");
        }
        assert_eq!(answered(None).unwrap().status(), 204);
    }

    #[test]
    fn a_reply_can_set_its_status() {
        for (said, expected) in [
            ("200", Some(200)),
            ("404", Some(404)),
            ("503", Some(503)),
            ("599", Some(599)),
            ("199", None),
            ("600", None),
            ("0404", None),
            ("+404", None),
            ("40", None),
            ("", None),
            ("not found", None),
        ] {
            let asks = Message { performative: Performative::Refuse, ..reply(&[(STATUS, said)]) };
            match (answered(Some(asks)), expected) {
                (Ok(response), Some(status)) => {
                    assert_eq!(response.status(), status, "{said}");
                    assert!(!response.headers().contains_key(STATUS), "{said}");
                }
                (Err(error), None) => assert!(error.to_string().contains(&format!("`caxton-status: {said}`"))),
                (found, expected) => panic!("{said}: {:?} and not {expected:?}", found.map(|found| found.status())),
            }
        }
    }
}
