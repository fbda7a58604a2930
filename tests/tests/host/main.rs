//! A running host with real components, over real sockets.
//!
//! | trap of predecessors (SPEC §10) | shown not to be here by |
//! |---|---|
//! | 1 a drain that sleeps | `reload::a_drain_ends_when_the_last_call_does` |
//! | 2 limits checked by name | `limits` (every test calls the guest) |
//! | 3 invented statistics | `agents::what_is_counted_is_what_happened`, `store::what_is_measured_happened_and_rates_fall_to_nothing` |
//! | 4 ok for what nobody received | `limits::a_full_mailbox_refuses`, `agents::enqueued_messages_are_handled` |
//! | 5 security by constant | the engine's tests of artefacts, `host/src/wasm/tests` |
//! | 6 a snapshot under the wrong revision | `stateful::a_new_revision_takes_up_what_the_old_one_kept` |
//! | 7 triggers that nothing feeds | `judged`, and for comparisons `trials` |
//! | 8 bookkeeping | `reload::a_reload_that_fails_harms_nobody` |
//! | 9 settings read by nothing | `host/control/tests/config.rs` |
//!
//! 10 is of moves between machines, which this program does not have.

mod agents;
mod api;
mod applications;
mod bounds;
mod broken;
mod builds;
mod callers;
mod candidates;
mod chains;
mod clock;
mod conversations;
mod crowded;
mod dead;
mod deaths;
mod declared;
mod durable;
mod environment;
mod expiring;
mod files;
mod folder;
mod formats;
mod growth;
mod handoffs;
mod http;
mod http_agents;
mod isolation;
mod judged;
mod limits;
mod messages;
mod notices;
mod once;
mod output;
mod outside;
mod passed_over;
mod poison;
mod questions;
mod readme;
mod reload;
mod removals;
mod rollouts;
mod saga;
mod shapes;
mod snapshots;
mod spreading;
mod start;
mod stateful;
mod status;
mod sticky;
mod stops;
mod store;
mod systemd;
mod timers;
mod told;
mod trials;
mod upgrade;
mod web;
mod words;

/// The pages of the documentation.
#[path = "../../../host/tests/pages/mod.rs"]
mod pages;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use caxton_tests::{Client, Host};

/// The host as users have it.
const BINARY: &str = env!("CARGO_BIN_EXE_caxton-under-test");

/// Starts a host whose file has this text after `caxton = 1`.
fn host(toml: &str) -> Host {
    Host::start(BINARY, &file(toml))
}

fn file(toml: &str) -> String {
    format!("caxton = 1\n{toml}")
}

/// An agent of a guest, called at `/NAME`.
fn agent(name: &str, guest: &str, more: &str) -> String {
    format!("[agents.{name}]\ncomponent = \"GUEST({guest})\"\n{more}\n[[agents.{name}.http]]\nroute = \"/{name}\"\n")
}

/// Whether an agent has its only message in hand, or is done with it by now: on a busy machine it may be handled between
/// two looks.
fn in_hand(status: &serde_json::Value) -> bool {
    status["in_flight"] == 1 || status["handled"] == 1
}

/// The value of a metric whose line begins so; 0 if there is none.
fn metric(host: &Host, line: &str) -> u64 {
    let text = Client::new(&host.admin, None).get("/metrics").text();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0)
}

/// How many write at once.
const WRITERS: u64 = 4;

/// Callers of `/counter`, each in a thread, from now until the host ends.
struct Writers {
    counted: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(host: &Host) -> Self {
        let counted = Arc::new(AtomicU64::new(0));
        let write = |_| {
            let (address, counted) = (host.http.clone(), Arc::clone(&counted));
            std::thread::spawn(move || {
                let client = Client::new(&address, None);
                while let Ok(reply) = client.try_send(::http::Method::POST, "/counter", &[], "") {
                    if reply.status.as_u16() == 200 {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        };
        let threads = (0..WRITERS).map(write).collect();
        Self { counted, threads }
    }

    /// Writes that were acknowledged by now. As many as there are writers may have been made beside.
    fn acknowledged(&self) -> u64 {
        self.counted.load(Ordering::SeqCst)
    }

    /// Waits for their end, which comes with that of the host; gives the writes that were acknowledged.
    fn join(self) -> u64 {
        for thread in self.threads {
            thread.join().expect("a writer ends with the host");
        }
        self.counted.load(Ordering::SeqCst)
    }
}
