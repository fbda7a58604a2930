//! Agents of WASI 0.3: components that export `wasi:http/handler@0.3.x`, the world `wasi:http/service`.
//!
//! ```text
//! component -> names of the release candidate become those of 0.3.0 -> an engine with concurrency -> Program
//! request -> handle returns the head -> commit -> the guest's tasks write the body, polled by its reader -> end
//! ```
//! Their engine runs several tasks of a guest in one store. One call has an instance to itself all the same: the limits,
//! the effects and what an agent is charged for are those of a call, and the engine cannot end one task of several. What
//! a guest asks of the host goes the same ways as with WASI 0.2: the linker here defines other forms of them.

mod answer_body;
pub(super) mod candidate;
mod client;
mod handle;
pub(super) mod linker;
pub(super) mod offered;
mod supply;
