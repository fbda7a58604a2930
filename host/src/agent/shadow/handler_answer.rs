//! The conversion of a handler's result and effects to the answer that is compared.

use std::collections::BTreeMap;

use caxton_control::rollout::comparison::{Answer, CHANGES, CONNECTS, Content, Effect};

use crate::agent::describe;
use crate::bounds;
use crate::message::{Draft, Effects, Failure, Fault, GuestConnect, GuestHttpCall, Outcome, Reply};

/// The most calls over HTTP of a copy that are compared. None leaves the host, so that a guest may try many.
pub(super) const MAX_CALLS: usize = 100;

/// Returns the answer of a handler. `requests` are its requests to other agents, which are compared as effects.
pub(super) fn answer(result: &Result<Option<Reply>, Failure>, effects: &Effects, requests: Vec<Effect>) -> Answer {
    let (head, reply) = match result {
        Ok(Some(reply)) => (head(reply), Ok(Some(content(&reply.content, &reply.content_type)))),
        Ok(None) => (BTreeMap::new(), Ok(None)),
        // The effects of a failed handler are dropped. Its requests were answered nevertheless.
        Err(failure) => {
            let why = describe(&Outcome::Failed(failure.clone()));
            return Answer { head: BTreeMap::new(), reply: Err(why), effects: requests };
        }
    };
    Answer { head, reply, effects: effects_of(effects).into_iter().chain(requests).collect() }
}

/// Returns the effects of a handler, without its requests.
pub(super) fn effects_of(effects: &Effects) -> Vec<Effect> {
    // Sorted by key, as the map is, so that the order of a handler's writes makes no difference.
    let writes = effects.writes.iter().flat_map(|(key, value)| {
        let written = match value {
            Some(value) => Effect::Set { key: key.clone(), value: value.bytes.to_vec() },
            None => Effect::Delete { key: key.clone() },
        };
        // A time to live that the key kept from an earlier write is no effect of this handler.
        let given = value.as_ref().and_then(|value| value.expiry).and_then(|expiry| expiry.given);
        [Some(written), given.map(|for_ms| Effect::Expire { key: key.clone(), for_ms })].into_iter().flatten()
    });
    let adds = effects.adds.iter().map(|(key, by)| Effect::Increment { key: key.clone(), by: *by });
    let sends = effects.sends.iter().map(|sent| {
        let (message, due) = (&sent.envelope().message, sent.envelope().due);
        Effect::Send {
            receiver: message.receiver.clone(),
            performative: message.performative.to_string(),
            content: content(&message.content, &message.content_type),
            // The delay and not the time: the copy runs later than the live handling.
            after_ms: due.map(|due| due.saturating_sub(message.sent_at)),
        }
    });
    let cancels = effects.cancels.iter().map(|cancel| Effect::Cancel { timer: cancel.timer.text().to_owned() });
    writes.chain(adds).chain(sends).chain(cancels).collect()
}

/// Returns the answer of a handler that had a fault. Only the code is compared: the text of a trap changes with every
/// build.
pub(super) fn fault_answer(fault: &Fault) -> Answer {
    Answer { head: BTreeMap::new(), reply: Err(fault.code().to_owned()), effects: Vec::new() }
}

/// Returns the effect that stands for a request to another agent.
pub(super) fn request_effect(draft: &Draft) -> Effect {
    Effect::Request {
        receiver: draft.receiver.clone(),
        performative: draft.performative.to_string(),
        content: content(&draft.content, &draft.content_type),
    }
}

/// Returns the text by which a call over HTTP is compared and shown: the method, and the URL without its query.
pub(super) fn call_line(call: &GuestHttpCall) -> String {
    let (method, uri) = (call.request.method(), call.request.uri());
    // Without a user, which no call may have.
    let host = uri.authority().map_or("", |authority| authority.host());
    let port = uri.port().map_or_else(String::new, |port| format!(":{port}"));
    let scheme = uri.scheme_str().unwrap_or("http");
    bounds::cut(format!("{method} {scheme}://{host}{port}{}", uri.path()), bounds::QUOTED)
}

/// Returns the text by which a connection is compared and shown.
pub(super) fn connect_line(host: &str) -> String {
    bounds::cut(format!("{CONNECTS}{host}"), bounds::QUOTED)
}

/// Returns the text by which the connection that a guest asks for is compared and shown: by its name, if it has one.
pub(super) fn connection_line(call: &GuestConnect) -> String {
    match call.names.first() {
        Some(name) => connect_line(&format!("{name}:{}", call.address.port())),
        None => connect_line(&call.address.to_string()),
    }
}

/// Returns the text by which the change of a file is compared and shown.
pub(super) fn change_line(path: &str) -> String {
    bounds::cut(format!("{CHANGES}{path}"), bounds::QUOTED)
}

/// Returns the size of an answer in memory, about.
pub(super) fn answer_size(answer: &Answer) -> usize {
    let content = |content: &Content| content.bytes.len() + content.content_type.len();
    let effects = answer.effects.iter().map(|effect| match effect {
        Effect::Set { key, value } => key.len() + value.len(),
        Effect::Delete { key }
        | Effect::Increment { key, .. }
        | Effect::Expire { key, .. }
        | Effect::Cancel { timer: key } => key.len(),
        Effect::Call { line, .. } => line.len(),
        Effect::Send { receiver, content: sent, .. } | Effect::Request { receiver, content: sent, .. } => {
            receiver.len() + content(sent)
        }
    });
    let reply = match &answer.reply {
        Ok(reply) => reply.as_ref().map_or(0, content),
        Err(why) => why.len(),
    };
    reply + effects.sum::<usize>()
}

/// Returns the size that effects would have in an answer.
pub(super) fn effects_size(effects: &Effects) -> usize {
    let writes =
        effects.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.bytes.len()));
    let sends = effects.sends.iter().map(|sent| sent.envelope().message.content.len());
    writes.sum::<usize>() + sends.sum::<usize>()
}

/// Returns the performative, the ontology and the headers of a reply.
pub(super) fn head(reply: &Reply) -> BTreeMap<String, String> {
    let mut head = BTreeMap::from([("performative".to_owned(), reply.performative.to_string())]);
    if let Some(ontology) = &reply.ontology {
        head.insert("ontology".to_owned(), ontology.clone());
    }
    // A prefix, so that a header cannot hide the performative.
    head.extend(reply.headers.iter().map(|(name, value)| (format!("headers/{name}"), value.clone())));
    head
}

pub(super) fn content(bytes: &[u8], content_type: &str) -> Content {
    Content { content_type: content_type.to_owned(), bytes: bytes.to_vec() }
}
