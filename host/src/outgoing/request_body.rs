//! The body of a request on its way to the server: its size, and how far it has come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Extensions;
use http_body::{Body, Frame, SizeHint};
use hyper_util::client::legacy::connect::Connected;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connector::ConnectionBreaker;
use crate::budgets::CallCharge;
use crate::message::{CallBody, CallScope, HttpCallError, OpenResponse};

/// The part of a request that has gone out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadProgress {
    /// The guest has not given more yet.
    AwaitsGuest,
    /// The server was given a part, at that time.
    Taken(Instant),
    /// The server was given all of it.
    Complete(Instant),
}

/// The progress of a request, shared by its body and the call that waits for the response.
pub(super) struct Upload {
    state: Mutex<UploadState>,
    /// A notification that the guest has given more, after the server had to wait for it.
    resumed: Notify,
    /// The body; `None` once it was abandoned. Here and not with the connection, which holds its own part of it for as
    /// long as a server takes nothing: the guest would wait as long.
    // Locked by the connection for each part, and once to abandon it.
    body: Mutex<Option<CallBody>>,
    /// The means to break the connection, if the request has one of its own (HTTP/1.1).
    connection: Mutex<Option<ConnectionBreaker>>,
}

// A few words that are written for each part, and never locked across a wait.
#[derive(Debug)]
struct UploadState {
    progress: UploadProgress,
    sent: u64,
    /// The number of times that the guest has given more while it was waited for.
    given: u64,
    /// The error with which the body ended, if it did.
    failure: Option<HttpCallError>,
}

impl Upload {
    /// Starts the clock of the server, to which there is a connection now.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.progress = match state.progress {
            UploadProgress::AwaitsGuest => UploadProgress::AwaitsGuest,
            UploadProgress::Taken(_) => UploadProgress::Taken(now),
            UploadProgress::Complete(_) => UploadProgress::Complete(now),
        };
    }

    /// Returns the time at which the server is too late: to take the next part, or to begin its response. `None` while the
    /// guest has to give more.
    pub(super) fn due(&self, first_byte: Duration, stall: Duration) -> Option<(Instant, HttpCallError)> {
        match self.state.lock().progress {
            UploadProgress::AwaitsGuest => None,
            UploadProgress::Taken(at) => Some((at + stall, HttpCallError::WriteTimeout)),
            UploadProgress::Complete(at) => Some((at + first_byte, HttpCallError::ReadTimeout)),
        }
    }

    /// Starts the clock of the server, which the guest has given more to take.
    fn give(&self) {
        let mut state = self.state.lock();
        state.given += 1;
        if state.progress == UploadProgress::AwaitsGuest {
            state.progress = UploadProgress::Taken(Instant::now());
            self.resumed.notify_one();
        }
    }

    /// Stops the clock of the server, unless the guest has given more since it was asked.
    fn await_guest(&self, given: u64) {
        let mut state = self.state.lock();
        if state.given == given {
            state.progress = UploadProgress::AwaitsGuest;
        }
    }

    /// Waits until the guest has given more, after [`due`](Self::due) has returned `None`.
    pub(super) async fn resumed(&self) {
        self.resumed.notified().await;
    }

    /// Takes the connection over which the request is sent. One of HTTP/2 has other requests, and ends this one by itself.
    pub(super) fn follow(&self, connection: &Connected) {
        if !connection.is_negotiated_h2() {
            let mut extras = Extensions::new();
            connection.get_extras(&mut extras);
            *self.connection.lock() = extras.remove();
        }
    }

    /// Gives up what the server was not given yet. The guest's next write fails, also one that waits, and so does the
    /// connection.
    pub(super) fn abandon(&self, error: &HttpCallError) {
        let mut state = self.state.lock();
        if matches!(state.progress, UploadProgress::Complete(_)) {
            return;
        }
        state.failure.get_or_insert_with(|| error.clone());
        drop(state);
        // Dropped outside of the lock: it wakes the guest.
        let body = self.body.lock().take();
        drop(body);
        self.break_off();
    }

    /// Breaks the connection, if it is the request's own.
    pub(super) fn break_off(&self) {
        if let Some(connection) = self.connection.lock().take() {
            connection.break_off();
        }
    }

    /// Returns the bytes that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.state.lock().sent
    }

    /// Returns the error with which the body ended. The client's own error need not name it: with HTTP/2 it is that of the
    /// stream.
    pub(super) fn failure(&self) -> Option<HttpCallError> {
        self.state.lock().failure.clone()
    }
}

impl OpenResponse for Upload {
    fn close(&self) {
        self.abandon(&HttpCallError::TimeOver);
    }
}

/// A waker of the connection, which notes that the guest has given more. The connection itself need not ask for it: it
/// does not while the server takes nothing.
struct GiveWaker {
    upload: Arc<Upload>,
    connection: Waker,
}

impl Wake for GiveWaker {
    fn wake(self: Arc<Self>) {
        self.upload.give();
        self.connection.wake_by_ref();
    }
}

/// The body of a request, with a bound.
pub(super) struct UploadBody {
    /// The waker of the last wait for the guest, and that of the connection which it is made of.
    waker: Option<(Waker, Waker)>,
    upload: Arc<Upload>,
    scope: Arc<CallScope>,
    /// The call in the budget of its tree.
    charge: Option<Arc<CallCharge>>,
    most: u64,
    /// The length, if the head of the request has it.
    length: Option<u64>,
}

impl UploadBody {
    /// Wraps a body of up to `most` bytes.
    pub(super) fn new(
        body: CallBody,
        most: u64,
        scope: &Arc<CallScope>,
        charge: Option<Arc<CallCharge>>,
    ) -> (Self, Arc<Upload>) {
        let now = Instant::now();
        let progress = if body.is_end_stream() { UploadProgress::Complete(now) } else { UploadProgress::Taken(now) };
        let upload = Arc::new(Upload {
            state: Mutex::new(UploadState { progress, sent: 0, given: 0, failure: None }),
            resumed: Notify::new(),
            body: Mutex::new(Some(body)),
            connection: Mutex::default(),
        });
        let weak = Arc::downgrade(&upload);
        // A request that is still being sent ends with its message, whatever its connection waits for.
        scope.add(weak);
        let body =
            Self { waker: None, upload: Arc::clone(&upload), scope: Arc::clone(scope), charge, most, length: None };
        (body, upload)
    }

    /// Sets the length that the head of the request has. The body is complete when that much of it was taken.
    pub(super) fn of_length(mut self, length: Option<u64>) -> Self {
        self.length = length;
        self
    }

    /// Returns the waker for a wait of the connection.
    fn waker(&mut self, connection: &Waker) -> Waker {
        match &self.waker {
            // The same for nearly all parts of a body.
            Some((made, of)) if of.will_wake(connection) => made.clone(),
            Some(_) | None => {
                let upload = Arc::clone(&self.upload);
                let made = Waker::from(Arc::new(GiveWaker { upload, connection: connection.clone() }));
                self.waker = Some((made.clone(), connection.clone()));
                made
            }
        }
    }

    fn note(&self, progress: UploadProgress, bytes: u64) -> u64 {
        let mut state = self.upload.state.lock();
        if state.progress == UploadProgress::AwaitsGuest {
            self.upload.resumed.notify_one();
        }
        state.progress = progress;
        state.sent += bytes;
        state.sent
    }

    fn fail(&self, error: HttpCallError) -> Poll<Option<Result<Frame<Bytes>, HttpCallError>>> {
        self.upload.state.lock().failure = Some(error.clone());
        Poll::Ready(Some(Err(error)))
    }
}

impl Drop for UploadBody {
    /// The connection needs no more of it: all was sent, as its length says, or the connection has ended.
    fn drop(&mut self) {
        let mut state = self.upload.state.lock();
        if state.failure.is_none() && !matches!(state.progress, UploadProgress::Complete(_)) {
            if state.progress == UploadProgress::AwaitsGuest {
                self.upload.resumed.notify_one();
            }
            // From here on the connection may be that of another request, which nothing of this one may break.
            state.progress = UploadProgress::Complete(Instant::now());
        }
        drop(state);
        // The guest's next write fails, if it has more. Dropped outside of the lock: it wakes the guest.
        let body = self.upload.body.lock().take();
        drop(body);
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = HttpCallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpCallError>>> {
        // Read before the guest is asked: it may give more at once, on another thread.
        let given = self.upload.state.lock().given;
        let waker = self.waker(cx.waker());
        let polled = match &mut *self.upload.body.lock() {
            Some(body) => Pin::new(body).poll_frame(&mut Context::from_waker(&waker)),
            None => Poll::Ready(Some(Err(self.upload.failure().unwrap_or(HttpCallError::TimeOver)))),
        };
        if polled.is_pending() {
            self.upload.await_guest(given);
        }
        let frame = match ready!(polled) {
            // The body of a guest that trapped ends as a finished one does. The server must not take it for whole.
            None if self.scope.is_ended() => return self.fail(HttpCallError::TimeOver),
            None => {
                self.note(UploadProgress::Complete(Instant::now()), 0);
                return Poll::Ready(None);
            }
            Some(Err(error)) => return self.fail(error),
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        if let Some(Err(over)) = self.charge.as_ref().map(|charge| charge.add_bytes(bytes)) {
            return self.fail(HttpCallError::OverBudget(over.to_string()));
        }
        let sent = self.note(UploadProgress::Taken(Instant::now()), bytes);
        if sent > self.most {
            return self.fail(HttpCallError::RequestTooLarge(self.most));
        }
        // Not polled again then: the connection does not ask for the end of what it knows the length of.
        if self.is_end_stream() || self.length == Some(sent) {
            self.note(UploadProgress::Complete(Instant::now()), 0);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.upload.body.lock().as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.upload.body.lock().as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn body(bytes: usize, most: u64) -> (UploadBody, Arc<Upload>) {
        let full = Full::new(Bytes::from(vec![0; bytes])).map_err(|never| match never {});
        UploadBody::new(full.boxed_unsync(), most, &Arc::default(), None)
    }

    #[tokio::test]
    async fn a_body_beyond_its_bound_is_an_error() {
        let (within, upload) = body(10, 10);
        assert_eq!(within.collect().await.unwrap().to_bytes().len(), 10);
        assert_eq!(upload.sent(), 10);
        let (beyond, _) = body(11, 10);
        assert_eq!(beyond.collect().await.unwrap_err(), HttpCallError::RequestTooLarge(10));
    }

    #[tokio::test]
    async fn a_body_that_ends_with_its_message_is_not_whole() {
        let scope = Arc::<CallScope>::default();
        let full = Full::new(Bytes::from_static(b"abc")).map_err(|never| match never {});
        let (mut body, upload) = UploadBody::new(full.boxed_unsync(), 10, &scope, None);
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        scope.end();
        assert_eq!(body.frame().await.unwrap().unwrap_err(), HttpCallError::TimeOver);
        assert_eq!(upload.failure(), Some(HttpCallError::TimeOver));
    }

    #[tokio::test]
    async fn a_guest_that_writes_learns_that_its_request_was_abandoned() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, HttpCallError>>(1);
        let stream =
            futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let scope = Arc::default();
        let (mut body, upload) =
            UploadBody::new(http_body_util::StreamBody::new(stream).boxed_unsync(), 100, &scope, None);
        sender.send(Ok(Frame::data(Bytes::from_static(b"abc")))).await.unwrap();
        let waiting = tokio::spawn(async move { sender.send(Ok(Frame::data(Bytes::from_static(b"def")))).await });
        upload.abandon(&HttpCallError::WriteTimeout);
        assert!(waiting.await.unwrap().is_err(), "the write that waited");
        assert_eq!(body.frame().await.unwrap().unwrap_err(), HttpCallError::WriteTimeout);
        let (complete, upload) = super::tests::body(3, 10);
        complete.collect().await.unwrap();
        upload.abandon(&HttpCallError::TimeOver);
        assert_eq!(upload.failure(), None, "the server has all of it");
    }

    #[tokio::test]
    async fn a_body_of_its_length_is_complete_before_its_end_is_asked_for() {
        let (first, stall) = (Duration::from_secs(7), Duration::from_secs(3));
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, HttpCallError>>(1);
        let stream =
            futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let scope = Arc::default();
        let (body, upload) = UploadBody::new(http_body_util::StreamBody::new(stream).boxed_unsync(), 100, &scope, None);
        let mut body = body.of_length(Some(6));
        for (part, expected) in [("abc", HttpCallError::WriteTimeout), ("def", HttpCallError::ReadTimeout)] {
            sender.send(Ok(Frame::data(Bytes::from_static(part.as_bytes())))).await.unwrap();
            assert!(body.frame().await.unwrap().is_ok());
            assert_eq!(upload.due(first, stall).map(|(_, error)| error), Some(expected));
        }
    }

    #[tokio::test]
    async fn the_clock_of_the_server_stands_while_the_guest_has_to_give_more() {
        let (first, stall) = (Duration::from_secs(7), Duration::from_secs(3));
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, HttpCallError>>(1);
        let stream =
            futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let scope = Arc::default();
        let (mut body, upload) =
            UploadBody::new(http_body_util::StreamBody::new(stream).boxed_unsync(), 100, &scope, None);
        let due = |upload: &Upload| upload.due(first, stall).map(|(_, error)| error);
        assert_eq!(due(&upload), Some(HttpCallError::WriteTimeout));
        assert!(futures::poll!(body.frame()).is_pending());
        assert_eq!(due(&upload), None);
        sender.send(Ok(Frame::data(Bytes::from_static(b"abc")))).await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!((due(&upload), upload.sent()), (Some(HttpCallError::WriteTimeout), 3));
        // The guest gives more, and the connection does not ask for it: the server takes nothing.
        assert!(futures::poll!(body.frame()).is_pending());
        assert_eq!(due(&upload), None);
        sender.send(Ok(Frame::data(Bytes::from_static(b"def")))).await.unwrap();
        upload.resumed().await;
        assert_eq!(due(&upload), Some(HttpCallError::WriteTimeout));
        assert!(body.frame().await.unwrap().is_ok());
        drop(sender);
        assert!(body.frame().await.is_none());
        assert_eq!(due(&upload), Some(HttpCallError::ReadTimeout));
    }
}
