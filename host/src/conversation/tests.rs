use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_control::Performative::{self, Inform, Propose, Request};
use caxton_control::desired::Durability;

use super::*;

use crate::message::{Outgoing, Value};
use crate::store::Store;
use crate::store::tests::{self, Anywhere, conversation_names as kept, end_conversations as end, message, settings};
use crate::store::{Commit, CommitError, CommitRequest, Committed, StateChange};

const TIMEOUT: u64 = 30 * 60 * 1_000;

fn open(folder: &tempfile::TempDir) -> (Arc<Store>, Arc<Conversations>) {
    Store::open(folder.path(), &settings(Durability::Os), Conversations::load).unwrap()
}

/// Creates a speech act at a time, with a protocol if the act belongs to one.
fn say<'a>(from: &'a str, to: &'a str, act: Performative, at: u64) -> SpeechAct<'a> {
    let protocol = Some("fipa-request").filter(|_| act == Propose);
    SpeechAct { from, to, act, protocol, id: "m-1", reply_with: None, in_reply_to: None, at, is_call: false }
}

#[tokio::test]
async fn what_an_answer_needs_is_written_and_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, all) = open(&folder);
    let said = |name, from, kept| all.admit_as(name, &say(from, "desk", Request, 1), kept).unwrap();
    said("from-outside", "http:POST /", true);
    said("from-an-agent", "triage", true);
    said("a-call", "triage", false);
    said("two", "http:POST /", true);
    said("two", "triage", true);
    assert_eq!(kept(&store).await, (vec!["from-an-agent".to_owned(), "two".to_owned()], vec![]));
    // Only the count and the time change.
    all.admit_as("two", &say("desk", "triage", Inform, 9), true).unwrap();
    store.flush().await.unwrap();
    let before = [all.get("from-an-agent"), all.get("two")];
    assert_eq!(before[1].as_ref().map(|record| (record.messages, record.last)), Some((3, 9)));
    drop(store);
    let (_store, all) = open(&folder);
    assert_eq!([all.get("from-an-agent"), all.get("two")], before);
    assert_eq!(all.figures().open, 2);
    assert_eq!(all.list(Some("http:POST /"), 10).len(), 1);
    assert_eq!(all.list(None, 1)[0].name, "two", "the latest activity first");
}

#[tokio::test]
async fn one_in_which_nothing_is_said_ends_with_what_it_owes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, all) = open(&folder);
    all.admit_as("asked", &say("triage", "desk", Request, 1_000), true).unwrap();
    all.admit_as("later", &say("triage", "desk", Inform, 2_000), true).unwrap();
    assert_eq!(kept(&store).await.0.len(), 2);
    assert!(all.expire(1_000 + TIMEOUT - 1, 10).is_empty());
    let expired = all.expire(1_000 + TIMEOUT, 10);
    let owed: Vec<_> = expired.iter().flat_map(|ended| &ended.record.unanswered).collect();
    assert_eq!((expired.len(), &*owed[0].from, &*owed[0].to, &*owed[0].key), (1, "triage", "desk", "m-1"));
    end(&store, expired).await;
    let (record, at) = store.conversations().ended_conversation("asked").unwrap().unwrap();
    assert_eq!((record.messages, record.unanswered.len(), at), (1, 1, 7), "it is still there for a look");
    assert_eq!(store.conversations().ended(Some("desk"), 10).unwrap().len(), 1);
    assert_eq!(store.conversations().ended(Some("ledger"), 10).unwrap().len(), 0);
    // What the host says of it does not begin it again.
    all.record_failure("asked", &say("desk", "triage", Performative::Failure, 3_000));
    assert_eq!(all.get("asked"), None);
    drop(store);
    assert_eq!(open(&folder).1.figures().open, 1);
}

#[tokio::test]
async fn a_name_may_come_again_after_its_conversation_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (store, all) = open(&folder);
    all.admit_as("visits", &say("triage", "desk", Inform, 1_000), true).unwrap();
    store.flush().await.unwrap();
    let expired = all.expire(1_000 + TIMEOUT, 10);
    // One has ended and is written as such, another begins before that.
    for late in [false, true] {
        let (first, then) = if late { (vec![], all.expire(u64::MAX, 10)) } else { (all.expire(0, 0), vec![]) };
        end(&store, first).await;
        all.admit_as("visits", &say("ledger", "desk", Inform, 2_000), true).unwrap();
        store.flush().await.unwrap();
        end(&store, then).await;
        assert_eq!(kept(&store).await, (vec!["visits".to_owned()], vec![]), "{late}");
    }
    end(&store, expired).await;
    assert_eq!(kept(&store).await, (vec!["visits".to_owned()], vec![]));
    drop(store);
    let (store, all) = open(&folder);
    assert_eq!(all.get("visits").unwrap().initiator, "ledger");
    end(&store, all.expire(u64::MAX, 10)).await;
    assert_eq!(kept(&store).await, (vec![], vec!["visits".to_owned()]));
}

#[tokio::test]
async fn those_that_are_quiet_leave_memory_and_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (store, all) = open(&folder);
    for (name, at) in [("one", 1_000), ("two", 2_000), ("three", 3_000)] {
        all.admit_as(name, &say("triage", "desk", Request, at), true).unwrap();
    }
    let in_memory = || all.shards.iter().map(|shard| shard.lock().open.len()).sum::<usize>();
    // What is not in the database yet stays, however long nothing was said.
    assert!(all.expire(900_000, 10).is_empty());
    assert_eq!((in_memory(), all.figures().open), (3, 3));
    store.flush().await.unwrap();
    let before = ["one", "two", "three"].map(|name| all.get(name).unwrap());
    assert!(all.expire(61_999, 10).is_empty());
    assert_eq!(
        (in_memory(), all.figures()),
        (2, ConversationFigures { open: 3, written: 3, mean_messages: Some(1.0), illegal: 0 })
    );
    all.expire(900_000, 10);
    assert_eq!((in_memory(), all.figures().open), (0, 3));
    let names = |found: Vec<Conversation>| found.into_iter().map(|record| record.name).collect::<Vec<_>>();
    assert_eq!(names(all.list(None, 2)), ["three", "two"]);
    assert_eq!(names(all.list(Some("desk"), 9)), ["three", "two", "one"]);
    assert_eq!(names(all.list(Some("ledger"), 9)), [""; 0]);
    assert_eq!(in_memory(), 0, "a look brings nothing back");
    // With an answer: the question is known still.
    let answer = SpeechAct { in_reply_to: Some("m-1"), id: "m-2", ..say("desk", "triage", Inform, 4_000) };
    let change = all.admit_as("two", &answer, true).unwrap();
    assert!(change.is_more && all.get("two").unwrap().unanswered.is_empty());
    assert_eq!((in_memory(), all.get("two").unwrap().messages), (1, 2));
    assert_eq!(names(all.list(None, 9)), ["two", "three", "one"]);
    assert_eq!([all.get("one"), all.get("three")], [Some(before[0].clone()), Some(before[2].clone())]);
    store.flush().await.unwrap();
    all.expire(900_000, 10);
    let ended = all.expire(3_000 + TIMEOUT, 10);
    let owed: Vec<_> = ended.iter().map(|ended| (&*ended.record.name, ended.record.unanswered.len())).collect();
    assert_eq!((owed.len(), in_memory(), all.figures().open), (2, 0, 1));
    assert!(owed.contains(&("one", 1)) && owed.contains(&("three", 1)), "{owed:?}");
}

#[tokio::test]
async fn a_call_that_ended_with_the_host_can_be_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, mut all) = open(&folder);
    let call = |at| SpeechAct { protocol: Some("fipa-request"), is_call: true, ..say("triage", "desk", Request, at) };
    all.admit_as("c-1", &call(1), true).unwrap();
    for at in [2, 3] {
        assert!(all.admit("c-1", &call(at)).is_err(), "it is under way");
        store.flush().await.unwrap();
        // Also when it has left memory meanwhile.
        all.expire(at * 100_000, 10);
        drop(store);
        (store, all) = open(&folder);
        for again in [false, true] {
            assert_eq!(all.get("c-1").unwrap().unanswered.len(), 0);
            assert!(again || all.expire(at * 100_000, 10).is_empty());
        }
        all.admit("c-1", &call(at)).unwrap();
    }
}

#[tokio::test]
async fn those_without_room_leave_memory_and_then_end_the_quietest_first() {
    let folder = tempfile::tempdir().unwrap();
    let (store, all) = open(&folder);
    // In one part of them, which is full sooner.
    let first: *const _ = all.part(all.hasher.hash_one("c"));
    let same = |name: &String| std::ptr::eq(all.part(all.hasher.hash_one(name)), first);
    let named = |what: &str, count: usize| -> Vec<String> {
        (0u32..).map(|number| format!("{what}-{number}")).filter(same).take(count).collect()
    };
    let names = named("c", MAX_OPEN + 3);
    for (name, at) in names.iter().zip(1..) {
        all.admit_as(name, &say("triage", "desk", Request, at), true).unwrap();
    }
    all.admit_as(&names[1], &say("desk", "triage", Inform, MAX_OPEN as u64 + 9), true).unwrap();
    store.flush().await.unwrap();
    let in_memory = || all.shards.iter().map(|shard| shard.lock().open.len()).sum::<usize>();
    let ended: Vec<String> = all.expire(0, 10).into_iter().map(|ended| ended.record.name).collect();
    assert!(in_memory() < MAX_OPEN / 2, "{} are in memory", in_memory());
    assert_eq!(all.figures().open, MAX_OPEN as u64);
    let expected = [&names[0], &names[2], &names[3]];
    assert!(ended.len() == 3 && expected.iter().all(|name| ended.contains(name)), "{ended:?}");
    assert!(all.expire(0, 10).is_empty(), "each once");
    // Those with one message from outside are nowhere else.
    for (name, at) in named("from-outside", 9_000).iter().zip(MAX_OPEN as u64 + 10..) {
        all.admit_as(name, &say("http:POST /", "desk", Inform, at), true).unwrap();
    }
    all.expire(0, 10);
    assert!(in_memory() < 9_000 && all.figures().open <= MAX_OPEN as u64, "{} are in memory", in_memory());
    all.expire(TIMEOUT * 2, usize::MAX);
    assert_eq!(all.figures().open, 0);
}

#[test]
fn what_is_not_legal_is_counted_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, all) = open(&folder);
    all.configure(desired::ConversationsSpec { timeout: std::time::Duration::from_secs(300), participants: 2 });
    let refused = all.admit("c-1", &say("triage", "desk", Propose, 1)).unwrap_err();
    assert!(matches!(refused, ConversationError::Illegal(_)), "{refused}");
    assert_eq!(all.get("c-1"), None);
    all.admit("c-1", &say("triage", "desk", Request, 1)).unwrap();
    let refused = all.admit("c-1", &say("triage", "ledger", Request, 1)).unwrap_err();
    assert!(matches!(refused, ConversationError::TooManyParticipants { bound: 2 }), "{refused}");
    let figures = all.figures();
    assert_eq!((figures.open, figures.illegal, figures.mean_messages), (1, 2, Some(1.0)));
    assert_eq!(all.expire(1 + 300_000, 10).len(), 1, "its timeout is the one that was set");
}

#[tokio::test]
async fn a_commit_that_is_refused_for_what_it_sends_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, all) = open(&folder);
    let mut envelope = Box::new(message("c-1", "web", "desk"));
    envelope.message.performative = Performative::Propose;
    envelope.message.protocol = Some("fipa-request".to_owned());
    let (told, result) = tokio::sync::oneshot::channel();
    let mut commit = Commit::new("web".into());
    let legal = Box::new(message("c-2", "web", "desk"));
    // Its sender has no mailbox in which it could hear of it.
    let sends = [legal, envelope].map(|envelope| Outgoing::new(std::sync::Arc::new(Anywhere), envelope)).into();
    commit.state = Some(StateChange {
        reads: BTreeMap::new(),
        writes: [("key".to_owned(), Some(Value::lasting("value".into())))].into(),
        expired: Vec::new(),
        adds: BTreeMap::new(),
        version: 1,
        quota: 100,
    });
    store.submit(CommitRequest::new(commit, sends, Box::new(|done| drop(told.send(done.result)))));
    let result = result.await.unwrap();
    assert!(matches!(result, Err(CommitError::Illegal(_))), "{result:?}");
    assert_eq!((store.state().read("web", "key").unwrap(), store.queue().thread("c-1", 9).unwrap().len()), (None, 0));
    assert_eq!((all.get("c-2"), all.figures().open), (None, 0));
}

#[tokio::test]
async fn messages_of_a_commit_that_fails_were_never_said() {
    let folder = tempfile::tempdir().unwrap();
    let (store, all) = open(&folder);
    let asks = |id: &str, from: &str, to: &str, act: Performative, answers: Option<&str>| {
        let mut envelope = message(id, from, to);
        envelope.message.conversation_id = "c-1".to_owned();
        envelope.message.performative = act;
        envelope.message.protocol = Some("fipa-request".to_owned());
        envelope.message.in_reply_to = answers.map(str::to_owned);
        envelope
    };
    tests::kept(&store, asks("m-1", "triage", "desk", Performative::Request, None)).await;
    let before = all.get("c-1").unwrap();
    // Its place is taken, so that the database refuses the next message.
    tests::plant(&store, "INSERT INTO message VALUES (3, 'x', 'x', 1, NULL, NULL, x'00', x'00', 0, NULL)").await;
    let answer = || asks("m-2", "desk", "triage", Performative::Inform, Some("m-1"));
    for _ in 0..2 {
        let (told, result) = tokio::sync::oneshot::channel();
        let own = message("c-3", "desk", "ledger");
        let sends =
            [answer(), own].map(|envelope| Outgoing::new(std::sync::Arc::new(Anywhere), Box::new(envelope))).into();
        let done = Box::new(|done: Committed| drop(told.send(done.result)));
        store.submit(CommitRequest::new(Commit::new("desk".into()), sends, done));
        let result = result.await.unwrap();
        assert!(matches!(result, Err(CommitError::Store(_))), "{result:?}");
        assert_eq!((all.get("c-1"), all.get("c-3")), (Some(before.clone()), None));
    }
    tests::plant(&store, "DELETE FROM message WHERE seq = 3").await;
    tests::kept(&store, answer()).await;
    let after = all.get("c-1").unwrap();
    assert_eq!((after.messages, after.unanswered.len()), (2, 0), "it is legal still");
    drop(store);
    assert_eq!(open(&folder).1.get("c-1"), Some(after));
}
