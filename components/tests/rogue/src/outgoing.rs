//! The messages that the rogue sends to other agents, and the record of their answers.

use std::time::{Duration, UNIX_EPOCH};

use caxton_sdk::prelude::*;
use caxton_sdk::{JSON, Performative, Priority, RequestError, SendError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::action::dots;

/// The fields of a draft or a reply besides its content.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Fields {
    performative: Option<String>,
    content_type: Option<String>,
    ontology: Option<String>,
    protocol: Option<String>,
    conversation: Option<String>,
    reply_with: Option<String>,
    in_reply_to: Option<String>,
    reply_by: Option<u64>,
    priority: Option<String>,
    after_ms: Option<u64>,
    at_ms: Option<u64>,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

impl Fields {
    pub(crate) fn into_reply(self, content: Vec<u8>) -> Result<Reply, Failure> {
        let mut reply = Reply::bytes(content, self.content_type.unwrap_or_else(|| String::from("text/plain")));
        if let Some(name) = self.performative {
            reply.performative = performative_named(&name)?;
        }
        reply.ontology = self.ontology;
        reply.reply_with = self.reply_with;
        reply.reply_by = self.reply_by;
        reply.headers = self.headers;
        Ok(reply)
    }

    pub(crate) fn into_draft(self, to: String, content: Option<Value>, bytes: Option<usize>) -> Result<Draft, Failure> {
        let content = match (content, bytes) {
            (Some(content), _) => serde_json::to_vec(&content)?,
            (None, bytes) => dots(bytes.unwrap_or(0)),
        };
        let mut draft = Draft::to(to).bytes(content, self.content_type.unwrap_or_else(|| String::from(JSON)));
        draft.performative = performative_named(self.performative.as_deref().unwrap_or("request"))?;
        if let Some(name) = self.priority {
            draft.priority = priority_named(&name)?;
        }
        if let Some(ms) = self.after_ms {
            draft = draft.after(Duration::from_millis(ms));
        }
        if let Some(ms) = self.at_ms {
            draft = draft.at(UNIX_EPOCH + Duration::from_millis(ms));
        }
        draft.ontology = self.ontology;
        draft.protocol = self.protocol;
        draft.conversation_id = self.conversation;
        draft.reply_with = self.reply_with;
        draft.in_reply_to = self.in_reply_to;
        draft.reply_by = self.reply_by;
        draft.headers = self.headers;
        Ok(draft)
    }
}

pub(crate) fn send(draft: &Draft, count: u32) -> Value {
    let (mut sent, mut errors) = (Vec::new(), Vec::new());
    for _ in 0..count {
        match draft.send() {
            Ok(id) => sent.push(id),
            Err(error) => errors.push(describe_send_error(&error)),
        }
    }
    json!({ "sent": sent, "errors": errors })
}

pub(crate) fn broadcast(draft: &Draft) -> Value {
    draft.broadcast().map_or_else(|error| describe_send_error(&error), |ids| json!({ "sent": ids }))
}

pub(crate) fn cancel(timer: &str) -> Value {
    messaging::cancel(timer).map_or_else(|error| describe_send_error(&error), |there| json!({ "cancelled": there }))
}

pub(crate) fn request(draft: &Draft, timeout: Duration) -> Value {
    describe_answer(draft.request(timeout))
}

pub(crate) fn request_all(drafts: &[Draft], timeout: Duration) -> Value {
    messaging::request_all(drafts, timeout).into_iter().map(describe_answer).collect()
}

fn describe_answer(answer: Result<Message, RequestError>) -> Value {
    match answer {
        Ok(message) => json!({
            "from": message.sender,
            "performative": performative_name(message.performative),
            "conversation-id": message.conversation_id,
            "in-reply-to": message.in_reply_to,
            "content-type": message.content_type,
            "reply": serde_json::from_slice(&message.content)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&message.content))),
        }),
        Err(RequestError::NotSent(error)) => describe_send_error(&error),
        Err(RequestError::TimedOut) => json!({ "error": "timed-out" }),
        Err(RequestError::Failed(reason)) => json!({ "error": "failed", "detail": reason }),
        Err(RequestError::NoReply) => json!({ "error": "no-reply" }),
        Err(RequestError::Deadlock(agents)) => json!({ "error": "deadlock", "detail": agents }),
    }
}

fn describe_send_error(error: &SendError) -> Value {
    match error {
        SendError::UnknownReceiver(receiver) => json!({ "error": "unknown-receiver", "detail": receiver }),
        SendError::NotAllowed(receiver) => json!({ "error": "not-allowed", "detail": receiver }),
        SendError::TooLarge(limit) => json!({ "error": "too-large", "detail": limit }),
        SendError::MailboxFull(limit) => json!({ "error": "mailbox-full", "detail": limit }),
        SendError::TooManySends(limit) => json!({ "error": "too-many-sends", "detail": limit }),
        SendError::TooManyHops(limit) => json!({ "error": "too-many-hops", "detail": limit }),
        SendError::Invalid(part) => json!({ "error": "invalid", "detail": part }),
        SendError::Unsupported(what) => json!({ "error": "unsupported", "detail": what }),
        SendError::Unavailable(reason) => json!({ "error": "unavailable", "detail": reason }),
    }
}

pub(crate) fn describe(message: &Message) -> Value {
    json!({
        "id": message.id,
        "performative": performative_name(message.performative),
        "sender": message.sender,
        "receiver": message.receiver,
        "content": String::from_utf8_lossy(&message.content),
        "content-type": message.content_type,
        "ontology": message.ontology,
        "protocol": message.protocol,
        "conversation-id": message.conversation_id,
        "reply-with": message.reply_with,
        "in-reply-to": message.in_reply_to,
        "reply-by": message.reply_by,
        "priority": priority_name(message.priority),
        "sent-at": message.sent_at,
        "attempt": message.attempt,
        "headers": message.headers,
    })
}

/// The request over HTTP that a message was made of.
pub(crate) fn describe_call(message: &Message) -> Value {
    let Some(call) = message.http() else { return Value::Null };
    json!({
        "method": call.method,
        "route": call.route,
        "path": call.path,
        "query": call.query_pairs().collect::<Vec<_>>(),
        "parameters": call.parameters().collect::<Vec<_>>(),
    })
}

const PERFORMATIVES: [(&str, Performative); 22] = [
    ("accept-proposal", Performative::AcceptProposal),
    ("agree", Performative::Agree),
    ("cancel", Performative::Cancel),
    ("cfp", Performative::Cfp),
    ("confirm", Performative::Confirm),
    ("disconfirm", Performative::Disconfirm),
    ("failure", Performative::Failure),
    ("inform", Performative::Inform),
    ("inform-if", Performative::InformIf),
    ("inform-ref", Performative::InformRef),
    ("not-understood", Performative::NotUnderstood),
    ("propagate", Performative::Propagate),
    ("propose", Performative::Propose),
    ("proxy", Performative::Proxy),
    ("query-if", Performative::QueryIf),
    ("query-ref", Performative::QueryRef),
    ("refuse", Performative::Refuse),
    ("reject-proposal", Performative::RejectProposal),
    ("request", Performative::Request),
    ("request-when", Performative::RequestWhen),
    ("request-whenever", Performative::RequestWhenever),
    ("subscribe", Performative::Subscribe),
];

const PRIORITIES: [(&str, Priority); 4] =
    [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High), ("critical", Priority::Critical)];

fn performative_name(performative: Performative) -> &'static str {
    PERFORMATIVES.iter().find(|(_, known)| *known == performative).map_or("", |(name, _)| name)
}

fn priority_name(priority: Priority) -> &'static str {
    PRIORITIES.iter().find(|(_, known)| *known == priority).map_or("", |(name, _)| name)
}

fn performative_named(name: &str) -> Result<Performative, Failure> {
    let found = PERFORMATIVES.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, performative)| *performative)
        .ok_or_else(|| Failure::rejected(format!("no such performative: {name}")))
}

fn priority_named(name: &str) -> Result<Priority, Failure> {
    let found = PRIORITIES.iter().find(|(known, _)| *known == name);
    found.map(|(_, priority)| *priority).ok_or_else(|| Failure::rejected(format!("no such priority: {name}")))
}
