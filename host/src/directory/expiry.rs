//! The end of conversations without messages (SPEC §7).

use caxton_control::Performative;
use caxton_control::mailbox::Priority;
use std::sync::Arc;

use caxton_control::conversation::Unanswered;

use super::HostDirectory;
use crate::clock;
use crate::message::{Deliver, Envelope, Message, Outgoing, new_id};
use crate::store::{Commit, CommitRequest, Committed};

/// The most conversations that end in one sweep, so that it does not hold up the store.
const AT_ONCE: usize = 1_000;

/// Ends conversations that have timed out, and tells agents that still wait for an answer.
pub(crate) fn expire_conversations(directory: &HostDirectory) {
    for expired in directory.context.conversations.expire(clock::steady_ms(), AT_ONCE) {
        let (name, unanswered) = (&expired.record.name, expired.record.clone().expire());
        let sends: Vec<Outgoing> = unanswered.into_iter().filter_map(|left| failure(directory, name, left)).collect();
        // It was never stored and no agent waits for an answer: removing it from memory was all.
        if sends.is_empty() && expired.row.is_none() {
            continue;
        }
        tracing::debug!(conversation = name, unanswered = sends.len(), "a conversation ended for want of activity");
        let done = Box::new(|committed: Committed| {
            if committed.result.is_ok() {
                committed.sends.into_iter().for_each(Outgoing::deliver);
            }
        });
        let mut commit = Commit::new("".into());
        commit.ended = Some(Box::new(expired));
        directory.context.store.submit(CommitRequest::new(commit, sends, done));
    }
    directory.context.count_conversations();
}

/// Returns the `failure` for an agent whose question was not answered; `None` if it was asked from outside. It comes by
/// the clock, after `conversations.timeout`, and so begins a chain of messages.
fn failure(directory: &HostDirectory, conversation: &str, left: Unanswered) -> Option<Outgoing> {
    let Unanswered { key, from, to, is_call: _, closed: _ } = left;
    let routes = directory.routes.load();
    let agent = routes.agent(&from)?;
    let message = Message {
        id: new_id(),
        performative: Performative::Failure,
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
        priority: Priority::Normal,
        sent_at: clock::now_ms(),
        attempt: 1,
        headers: Vec::new(),
    };
    // It has to hear it, so there is always a place.
    agent.reserve_beyond();
    let envelope = Box::new(Envelope::new(message));
    Some(Outgoing::new(Arc::clone(agent) as Arc<dyn Deliver>, envelope).mark_sent_by_host())
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::*;
    use crate::agent::Agent;
    use crate::context::HostContext;
    use crate::conversation::{Conversations, speech_act};
    use crate::directory::routes::Routes;
    use crate::store::Store;

    #[tokio::test]
    async fn who_still_waits_for_an_answer_is_told_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("caxton.toml");
        std::fs::write(&path, "caxton = 1\n[agents.triage]\ncomponent = \"triage.wasm\"\n").unwrap();
        let desired = crate::config::load(&path, std::iter::empty(), &[]).unwrap().desired;
        let store =
            Store::open(folder.path(), &crate::store::tests::settings(Durability::Os), Conversations::load).unwrap();
        let context = HostContext::new(store, tokio::runtime::Handle::current());
        let directory = HostDirectory::new(Arc::clone(&context)).unwrap();
        let agent = Agent::new(Arc::clone(&desired.agents["triage"]), Arc::clone(&directory) as _);
        directory.routes.store(Arc::new(Routes::new(&[(agent.name().clone(), agent)].into())));
        let store = &context.store;
        let asked = |from: &str, conversation: &str, ago: u64| {
            let message = Message {
                id: format!("of-{conversation}"),
                performative: Performative::Request,
                sender: from.to_owned(),
                receiver: "desk".to_owned(),
                content: Vec::new(),
                content_type: String::new(),
                ontology: None,
                protocol: None,
                conversation_id: conversation.to_owned(),
                reply_with: None,
                in_reply_to: None,
                reply_by: None,
                priority: Priority::Normal,
                sent_at: clock::now_ms() - ago,
                attempt: 1,
                headers: Vec::new(),
            };
            let envelope = Envelope::new(message);
            context.conversations.admit(conversation, &speech_act(&envelope)).unwrap();
        };
        let minutes = |minutes: u64| minutes * 60_000;
        asked("triage", "old", minutes(31));
        asked("triage", "young", minutes(29));
        // Nobody to tell: it came from outside, or from an agent that is gone.
        asked("http:POST /", "outside", minutes(31));
        asked("ledger", "gone", minutes(31));
        expire_conversations(&directory);
        store.flush().await.unwrap();
        let thread = store.queue().thread("old", 10).unwrap();
        let told = &thread[0].envelope.message;
        assert_eq!((thread.len(), told.performative), (1, Performative::Failure));
        assert_eq!((&*told.receiver, &*told.sender, told.in_reply_to.as_deref()), ("triage", "desk", Some("of-old")));
        for other in ["young", "outside", "gone"] {
            assert!(store.queue().thread(other, 10).unwrap().is_empty(), "{other}");
        }
        assert_eq!(context.conversations.figures().open, 1, "only the young one");
    }
}
