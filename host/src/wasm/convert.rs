//! The conversion between the records of the contract as generated from `wit/` and those of [`crate::message`].
//! Fields are moved or borrowed, and never copied.

use caxton_control::Performative;
use caxton_control::access::CALLER_HEADER;
use caxton_control::mailbox::Priority;

use crate::message::{Cause, Delivery, Draft, Failure, LogLevel, Message, NotANumber, Reply, RequestError, SendError};
use crate::wasm::bindings::borrowed::types as borrowed;
use crate::wasm::bindings::types as wit;
use crate::wasm::bindings::wasi::logging::logging::Level;

/// Converts the variants of an enum that has the same ones on both sides.
macro_rules! same_variants {
    ($function:ident, $from:ty, $to:ty, $($variant:ident)*) => {
        fn $function(from: $from) -> $to {
            match from {
                $(<$from>::$variant => <$to>::$variant,)*
            }
        }
    };
}

/// Converts acts in three directions by one list, which the compiler checks for completeness.
macro_rules! acts {
    ($($variant:ident)*) => {
        // Wit and borrowed types are generated apart, so that equal enums are different types.
        same_variants!(act, wit::Performative, Performative, $($variant)*);
        same_variants!(wit_act, Performative, wit::Performative, $($variant)*);
        same_variants!(act_of_reply, borrowed::Performative, Performative, $($variant)*);
        same_variants!(borrowed_act, Performative, borrowed::Performative, $($variant)*);
    };
}

acts! {
    AcceptProposal Agree Cancel Cfp Confirm Disconfirm Failure Inform InformIf InformRef NotUnderstood Propagate Propose
    Proxy QueryIf QueryRef Refuse RejectProposal Request RequestWhen RequestWhenever Subscribe
}

same_variants!(rank, wit::Priority, Priority, Low Normal High Critical);
same_variants!(wit_priority, Priority, wit::Priority, Low Normal High Critical);
same_variants!(borrowed_priority, Priority, borrowed::Priority, Low Normal High Critical);
same_variants!(level_of, Level, LogLevel, Trace Debug Info Warn Error Critical);
same_variants!(cause, borrowed::Cause, Cause, Rejected Unavailable Fault);
same_variants!(cause_of_migration, wit::Cause, Cause, Rejected Unavailable Fault);

/// Converts the severity of a log line.
pub(super) fn level(level: Level) -> LogLevel {
    level_of(level)
}

/// Converts a draft of a guest.
pub(super) fn draft(draft: wit::Draft) -> Draft {
    Draft {
        receiver: draft.receiver,
        performative: act(draft.performative),
        content: draft.content,
        content_type: draft.content_type,
        ontology: draft.ontology,
        protocol: draft.protocol,
        conversation_id: draft.conversation_id,
        reply_with: draft.reply_with,
        in_reply_to: draft.in_reply_to,
        reply_by: draft.reply_by,
        priority: rank(draft.priority),
        delivery: match draft.delivery {
            wit::Delivery::Now => Delivery::Now,
            wit::Delivery::AfterMs(after) => Delivery::AfterMs(after),
            wit::Delivery::AtMs(at) => Delivery::AtMs(at),
        },
        headers: without_caller(draft.headers),
    }
}

/// Drops the header that the host alone sets: an agent must not pass itself off as a caller.
fn without_caller(mut headers: Vec<(String, String)>) -> Vec<(String, String)> {
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case(CALLER_HEADER));
    headers
}

/// Converts the answer to a request of a guest.
pub(super) fn answer(answer: Result<Message, RequestError>) -> Result<wit::Message, wit::RequestError> {
    answer.map(message).map_err(request_error)
}

fn message(message: Message) -> wit::Message {
    wit::Message {
        id: message.id,
        performative: wit_act(message.performative),
        sender: message.sender,
        receiver: message.receiver,
        content: message.content,
        content_type: message.content_type,
        ontology: message.ontology,
        protocol: message.protocol,
        conversation_id: message.conversation_id,
        reply_with: message.reply_with,
        in_reply_to: message.in_reply_to,
        reply_by: message.reply_by,
        priority: wit_priority(message.priority),
        sent_at: message.sent_at,
        attempt: message.attempt,
        headers: message.headers,
    }
}

/// Returns the headers of a message for [`borrow`].
pub(super) fn borrow_headers(message: &Message) -> Vec<(&str, &str)> {
    // Without an allocation in the usual case of no headers.
    message.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Returns a message as the argument of a handler.
pub(super) fn borrow<'a>(message: &'a Message, headers: &'a [(&'a str, &'a str)]) -> borrowed::Message<'a> {
    borrowed::Message {
        id: &message.id,
        performative: borrowed_act(message.performative),
        sender: &message.sender,
        receiver: &message.receiver,
        content: &message.content,
        content_type: &message.content_type,
        ontology: message.ontology.as_deref(),
        protocol: message.protocol.as_deref(),
        conversation_id: &message.conversation_id,
        reply_with: message.reply_with.as_deref(),
        in_reply_to: message.in_reply_to.as_deref(),
        reply_by: message.reply_by,
        priority: borrowed_priority(message.priority),
        sent_at: message.sent_at,
        attempt: message.attempt,
        headers,
    }
}

/// Converts the reply of a handler.
pub(super) fn reply(reply: borrowed::Reply) -> Reply {
    Reply {
        performative: act_of_reply(reply.performative),
        content: reply.content,
        content_type: reply.content_type,
        ontology: reply.ontology,
        reply_with: reply.reply_with,
        reply_by: reply.reply_by,
        headers: without_caller(reply.headers),
    }
}

/// Converts the failure of a handler.
pub(super) fn failure(failure: borrowed::Failure) -> Failure {
    Failure { cause: cause(failure.cause), reason: failure.reason, retry_after_ms: failure.retry_after_ms }
}

/// Converts the failure of a migration.
pub(super) fn migration_failure(failure: wit::Failure) -> Failure {
    let cause = cause_of_migration(failure.cause);
    Failure { cause, reason: failure.reason, retry_after_ms: failure.retry_after_ms }
}

/// Converts the error of a send.
pub(super) fn send_error(error: SendError) -> wit::SendError {
    match error {
        SendError::UnknownReceiver(receiver) => wit::SendError::UnknownReceiver(receiver),
        SendError::NotAllowed(receiver) => wit::SendError::NotAllowed(receiver),
        SendError::TooLarge(limit) => wit::SendError::TooLarge(limit),
        SendError::MailboxFull(depth) => wit::SendError::MailboxFull(depth),
        SendError::TooManySends(limit) => wit::SendError::TooManySends(limit),
        SendError::TooManyHops(limit) => wit::SendError::TooManyHops(limit),
        SendError::Invalid(why) => wit::SendError::Invalid(why),
        SendError::Unsupported(why) => wit::SendError::Unsupported(why),
        SendError::Unavailable(why) => wit::SendError::Unavailable(why),
    }
}

/// Converts the error of a request.
fn request_error(error: RequestError) -> wit::RequestError {
    match error {
        RequestError::NotSent(error) => wit::RequestError::NotSent(send_error(error)),
        RequestError::TimedOut => wit::RequestError::TimedOut,
        RequestError::Failed(why) => wit::RequestError::Failed(why),
        RequestError::NoReply => wit::RequestError::NoReply,
        RequestError::Deadlock(agents) => wit::RequestError::Deadlock(agents),
    }
}

impl From<NotANumber> for wit::StateError {
    fn from(_: NotANumber) -> Self {
        Self::NotANumber
    }
}
