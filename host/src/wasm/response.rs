//! Responses of HTTP agents on their way out, with the guests that still write them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::Error as WasiHttpError;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::Fault;
use super::caller::Caller;
use super::http::{Hearing, Running};
use super::tap::Tap;

/// How long a guest may go on when nobody reads its response any more: for its next write to fail, and for what it does
/// then.
const FAREWELL: Duration = Duration::from_secs(1);

/// The length that a head says its body has.
pub(super) fn length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Polls the body of a guest that has ended, of which nothing more will come. So pending must mean that there is nothing:
/// not that the task has used up the budget that tokio gives it for one turn, which a response of many pieces does.
fn poll_left(body: &mut HyperOutgoingBody, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
    let next = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
    std::pin::pin!(tokio::task::unconstrained(next)).poll(cx)
}

/// A response whose body nobody is to see. A guest that still writes it goes on, and what it writes goes nowhere.
pub(super) fn without_body(response: http::Response<ResponseBody>) -> http::Response<ResponseBody> {
    response.map(|body| match body {
        ResponseBody::Whole(data) => ResponseBody::Whole(data),
        ResponseBody::Open(mut open) => {
            open.caller.wants_none();
            tokio::spawn(async move {
                // Its end is all that matters.
                while let Some(Ok(_)) = std::future::poll_fn(|cx| open.poll(cx)).await {}
            });
            ResponseBody::Whole(None)
        }
    })
}

/// The body of a guest's response, which carries the guest until it is done.
pub(crate) enum ResponseBody {
    /// All of it; taken out when it is sent.
    Whole(Option<Bytes>),
    /// The rest comes while it is read.
    Open(Box<Open>),
}

/// A body that is not known to its end.
pub(crate) struct Open {
    /// None when the guest has ended.
    running: Option<Running>,
    /// How it failed, until whoever reads the body knows.
    failed: Option<Fault>,
    /// What was read of the body already.
    ahead: VecDeque<Frame<Bytes>>,
    body: HyperOutgoingBody,
    hearing: Hearing,
    /// Who reads the body.
    caller: Arc<Caller>,
    /// How long the body is, where the head says so.
    length: Option<u64>,
    /// Bytes of it that were read.
    read: u64,
    /// Hears what the body is.
    pub(super) tap: Option<Tap>,
}

/// Why a guest's response ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseError {
    /// The guest failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The guest returned and left the body as it was, so that nobody knows whether that is all.
    #[error("the handler ended without finishing the body")]
    Unfinished,
    /// The guest's bytes are not what its head promised.
    #[error("the body is broken: {0}")]
    Broken(WasiHttpError),
}

impl ResponseBody {
    /// A body that is not known to its end, of a guest that has ended or is to be added.
    pub(super) fn open(body: HyperOutgoingBody) -> Self {
        Self::begun(body, VecDeque::new())
    }

    /// The same of a body whose first frames are `ahead`.
    fn begun(body: HyperOutgoingBody, ahead: VecDeque<Frame<Bytes>>) -> Self {
        Self::Open(Box::new(Open {
            running: None,
            failed: None,
            ahead,
            body,
            hearing: Hearing(None),
            caller: Arc::default(),
            length: None,
            read: 0,
            tap: None,
        }))
    }

    /// The body of a guest that has ended well: mostly it is one piece by now.
    pub(super) fn of_ended(mut body: HyperOutgoingBody) -> Result<Self, ResponseError> {
        let (mut ahead, mut cx) = (VecDeque::new(), Context::from_waker(Waker::noop()));
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

    /// Whether the guest still runs.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open(open) if open.running.is_some())
    }
}

impl Open {
    /// Carries a guest that still writes the body.
    pub(super) fn carry(&mut self, running: Running, hearing: Hearing, caller: Arc<Caller>, length: Option<u64>) {
        self.running = Some(running);
        self.hearing = hearing;
        self.caller = caller;
        self.length = length;
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(running) = &mut self.running else { return };
        if let Poll::Ready(end) = running.as_mut().poll(cx) {
            self.running = None;
            self.failed = end.result.as_ref().err().cloned();
            self.hearing.tell(end);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        self.caller.asks();
        let polled = self.poll_body(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.read += frame.data_ref().map_or(0, |data| data.len() as u64);
            self.caller.has_piece();
        }
        if let (Some(tap), Poll::Ready(part)) = (&mut self.tap, &polled) {
            tap.hear(part.as_ref());
        }
        polled
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        if let Some(frame) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.drive(cx);
        let runs = self.running.is_some();
        let frame = if runs { Pin::new(&mut self.body).poll_frame(cx) } else { poll_left(&mut self.body, cx) };
        match frame {
            Poll::Ready(Some(frame)) => Poll::Ready(Some(frame.map_err(ResponseError::Broken))),
            // What the guest does after the last byte is still its message: wait for its end.
            Poll::Ready(None) | Poll::Pending if runs => Poll::Pending,
            // A client must not take for the end what is none.
            Poll::Ready(None) => Poll::Ready(self.failed.take().map(|fault| Err(fault.into()))),
            // Nobody is left who could write the rest.
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

impl Drop for Open {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        // Its clock stops: nobody takes anything any more.
        self.caller.asks();
        let mut hearing = Hearing(self.hearing.0.take());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.length == Some(self.read) {
            // Whoever read the response has all of it. The guest finishes what it does, within its time.
            runtime.spawn(async move { hearing.tell(running.await) });
            return;
        }
        self.caller.leaves();
        runtime.spawn(async move {
            // Its next write fails. One that writes nothing is broken off, which is told when `hearing` is dropped.
            if let Ok(end) = tokio::time::timeout(FAREWELL, running).await {
                hearing.tell(end);
            }
        });
    }
}
