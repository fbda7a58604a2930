//! A running host with real components, over real sockets.
//!
//! | trap of predecessors (SPEC §10) | shown not to be here by |
//! |---|---|
//! | 1 a drain that sleeps | `reload::a_drain_ends_when_the_last_call_does` |
//! | 2 limits checked by name | `limits` (every test calls the guest) |
//! | 3 invented statistics | `agents::counters_match_the_handled_messages`, `store::statistics_match_the_load_and_rates_fall_to_zero` |
//! | 4 ok for what nobody received | `limits::a_full_mailbox_refuses`, `agents::enqueued_messages_are_handled` |
//! | 5 security by constant | the engine's tests of artefacts, `host/src/wasm/tests` |
//! | 6 a snapshot under the wrong revision | `stateful::a_new_revision_restores_the_memory_of_the_old_one` |
//! | 7 triggers that nothing feeds | `rollout_analysis`, and for comparisons `shadowing` |
//! | 8 bookkeeping | `reload::a_failed_reload_changes_nothing` |
//! | 9 settings read by nothing | `host/control/tests/config.rs` |
//!
//! 10 is of moves between machines, which this program does not have.

mod access;
mod admin_tls;
mod agents;
mod api;
mod applications;
mod assistant;
mod authority;
mod budgets;
mod builds;
mod capability_routing;
mod clock_changes;
mod connection_bounds;
mod contention;
mod conversations;
mod data_folder;
mod data_upgrade;
mod dead_letter_notices;
mod dead_letters;
mod demo;
mod diagnostics;
mod durability;
mod environment;
mod fairness;
mod fallback;
mod file_cleanup;
mod file_watching;
mod full_disk;
mod granted_files;
mod handoff_kills;
mod host_memory;
mod hostile_guests;
mod hostile_inputs;
mod http;
mod http1_conformance;
mod http2_bounds;
mod http2_conformance;
mod http_agents;
mod http_clients;
mod http_mapping;
mod http_streams;
mod instance_reuse;
mod isolation;
mod key_expiry;
mod late_effects;
mod limit_independence;
mod limits;
mod malformed_inputs;
mod memory_commits;
mod memory_shortage;
mod message_chains;
mod messages;
mod migrations;
mod open_connections;
mod operator_texts;
mod other_hosts;
mod outgoing;
mod output;
mod poison_messages;
mod policy;
mod probes_and_cors;
mod questions;
mod readme;
mod refused_declarations;
mod reload;
mod removals;
mod rollout_analysis;
mod rollout_events;
mod rollout_matrix;
mod rollouts;
mod route_access;
mod saga;
mod secrets;
mod services;
mod shadowing;
mod snapshots;
mod startup;
mod stateful;
mod sticky_conversations;
mod store;
mod store_bounds;
mod systemd;
mod task_failures;
mod tcp_connections;
mod text_bounds;
mod timers;
mod tls;
mod two_faces;
mod undo_rehearsals;
mod wasi_http;

/// The pages of the documentation.
#[path = "../../../host/tests/pages/mod.rs"]
mod pages;

/// The generator of malformed inputs.
#[path = "../../../host/tests/mutation/mod.rs"]
mod mutation;

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

/// Returns whether an agent has its only message in hand, or has handled it: on a busy machine that may happen between
/// two samples.
fn in_hand(status: &serde_json::Value) -> bool {
    status["in_flight"] == 1 || status["handled"] == 1
}

/// The value of a metric whose line begins so; 0 if there is none.
fn metric(host: &Host, line: &str) -> u64 {
    let text = Client::new(&host.admin, None).get("/metrics").text();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0)
}

/// The number of concurrent writers.
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

    /// Waits for their end, which comes with that of the host. Returns the number of acknowledged writes.
    fn join(self) -> u64 {
        for thread in self.threads {
            thread.join().expect("a writer ends with the host");
        }
        self.counted.load(Ordering::SeqCst)
    }
}
