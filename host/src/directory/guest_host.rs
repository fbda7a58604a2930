//! The host interface of guests: everything outside of an instance.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_control::RevisionId;
use futures::future::BoxFuture;
use serde_json::json;

use super::HostDirectory;
use crate::bounds;
use crate::clock;
use crate::logs::Line;
use crate::message::{
    CallBody, CallContext, CallScope, Draft, Fault, GuestConnect, GuestHost, GuestHttpCall, HttpCallError, Identity,
    LogLevel, LookedUp, Message, Outgoing, Read, RequestError, Seen, SendError, TcpConnection, TcpError, TimerName,
};

impl GuestHost for HostDirectory {
    fn admit(&self, who: &Identity, work: &CallContext, draft: Draft) -> Result<Outgoing, SendError> {
        let (agent, mut envelope) = self.address_draft(who, work, draft)?;
        Self::begin_agents_tree(&agent, &mut envelope, Some(who.name()));
        Ok(agent.admit(who, work, envelope)?)
    }

    fn request<'a>(
        &'a self,
        who: &'a Identity,
        work: &'a CallContext,
        draft: Draft,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Message, RequestError>> + Send + 'a>> {
        Box::pin(self.ask_agent(who, work, draft, timeout))
    }

    fn find(&self, capability: &str) -> Vec<String> {
        self.routes.load().with_capability(capability).iter().map(|agent| agent.name().to_string()).collect()
    }

    fn read(&self, agent: &str, key: &str) -> Result<Seen<Option<Read>>, String> {
        let routes = self.routes.load();
        let under_way = || routes.including_retiring(agent).and_then(|agent| agent.under_way(key));
        // First: a value under way is newer than the store's.
        if let Some(what) = under_way() {
            return Ok(Seen { value: what, durable: false });
        }
        let value = self.context.store.state().read(agent, key)?;
        // Looked up again: a commit that began between the two may be what the store returned.
        let safe = under_way().is_none();
        Ok(Seen { value, durable: safe })
    }

    fn keys(&self, agent: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        match self.routes.load().including_retiring(agent) {
            Some(agent) => agent.keys(prefix, after, limit),
            None => Ok(Seen { value: self.context.store.state().keys(agent, prefix, after, limit)?, durable: true }),
        }
    }

    fn timer(&self, agent: &str, timer: &TimerName) -> Result<Option<String>, String> {
        Ok(self.context.store.timers().get(agent, timer)?.map(|(id, _)| id))
    }

    fn saved<'a>(&'a self, revision: &'a RevisionId) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        Box::pin(async move {
            let agent = self.routes.load().including_retiring(revision.agent.as_str()).cloned();
            if let Some(agent) = agent {
                // The commits of the instance before, which may have a newer memory than the store.
                agent.until_memory_settles().await;
            }
            Ok(self
                .context
                .store
                .snapshots()
                .get(revision.agent.as_str(), revision.number)?
                .map(|snapshot| snapshot.data))
        })
    }

    fn not_restored(&self, revision: &RevisionId, fault: &Fault) {
        let labels = [("agent", revision.agent.to_string()), ("what", "restore".to_owned())];
        metrics::counter!("caxton_snapshot_failures_total", &labels).increment(1);
        let data = json!({ "revision": revision.number, "reason": fault.to_string() });
        self.context.events.emit(Some(revision.agent.as_str()), "snapshot.not-restored", data);
        tracing::error!(agent = %revision.agent, "{revision} did not take up what was saved, which is kept: {fault}");
    }

    fn given_up(&self, revision: &RevisionId) {
        // The reconciler ends the revision.
        self.context.wake(revision.agent.shared());
    }

    fn size(&self, agent: &str, key: &str) -> Result<u64, String> {
        let bytes = |value: u64| key.len() as u64 + value;
        let routes = self.routes.load();
        let under_way = routes.including_retiring(agent).and_then(|agent| agent.under_way(key));
        if let Some(read) = under_way {
            return Ok(read.map_or(0, |read| bytes(read.value.len() as u64)));
        }
        // Without the value, which may be as large as the quota.
        Ok(self.context.store.state().value_bytes(agent, key)?.map_or(0, bytes))
    }

    fn call_http(
        &self,
        who: &Arc<Identity>,
        work: &CallContext,
        call: GuestHttpCall,
    ) -> BoxFuture<'static, Result<http::Response<CallBody>, HttpCallError>> {
        self.call_over_http(who, work, call)
    }

    fn look_up(
        &self,
        who: &Arc<Identity>,
        work: &CallContext,
        name: String,
        scope: Arc<CallScope>,
    ) -> BoxFuture<'static, Result<LookedUp, TcpError>> {
        self.look_up_name(who, work, name, scope)
    }

    fn connect(
        &self,
        who: &Arc<Identity>,
        work: &CallContext,
        call: GuestConnect,
    ) -> BoxFuture<'static, Result<Arc<TcpConnection>, TcpError>> {
        self.connect_over_tcp(who, work, call)
    }

    fn admits_change(&self, _: &str) -> bool {
        // The folder has been granted to be written to.
        true
    }

    fn log(&self, who: &Identity, level: LogLevel, context: &str, text: &str) {
        let line = Line {
            at: clock::now_ms(),
            agent: who.revision.agent.shared(),
            revision: who.revision.number,
            level: level_name(level),
            context: bounds::beginning(context, bounds::LOG_CONTEXT).to_owned(),
            text: bounds::beginning(text, bounds::LOG_TEXT).to_owned(),
        };
        self.context.logs.write(line, who.spec.limits.log_lines);
    }
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Critical => "critical",
    }
}
