//! A mailbox of an agent without any revision, with its store.

use caxton_control::desired::Durability;

use super::*;
use crate::clock;
use crate::context::HostContext;
use crate::conversation::{Conversations, speech_act};
use crate::directory::HostDirectory;
use crate::message::Envelope;
use crate::store::Store;
use crate::store::tests::{kept, message, settings};

/// The agent `triage` of a file with these settings of its mailbox, and a store in the folder.
pub(super) fn agent(folder: &tempfile::TempDir, mailbox: &str) -> Arc<Agent> {
    let text = format!("caxton = 1\n[agents.triage]\ncomponent = \"triage.wasm\"\nmailbox = {{ {mailbox} }}\n");
    let path = folder.path().join("caxton.toml");
    std::fs::write(&path, text).unwrap();
    let desired = crate::config::load(&path, std::iter::empty(), &[]).unwrap().desired;
    let store = Store::open(folder.path(), &settings(Durability::Os), Conversations::load).unwrap();
    let context = HostContext::new(store, tokio::runtime::Handle::current());
    Agent::new(Arc::clone(&desired.agents["triage"]), HostDirectory::new(context).unwrap())
}

/// A message that was sent so long ago, as the store has it.
pub(super) async fn sent(agent: &Agent, id: &str, ago: u64) -> Box<Envelope> {
    let mut envelope = message(id, "http:POST /", "triage");
    envelope.message.sent_at = clock::now_ms() - ago;
    Box::new(kept(&agent.context.store, envelope).await)
}

#[tokio::test]
async fn an_agent_that_leaves_takes_messages_of_its_open_conversations_only() {
    let folder = tempfile::tempdir().unwrap();
    let agent = agent(&folder, "");
    for (conversation, receiver) in [("own", "triage"), ("others", "desk")] {
        let asked = message("m-1", "manager", receiver);
        agent.context.conversations.admit(conversation, &speech_act(&asked)).unwrap();
    }
    let takes = |agent: &Agent| {
        [None, Some("own"), Some("others"), Some("unknown")].map(|name| agent.reserve_place(name).is_ok())
    };
    assert_eq!(takes(&agent), [true; 4]);
    agent.retire("it leaves");
    assert_eq!(takes(&agent), [false, true, false, false]);
    agent.remove("it is gone");
    assert_eq!(takes(&agent), [false; 4]);
}

#[tokio::test]
async fn a_message_waits_since_it_was_accepted_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = agent(&folder, "");
    for (id, ago) in [("m-1", 90_000), ("m-2", 5_000)] {
        drop(sent(&first, id, ago).await);
    }
    drop(first);
    let again = agent(&folder, "");
    let oldest = again.oldest_ms().unwrap();
    assert!((90_000..150_000).contains(&oldest), "{oldest}");
}
