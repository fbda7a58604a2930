//! The loading of programs: from those in use, from the cache, or by compiling.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::Digest;
use caxton_control::memory::MemoryPriority;
use tokio::io::AsyncWriteExt;

use crate::memory_budget::{MemoryKind, MemoryShortage, Reservation};
use crate::wasm::bindings::{handler, health, incoming_handler, migration, service_handler, snapshot};
use crate::wasm::call::symbols::Symbols;
use crate::wasm::compat::{self, messaging::BrokerIndex};
use crate::wasm::compile::child::{self, ChildTask};
use crate::wasm::compile::engine_kind::EngineKind;
use crate::wasm::compile::program::{Program, ProgramError};
use crate::wasm::compile::runtime::Runtime;
use crate::wasm::digest;
use crate::wasm::inspect::{Kind, outline};
use crate::wasm::service::candidate;

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
        // Hashing and scanning a large component takes longer than a worker of the runtime should be blocked.
        let (bytes, summary) = tokio::task::spawn_blocking(move || {
            if digest(&bytes) != expected {
                return Err(ProgramError::Changed);
            }
            let summary = outline(&bytes).map_err(ProgramError::Findings)?;
            let bytes = if summary.is_of_candidate() {
                candidate::renamed(&bytes).map_err(|error| ProgramError::Compile(error.to_string()))?
            } else {
                bytes
            };
            Ok((bytes, summary))
        })
        .await
        .expect("looking at bytes does not panic")?;
        let kind = EngineKind::of(fuel, summary.service);
        let component = self.component(&bytes, expected, kind, started).await?;
        // Linked here and not at each start: an import that does not fit is a fault of the component, found once.
        let compiled = self.compiled(kind)?;
        let of_candidate = summary.is_of_candidate();
        let fit = |error: wasmtime::Error| {
            let error = format!("{error:#}");
            if of_candidate {
                // Here the types of the candidate are compared with those of the version.
                ProgramError::Findings(vec![candidate::differs(&error)])
            } else {
                ProgramError::Link(error)
            }
        };
        let pre = compat::link(&compiled.linker, &component).map_err(fit)?;
        // Exports are looked up by name here. Their types are checked when an instance starts.
        let (kind, brokered, service) = (summary.kind, summary.is_brokered, summary.service);
        let (messages, stateful) = (kind.takes_messages() && !brokered, kind == Kind::Stateful);
        let http = kind.answers_http() && !service;
        let program = Arc::new(Program {
            handler: messages.then(|| handler::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            broker: brokered.then(|| BrokerIndex::find(&component)).transpose().map_err(fit)?,
            http: http.then(|| incoming_handler::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            service: service.then(|| service_handler::GuestIndices::new(&pre)).transpose().map_err(fit)?,
            permits: compiled.permits.clone(),
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
        kind: EngineKind,
        started: impl FnOnce(u64),
    ) -> Result<wasmtime::component::Component, ProgramError> {
        let engine = &self.compiled(kind)?.engine;
        let path = self.artefacts.path(digest, engine);
        if let Some(component) = tokio::task::block_in_place(|| self.artefacts.find(engine, &path)) {
            return Ok(component);
        }
        // Before the wait for a turn, which is part of the time that the operator sees pass.
        started(bytes.len() as u64);
        // One for each core, because a compiler process uses all cores it can get.
        let _turn = self.compiling.acquire().await.expect("the semaphore is never closed");
        let _held = self.memory_for_compiler(bytes.len()).await;
        // In the artefacts' folder, so that the rename stays within one file system.
        let (input, output) = (self.artefacts.temporary(), self.artefacts.temporary());
        let compiled = async {
            // The child reads a copy that no other process can change.
            write_new(&input, bytes).await.map_err(ProgramError::Read)?;
            child::run(&self.artefacts.compiler, &input, ChildTask::Compile { output: &output, kind }).await?;
            tokio::task::block_in_place(|| self.artefacts.keep(&output, &path)).map_err(ProgramError::Read)
        }
        .await;
        // Files that a failed compiler has left.
        let _ = tokio::fs::remove_file(&input).await;
        let _ = tokio::fs::remove_file(&output).await;
        compiled?;
        // Loaded by the way of a stored artefact, so that a seal that does not match is found now.
        tokio::task::block_in_place(|| self.artefacts.load(engine, &path))
            .map_err(|why| ProgramError::Compile(format!("what was compiled cannot be loaded: {why}")))
    }
}

impl Runtime {
    /// Reserves memory for a compiler of so many bytes, by what compilers of real components take. Waits until there is
    /// some: where memory is short, one compiles after the other.
    async fn memory_for_compiler(&self, component: usize) -> Reservation {
        let estimate = COMPILER_BYTES + component as u64 * COMPILER_SHARE;
        // Never more than the largest part that can be had, or it would wait for ever.
        let most = MemoryPriority::Copies.ceiling(self.memory.limit());
        let bytes = estimate.min(most / 2);
        loop {
            let by = Instant::now() + Duration::from_secs(60);
            match self.memory.reserve(MemoryKind::Compilation, bytes, MemoryPriority::Instances, by).await {
                Ok(held) => return held,
                Err(MemoryShortage) => tracing::warn!("a compilation waits for memory of the host (host.memory)"),
            }
        }
    }
}

/// The memory of a compiler: for the smallest component, and for each byte of one. The largest real ones (18 MB) take
/// about 1 GB.
const COMPILER_BYTES: u64 = 32 << 20;
const COMPILER_SHARE: u64 = 56;

/// Writes a file that is not there yet, for its owner alone.
pub(in crate::wasm) async fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // New: a name that is there could be a link to another file.
    let mut file = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await?;
    file.write_all(bytes).await?;
    // Dropped before that, a file of tokio may still be writing.
    file.flush().await
}
