//! The clients that request transfers and remember the responses.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use caxton_tests::{Client, Host};
use http::Method;

use crate::bank::Transfer;
use crate::chance;

/// Clients at once.
const CLIENTS: u64 = 4;
/// The number of earlier requests that a client repeats when it begins.
const REPEATED: usize = 5;

/// The response to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Response {
    /// The connection broke before a response.
    Unknown,
    /// The host has it, under this id.
    Accepted(String),
    /// The host does not have it: 503.
    Refused,
}

/// A transfer that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// The requested transfer.
    pub(crate) transfer: Transfer,
    /// The response to it.
    pub(crate) response: Response,
}

/// The clients of a run, and the record of their requests.
pub(crate) struct Load {
    seed: u64,
    sent: Mutex<Vec<Sent>>,
    accepted: AtomicU64,
    refused: AtomicU64,
    repeated: AtomicU64,
    /// Set if a refusal is an accepted response.
    refusals: bool,
}

/// Clients at work.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Stops the clients after the response that they wait for.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Waits until they have ended: by a stop, or with the host.
    pub(crate) fn join(self) {
        for thread in self.threads {
            thread.join().expect("a client ends with the host");
        }
    }
}

impl Load {
    /// Returns a load without requests.
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Self::with(seed, false)
    }

    /// Returns a load whose clients accept refusals, if `refusals` is set.
    pub(crate) fn with(seed: u64, refusals: bool) -> Arc<Self> {
        Arc::new(Self {
            seed,
            sent: Mutex::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            refusals,
        })
    }

    /// Transfers that the host said it has.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Transfers that the host refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// Requests that were made once more.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::SeqCst)
    }

    /// Returns all requests with their responses.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().expect("no client panics here").clone()
    }

    /// Starts clients that send requests until they are stopped or the host ends.
    pub(crate) fn start(self: &Arc<Self>, host: &Host, round: u64) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = |number| {
            let (load, stop, address) = (Arc::clone(self), Arc::clone(&stop), host.http.clone());
            std::thread::spawn(move || load.run(&Client::new(&address, None), round, number, &stop))
        };
        let threads = (0..CLIENTS).map(thread).collect();
        Clients { stop, threads }
    }

    fn run(&self, client: &Client, round: u64, number: u64, stop: &AtomicBool) {
        let mut chance = chance(self.seed, round, number);
        let who = format!("s{}r{round}c{number}", self.seed);
        let of_before = |(index, sent): (usize, &Sent)| {
            (sent.transfer.key.is_some() && index as u64 % CLIENTS == number).then_some(index)
        };
        let before: Vec<usize> =
            self.sent.lock().expect("no client panics here").iter().enumerate().filter_map(of_before).collect();
        for index in before.into_iter().rev().take(REPEATED) {
            if !self.repeat(client, index) {
                return;
            }
        }
        for count in 0.. {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let transfer = Transfer::pick(&mut chance, &who, count);
            let index = {
                let mut sent = self.sent.lock().expect("no client panics here");
                sent.push(Sent { transfer: transfer.clone(), response: Response::Unknown });
                sent.len() - 1
            };
            let response = self.ask(client, &transfer);
            let broke = response == Response::Unknown;
            self.record(index, response);
            if broke {
                return;
            }
        }
    }

    fn ask(&self, client: &Client, transfer: &Transfer) -> Response {
        match client.try_send(Method::POST, &transfer.path(), &transfer.headers(), transfer.body(0)) {
            Err(_) => Response::Unknown,
            Ok(reply) if reply.status.as_u16() == 202 => {
                Response::Accepted(reply.json()["id"].as_str().expect("an id").to_owned())
            }
            Ok(reply) => {
                assert_eq!((reply.status.as_u16(), self.refusals), (503, true), "{}", reply.text());
                // The disk is full, or the host is about to end.
                let code = reply.json()["code"].as_str().unwrap_or_default().to_owned();
                assert!(["not-kept", "unavailable"].contains(&code.as_str()), "{}", reply.text());
                Response::Refused
            }
        }
    }

    fn record(&self, index: usize, response: Response) {
        match &response {
            Response::Unknown => {}
            Response::Accepted(_) => drop(self.accepted.fetch_add(1, Ordering::SeqCst)),
            Response::Refused => drop(self.refused.fetch_add(1, Ordering::SeqCst)),
        }
        self.sent.lock().expect("no client panics here")[index].response = response;
    }

    /// Asks once more with the same key: the same message is meant. False when the connection broke.
    pub(crate) fn repeat(&self, client: &Client, index: usize) -> bool {
        let Sent { transfer, response } = self.sent.lock().expect("no client panics here")[index].clone();
        if response == Response::Refused && transfer.is_ordered() {
            // Those after it are there; now it would come too late.
            return true;
        }
        let again = self.ask(client, &transfer);
        if again != Response::Unknown {
            self.repeated.fetch_add(1, Ordering::SeqCst);
        }
        match (&response, &again) {
            (_, Response::Unknown) => return false,
            (Response::Accepted(first), Response::Accepted(second)) => {
                assert_eq!(first, second, "seed {}: {} became two messages", self.seed, transfer.id);
            }
            (_, Response::Refused) => {}
            (Response::Unknown | Response::Refused, Response::Accepted(_)) => self.record(index, again),
        }
        true
    }

    /// Repeats every request that has a key.
    pub(crate) fn repeat_all(&self, client: &Client) {
        for (index, sent) in self.sent().iter().enumerate() {
            if sent.transfer.key.is_some() {
                assert!(self.repeat(client, index), "the host runs");
            }
        }
    }
}
