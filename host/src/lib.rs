//! A host for agents: WebAssembly components with a mailbox and state, declared in one file.

mod access;
mod admin;
mod agent;
mod api_types;
mod bounds;
mod budgets;
mod cli;
mod clock;
mod config;
mod context;
mod conversation;
mod directory;
mod events;
mod folders;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod host;
mod http;
mod logs;
mod memory_budget;
mod message;
mod net;
mod outgoing;
mod problem;
mod reconcile;
mod secrets;
mod shell;
mod store;
mod systemd;
mod tasks;
mod telemetry;
mod test_hooks;
mod wasm;

#[cfg(test)]
#[path = "../tests/pages/mod.rs"]
mod pages;

#[cfg(test)]
#[path = "../tests/mutation/mod.rs"]
mod mutation;

/// The allocator of the program. Messages are many small allocations, made on one thread and freed on another, which
/// the system's allocator handles poorly.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs the program for tests of a running host, which may set its clock and let its tasks die.
#[doc(hidden)]
pub fn main_under_test() -> std::process::ExitCode {
    test_hooks::listen();
    cli::main()
}

/// Runs the program `caxton`. A program with this as its `main` is also its own compiler of components: it starts itself
/// for that.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
