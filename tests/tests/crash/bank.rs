//! The banks, and the expected outcome of a transfer.

use caxton_tests::Client;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

/// The agents.
pub(crate) const BANKS: [&str; 4] = ["bank-a", "bank-b", "bank-c", "bank-d"];
/// The accounts of each bank: few, so that concurrent handlers meet in one account.
const ACCOUNTS: [&str; 3] = ["ann", "bob", "cem"];
/// The opening balance of each account.
const OPENING: i64 = 100_000;
/// The total amount of money.
pub(crate) const PUT_IN: i64 = (BANKS.len() * ACCOUNTS.len()) as i64 * OPENING;

/// The file of a host with the banks.
pub(crate) fn file(store: &str) -> String {
    file_of(&BANKS, store)
}

/// The file of a host with some of them.
pub(crate) fn file_of(banks: &[&str], store: &str) -> String {
    let mut text = format!("caxton = 1\n[store]\n{store}\n");
    for bank in banks {
        text.push_str(&format!(
            r#"
            [agents.{bank}]
            component = "GUEST(bank)"
            instances = {{ max = 4 }}
            config = {{ edition = "0" }}
            allow = {{ send = {banks:?} }}
            limits = {{ cpu = "10s", time = "60s", hops = 1000000 }}
            mailbox = {{ depth = 100000, attempts = 3, backoff = {{ first = "100ms" }} }}
            breaker = {{ faults = 100, reset = "5s" }}
            [[agents.{bank}.http]]
            route = "/{bank}"
            mode = "enqueue"
            [[agents.{bank}.http]]
            route = "/{bank}/now"
            "#
        ));
    }
    text
}

/// The same file with another configuration, so that every bank has to have another revision.
pub(crate) fn edition(file: &str, number: u64) -> String {
    file.replace(r#"edition = "0""#, &format!(r#"edition = "{number}""#))
}

/// Puts money into every account.
pub(crate) fn open(client: &Client) {
    for bank in BANKS {
        for account in ACCOUNTS {
            let order = json!({ "do": "open", "account": account, "amount": OPENING });
            assert_eq!(client.post(&format!("/{bank}/now"), order.to_string()).status.as_u16(), 200);
        }
    }
}

/// Returns the sum of all accounts, as the banks report it.
pub(crate) fn sum(client: &Client) -> i64 {
    let sum = |bank: &str| client.post(&format!("/{bank}/now"), r#"{"do": "sum"}"#).json()["sum"].as_i64();
    BANKS.iter().map(|bank| sum(bank).expect("a sum")).sum()
}

/// Returns all effect counts, as the banks report them.
pub(crate) fn audit(client: &Client) -> Vec<(String, i64)> {
    let mut seen = Vec::new();
    for bank in BANKS {
        let mut after = Value::Null;
        loop {
            let order = json!({ "do": "audit", "after": after, "limit": 500 });
            let page = client.post(&format!("/{bank}/now"), order.to_string()).json();
            for (key, count) in page["seen"].as_object().expect("a page") {
                seen.push((key.trim_start_matches("seen/").to_owned(), count.as_i64().expect("a count")));
            }
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
        }
    }
    seen.sort();
    seen
}

/// The way in which a handler fails after it has written and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fail {
    /// The first two attempts fail.
    Twice,
    /// The first attempt traps.
    TrapOnce,
    /// Fails at every attempt.
    Always,
    /// The message is refused.
    Reject,
}

impl Fail {
    fn pick(chance: &mut StdRng) -> Option<Self> {
        match chance.random_range(0..100) {
            0..4 => Some(Self::Twice),
            4..6 => Some(Self::TrapOnce),
            6..9 => Some(Self::Always),
            9..11 => Some(Self::Reject),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Twice => "twice",
            Self::TrapOnce => "trap-once",
            Self::Always => "always",
            Self::Reject => "reject",
        }
    }

    /// Returns whether the message becomes a dead letter.
    fn is_final(self) -> bool {
        match self {
            Self::Twice | Self::TrapOnce => false,
            Self::Always | Self::Reject => true,
        }
    }
}

/// A place where the money of a transfer comes by.
#[derive(Debug, Clone)]
struct Stop {
    bank: &'static str,
    account: &'static str,
    after_ms: Option<u64>,
    priority: Option<&'static str>,
    fail: Option<Fail>,
}

impl Stop {
    fn pick(chance: &mut StdRng) -> Self {
        let priorities = [None, None, Some("low"), Some("high"), Some("critical")];
        Self {
            bank: BANKS.choose(chance).expect("there are banks"),
            account: ACCOUNTS.choose(chance).expect("there are accounts"),
            after_ms: chance.random_bool(0.2).then(|| chance.random_range(10..500)),
            priority: *priorities.choose(chance).expect("there are priorities"),
            fail: Fail::pick(chance),
        }
    }

    fn json(&self) -> Value {
        json!({
            "agent": self.bank, "account": self.account, "after-ms": self.after_ms,
            "priority": self.priority, "fail": self.fail.map(Fail::name),
        })
    }
}

/// A transfer that a client asks for.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    /// An identifier that is unique in a run.
    pub(crate) id: String,
    /// The position in its conversation.
    order: Option<u64>,
    /// The conversation that it is sent in; none for one of its own.
    conversation: Option<String>,
    /// The idempotency key.
    pub(crate) key: Option<String>,
    bank: &'static str,
    from: &'static str,
    amount: i64,
    fail: Option<Fail>,
    stops: Vec<Stop>,
    /// The bytes that its request has beside. A large one is written in pieces before its commit.
    pad: usize,
}

impl Transfer {
    /// Picks a random transfer, which `who` sends as its transfer of this number.
    pub(crate) fn pick(chance: &mut StdRng, who: &str, number: u64) -> Self {
        let ordered = chance.random_bool(0.3);
        let stops = chance.random_range(1..=4);
        Self {
            id: format!("{who}-{number}"),
            order: ordered.then_some(number),
            conversation: ordered.then(|| who.to_owned()),
            key: chance.random_bool(0.4).then(|| format!("key-{who}-{number}")),
            // Only what comes to one bank is in one order.
            bank: if ordered { BANKS[0] } else { BANKS.choose(chance).expect("there are banks") },
            from: ACCOUNTS.choose(chance).expect("there are accounts"),
            amount: chance.random_range(1..100),
            fail: Fail::pick(chance),
            stops: (0..stops).map(|_| Stop::pick(chance)).collect(),
            pad: if chance.random_bool(0.1) { chance.random_range(50_000..200_000) } else { 0 },
        }
    }

    /// Returns a transfer whose money goes round the banks and back to its first account.
    pub(crate) fn round(id: &str, number: u64) -> Self {
        let account = ACCOUNTS[number as usize % ACCOUNTS.len()];
        let stop = |bank| Stop { bank, account, after_ms: None, priority: None, fail: None };
        let stops = BANKS.iter().rev().copied().map(stop).collect();
        let (id, bank) = (id.to_owned(), BANKS[0]);
        Self {
            id,
            order: None,
            conversation: None,
            key: None,
            bank,
            from: account,
            amount: 1,
            fail: None,
            stops,
            pad: 0,
        }
    }

    /// Returns whether it has a position in a conversation.
    pub(crate) fn is_ordered(&self) -> bool {
        self.order.is_some()
    }

    /// The path of the request.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.bank)
    }

    /// The headers of the request.
    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        let conversation = self.conversation.as_deref().map(|name| ("caxton-conversation", name));
        conversation.into_iter().chain(self.key.as_deref().map(|key| ("idempotency-key", key))).collect()
    }

    /// The body of the request. A transfer that goes round the banks is an `inform`, since it would never be answered.
    pub(crate) fn body(&self, laps: u64) -> String {
        let path: Vec<Value> = self.stops.iter().map(Stop::json).collect();
        json!({
            "do": "transfer", "id": self.id, "from": self.from, "amount": self.amount, "path": path,
            "laps": laps, "order": self.order, "fail": self.fail.map(Fail::name), "told": laps > 0,
            "pad": ".".repeat(self.pad),
        })
        .to_string()
    }

    /// Returns the effects of the finished transfer, each of which is seen once, and the one that becomes a dead letter.
    pub(crate) fn effects(&self) -> (Vec<String>, Option<String>) {
        let of = |kind: &str| format!("{}/{kind}", self.id);
        if self.fail.is_some_and(Fail::is_final) {
            return (Vec::new(), Some(of("transfer")));
        }
        let mut seen = vec![of("transfer")];
        let senders = std::iter::once(&self.bank).chain(self.stops.iter().map(|stop| &stop.bank));
        for ((at, stop), sender) in self.stops.iter().enumerate().zip(senders) {
            if stop.fail.is_some_and(Fail::is_final) {
                // What a bank sends to itself is no question, so nobody is told.
                if *sender != stop.bank {
                    seen.push(of(&format!("deposit-{at}-returned")));
                }
                return (seen, Some(of(&format!("deposit-{at}"))));
            }
            seen.push(of(&format!("deposit-{at}")));
        }
        (seen, None)
    }
}
