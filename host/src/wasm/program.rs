//! Programs: compiled components ready to be instantiated, shared by all agents with the same bytes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use caxton_control::Digest;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use wasmtime::component::InstancePre;

use super::bindings::{handler, health, incoming_handler, migration, snapshot};
use super::compile;
use super::engine::{Runtime, RuntimeError};
use super::guest::Ctx;
use super::inspect::{Finding, Kind, Summary, summarise};
use super::symbols::Symbols;

/// A compiled component with its exports looked up.
pub(crate) struct Program {
    /// The kind and the properties of the component.
    pub(crate) summary: Summary,
    /// Places in its source, for backtraces.
    pub(super) symbols: Symbols,
    pub(super) pre: InstancePre<Ctx>,
    pub(super) handler: Option<handler::GuestIndices>,
    pub(super) http: Option<incoming_handler::GuestIndices>,
    pub(super) snapshot: Option<snapshot::GuestIndices>,
    pub(super) health: Option<health::GuestIndices>,
    pub(super) migration: Option<migration::GuestIndices>,
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
/// The programs by digest, and by whether their engine counts fuel.
pub(super) type Programs = Mutex<HashMap<(Digest, bool), Slot>>;

/// Returns the SHA-256 of bytes.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

impl Runtime {
    /// Returns the program of a component: the one in use, one from the cache, or a newly compiled one. `started` is
    /// called with the size in bytes when compilation begins, because it may take long.
    pub(crate) async fn program(
        &self,
        path: &Path,
        expected: Digest,
        fuel: bool,
        started: impl FnOnce(u64),
    ) -> Result<Arc<Program>, ProgramError> {
        // The map's lock is released at once: loading another component must not wait for this one.
        let slot = Arc::clone(self.programs.lock().entry((expected, fuel)).or_default());
        // Concurrent callers wait here for the first one's work.
        let mut slot = slot.lock().await;
        if let Some(program) = slot.upgrade() {
            return Ok(program);
        }
        let bytes = tokio::fs::read(path).await.map_err(ProgramError::Read)?;
        // Hashing and validating a large component takes longer than a worker of the runtime should be blocked.
        let (bytes, summary) = tokio::task::spawn_blocking(move || {
            if digest(&bytes) != expected {
                return Err(ProgramError::Changed);
            }
            let summary = summarise(&bytes).map_err(ProgramError::Findings)?;
            Ok((bytes, summary))
        })
        .await
        .expect("looking at bytes does not panic")?;
        let component = self.component(&bytes, expected, fuel, started).await?;
        let compiled = self.compiled(fuel)?;
        let fit = |error: wasmtime::Error| ProgramError::Link(format!("{error:#}"));
        let pre = compiled.linker.instantiate_pre(&component).map_err(fit)?;
        // Exports are looked up by name here. Their types are checked when an instance starts.
        let (messages, stateful) = (summary.kind != Kind::Http, summary.kind == Kind::Stateful);
        let program = Arc::new(Program {
            handler: messages.then(|| handler::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            http: (!messages).then(|| incoming_handler::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            snapshot: stateful.then(|| snapshot::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            health: summary.health.then(|| health::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            migration: summary.migrates.then(|| migration::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            symbols: if summary.dwarf { Symbols::of(path.to_owned(), expected) } else { Symbols::default() },
            summary,
            pre,
        });
        // Weak: a program lives as long as a revision uses it.
        *slot = Arc::downgrade(&program);
        Ok(program)
    }

    /// Returns the compiled component from the cache or from the compiler.
    async fn component(
        &self,
        bytes: &[u8],
        digest: Digest,
        fuel: bool,
        started: impl FnOnce(u64),
    ) -> Result<wasmtime::component::Component, ProgramError> {
        let engine = &self.compiled(fuel)?.engine;
        let path = self.artefacts.path(digest, engine);
        if let Some(component) = tokio::task::block_in_place(|| self.artefacts.find(engine, &path)) {
            return Ok(component);
        }
        started(bytes.len() as u64);
        // One for each core, because a compiler process uses all cores it can get.
        let _turn = self.compiling.acquire().await.expect("the semaphore is never closed");
        let (input, output) = (self.artefacts.temporary(), self.artefacts.temporary());
        let compiled = async {
            // The child reads a copy that no other process can change.
            tokio::fs::write(&input, bytes).await.map_err(ProgramError::Read)?;
            compile::compile(&self.artefacts.compiler, &input, &output, fuel).await?;
            tokio::task::block_in_place(|| self.artefacts.keep(&output, &path)).map_err(ProgramError::Read)
        }
        .await;
        // Files that a failed compiler has left.
        let _ = tokio::fs::remove_file(&input).await;
        let _ = tokio::fs::remove_file(&output).await;
        compiled?;
        tokio::task::block_in_place(|| self.artefacts.load(engine, &path))
            .map_err(|why| ProgramError::Compile(format!("what was compiled cannot be loaded: {why}")))
    }
}
