//! Programs: compiled components ready to be instantiated, shared by all agents with the same bytes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use caxton_control::Digest;
use caxton_control::inspection::Finding;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::component::InstancePre;

use crate::wasm::bindings::{handler, health, incoming_handler, migration, service_handler, snapshot};
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::symbols::Symbols;
use crate::wasm::compat::messaging::BrokerIndex;
use crate::wasm::compile::engine::RuntimeError;
use crate::wasm::inspect::Summary;

/// A compiled component with its exports looked up.
pub(crate) struct Program {
    /// The kind and the properties of the component.
    pub(crate) summary: Summary,
    /// Places in its source, for backtraces.
    pub(in crate::wasm) symbols: Symbols,
    pub(in crate::wasm) pre: InstancePre<Ctx>,
    pub(in crate::wasm) handler: Option<handler::GuestIndices>,
    pub(in crate::wasm) broker: Option<BrokerIndex>,
    pub(in crate::wasm) http: Option<incoming_handler::GuestIndices>,
    pub(in crate::wasm) service: Option<service_handler::GuestIndices>,
    /// The permits for instances of its engine, if that has fewer than the host has slots.
    pub(in crate::wasm) permits: Option<Arc<Semaphore>>,
    pub(in crate::wasm) snapshot: Option<snapshot::GuestIndices>,
    pub(in crate::wasm) health: Option<health::GuestIndices>,
    pub(in crate::wasm) migration: Option<migration::GuestIndices>,
}

/// The error of loading a program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// The component's file cannot be read.
    #[error("reading the component: {0}")]
    Read(std::io::Error),
    /// The file has another digest than expected.
    #[error("the component's file changed meanwhile")]
    Changed,
    /// The component cannot be used.
    #[error("the component cannot be used: {}", list(.0))]
    Findings(Vec<Finding>),
    /// The compiler failed.
    #[error("compiling the component: {0}")]
    Compile(String),
    /// The types of its imports or exports differ from the host's.
    #[error("the component does not fit this host: {0}")]
    Link(String),
    /// The engine that it needs could not be created.
    #[error(transparent)]
    Engine(#[from] RuntimeError),
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The entry of a component that is being loaded or in use. The lock lets one caller load it.
type Slot = Arc<tokio::sync::Mutex<Weak<Program>>>;
/// The programs by digest; the second part of the key is `true` if their engine counts fuel.
pub(in crate::wasm) type Programs = Mutex<HashMap<(Digest, bool), Slot>>;

/// The results of looking at proposals, by digest and list.
// Agents share components, and each look is a process of its own.
pub(in crate::wasm) type KnownFeatures = Mutex<HashMap<(Digest, BTreeSet<&'static str>), Vec<Finding>>>;
