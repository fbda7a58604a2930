//! A compiled component, ready to be instantiated; shared by all agents with the same bytes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use caxton_control::Digest;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use wasmtime::component::InstancePre;

use super::bindings::{handler, health, incoming_handler, snapshot};
use super::compile;
use super::engine::{Runtime, RuntimeError};
use super::guest::Ctx;
use super::inspect::{Finding, Kind, Summary, summarise};
use super::symbols::Symbols;

/// A compiled component with its functions looked up.
pub(crate) struct Program {
    /// What it is.
    pub(crate) summary: Summary,
    /// Places in its source, for backtraces.
    pub(super) symbols: Symbols,
    pub(super) pre: InstancePre<Ctx>,
    pub(super) handler: Option<handler::GuestIndices>,
    pub(super) http: Option<incoming_handler::GuestIndices>,
    pub(super) snapshot: Option<snapshot::GuestIndices>,
    pub(super) health: Option<health::GuestIndices>,
}

/// Why a component cannot become a program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// Its file cannot be read.
    #[error("reading the component: {0}")]
    Read(std::io::Error),
    /// Its file holds other bytes than those that were asked for.
    #[error("the component's file changed meanwhile")]
    Changed,
    /// It is not what it has to be.
    #[error("the component cannot be used: {}", list(.0))]
    Findings(Vec<Finding>),
    /// It could not be compiled.
    #[error("compiling the component: {0}")]
    Compile(String),
    /// What it imports or exports has other types than this host's.
    #[error("the component does not fit this host: {0}")]
    Link(String),
    /// The engine that it needs could not be set up.
    #[error(transparent)]
    Engine(#[from] RuntimeError),
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// One entry for each component that is being made or in use.
type Slot = Arc<tokio::sync::Mutex<Weak<Program>>>;
/// The programs by digest and kind of engine.
pub(super) type Programs = Mutex<HashMap<(Digest, bool), Slot>>;

/// The SHA-256 of bytes.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

impl Runtime {
    /// The program of a component's bytes: the one in use, or from the cache, or compiled now. `started`
    /// hears when compiling begins, because that takes long.
    pub(crate) async fn program(
        &self,
        path: &Path,
        expected: Digest,
        fuel: bool,
        started: impl FnOnce(u64),
    ) -> Result<Arc<Program>, ProgramError> {
        let slot = Arc::clone(self.programs.lock().entry((expected, fuel)).or_default());
        // Whoever comes second waits here for the work of the first.
        let mut slot = slot.lock().await;
        if let Some(program) = slot.upgrade() {
            return Ok(program);
        }
        let bytes = tokio::fs::read(path).await.map_err(ProgramError::Read)?;
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
        // What it exports in name has to be there in full; types are compared when an instance starts.
        let (messages, stateful) = (summary.kind != Kind::Http, summary.kind == Kind::Stateful);
        let program = Arc::new(Program {
            handler: messages.then(|| handler::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            http: (!messages).then(|| incoming_handler::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            snapshot: stateful.then(|| snapshot::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            health: summary.health.then(|| health::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            symbols: if summary.dwarf { Symbols::of(path.to_owned(), expected) } else { Symbols::default() },
            summary,
            pre,
        });
        *slot = Arc::downgrade(&program);
        Ok(program)
    }

    /// The compiled component, from the cache or from the compiler.
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
        // As many at once as there are cores: each uses all of them.
        let _turn = self.compiling.acquire().await.expect("the semaphore is never closed");
        let (input, output) = (self.artefacts.temporary(), self.artefacts.temporary());
        let compiled = async {
            // The child reads a copy that nobody else can change.
            tokio::fs::write(&input, bytes).await.map_err(ProgramError::Read)?;
            compile::compile(&self.artefacts.compiler, &input, &output, fuel).await?;
            tokio::task::block_in_place(|| self.artefacts.keep(&output, &path)).map_err(ProgramError::Read)
        }
        .await;
        // What a failed compiler leaves behind.
        let _ = tokio::fs::remove_file(&input).await;
        let _ = tokio::fs::remove_file(&output).await;
        compiled?;
        tokio::task::block_in_place(|| self.artefacts.load(engine, &path))
            .map_err(|why| ProgramError::Compile(format!("what was compiled cannot be loaded: {why}")))
    }
}
