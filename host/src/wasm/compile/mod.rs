//! The way from the bytes of a component to a program: compilation in a child process, the cache on disk, the engines.

pub(super) mod artefact;
mod artefact_eviction;
pub(super) mod child;
pub(super) mod engine;
pub(super) mod engine_kind;
mod inspection;
pub(super) mod program;
mod programs;
pub(super) mod runtime;
