//! Responses of HTTP agents, with the guests that still write them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::Error as WasiHttpError;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::message::Fault;
use crate::wasm::http::body_recorder::BodyRecorder;
use crate::wasm::http::caller::CallerActivity;
use crate::wasm::http::end::{EndListener, Running};
use crate::wasm::http::head_commit::LateEffects;

/// The time for a guest to end after the reader of its response has left: its next write fails, and it may clean up.
const CLEANUP_TIME: Duration = Duration::from_secs(1);

/// Returns the body's length from the head.
pub(in crate::wasm) fn length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A part of a body as the guest's side gives it.
type GuestFrame = Result<Frame<Bytes>, WasiHttpError>;

/// Polls the body of a guest that has ended. Runs outside of tokio's cooperative budget, so that `Pending` means that
/// there is no data, and not that a response of many chunks has used the budget up.
fn poll_left(body: &mut HyperOutgoingBody, cx: &mut Context<'_>) -> Poll<Option<GuestFrame>> {
    let next = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
    std::pin::pin!(tokio::task::unconstrained(next)).poll(cx)
}

/// Removes the body of a response that must not have one. A guest that still writes it runs on, and its output is
/// dropped.
pub(in crate::wasm) fn without_body(response: http::Response<ResponseBody>) -> http::Response<ResponseBody> {
    response.map(|body| match body {
        ResponseBody::Whole(data) => ResponseBody::Whole(data),
        ResponseBody::Open(mut open) => {
            open.caller.note_content_ignored();
            tokio::spawn(async move {
                // Polled only until the guest ends.
                while let Some(Ok(_)) = std::future::poll_fn(|cx| open.poll(cx)).await {}
            });
            ResponseBody::Whole(None)
        }
    })
}

/// The body of a guest's response. It drives the guest until that ends.
pub(crate) enum ResponseBody {
    /// The whole body; taken when it is sent.
    Whole(Option<Bytes>),
    /// A body that is still being written or read.
    Open(Box<OpenBody>),
}

/// A body whose end is not known yet.
pub(crate) struct OpenBody {
    /// The running guest; `None` once it has ended.
    running: Option<Running>,
    /// The guest's failure, until it is passed to the reader of the body.
    failed: Option<Fault>,
    /// The error at which the body broke off while the guest still ran, of which its end is the cause.
    broken: Option<WasiHttpError>,
    /// Frames that were read ahead.
    read_ahead: VecDeque<Frame<Bytes>>,
    body: HyperOutgoingBody,
    listener: EndListener,
    /// The reader of the body.
    caller: Arc<CallerActivity>,
    /// The length in the head, if it is there.
    length: Option<u64>,
    /// The bytes that were read so far.
    read: u64,
    /// The effects of the guest after its head.
    late: Option<LateEffects>,
    /// The last part of a body whose length is in the head, which is held until the effects before it are committed:
    /// with it the response is complete for its reader.
    last: Option<Frame<Bytes>>,
    /// Records the body.
    recorder: Option<BodyRecorder>,
}

/// The reason why a response body ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseError {
    /// The guest failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The guest returned without finishing the body, so that it may be incomplete.
    #[error("the handler ended without finishing the body")]
    Unfinished,
    /// The body does not match its head.
    #[error("the body is broken: {0}")]
    Broken(WasiHttpError),
}

impl ResponseBody {
    /// Wraps a body of a guest that has ended, or that is added by [`OpenBody::attach_guest`].
    pub(in crate::wasm) fn open(body: HyperOutgoingBody) -> Self {
        Self::begun(body, VecDeque::new())
    }

    /// Wraps a body whose first frames were read ahead.
    fn begun(body: HyperOutgoingBody, read_ahead: VecDeque<Frame<Bytes>>) -> Self {
        Self::Open(Box::new(OpenBody {
            running: None,
            failed: None,
            broken: None,
            read_ahead,
            body,
            listener: EndListener(None),
            caller: Arc::default(),
            length: None,
            read: 0,
            late: None,
            last: None,
            recorder: None,
        }))
    }

    /// Wraps the body of a guest that has ended well. Most bodies are one chunk by then, and become
    /// [`Whole`](Self::Whole).
    pub(in crate::wasm) fn of_ended(mut body: HyperOutgoingBody) -> Result<Self, ResponseError> {
        let (mut ahead, mut cx) = (VecDeque::new(), Context::from_waker(Waker::noop()));
        // Two frames tell whether the first is all there is.
        while ahead.len() < 2 {
            match poll_left(&mut body, &mut cx) {
                Poll::Ready(Some(Ok(frame))) => ahead.push_back(frame),
                Poll::Ready(Some(Err(error))) => return Err(ResponseError::Broken(error)),
                Poll::Pending => return Err(ResponseError::Unfinished),
                Poll::Ready(None) => match ahead.pop_front().map(Frame::into_data) {
                    None => return Ok(Self::Whole(None)),
                    Some(Ok(data)) => return Ok(Self::Whole(Some(data))),
                    Some(Err(trailers)) => {
                        ahead.push_back(trailers);
                        break;
                    }
                },
            }
        }
        Ok(Self::begun(body, ahead))
    }

    /// Attaches a recorder. A body that is complete is recorded at once.
    pub(crate) fn record_with(&mut self, mut recorder: BodyRecorder) {
        match self {
            Self::Whole(data) => recorder.record_whole(data.as_ref()),
            Self::Open(open) => open.recorder = Some(recorder),
        }
    }
}

impl OpenBody {
    /// Attaches the guest that still writes the body.
    pub(in crate::wasm) fn attach_guest(
        &mut self,
        running: Running,
        listener: EndListener,
        caller: Arc<CallerActivity>,
        (length, late): (Option<u64>, LateEffects),
    ) {
        self.running = Some(running);
        self.listener = listener;
        self.caller = caller;
        self.length = length;
        self.late = Some(late);
    }

    /// Returns `true` if the response is complete with this part, while effects wait for the guest's end.
    fn has_to_wait(&self, part: &Frame<Bytes>) -> bool {
        let read = self.read + part.data_ref().map_or(0, |data| data.len() as u64);
        self.length.is_some_and(|length| read >= length) && self.late.as_ref().is_some_and(LateEffects::are_pending)
    }

    /// Lets the guest run, and notes its end.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(running) = &mut self.running else { return };
        if let Poll::Ready(end) = running.as_mut().poll(cx) {
            self.running = None;
            self.failed = end.result.as_ref().err().cloned();
            self.listener.notify(end);
        }
    }

    /// Polls for the next part, and lets the guest run for it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        self.caller.note_chunk_taken();
        let polled = self.poll_body(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.read += frame.data_ref().map_or(0, |data| data.len() as u64);
            self.caller.note_chunk_ready();
        }
        if let (Some(recorder), Poll::Ready(part)) = (&mut self.recorder, &polled) {
            recorder.record(part.as_ref());
        }
        polled
    }

    /// Replaces a part that is beyond the length in the head by an error.
    ///
    /// The engine passes such a part on before it fails the write, and hyper sends the bytes up to the length: the client
    /// would take the start of a longer body for a whole response.
    fn within_length(&self, frame: Poll<Option<GuestFrame>>) -> Poll<Option<GuestFrame>> {
        let (Poll::Ready(Some(Ok(part))), Some(length)) = (&frame, self.length) else { return frame };
        let total = self.read + part.data_ref().map_or(0, |data| data.len() as u64);
        if total <= length {
            return frame;
        }
        Poll::Ready(Some(Err(WasiHttpError::HttpResponseBodySize(Some(total)))))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        if let Some(frame) = self.read_ahead.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.drive(cx);
        let runs = self.running.is_some();
        if let Some(broken) = self.broken.take() {
            if runs {
                self.broken = Some(broken);
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(self.failed.take().map_or(ResponseError::Broken(broken), Into::into))));
        }
        if let Some(last) = self.last.take() {
            if runs {
                self.last = Some(last);
                return Poll::Pending;
            }
            return Poll::Ready(Some(self.failed.take().map_or(Ok(last), |fault| Err(fault.into()))));
        }
        let frame = if runs { Pin::new(&mut self.body).poll_frame(cx) } else { poll_left(&mut self.body, cx) };
        match self.within_length(frame) {
            // On a thread of its own a guest that fails is not quite at its end yet.
            Poll::Ready(Some(Err(broken))) if runs => {
                self.broken = Some(broken);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(part))) if runs && self.has_to_wait(&part) => {
                self.last = Some(part);
                Poll::Pending
            }
            Poll::Ready(Some(frame)) => Poll::Ready(Some(frame.map_err(ResponseError::Broken))),
            Poll::Ready(None) if runs => {
                // A guest of WASI 0.3 has often done its work, and only waits for its body to be read.
                self.drive(cx);
                if self.running.is_some() {
                    return Poll::Pending;
                }
                Poll::Ready(self.failed.take().map(|fault| Err(fault.into())))
            }
            // The guest's work after the last byte belongs to the call as well: its end is awaited.
            Poll::Pending if runs => Poll::Pending,
            // After a failure the body must not end normally: the client would take it for complete.
            Poll::Ready(None) => Poll::Ready(self.failed.take().map(|fault| Err(fault.into()))),
            // The guest has ended without finishing the body.
            Poll::Pending => Poll::Ready(Some(Err(self.failed.take().map_or(ResponseError::Unfinished, Into::into)))),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        match &mut *self {
            Self::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Open(open) => open.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(data) => data.is_none(),
            Self::Open(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Open(_) => SizeHint::default(),
        }
    }
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        // Stops the caller's clock: the reader takes no more.
        self.caller.note_chunk_taken();
        let mut listener = EndListener(self.listener.0.take());
        // The runtime is gone when the host ends, and the guest ends with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.length == Some(self.read) {
            // The reader has the whole response. The guest finishes its work within its time.
            runtime.spawn(async move { listener.notify(running.await) });
            return;
        }
        self.caller.note_departure();
        runtime.spawn(async move {
            // The next write fails. A guest that does not write is dropped after the timeout, and dropping `listener`
            // reports that.
            if let Ok(end) = tokio::time::timeout(CLEANUP_TIME, running).await {
                listener.notify(end);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::wasm::http::end::HttpEnd;

    /// Polls for the next part of an open body.
    fn poll_once(body: &mut ResponseBody) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn no_part_of_a_body_is_passed_on_beyond_its_length() {
        let (end, ended) = tokio::sync::oneshot::channel();
        let text = Full::new(Bytes::from_static(b"ten bytes!")).map_err(|never| match never {}).boxed_unsync();
        let mut body = ResponseBody::open(text);
        let ResponseBody::Open(open) = &mut body else { unreachable!("it was just opened") };
        let running: Running = Box::pin(async move { ended.await.unwrap_or_else(|_| Fault::Abandoned.into()) });
        open.attach_guest(running, EndListener(None), Arc::default(), (Some(3), LateEffects::of(&Arc::default())));

        assert!(poll_once(&mut body).is_pending(), "the guest still runs, and its end may be the cause");
        let returned = HttpEnd { result: Ok(()), ..HttpEnd::from(Fault::Abandoned) };
        assert!(end.send(returned).is_ok());
        let Poll::Ready(Some(Err(ResponseError::Broken(WasiHttpError::HttpResponseBodySize(Some(10)))))) =
            poll_once(&mut body)
        else {
            panic!("the body breaks off");
        };
    }
}
