//! Connections over TCP of agents, with what the agent's log and the events tell of those that were not made.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use serde_json::json;

use super::HostDirectory;
use super::http_calls::EVENT_INTERVAL;
use crate::bounds;
use crate::clock;
use crate::context::HostContext;
use crate::logs::Line;
use crate::message::{CallContext, CallScope, GuestConnect, Identity, LookedUp, TcpConnection, TcpError};
use crate::outgoing::{ConnectingAgent, OnTcpProblem, TcpProblem};

impl HostDirectory {
    /// Looks up a name for an agent.
    pub(super) fn look_up_name(
        &self,
        who: &Arc<Identity>,
        work: &CallContext,
        name: String,
        scope: Arc<CallScope>,
    ) -> BoxFuture<'static, Result<LookedUp, TcpError>> {
        let agent = calling(who, work);
        Box::pin(self.context.outgoing.look_up(agent, name, scope, self.on_tcp_problem(who)))
    }

    /// Makes a connection for an agent.
    pub(super) fn connect_over_tcp(
        &self,
        who: &Arc<Identity>,
        work: &CallContext,
        call: GuestConnect,
    ) -> BoxFuture<'static, Result<Arc<TcpConnection>, TcpError>> {
        let agent = calling(who, work);
        Box::pin(self.context.outgoing.connect(agent, call, self.on_tcp_problem(who)))
    }

    fn on_tcp_problem(&self, who: &Arc<Identity>) -> OnTcpProblem {
        let (context, who) = (Arc::clone(&self.context), Arc::clone(who));
        Arc::new(move |problem: &TcpProblem| report(&context, &who, problem))
    }
}

fn calling(who: &Arc<Identity>, work: &CallContext) -> ConnectingAgent {
    ConnectingAgent {
        name: who.revision.agent.clone(),
        spec: Arc::clone(&who.spec),
        deadline: work.deadline,
        tree: work.tree.clone(),
    }
}

/// Writes a line to the agent's log, and an event unless there was one a moment ago.
fn report(context: &HostContext, who: &Identity, problem: &TcpProblem) {
    let TcpProblem { place, target, error, reason } = problem;
    let (level, kind, did) = match error.is_refusal() {
        true => ("warn", "outgoing.refused", "was refused"),
        false => ("info", "outgoing.failed", "failed"),
    };
    let line = Line {
        at: clock::now_ms(),
        agent: who.revision.agent.shared(),
        revision: who.revision.number,
        level,
        context: "caxton".to_owned(),
        text: format!("its connection to `{}` {did}: {reason}", bounds::quoted(target)),
    };
    context.logs.write(line, who.spec.limits.log_lines);
    let agent = who.revision.agent.shared();
    let place = place.as_deref().unwrap_or("none");
    let key: Arc<str> = format!("{agent} tcp {place} {}", error.code()).into();
    if let Some(suppressed) = context.call_problems.admit(&key, Instant::now(), EVENT_INTERVAL) {
        let data = json!({
            "revision": who.revision.number,
            "place": place,
            "origin": format!("tcp://{}", bounds::quoted(target)),
            "code": error.code(),
            "reason": reason,
            "suppressed": suppressed,
        });
        context.events.emit(Some(&agent), kind, data);
    }
}
