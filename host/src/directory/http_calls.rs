//! Calls over HTTP of agents, with what the agent's log and the events tell of those that did not succeed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde_json::json;

use super::HostDirectory;
use crate::bounds;
use crate::clock;
use crate::context::HostContext;
use crate::logs::Line;
use crate::message::{CallBody, CallContext, GuestHttpCall, HttpCallError, Identity};
use crate::outgoing::{CallNote, CallProblem, CallingAgent, NoteKind};

/// The time between two events of the same agent, place and code. A server that is gone would fill the store with them.
const EVENT_INTERVAL: Duration = Duration::from_secs(10);

impl HostDirectory {
    /// Makes a call over HTTP for an agent.
    pub(super) fn call_over_http(
        &self,
        who: &Arc<Identity>,
        work: &CallContext,
        call: GuestHttpCall,
    ) -> BoxFuture<'static, Result<http::Response<CallBody>, HttpCallError>> {
        let agent = CallingAgent {
            name: who.revision.agent.shared(),
            spec: Arc::clone(&who.spec),
            deadline: work.deadline,
            trace: work.trace.clone(),
            calls: work.calls.clone(),
            on_note: {
                let (context, who) = (Arc::clone(&self.context), Arc::clone(who));
                Arc::new(move |note: &CallNote| tell(&context, &who, note))
            },
        };
        let (context, who) = (Arc::clone(&self.context), Arc::clone(who));
        let on_problem = Arc::new(move |problem: &CallProblem| report(&context, &who, problem));
        Box::pin(self.context.outgoing.call(agent, call, on_problem))
    }
}

/// Writes a line to the agent's log, and an event unless there was one a moment ago.
fn report(context: &HostContext, who: &Identity, problem: &CallProblem) {
    let CallProblem { place, origin, method, error, reason } = problem;
    let (level, kind) = match error.is_refusal() {
        true => ("warn", "outgoing.refused"),
        false => ("info", "outgoing.failed"),
    };
    let did = if error.is_refusal() { "was refused" } else { "failed" };
    // By the line's own limit and not by that of events: the line is for the author, who looks for the last one.
    let line = Line {
        at: clock::now_ms(),
        agent: who.revision.agent.shared(),
        revision: who.revision.number,
        level,
        context: "caxton".to_owned(),
        text: format!("its call `{} {}` {did}: {reason}", bounds::quoted(method), bounds::quoted(origin)),
    };
    context.logs.write(line, who.spec.limits.log_lines);
    let agent = who.revision.agent.shared();
    let place = place.as_deref().unwrap_or("none");
    let key: Arc<str> = format!("{agent} {place} {}", error.code()).into();
    if let Some(suppressed) = context.call_problems.admit(&key, Instant::now(), EVENT_INTERVAL) {
        let data = json!({
            "revision": who.revision.number,
            "place": place,
            "method": bounds::quoted(method),
            "origin": bounds::quoted(origin),
            "code": error.code(),
            "reason": reason,
            "suppressed": suppressed,
        });
        context.events.emit(Some(&agent), kind, data);
    }
}

/// Counts what the journal tells of a call, and writes a line to the agent's log, and an event unless there was one a
/// moment ago.
fn tell(context: &HostContext, who: &Identity, note: &CallNote) {
    let CallNote { place, line, kind } = note;
    let agent = who.revision.agent.shared();
    let labels = [("agent", agent.to_string()), ("place", place.to_string()), ("result", kind.as_str().to_owned())];
    metrics::counter!("caxton_outgoing_journal_total", &labels).increment(1);
    let (level, did) = match kind {
        NoteKind::Answered => ("info", "was answered from the record of the same call before"),
        NoteKind::Diverged => {
            ("warn", "is made, although it is another than those that are recorded of an earlier run")
        }
        NoteKind::Repeated => ("warn", "is made again, as what came of it before is not known, or was no answer yet"),
        NoteKind::Unknown => ("error", "may have been carried out before or not; its message is given up"),
    };
    let text = format!("its call `{}` {did}", bounds::quoted(line));
    let written = Line {
        at: clock::now_ms(),
        agent: Arc::clone(&agent),
        revision: who.revision.number,
        level,
        context: "caxton".to_owned(),
        text,
    };
    context.logs.write(written, who.spec.limits.log_lines);
    let key: Arc<str> = format!("{agent} {place} {}", kind.as_str()).into();
    if let Some(suppressed) = context.call_problems.admit(&key, Instant::now(), EVENT_INTERVAL) {
        let (revision, call) = (who.revision.number, bounds::quoted(line));
        let data = json!({ "revision": revision, "place": place, "call": call, "suppressed": suppressed });
        let event = match kind {
            NoteKind::Answered => "outgoing.answered",
            NoteKind::Diverged => "outgoing.diverged",
            NoteKind::Repeated => "outgoing.repeated",
            NoteKind::Unknown => "outgoing.unknown",
        };
        context.events.emit(Some(&agent), event, data);
    }
}
