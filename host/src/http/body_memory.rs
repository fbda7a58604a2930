//! The memory of the host that bodies take.

use std::time::Duration;

use bytes::Bytes;
use caxton_control::memory::MemoryPriority;

use crate::memory_budget::{MemoryBudget, MemoryKind, Reservation};
use crate::wasm::BodyError;

/// The largest body that is not counted by itself.
pub(super) const SMALL_BODY: usize = 4 << 10;
/// The time for which a request waits for memory of the host before it is refused. Short beside the time that a call may
/// take, so that the client learns why.
pub(super) const MEMORY_PATIENCE: Duration = Duration::from_secs(2);

/// A body that was read as a whole.
pub(super) struct CollectedBody {
    pub(super) bytes: Vec<u8>,
    /// The memory that it takes, unless it is small.
    pub(super) held: Option<Reservation>,
}

/// Counts so many bytes of a body. Waits a little if there is no room.
pub(super) async fn hold(memory: &MemoryBudget, held: &mut Option<Reservation>, bytes: usize) -> Result<(), BodyError> {
    // Small ones are part of what each connection is counted with.
    if bytes <= SMALL_BODY {
        return Ok(());
    }
    let held = held.get_or_insert_with(|| memory.empty(MemoryKind::Bodies));
    let more = (bytes as u64).saturating_sub(held.bytes());
    let deadline = std::time::Instant::now() + MEMORY_PATIENCE;
    // Boxed, as the future would be part of that of every call, and most bodies are small.
    Box::pin(held.grow(more, MemoryPriority::Calls, deadline)).await.map_err(BodyError::NotHeld)
}

/// Appends a piece to a body of an announced length.
pub(super) async fn append(
    memory: &MemoryBudget,
    held: &mut Option<Reservation>,
    bytes: &mut Vec<u8>,
    piece: &[u8],
    announced: usize,
) -> Result<(), BodyError> {
    let length = bytes.len() + piece.len();
    if length > bytes.capacity() {
        // Doubled, so that a body is copied twice at most, and not beyond what was announced.
        let capacity = (2 * length).min(announced.max(length));
        hold(memory, held, capacity).await?;
        bytes.reserve_exact(capacity - bytes.len());
    }
    bytes.extend_from_slice(piece);
    Ok(())
}

/// The bytes of a response with the memory that they take.
pub(super) struct CountedBytes {
    pub(super) bytes: Bytes,
    pub(super) _held: Reservation,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
