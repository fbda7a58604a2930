//! Calls of HTTP agents: components that export `wasi:http/incoming-handler`, or the handler of WASI 0.3.
//!
//! ```text
//! request -> guest runs until it sets the response's head -> commit -> head to the client
//!                 '-- goes on inside the response body, which polls it, until its last byte -> second commit, if needed
//! ```
//! The guest is polled by the reader of the response, so that a small response needs neither a task nor a wake-up, and
//! a client that leaves ends the guest. What a guest does not write at once is read by a task, ahead of the client
//! (`read_ahead`), so that a slow one holds no instance. No action of a client counts as a fault of the guest (`caller`).

pub(super) mod body_recorder;
pub(super) mod bodyless;
pub(super) mod caller;
pub(super) mod end;
pub(super) mod head_commit;
pub(super) mod outgoing;
pub(super) mod outgoing_linker;
pub(super) mod over_tls;
pub(super) mod read_ahead;
pub(super) mod response;
pub(super) mod response_progress;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::supervision::InstanceFailure;
use http_body::Body;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::bounds;
use crate::message::{CallContext, CommitFailure, Committer, Diagnostics, Effects, Fault};
use crate::wasm::guest_threads::GuestThreads;
use crate::wasm::http::bodyless::is_bodyless;
use crate::wasm::http::caller::{BodyError, CallerActivity, CallerBody};
use crate::wasm::http::end::{EndListener, Ended, HttpEnd, Running};
use crate::wasm::http::head_commit::{Head, HeadCommit, HeadCommitter};
use crate::wasm::http::response::{ResponseBody, ResponseError, length, without_body};
use crate::wasm::pool::lease::Lease;

/// The error of a call of an HTTP agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpFailure {
    /// The call of the guest failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The call ended in a conflict in each run: other handlers changed keys that it had read.
    #[error("{0}")]
    Conflict(String),
    /// The effects could not be committed.
    #[error("its effects were not committed: {0}")]
    NotCommitted(String),
}

/// The end of a call without a response.
pub(crate) enum Unanswered<E> {
    /// The call of the guest failed.
    Fault(Fault),
    /// The run was broken off because it depends on this key, which another handler has reserved. `Ended` was not
    /// called.
    BrokenOff(String, Box<Effects>, Ended),
    /// The effects were not committed. `Ended` was not called.
    Refused(E, Ended),
}

impl HttpFailure {
    /// Returns the stable code of the failure.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.code(),
            Self::Conflict(_) => "conflict",
            Self::NotCommitted(_) => "not-committed",
        }
    }
}

/// The parts of a call.
pub(crate) struct HttpCall<B> {
    /// The request.
    pub(crate) request: http::Request<B>,
    /// The context of the call.
    pub(crate) work: CallContext,
    /// The time limit, including the last byte of the response.
    pub(crate) time: Duration,
    /// Breaks the call off.
    pub(crate) interrupt: CancellationToken,
    /// The meaning of a fault for further instances.
    pub(crate) failure: InstanceFailure,
    /// The threads to which the guest moves when it computes.
    pub(crate) guests: GuestThreads,
    /// Commits what the guest writes and sends after the head.
    pub(crate) late: Committer,
}

impl<B> HttpCall<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
{
    /// Runs the guest until it has set the head of its response, commits its effects through `commit` unless the status
    /// is 500 or more, and returns the response. `ended` is called with the end of the guest, which may come much
    /// later.
    pub(crate) async fn run<C, F, E>(
        self,
        mut lease: Lease,
        commit: C,
        ended: Ended,
    ) -> Result<http::Response<ResponseBody>, Unanswered<E>>
    where
        C: FnOnce(Effects) -> F,
        F: Future<Output = Result<(), E>>,
    {
        let (sender, receiver) = oneshot::channel::<Head>();
        let mut listener = EndListener(Some(ended));
        let (method, time) = (self.request.method().clone(), self.time);
        let head_committer = HeadCommitter::default();
        let (head_commit, late) = (head_committer.commit(), self.late);
        let late_effects = lease.instance().late_effects();
        let caller = Arc::<CallerActivity>::default();
        let request = self.request.map(|body| CallerBody::new(body, &caller));
        let serving = Arc::clone(&caller);
        let running: Running = Box::pin(self.guests.movable(Box::pin(async move {
            tokio::select! {
                // Biased: a response that is ready counts even if the revision stops at the same moment.
                biased;
                end = lease.serve(request, self.work, time, (sender, self.failure, head_commit, late), &serving) => end,
                () = self.interrupt.cancelled() => Fault::Interrupted.into(),
            }
        })));
        let Begun { mut progress, head } = begin(running, receiver).await;
        let (mut response, effects) = match check_head(&progress, head, &method) {
            Ok(response) => response,
            Err(Fault::Reserved(key)) => {
                let effects = progress.take_broken_off();
                return Err(match listener.0.take() {
                    Some(ended) => Unanswered::BrokenOff(key, effects, ended),
                    None => Unanswered::Fault(Fault::Reserved(key)),
                });
            }
            Err(fault) => {
                let by_caller = progress.is_by_caller() || caller.has_caused(&fault, time, None);
                listener.notify(HttpEnd { cpu: progress.cpu(), by_caller, ..fault.clone().into() });
                return Err(Unanswered::Fault(fault));
            }
        };
        // A server error discards the effects. A copy keeps those that it would have committed earlier in the call.
        let effects = if response.status().is_server_error() { effects.up_to_checkpoint() } else { Some(effects) };
        if let Some(effects) = effects
            && let Err(why) = commit(effects).await
        {
            // Dropped first: the guest has to end before the next run starts.
            drop(progress);
            return Err(match listener.0.take() {
                Some(ended) => Unanswered::Refused(why, ended),
                None => Unanswered::Fault(Fault::Abandoned),
            });
        }
        head_committer.made();
        let length = length(response.headers());
        match (progress, response.body_mut()) {
            (Progress::Ended(end), _) => listener.notify(end),
            (Progress::Running(running), ResponseBody::Open(open)) => {
                open.attach_guest(running, listener, caller, (length, late_effects));
            }
            // Cannot happen: only the body of a guest that has ended is complete.
            (Progress::Running(_), ResponseBody::Whole(_)) => {}
        }
        Ok(if is_bodyless(&method, response.status()) { without_body(response) } else { response })
    }
}

/// A guest that has set its head, or has ended without.
struct Begun {
    progress: Progress,
    head: Option<Head>,
}

/// The progress of a guest.
enum Progress {
    Running(Running),
    Ended(HttpEnd),
}

impl Progress {
    /// Returns `true` if the guest has failed and a caller caused it.
    fn is_by_caller(&self) -> bool {
        matches!(self, Self::Ended(HttpEnd { by_caller: true, .. }))
    }

    /// Takes the effects until the run was broken off.
    fn take_broken_off(&mut self) -> Box<Effects> {
        let Self::Ended(HttpEnd { broken_off, .. }) = self else { return Box::default() };
        broken_off.take().unwrap_or_default()
    }

    /// Returns the time on a core, if the guest has ended.
    fn cpu(&self) -> Duration {
        match self {
            Self::Running(_) => Duration::ZERO,
            Self::Ended(end) => end.cpu,
        }
    }
}

/// Runs a guest until it has set its head or ends.
async fn begin(mut running: Running, mut receiver: oneshot::Receiver<Head>) -> Begun {
    let (mut end, mut is_without) = (None, false);
    // The guest is polled first, so that an immediate response needs no wake-up.
    let head = std::future::poll_fn(|cx| {
        if end.is_none()
            && let Poll::Ready(ready) = running.as_mut().poll(cx)
        {
            end = Some(ready);
        }
        if !is_without {
            match Pin::new(&mut receiver).poll(cx) {
                // Polled after the guest in the same turn: a guest that ended has often set its head in this very poll.
                Poll::Ready(Ok(head)) => return Poll::Ready(Some(head)),
                // On a thread of its own a guest that sets none is not quite at its end yet, which says why.
                Poll::Ready(Err(_)) => is_without = true,
                // Not by a poll, which may be put off.
                Poll::Pending if end.is_some() => return Poll::Ready(receiver.try_recv().ok()),
                Poll::Pending => {}
            }
        }
        if is_without && end.is_some() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await;
    Begun { progress: end.map_or(Progress::Running(running), Progress::Ended), head }
}

/// Checks that the guest has set a usable response.
fn check_head(
    progress: &Progress,
    head: Option<Head>,
    method: &http::Method,
) -> Result<(http::Response<ResponseBody>, Effects), Fault> {
    let (ended, diagnostics) = match progress {
        // A head that was set before a failure is not sent, and nothing is committed.
        Progress::Ended(HttpEnd { result: Err(fault), .. }) => return Err(fault.clone()),
        Progress::Ended(HttpEnd { diagnostics, .. }) => (true, diagnostics.clone()),
        Progress::Running(_) => (false, Diagnostics::default()),
    };
    let none = |why: String| Err(Fault::NoResponse { why, diagnostics: diagnostics.clone() });
    match head {
        None => none("the handler ended without one".to_owned()),
        // Some codes carry a text of the guest.
        Some((Err(code), _)) => none(bounds::cut(format!("the handler gave the error {code}"), bounds::REASON)),
        Some((Ok(response), _)) if response.status().is_informational() => {
            none(format!("the handler gave the status {}", response.status().as_u16()))
        }
        Some((Ok(response), effects)) => {
            let (head, body) = response.into_parts();
            let body = match ended {
                false => ResponseBody::open(body),
                // A body that is not sent may be broken.
                true if is_bodyless(method, head.status) => {
                    ResponseBody::of_ended(body).unwrap_or(ResponseBody::Whole(None))
                }
                true => ResponseBody::of_ended(body)
                    .map_err(|error| Fault::NoResponse { why: error.to_string(), diagnostics: diagnostics.clone() })?,
            };
            Ok((http::Response::from_parts(head, body), effects))
        }
    }
}

impl Lease {
    /// Runs a request until the guest ends. The head goes to `sender` when the guest sets it.
    async fn serve<B>(
        mut self,
        request: http::Request<B>,
        work: CallContext,
        time: Duration,
        (sender, failure, head_commit, late): (oneshot::Sender<Head>, InstanceFailure, HeadCommit, Committer),
        caller: &CallerActivity,
    ) -> HttpEnd
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
    {
        let instance = self.instance();
        let head = (sender, head_commit.clone());
        let mut result = if instance.is_service() {
            instance.serve_service(request, work, time, head).await
        } else {
            instance.serve_http(request, work, time, head).await
        };
        // Read before the lease is finished below, after which the instance may belong to another call.
        let cpu = self.instance().cpu();
        let broken_off = matches!(result, Err(Fault::Reserved(_))).then(|| Box::new(self.instance().take_effects()));
        // A guest that returned without a complete response may be in an undefined state, and is not reused.
        let answered = self.instance().has_answered();
        let diagnostics = if answered { Diagnostics::default() } else { self.instance().diagnostics() };
        let ended = result.is_ok();
        if ended && self.instance().left_its_body() {
            // Otherwise dropping the instance would end the body as if it were complete.
            let why = ResponseError::Unfinished.to_string();
            result = Err(Fault::NoResponse { why, diagnostics: diagnostics.clone() });
        }
        if result.is_ok() {
            result = self.commit_late(&head_commit, &late).await;
        }
        let starved = self.instance().starved();
        let by_caller = result.as_ref().err().is_some_and(|fault| caller.has_caused(fault, time, starved));
        match &result {
            Err(fault) if !ended && fault.is_guests() && !by_caller => self.fail(fault, failure),
            Ok(()) | Err(_) => self.finish(ended && answered),
        }
        HttpEnd { result, cpu, diagnostics, by_caller, broken_off }
    }

    /// Commits what the guest wrote and sent after the head of its response.
    ///
    /// # Errors
    /// It was refused: the body has to break off.
    async fn commit_late(&mut self, head: &HeadCommit, late: &Committer) -> Result<(), Fault> {
        let Some(effects) = self.instance().take_late_effects() else { return Ok(()) };
        if !head.is_made().await {
            // Nobody reads the body any more: the caller was told that the call failed.
            return Err(Fault::Abandoned);
        }
        late(effects, true).await.map_err(|error| match error {
            CommitFailure::Conflict(conflict) => Fault::Reserved(conflict.key),
            CommitFailure::Other(why) => Fault::Host(format!("its effects after the head were not committed: {why}")),
        })
    }
}
