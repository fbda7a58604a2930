//! Tests of conversation records: tables, and properties of random messages.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use caxton_control::Performative;
use caxton_control::conversation::{Conversation, ConversationError, MAX_UNANSWERED, SpeechAct};
use caxton_control::protocol::{Protocol, ProtocolRun};
use proptest::prelude::*;

const NOON: u64 = 1_000_000_000;

fn said<'a>(from: &'a str, to: &'a str, act: &str, id: &'a str) -> SpeechAct<'a> {
    let act = act.parse().unwrap();
    SpeechAct { from, to, act, protocol: None, id, reply_with: None, in_reply_to: None, at: NOON, is_call: false }
}

fn in_protocol<'a>(protocol: &'a str, from: &'a str, to: &'a str, act: &str) -> SpeechAct<'a> {
    SpeechAct { protocol: Some(protocol), ..said(from, to, act, "id") }
}

fn keys(conversation: &Conversation) -> Vec<&str> {
    conversation.unanswered.iter().map(|waiting| waiting.key.as_str()).collect()
}

const ASKING: &[&str] = &[
    "accept-proposal",
    "cfp",
    "propose",
    "query-if",
    "query-ref",
    "request",
    "request-when",
    "request-whenever",
    "subscribe",
];

#[test]
fn an_answer_settles_one_question() {
    // the answer, after `a` asked b `1`, b and c `k` each, and b `2`; and the questions that remain
    for (from, in_reply_to, waits) in [
        ("b", Some("1"), &["k b", "k c", "2 b"][..]),
        ("b", Some("k"), &["1 b", "k c", "2 b"]),
        ("c", Some("k"), &["1 b", "k b", "2 b"]),
        ("d", Some("2"), &["1 b", "k b", "k c"]),
        ("b", Some("other"), &["1 b", "k b", "k c", "2 b"]),
        ("b", None, &["1 b", "k b", "k c", "2 b"]),
    ] {
        let mut conversation = Conversation::new("x", "a", NOON);
        for (to, id, reply_with) in [("b", "1", None), ("b", "x", Some("k")), ("c", "y", Some("k")), ("b", "2", None)] {
            conversation.record(&SpeechAct { reply_with, ..said("a", to, "request", id) }, 10).unwrap();
        }
        conversation.record(&SpeechAct { in_reply_to, ..said(from, "a", "agree", "z") }, 10).unwrap();
        let left: Vec<String> =
            conversation.expire().into_iter().map(|left| format!("{} {}", left.key, left.to)).collect();
        assert_eq!(left, waits, "{from} {in_reply_to:?}");
    }
}

#[test]
fn exactly_the_asking_acts_wait_for_an_answer() {
    for act in Performative::ALL {
        let mut conversation = Conversation::new("x", "a", NOON);
        conversation.record(&said("a", "b", act.as_str(), "1"), 10).unwrap();
        assert_eq!(!conversation.unanswered.is_empty(), ASKING.contains(&act.as_str()), "{act}");
    }
}

#[test]
fn a_message_to_oneself_is_no_question() {
    let mut conversation = Conversation::new("x", "a", NOON);
    conversation.record(&said("a", "a", "request", "1"), 10).unwrap();
    assert!(conversation.unanswered.is_empty() && !said("a", "a", "request", "1").is_question());
}

#[test]
fn a_closed_question_causes_no_failure() {
    let mut conversation = Conversation::new("x", "a", NOON);
    for id in ["1", "2"] {
        conversation.record(&said("a", "b", "request", id), 10).unwrap();
    }
    assert!(!conversation.close("1", "b", "a") && !conversation.close("3", "a", "b"), "no such question");
    assert!(conversation.close("1", "a", "b") && !conversation.close("1", "a", "b"), "once");
    assert!(conversation.has_open_exchange("b", Some("2")), "it may be answered all the same");
    let left: Vec<String> = conversation.clone().expire().into_iter().map(|left| left.key).collect();
    assert_eq!(left, ["2"]);
    conversation.record(&SpeechAct { in_reply_to: Some("1"), ..said("b", "a", "inform", "3") }, 10).unwrap();
    assert!(!conversation.has_open_exchange("b", Some("2")));
    // A closed question is the first to be dropped when there are too many.
    conversation.record(&said("a", "b", "request", "4"), 10).unwrap();
    assert!(conversation.close("4", "a", "b"));
    for id in 10..10 + MAX_UNANSWERED {
        conversation.record(&said("a", "b", "request", &id.to_string()), 10).unwrap();
    }
    assert!(!keys(&conversation).contains(&"4"));
}

#[test]
fn a_late_answer_is_possible_after_certain_sends() {
    let asked = said("a", "b", "request", "1");
    for (sends, later, why) in [
        (vec![], false, "nothing"),
        (vec![said("b", "c", "inform", "2")], false, "it informed another"),
        (vec![said("b", "c", "request", "2")], true, "it asked another"),
        (vec![said("b", "b", "inform", "2")], true, "it sent itself something"),
        (vec![said("b", "c", "inform", "2"), said("b", "c", "cfp", "3")], true, "it did both"),
    ] {
        assert_eq!(asked.may_be_answered_later(sends), later, "{why}");
    }
    assert!(in_protocol("fipa-request", "a", "b", "request").may_be_answered_later([]));
    assert!(!in_protocol("of-our-own", "a", "b", "request").may_be_answered_later([]));
}

#[test]
fn the_bound_applies_to_new_participants() {
    let mut conversation = Conversation::new("x", "http:1", NOON);
    conversation.record(&said("http:1", "a", "inform", "1"), 3).unwrap();
    conversation.record(&said("a", "a", "inform", "2"), 3).unwrap();
    conversation.record(&said("a", "b", "inform", "3"), 3).unwrap();
    let before = conversation.clone();
    for (from, to, bound) in [("a", "c", 3), ("c", "a", 3), ("c", "d", 4), ("a", "c", 1)] {
        assert_eq!(
            conversation.record(&said(from, to, "inform", "4"), bound),
            Err(ConversationError::TooManyParticipants { bound }),
            "{from} {to} {bound}"
        );
    }
    assert_eq!(conversation, before);
    conversation.record(&said("b", "a", "inform", "5"), 1).unwrap();
    conversation.record(&said("a", "c", "inform", "6"), 4).unwrap();
    let refused = Conversation::new("x", "a", NOON).record(&said("a", "b", "inform", "1"), 1).unwrap_err();
    assert_eq!(refused.to_string(), "the conversation would have more than 1 participants");
}

#[test]
fn protocols_follow_each_other() {
    // the messages, and the reason if the last of them is refused
    for (story, refusal) in [
        ("fipa-request a b request, fipa-request b a inform, fipa-query b a query-if", ""),
        (
            "fipa-request a b request, fipa-request b a inform, fipa-query b a agree",
            "`b` may say query-if or query-ref",
        ),
        ("fipa-request a b request, fipa-query b a query-if", ""),
        (
            "fipa-request a b request, fipa-contract-net b c cfp, fipa-contract-net c b propose, fipa-request b a inform",
            "",
        ),
        ("fipa-request a b request, fipa-request b c request, fipa-request c b inform, fipa-request b a inform", ""),
        ("fipa-request a b request, fipa-request a b request", "`a` may say cancel or not-understood"),
        ("fipa-request a b request, other b a inform", ""),
        ("other a b inform, other b a inform, fipa-request b a request", ""),
        ("fipa-request a b request, fipa-request b a inform, other b a agree, fipa-request b a request", ""),
        ("fipa-request a b request, - b a query-if, fipa-request b a inform", ""),
        ("fipa-request b a inform", "`b` may say request, request-when or request-whenever"),
    ] {
        let mut conversation = Conversation::new("x", "a", NOON);
        let mut last = Ok(false);
        for line in story.split(", ") {
            assert!(last.is_ok(), "{story}: {last:?}");
            let [protocol, from, to, act] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let before = conversation.clone();
            let protocol = (protocol != "-").then_some(protocol);
            last = conversation.record(&SpeechAct { protocol, ..said(from, to, act, "1") }, 10);
            assert!(last.is_ok() || conversation == before, "{story}");
        }
        let told = last.err().map(|refused| refused.to_string()).unwrap_or_default();
        assert!(told.ends_with(refusal) && told.is_empty() == refusal.is_empty(), "{story}: {told}");
    }
}

#[test]
fn a_failure_from_the_host_ends_the_part() {
    let mut conversation = Conversation::new("x", "a", NOON);
    conversation.record(&in_protocol("fipa-contract-net", "a", "b", "cfp"), 10).unwrap();
    let failure =
        SpeechAct { in_reply_to: Some("id"), at: NOON + 5, ..in_protocol("fipa-contract-net", "b", "a", "failure") };
    assert!(conversation.clone().record(&failure, 10).is_err(), "b itself may not send that here");
    conversation.record_failure(&failure);
    assert!(conversation.unanswered.is_empty());
    assert!(conversation.runs.last().is_some_and(ProtocolRun::is_over));
    assert_eq!((conversation.messages, conversation.last), (2, NOON + 5));
}

#[test]
fn calls_end_with_the_host_and_messages_do_not() {
    let mut conversation = Conversation::new("x", "a", NOON);
    let asked = |from, to, is_call| SpeechAct { is_call, ..in_protocol("fipa-request", from, to, "request") };
    conversation.record(&asked("a", "b", false), 10).unwrap();
    conversation.record(&asked("b", "c", true), 10).unwrap();
    assert!(conversation.clone().record(&asked("b", "c", true), 10).is_err(), "it is answered first");
    conversation.drop_calls();
    let left: Vec<_> = conversation.unanswered.iter().map(|left| (&*left.from, &*left.to)).collect();
    assert_eq!(left, [("a", "b")]);
    conversation.record(&asked("b", "c", true), 10).unwrap();
    let answer = |from, to| SpeechAct { in_reply_to: Some("id"), ..in_protocol("fipa-request", from, to, "inform") };
    conversation.record(&answer("c", "b"), 10).unwrap();
    conversation.record(&answer("b", "a"), 10).unwrap();
    assert!(conversation.unanswered.is_empty() && conversation.runs.iter().all(ProtocolRun::is_over));
}

#[test]
fn expires_after_the_last_activity() {
    let mut conversation = Conversation::new("x", "a", NOON);
    for (at, expires) in [(NOON, NOON + 10), (NOON + 7, NOON + 17), (NOON - 7, NOON + 17)] {
        conversation.record(&SpeechAct { at, ..said("a", "b", "inform", "1") }, 10).unwrap();
        assert_eq!(conversation.expires_at(10), expires);
    }
    assert_eq!(conversation.expires_at(u64::MAX), u64::MAX);
}

#[derive(Debug, Clone)]
struct Line {
    from: &'static str,
    to: &'static str,
    act: Performative,
    protocol: Option<&'static str>,
    reply_with: Option<&'static str>,
    in_reply_to: Option<&'static str>,
    at: u64,
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let name = || prop::sample::select(&["a", "b", "c", "d", "http:e"][..]);
    let key = || prop::option::of(prop::sample::select(&["k", "l", "0", "7"][..]));
    let protocol =
        prop::option::of(prop::sample::select(&["fipa-request", "fipa-query", "fipa-contract-net", "other"][..]));
    let line = (name(), name(), prop::sample::select(Performative::ALL), protocol, key(), key(), any::<u64>())
        .prop_map(|(from, to, act, protocol, reply_with, in_reply_to, at)| Line {
            from,
            to,
            act,
            protocol,
            reply_with,
            in_reply_to,
            at,
        });
    prop::collection::vec(line, 0..300)
}

proptest! {
    #[test]
    fn refusals_change_nothing_and_the_record_adds_up(lines in lines(), bound in 1usize..6) {
        let mut conversation = Conversation::new("x", "a", NOON);
        let mut taken = 0;
        for (n, line) in lines.iter().enumerate() {
            let id = n.to_string();
            let Line { from, to, act, protocol, reply_with, in_reply_to, at } = *line;
            let before = conversation.clone();
            match conversation.record(&SpeechAct { from, to, act, protocol, id: &id, reply_with, in_reply_to, at, is_call: false }, bound) {
                Ok(_) => {
                    taken += 1;
                    prop_assert!(conversation.participants.contains(from) && conversation.participants.contains(to));
                    // A sender outside names no key, and answers the oldest question to it.
                    let answerable = before.unanswered.iter().any(|waiting| match in_reply_to {
                        Some(key) => waiting.key == key && waiting.from == to,
                        None => from.contains(':') && waiting.to.contains(':') && waiting.from == to,
                    });
                    let left = before.unanswered.len() - usize::from(answerable);
                    let waits = left + usize::from(ASKING.contains(&act.as_str()) && from != to);
                    prop_assert_eq!(conversation.unanswered.len(), waits.min(MAX_UNANSWERED));
                }
                Err(_) => prop_assert_eq!(&conversation, &before),
            }
            prop_assert_eq!(conversation.messages, taken);
            prop_assert!(conversation.participants.len() <= bound);
            prop_assert!(conversation.unanswered.len() <= MAX_UNANSWERED);
            prop_assert!(conversation.first <= conversation.last);
        }
        let stored = serde_json::to_string(&conversation).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Conversation>(&stored).unwrap(), &conversation);
        let waiting = keys(&conversation).len();
        prop_assert_eq!(conversation.expire().len(), waiting);
    }

    /// Lets each participant in turn take a legal step and answer the last message, until the run is over.
    #[test]
    fn a_legal_dialogue_leaves_no_question(
        protocol in prop::sample::select(&Protocol::ALL[..]),
        participants in 1usize..6,
        chances in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let mut conversation = Conversation::new("x", "a", NOON);
        let desks: Vec<String> = (0..participants).map(|n| format!("desk-{n}")).collect();
        let count = if protocol == Protocol::ContractNet { participants } else { 1 };
        let mut turns: Vec<(bool, Option<String>)> = vec![(true, None); count];
        for (n, chance) in chances.iter().enumerate() {
            let at = n % count;
            let (initiators, answers) = turns[at].clone();
            let (from, to) = if initiators { ("a", desks[at].as_str()) } else { (desks[at].as_str(), "a") };
            let acts: Vec<Performative> = match (&answers, conversation.runs.last()) {
                (None, _) if n >= count => continue,
                (Some(_), Some(run)) => run.legal(from, to),
                (None | Some(_), _) => ProtocolRun::new(protocol).legal(from, to),
            };
            // A participant that agreed continues; one that is cancelled answers the `cancel` and not the request.
            let acts: Vec<_> = acts.into_iter().filter(|act| *act != Performative::Cancel).collect();
            let (act, id) = (*chance.get(&acts), n.to_string());
            let message = SpeechAct {
                protocol: Some(protocol.as_str()), in_reply_to: answers.as_deref(), act, ..said(from, to, "inform", &id)
            };
            prop_assert!(conversation.record(&message, 100).is_ok());
            let asks = conversation.unanswered.iter().any(|waiting| waiting.key == id);
            turns[at] = if act == Performative::Agree {
                (false, answers)
            } else if asks {
                (!initiators, Some(id))
            } else {
                (true, None)
            };
        }
        prop_assert!(conversation.runs.last().is_some_and(ProtocolRun::is_over), "{:?}", conversation.runs);
        prop_assert!(conversation.unanswered.is_empty(), "{:?}", keys(&conversation));
    }
}

#[test]
fn taking_back_restores_the_record() {
    let mut conversation = Conversation::new("c", "triage", 1);
    let mut said = |from: &'static str, to: &'static str, act, protocol, id, in_reply_to| {
        let said = SpeechAct { from, to, act, protocol, id, reply_with: None, in_reply_to, at: 1, is_call: false };
        let before = conversation.clone();
        let change = conversation.record_reversibly(&said, 10).unwrap();
        assert_ne!(conversation, before, "{id}");
        conversation.take_back(&said, change);
        assert_eq!(conversation, before, "{id}");
        conversation.record(&said, 10).unwrap();
    };
    let fipa = Some("fipa-request");
    said("triage", "desk", Performative::Request, fipa, "m-1", None);
    said("desk", "ledger", Performative::QueryIf, None, "m-2", None);
    said("desk", "triage", Performative::Agree, fipa, "m-3", Some("m-1"));
    said("ledger", "desk", Performative::Inform, Some("other"), "m-4", Some("m-2"));
    said("desk", "triage", Performative::Inform, fipa, "m-5", None);
    let ids: Vec<String> = (0..=caxton_control::conversation::MAX_UNANSWERED).map(|n| format!("q-{n}")).collect();
    for id in &ids {
        said("triage", "triage", Performative::Cfp, None, id.clone().leak(), None);
    }
}
