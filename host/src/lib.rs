//! A host for agents: WebAssembly components with a mailbox and state, declared in one file.
#![allow(dead_code)]

mod admin;
mod agent;
mod build;
mod clock;
mod commons;
mod config;
mod control;
mod events;
mod host;
mod http;
mod logs;
mod metrics;
mod receipts;
mod reconcile;
mod routes;
mod shutdown;
mod status;
mod store;
mod sweep;
mod telemetry;
mod trace;
mod wasm;
mod watch;

/// stub
pub fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("compile-component") {
        return match wasm::compile_child(args[2].as_ref(), args[3].as_ref(), args[4] == "fuel") {
            Ok(()) => 0.into(),
            Err(e) => {
                eprintln!("{e}");
                1.into()
            }
        };
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match host::run(host::UpOptions {
        file: args[1].clone().into(),
        flags: vec![],
        build: false,
        watch: args.get(2).is_some(),
        ports_file: None,
    }) {
        Ok(c) => c,
        Err(host::StartError::Config(e)) => {
            eprintln!("{}", e.plain());
            2.into()
        }
        Err(host::StartError::Other(e)) => {
            eprintln!("{e:#}");
            1.into()
        }
    }
}
