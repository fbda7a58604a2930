//! The parts that the benches of the whole program share: servers as processes, and a load for them.

mod client;
mod load;
mod nats;
mod outgoing;
mod plain;
mod relay;
mod server;

pub use client::{agent, call, command, delivery_p99, exchange, get_json, handled, pause, response};
pub use load::{Load, Request, drive};
pub use nats::jetstream;
pub use outgoing::{bare_client, guests_calling};
pub use plain::{plain_batches, plain_single};
pub use relay::{chains, order, pairs, relays};
pub use server::{Server, bare_hyper, build_guests, guest, host, host_with, wasmtime_serve};

/// Sorts some figures and returns the median; NaN if there are none.
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
