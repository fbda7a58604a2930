//! The callers that send without pause, and record which messages were accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use caxton_tests::{Client, pause};
use serde_json::json;

/// Callers of one agent.
const CALLERS: usize = 2;
/// Conversations that a caller has open at once, and messages after which it begins others.
const OPEN: u64 = 4;
const LONG: u64 = 12;

/// The outcome of the messages to one agent, by `CONVERSATION/N`.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The messages that were accepted or answered, which have to have an effect.
    pub(super) done: BTreeSet<String>,
    /// The messages of unknown outcome, which may have an effect.
    pub(super) maybe: BTreeSet<String>,
    /// Answers that no candidate explains.
    pub(super) wrong: Vec<String>,
}

struct Shared {
    address: RwLock<String>,
    over: AtomicBool,
    /// Numbers of messages.
    ids: AtomicU64,
}

/// The callers of some agents.
pub(super) struct Load {
    shared: Arc<Shared>,
    callers: Vec<(String, Arc<AtomicU64>, JoinHandle<Sent>)>,
}

impl Load {
    pub(super) fn new<'a>(address: &str, agents: impl Iterator<Item = &'a str>) -> Self {
        let (address, over) = (RwLock::new(address.to_owned()), AtomicBool::new(false));
        let shared = Arc::new(Shared { address, over, ids: AtomicU64::new(0) });
        let mut callers = Vec::new();
        for agent in agents {
            for caller in 0..CALLERS {
                let (shared, agent) = (Arc::clone(&shared), agent.to_owned());
                let answered = Arc::new(AtomicU64::new(0));
                let thread = std::thread::spawn({
                    let (agent, answered) = (agent.clone(), Arc::clone(&answered));
                    move || Caller { shared, agent, caller, answered, sent: Sent::default() }.go_on()
                });
                callers.push((agent, answered, thread));
            }
        }
        Self { shared, callers }
    }

    /// Returns whether each caller has had a response.
    pub(super) fn is_flowing(&self) -> bool {
        self.callers.iter().all(|(_, answered, _)| answered.load(Ordering::Relaxed) >= 10)
    }

    /// Sets the new address of the host.
    pub(super) fn moved(&self, address: &str) {
        address.clone_into(&mut self.shared.address.write().expect("no caller panics with it"));
    }

    /// Stops the callers. Returns the messages sent to each agent.
    pub(super) fn end(self) -> BTreeMap<String, Sent> {
        self.shared.over.store(true, Ordering::Relaxed);
        let mut all: BTreeMap<String, Sent> = BTreeMap::new();
        for (agent, _, thread) in self.callers {
            let sent = thread.join().expect("a caller ends well");
            let of = all.entry(agent).or_default();
            of.done.extend(sent.done);
            of.maybe.extend(sent.maybe);
            of.wrong.extend(sent.wrong);
        }
        all
    }
}

struct Caller {
    shared: Arc<Shared>,
    agent: String,
    caller: usize,
    answered: Arc<AtomicU64>,
    sent: Sent,
}

impl Caller {
    fn go_on(mut self) -> Sent {
        let mut address = String::new();
        let mut client = None;
        for turn in 0.. {
            if self.shared.over.load(Ordering::Relaxed) {
                break;
            }
            let now = self.shared.address.read().expect("nobody panics with it").clone();
            if now != address {
                (client, address) = (Some(Client::new(&now, None)), now);
            }
            let Some(client) = &client else { break };
            self.send(client, "keep", turn, "m");
            // Who waits for an answer sends no faster than the agent handles.
            self.send(client, "ask", turn, "a");
        }
        self.sent
    }

    /// Sends the next message of one of the conversations.
    fn send(&mut self, client: &Client, path: &str, turn: u64, kind: &str) {
        let (talk, round) = (turn % OPEN, turn / OPEN);
        let (generation, n) = (round / LONG, round % LONG);
        let conversation = format!("{}-{kind}{}-{talk}-{generation}", self.agent, self.caller);
        let (id, key) = (self.shared.ids.fetch_add(1, Ordering::Relaxed), format!("{conversation}/{n:06}"));
        let body = json!({ "conversation": conversation, "n": n, "id": id }).to_string();
        let headers = [("caxton-conversation", conversation.as_str())];
        let path = format!("/{}/{path}", self.agent);
        match client.try_send(http::Method::POST, &path, &headers, body) {
            Ok(reply) if reply.status.is_success() => {
                self.sent.done.insert(key);
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            // A call whose handling failed, or that an immediate end broke off, had no effect.
            Ok(reply) if kind == "a" && matches!(reply.status.as_u16(), 500 | 503) => {
                let why = reply.text();
                // A candidate that fails at everything may open the breaker before it is judged.
                let is_open = self.agent == "fails" && why.contains("breaker-open");
                if !is_open && !["trap", "interrupted", "stopp"].iter().any(|known| why.contains(known)) {
                    self.sent.wrong.push(format!("{key}: {} {why}", reply.status));
                }
            }
            Ok(reply) => self.sent.wrong.push(format!("{key}: {} {}", reply.status, reply.text())),
            // The host was killed.
            Err(_) => {
                self.sent.maybe.insert(key);
                pause();
            }
        }
    }
}
