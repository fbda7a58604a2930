//! The body of a response on its way to the guest: its size, its pauses, and its end with the message.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use super::failure;
use super::report::CallRecord;
use crate::message::{CallScope, HttpCallError, OpenResponse};

/// The bounds of a response.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseBounds {
    /// The most bytes.
    pub(super) most: u64,
    /// The longest pause while the guest waits for more.
    pub(super) stall: Duration,
    /// The end of the message.
    pub(super) deadline: Instant,
}

/// A response whose body is being read.
pub(super) struct Download {
    incoming: Incoming,
    bounds: ResponseBounds,
    record: CallRecord,
    /// The permit of the call, held until the connection is free again.
    _permit: OwnedSemaphorePermit,
    /// The bytes that came.
    received: u64,
    /// The timer of a pause; `None` while there is none.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Download {
    pub(super) fn new(
        incoming: Incoming,
        bounds: ResponseBounds,
        record: CallRecord,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { incoming, bounds, record, _permit: permit, received: 0, pause: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpCallError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pause = None;
                let data = frame.data_ref().map_or(&[][..], |data| data);
                self.received += data.len() as u64;
                if let Err(error) = self.record.note_received(data) {
                    return Poll::Ready(Some(Err(error)));
                }
                if self.received > self.bounds.most {
                    return Poll::Ready(Some(Err(HttpCallError::ResponseTooLarge(self.bounds.most))));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(match failure::of_hyper(&error) {
                // A connection that is closed in the middle leaves a response that is not whole.
                HttpCallError::ConnectionTerminated => HttpCallError::Incomplete,
                other => other,
            }))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                // Counted only while the guest waits: a guest that reads slowly is not the server's pause.
                let ResponseBounds { stall, deadline, .. } = self.bounds;
                let until = || (Instant::now() + stall).min(deadline);
                let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(until())));
                pause.as_mut().poll(cx).map(|()| {
                    let is_over = Instant::now() >= deadline;
                    Some(Err(if is_over { HttpCallError::TimeOver } else { HttpCallError::ReadTimeout }))
                })
            }
        }
    }
}

/// A response that the guest reads, or its message closes.
pub(super) struct DownloadBody(Arc<ResponseSlot>);

/// The response while it is open.
// Locked by the guest's reads and once by the end of the message, which do not contend.
struct ResponseSlot(Mutex<SlotState>);

enum SlotState {
    Open(Box<Download>),
    /// The end of a response that was read.
    Ended,
    /// The end of a response that broke off, or whose message ended.
    Broken,
}

impl OpenResponse for ResponseSlot {
    fn close(&self) {
        let mut state = self.0.lock();
        if matches!(*state, SlotState::Open(_)) {
            *state = SlotState::Broken;
        }
    }
}

impl DownloadBody {
    /// Wraps a response, which ends with the calls of `scope`.
    pub(super) fn new(download: Download, scope: &CallScope) -> Self {
        // One without a body needs no reader to be over.
        if download.incoming.is_end_stream() {
            return Self(Arc::new(ResponseSlot(Mutex::new(SlotState::Ended))));
        }
        let slot = Arc::new(ResponseSlot(Mutex::new(SlotState::Open(Box::new(download)))));
        let weak = Arc::downgrade(&slot);
        scope.add(weak as Weak<dyn OpenResponse>);
        Self(slot)
    }
}

impl Body for DownloadBody {
    type Data = Bytes;
    type Error = HttpCallError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpCallError>>> {
        let mut state = self.0.0.lock();
        let download = match &mut *state {
            SlotState::Open(download) => download,
            SlotState::Ended => return Poll::Ready(None),
            SlotState::Broken => return Poll::Ready(Some(Err(HttpCallError::TimeOver))),
        };
        let polled = download.poll(cx);
        match &polled {
            // Given up at once: the next call need not wait for the guest to drop it.
            Poll::Ready(None) => *state = SlotState::Ended,
            Poll::Ready(Some(Err(error))) => {
                download.record.fail(error);
                *state = SlotState::Broken;
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &*self.0.0.lock() {
            SlotState::Open(download) => download.incoming.is_end_stream(),
            SlotState::Ended => true,
            SlotState::Broken => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.0.0.lock() {
            SlotState::Open(download) => download.incoming.size_hint(),
            SlotState::Ended => SizeHint::with_exact(0),
            SlotState::Broken => SizeHint::default(),
        }
    }
}
