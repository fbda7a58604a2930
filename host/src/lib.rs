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
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(if std::env::var("CAXTON_LOG").is_ok() { tracing::Level::WARN } else { tracing::Level::INFO }).init();
    let get = |n: &str| args.iter().rposition(|a| a == n).map(|i| args[i + 1].clone());
    let mut flags = vec![];
    for (f, k) in [("--listen", "http.listen"), ("--admin", "admin.listen"), ("--data", "store.path")] {
        if let Some(l) = get(f) { flags.push((k.to_owned(), l)); }
    }
    match host::run(host::UpOptions {
        file: get("-f").unwrap_or("caxton.toml".into()).into(),
        flags,
        build: args.iter().any(|a| a == "--build"),
        watch: args.iter().any(|a| a == "--watch"),
        ports_file: get("--ports-file").map(Into::into),
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
