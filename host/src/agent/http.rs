//! Calls of agents that speak HTTP themselves.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use caxton_control::RevisionId;
use caxton_control::rollout::split::{Sticky, Talk};
use http_body::Body;
use http_body_util::BodyExt;

use super::began::{InHand, Noted};
use super::copy::CallRecording;
use super::error::AdmitError;
use super::stats::End;
use super::{Agent, InFlight, Revision};
use crate::clock;
use crate::store::CommitError;
use crate::trace::Trace;
use crate::wasm::{
    BodyError, Commits, Committer, Effects, Fault, HttpCall, HttpEnd, HttpFailure, Outcome, ResponseBody, Sent, Work,
    new_id,
};

/// An HTTP agent's response, whose body may still be coming.
pub(crate) struct HttpAnswer {
    /// The response.
    pub(crate) response: http::Response<ResponseBody>,
    /// Which revision made it.
    pub(crate) revision: Arc<RevisionId>,
    /// When its body has to be complete.
    pub(crate) deadline: Instant,
}

/// Why an HTTP agent brought no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The call was not begun.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] HttpFailure),
}

impl Agent {
    /// Hands a request to the agent. Its effects are committed before this returns its response; the rest of
    /// the body comes while it is read.
    pub(crate) async fn call_http<B>(
        self: &Arc<Self>,
        request: http::Request<B>,
        conversation: Option<String>,
        trace: Option<Trace>,
    ) -> Result<HttpAnswer, HttpError>
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
    {
        let began = Instant::now();
        let trial = self.admit_call()?;
        let (mut flight, in_hand) = self.enter(conversation.as_deref())?;
        let deadline = began + flight.revision.spec.limits.time;
        let lease = self.lease(&mut flight, true, deadline).await.map_err(HttpFailure::Fault)?;
        let revision = Arc::clone(&flight.revision);
        let deadline = began + revision.spec.limits.time;
        let called = Instant::now();
        let traced = trace.clone();
        let conversation = conversation.unwrap_or_else(new_id);
        let recording = self.record(&revision, 0).map(|one| CallRecording::new(one, &request, &conversation));
        let reading = recording.clone();
        let request = request.map(|body| {
            body.map_frame(move |frame| {
                if let (Some(recording), Some(data)) = (&reading, frame.data_ref()) {
                    recording.read(data);
                }
                frame
            })
        });
        let committer = self.committer(&revision, recording.clone());
        let work = Work {
            conversation,
            hops: 0,
            deadline,
            trace,
            outside: recording.as_ref().map(|recording| recording.outside()),
            commits: Commits::Through(Arc::clone(&committer)),
        };
        let call = HttpCall {
            request,
            work,
            time: deadline.saturating_duration_since(called),
            interrupt: revision.interrupt.clone(),
        };
        let ended = self.call_ended((flight, in_hand), began, called, traced);
        let mut response = call.run(lease, |effects| committer(effects), ended).await.inspect_err(|failure| {
            if let Some(recording) = &recording {
                recording.failed(failure);
            }
        })?;
        if let Some(trial) = trial {
            trial.answered();
        }
        if let Some(recording) = recording {
            recording.answered(&mut response);
        }
        Ok(HttpAnswer { response, revision: Arc::clone(&revision.id), deadline })
    }

    /// Returns what commits the effects of a call, with its response and before.
    fn committer(self: &Arc<Self>, revision: &Arc<Revision>, recording: Option<Arc<CallRecording>>) -> Committer {
        let (agent, revision) = (Arc::clone(self), Arc::clone(revision));
        Arc::new(move |effects| {
            let (agent, revision) = (Arc::clone(&agent), Arc::clone(&revision));
            if let Some(recording) = &recording {
                recording.committing(agent.name.as_str(), &effects);
            }
            Box::pin(async move { agent.commit_call(&revision, effects).await.map_err(|error| error.to_string()) })
        })
    }

    /// Keeps what an HTTP call has done, and delivers what it sent; returns when it is safe.
    async fn commit_call(&self, revision: &Revision, effects: Effects) -> Result<(), CommitError> {
        let lasts = !effects.writes.is_empty() || effects.ahead || effects.has_timers();
        if !lasts && (effects.sends.is_empty() || !self.commons.store.keeps_messages()) {
            self.commons.judged(effects.sends).into_iter().for_each(Sent::deliver);
            return Ok(());
        }
        let (mut sends, mut cancels) = (Vec::new(), Vec::new());
        let state = self.change(revision, (&mut sends, &mut cancels), effects);
        self.commit_with(state, sends, cancels).await
    }

    /// What is counted and told when a call has ended.
    fn call_ended(
        self: &Arc<Self>,
        (flight, in_hand): (InFlight, Option<InHand>),
        began: Instant,
        called: Instant,
        traced: Option<Trace>,
    ) -> Box<dyn FnOnce(HttpEnd) + Send> {
        let agent = Arc::clone(self);
        Box::new(move |end: HttpEnd| {
            let waited = called.saturating_duration_since(began);
            let well = Some(end.result.is_ok());
            agent.stats.ended(End { well, waited, took: called.elapsed(), cpu: end.cpu });
            agent.count_call(&end, &flight.revision);
            if !end.by_caller && end.result.as_ref().err().is_none_or(Fault::is_guests) {
                let took = end.result.is_ok().then(|| called.elapsed());
                flight.revision.measure(took, end.result.is_err());
            }
            if let Err(mut fault) = end.result {
                agent.stats.failed_with(fault.code());
                if let Fault::Time { limit, .. } = &mut fault {
                    // What was left of it when the guest began says nothing to anyone.
                    *limit = flight.revision.spec.limits.time;
                }
                let why = if end.by_caller { " because of what its caller did" } else { "" };
                let mut text = format!("an HTTP call failed{why}: {fault}");
                if let Some(trace) = traced {
                    text.push_str(&format!("; its trace is {}", trace.id()));
                }
                agent.commons.note(&flight.revision, "error", &text, &Outcome::Fault(fault));
            }
            drop((flight, in_hand));
        })
    }

    /// Counts a call as in flight on the revision that answers it, and its conversation as busy.
    fn enter(&self, conversation: Option<&str>) -> Result<(InFlight, Option<InHand>), AdmitError> {
        // It knows no conversations that are kept.
        self.check_open(None)?;
        let Some(name) = conversation else {
            let talk = Talk { conversation: None, goes_on: None, since: 0 };
            return Ok((self.enter_in(talk, 0)?, None));
        };
        // Noted with each call, so that a rollout that begins later finds those that began before it.
        let (now, first) = (clock::steady_ms(), self.note_beginning(name));
        let (flight, in_hand) = self.began.enter(name, |goes_on| {
            let flight = self.enter_in(Talk { conversation, goes_on, since: now }, first)?;
            let number = flight.revision.id.number;
            Ok::<_, AdmitError>((flight, number))
        })?;
        Ok((flight, Some(in_hand)))
    }

    /// Counts a call as in flight. Its conversation began at `first`, by the steady clock.
    fn enter_in(&self, talk: Talk<'_>, first: u64) -> Result<InFlight, AdmitError> {
        let flight = self.enter_on(|sticky, parted| {
            let since = if sticky == Sticky::Conversation { first } else { talk.since };
            parted.pick(sticky, Talk { since, ..talk })
        });
        let flight = flight.ok_or(AdmitError::Unavailable("no revision of it is ready"))?;
        // It counts itself.
        if flight.revision.in_flight() > self.most_in_flight(&flight.revision) {
            self.stats.count(super::Outcomes::Refused);
            return Err(AdmitError::Full { depth: self.spec.load().mailbox.depth });
        }
        Ok(flight)
    }

    /// When a conversation began, by the steady clock. Kept where conversations stay where they began.
    fn note_beginning(&self, name: &str) -> u64 {
        let (store, now) = (&self.commons.store, clock::steady_ms());
        let timeout = store.conversations.timeout();
        let (stays, over) = (self.sticky() == Sticky::Conversation, now.saturating_sub(timeout));
        let find = || {
            let kept = stays.then(|| store.beginning(self.name.as_str(), name, over))?;
            kept.inspect_err(
                |error| tracing::error!(agent = %self.name, error, "when a conversation began is not known"),
            )
            .ok()?
        };
        let Noted { first, is_news } = self.began.note(name, now, timeout, find);
        if stays && is_news {
            store.keep_beginning(self.name.shared(), name.to_owned(), first, now, over);
        }
        first
    }
}
