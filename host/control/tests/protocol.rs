//! Tests of the interaction protocols: legal and illegal dialogues, and properties of random ones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use caxton_control::Performative;
use caxton_control::protocol::{MAX_PARTICIPANTS, Protocol, ProtocolRun};
use proptest::prelude::*;

/// Sends the acts, each `from>to act`. Returns the run and the refusals.
fn told(protocol: Protocol, story: &str) -> (ProtocolRun, Vec<String>) {
    let mut run = ProtocolRun::new(protocol);
    let mut refused = Vec::new();
    for line in story.split(',').map(str::trim) {
        let (who, act) = line.split_once(' ').unwrap();
        let (from, to) = who.split_once('>').unwrap();
        if let Err(illegal) = run.step(from, to, act.parse().unwrap()) {
            refused.push(illegal.to_string());
        }
    }
    (run, refused)
}

#[test]
fn legal_stories_end() {
    use caxton_control::protocol::Protocol::*;
    for (protocol, story) in [
        (Request, "a>b request, b>a inform"),
        (Request, "a>b request-when, b>a agree, b>a inform"),
        (Request, "a>b request-whenever, b>a agree, b>a failure"),
        (Request, "a>b request, b>a refuse"),
        (Request, "a>b request, b>a failure"),
        (Request, "a>b request, b>a not-understood"),
        (Request, "a>b request, b>a agree, a>b not-understood"),
        (Request, "a>b request, a>b cancel, b>a inform"),
        (Request, "a>b request, b>a agree, a>b cancel, a>b cancel, b>a failure"),
        (Request, "a>b request, b>a inform, a>b request, b>a refuse"),
        (Request, "a>b request, b>a inform, b>a request, a>b inform"),
        (Request, "a>a request, a>a agree, a>a inform"),
        (Request, "a>a request, a>a cancel, a>a inform"),
        (Query, "a>b query-if, b>a inform-if"),
        (Query, "a>b query-ref, b>a agree, b>a inform-ref"),
        (Query, "a>b query-ref, b>a inform"),
        (Query, "a>b query-ref, b>a agree, b>a failure"),
        (Query, "a>b query-if, a>b cancel, b>a failure"),
        (ContractNet, "a>b cfp, a>c cfp, b>a propose, c>a refuse, a>b accept-proposal, b>a inform"),
        (ContractNet, "a>b cfp, b>a propose, a>c cfp, a>b reject-proposal, c>a not-understood"),
        (ContractNet, "a>b cfp, b>a propose, a>b accept-proposal, a>b cancel, b>a inform"),
        (ContractNet, "a>b cfp, a>c cfp, b>a refuse, a>b cfp, b>a propose, a>b reject-proposal, c>a refuse"),
        (ContractNet, "a>a cfp, a>a propose, a>a accept-proposal, a>a inform"),
    ] {
        let (run, refused) = told(protocol, story);
        assert!(refused.is_empty() && run.is_over(), "{protocol} {story}: {refused:?} {run:?}");
    }
}

#[test]
fn illegal_acts_are_refused_with_the_legal_ones() {
    use caxton_control::protocol::Protocol::*;
    for (protocol, story, refusal) in [
        (Request, "a>b request, b>a propose", "b: agree, refuse, inform, failure or not-understood"),
        (Request, "a>b request, b>a inform-if", "b: agree, refuse, inform, failure or not-understood"),
        (Request, "b>a agree", "b: request, request-when or request-whenever"),
        (Request, "a>b request, a>b request", "a: cancel or not-understood"),
        (Request, "a>b request, b>a agree, b>a refuse", "b: inform, failure or not-understood"),
        (Request, "a>b request, a>b cancel, b>a agree", "b: inform, failure or not-understood"),
        (Request, "a>b request, b>a cancel", "b: agree, refuse, inform, failure or not-understood"),
        (Request, "a>b request, b>a inform, b>a inform", "b: request, request-when or request-whenever"),
        (Request, "a>b request, c>a inform", "`c` has no part in it"),
        (Request, "a>b request, a>c request", "`c` has no part in it"),
        (Request, "a>b request, b>b inform", "`b` may say nothing to `b` now"),
        (Query, "a>b request", "a: query-if or query-ref"),
        (Query, "a>b query-if, b>a agree, b>a agree", "b: inform, inform-if, inform-ref, failure or not-understood"),
        (ContractNet, "a>b propose", "a: cfp"),
        (ContractNet, "a>b cfp, c>a cfp", "`c` has no part in it"),
        (ContractNet, "a>b cfp, b>a failure", "b: propose, refuse or not-understood"),
        (ContractNet, "a>b cfp, b>a propose, b>a propose", "b: not-understood"),
        (ContractNet, "a>b cfp, a>b accept-proposal", "a: cancel or not-understood"),
        (ContractNet, "a>b cfp, a>c propose", "a: cfp"),
        (ContractNet, "a>b cfp, b>a propose, a>b cfp", "a: accept-proposal, reject-proposal, cancel or not-understood"),
        (ContractNet, "a>b cfp, b>a propose, a>b accept-proposal, b>a agree", "b: inform, failure or not-understood"),
        (ContractNet, "a>b cfp, a>c cfp, b>a refuse, b>a propose", "`b` may say nothing to `a` now"),
        (ContractNet, "a>b cfp, a>c cfp, b>c propose", "`b` may say nothing to `c` now"),
    ] {
        let (_, refused) = told(protocol, story);
        let last = story.rsplit(", ").next().unwrap();
        let (from, act) = (&last[..1], &last[4..]);
        let reason = match refusal.split_once(": ") {
            Some((who, acts)) => format!("`{who}` may say {acts}"),
            None => refusal.to_owned(),
        };
        assert_eq!(refused, [format!("`{act}` from `{from}` is not legal here in {protocol}: {reason}")], "{story}");
    }
}

#[test]
fn a_run_has_a_bounded_number_of_participants() {
    let mut run = ProtocolRun::new(Protocol::ContractNet);
    for n in 0..MAX_PARTICIPANTS {
        run.step("a", &format!("desk-{n}"), Performative::Cfp).unwrap();
    }
    let before = run.clone();
    let refused = run.step("a", "one-more", Performative::Cfp).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "`cfp` from `a` is not legal here in fipa-contract-net: it has 100 participants, as many as it may"
    );
    assert_eq!(run, before);
    for n in 0..MAX_PARTICIPANTS {
        run.step(&format!("desk-{n}"), "a", Performative::Refuse).unwrap();
    }
    run.step("a", "one-more", Performative::Cfp).unwrap();
}

#[test]
fn giving_up_ends_a_part() {
    let (mut run, _) = told(Protocol::ContractNet, "a>b cfp");
    run.give_up("c", "a");
    run.give_up("b", "c");
    assert!(!run.is_over(), "neither has such a part");
    run.give_up("b", "a");
    assert!(run.is_over());
}

#[test]
fn protocols_are_found_by_their_names() {
    for protocol in Protocol::ALL {
        assert_eq!(Protocol::named(protocol.as_str()), Some(protocol));
        assert_eq!(serde_json::to_value(protocol).unwrap(), protocol.as_str());
    }
    assert_eq!(Protocol::named("fipa-subscribe"), None);
}

type SpeechAct = (String, String, Performative);

fn act() -> impl Strategy<Value = Performative> {
    prop::sample::select(Performative::ALL)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(&Protocol::ALL[..])
}

/// Messages among few agents, so that many of them are legal.
fn anything() -> impl Strategy<Value = Vec<SpeechAct>> {
    let name = || prop::sample::select(&["a", "b", "c", "http:d"][..]).prop_map(str::to_owned);
    prop::collection::vec((name(), name(), act()), 0..60)
}

/// A legal dialogue of `a` with this participant, written after the FIPA documents and independently of the tables in
/// the code: the acts, with `>` for those of `a`.
fn dialogue(protocol: Protocol) -> impl Strategy<Value = String> {
    let (begins, answers, results): (&[&str], &[&str], &[&str]) = match protocol {
        Protocol::Request => {
            (&[">request", ">request-when", ">request-whenever"], &["<agree"], &["<inform", "<failure"])
        }
        Protocol::Query => {
            (&[">query-if", ">query-ref"], &["<agree"], &["<inform", "<inform-if", "<inform-ref", "<failure"])
        }
        Protocol::ContractNet => (&[">cfp"], &["<propose >accept-proposal"], &["<inform", "<failure"]),
    };
    let early: &[&str] = match protocol {
        Protocol::Request | Protocol::Query => &["<refuse", "<inform", "<failure"],
        Protocol::ContractNet => &["<refuse", "<propose >reject-proposal"],
    };
    let broken =
        ["<not-understood", ">not-understood", ">cancel <inform", ">cancel <failure", ">cancel >not-understood"];
    let end = prop_oneof![
        prop::sample::select(early).prop_map(str::to_owned),
        (prop::sample::select(answers), prop::sample::select(results)).prop_map(|(yes, end)| format!("{yes} {end}")),
        prop::sample::select(broken.to_vec()).prop_map(str::to_owned),
        (prop::sample::select(answers), prop::sample::select(broken.to_vec()))
            .prop_map(|(yes, end)| format!("{yes} {end}")),
    ];
    (prop::sample::select(begins), end).prop_map(|(begins, end)| format!("{begins} {end}"))
}

/// Dialogues with one participant one after the other or, in a contract net, with several at once.
fn legal_run() -> impl Strategy<Value = (Protocol, Vec<SpeechAct>)> {
    protocol()
        .prop_flat_map(|protocol| {
            let several = prop::collection::vec(dialogue(protocol), 1..8);
            (Just(protocol), several, prop::collection::vec(any::<prop::sample::Index>(), 64))
        })
        .prop_map(|(protocol, dialogues, chances)| {
            let mut parts: Vec<Vec<SpeechAct>> = Vec::new();
            for (n, dialogue) in dialogues.iter().enumerate() {
                let desk = if protocol == Protocol::ContractNet { format!("desk-{n}") } else { "desk".to_owned() };
                let said = dialogue.split(' ').map(|said| {
                    let act = said[1..].parse().unwrap();
                    if said.starts_with('>') {
                        ("a".to_owned(), desk.clone(), act)
                    } else {
                        (desk.clone(), "a".to_owned(), act)
                    }
                });
                parts.push(said.rev().collect());
            }
            let mut all = Vec::new();
            for chance in chances {
                parts.retain(|part| !part.is_empty());
                if parts.is_empty() {
                    break;
                }
                let at = if protocol == Protocol::ContractNet { chance.index(parts.len()) } else { 0 };
                all.extend(parts[at].pop());
            }
            (protocol, all)
        })
}

fn begins(protocol: Protocol, act: Performative) -> bool {
    let name = act.as_str();
    match protocol {
        Protocol::Request => name.starts_with("request"),
        Protocol::Query => name.starts_with("query"),
        Protocol::ContractNet => name == "cfp",
    }
}

proptest! {
    #[test]
    fn a_message_is_accepted_or_changes_nothing(protocol in protocol(), said in anything()) {
        let mut run = ProtocolRun::new(protocol);
        for (from, to, act) in said {
            let (before, was_over, legal) = (run.clone(), run.is_over(), run.legal(&from, &to));
            match run.step(&from, &to, act) {
                Ok(()) => {
                    prop_assert!(legal.contains(&act));
                    prop_assert!(!was_over || begins(protocol, act), "{} after the end", act);
                    prop_assert!(!begins(protocol, act) || !run.is_over());
                }
                Err(illegal) => {
                    prop_assert_eq!(&run, &before);
                    prop_assert!(!legal.contains(&act));
                    prop_assert!(!was_over || !begins(protocol, act), "{}", illegal);
                    let start = format!("`{act}` from `{from}` is not legal here in {protocol}: ");
                    prop_assert!(illegal.to_string().starts_with(&start));
                }
            }
            let stored = serde_json::to_string(&run).unwrap();
            prop_assert_eq!(&serde_json::from_str::<ProtocolRun>(&stored).unwrap(), &run);
        }
    }

    #[test]
    fn legal_dialogues_are_accepted_and_end((protocol, said) in legal_run()) {
        let mut run = ProtocolRun::new(protocol);
        for (from, to, act) in said {
            let taken = run.step(&from, &to, act);
            prop_assert!(taken.is_ok(), "{:?} of {:?}", taken, run);
        }
        prop_assert!(run.is_over(), "{:?}", run);
    }
}
