//! The reply to a message that a component of wasmCloud handles: what it publishes to the subject that came with it.

use crate::message::Reply;

/// The start of the subject for the reply, which ends with the id of the message. No agent's name has the first character.
const REPLY_SUBJECT: &str = "_reply.";

/// A reply that is awaited from the call under way.
#[derive(Debug)]
pub(in crate::wasm) struct PendingReply {
    subject: String,
    reply: Option<Reply>,
}

impl PendingReply {
    /// Awaits the reply to the message with this id.
    pub(super) fn to(id: &str) -> Self {
        Self { subject: format!("{REPLY_SUBJECT}{id}"), reply: None }
    }

    /// Returns the subject to which the reply is published.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// Takes the reply.
    ///
    /// # Errors
    /// A message has one reply: the reason, for the guest.
    pub(super) fn answer(&mut self, reply: Reply) -> Result<(), String> {
        if self.reply.is_some() {
            return Err("this message has its reply already, and takes no second one".to_owned());
        }
        self.reply = Some(reply);
        Ok(())
    }

    /// Returns the reply, if the guest gave one.
    pub(super) fn into_reply(self) -> Option<Reply> {
        self.reply
    }

    /// Returns `true` for the subject of a reply, be it to this message or to another.
    pub(super) fn is_reply(subject: &str) -> bool {
        subject.starts_with(REPLY_SUBJECT)
    }
}
