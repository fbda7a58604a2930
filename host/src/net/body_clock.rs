//! The time of a request's body: the longest pause, and the time by which it has to be whole.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// The reason why a body was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LateBody {
    /// The client sent nothing of the body for this long.
    #[error("nothing more of the body came for {} ms (http.stall-timeout)", .0.as_millis())]
    Stalled(Duration),
    /// The body was not whole within this time.
    #[error("the body was not whole within {} ms", .0.as_millis())]
    Unfinished(Duration),
}

/// Measures the time of one body.
pub(crate) struct BodyClock {
    stall: Duration,
    whole: Duration,
    /// The time by which the body has to be whole.
    deadline: Instant,
    /// The timer of the current pause. Created when the client first pauses: most bodies arrive in one piece and need
    /// none.
    timer: Option<Pin<Box<Sleep>>>,
    is_pausing: bool,
}

impl BodyClock {
    /// Starts the time of a body, of which each pause is bounded by `stall` and the whole by `whole`.
    pub(crate) fn start(stall: Duration, whole: Duration) -> Self {
        // A day ahead, for a time that cannot be added: no such setting is larger.
        let now = Instant::now();
        let deadline = now.checked_add(whole).unwrap_or(now + Duration::from_secs(24 * 60 * 60));
        Self { stall, whole, deadline, timer: None, is_pausing: false }
    }

    /// Notes that a part of the body came.
    pub(crate) fn note_part(&mut self) {
        self.is_pausing = false;
    }

    /// Waits while nothing comes. Returns the reason once that has lasted for too long.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<LateBody> {
        let stalled_at = Instant::now() + self.stall;
        let until = stalled_at.min(self.deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        // One timer is reset for each pause: to create one a pause would allocate in the hot path.
        if !std::mem::replace(&mut self.is_pausing, true) {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).map(|()| {
            if Instant::now() >= self.deadline {
                LateBody::Unfinished(self.whole)
            } else {
                LateBody::Stalled(self.stall)
            }
        })
    }
}

/// A body that fails once it is late.
pub(crate) struct TimedBody<B> {
    body: B,
    clock: BodyClock,
}

impl<B> TimedBody<B> {
    /// Wraps a body whose pauses are bounded by `stall`, and its whole time by `whole`.
    pub(crate) fn new(body: B, stall: Duration, whole: Duration) -> Self {
        Self { body, clock: BodyClock::start(stall, whole) }
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, clock } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            clock.note_part();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        clock.poll_late(cx).map(|late| Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn a_trickle_does_not_extend_the_whole_time() {
        let whole = Duration::from_millis(30);
        let mut clock = BodyClock::start(LONG, whole);
        loop {
            let pause = poll_fn(|cx| clock.poll_late(cx));
            if let Ok(late) = tokio::time::timeout(Duration::from_millis(1), pause).await {
                assert_eq!(late, LateBody::Unfinished(whole));
                return;
            }
            clock.note_part();
        }
    }

    #[tokio::test]
    async fn silence_ends_a_body_early() {
        let stall = Duration::from_millis(1);
        let mut clock = BodyClock::start(stall, LONG);
        assert_eq!(poll_fn(|cx| clock.poll_late(cx)).await, LateBody::Stalled(stall));
    }
}
