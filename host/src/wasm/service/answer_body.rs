//! The body of a guest's response, which tells its guest when it has been read.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

use crate::wasm::http::response_progress::ResponseProgress;

/// The senders of the end of a body: one for the call, one for the guest.
struct BodyEnd {
    call: oneshot::Sender<()>,
    guest: oneshot::Sender<Result<(), WasiHttpError>>,
}

impl BodyEnd {
    fn tell(self, result: Result<(), WasiHttpError>) {
        // Either may be gone: the call is over, or the guest has not asked.
        let _ = self.guest.send(result);
        let _ = self.call.send(());
    }
}

/// The receivers of the end of a body.
pub(super) struct BodyEndReceivers {
    /// Resolves when the body was read to its end, or is read no further.
    pub(super) call: oneshot::Receiver<()>,
    /// Resolves at the same time, with the result that the guest is told.
    pub(super) guest: oneshot::Receiver<Result<(), WasiHttpError>>,
}

/// The body of a response.
pub(super) struct AnswerBody {
    body: WasiBody,
    progress: ResponseProgress,
    /// `None` once the end was told.
    end: Option<BodyEnd>,
}

/// Creates the two ends of a body's end, before the body is there.
pub(super) fn body_end() -> (impl FnOnce(WasiBody, ResponseProgress) -> AnswerBody, BodyEndReceivers) {
    let ((call, call_receiver), (guest, guest_receiver)) = (oneshot::channel(), oneshot::channel());
    let end = BodyEnd { call, guest };
    let wrap = move |body, progress| AnswerBody { body, progress, end: Some(end) };
    (wrap, BodyEndReceivers { call: call_receiver, guest: guest_receiver })
}

impl AnswerBody {
    fn tell(&mut self, result: Result<(), WasiHttpError>) {
        if let Some(end) = self.end.take() {
            end.tell(result);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => {
                self.progress.note_body_finished();
                self.tell(Ok(()));
            }
            Poll::Ready(Some(Err(_))) => self.tell(Err(WasiHttpError::HttpProtocolError)),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // The client has left, or the response is not sent.
        self.tell(Err(WasiHttpError::ConnectionTerminated));
    }
}
