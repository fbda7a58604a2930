//! A host for agents: WebAssembly components with a mailbox and state, declared in one file.
#![allow(dead_code)]

mod agent;
mod clock;
mod commons;
mod config;
mod control;
mod events;
mod http;
mod logs;
mod receipts;
mod routes;
mod status;
mod store;
mod trace;
mod wasm;
