//! A host for agents: WebAssembly components with a mailbox and state, declared in one file.

mod admin;
mod agent;
mod buckets;
mod build;
mod cli;
mod clock;
mod commons;
mod config;
mod control;
mod events;
mod figures;
mod histogram;
mod host;
mod http;
mod listener;
mod logs;
mod metrics;
mod prefetch;
mod receipts;
mod reconcile;
mod routes;
mod schedules;
mod seam;
mod shutdown;
mod stamp;
mod status;
mod store;
mod sweep;
mod systemd;
mod tasks;
mod telemetry;
mod timers;
mod trace;
mod wasm;
mod watch;

#[cfg(test)]
#[path = "../tests/pages/mod.rs"]
mod pages;

/// Messages are many small allocations, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The same for tests of a running host, which may set its clock and let its tasks die.
#[doc(hidden)]
pub fn main_under_test() -> std::process::ExitCode {
    seam::listen();
    cli::main()
}

/// What the program `caxton` does. A program with this as its `main` is also its own compiler of components: it runs
/// itself for that.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
