//! Checks of messages against the protocol of their conversation.

use caxton_control::Performative;
use caxton_control::conversation::{ConversationError, SpeechAct};

use crate::clock;
use crate::context::HostContext;
use crate::conversation::speech_act;
use crate::message::{Envelope, Message, Outgoing};
use crate::store::{Commit, CommitRequest, Committed};

/// A request in a conversation, until it is answered.
pub(crate) struct Question {
    conversation: String,
    from: String,
    to: String,
    key: String,
}

/// Checks messages against their conversations, and records them there. Drops an illegal message whose sender cannot be
/// told.
pub(in crate::agent) fn check_sends(context: &HostContext, mut sends: Vec<Outgoing>) -> Vec<Outgoing> {
    // One at a time and in order: each may make the next one legal.
    sends.retain_mut(|sent| context.conversations.admit_sent(sent).is_ok());
    let (ending, sends): (Vec<Outgoing>, Vec<Outgoing>) =
        sends.into_iter().partition(|sent| sent.exceeded_limit().is_some());
    if !ending.is_empty() {
        // Dead letters are kept also where messages are not.
        let done = Box::new(|committed: Committed| {
            if committed.result.is_ok() {
                committed.sends.into_iter().for_each(Outgoing::deliver);
            }
        });
        context.store.submit(CommitRequest::new(Commit::new("".into()), ending, done));
    }
    sends
}

impl Question {
    /// Checks a request whose sender waits, and records it in its conversation.
    ///
    /// # Errors
    /// The request is illegal in its conversation.
    pub(crate) fn ask(context: &HostContext, envelope: &Envelope) -> Result<Self, ConversationError> {
        let message = &envelope.message;
        context.conversations.admit(&message.conversation_id, &speech_act(envelope))?;
        Ok(Self {
            conversation: message.conversation_id.clone(),
            from: message.sender.clone(),
            to: message.receiver.clone(),
            key: message.reply_with.clone().unwrap_or_else(|| message.id.clone()),
        })
    }

    /// Checks and records the answer; `None` stands for a failure.
    ///
    /// # Errors
    /// The answer is illegal in its conversation.
    pub(crate) fn answer(&self, context: &HostContext, reply: Option<&Message>) -> Result<(), String> {
        let Self { conversation, from, to, key } = self;
        let said = SpeechAct {
            from: to,
            to: from,
            act: reply.map_or(Performative::Failure, |reply| reply.performative),
            protocol: reply.and_then(|reply| reply.protocol.as_deref()),
            id: reply.map_or("", |reply| &reply.id),
            reply_with: reply.and_then(|reply| reply.reply_with.as_deref()),
            in_reply_to: Some(key),
            at: clock::steady_ms(),
            is_call: false,
        };
        match reply {
            // Only a reply is judged: the failure in its place has to be recorded in any case.
            Some(_) => context
                .conversations
                .admit(conversation, &said)
                .map_err(|refused| format!("the reply is not legal: {refused}")),
            None => {
                context.conversations.record_failure(conversation, &said);
                Ok(())
            }
        }
    }
}
