//! The end of conversations in which nothing is said any more (SPEC §7).

use std::sync::Arc;
use std::time::Instant;

use caxton_control::conversation::Unanswered;

use crate::clock;
use crate::commons::Commons;
use crate::store::{Commit, Committed, Expired};
use crate::wasm::{Envelope, Inbox, Sent, new_id, wit};

/// Conversations that end at once.
const AT_ONCE: usize = 1_000;

/// Ends conversations that are over their time, and tells those who still wait for an answer.
pub(crate) fn expire_conversations(commons: &Arc<Commons>) {
    for expired in commons.store.conversations.expire(clock::now_ms(), AT_ONCE) {
        let Expired { name, row, unanswered } = expired;
        let sends: Vec<Sent> = unanswered.into_iter().filter_map(|left| failure(commons, &name, left)).collect();
        if sends.is_empty() && row.is_none() {
            continue;
        }
        tracing::debug!(conversation = name, unanswered = sends.len(), "a conversation ended for want of activity");
        let done = Box::new(|committed: Committed| {
            if committed.result.is_ok() {
                committed.sends.into_iter().for_each(Sent::deliver);
            }
        });
        let mut commit = Commit::new("".into(), done);
        (commit.sends, commit.ended) = (sends, row);
        commons.store.submit(commit);
    }
}

/// What an agent is told whose question was not answered; none for who asked from outside.
fn failure(commons: &Commons, conversation: &str, left: Unanswered) -> Option<Sent> {
    let Unanswered { key, from, to } = left;
    let routes = commons.routes.load();
    let agent = routes.agent(&from)?;
    let message = wit::Message {
        id: new_id(),
        performative: wit::Performative::Failure,
        sender: to,
        receiver: from,
        content: b"the conversation ended before there was an answer (conversations.timeout)".to_vec(),
        content_type: "text/plain; charset=utf-8".to_owned(),
        ontology: None,
        protocol: None,
        conversation_id: conversation.to_owned(),
        reply_with: None,
        in_reply_to: Some(key),
        reply_by: None,
        priority: wit::Priority::Normal,
        sent_at: clock::now_ms(),
        attempt: 1,
        headers: Vec::new(),
    };
    agent.reserve_beyond();
    let envelope = Box::new(Envelope::new(message, Instant::now()));
    Some(Sent::new(Arc::clone(agent) as Arc<dyn Inbox>, envelope).of_host())
}
