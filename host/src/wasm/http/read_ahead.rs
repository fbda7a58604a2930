//! The reading of a response ahead of its client, so that an instance waits for its client only where it writes more than
//! is held.
//!
//! ```text
//! the guest writes -> what it writes at once is taken at once: most responses are whole then, and their instance is free
//!                  '-> a task takes the rest, up to the bound -> the client
//! ```
//! At the bound the guest waits for its client, within its own time (`limits.time`) and while the connection sees progress
//! (`http.stall-timeout`).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::memory_budget::Reservation;

use super::response::{OpenBody, ResponseBody, ResponseError};

/// Bytes that a part counts for in addition to its data: a guest may write its response byte by byte.
const PART_COST: usize = 128;

/// A part of a body, or its end (`None`), with its room in what is held. Without an end the body has broken off.
type HeldPart = (Option<Result<Frame<Bytes>, ResponseError>>, Option<OwnedSemaphorePermit>);

/// The body of a response, the most of which may be in memory already.
pub(crate) struct AheadBody {
    /// The parts that were there at once.
    held: VecDeque<Frame<Bytes>>,
    rest: AheadRest,
    /// The memory that it takes of the host, if it is counted.
    memory: Option<Reservation>,
}

/// The part of a body that follows the held one.
enum AheadRest {
    /// The end of the body.
    Ended,
    /// The body broke off; taken when the client is told.
    Failed(Option<ResponseError>),
    /// The guest still runs.
    Coming(ComingBody),
}

/// The rest of a body, of which a task takes what there is room for.
struct ComingBody {
    parts: mpsc::UnboundedReceiver<HeldPart>,
    room: Arc<Semaphore>,
    /// The room that the held parts take.
    held_room: usize,
}

impl AheadBody {
    /// Takes what the guest has written of a response, and has a task take the rest, so that no more than `most` bytes are
    /// held for the client.
    pub(crate) async fn of(body: ResponseBody, most: u64) -> Self {
        let mut open = match body {
            ResponseBody::Whole(data) => return Self::whole(data),
            ResponseBody::Open(open) => open,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS >> 1);
        let (mut held, mut size) = (VecDeque::new(), 0);
        // Returns at the first wait: a client must not wait for the rest of a stream.
        let end = std::future::poll_fn(|cx| {
            while size < most {
                match open.poll(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        size += cost(&frame);
                        held.push_back(frame);
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(AheadRest::Failed(Some(error)))),
                    Poll::Ready(None) => return Poll::Ready(Some(AheadRest::Ended)),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(None)
        });
        let rest = match end.await {
            Some(AheadRest::Ended) if held.iter().all(Frame::is_data) => return Self::whole(joined(held)),
            Some(rest) => rest,
            None => AheadRest::Coming(ComingBody::start(open, size.min(most), most)),
        };
        Self { held, rest, memory: None }
    }

    /// Makes a body that is in memory as a whole; `None` for one without content.
    pub(crate) fn whole(data: Option<Bytes>) -> Self {
        Self { held: data.into_iter().map(Frame::data).collect(), rest: AheadRest::Ended, memory: None }
    }

    /// Keeps the memory that is counted for it until it is dropped.
    pub(crate) fn count(&mut self, memory: Reservation) {
        self.memory = Some(memory);
    }

    /// Returns `true` if the guest still runs, as far as is known here.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.rest, AheadRest::Coming(_))
    }

    /// Returns the length of a body that is in memory as a whole. One with trailers has none: they are sent only after a
    /// body in chunks.
    pub(crate) fn length(&self) -> Option<u64> {
        let is_whole = matches!(self.rest, AheadRest::Ended) && self.held.iter().all(Frame::is_data);
        is_whole.then(|| self.held.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum())
    }
}

/// Returns the room that a part takes.
fn cost(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len) + PART_COST
}

/// Joins the parts of a whole body, so that its length can be told.
fn joined(mut held: VecDeque<Frame<Bytes>>) -> Option<Bytes> {
    if held.len() < 2 {
        return held.pop_front().and_then(|frame| frame.into_data().ok());
    }
    let mut whole = BytesMut::with_capacity(held.iter().filter_map(Frame::data_ref).map(Bytes::len).sum());
    held.iter().filter_map(Frame::data_ref).for_each(|data| whole.extend_from_slice(data));
    Some(whole.freeze())
}

impl ComingBody {
    /// Starts the task that takes the rest of a body, of which `held` bytes of `most` are taken already.
    fn start(open: Box<OpenBody>, held: usize, most: usize) -> Self {
        let (sender, parts) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(most - held));
        tokio::spawn(take_rest(open, Arc::clone(&room), most, sender));
        Self { parts, room, held_room: held }
    }

    /// Gives back the room of a held part.
    fn free(&mut self, frame: &Frame<Bytes>) {
        // The last part may have been larger than the room that was left for it.
        let room = cost(frame).min(self.held_room);
        self.held_room -= room;
        self.room.add_permits(room);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        self.parts.poll_recv(cx).map(|part| match part {
            // The room is given back here: hyper asks for more only when it has room itself.
            Some((part, _)) => part,
            // The client must not take a part of the body for all of it.
            None => Some(Err(ResponseError::Unfinished)),
        })
    }
}

/// Takes the parts of a body while there is room. Ends with the body, or when its reader is gone: dropping the body then
/// ends the guest.
async fn take_rest(
    mut open: Box<OpenBody>,
    room: Arc<Semaphore>,
    most: usize,
    sender: mpsc::UnboundedSender<HeldPart>,
) {
    loop {
        let part = tokio::select! {
            // Biased: a guest must not go on for a client that has left.
            biased;
            () = sender.closed() => return,
            part = std::future::poll_fn(|cx| open.poll(cx)) => part,
        };
        let is_last = !matches!(part, Some(Ok(_)));
        // A part that is larger than the bound needs all of it.
        let size = part.as_ref().and_then(|part| part.as_ref().ok()).map_or(0, cost).min(most);
        let permit = tokio::select! {
            biased;
            () = sender.closed() => return,
            permit = wait_for_room(&mut open, Arc::clone(&room), size) => permit,
        };
        if sender.send((part, permit)).is_err() || is_last {
            return;
        }
    }
}

/// Waits until there is room for a part. The guest goes on meanwhile, so that the limit of its time holds.
async fn wait_for_room(open: &mut OpenBody, room: Arc<Semaphore>, size: usize) -> Option<OwnedSemaphorePermit> {
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let mut acquired = std::pin::pin!(room.acquire_many_owned(size));
    std::future::poll_fn(|cx| {
        open.drive(cx);
        acquired.as_mut().poll(cx)
    })
    .await
    // The semaphore is never closed.
    .ok()
}

impl Body for AheadBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Self { held, rest, .. } = &mut *self;
        if let Some(frame) = held.pop_front() {
            if let AheadRest::Coming(coming) = rest {
                coming.free(&frame);
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        match rest {
            AheadRest::Ended => Poll::Ready(None),
            AheadRest::Failed(error) => Poll::Ready(error.take().map(Err)),
            AheadRest::Coming(coming) => coming.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && matches!(self.rest, AheadRest::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        self.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
