//! The matrix of rollouts: candidates that are good, or bad in each possible way, by each strategy, under constant load;
//! and the same with `kill -9` in the middle.
//!
//! Each case is one host with an agent for each kind of candidate, all of which roll out at once. Whatever the outcome:
//! each message that was accepted had its effect exactly once, those of a conversation in their order, and a
//! conversation went from one revision to the other only with all the traffic.

mod load;

use caxton_tests::{Host, Setup, guest};
use serde_json::{Value, json};

use crate::{BINARY, file};
use load::{Load, Sent};

/// A kind of candidate, and the status that its rollout ends with.
type Outcome = (&'static str, &'static str);

/// A strategy, and the expected outcomes.
struct Case {
    /// The guest.
    guest: &'static str,
    /// `deploy` or `reload`: changed settings, or changed bytes.
    occasion: &'static str,
    /// The strategy's keys.
    strategy: &'static str,
    outcomes: &'static [Outcome],
}

/// The outcomes of candidates that are compared with stable, which finds slow ones too.
const COMPARED: &[Outcome] = &[
    ("good", "completed"),
    ("fails", "rolled-back: errors: "),
    ("slow", "rolled-back: slower: "),
    ("leaks", "rolled-back: memory: "),
    ("unready", "failed: "),
    ("faints", "rolled-back: probes: "),
];

/// The outcomes where all traffic moves at once, and there is nothing to compare with.
const AT_ONCE: &[Outcome] = &[
    ("good", "completed"),
    ("fails", "rolled-back: errors: "),
    ("slow", "completed"),
    ("leaks", "rolled-back: memory: "),
    ("unready", "failed: "),
    ("faints", "rolled-back: probes: "),
];

/// The outcomes where copies of messages are tried first: a candidate that fails at them gets no message.
const COPIED: &[Outcome] = &[
    ("good", "completed"),
    ("fails", "rolled-back: match: "),
    ("slow", "completed"),
    ("leaks", "rolled-back: memory: "),
    ("unready", "failed: "),
    ("faints", "rolled-back: probes: "),
];

/// The outcomes of candidates that keep state in memory.
const STATEFUL: &[Outcome] =
    &[("good", "completed"), ("fails", "rolled-back: errors: "), ("forgets", "failed: "), ("unready", "failed: ")];

const CANARY: Case = Case {
    guest: "diary",
    occasion: "deploy",
    strategy: "strategy = \"canary\", steps = [{ weight = 30, for = \"1s\" }, { weight = 60, for = \"1s\" }]",
    outcomes: COMPARED,
};
const SPLITTING: Case = Case {
    guest: "diary",
    occasion: "reload",
    strategy: "strategy = \"traffic-splitting\", steps = [30, 60, 100], every = \"1s\"",
    outcomes: COMPARED,
};
const IMMEDIATE: Case =
    Case { guest: "diary", occasion: "deploy", strategy: "strategy = \"immediate\"", outcomes: AT_ONCE };
const ROLLING: Case =
    Case { guest: "diary", occasion: "deploy", strategy: "strategy = \"rolling\"", outcomes: AT_ONCE };
const BLUE_GREEN: Case = Case {
    guest: "diary",
    occasion: "deploy",
    strategy: "strategy = \"blue-green\", keep-warm = \"3s\"",
    outcomes: AT_ONCE,
};
const GRACEFUL: Case =
    Case { guest: "diary", occasion: "reload", strategy: "strategy = \"graceful\"", outcomes: AT_ONCE };
const AT_ONCE_RELOAD: Case =
    Case { guest: "diary", occasion: "reload", strategy: "strategy = \"immediate\"", outcomes: AT_ONCE };

/// A parallel run, in which only the name of the handling revision may differ.
const PARALLEL: Case = Case {
    guest: "diary",
    occasion: "reload",
    strategy: "strategy = \"parallel\", for = \"120s\", min-messages = 100, ignore = [\"**\"]",
    outcomes: COPIED,
};

const MEMORY_DEPLOY: [Case; 3] = [
    Case { guest: "memoir", outcomes: STATEFUL, ..IMMEDIATE },
    Case { guest: "memoir", outcomes: STATEFUL, ..ROLLING },
    Case { guest: "memoir", outcomes: STATEFUL, ..BLUE_GREEN },
];
const MEMORY_RELOAD: [Case; 2] = [
    Case { guest: "memoir", outcomes: STATEFUL, ..GRACEFUL },
    Case { guest: "memoir", outcomes: STATEFUL, ..AT_ONCE_RELOAD },
];

/// The bytes of a guest that is like this.
pub(crate) fn bytes(name: &str, like: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(guest(name)).expect("the guest is built");
    let mark = b"LIKE=old";
    let at = bytes.windows(mark.len()).position(|window| window == mark).expect("the guest has its mark");
    let word = format!("{like:.<27}");
    bytes[at + 5..at + 32].copy_from_slice(word.as_bytes());
    bytes
}

impl Case {
    fn file(&self, candidate: bool) -> String {
        let agent = |(name, _): &Outcome| {
            let like = if self.occasion == "deploy" {
                format!("config = {{ like = \"{}\" }}", if candidate { name } else { "old" })
            } else {
                String::new()
            };
            format!(
                "[agents.{name}]\ncomponent = \"{name}.wasm\"\n{like}\n{} = {{ {} }}\n\
                 instances = {{ min = 2, max = 8 }}\n\
                 rollback = {{ min-messages = 30, memory = \"24MiB\", slower = \"1000%\" }}\n\
                 breaker = {{ faults = 100, reset = \"5s\" }}\n\
                 limits = {{ time = \"120s\" }}\n\
                 mailbox = {{ attempts = 20, backoff = {{ first = \"100ms\", factor = 1.1, max = \"500ms\" }} }}\n\
                 [[agents.{name}.http]]\nroute = \"/{name}/keep\"\nmode = \"enqueue\"\n\
                 [[agents.{name}.http]]\nroute = \"/{name}/ask\"\n",
                self.occasion, self.strategy
            )
        };
        file(&self.outcomes.iter().map(agent).collect::<String>())
    }

    fn put(&self, folder: &std::path::Path, name: &str, like: &str) {
        let temporary = folder.join("new.wasm");
        std::fs::write(&temporary, bytes(self.guest, like)).expect("the folder can be written to");
        std::fs::rename(temporary, folder.join(format!("{name}.wasm"))).expect("the folder can be written to");
    }

    /// Rolls out all candidates under load, and checks the outcomes.
    fn run(&self, kill: bool) {
        let setup = Setup::new(BINARY, &self.file(false));
        self.outcomes.iter().for_each(|(name, _)| self.put(setup.folder(), name, "old"));
        let mut host = setup.start();
        let load = Load::new(&host.http, self.outcomes.iter().map(|(name, _)| *name));
        host.until("all have traffic", |_| load.is_flowing().then_some(()));
        if self.occasion == "deploy" {
            host.edit(&self.file(true));
        } else {
            self.outcomes.iter().for_each(|(name, _)| self.put(host.folder(), name, name));
        }
        if kill {
            host.until("traffic moves", |host| {
                let good = newest_rollout(host, "good")?;
                (good["weight"] != 0 && good["ended"] == false).then_some(())
            });
            host = host.kill().start();
            load.moved(&host.http);
            host.until_output("the host started again: it goes on");
            // Also of one whose rollout waits for its turn.
            for (name, _) in self.outcomes {
                host.until_agent(name, "it is served", |status| status["revision"] != Value::Null);
            }
        }
        for (name, outcome) in self.outcomes {
            let ended =
                host.until(&format!("{name} to end"), |host| newest_rollout(host, name).filter(|r| r["ended"] == true));
            let outcome_of_rollout =
                format!("{}: {}", ended["status"].as_str().unwrap_or(""), ended["why"].as_str().unwrap_or(""));
            assert!(
                outcome_of_rollout.starts_with(outcome),
                "{name}: {outcome_of_rollout}; the host said:\n{}",
                host.output()
            );
        }
        let sent = load.end();
        for (name, outcome) in self.outcomes {
            host.until_agent(name, "everything is handled", |status| {
                ["mailbox_depth", "in_flight", "later"].iter().all(|key| status[key] == 0)
            });
            self.check(&host, name, outcome, &sent[*name], kill);
        }
    }

    /// Checks the records of an agent against the messages sent to it.
    fn check(&self, host: &Host, name: &str, outcome: &str, sent: &Sent, kill: bool) {
        let case = format!("{} {} {name}", self.occasion, self.strategy);
        let (status, page) = (host.agent(name), sent.wrong.first());
        assert_eq!(page, None, "{case}");
        assert_eq!(status["dead_letters"], 0, "{case}");
        assert_eq!(status["revision"], format!("{name}@{}", if outcome == "completed" { 2 } else { 1 }), "{case}");
        let records = Records::of(host, name);
        assert_eq!(records.disorder, 0, "{case}: {:?}", records.did);
        for key in &sent.done {
            let times = records.did.get(key).map_or(0, Vec::len);
            assert_eq!(times, 1, "{case}: {key} was accepted, and had {times} effects: {:?}", records.did.get(key));
        }
        for (key, list) in &records.did {
            let known = sent.done.contains(key) || sent.maybe.contains(key);
            assert!(known && list.len() == 1, "{case}: {key} had the effects {list:?}");
        }
        // What copies show is found before any message goes there; but what a candidate has of memory begins anew with
        // the host, so that after a kill it may come to light only later.
        let copied = self.strategy.contains("parallel");
        let late = copied && kill && name == "leaks";
        let never = copied && !late && ["fails", "leaks"].contains(&name);
        // There and, unless all is well, back. A host that starts again serves with stable until the other stands.
        let most = match outcome {
            "completed" => 1,
            failed if failed.starts_with("failed") || never => 0,
            _ => 2,
        };
        let most = if kill { most + 2 } else { most };
        for (conversation, moves) in records.moves() {
            if name == "fails" && conversation.contains("-a") {
                // While the candidate cannot take calls, the one before it answers them.
                continue;
            }
            assert!(moves <= most, "{case}: {conversation} went {moves} times to another revision");
        }
        let by = |like: &str| records.did.values().flatten().filter(|(who, _)| who == like).count() as u64;
        if !never && (outcome == "completed" || outcome.starts_with("rolled-back")) {
            // One that fails may have failed at all that it had before it was taken back.
            let had =
                newest_rollout(host, name).is_some_and(|rollout| rollout["candidate_messages"].as_u64() > Some(0));
            let had = had && (name == "fails" || by(name) > 0);
            assert!(late || had, "{case}: the candidate had messages; the host said:\n{}", host.output());
        } else {
            assert_eq!(by(name), 0, "{case}: a candidate that is not ready has none");
        }
        if let (Some(total), false) = (records.total, kill) {
            // Its memory went with it; what was remembered by one that was taken back is dropped with it.
            let remembered = if outcome == "completed" { records.did.len() as u64 } else { by("old") };
            assert_eq!(total, remembered, "{case}: it remembers");
        }
    }
}

fn newest_rollout(host: &Host, agent: &str) -> Option<Value> {
    host.api().get(&format!("/v1/rollouts/{agent}")).json().get(0).cloned()
}

/// The records of an agent.
#[derive(Default)]
struct Records {
    /// The revision and attempt of each handling, by `CONVERSATION/N`.
    did: std::collections::BTreeMap<String, Vec<(String, u32)>>,
    disorder: u64,
    total: Option<u64>,
}

impl Records {
    fn of(host: &Host, name: &str) -> Self {
        let (client, mut records, mut after) = (host.client(), Self::default(), Value::Null);
        loop {
            let page = client.post(&format!("/{name}/ask"), json!({ "audit": after, "limit": 500 }).to_string()).json();
            for (key, list) in page["did"].as_object().expect("a page of it") {
                let list = serde_json::from_value(list.clone()).expect("who, and at which attempt");
                records.did.insert(key.trim_start_matches("did/").to_owned(), list);
            }
            records.disorder = page["disorder"].as_u64().expect("a count");
            records.total = page["total"].as_u64();
            after = page["next"].clone();
            if after.is_null() {
                return records;
            }
        }
    }

    /// Counts how often each conversation changed its revision, by first attempts alone: failed ones are tried elsewhere.
    fn moves(&self) -> Vec<(&str, usize)> {
        let mut moves: Vec<(&str, usize)> = Vec::new();
        let mut last = "";
        for (key, list) in &self.did {
            let conversation = key.split('/').next().unwrap_or_default();
            if moves.last().is_none_or(|(of, _)| *of != conversation) {
                moves.push((conversation, 0));
                last = "";
            }
            for (who, attempt) in list {
                if *attempt == 1 {
                    let moved = usize::from(!last.is_empty() && last != who.as_str());
                    moves.last_mut().expect("it was pushed").1 += moved;
                    last = who;
                }
            }
        }
        moves
    }
}

macro_rules! cases {
    ($($name:ident, $killed:ident: $case:expr;)*) => {
        $(
            #[test]
            fn $name() {
                $case.run(false);
            }

            #[test]
            fn $killed() {
                $case.run(true);
            }
        )*
    };
}

cases! {
    by_canary, by_canary_and_killed: CANARY;
    by_splitting, by_splitting_and_killed: SPLITTING;
    by_immediate_deploy, by_immediate_deploy_and_killed: IMMEDIATE;
    by_rolling, by_rolling_and_killed: ROLLING;
    by_blue_green, by_blue_green_and_killed: BLUE_GREEN;
    by_graceful, by_graceful_and_killed: GRACEFUL;
    by_immediate_reload, by_immediate_reload_and_killed: AT_ONCE_RELOAD;
    by_copies, by_copies_and_killed: PARALLEL;
    with_memory_by_immediate_deploy, with_memory_by_immediate_deploy_and_killed: MEMORY_DEPLOY[0];
    with_memory_by_rolling, with_memory_by_rolling_and_killed: MEMORY_DEPLOY[1];
    with_memory_by_blue_green, with_memory_by_blue_green_and_killed: MEMORY_DEPLOY[2];
    with_memory_by_graceful, with_memory_by_graceful_and_killed: MEMORY_RELOAD[0];
    with_memory_by_immediate_reload, with_memory_by_immediate_reload_and_killed: MEMORY_RELOAD[1];
}
