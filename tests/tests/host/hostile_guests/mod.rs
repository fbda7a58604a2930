//! Guests that attack: the attacker gets the error that is its own, its neighbour is answered meanwhile and after, and
//! the host has no more in hand than before.
//!
//! | attack | shown here, or where else |
//! |---|---|
//! | a message that loops, recurses, traps, exits, waits, takes memory; reasons of 4 MB; texts with control characters; too many sends and writes | `messages::attacks_by_messages_end_as_the_attackers_own` |
//! | hoards of pollables and streams, millions of reads, keys, lists, look-ups, log lines | `messages::hoards_and_floods_end_as_the_attackers_own` |
//! | messages that multiply | `messages::messages_that_multiply_end_and_are_accounted_for` |
//! | receivers, senders, answers and timers of others | `messages::nobody_speaks_for_another` |
//! | an agent that answers to nobody and asks everybody | `messages::questions_that_nobody_answers_end_with_their_time` |
//! | every trap of the engine, results and allocations that lie, tables and memories that grow | `text::every_trap_and_lie_is_a_fault_of_the_guest` |
//! | starts that never end, trap or need too much; exports of another type; bombs for the validator; names that are empty, long or there twice | `components::components_that_attack_are_refused_before_their_first_message` |
//! | nested components | `hostile_inputs::a_component_of_nested_components_is_refused_and_delays_no_other_agent` |
//! | files that are cut or changed | `malformed_inputs::components::changed_components_are_refused_or_run` |
//! | headers, lengths, bodies and trailers that lie; hoards of fields, bodies and requests; bodies that never end or are never read | `web::attacks_by_responses_end_as_the_attackers_own` |
//! | clients that leave in the middle of an attack | `web::a_caller_that_leaves_an_attacker_leaves_nothing_behind` |
//! | `save` that loops, traps, hoards, rants or gives too much | `memory::memories_that_attack_harm_their_own_agent_only` |
//! | `restore` that does | `memory::a_restore_that_attacks_ends_as_the_attackers_own` |
//! | `save` that sends and writes | `memory_commits::a_save_neither_sends_nor_writes` |

mod components;
mod memory;
mod messages;
mod text;
mod web;

use std::fs;

use caxton_tests::{Host, Setup, pause};
use serde_json::Value;

use crate::{BINARY, agent, file};

/// The settings of an attacker: instances that leave soon, so that a test can wait until none is left, and no breaker
/// that would end an attack before it was made.
const ATTACKER: &str = "instances = { max = 2, idle = \"1s\" }\nbreaker = { faults = 100 }\n\
                        mailbox = { attempts = 1, depth = 1_000 }\n";

/// A host with attackers and a neighbour of theirs.
struct Street {
    host: Host,
    /// The figures before the first attack.
    before: Figures,
}

/// The figures that have to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Figures {
    /// The live instances of the host.
    instances: u64,
    /// Messages and calls of the attackers that are handled or wait.
    in_hand: u64,
    /// The open sockets of the process.
    sockets: usize,
}

impl Street {
    /// Starts a host with the agent `neighbour` and these agents.
    fn start(attackers: &str) -> Self {
        Self::start_with(attackers, |_| {})
    }

    /// Starts one in a folder that was prepared.
    fn start_with(attackers: &str, prepare: impl FnOnce(&Setup)) -> Self {
        let neighbour = agent("neighbour", "echo", "instances = { min = 1, max = 1 }\n");
        let setup = Setup::new(BINARY, &file(&(neighbour + attackers)));
        prepare(&setup);
        let mut host = setup.start();
        let before = host.until("the host to be at rest", |host| {
            let figures = figures(host);
            (figures.instances == 1 && figures.in_hand == 0).then_some(figures)
        });
        Self { host, before }
    }

    /// Makes an attack, and calls the neighbour until it is over, and once more.
    fn during<T: Send>(&self, attack: impl FnOnce(&Host) -> T + Send) -> T {
        let client = self.host.client();
        let call = || {
            let reply = client.post("/neighbour", "good day");
            assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "good day"));
        };
        std::thread::scope(|scope| {
            let attack = scope.spawn(|| attack(&self.host));
            while !attack.is_finished() {
                call();
                pause();
            }
            let outcome = attack.join().expect("the attack has an outcome");
            call();
            outcome
        })
    }

    /// Posts a message, as an attack. Returns the status, and the code or the answer.
    fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.during(|host| {
            let reply = host.client().post(path, body.to_owned());
            let told = match reply.header("content-type") {
                "application/problem+json" => reply.json()["code"].as_str().unwrap_or_default().to_owned(),
                _ => reply.text(),
            };
            (reply.status.as_u16(), told)
        })
    }

    /// Waits until the figures are what they were.
    fn until_at_rest(&mut self) {
        let before = self.before.clone();
        let mut last = None;
        self.host.until("the figures to come back", |host| {
            let now = figures(host);
            let in_hand = (now.instances, now.in_hand);
            if last != Some(in_hand) {
                println!("{now:?}, before the attacks {before:?}");
                last = Some(in_hand);
            }
            // Fewer sockets than before are as good: one of the test's own was open then.
            let is_back = (now.instances, now.in_hand) == (before.instances, before.in_hand);
            (is_back && now.sockets <= before.sockets).then_some(())
        });
        assert!(!self.host.output().contains("panicked"), "{}", self.host.output());
        assert_eq!(self.host.client().post("/neighbour", "and after").text(), "and after");
    }
}

fn figures(host: &Host) -> Figures {
    let (agents, instances) = {
        let api = host.api();
        (api.get("/v1/agents").json(), api.get("/v1/host").json()["instances"].as_u64().expect("a number"))
    };
    let count = |agent: &Value, key: &str| agent[key].as_u64().expect("a number");
    let agents = agents.as_array().expect("a list");
    let in_hand = agents.iter().map(|agent| count(agent, "in_flight") + count(agent, "mailbox_depth")).sum();
    Figures { instances, in_hand, sockets: sockets(host) }
}

/// The number of open sockets of a host's process.
pub(crate) fn sockets(host: &Host) -> usize {
    let folder = format!("/proc/{}/fd", host.pid().as_raw_nonzero());
    let files = fs::read_dir(folder).expect("the process is there");
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The text of a guest in `components/hostile/text`.
fn text_of(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../components/hostile/text");
    fs::read_to_string(format!("{folder}/{name}.wat")).expect("the text of a guest")
}
